"""Every file of configs/ trains."""

import dataclasses
import math
from pathlib import Path

import pytest

from llm_annotator.config import BackendConfig
from llm_annotator.store.reader import StoreReader
from oni.config import CheckpointConfig, RewardLearnerConfig
from oni.configfile import load_config
from oni.distillation import DistillConfig, distill
from oni.rewards.modelfile import write_model
from oni.rewards.novelty import STEP_REWARDS
from oni.rundir import create
from oni.train import train
from tests.answered_store import answer_into

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
NUM_ENVS, UPDATES = 8, 20


def distilled(folder):
    """Distils some answers of a scripted annotator; returns the file."""
    answer_into(
        folder / "old.sqlite",
        [*(b"You open door %d." % n for n in range(40)), *(b"A wall %d." % n for n in range(40))],
        BackendConfig(kind="scripted", options={"helpful_pattern": "You"}),
    )
    with StoreReader(folder / "old.sqlite") as reader:
        write_model(
            folder / "reward.oni", distill(reader, DistillConfig(kind="classification", learner=RewardLearnerConfig()))
        )
    return folder / "reward.oni"


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_runs_twenty_updates(path, tmp_path):
    whole = load_config(path)
    if whole.reward.kind == "offline":
        whole = dataclasses.replace(whole, reward=dataclasses.replace(whole.reward, path=str(distilled(tmp_path))))
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
    if whole.reward.kind not in STEP_REWARDS:
        assert summary.metrics["captions/distinct"] > 0
    if whole.reward.kind in ("retrieval", "classification"):
        assert summary.metrics["captions/labelled"] > 0
    if whole.reward.kind in ("classification", "ranking"):
        assert summary.metrics["reward_model/labels"] > 0
    losses = {name: value for name, value in summary.metrics.items() if name.startswith("loss/")}
    assert losses["loss/entropy"] > 0
    assert all(math.isfinite(value) for value in losses.values()), losses
