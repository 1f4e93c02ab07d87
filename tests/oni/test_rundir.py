"""Run directories: one run each, one trainer at a time."""

import json

import pytest

from oni.config import TrainConfig
from oni.errors import NotARun, RunBusy, RunError, RunExists
from oni.rundir import RunDir, RunLock, create, default_path


def test_a_run_knows_its_settings(tmp_path):
    run = create(tmp_path / "run", TrainConfig(seed=3))
    assert run.config().seed == 3
    assert run.config(("--seed", "4")).seed == 4
    assert len(run.meta()["run_id"]) == 32


def test_another_run_is_not_overwritten(tmp_path):
    create(tmp_path, TrainConfig(seed=3))
    with pytest.raises(RunExists, match="--resume"):
        create(tmp_path, TrainConfig(seed=4))
    assert RunDir(tmp_path).config().seed == 3


def test_other_files_are_not_mixed_with_a_run(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(RunExists, match="not empty"):
        create(tmp_path, TrainConfig())


def test_no_run(tmp_path):
    with pytest.raises(NotARun, match="holds no run"):
        RunDir(tmp_path).config()


def test_a_path_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot make the run directory"):
        create(tmp_path / "file" / "run", TrainConfig())


@pytest.mark.parametrize(("text", "error"), [("{", NotARun), ("{}", NotARun), (json.dumps({"schema": 99}), RunError)])
def test_damaged_and_newer_runs_are_said(tmp_path, text, error):
    run = create(tmp_path / "run", TrainConfig())
    run.meta_file.write_text(text)
    with pytest.raises(error):
        run.config()


def test_one_trainer_at_a_time(tmp_path):
    run = create(tmp_path / "run", TrainConfig())
    with RunLock(run), pytest.raises(RunBusy, match="stop it first"), RunLock(run):
        pass
    with RunLock(run):
        pass


def test_default_paths_are_fresh(tmp_path):
    first = default_path("quickstart", tmp_path)
    first.mkdir()
    assert default_path("quickstart", tmp_path) != first
