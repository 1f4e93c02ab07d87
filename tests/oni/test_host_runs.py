"""Runs of games in worker processes as a user meets them: figures of one's own, lost episodes, recordings, options."""

import dataclasses
import os
import signal

import jax
import numpy as np
import pytest
from test_sebulba import host_config

import envs
from envs.errors import EnvError
from oni.evaluation import sample
from oni.rundir import create
from oni.train import train
from oni.trainer import Trainer, episode_totals


@pytest.mark.slow
def test_figures_that_an_environment_names_itself_end_no_run(tmp_path):
    settings = host_config("obs-policy", num_envs=8, num_steps=8)
    settings = dataclasses.replace(settings, total_env_steps=8 * 8 * 10)
    summary = train(settings, create(tmp_path / "run", settings), resume=False)
    assert summary.saved
    assert -1 <= summary.metrics["episode/cue"] <= 1


@pytest.mark.slow
def test_episodes_whose_worker_died_are_in_no_mean():
    with Trainer(host_config("obs-policy", num_envs=8, num_steps=8)) as trainer:
        trainer.update()
        trainer.flush()
        os.kill(trainer.actors._pool.pids[0], signal.SIGKILL)
        params, actor = trainer.state.learner.params, trainer.state.actor
        _, rollout, _ = trainer.actors.collect(params, actor, jax.random.key(1))
        assert np.asarray(rollout.truncated).sum() == 4  # those of the worker; the probe itself never truncates
        assert int(episode_totals(rollout).episodes) == 8 * 8 - 4


@pytest.mark.slow
def test_recording_the_same_episodes_again_names_the_same_files(tmp_path):
    pytest.importorskip("nle")
    settings = host_config("memory", num_envs=2, num_minibatches=1)
    options = {"max_episode_steps": 3}
    settings = dataclasses.replace(settings, env=dataclasses.replace(settings.env, id="nethack:score", options=options))
    with Trainer(settings) as trainer:
        params = trainer.state.learner.params
        first, again = (
            trainer.actors.record(params, tmp_path, num_episodes=2, seed=3, choose=sample) for _ in range(2)
        )
    assert len(first) == 2
    assert again == first
    assert sorted(map(str, tmp_path.rglob("*.bz2"))) == sorted(first)


@pytest.mark.parametrize(
    "options", [{"crop": "nine"}, {"crop": 9.0}, {"character": 3}, {"max_episode_steps": 1.5}, {"record_dir": True}]
)
def test_an_option_of_the_wrong_type_is_said(options):
    pytest.importorskip("nle")
    with pytest.raises(EnvError, match=next(iter(options))):
        envs.make("nethack:score", **options)
