"""Creates the reward model that a config names. The only place that looks at `reward.kind`."""

from collections.abc import Callable

from oni.config import RewardConfig
from oni.rewards.base import RewardModel
from oni.rewards.none import NoReward
from oni.rewards.retrieval import Retrieval

MODELS: dict[str, Callable[[RewardConfig], RewardModel]] = {
    "none": lambda config: NoReward(),
    "retrieval": lambda config: Retrieval(use_probability=config.use_probability),
}


def make_reward_model(config: RewardConfig) -> RewardModel:
    """Creates the reward model named by `config.kind`."""
    return MODELS[config.kind](config)
