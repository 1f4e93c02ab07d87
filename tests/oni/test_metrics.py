"""Windows over episodes and the metrics file."""

import json
import math

import numpy as np
import pytest

from oni.metrics import EpisodeTotals, EpisodeWindow, MetricsWriter, truncate_after


def totals(episodes, success):
    return EpisodeTotals(episodes=episodes, success=success, extrinsic_return=2.0 * success, length=10 * episodes)


def test_nothing_is_said_before_a_slow_episode_could_end():
    window = EpisodeWindow(num_steps=10, max_episode_steps=25, num_envs=4)
    window.add(totals(1, 1))
    window.add(totals(1, 1))
    assert window.means() == {}
    window.add(totals(2, 0))
    assert window.means() == {"success": 0.5, "return/extrinsic": 1.0, "episode/length": 10.0}


def test_many_short_episodes_are_enough_before_the_step_limit():
    window = EpisodeWindow(num_steps=10, max_episode_steps=1_000, num_envs=4)
    window.add(totals(9, 9))
    window.add(totals(26, 0))
    assert window.means() == {}, "one of 36 is missing"
    window.add(totals(1, 0))
    assert window.means()["success"] == 9 / 36


def test_an_early_report_is_near_the_truth():
    """Lengths as those of a game that may end at any step: at the first report they are a tenth too short at most."""
    games, num_steps, mean_length = 64, 64, 200
    rng = np.random.default_rng(0)
    window = EpisodeWindow(num_steps=num_steps, max_episode_steps=10_000, num_envs=games)
    age, rollouts = np.zeros(games, int), 0
    while not window.means():
        episodes = steps = 0
        for _ in range(num_steps):
            age += 1
            ended = rng.random(games) < 1 / mean_length
            episodes, steps = episodes + int(ended.sum()), steps + int(age[ended].sum())
            age[ended] = 0
        window.add(EpisodeTotals(episodes=episodes, success=0, extrinsic_return=0.0, length=steps))
        rollouts += 1
    assert rollouts * num_steps < 2_500, "the step limit is 10,000"
    assert 0.85 * mean_length < window.means()["episode/length"] < 1.05 * mean_length


def test_the_window_forgets_after_two_step_limits():
    window = EpisodeWindow(num_steps=10, max_episode_steps=20, num_envs=4)
    for success in (1, 0, 0, 0, 0):
        window.add(totals(1, success))
    assert window.means()["success"] == 0.0


def test_the_window_makes_a_round_trip():
    window, other = (EpisodeWindow(num_steps=10, max_episode_steps=20, num_envs=4) for _ in range(2))
    window.add(totals(3, 1))
    window.add(totals(4, 1))
    other.load(json.loads(json.dumps(window.state())))
    assert other.means() == window.means()


def test_rollouts_of_an_older_checkpoint_have_no_say_in_a_new_figure():
    window = EpisodeWindow(num_steps=10, max_episode_steps=20, num_envs=4)
    window.load(json.loads(json.dumps([list(totals(3, 1))])))
    window.add(totals(2, 0)._replace(stats={"achievements": 7.0}))
    assert window.means()["episode/achievements"] == 3.5
    assert window.means()["success"] == 0.2


def test_no_episodes_no_means():
    window = EpisodeWindow(num_steps=10, max_episode_steps=5, num_envs=4)
    window.add(totals(0, 0))
    assert window.means() == {}


def test_lines_are_json_even_for_nan(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path, tensorboard=False) as writer:
        writer.write({"env_step": 1, "loss/value": math.nan, "steps_per_s": None})
    assert json.loads(path.read_text()) == {"env_step": 1, "loss/value": None, "steps_per_s": None}


def test_a_figure_that_is_not_explained_is_not_written(tmp_path):
    with (
        MetricsWriter(tmp_path / "metrics.jsonl", tensorboard=False) as writer,
        pytest.raises(KeyError, match="mystery"),
    ):
        writer.write({"env_step": 1, "mystery": 2})


def test_a_disk_that_is_full_for_a_while_is_said_once(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path, tensorboard=False) as writer:
        path.symlink_to("/dev/full")
        writer.write({"env_step": 1})
        writer.write({"env_step": 2})
        path.unlink()
        writer.write({"env_step": 3})
    assert path.read_text() == '{"env_step": 3}\n'
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "Free disk space" in caplog.text


def test_tensorboard_when_asked(tmp_path):
    pytest.importorskip("tensorboardX")
    with MetricsWriter(tmp_path / "metrics.jsonl", tensorboard=True) as writer:
        writer.write({"env_step": 1, "success": 0.5})
    assert any((tmp_path / "tensorboard").iterdir())


def test_a_resumed_run_drops_what_it_will_write_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"env_step": 10}\n{"env_step": 20}\n{"env_step": 30}\n{"env_st')
    truncate_after(path, 20)
    assert path.read_text() == '{"env_step": 10}\n{"env_step": 20}\n'
    truncate_after(tmp_path / "missing", 20)
