"""Preferences: joining answers, choosing pairs, and the scale of the scores."""

import json

import numpy as np
import pytest

from llm_annotator.types import Comparison, LabelStatus
from oni.captions import CaptionStats, CaptionTable
from oni.config import PreferenceConfig, RewardLearnerConfig
from oni.rewards.pairs import PairTable, draw_pairs, join_answers, join_probabilities, recent_captions
from oni.rewards.ranking import Ranking, RunningMoments

SMALL = RewardLearnerConfig(ngram_buckets=512, ngram_size=8, batch_size=16, in_background=False, min_labels=4)


def table_of(*texts):
    table = CaptionTable(1)
    for text in texts:
        table.intern(text)
    return table


def answer(first, second, better, p=None, status=LabelStatus.LABELLED):
    return Comparison(first=first, second=second, status=status, first_better=better, p_first=p)


def show(table, ids, *, env_step, times=1):
    count = np.zeros(table.capacity, np.int64)
    count[ids] = times
    table.add(CaptionStats(num_steps=count, num_episodes=count, reward_sum=np.zeros(len(count))), env_step=env_step)
    return count


def test_answers_that_agree_decide_and_others_tie():
    assert join_answers(True, False) == 1.0
    assert join_answers(False, True) == 0.0
    assert join_answers(True, True) == 0.5
    assert join_answers(False, False) == 0.5


def test_probabilities_by_hand():
    # log-odds 9 and 1/4: the root of 9 * 4 is 6, and 6 / 7 is what both orders say together
    assert join_probabilities(0.9, 0.2) == pytest.approx(6 / 7)
    # a model that says "the first" with the same conviction whatever it is has no preference
    assert join_probabilities(0.9, 0.9) == pytest.approx(0.5)
    assert join_probabilities(1.0, 0.0) == pytest.approx(1.0, abs=1e-5)
    assert join_probabilities(1.0, 1.0) == pytest.approx(0.5)


def test_a_pair_has_a_target_when_both_orders_are_answered():
    table, pairs = table_of(b"a", b"b", b"c"), PairTable(soft=False, held_out=0.0)
    assert pairs.answered(table, [answer(b"b", b"a", False)]) == 0  # b first, and a is better
    assert pairs.joined().tolist() == [False]
    assert pairs.answered(table, [answer(b"a", b"b", True)]) == 1
    assert pairs.target[0] == 1.0
    assert pairs.consistent().tolist() == [True]
    # a later answer about the same order takes its place
    assert pairs.answered(table, [answer(b"b", b"a", True)]) == 1
    assert pairs.target[0] == 0.5
    assert pairs.consistent().tolist() == [False]
    assert pairs.size == 1


def test_soft_targets_need_both_probabilities():
    table, pairs = table_of(b"a", b"b", b"c"), PairTable(soft=True, held_out=0.0)
    pairs.answered(table, [answer(b"a", b"b", True, 0.9), answer(b"b", b"a", False, 0.2)])
    pairs.answered(table, [answer(b"a", b"c", True, 0.9), answer(b"c", b"a", False)])
    np.testing.assert_allclose(pairs.target[:2], [6 / 7, 1.0], rtol=1e-6)


def test_what_is_no_preference_is_passed_over():
    table, pairs = table_of(b"a", b"b"), PairTable(soft=False, held_out=0.0)
    news = [
        answer(b"a", b"b", None, status=LabelStatus.UNPARSED),
        answer(b"a", b"a", True),
        answer(b"a", b"", True),
        answer(b"a", b"of another run", True),
    ]
    assert pairs.answered(table, news) == 0
    assert pairs.size == 0


def test_the_oldest_pairs_are_dropped():
    table, pairs = table_of(b"a", b"b", b"c", b"d"), PairTable(soft=False, held_out=0.0, limit=3)
    for pair in ((1, 2), (1, 3), (2, 3), (4, 1)):
        pairs.add(table, pair)
    assert pairs.size == 3
    assert (1, 2) not in pairs
    assert (1, 4) in pairs
    assert pairs.ids[:3].tolist() == [[1, 4], [1, 3], [2, 3]]
    assert pairs.unanswered(2) == [(2, 3), (1, 4)]
    again = PairTable(soft=False, held_out=0.0, limit=3)
    again.load_state_dict(json.loads(json.dumps(pairs.state_dict())))
    again.add(table, (2, 4))
    assert (1, 3) not in again
    assert (2, 3) in again


