"""Environments of Gymnasium: their arrays, their captions, their seeds, and what is refused."""

import json

import jax
import numpy as np
import pytest

pytest.importorskip("gymnasium")

from gymnasium import spaces

import envs
from envs.errors import EnvContractError, EnvError
from envs.gymnasium.adapter import make, names
from envs.gymnasium.game import make_game
from envs.gymnasium.spaces import parts_of, write
from envs.host.types import GameStep
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
        GameStep(0.0, False, b"Mission: switch on the green lamp. The white lamp goes on."),
        GameStep(0.0, False, b"Mission: switch on the green lamp. The white lamp goes off."),
        GameStep(1.0, True, b"Mission: switch on the green lamp. The green lamp goes on.", success=True),
    ]
    assert ending == "it was a success"


def test_an_id_without_a_version_is_the_newest():
    with pytest.warns(UserWarning, match="latest versioned"):
        assert make("CartPole").spec.max_episode_steps == 500


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


TIMED = "gymnasium_lights:oni-tests/TimedLamp-v0"
RANDOM = "gymnasium_lights:oni-tests/RandomLamp-v0"


def test_a_limit_of_its_own_truncates():
    env = make(TIMED)
    assert env.spec.max_episode_steps == 1_000
    steps, _, ending = played(env, [0] * 5)
    assert [(step.terminated, step.truncated, step.success) for step in steps] == [
        *[(False, False, False)] * 4,
        (False, True, True),
    ]
    assert ending == "it was a success"
    # our own limit is the worker's business, but what the game says of success counts
    steps, _, ending = played(make(TIMED, max_episode_steps=3), [0] * 3)
    assert steps[-1] == GameStep(1.0, False, b"", success=True)
    # here both at once: what ends for good was not cut off
    steps, _, _ = played(make(OWN), [0, 1, 2, 3])
    assert [(step.terminated, step.truncated) for step in steps[:3]].count((True, False)) <= 1
    assert not any(step.terminated and step.truncated for step in steps)
    assert steps[-1].terminated or steps[-1].truncated


def test_captioners_are_told_which_end_it_was():
    env = make(TIMED, captioner="gymnasium_lights:say_end", kwargs={"steps": 2})
    assert [step.caption for step in played(env, [0, 0])[0]] == [b"", b"The time is up."]
    env = make(OWN, captioner="gymnasium_lights:say_end")
    assert [step.caption for step in played(env, [3, 1], seed=2)[0]] == [b"", b"That is the end."]


def lamp_config(env_id, **env):
    return TrainConfig(
        total_env_steps=100_000,
        env=EnvConfig(id=f"gymnasium:{env_id}", num_envs=16, num_workers=1, **env),
        network=NetworkConfig(hidden_size=16, core="none"),
        ppo=PPOConfig(num_steps=8, num_epochs=4, num_minibatches=2, learning_rate=5e-3, discount=0.5),
        reward=RewardConfig(kind="none"),
    )


@pytest.mark.slow
def test_values_reach_through_a_limit_of_its_own():
    with Trainer(lamp_config(TIMED)) as trainer:
        for _ in range(150):
            trainer.update()
        trainer.flush()
        _, rollout, _ = trainer.actors.collect(trainer.state.learner.params, trainer.state.actor, jax.random.key(0))
    truncated = np.asarray(rollout.truncated)
    assert truncated.sum() == 16
    assert not np.asarray(rollout.terminated).any()
    # 1 + 0.5 + 0.25 + ... = 2 at every step, the last included, where it would be 1 if the episode were over there
    np.testing.assert_allclose(np.asarray(rollout.bootstrap_value)[truncated], 2.0, atol=0.2)


def resumed(config, caplog):
    """A run that is resumed: what it logs, and whether each game begins anew."""
    with Trainer(config) as trainer:
        for _ in range(2):
            trainer.update()
        trainer.flush()
        state, host = trainer.state, json.loads(json.dumps(trainer.host_state()))
    caplog.clear()
    with Trainer(config) as trainer:
        trainer.load(state, host)
        anew = np.asarray(trainer.state.actor.reset)
        trainer.update()
        trainer.flush()
    return [record.getMessage() for record in caplog.records], anew


@pytest.mark.slow
def test_a_resumed_run_begins_new_episodes_where_the_old_ones_cannot_be_repeated(caplog):
    said, anew = resumed(lamp_config(TIMED, options={"max_episode_steps": 3}), caplog)
    assert (said, anew.any()) == ([], False)  # 16 steps of 3 a game: one into an episode
    (line,), anew = resumed(lamp_config(RANDOM), caplog)
    assert line.endswith("running episodes cannot be brought back, new ones begin instead (its games never repeat)")
    assert anew.all()
    (line,), anew = resumed(lamp_config("gymnasium_lights:oni-tests/SecretlyRandomLamp-v0"), caplog)
    assert "new ones begin instead (the running games could not be brought back" in line
    assert anew.all()


@pytest.mark.slow
def test_games_that_say_that_they_do_not_repeat_keep_the_contract():
    assert make(RANDOM).spec.repeats == "never"
    check_env(make(RANDOM, max_episode_steps=20))
    with pytest.raises(EnvContractError, match="two different episodes"):
        check_env(make("gymnasium_lights:oni-tests/SecretlyRandomLamp-v0", max_episode_steps=20))


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
