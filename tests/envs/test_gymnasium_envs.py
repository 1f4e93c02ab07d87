"""Environments of Gymnasium: their arrays, their captions, their seeds, and what is refused."""

import json

import numpy as np
import pytest

pytest.importorskip("gymnasium")

from gymnasium import spaces

import envs
from envs.errors import EnvError
from envs.gymnasium.adapter import make, names
from envs.gymnasium.game import make_game
from envs.gymnasium.spaces import parts_of, write
from envs.testing import check_env
from oni.config import EnvConfig, NetworkConfig, PPOConfig, RewardConfig, TrainConfig
from oni.trainer import Trainer

OWN = "gymnasium_lights:oni-tests/Lights-v0"
CAPTIONER = "gymnasium_lights:say"


def played(env, actions, seed=0):
    game = make_game(**json.loads(json.dumps(dict(env.options))))
    raw = {name: np.zeros(spec.shape, spec.dtype) for name, spec in env.raw.items()}
    game.attach(raw)
    game.reset(seed)
    steps = [game.step(action) for action in actions]
    ending = game.ending()
    game.close()
    return steps, raw, ending


def test_arrays_of_the_observation():
    env = make(OWN)
    shapes = {name: (spec.shape, spec.dtype.name, spec.num_values) for name, spec in env.raw.items()}
    assert shapes == {
        "lamps": ((4,), "float32", None),
        "wanted": ((1,), "int32", (4,)),
        "where/x": ((2,), "float32", None),
    }
    assert env.spec.max_episode_steps == 12
    _, raw, _ = played(env, [0, 2, 2], seed=5)
    assert raw["lamps"].tolist() == [1, 0, 0, 0]


def test_captions_say_what_each_action_did_to_the_last():
    env = make(OWN, captioner=CAPTIONER)
    assert env.spec.says_text
    steps, raw, ending = played(env, [3, 3, 1], seed=2)
    wanted = int(raw["wanted"][0])
    assert wanted == 1
    assert steps == [
        (0.0, False, b"Mission: switch on the green lamp. The white lamp goes on.", False),
        (0.0, False, b"Mission: switch on the green lamp. The white lamp goes off.", False),
        (1.0, True, b"Mission: switch on the green lamp. The green lamp goes on.", True),
    ]
    assert ending == "it was a success"


def test_what_is_read_of_each_space():
    space = spaces.Tuple(
        (
            spaces.Discrete(3, start=-1),
            spaces.MultiDiscrete([2, 3]),
            spaces.Box(0, 255, (2, 2, 1), np.uint8),
            spaces.Box(-5, 5, (), np.int64),
        )
    )
    parts = parts_of(space)
    raw = {part.name: np.zeros(part.spec.shape, part.spec.dtype) for part in parts}
    write(parts, (1, np.array([1, 0]), np.full((2, 2, 1), 200, np.uint8), -4), raw)
    assert raw["0"].tolist() == [2]
    assert raw["1"].tolist() == [0, 1, 1, 0, 0]
    assert raw["2"].max() == 200
    assert raw["3"].tolist() == [-4.0]
    assert [part.spec.num_values for part in parts] == [(3,), None, None, None]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Pendulum-v1", {}, "wrap it so that its action space is Discrete"),
        ("NoSuchGame-v0", {}, "NoSuchGame"),
        ("CartPole-v1", {"captioner": "nowhere:say"}, "expected a function as package.module:function"),
        ("CartPole-v1", {"captioner": "gymnasium_lights:LAMPS"}, "is a str"),
        ("CartPole-v1", {"max_episode_steps": 0}, "max_episode_steps"),
        ("CartPole-v1", {"kwargs": {"gravity": 3}}, "cannot make"),
        ("CartPole-v1", {"caption": "x"}, "did you mean 'captioner'"),
    ],
)
def test_what_cannot_be_played_is_said(name, options, message):
    with pytest.raises(EnvError, match=message):
        envs.make(f"gymnasium:{name}", **options)


def test_a_space_without_shape_is_refused():
    with pytest.raises(EnvError, match="'inner' is a Sequence"):
        parts_of(spaces.Dict({"inner": spaces.Sequence(spaces.Discrete(2))}))


@pytest.mark.parametrize("name", names())
def test_what_is_listed_can_be_made(name):
    assert envs.make(f"gymnasium:{name}").spec.num_actions > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CartPole-v1", "Blackjack-v1", "Taxi-v3"])
def test_environments_keep_the_contract(name):
    check_env(make(name, max_episode_steps=40), num_steps=100)


@pytest.mark.slow
def test_ones_own_environment_keeps_the_contract_with_captions():
    assert check_env(envs.make(f"gymnasium:{OWN}", captioner=CAPTIONER), num_envs=4) > 10


@pytest.mark.slow
def test_a_short_training():
    config = TrainConfig(
        env=EnvConfig(id=f"gymnasium:{OWN}", num_envs=8, num_workers=1, options={"captioner": CAPTIONER}),
        network=NetworkConfig(hidden_size=16, core="none"),
        ppo=PPOConfig(num_steps=8, num_minibatches=2, num_epochs=1),
        reward=RewardConfig(kind="none"),
    )
    with Trainer(config) as trainer:
        for _ in range(3):
            trainer.update()
        assert np.isfinite(trainer.flush().metrics["loss/value"])
