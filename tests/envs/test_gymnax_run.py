"""A short training on a game of gymnax that speaks."""

import numpy as np
import pytest

from oni.config import EnvConfig, NetworkConfig, PPOConfig, RewardConfig, TrainConfig
from oni.trainer import Trainer

pytest.importorskip("gymnax", reason="the extra gymnax is not installed")


@pytest.mark.slow
def test_a_short_training():
    config = TrainConfig(
        env=EnvConfig(id="gymnax:FourRooms-misc", num_envs=8),
        network=NetworkConfig(hidden_size=16, core_size=16),
        ppo=PPOConfig(num_steps=16, num_minibatches=2, num_epochs=1),
        reward=RewardConfig(kind="retrieval"),
    )
    with Trainer(config) as trainer:
        for _ in range(3):
            trainer.update()
        metrics = trainer.flush().metrics
        assert np.isfinite(metrics["loss/value"])
        assert metrics["captions/distinct"] > 1
