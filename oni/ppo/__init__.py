"""Recurrent PPO: advantages, losses, and the update."""

from oni.ppo.gae import generalized_advantages
from oni.ppo.loss import PPOLossTerms, categorical_entropy, categorical_log_prob, ppo_loss
from oni.ppo.streams import Stream, advantages_and_targets, reward_streams
from oni.ppo.update import Batch, Learner, make_learner

__all__ = [
    "Batch",
    "Learner",
    "PPOLossTerms",
    "Stream",
    "advantages_and_targets",
    "categorical_entropy",
    "categorical_log_prob",
    "generalized_advantages",
    "make_learner",
    "ppo_loss",
    "reward_streams",
]
