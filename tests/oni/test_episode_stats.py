"""Figures that a jitted environment names itself: summed in the rollout, in the metrics, in the words of a run."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probing import config
from rich.console import Console

from envs.errors import EnvContractError
from envs.probes import ProbeEnv
from envs.testing import check_env
from oni.cli import eval as eval_command
from oni.evaluation import play, sample
from oni.metrics import METRICS
from oni.progress import LiveReporter, PlainReporter, episode_stats, leading
from oni.rundir import create
from oni.train import train
from oni.trainer import Trainer, episode_totals


class Counting(ProbeEnv):
    """A probe that tells how often each action was played in the episode, and of which there were more."""

    def __init__(self, change=lambda stats: stats):
        super().__init__("memory")
        self.spec = self.spec._replace(episode_stats=("ones", "most/zero", "most/one"))
        self._change = change

    def _with(self, timestep, ones, played):
        zeros = played - ones
        stats = jnp.stack([ones, zeros > ones, ones > zeros]).astype(jnp.float32)
        return timestep._replace(info={**timestep.info, "stats": self._change(stats)})

    def reset(self, key):
        state, timestep = super().reset(key)
        return (state, jnp.int32(0)), self._with(timestep, jnp.int32(0), 0)

    def step(self, key, state, action):
        inner, ones = state
        new, timestep = super().step(key, inner, action)
        ones = ones + action
        return (new, ones), self._with(timestep, ones, new.step)


def make():
    return Counting()


def settings(**changes):
    base = config("memory", num_steps=10)
    env = dataclasses.replace(base.env, id="test_episode_stats:make", num_envs=16)
    return dataclasses.replace(base, env=env, **changes)


@pytest.mark.slow
def test_the_contract_asks_for_the_figures():
    assert check_env(make()) == 0
    with pytest.raises(EnvContractError, match=r"info\['stats'\] must be float32\[3\]"):
        check_env(Counting(lambda stats: stats[:2]))
    with pytest.raises(EnvContractError, match=r"info\['stats'\] must be float32\[3\]"):
        check_env(Counting(lambda stats: stats.astype(jnp.int32)))
    with pytest.raises(EnvContractError, match="is not finite"):
        check_env(Counting(lambda stats: stats / 0.0))


@pytest.mark.slow
def test_figures_are_summed_over_the_episodes_that_ended():
    with Trainer(settings()) as trainer:
        params, actor = trainer.state.learner.params, trainer.state.actor
        left = np.zeros(16, int)  # actions 1 of the running episode
        for number in range(3):
            actor, rollout, _ = trainer.actors.collect(params, actor, jax.random.key(number))
            action, ended = np.asarray(rollout.action), np.asarray(rollout.terminated | rollout.truncated)
            expected = np.zeros((16, 3))
            for t in range(10):
                left += action[t]
                now = np.stack([left, 4 - left > left, left > 4 - left], axis=-1)
                expected += np.where(ended[t][:, None], now, 0)
                left[ended[t]] = 0
            np.testing.assert_array_equal(rollout.stats, expected)
            np.testing.assert_array_equal(episode_totals(rollout).stats, expected.sum(axis=0))
            assert expected.any(axis=0).all()


@pytest.mark.slow
def test_a_run_writes_down_the_figures_and_evaluation_has_them_by_episode(tmp_path):
    ours = settings(total_env_steps=16 * 10 * 10)
    summary = train(ours, create(tmp_path / "run", ours), resume=False)
    metrics = summary.metrics
    assert 0 < metrics["episode/ones"] < 4
    assert 0 < metrics["episode/most/zero"] + metrics["episode/most/one"] <= 1
    with Trainer(ours) as trainer:
        episodes = trainer.actors.play(trainer.state.learner.params, num_episodes=32, seed=1, choose=sample)
        again = play(trainer.actors.env, trainer.network, trainer.state.learner.params, num_episodes=32, seed=1)
    assert episodes.stats.keys() == {"ones", "most/zero", "most/one"}
    ones = episodes.stats["ones"]
    np.testing.assert_array_equal(episodes.stats["most/one"], ones > 2)
    np.testing.assert_array_equal(episodes.stats["most/zero"], ones < 2)
    assert len(set(ones)) > 2
    assert len(again.stats["ones"]) == 32


FIGURES = {
    "env_step": 100,
    "success": 0.5,
    "return/extrinsic": 1.0,
    "episode/length": 4.0,
    "episode/achievements": 1.5,
    "episode/achievement/wake_up": 0.25,
    "episode/achievement/eat_cow": 0.5,
    "episode/achievement/eat_plant": 0.0,
    "episode/achievement/collect_wood": 0.75,
}


def test_few_figures_stand_in_a_line_and_many_of_a_kind_after_the_run():
    assert episode_stats(FIGURES) == {"achievements": "1.50"}
    assert leading(FIGURES, 2) == {"achievement": "collect wood 0.75, eat cow 0.50, and 1 more"}
    assert leading(FIGURES, 3) == {"achievement": "collect wood 0.75, eat cow 0.50, wake up 0.25"}
    assert leading({"episode/score": 3.0}, 3) == {}
    written = io.StringIO()
    PlainReporter(Console(file=written, width=200), 1_000).report(FIGURES, "")
    assert "achievements 1.50" in written.getvalue()
    assert "cow" not in written.getvalue()
    with LiveReporter(Console(file=written, width=200), 1_000) as live:
        live.report(FIGURES, "")
    assert {"episode/achievements", "episode/achievement/..."} <= METRICS.keys()


def test_figures_of_a_kind_are_shown_highest_first_and_those_of_nothing_counted():
    def rate(mean):
        return {"mean": mean, "low": 0.0, "high": 1.0}

    result = {
        "run": "runs/a",
        "env_step": 100,
        "episodes": 4,
        "endings": {},
        **{name: rate(0.5) for name in ("success", "return", "length")},
        "stats": {
            "achievements": rate(1.5),
            "achievement/eat_cow": rate(0.25),
            "achievement/wake_up": rate(0.0),
            "achievement/collect_wood": rate(0.75),
        },
    }
    lines = eval_command._text(result).splitlines()
    assert [line.split()[0] for line in lines[4:7]] == [
        "achievements",
        "achievement/collect_wood",
        "achievement/eat_cow",
    ]
    assert lines[7] == "  and 1 that came up in no episode (--json lists them)"
