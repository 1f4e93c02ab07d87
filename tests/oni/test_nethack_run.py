"""Whole runs on real NetHack games: resumed, evaluated, recorded, repeated."""

import bz2
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from llm_annotator.config import AnnotatorConfig, BackendConfig, LabelerConfig
from oni.cli import eval as eval_command
from oni.config import EnvConfig, NetworkConfig, PPOConfig, RewardConfig, TrainConfig
from oni.rundir import create
from oni.train import train
from oni.trainer import Trainer

pytestmark = pytest.mark.slow

SCRIPTED = BackendConfig(kind="scripted", options={"helpful_pattern": "(?i)you (kill|see here|swap)"})


def config(*, encoder="small", overlap=False, backend=SCRIPTED, total=640, **options):
    return TrainConfig(
        name="nethack",
        total_env_steps=total,
        env=EnvConfig(
            id="nethack:score",
            num_envs=4,
            num_workers=2,
            options={"max_episode_steps": 60, "actions": "extended", **options},
        ),
        network=NetworkConfig(encoder=encoder, hidden_size=32, core="gru", core_size=32),
        ppo=PPOConfig(num_steps=16, num_epochs=1, num_minibatches=2, overlap=overlap),
        reward=RewardConfig(kind="retrieval", intrinsic_coef=1.0),
        annotator=AnnotatorConfig(backend=backend, labeler=LabelerConfig(goal="nethack"), deterministic=True),
    )


def without_labels(settings):
    return dataclasses.replace(settings, reward=RewardConfig(kind="none"))


def test_a_resumed_run_is_bit_equal_to_one_never_stopped():
    settings = without_labels(config())
    with Trainer(settings) as whole:
        for _ in range(5):
            whole.update()
        whole.flush()
        expected, expected_host = jax.device_get(whole.state), json.dumps(whole.host_state())
    with Trainer(settings) as part:
        for _ in range(2):
            part.update()
        part.flush()
        state, host = jax.device_get(part.state), json.loads(json.dumps(part.host_state()))
    assert not state.actor.reset.all(), "episodes go on over the stop"
    with Trainer(settings) as resumed:
        resumed.load(state, host)
        for _ in range(3):
            resumed.update()
        resumed.flush()
        for ours, theirs in zip(jax.tree.leaves(jax.device_get(resumed.state)), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert json.dumps(resumed.host_state()) == expected_host


def test_the_large_network_learns_from_the_whole_screen():
    with Trainer(without_labels(config(encoder="large", observation="full"))) as trainer:
        before = jax.device_get(trainer.state.learner.params)
        trainer.update()
        assert np.isfinite(trainer.flush().metrics["loss/value"])
        changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, jax.device_get(trainer.state.learner.params))
        for name in ("crop", "map", "message"):
            assert all(jax.tree.leaves(changed["encoder"][name])), name


def figures(run):
    """The lines of metrics.jsonl without times and without how far the annotator, a process of its own, was."""
    times = ("wall_s", "steps_per_s", "annotator/")
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith(times)} for line in lines]


@pytest.mark.e2e
@pytest.mark.parametrize("overlap", [False, True], ids=["in turn", "overlapping"])
def test_the_same_seed_gives_the_same_figures_with_replayed_labels(tmp_path, overlap):
    first = create(tmp_path / "first", config(overlap=overlap))
    train(config(overlap=overlap), first, resume=False)
    replay = BackendConfig(kind="replay", options={"store": str(first.store)})
    expected = figures(first)
    assert expected[-1]["captions/labelled"] > 10
    assert expected[-1]["reward/intrinsic"] > 0
    settings = config(overlap=overlap, backend=replay)
    again = create(tmp_path / "again", settings)
    train(settings, again, resume=False)
    assert figures(again) == expected


@pytest.mark.e2e
def test_eval_says_how_episodes_ended_and_records_them(tmp_path):
    settings = without_labels(config(total=128))
    run = create(tmp_path / "run", settings)
    assert train(settings, run, resume=False).saved
    command = [
        sys.executable,
        "-m",
        "oni.cli.main",
        "eval",
        str(run.path),
        "--episodes",
        "4",
        "--record",
        "2",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    result = json.loads(done.stdout)
    assert result["episodes"] == 4
    assert set(result["stats"]) == {"score", "depth", "max_depth", "experience_level", "gold", "turns"}
    assert result["stats"]["turns"]["low"] <= result["stats"]["turns"]["mean"] <= result["stats"]["turns"]["high"]
    assert sum(result["endings"].values()) == 4
    assert result["stats"]["depth"]["mean"] >= 1
    assert len(result["recordings"]) == 2
    for path in result["recordings"]:
        assert b"Agent the" in bz2.decompress(Path(path).read_bytes())  # the bottom line of the screen
    assert "experience_level" in eval_command._text(result)
