"""One update at a time: resuming, figures, and one compilation."""

import dataclasses
import json
import resource
import signal

import jax
import numpy as np
import pytest
from probing import config, trained
from test_probes import judge

from llm_annotator.types import Comparison, LabelStatus
from oni.captions import CaptionTable
from oni.checkpoint import Checkpoints
from oni.config import AnnotatorConfig, RewardConfig, RewardLearnerConfig
from oni.errors import CheckpointError, ConfigError
from oni.trainer import Trainer

RETRIEVAL = RewardConfig(kind="retrieval", intrinsic_coef=1.0)
LEARNED = RewardConfig(
    kind="classification", learner=RewardLearnerConfig(in_background=False, min_labels=2, held_out=0.0, batch_size=8)
)
NOVEL = RewardConfig(kind="rnd", add="counts", add_weight=0.5)


def assert_equal_trees(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.slow
@pytest.mark.parametrize("reward", [RewardConfig(kind="none"), RETRIEVAL, LEARNED, NOVEL], ids=lambda r: r.kind)
def test_a_resumed_run_is_bit_equal_to_one_never_stopped(tmp_path, reward):
    settings = config("intrinsic", reward=reward)
    whole = trained(settings, 7, labels=judge)
    part = trained(settings, 4, labels=judge)
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        assert checkpoints.save(4, part.state, part.host_state(), reward=part.reward_arrays())
    resumed = Trainer(settings)
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        restored = checkpoints.restore(like=resumed.state, reward=resumed.reward_arrays())
    resumed.load(restored.device, restored.host, restored.reward)
    for _ in range(3):
        resumed.update()
    resumed.flush()
    assert resumed.env_step == whole.env_step
    assert_equal_trees(resumed.state, whole.state)
    assert_equal_trees(resumed.reward_arrays(), whole.reward_arrays())
    assert resumed.host_state() == whole.host_state()


@pytest.mark.slow
def test_the_newest_checkpoint_that_can_be_read_wins(tmp_path, caplog):
    trainer = trained(config("policy"), 1)
    with Checkpoints(tmp_path / "c", keep=3) as checkpoints:
        for update in (1, 2, 3):
            trainer.updates_done = update
            checkpoints.save(update, trainer.state, trainer.host_state())
    for file in (tmp_path / "c" / "3").rglob("*"):
        if file.is_file():
            file.write_bytes(b"broken")
    with Checkpoints(tmp_path / "c", keep=3) as checkpoints:
        assert checkpoints.restore(like=trainer.state).update == 2
        assert checkpoints.save(3, trainer.state, trainer.host_state())
    with Checkpoints(tmp_path / "c", keep=3) as checkpoints:
        assert checkpoints.restore(like=trainer.state).update == 3
    assert (tmp_path / "c-unreadable" / "3").is_dir()
    assert "after update 3 cannot be read" in caplog.text


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, caplog):
    """A limit on the size of files stands for a full disk: both fail in the middle of a write."""
    trainer = trained(config("policy"), 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Checkpoints(tmp_path / "c", keep=3) as checkpoints:
        assert checkpoints.save(1, trainer.state, trainer.host_state())
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
            assert not checkpoints.save(2, trainer.state, trainer.host_state())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, old)
        assert checkpoints.latest == 1
        assert [path.name for path in (tmp_path / "c").iterdir()] == ["1"]
        assert checkpoints.save(3, trainer.state, trainer.host_state())
    assert "could not be written" in caplog.text


def test_no_checkpoint(tmp_path):
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints, pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoints.restore(like={})


@pytest.mark.slow
def test_the_update_is_compiled_once():
    trainer = Trainer(config("intrinsic", reward=RETRIEVAL))
    for _ in range(4):
        progress = trainer.update()
        trainer.take_labels(judge(progress.new))
    assert trainer._learn._cache_size() == 1
    assert trainer.actors._collect._cache_size() == 1
    assert trainer.rewarding._mix._cache_size() == 1


