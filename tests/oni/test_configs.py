"""Every file of configs/ trains."""

import dataclasses
import math
from pathlib import Path

import pytest

from llm_annotator.config import BackendConfig
from oni.config import CheckpointConfig
from oni.configfile import load_config
from oni.rundir import create
from oni.train import train

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
NUM_ENVS, UPDATES = 8, 20


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_runs_twenty_updates(path, tmp_path):
    whole = load_config(path)
    config = dataclasses.replace(
        whole,
        total_env_steps=UPDATES * NUM_ENVS * whole.ppo.num_steps,
        env=dataclasses.replace(whole.env, num_envs=NUM_ENVS),
        annotator=dataclasses.replace(
            whole.annotator, backend=BackendConfig(kind="scripted", options={"helpful_pattern": "(?i)you "})
        ),
        checkpoint=CheckpointConfig(every_s=3600.0),
    )
    summary = train(config, create(tmp_path / "run", config), resume=False)
    assert summary.env_step == config.total_env_steps
    assert summary.saved
    assert summary.stopped_by is None
    assert summary.metrics["captions/distinct"] > 0
    assert summary.metrics["captions/labelled"] > 0
    losses = {name: value for name, value in summary.metrics.items() if name.startswith("loss/")}
    assert losses["loss/entropy"] > 0
    assert all(math.isfinite(value) for value in losses.values()), losses