def test_many_pairs_survive_a_round_trip():
    table, pairs = table_of(*[b"%d" % i for i in range(60)]), PairTable(soft=True, held_out=0.3)
    rng = np.random.default_rng(0)
    for a in range(60):
        for b in range(a):
            texts = (b"%d" % a, b"%d" % b)
            news = [answer(*texts, True, float(rng.random())), answer(*texts[::-1], False, float(rng.random()))]
            pairs.answered(table, news[: 1 + (a + b) % 2])
    assert pairs.size == 1770  # more than are allocated at first
    again = PairTable(soft=True, held_out=0.3)
    again.load_state_dict(json.loads(json.dumps(pairs.state_dict())))
    assert again.size == pairs.size
    for name in ("ids", "answer", "p", "target", "is_held_out"):
        np.testing.assert_array_equal(getattr(again, name)[:1770], getattr(pairs, name)[:1770])
    assert 0.2 < pairs.is_held_out[:1770].mean() < 0.4
    assert 0.4 < pairs.joined().mean() < 0.6


def test_the_reservoir_holds_what_came_up_last():
    table = table_of(b"a", b"b", b"c", b"d", b"never")
    show(table, [1, 2], env_step=10)
    show(table, [3, 4], env_step=20)
    show(table, [0, 1], env_step=30)
    assert recent_captions(table, 10).tolist() == [1, 2, 3, 4]
    assert recent_captions(table, 2).tolist() == [1, 4]  # of those seen at 20 the newer caption
    assert recent_captions(table, 3).tolist() == [1, 3, 4]


def test_no_pair_is_drawn_twice():
    table, asked = table_of(*[b"%d" % i for i in range(6)]), PairTable(soft=False, held_out=0.0)
    show(table, np.arange(1, 7), env_step=1)
    drawn = []
    for turn in range(30):
        found = draw_pairs(table, asked, config=PreferenceConfig(), limit=4, rng=np.random.default_rng((0, turn)))
        assert len(found) <= 4
        for pair in found:
            asked.add(table, pair)
        drawn += found
    assert len(drawn) == len(set(drawn)) == 15
    assert all(0 < a < b for a, b in drawn)


@pytest.mark.parametrize(("sampling", "low", "high"), [("frequency", 0.9, 1.0), ("uniform", 0.3, 0.7)])
def test_how_captions_are_drawn(sampling, low, high):
    table = table_of(*[b"%d" % i for i in range(40)])
    show(table, np.arange(1, 41), env_step=1)
    show(table, np.arange(1, 21), env_step=1, times=50)
    config = PreferenceConfig(sampling=sampling)
    empty = PairTable(soft=False, held_out=0.0)
    found = draw_pairs(table, empty, config=config, limit=100, rng=np.random.default_rng(0))
    assert len(found) > 50
    assert low < np.mean([i <= 20 for pair in found for i in pair]) <= high


def test_wanted_pairs_come_in_both_orders():
    table = table_of(*[b"%d" % i for i in range(30)])
    show(table, np.arange(1, 31), env_step=1)
    model, same = (Ranking(SMALL, PreferenceConfig(pairs_per_update=5)) for _ in range(2))
    asked = model.wanted(table, 100)
    assert len(asked) == 10
    assert [pair[::-1] for pair in asked[::2]] == asked[1::2]
    assert asked == same.wanted(table, 100)
    assert len(model.wanted(table, 7)) == 6
    assert model.wanted(table, 1) == []
    more = model.wanted(table, 100)
    assert not set(more) & set(asked)
    assert Ranking(SMALL).wanted(table_of(b"alone"), 10) == []


def test_a_pair_without_an_answer_is_asked_once_more_when_no_other_is_left():
    table = table_of(b"a", b"b", b"c")
    show(table, np.arange(1, 4), env_step=1)
    model = Ranking(SMALL, PreferenceConfig(pairs_per_update=8))
    asked = model.wanted(table, 100)
    assert len(asked) == 6
    model.compare(table, [answer(*pair, pair[0] > pair[1]) for pair in asked[:4]])
    assert model.wanted(table, 100) == asked[4:]
    model.compare(table, [answer(*pair, pair[0] > pair[1]) for pair in asked[4:]])
    assert model.wanted(table, 100) == []