@pytest.mark.slow
def test_figures_of_an_update():
    trainer = Trainer(config("intrinsic", reward=RETRIEVAL))
    first = trainer.update()
    assert first.metrics == {}
    assert sorted(first.new) == [b"You find a coin.", b"You hear the wind."]
    trainer.take_labels(judge(first.new))
    assert trainer.update().metrics["captions/coverage"] == 0.0  # what came in later was of no use to that update
    figures = trainer.flush().metrics
    assert figures["captions/distinct"] == 2
    assert figures["captions/labelled"] == 2
    assert figures["captions/helpful"] == 1
    assert figures["reward/extrinsic"] == 0.0
    assert figures["reward/intrinsic"] > 0.1
    assert trainer.captions.count.sum() == trainer.env_step
    assert trainer.captions.reward_sum.sum() == pytest.approx(
        figures["reward/intrinsic"] * trainer.env_step / 2, rel=1e-4
    )
    (caption, share, label), *_ = trainer.top_earners(3)
    assert (caption, share, label) == ("You find a coin.", 1.0, True)


def test_a_label_reward_needs_an_environment_that_speaks():
    with pytest.raises(ConfigError, match="says nothing"):
        Trainer(config("policy", reward=RETRIEVAL))


@pytest.mark.slow
def test_host_state_is_json():
    trainer = trained(config("intrinsic", reward=RETRIEVAL), 2, labels=judge)
    state = json.loads(json.dumps(trainer.host_state()))
    assert CaptionTable.from_state_dict(state["captions"]).texts == trainer.captions.texts


@pytest.mark.slow
def test_twenty_updates_against_golden_figures(golden):
    """Any change of the learning itself shows here; rounding keeps differences between machines out."""
    trainer = Trainer(config("obs-policy"))
    lines = []
    for _ in range(20):
        trainer.update()
        figures = trainer.flush().metrics
        rounded = {name: float(f"{figures[name]:.3g}") for name in ("success", "loss/entropy", "reward/extrinsic")}
        lines.append(json.dumps(rounded))
    golden("twenty_updates.jsonl", "\n".join(lines) + "\n")


def compared(trainer):
    return [
        Comparison(first=a, second=b, status=LabelStatus.LABELLED, first_better=a < b, p_first=None)
        for a, b in trainer.reward_model.wanted(trainer.captions, 8)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classification", "ranking"])
def test_when_a_run_is_saved_does_not_change_what_is_learned(kind):
    learner = RewardLearnerConfig(min_labels=1, held_out=0.0)
    reward = RewardConfig(kind=kind, learner=learner)
    settings = config("intrinsic", reward=reward, annotator=AnnotatorConfig(deterministic=True))

    def state_after(saved_at):
        with Trainer(settings) as trainer:
            news = []
            for number in range(5):
                trainer.take_labels(news)
                progress = trainer.update()
                news = judge(progress.new) if kind == "classification" else compared(trainer)
                if number in saved_at:
                    trainer.flush()
            trainer.take_labels(news)
            trainer.flush()
            return trainer.state.learner.params, trainer.reward_arrays(), trainer.reward_model.state_dict()

    expected, found = state_after(()), state_after((0, 1, 3))
    assert_equal_trees(found[:2], expected[:2])
    assert found[2] == expected[2]
    assert expected[1][0].step > 0


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "add"), [("classification", "rnd"), ("rnd", "classification")])
def test_another_weight_takes_nothing_back(kind, add, tmp_path):
    learner = RewardLearnerConfig(min_labels=1, held_out=0.0, in_background=False)
    reward = RewardConfig(kind=kind, add=add, learner=learner)
    with Trainer(config("intrinsic", reward=reward)) as trainer, Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        trainer.take_labels(judge(trainer.update().new))
        trainer.flush()
        expected = trainer.reward_arrays()
        assert checkpoints.save(1, trainer.state, trainer.host_state(), reward=expected)
        changed = dataclasses.replace(reward, add_weight=0.5)
        with Trainer(config("intrinsic", reward=changed)) as again:
            restored = checkpoints.restore(like=again.state, reward=again.reward_arrays())
            again.load(restored.device, restored.host, restored.reward)
            assert_equal_trees(again.reward_arrays(), expected)
