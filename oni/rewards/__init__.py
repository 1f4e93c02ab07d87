"""Intrinsic rewards: what a caption is worth, and how that is mixed into the return."""

from oni.rewards.base import RewardModel
from oni.rewards.factory import make_reward_model
from oni.rewards.mixing import MixedReward, RewardCounts, make_mix

__all__ = ["MixedReward", "RewardCounts", "RewardModel", "make_mix", "make_reward_model"]
