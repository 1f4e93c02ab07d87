"""Intrinsic rewards: what a caption is worth, and how that is mixed into the return."""

from oni.rewards.base import CaptionReward, Needs, RewardModel
from oni.rewards.factory import make_reward_model
from oni.rewards.mixing import MixedReward, MixState, RewardCounts, make_mix
from oni.rewards.schedule import make_schedule

__all__ = [
    "CaptionReward",
    "MixState",
    "MixedReward",
    "Needs",
    "RewardCounts",
    "RewardModel",
    "make_mix",
    "make_reward_model",
    "make_schedule",
]
