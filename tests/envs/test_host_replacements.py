"""`GamePool` when a replacement dies, too: the games that are shown are the games that are played."""

import numpy as np
import pytest
from host_games import ACTIONS, HallEnv, QuietHallEnv

from envs.host.pool import GamePool
from envs.host.seeding import episode_seed

pytestmark = pytest.mark.slow  # a new worker takes half a second to come up

SEED = 5
STEPS = 1  # column of the state


def test_a_replacement_that_dies_at_once_costs_no_step_of_its_successor():
    env = HallEnv(curse=episode_seed(SEED, 0, 1))  # the episode after the one that is lost
    with GamePool(env, 2, seed=SEED, num_groups=1, num_workers=1) as pool:
        (group,) = pool.groups
        group.reset()
        group.send(np.array([ACTIONS.index("raise"), 0]))
        assert group.recv().info["lost"].all()
        assert pool.deaths == 2
        for played in (1, 2):
            group.send(np.zeros(2, np.int32))
            step = group.recv()
            assert not step.info["lost"].any()
            assert step.final_obs["state"][:, STEPS].tolist() == [played, played]


def test_games_come_back_after_a_replacement_that_died_at_once():
    env = QuietHallEnv(curse=episode_seed(SEED, 0, 1))
    env.spec = env.spec._replace(action_names=ACTIONS)
    with GamePool(env, 2, seed=SEED, num_groups=1, num_workers=1) as pool:
        (group,) = pool.groups
        group.reset()
        for action in (ACTIONS.index("raise"), 0):
            group.send(np.array([action, 0]))
            group.recv()
        saved = pool.snapshot()
    with GamePool(env, 2, seed=SEED, num_groups=1, num_workers=1) as pool:
        (step,) = pool.restore(saved)
        assert not step.truncated.any()
