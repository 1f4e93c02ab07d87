"""Windows over episodes and the metrics file."""

import json
import math

import pytest

from oni.metrics import EpisodeTotals, EpisodeWindow, MetricsWriter, truncate_after


def totals(episodes, success):
    return EpisodeTotals(episodes=episodes, success=success, extrinsic_return=2.0 * success, length=10 * episodes)


def test_nothing_is_said_before_a_slow_episode_could_end():
    window = EpisodeWindow(num_steps=10, max_episode_steps=25)
    window.add(totals(1, 1))
    window.add(totals(1, 1))
    assert window.means() == {}
    window.add(totals(2, 0))
    assert window.means() == {"success": 0.5, "return/extrinsic": 1.0, "episode/length": 10.0}


def test_the_window_forgets_after_two_step_limits():
    window = EpisodeWindow(num_steps=10, max_episode_steps=20)
    for success in (1, 0, 0, 0, 0):
        window.add(totals(1, success))
    assert window.means()["success"] == 0.0


def test_the_window_makes_a_round_trip():
    window, other = (EpisodeWindow(num_steps=10, max_episode_steps=20) for _ in range(2))
    window.add(totals(3, 1))
    window.add(totals(4, 1))
    other.load(json.loads(json.dumps(window.state())))
    assert other.means() == window.means()


def test_no_episodes_no_means():
    window = EpisodeWindow(num_steps=10, max_episode_steps=5)
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