def test_what_was_under_way_is_asked_once_more_after_a_resume():
    table = table_of(*[b"%d" % i for i in range(30)])
    show(table, np.arange(1, 31), env_step=1)
    model, again = (Ranking(SMALL, PreferenceConfig(pairs_per_update=4)) for _ in range(2))
    asked = model.wanted(table, 100)
    both, one, *_ = asked[::2]
    model.compare(table, [answer(*both, True), answer(*both[::-1], False), answer(*one, True)])
    again.load(model.arrays(), json.loads(json.dumps(model.state_dict())))
    first = again.wanted(table, 100)
    assert first[: len(asked) - 2] == asked[2:]
    assert not set(first[len(asked) - 2 :]) & set(asked)
    assert not set(again.wanted(table, 100)) & set(asked)


def test_moments_by_hand():
    moments = RunningMoments().add(np.array([1.0, 4.0]), np.array([2, 1]), limit=np.inf)  # 1 1 4
    assert moments == pytest.approx((3, 2.0, 2.0))
    moments = moments.add(np.array([5.0, 7.0]), np.array([1, 1]), limit=np.inf)  # 1 1 4 5 7
    assert moments == pytest.approx((5, 3.6, np.var([1, 1, 4, 5, 7])))
    assert moments.add(np.zeros(0), np.zeros(0, np.int64), limit=np.inf) is moments


def test_old_samples_fade():
    moments = RunningMoments(num=10.0, mean=0.0, var=1.0)
    moments = moments.add(np.array([2.0]), np.array([10]), limit=10)
    assert moments == pytest.approx((10, 1.0, 0.5 * 1.0 + 0.5 * 0.0 + 4.0 * 0.25))
    assert moments.add(np.array([2.0]), np.array([10]), limit=10).mean == 1.5


def test_scores_are_standardised_and_cut_off_by_hand():
    moments = RunningMoments(num=5.0, mean=1.0, var=4.0)
    z = moments.standardize(np.array([3.0, 0.5, 0.0, -3.0]), threshold=-0.5)
    assert z.tolist() == [1.0, -0.25, 0.0, 0.0]  # at the threshold itself nothing is paid
    assert z.dtype == np.float32
    assert RunningMoments(num=5.0, mean=1.0, var=0.0).standardize(np.ones(2), threshold=-0.5).tolist() == [0.0, 0.0]


def test_a_stream_of_one_caption_makes_no_giants_of_the_others():
    moments = RunningMoments(num=50.0, mean=1.0, var=0.0)
    np.testing.assert_allclose(moments.standardize(np.array([1.05]), threshold=-0.5), [0.5], rtol=1e-5)  # over 0.1


def test_the_model_scores_in_standard_deviations_of_the_stream():
    texts = [b"good %d" % i for i in range(4)] + [b"bad %d" % i for i in range(4)]
    table, ids = table_of(*texts), np.arange(9)
    config = RewardLearnerConfig(**{**vars(SMALL), "held_out": 0.0, "steps_per_update": 0, "steps_per_arrival": 64})
    model = Ranking(config, threshold=0.0)
    pairs = [(a, b) for a in texts for b in texts if a[:1] != b[:1]]
    model.compare(table, [answer(a, b, a.startswith(b"good")) for a, b in pairs])
    assert model.metrics()["reward_model/labels"] == 16
    assert model.metrics()["reward_model/ties"] == 0.0
    assert model.is_ready
    assert not model.score(table, ids).any()  # no update is over: there is no scale yet
    count = show(table, np.arange(1, 9), env_step=1)
    count[1] = 3
    count[0] = 1000  # silence is no part of the stream
    model.saw(table, count)
    value = model.values(table, ids[1:])
    stream = np.repeat(value.astype(np.float64), [3, 1, 1, 1, 1, 1, 1, 1])
    assert stream.std() > 0.1
    z = (value - stream.mean()) / stream.std()
    np.testing.assert_allclose(model.score(table, ids)[1:], np.where(z > 0.0, z, 0.0), rtol=1e-4)
    assert model.score(table, ids)[0] == 0.0
    assert (model.score(table, ids[1:5]) > 0).all()
    assert not model.score(table, ids[5:]).any()


def test_only_pairs_without_a_tie_measure_the_model():
    table = table_of(*[b"%d" % i for i in range(20)])
    model = Ranking(RewardLearnerConfig(**{**vars(SMALL), "held_out": 0.5}))
    news = []
    for i in range(0, 20, 2):
        a, b = b"%d" % i, b"%d" % (i + 1)
        news += [answer(a, b, True), answer(b, a, i % 4 == 0)]  # every second one is a tie
    model.compare(table, news)
    data = model._known(table)
    assert data.num_labels == 10
    assert 0 < len(data.held_out) <= 5
    assert set(data.held_out.target.tolist()) <= {0.0, 1.0}
    assert 0.5 in data.learned.target
