"""How episodes of games in worker processes looked at their end, kept for people."""

import jax
import numpy as np
import pytest

import envs
from oni.actors.sebulba import SebulbaActors
from oni.config import EnvConfig, NetworkConfig
from oni.devices import Devices
from oni.networks import init_params, make_network

pytestmark = pytest.mark.slow  # they compile

T, B = 6, 4
ONE = Devices(jax.devices()[:1])
NETWORK = NetworkConfig(hidden_size=8, core="none", core_size=8)


def last_ends(rollout):
    """Returns the last step of each game that ended an episode, -1 for none."""
    ended = np.asarray(rollout.terminated | rollout.truncated)
    steps = np.where(ended, np.arange(len(ended))[:, None], -1)
    return steps.max(axis=0)


@pytest.mark.parametrize("shown", [True, False])
def test_ends_of_games_in_worker_processes(shown):
    env = envs.make("hostprobe:memory")
    network = make_network(NETWORK, env.spec)
    params = init_params(network, env.spec, jax.random.key(1))
    settings = EnvConfig(id="hostprobe:memory", num_envs=B, num_workers=1)
    actors = SebulbaActors(env, network, settings, ONE, num_steps=T, seed=0, shown=shown)
    try:
        _, rollout, _ = actors.collect(params, actors.start(jax.random.key(2)), jax.random.key(3))
    finally:
        actors.close()
    if not shown:
        assert rollout.endings == ()
        return
    assert np.asarray(rollout.endings.step).tolist() == last_ends(rollout).tolist() == [3] * B
    # the clock of an episode of four steps: 0, 1/4, 1/2, 3/4, and at its end 1, which no step begins with
    assert np.asarray(rollout.endings.obs["signal"])[:, 1].tolist() == [1.0] * B
    assert np.asarray(rollout.obs["signal"])[..., 1].max() == 0.75
