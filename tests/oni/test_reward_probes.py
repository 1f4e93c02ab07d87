"""Every reward model solves a probe that pays nothing itself: what it says is what the policy learns from."""

import dataclasses

import numpy as np
import pytest
from probing import config

from llm_annotator.config import BackendConfig
from llm_annotator.types import Comparison, LabelStatus, LabelUpdate
from oni.config import RewardConfig, RewardLearnerConfig
from oni.distillation import DistillConfig, distill
from oni.rewards.modelfile import write_model
from oni.trainer import Trainer
from tests.answered_store import answer_into

pytestmark = pytest.mark.slow

GOOD = (b"You find a coin.", b"You reach the exit.")
LEARNER = RewardLearnerConfig(in_background=False, min_labels=1, held_out=0.0, batch_size=8)


def answer(trainer, new):
    """Says what an annotator that knows the game would say."""
    trainer.take_labels(
        LabelUpdate(caption=text, status=LabelStatus.LABELLED, helpful=text in GOOD, p_helpful=None) for text in new
    )
    pairs = trainer.reward_model.wanted(trainer.captions, 8)
    trainer.take_labels(
        Comparison(first=a, second=b, status=LabelStatus.LABELLED, first_better=a in GOOD, p_first=None)
        for a, b in pairs
    )


def success(reward, probe="intrinsic", updates=80, **ppo):
    reward = dataclasses.replace(reward, count_exponent=0.0, learner=LEARNER)
    with Trainer(config(probe, reward=reward, **ppo)) as trainer:
        for _ in range(updates):
            answer(trainer, trainer.update().new)
        trainer.flush()
        return trainer.window.means()["success"]


@pytest.mark.parametrize("probe", ["intrinsic", "last-caption"])
@pytest.mark.parametrize("kind", ["retrieval", "classification", "ranking"])
def test_what_an_annotator_says_leads_there(kind, probe):
    assert success(RewardConfig(kind=kind, intrinsic_coef=1.0), probe) > 0.95


def test_likeness_to_the_goal_leads_there():
    pytest.importorskip("wordllama")
    reward = RewardConfig(kind="embedding", intrinsic_coef=1.0, goal_text="find a coin", threshold=0.3)
    assert success(reward) > 0.95


def test_what_was_distilled_beforehand_leads_there(tmp_path):
    answer_into(
        tmp_path / "old.sqlite",
        [*GOOD, b"You hear the wind."],
        BackendConfig(kind="scripted", options={"helpful_pattern": "coin|exit"}),
    )
    from llm_annotator.store.reader import StoreReader

    with StoreReader(tmp_path / "old.sqlite") as reader:
        write_model(tmp_path / "reward.oni", distill(reader, DistillConfig(kind="classification", learner=LEARNER)))
    reward = RewardConfig(kind="offline", path=str(tmp_path / "reward.oni"), intrinsic_coef=1.0)
    assert success(reward) > 0.95


@pytest.mark.parametrize("kind", ["retrieval", "classification"])
def test_two_value_heads_lead_there_too(kind):
    assert success(RewardConfig(kind=kind, intrinsic_coef=1.0), value_heads=2, intrinsic_episodic=False) > 0.95


@pytest.mark.parametrize("add", ["rnd", "counts"])
def test_with_novelty_added_they_lead_there_too(add):
    assert success(RewardConfig(kind="retrieval", add=add, add_weight=0.1, intrinsic_coef=1.0)) > 0.95


def test_two_models_are_added_with_their_weights():
    reward = RewardConfig(kind="retrieval", add="classification", add_weight=0.5, learner=LEARNER)
    with Trainer(config("intrinsic", reward=reward)) as trainer:
        for _ in range(12):
            answer(trainer, trainer.update().new)
        captions = trainer.captions
        ids = [captions.intern(b"You find a coin."), captions.intern(b"You hear the wind."), 0]
        scores = trainer.reward_model.score(captions, np.array(ids))
    assert scores.tolist() == [1.5, 0.0, 0.0]
