"""Rollouts of games in worker processes: the learner solves them, a run can be repeated and resumed, faults pass by."""

import dataclasses
import json
import os
import signal

import jax
import numpy as np
import pytest
from probing import config, trained
from test_probes import judge, success

from oni.config import NetworkConfig, RewardConfig
from oni.errors import CheckpointError, ConfigError
from oni.trainer import Trainer

pytestmark = pytest.mark.slow

RETRIEVAL = RewardConfig(kind="retrieval", intrinsic_coef=1.0)


def host_config(probe, *, num_envs=32, resume_games=True, **options):
    base = config(probe, **options)
    env = dataclasses.replace(
        base.env, id=f"hostprobe:{probe}", num_envs=num_envs, num_workers=2, resume_games=resume_games
    )
    return dataclasses.replace(base, env=env)


def figures_of(settings, updates):
    with Trainer(settings) as trainer:
        lines = []
        for number in range(updates):
            progress = trainer.update(last=number == updates - 1)
            trainer.take_labels(judge(progress.new))
            lines.append(progress.metrics)
        lines.append(trainer.flush().metrics)
        return lines, jax.device_get(trainer.state)


def assert_equal_trees(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("overlap", [False, True], ids=["in turn", "overlapping"])
def test_a_policy_that_looks(overlap):
    with trained(host_config("obs-policy", overlap=overlap), 60) as trainer:
        assert success(trainer) > 0.95


def test_memory():
    network = NetworkConfig(hidden_size=16, core="gru", core_size=16)
    with trained(host_config("memory", network=network), 150) as trainer:
        assert success(trainer) > 0.95


@pytest.mark.parametrize("overlap", [False, True], ids=["in turn", "overlapping"])
def test_a_reward_that_is_only_intrinsic(overlap):
    with trained(host_config("intrinsic", reward=RETRIEVAL, overlap=overlap), 60, labels=judge) as trainer:
        assert success(trainer) > 0.95


def test_without_labels_the_intrinsic_probe_is_not_solved():
    with trained(host_config("intrinsic", reward=RETRIEVAL), 60) as trainer:
        assert success(trainer) < 0.8


@pytest.mark.parametrize("overlap", [False, True], ids=["in turn", "overlapping"])
def test_the_same_seed_gives_the_same_run(overlap):
    settings = host_config("intrinsic", reward=RETRIEVAL, overlap=overlap)
    ours, state = figures_of(settings, 6)
    again, same_state = figures_of(settings, 6)
    assert ours == again
    assert_equal_trees(state, same_state)
    other, _ = figures_of(dataclasses.replace(settings, seed=1), 6)
    assert other != ours


def test_workers_do_not_change_the_run():
    settings = host_config("intrinsic", reward=RETRIEVAL)
    one_worker = dataclasses.replace(settings, env=dataclasses.replace(settings.env, num_workers=1))
    assert figures_of(settings, 4)[0] == figures_of(one_worker, 4)[0]


def resumed(settings, part):
    host = json.loads(json.dumps(part.host_state()))
    trainer = Trainer(settings)
    trainer.load(part.state, host)
    return trainer


@pytest.mark.parametrize("probe", ["intrinsic", "memory"])
def test_a_resumed_run_is_bit_equal_to_one_never_stopped(probe):
    reward = RETRIEVAL if probe == "intrinsic" else RewardConfig(kind="none")
    settings = host_config(probe, reward=reward, num_steps=7)  # episodes go on over the end of a rollout
    with trained(settings, 7, labels=judge) as whole:
        expected, expected_host = whole.state, json.dumps(whole.host_state())
    with trained(settings, 3, labels=judge) as part, resumed(settings, part) as trainer:
        for _ in range(4):
            trainer.update()
        trainer.flush()
        assert_equal_trees(trainer.state, expected)
        assert json.dumps(trainer.host_state()) == expected_host


def test_a_run_may_be_resumed_with_new_episodes():
    settings = host_config("memory", num_steps=7, resume_games=False)
    with trained(settings, 3) as part:
        assert not part.state.actor.reset.all()
        with resumed(settings, part) as trainer:
            assert trainer.state.actor.reset.all()
            assert not np.asarray(trainer.state.actor.episode_length).any()
            trainer.update()
            assert np.isfinite(trainer.flush().metrics["loss/value"])


def test_games_that_come_back_different_are_refused():
    settings = host_config("memory", num_steps=7)
    with trained(settings, 3) as part:
        obs = {name: np.array(leaf) + 1 for name, leaf in part.state.actor.obs.items()}
        part.state = part.state._replace(actor=part.state.actor._replace(obs=obs))
        with pytest.raises(CheckpointError, match="no-resume-games"):
            resumed(settings, part)


def test_a_rollout_has_what_the_games_did():
    settings = host_config("intrinsic", reward=RETRIEVAL, num_steps=8)
    with Trainer(settings) as trainer:
        state, key = trainer.state.actor, jax.random.key(3)
        state, rollout, said = trainer.actors.collect(trainer.state.learner.params, state, key)
        ended = np.asarray(rollout.terminated | rollout.truncated)
        reset = np.asarray(rollout.reset)
        assert reset[0].all()
        np.testing.assert_array_equal(reset[1:], ended[:-1])
        np.testing.assert_array_equal(state.reset, ended[-1])
        assert ended[1::2].all()  # two steps an episode
        assert not ended[::2].any()
        np.testing.assert_array_equal(np.asarray(rollout.episode_length)[1::2], 2)
        said = np.array(said)
        assert set(said.flat) == {b"You find a coin.", b"You hear the wind."}
        # the caption belongs to the action just taken, on the last step of an episode too
        cue = np.asarray(rollout.obs["signal"])[..., 0]
        right = (np.asarray(rollout.action) == 1) == (cue > 0)
        np.testing.assert_array_equal(said == b"You find a coin.", right)
        np.testing.assert_array_equal(np.asarray(rollout.success)[ended], right[ended])


def test_training_survives_a_worker_that_dies():
    with Trainer(host_config("obs-policy")) as trainer:
        trainer.update()
        os.kill(trainer.actors._pool.pids[0], signal.SIGKILL)
        for _ in range(60):
            trainer.update()
        assert trainer.flush().metrics["env/workers_replaced"] == 1
        assert success(trainer) > 0.95


def test_games_are_dealt_out_evenly():
    with pytest.raises(ConfigError, match="multiple of env.num_groups"):
        Trainer(host_config("memory", num_envs=33, num_minibatches=1))


def test_episodes_are_played_with_a_trained_policy():
    with trained(host_config("obs-policy"), 60) as trainer:
        params = trainer.state.learner.params
        from oni.evaluation import greedy

        episodes = trainer.actors.play(params, num_episodes=20, seed=5, choose=greedy)
        assert len(episodes.success) == 20
        assert episodes.success.mean() > 0.95
        again = trainer.actors.play(params, num_episodes=20, seed=5, choose=greedy)
        np.testing.assert_array_equal(episodes.extrinsic_return, again.extrinsic_return)
