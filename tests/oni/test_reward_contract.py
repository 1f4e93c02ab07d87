"""One contract for reward models. To join it, a model adds a line to CASES."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from llm_annotator.types import Comparison, LabelStatus, LabelUpdate
from oni.captions import EMPTY_ID, CaptionStats, CaptionTable
from oni.config import PreferenceConfig, RewardLearnerConfig
from oni.errors import CheckpointError
from oni.rewards.base import RewardModel
from oni.rewards.classification import Classification
from oni.rewards.none import NoReward
from oni.rewards.ranking import Ranking
from oni.rewards.retrieval import Retrieval

LEARNER = RewardLearnerConfig(
    ngram_buckets=2048, ngram_size=16, batch_size=32, learning_rate=0.01, steps_per_arrival=16, held_out=0.2,
    min_labels=32, in_background=False,
)  # fmt: skip
CNN = RewardLearnerConfig(
    encoder="cnn", max_caption_bytes=123, batch_size=16, learning_rate=1e-3, steps_per_arrival=16, held_out=0.2,
    min_labels=32, in_background=False,
)  # fmt: skip


class Case(NamedTuple):
    """A model of the contract.

    make: a new one, each time the same. learns: whether it comes to know captions that nobody labelled.
    """

    make: Callable[[], RewardModel]
    learns: bool


CASES = {
    "none": Case(NoReward, learns=False),
    "retrieval": Case(Retrieval, learns=False),
    "classification": Case(lambda: Classification(LEARNER), learns=True),
    "classification-probability": Case(
        lambda: Classification(LEARNER, threshold=0.3, use_probability=True), learns=True
    ),
    "ranking": Case(lambda: Ranking(LEARNER, PreferenceConfig(pairs_per_update=100)), learns=True),
}

BEASTS = [b"newt", b"jackal", b"grid bug", b"sewer rat", b"gnome lord", b"kobold", b"hill orc", b"acid blob", b"gecko",
          b"floating eye", b"giant bat", b"homunculus", b"dingo", b"rotting corpse", b"lichen", b"wolf", b"soldier ant",
          b"dwarf", b"rock piercer", b"pony"]  # fmt: skip
HELPFUL = [b"You kill the %b!", b"You destroy the %b!", b"You find a %b wand.", b"You hit the %b."]
UNHELPFUL = [b"The %b bites!", b"The %b misses you.", b"You see here a %b corpse.", b"You hear a %b far away."]
UNSEEN = [(b"You kill the tengu!", True), (b"The tengu misses you.", False)]
KEPT = 40
"""Captions that come up later than the others."""


@pytest.fixture(params=list(CASES))
def case(request):
    return CASES[request.param]


def world():
    """Returns captions and the rule that labels them: 160 in a mixed order."""
    captions = [(form % beast, form in HELPFUL) for form in HELPFUL + UNHELPFUL for beast in BEASTS]
    order = np.random.default_rng(0).permutation(len(captions))
    return [captions[i] for i in order]


class Game:
    """Says captions, and answers what a model wants to know, as a trainer with its annotator does."""

    def __init__(self, table=None):
        self.table = table or CaptionTable(1)
        self.rule = dict(world())
        self.env_step = 0

    def play(self, model, texts):
        for text in texts:
            self.table.intern(text)
        count = np.zeros(self.table.capacity, np.int64)
        count[[self.table.intern(text) for text in texts]] = 1
        self.env_step += 1
        stats = CaptionStats(num_steps=count, num_episodes=count, reward_sum=np.zeros(len(count)))
        self.table.add(stats, env_step=self.env_step)
        model.saw(self.table, count)

    def label(self, model, texts):
        changed = self.table.set_labels(
            LabelUpdate(caption=t, status=LabelStatus.LABELLED, helpful=self.rule[t], p_helpful=None) for t in texts
        )
        model.observe(self.table, changed)

    def compare(self, model):
        asked = model.wanted(self.table, 200)
        model.compare(self.table, [self.answer(*pair) for pair in asked])
        return asked

    def answer(self, first, second):
        ours, theirs = self.rule[first], self.rule[second]
        better = ours if ours != theirs else True  # no preference: it says "the first" in either order
        return Comparison(first=first, second=second, status=LabelStatus.LABELLED, first_better=better, p_first=None)

    def run(self, model, texts, turns):
        for turn in range(turns):
            said = texts[turn % 4 :: 4]
            self.play(model, said)
            self.label(model, said)
            self.compare(model)
        return self


def texts_of(part):
    return [text for text, _ in part]


def all_ids(table):
    return np.arange(len(table))


@pytest.fixture
def trained(case):
    model = case.make()
    yield model, Game().run(model, texts_of(world()), turns=20)
    model.close()


def test_it_is_a_reward_model(case):
    model = case.make()
    assert isinstance(model, RewardModel)
    assert model.needs in ("nothing", "labels", "preferences")
    model.close()


def test_nothing_known_gives_nothing(case):
    model, game = case.make(), Game()
    for text in texts_of(world()):
        game.table.intern(text)
    game.play(model, texts_of(world())[:20])
    assert not model.score(game.table, all_ids(game.table)).any()
    assert model.score(game.table, np.zeros(0, np.int64)).shape == (0,)
    model.close()


def test_too_few_labels_give_nothing(case):
    if not case.learns:
        pytest.skip("has no minimum")
    model, game = case.make(), Game()
    game.run(model, texts_of(world())[:6], turns=2)
    game.play(model, texts_of(world())[:6])
    assert 0 < model.metrics()["reward_model/labels"] < 32
    assert not model.score(game.table, all_ids(game.table)).any()
    model.close()


def test_scores_have_their_form(trained):
    model, game = trained
    ids = np.array([5, EMPTY_ID, 3, 5])
    score = model.score(game.table, ids)
    assert score.dtype == np.float32
    assert score.shape == (4,)
    assert score[1] == 0.0
    assert score[0] == score[3]


def test_scoring_is_pure(trained):
    model, game = trained
    ids = all_ids(game.table)
    score = model.score(game.table, ids)
    np.testing.assert_array_equal(model.score(game.table, ids), score)
    np.testing.assert_array_equal(model.score(game.table, ids[::-1]), score[::-1])
    np.testing.assert_array_equal(model.score(game.table, ids[7:9]), score[7:9])


def check_rule(model, game):
    assert model.metrics()["reward_model/heldout_accuracy"] >= 0.98
    helpful, unhelpful = (
        model.score(game.table, np.array([game.table.intern(text) for text, label in world() if label is wanted]))
        for wanted in (True, False)
    )
    assert (helpful > 0).mean() >= 0.98
    assert (unhelpful <= 0).mean() >= 0.98


def test_it_learns_a_rule(case, trained):
    if not case.learns:
        pytest.skip("knows what was labelled only")
    check_rule(*trained)


@pytest.mark.slow
def test_the_convolutions_learn_a_rule():
    model = Classification(CNN)
    check_rule(model, Game().run(model, texts_of(world()), turns=10))


def test_captions_that_nobody_labelled(case, trained):
    model, game = trained
    ids = np.array([game.table.intern(text) for text, _ in UNSEEN])
    good, bad = model.score(game.table, ids)
    if case.learns:
        assert good > 0 >= bad
    else:
        assert good == bad == 0.0


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(state))


def test_a_resumed_model_goes_on_the_same(case):
    texts = texts_of(world())
    model = case.make()
    game = Game().run(model, texts[KEPT:], turns=8)
    game.play(model, texts[:20])
    arrays = jax.tree.map(np.asarray, model.arrays())
    state = through_json(model.state_dict())
    again = case.make()
    other = Game(CaptionTable.from_state_dict(through_json(game.table.state_dict())))
    other.env_step = game.env_step
    assert jax.tree.structure(arrays) == jax.tree.structure(again.arrays())
    again.load(arrays, state)
    ids = all_ids(game.table)
    before = model.score(game.table, ids)
    np.testing.assert_array_equal(again.score(other.table, ids), before)
    assert again.metrics() == model.metrics()
    for one, its_game in ((model, game), (again, other)):
        its_game.run(one, texts, turns=3)
    assert again.wanted(other.table, 8) == model.wanted(game.table, 8)
    ids = all_ids(game.table)
    after = model.score(game.table, ids)
    np.testing.assert_array_equal(again.score(other.table, ids), after)
    if case.learns:
        assert before.any()
        assert model.metrics()["reward_model/steps"] > int(arrays.step) > 0
    model.close()
    again.close()


def test_another_goal_begins_anew(case, trained):
    model, game = trained
    game.table.forget_labels()
    model.forget()
    assert not model.score(game.table, all_ids(game.table)).any()
    fresh, same = case.make(), Game()
    jax.tree.map(np.testing.assert_array_equal, model.arrays(), fresh.arrays())
    if case.learns:
        assert model.metrics() == fresh.metrics()
    # what it learns then is what a new model learns
    same.run(fresh, texts_of(world()), turns=4)
    again = Game()
    again.run(model, texts_of(world()), turns=4)
    ids = all_ids(same.table)
    np.testing.assert_array_equal(model.score(again.table, ids), fresh.score(same.table, ids))
    fresh.close()


def test_metrics_are_numbers_with_names(trained):
    model, _ = trained
    for name, value in model.metrics().items():
        assert name.startswith("reward_model/")
        assert np.isfinite(value)


def test_the_checkpoint_of_another_model_is_refused():
    ranking, classification = CASES["ranking"].make(), CASES["classification"].make()
    with pytest.raises(CheckpointError, match="another reward model"):
        ranking.load(classification.arrays(), classification.state_dict())
