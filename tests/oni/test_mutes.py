"""A muted caption earns nothing and teaches nothing, whatever the reward; un-muted it is what it was before."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from probing import config
from test_probes import judge
from test_reward_contract import CASES, HELPFUL, LEARNER, Game, texts_of, world

from llm_annotator.types import Comparison, LabelStatus, LabelUpdate
from oni.captions import CaptionTable
from oni.config import PreferenceConfig, RewardConfig
from oni.rewards.ranking import Ranking
from oni.trainer import Trainer

COIN, WIND = b"You find a coin.", b"You hear the wind."


def said(caption, *, helpful=False, muted=False, source="human", status=LabelStatus.LABELLED, p=None):
    return LabelUpdate(caption=caption, status=status, helpful=helpful, p_helpful=p, source=source, muted=muted)


MUTE = {"muted": True}
NOBODY_SAYS = {"helpful": None, "source": "llm", "status": LabelStatus.FAILED}
"""What is in force where a person took a word back and no LLM was ever asked."""


def table_with(*texts):
    table = CaptionTable(1)
    for text in texts:
        table.intern(text)
    return table


# --- the table


def test_a_mute_is_kept_and_taken_back():
    table = table_with(COIN, WIND)
    assert table.set_labels([said(COIN, helpful=True, source="llm", p=0.75)]) == [1]
    assert table.set_labels([said(COIN, **MUTE)]) == [1]
    assert (table.muted[1], table.helpful[1], np.isnan(table.p_helpful[1])) == (True, 0, True)
    assert table.set_labels([said(COIN, **MUTE)]) == [], "said again it is no news"
    assert table.set_labels([said(COIN, helpful=True, source="llm", p=0.75)]) == [1]
    assert (table.muted[1], table.helpful[1], table.p_helpful[1]) == (False, 1, 0.75)


def test_a_caption_labelled_unhelpful_changes_when_it_is_muted():
    table = table_with(COIN)
    table.set_labels([said(COIN, source="llm")])
    assert table.set_labels([said(COIN, **MUTE)]) == [1]


def test_what_a_person_takes_back_is_gone_where_no_llm_said_anything():
    table = table_with(COIN, WIND)
    table.set_labels([said(COIN, **MUTE), said(WIND, helpful=True)])
    assert table.known[1:3].all()
    assert table.set_labels([said(COIN, **NOBODY_SAYS), said(WIND, **NOBODY_SAYS)]) == [1, 2]
    assert not table.known.any()
    assert not table.muted.any()


def test_no_failure_takes_a_label_of_the_llm_away():
    table = table_with(COIN)
    table.set_labels([said(COIN, helpful=True, source="llm")])
    assert table.set_labels([said(COIN, **NOBODY_SAYS)]) == []
    assert table.helpful[1] == 1


def test_a_caption_can_be_muted_before_it_comes_up():
    table = table_with()
    table.set_labels([said(COIN, **MUTE), said(WIND, **MUTE), said(WIND, **NOBODY_SAYS)])
    assert table.muted[[table.intern(COIN), table.intern(WIND)]].tolist() == [True, False]


def test_mutes_survive_a_checkpoint_and_old_checkpoints_have_none():
    table = table_with(COIN, WIND)
    table.set_labels([said(COIN, **MUTE), said(WIND, helpful=True)])
    state = json.loads(json.dumps(table.state_dict()))
    again = CaptionTable.from_state_dict(state)
    assert again.muted[:3].tolist() == [False, True, False]
    assert again.by_hand[:3].tolist() == [False, True, True]
    for name in ("muted", "by_hand"):
        del state[name]
    old = CaptionTable.from_state_dict(state)
    assert not old.muted.any()
    assert old.helpful[:3].tolist() == [-1, 0, 1]


def test_another_goal_forgets_mutes():
    table = table_with(COIN)
    table.set_labels([said(COIN, **MUTE), said(WIND, **MUTE)])
    table.forget_labels()
    assert not table.muted.any()
    assert not table.muted[table.intern(WIND)]


# --- what is learned


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classification", "ranking"])
def test_nothing_is_learned_from_muted_captions(name):
    """All helpful captions of one kind are muted: a model that heard them would score them high."""
    model, game = CASES[name].make(), Game()
    form = HELPFUL[0]
    mute = [text for text, _ in world() if text.startswith(form[:8])]
    assert len(mute) == 20
    texts = texts_of(world())
    for turn in range(20):
        part = texts[turn % 4 :: 4]
        game.play(model, part)
        changed = game.table.set_labels(
            said(text, **MUTE) if text in mute else said(text, helpful=game.rule[text], source="llm") for text in part
        )
        model.observe(game.table, changed)
        asked = game.compare(model)
        if turn >= 4:
            assert not any(text in mute for pair in asked for text in pair), "no more is asked about them"
    data = model._known(game.table)
    ids = {game.table.intern(text) for text in mute}
    learned = set(data.learned.ids.ravel().tolist()) | set(data.held_out.ids.ravel().tolist())
    assert learned
    assert not learned & ids
    changed = game.table.set_labels(said(text, helpful=True, source="llm") for text in mute)
    assert len(changed) == 20
    model.observe(game.table, changed)
    data = model._known(game.table)
    if name == "classification":
        assert ids <= set(data.learned.ids.ravel().tolist()) | set(data.held_out.ids.ravel().tolist())
    model.close()


def test_the_scale_of_ranking_leaves_muted_captions_out():
    model = Ranking(LEARNER, PreferenceConfig(pairs_per_update=100))
    game = Game().run(model, texts_of(world()), turns=20)
    before = model._moments
    count = np.zeros(game.table.capacity, np.int64)
    text = texts_of(world())[3]
    count[game.table.intern(text)] = 1000
    game.table.set_labels([said(text, **MUTE)])
    model.saw(game.table, count)
    assert model._moments == before
    game.table.set_labels([said(text, **NOBODY_SAYS)])
    model.saw(game.table, count)
    assert model._moments.num == before.num + 1000
    model.close()


# --- what is earned


REWARDS = {
    "retrieval": RewardConfig(kind="retrieval", intrinsic_coef=1.0),
    "classification": RewardConfig(
        kind="classification", intrinsic_coef=1.0, learner=dataclasses.replace(LEARNER, min_labels=1, held_out=0.0)
    ),
    "ranking": RewardConfig(
        kind="ranking", intrinsic_coef=1.0, learner=dataclasses.replace(LEARNER, min_labels=1, held_out=0.0)
    ),
    "counts and retrieval": RewardConfig(kind="counts", add="retrieval", intrinsic_coef=1.0),
}


def earned(trainer, updates):
    """Returns what the coin earned in some updates."""
    before = trainer.captions.reward_sum.copy()
    for _ in range(updates):
        trainer.update()
    trainer.flush()
    return (trainer.captions.reward_sum - before)[trainer.captions.id_of(COIN)]


def answers(trainer):
    """Says what is known of both captions: labels, or comparisons for a model that needs them."""
    if trainer.reward_model.needs == "labels":
        return judge([COIN, WIND])
    return [
        Comparison(first=a, second=b, status=LabelStatus.LABELLED, first_better=a == COIN, p_first=None)
        for a, b in ((COIN, WIND), (WIND, COIN))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", REWARDS)
def test_a_muted_caption_earns_nothing_until_it_is_unmuted(kind):
    with Trainer(config("intrinsic", reward=REWARDS[kind])) as trainer:
        for _ in range(3):
            trainer.update()
        trainer.take_labels(answers(trainer))
        for _ in range(5):
            trainer.update()
            trainer.take_labels(answers(trainer))
        assert earned(trainer, 2) > 0
        trainer.take_labels([said(COIN, **MUTE)])
        trainer.flush()
        assert earned(trainer, 3) == 0
        assert trainer.rewarding.latest_scores[trainer.captions.id_of(COIN)] == 0
        if kind.startswith("counts"):
            trainer.update()
            assert trainer.flush().metrics["reward/intrinsic"] > 0, "novelty is paid as before"
        host = json.loads(json.dumps(trainer.host_state()))
        device, arrays = jax.device_get(trainer.state), trainer.reward_arrays()
        taken_back = said(COIN, **NOBODY_SAYS) if kind == "ranking" else said(COIN, helpful=True, source="llm")
        trainer.take_labels([taken_back])
        assert earned(trainer, 3) > 0
    with Trainer(config("intrinsic", reward=REWARDS[kind])) as resumed:
        resumed.load(device, host, arrays)
        assert earned(resumed, 3) == 0, "a resumed run goes on with it"
        resumed.take_labels([taken_back])
        assert earned(resumed, 3) > 0
