"""The rollout and the update of a run are compiled once, whatever the games say and however labels come in.

A recompilation of Craftax takes the time of a million steps, and nothing else would show it.
"""

import importlib.util

import pytest
from probing import TINY
from test_probes import judge

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
