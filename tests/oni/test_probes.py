"""The learner solves each probe, and with it shows that one part of it works."""

import jax.numpy as jnp
import numpy as np
import pytest
from probing import config, trained

from llm_annotator.types import LabelStatus, LabelUpdate
from oni.config import NetworkConfig, RewardConfig
from oni.networks import unroll

pytestmark = pytest.mark.slow


def values(trainer, observations, steps=1):
    """Values of observations, each shown `steps` times in a new episode."""
    obs = jnp.broadcast_to(jnp.array(observations, jnp.float32)[None], (steps, len(observations), 2))
    reset = jnp.zeros((steps, len(observations)), bool).at[0].set(True)
    state = trainer.network.initial_state(len(observations))
    _, value = unroll(trainer.network, trainer.state.learner.params, state, obs, reset)
    return np.asarray(value[-1])


def success(trainer):
    return trainer.window.means()["success"]


def test_value_head():
    np.testing.assert_allclose(values(trained(config("value"), 60), [(0, 0)]), [1.0], atol=0.1)


def test_value_depends_on_the_observation():
    trainer = trained(config("obs-value"), 80)
    np.testing.assert_allclose(values(trainer, [(1, 0), (-1, 0)]), [1.0, -1.0], atol=0.15)


def test_discount():
    trainer = trained(config("discount", discount=0.5), 100)
    np.testing.assert_allclose(values(trainer, [(0, 0), (0, 1)]), [0.5, 1.0], atol=0.12)


def test_bootstrapping_through_the_time_limit():
    trainer = trained(config("time-limit", discount=0.8), 500)
    # 1 + 0.8 + 0.64 + ... = 5, as if there were no limit; without bootstrapping at most 3.36
    np.testing.assert_allclose(values(trainer, [(0, 0)]), [5.0], atol=0.35)


def test_policy():
    assert success(trained(config("policy"), 80)) > 0.95


def test_policy_that_looks():
    assert success(trained(config("obs-policy"), 60)) > 0.95


@pytest.mark.parametrize("core", ["gru", "lstm"])
def test_memory(core):
    network = NetworkConfig(hidden_size=16, core=core, core_size=16)
    assert success(trained(config("memory", network=network), 150)) > 0.95


def test_without_memory_the_memory_probe_is_a_coin_flip():
    assert success(trained(config("memory"), 60)) < 0.75


def judge(new):
    good = (b"You find a coin.", b"You reach the exit.")
    return [
        LabelUpdate(caption=text, status=LabelStatus.LABELLED, helpful=text in good, p_helpful=None) for text in new
    ]


@pytest.mark.parametrize("probe", ["intrinsic", "last-caption"])
def test_only_the_intrinsic_reward_leads_there(probe):
    reward = RewardConfig(kind="retrieval", intrinsic_coef=1.0, count_exponent=0.0)
    assert success(trained(config(probe, reward=reward), 80, labels=judge)) > 0.95


def test_without_labels_the_intrinsic_probe_is_a_coin_flip():
    reward = RewardConfig(kind="retrieval", intrinsic_coef=1.0)
    assert success(trained(config("intrinsic", reward=reward), 40)) < 0.75


def test_reward_free_training_ignores_the_game():
    reward = RewardConfig(kind="retrieval", extrinsic_coef=0.0)
    trainer = trained(config("policy", reward=RewardConfig(kind="none", extrinsic_coef=0.0)), 30)
    assert reward.extrinsic_coef == 0.0
    assert 0.25 < success(trainer) < 0.75
