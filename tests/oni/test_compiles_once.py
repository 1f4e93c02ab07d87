"""The rollout and the update of a run are compiled once, whatever the games say and however labels come in.

A recompilation of Craftax takes the time of a million steps, and nothing else would show it.
"""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import pytest
from probing import TINY
from probing import config as probe_config
from test_probes import judge

from envs.errors import EnvContractError
from envs.probes import ProbeEnv
from envs.testing import check_env
from oni.compilations import ROLLOUT, UPDATE, Compilations
from oni.config import EnvConfig, PPOConfig, RewardConfig, TrainConfig
from oni.trainer import Trainer

FAMILIES = {
    "xminigrid:MiniGrid-DoorKey-5x5": {"talkative": True, "max_steps": 20},
    "xminigrid:XLand-MiniGrid-R1-9x9": {"num_rulesets": 8, "max_steps": 20},
    "gymnax:Breakout-MinAtar": {},
    "craftax:Craftax-Classic": {"detail": "full", "max_steps": 30, "num_worlds": 2},
}


def needs(env_id):
    package = env_id.partition(":")[0]
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("env_id", [pytest.param(env_id, marks=needs(env_id)) for env_id in FAMILIES])
def test_rollout_and_update_are_compiled_once(env_id):
    config = TrainConfig(
        env=EnvConfig(id=env_id, num_envs=8, options=FAMILIES[env_id]),
        network=TINY,
        ppo=PPOConfig(num_steps=4, num_epochs=1, num_minibatches=2),  # so short that captions come up one by one
        reward=RewardConfig(kind="retrieval", intrinsic_schedule="linear"),
    )
    with Compilations() as heard, Trainer(config) as trainer:
        new = []
        for number in range(10):
            progress = trainer.update()
            new.append(len(progress.new))
            if number % 2:  # labels come in after some updates and not after others
                trainer.take_labels(judge([bytes(text) for text in trainer.captions.texts[1:]]))
            if number == 3:  # as where a checkpoint is written in between
                trainer.flush()
        assert any(new[1:]), "captions that come up later"
        assert trainer.flush().metrics["captions/labelled"] > 0
        assert heard.count(ROLLOUT) == 1
        assert heard.count(UPDATE) == 1
        assert heard.count("mix") == 1


class Weak(ProbeEnv):
    """A game whose first state is a Python number, as those of some libraries are: after a step it has another type."""

    def reset(self, key):
        state, timestep = super().reset(key)
        return state._replace(step=jnp.asarray(0)), timestep

    def step(self, key, state, action):
        state, timestep = super().step(key, state, action)
        return state._replace(step=state.step.astype(jnp.int32)), timestep


def weak():
    return Weak("policy")


@pytest.mark.slow
def test_a_game_that_makes_the_rollout_compile_twice_is_found_out():
    """`check_env` refuses such a game; this shows that the tests above would fail with it."""
    with pytest.raises(EnvContractError, match="weak"):
        check_env(weak())
    plain = probe_config("policy")
    with Compilations() as heard, Trainer(dataclasses.replace(plain, env=EnvConfig("test_compiles_once:weak"))) as run:
        for _ in range(3):
            run.update()
        assert heard.count(ROLLOUT) == 2
        assert heard.count(UPDATE) == 1


@pytest.mark.slow
def test_a_learner_that_changes_its_types_is_found_out():
    with Compilations() as heard, Trainer(probe_config("policy")) as run:
        run.update()
        run.update()
        assert heard.count(UPDATE) == 1
        learner = run.state.learner
        weaker = jax.tree.map(lambda leaf: jnp.asarray(1) if leaf.shape == () else leaf, learner.opt_state)
        run.state = run.state._replace(learner=learner._replace(opt_state=weaker))
        run.update()
        assert heard.count(UPDATE) == 2
        assert heard.count(ROLLOUT) == 1


@pytest.mark.slow
def test_a_growing_table_of_captions_compiles_neither_anew():
    """More captions than the tables had room for: what depends on their size is compiled once more, nothing else."""
    config = TrainConfig(
        env=EnvConfig(id="xminigrid:MiniGrid-DoorKey-5x5", num_envs=8, options={"talkative": True, "max_steps": 20}),
        network=TINY,
        ppo=PPOConfig(num_steps=16, num_epochs=1, num_minibatches=2),
        reward=RewardConfig(kind="retrieval"),
    )
    with Compilations() as heard, Trainer(config) as trainer:
        trainer.update()
        capacity = trainer.captions.capacity
        for number in range(capacity):
            trainer.captions.intern(b"Something else, number %d." % number)
        trainer.update()
        trainer.flush()
        assert trainer.captions.capacity == 2 * capacity
        assert heard.count("mix") == 2
        assert heard.count(ROLLOUT) == 1
        assert heard.count(UPDATE) == 1
