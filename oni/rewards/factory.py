"""Creates the rewards that a config names. The only place that looks at `reward.kind`."""

import dataclasses
from collections.abc import Callable

from oni.config import ANNOTATED_KINDS, RewardConfig, RewardLearnerConfig, TrainConfig
from oni.rewards.added import Added
from oni.rewards.base import RewardModel
from oni.rewards.none import NoReward
from oni.rewards.retrieval import Retrieval


def learner_of(config: TrainConfig) -> RewardLearnerConfig:
    """Returns how a model learns: in the trainer's own thread where the same seed shall give the same figures."""
    learner = config.reward.learner
    return dataclasses.replace(learner, in_background=learner.in_background and not config.annotator.deterministic)


def _classification(config: TrainConfig) -> RewardModel:
    from oni.rewards.classification import THRESHOLD, Classification

    reward = config.reward
    return Classification(
        learner_of(config),
        threshold=THRESHOLD if reward.threshold is None else reward.threshold,
        use_probability=reward.use_probability,
        seed=config.seed,
    )


def _ranking(config: TrainConfig) -> RewardModel:
    from oni.rewards.ranking import THRESHOLD, Ranking

    reward = config.reward
    return Ranking(
        learner_of(config),
        reward.preferences,
        threshold=THRESHOLD if reward.threshold is None else reward.threshold,
        seed=config.seed,
    )


def _embedding(config: TrainConfig) -> RewardModel:
    from oni.rewards.embedding import make_embedding

    reward = config.reward
    return make_embedding(
        goal=config.annotator.labeler.goal,
        goal_text=reward.goal_text,
        baseline_text=reward.baseline_text,
        baseline_strength=reward.baseline_strength,
        threshold=reward.threshold,
    )


def _offline(config: TrainConfig) -> RewardModel:
    from oni.rewards.offline import Offline

    reward = config.reward
    return Offline(reward.path, threshold=reward.threshold, use_probability=reward.use_probability)


MODELS: dict[str, Callable[[TrainConfig], RewardModel]] = {
    "none": lambda config: NoReward(),
    "retrieval": lambda config: Retrieval(use_probability=config.reward.use_probability),
    "classification": _classification,
    "ranking": _ranking,
    "embedding": _embedding,
    "offline": _offline,
}
"""Rewards of captions. Those of single steps are in `oni.rewards.novelty`."""


def weights_of(config: RewardConfig) -> dict[str, float]:
    """Returns the weight of each kind of reward that the config names."""
    weights = {config.kind: 1.0}
    if config.add is not None:
        weights[config.add] = config.add_weight
    return weights


def scores_captions(config: RewardConfig) -> bool:
    """Tells whether captions can earn anything, so that the games must say something."""
    return any(kind in MODELS and kind != "none" for kind in weights_of(config))


def asks_annotator(config: RewardConfig) -> bool:
    """Tells whether an LLM must be asked for what the config names."""
    return any(kind in ANNOTATED_KINDS for kind in weights_of(config))


def make_reward_model(config: TrainConfig) -> RewardModel:
    """Creates what scores captions: the model named by `config.reward.kind`, `config.reward.add` added to it.

    Raises:
        ConfigError: its settings cannot be used, or two that cannot be added.
    """
    parts = [(weight, MODELS[kind](config)) for kind, weight in weights_of(config.reward).items() if kind in MODELS]
    if not parts:
        return NoReward()
    # By the kinds alone: with another weight, a run goes on with what it has learned.
    return parts[0][1] if len(parts) == 1 and config.reward.kind in MODELS else Added(parts)
