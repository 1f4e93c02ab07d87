"""Figures of `oni eval`: intervals by hand, unbiased episodes, recordings."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from probing import config

from envs.vector import VectorEnv
from oni.evaluation import Frame, greedy, mean_interval, play, record, wilson
from oni.recording import write_episode
from oni.trainer import Trainer


def test_wilson_by_hand():
    # 8 of 10: centre (0.8 + 0.19207) / 1.38415, half width 1.95996 / 1.38415 * sqrt(0.016 + 0.0096037)
    estimate = wilson(8, 10)
    assert estimate.mean == 0.8
    assert estimate.low == pytest.approx(0.4902, abs=1e-4)
    assert estimate.high == pytest.approx(0.9433, abs=1e-4)


@pytest.mark.parametrize(("successes", "low", "high"), [(0, 0.0, 0.2775), (10, 0.7225, 1.0)])
def test_wilson_stays_within_bounds(successes, low, high):
    estimate = wilson(successes, 10)
    assert estimate.low == pytest.approx(low, abs=1e-4)
    assert estimate.high == pytest.approx(high, abs=1e-4)


def test_mean_interval_by_hand():
    estimate = mean_interval(np.array([1.0, 3.0]))  # standard error 1
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((2.0, 0.04, 3.96), abs=1e-3)
    assert mean_interval(np.array([5.0])).high == 5.0


@pytest.mark.slow
def test_every_game_plays_the_same_number_of_episodes():
    trainer = Trainer(config("memory"))
    games = VectorEnv(trainer.actors.env.env, 4)
    params = trainer.state.learner.params
    episodes = play(games, trainer.network, params, num_episodes=10, seed=1)
    assert len(episodes.success) == 12
    assert (episodes.length == 4).all()
    assert set(episodes.extrinsic_return) <= {1.0, -1.0}
    again = play(games, trainer.network, params, num_episodes=10, seed=1)
    np.testing.assert_array_equal(episodes.extrinsic_return, again.extrinsic_return)


def test_greedy_takes_the_most_likely_action():
    assert greedy(jnp.zeros(2, jnp.uint32), jnp.array([[0.1, 0.9], [2.0, 1.0]])).tolist() == [1, 0]


class Drawn:
    """A probe that draws itself."""

    def __init__(self, env):
        self._env = env

    def __getattr__(self, name):
        return getattr(self._env, name)

    def render(self, state):
        return np.full((8, 8, 3), int(state.step), np.uint8)


@pytest.mark.slow
def test_a_recording_shows_every_step_and_the_last_caption():
    trainer = Trainer(config("last-caption"))
    one = VectorEnv(Drawn(trainer.actors.env.env), 1)
    first, second = record(one, trainer.network, trainer.state.learner.params, num_episodes=2, seed=0)
    assert [int(frame.picture[0, 0, 0]) for frame in first] == [0, 1, 2]
    assert [frame.caption == "" for frame in second] == [True, True, False]


def test_a_recording_is_written_whatever_the_caption(tmp_path):
    frames = [Frame(np.zeros((20, 30, 3), np.uint8), "pick up", 0.5, caption) for caption in ("", "\x1b[31m☃ <b>" * 50)]
    write_episode(frames, tmp_path / "episode-000")
    with Image.open(tmp_path / "episode-000.gif") as picture:
        assert picture.n_frames == 2
    lines = [json.loads(line) for line in (tmp_path / "episode-000.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1]
    assert lines[1]["caption"].startswith("\x1b[31m☃")
