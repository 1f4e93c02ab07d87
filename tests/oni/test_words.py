"""What a person reads: progress, summary, help, and the word about a foreign `envs`."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from oni.config import TrainConfig
from oni.progress import LiveReporter, PlainReporter
from oni.rundir import create
from oni.summary import print_summary
from oni.train import Summary

ROOT = Path(__file__).parents[2]
FIGURES = {
    "env_step": 81_920,
    "steps_per_s": 45_678.0,
    "success": 0.5,
    "return/extrinsic": 0.25,
    "captions/distinct": 185,
    "captions/labelled": 170,
    "captions/coverage": 0.75,
    "annotator/queued": 15,
}


def console(**kwargs):
    return Console(file=io.StringIO(), width=120, **kwargs)


@pytest.mark.parametrize("reporter", [PlainReporter, LiveReporter])
def test_progress_shows_the_figures_and_what_is_wrong(reporter):
    target = console(force_terminal=reporter is LiveReporter)
    with reporter(target, 1_000_000) as progress:
        progress.report(FIGURES, "no server at [/red] http://127.0.0.1:9; start it")
        progress.say("Going on after [3] steps.")
    shown = target.file.getvalue()
    for words in ("1,000,000", "45.7k steps/s", "0.500", "185", "170", "0.75", "no server at [/red]", "[3] steps"):
        assert words in shown


@pytest.mark.parametrize("reporter", [PlainReporter, LiveReporter])
def test_progress_of_a_run_that_compares_tells_of_pairs_and_not_of_labels(reporter):
    target = console(force_terminal=reporter is LiveReporter)
    figures = {"env_step": 1, "captions/distinct": 185, "annotator/queued": 15, "reward_model/pairs_asked": 4321}
    with reporter(target, 100) as progress:
        progress.report(figures, "")
    shown = target.file.getvalue()
    assert "4,321" in shown
    assert "labelled" not in shown


def test_plain_progress_says_when_the_annotator_works_again():
    target = console()
    with PlainReporter(target, 100) as progress:
        for warning in ("broken", "broken", ""):
            progress.report({"env_step": 1}, warning)
    assert target.file.getvalue().count("broken") == 1
    assert "works again" in target.file.getvalue()


def summary(tmp_path, **changes):
    fields = {
        "run": create(tmp_path / "run", TrainConfig()),
        "env_step": 81_920,
        "metrics": FIGURES,
        "top_earners": [("[/] \x1b[31mYou find\x00 a coin.", 0.6, True), ("A wall.", 0.4, None)],
        "steps_per_s": 45_678.0,
        "duration_s": 12.0,
        "stopped_by": None,
        "saved": True,
        "warning": "",
    }
    return Summary(**(fields | changes))


def test_the_summary_names_what_earned_and_how_to_go_on(tmp_path):
    target = console()
    print_summary(summary(tmp_path, warning="the key is wrong"), target)
    text = target.file.getvalue()
    for words in ("81,920", "45,678", "0.500", "75.0%", "60.0%", "helpful", "no label", "a coin.", "the key is wrong"):
        assert words in text
    for command in ("oni inspect", "oni eval", "--resume --total-env-steps 163840"):
        assert command in text
    assert "\x1b[31m" not in text
    assert "\x00" not in text


def test_the_summary_of_a_run_that_did_nothing(tmp_path):
    target = console()
    print_summary(summary(tmp_path, metrics={"env_step": 0}, env_step=0, top_earners=[], steps_per_s=None), target)
    assert "oni inspect" not in target.file.getvalue()


def test_a_foreign_package_called_envs_is_named(tmp_path):
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").touch()
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import oni"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode != 0
    assert str(tmp_path / "envs" / "__init__.py") in done.stderr
    assert "is not the one of oni-jax" in done.stderr
