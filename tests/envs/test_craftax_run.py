"""A short training on Craftax-Classic: it learns from map and status, is labelled, and resumes bit-equal."""

import jax
import numpy as np
import pytest

from oni.config import EnvConfig, NetworkConfig, PPOConfig, RewardConfig, TrainConfig
from oni.trainer import Trainer

pytest.importorskip("craftax")


def config():
    return TrainConfig(
        name="craftax",
        total_env_steps=10_000,
        env=EnvConfig(
            id="craftax:Craftax-Classic",
            num_envs=4,
            options={"detail": "full", "max_steps": 30, "num_worlds": 2},
        ),
        network=NetworkConfig(hidden_size=16, core="gru", core_size=16),
        ppo=PPOConfig(num_steps=16, num_epochs=1, num_minibatches=2),
        reward=RewardConfig(kind="retrieval"),
    )


@pytest.mark.slow
def test_a_resumed_run_learns_from_the_whole_observation_and_is_bit_equal_to_one_never_stopped():
    with Trainer(config()) as trainer:
        first = jax.device_get(trainer.state.learner.params)
        for _ in range(2):
            trainer.update()
        trainer.flush()
        state, host = jax.device_get(trainer.state), trainer.host_state()
        for _ in range(2):
            trainer.update()
        metrics = trainer.flush().metrics
        assert np.isfinite(metrics["loss/value"])
        assert metrics["captions/distinct"] > 3
        expected = jax.device_get(trainer.state)
        changed = jax.tree.map(lambda a, b: bool((a != b).any()), first, expected.learner.params)
        assert all(jax.tree.leaves(changed["encoder"])), "table of each channel of the map, and the numbers"
        # In the same trainer, so that nothing is compiled twice: what it knew is replaced by what was saved.
        trainer.load(state, host)
        for _ in range(2):
            trainer.update()
        trainer.flush()
        for ours, theirs in zip(jax.tree.leaves(jax.device_get(trainer.state)), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(ours, theirs)
