"""Counts, mixing, and the contract of every reward model."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_annotator.types import LabelStatus, LabelUpdate
from oni.captions import EMPTY_ID, CaptionTable
from oni.config import RewardConfig, TrainConfig
from oni.rewards import make_mix, make_reward_model
from oni.rewards.mixing import count_in_episode, empty_counts, mix_rewards


def test_counts_by_hand():
    caption_id = jnp.array([[1, 2], [1, 2], [3, 2], [1, 2]])
    reset = jnp.array([[True, True], [False, False], [False, True], [False, False]])
    counts, number = count_in_episode(jnp.zeros((2, 8), jnp.uint8), caption_id, reset)
    assert number.tolist() == [[1, 1], [2, 2], [1, 1], [3, 2]]
    assert counts[0, :4].tolist() == [0, 3, 0, 1]
    assert counts[1, :4].tolist() == [0, 0, 2, 0]


def test_silence_does_not_count_against_a_caption_in_its_slot():
    _, number = count_in_episode(jnp.zeros((1, 4), jnp.uint8), jnp.array([[0], [0], [4]]), jnp.zeros((3, 1), bool))
    assert number[:, 0].tolist() == [1, 1, 1]


def test_counts_go_on_in_the_next_rollout_and_saturate():
    counts = jnp.zeros((1, 4), jnp.uint8)
    ids, go_on = jnp.ones((100, 1), jnp.int32), jnp.zeros((100, 1), bool)
    for _ in range(3):
        counts, number = count_in_episode(counts, ids, go_on)
    assert number[-1, 0] == 255
    assert counts[0].tolist() == [0, 255, 0, 0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_counts_equal_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    steps, batch, slots = 12, 3, 4
    ids = rng.integers(0, 7, (steps, batch))
    reset = rng.random((steps, batch)) < 0.2
    counts = rng.integers(0, 3, (batch, slots)).astype(np.uint8)
    expected, number = counts.copy(), np.zeros((steps, batch))
    for t in range(steps):
        for b in range(batch):
            if reset[t, b]:
                expected[b] = 0
            if ids[t, b] == EMPTY_ID:
                number[t, b] = 1
                continue
            expected[b, ids[t, b] % slots] += 1
            number[t, b] = expected[b, ids[t, b] % slots]
    ours, ours_number = count_in_episode(jnp.asarray(counts), jnp.asarray(ids), jnp.asarray(reset))
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(ours_number, number)


def test_mixing_by_hand():
    # 2 * 0.5 + 0.3 * 1 / 2^3
    mixed = mix_rewards(
        jnp.array([[0.5]]),
        jnp.array([[1.0]]),
        jnp.array([[2]]),
        extrinsic_coef=2.0,
        intrinsic_coef=0.3,
        count_exponent=3.0,
    )
    assert float(mixed.extrinsic[0, 0]) == pytest.approx(1.0)
    assert float(mixed.intrinsic[0, 0]) == pytest.approx(0.0375)
    assert float(mixed.total[0, 0]) == pytest.approx(1.0375)


def test_the_reward_logged_is_the_reward_used():
    config = RewardConfig(extrinsic_coef=1.0, intrinsic_coef=0.5, count_exponent=1.0)
    ids = jnp.array([[1], [1], [0], [2]])
    score = jnp.array([0.0, 1.0, 0.0, 0.0])
    _, reward, stats = make_mix(config)(
        empty_counts(config, 1), jnp.array([[0.0], [0.0], [1.0], [0.0]]), jnp.zeros((4, 1), bool), ids, score
    )
    assert reward.total[:, 0].tolist() == [0.5, 0.25, 1.0, 0.0]
    assert stats.num_steps.tolist() == [0, 2, 1, 0]
    assert stats.num_episodes.tolist() == [0, 1, 1, 0]
    assert stats.reward_sum.tolist() == [0.0, 0.75, 0.0, 0.0]
    assert float((reward.total - reward.extrinsic).sum()) == float(stats.reward_sum.sum())


def labelled_table(**labels):
    table = CaptionTable(1)
    for text in labels:
        table.intern(text.encode())
    table.set_labels(
        LabelUpdate(caption=text.encode(), status=LabelStatus.LABELLED, helpful=helpful, p_helpful=None)
        for text, helpful in labels.items()
        if helpful is not None
    )
    return table


def retrieval(**settings):
    return make_reward_model(TrainConfig(reward=RewardConfig(kind="retrieval", **settings)))


def test_retrieval_pays_helpful_captions_only():
    table = labelled_table(good=True, bad=False, unknown=None)
    assert retrieval().score(table, np.arange(4)).tolist() == [0.0, 1.0, 0.0, 0.0]


def test_retrieval_pays_probabilities_when_asked():
    table = CaptionTable(1)
    news = [
        (b"likely", True, 0.9, "llm"),
        (b"unlikely", False, 0.2, "llm"),
        (b"certain", True, None, "llm"),  # an annotator that gives no probabilities: the label counts
        (b"never", False, None, "llm"),
        (b"overruled", True, 0.1, "human"),  # what a person says counts in full
    ]
    for text, *_ in news:
        table.intern(text)
    table.intern(b"unknown")
    table.set_labels(
        LabelUpdate(caption=text, status=LabelStatus.LABELLED, helpful=helpful, p_helpful=p, source=source)
        for text, helpful, p, source in news
    )
    model = retrieval(use_probability=True)
    score = model.score(table, np.arange(7))
    assert score.dtype == np.float32
    np.testing.assert_allclose(score, [0.0, 0.9, 0.2, 1.0, 0.0, 1.0, 0.0])
    table.forget_labels()
    assert not model.score(table, np.arange(7)).any()
