"""Losses, gradient steps, rounds of them, when they are due, and the thread that does them."""

import functools
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm_annotator.types import LabelStatus, LabelUpdate
from oni.captions import CaptionTable
from oni.config import RewardLearnerConfig
from oni.rewards.classification import Classification, class_weights
from oni.rewards.heldout import label_figures
from oni.rewards.learning import (
    MEASURE_EVERY_STEPS,
    Data,
    Examples,
    LearnerState,
    Round,
    draw_batch,
    logits_of,
    loss_of,
    make_learning,
    run_round,
    steps_due,
    values_of,
)
from oni.rewards.text import make_text_encoder
from oni.rewards.worker import Worker

SMALL = RewardLearnerConfig(ngram_buckets=512, ngram_size=8, batch_size=16, in_background=False, min_labels=8)


def test_the_loss_of_labels_by_hand():
    value = jnp.array([[0.0], [np.log(3.0)]])  # P = 1/2 and 3/4
    loss = loss_of(value, jnp.array([1.0, 0.0]), jnp.ones(2))
    assert float(loss) == pytest.approx((np.log(2) + np.log(4)) / 2)
    soft = loss_of(value[1:], jnp.array([0.25]), jnp.array([2.0]))
    assert float(soft) == pytest.approx(-2 * (0.25 * np.log(3 / 4) + 0.75 * np.log(1 / 4)))


def test_the_loss_of_preferences_by_hand():
    value = jnp.array([[1.0 + np.log(3.0), 1.0]])  # P(first better) = 3/4
    better, worse, tie = (float(loss_of(value, jnp.array([t]), jnp.ones(1))) for t in (1.0, 0.0, 0.5))
    assert better == pytest.approx(np.log(4 / 3), rel=1e-5)
    assert worse == pytest.approx(np.log(4), rel=1e-5)
    assert tie == pytest.approx((better + worse) / 2, rel=1e-5)
    # turned round it says the same, and only the difference counts
    turned = loss_of(value[:, ::-1] + 7.0, jnp.array([0.0]), jnp.ones(1))
    assert float(turned) == pytest.approx(better, rel=1e-5)
    assert float(logits_of(value)[0]) == pytest.approx(np.log(3.0), rel=1e-5)


def test_class_weights_by_hand():
    # three of four unhelpful: 4 / (2 * 1) = 2 for the helpful one, 4 / (2 * 3) = 2/3 for the others
    np.testing.assert_allclose(class_weights(np.array([1.0, 0.0, 0.0, 0.0])), [2.0, 2 / 3, 2 / 3, 2 / 3])
    soft = np.array([0.9, 0.2, 0.1])
    weight = class_weights(soft)
    assert weight.mean() == pytest.approx(1.0)
    assert class_weights(np.ones(3)).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("arrived", "updated", "num_labels", "steps"),
    [
        (True, False, 100, 32),
        (True, True, 100, 33),
        (False, True, 100, 1),
        (True, False, 24_999, 32),
        (True, False, 25_000, 0),
        (True, True, 25_000, 1),
        (False, False, 100, 0),
    ],
)
def test_steps_that_are_due(arrived, updated, num_labels, steps):
    config = RewardLearnerConfig(steps_per_arrival=32, steps_per_update=1, early_labels=25_000)
    assert steps_due(config, arrived=arrived, updated=updated, num_labels=num_labels) == steps


def test_batches_depend_on_seed_and_step_alone():
    one = draw_batch(100, size=50, seed=1, step=7)
    np.testing.assert_array_equal(one, draw_batch(100, size=50, seed=1, step=7))
    assert (one != draw_batch(100, size=50, seed=1, step=8)).any()
    assert (one != draw_batch(100, size=50, seed=2, step=7)).any()
    assert one.min() >= 0
    assert one.max() < 100


@functools.cache
def small_learning(**changes):
    encoder = make_text_encoder(SMALL, num_outputs=2)
    return encoder, make_learning(encoder, learning_rate=0.1, **changes)


@pytest.mark.slow
def test_rows_are_scored_alike_whatever_is_scored_with_them():
    encoder, learning = small_learning()
    params = learning.init(jax.random.key(0)).params
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(1), p.shape), params)
    features = encoder.features([b"caption %d says %d" % (i, i * i) for i in range(600)])
    whole = values_of(learning, params, features)
    assert whole.shape == (600,)
    assert len(np.unique(whole)) > 500
    for ids in (np.arange(1), np.arange(5, 70), np.arange(599, -1, -1)):
        np.testing.assert_array_equal(values_of(learning, params, features[ids]), whole[ids])
    assert values_of(learning, params, features[:0]).shape == (0,)


@pytest.mark.slow
def test_gradients_are_clipped():
    encoder, plain = small_learning()
    _, clipped = small_learning(max_grad_norm=1e-9)
    features = encoder.features([b"good", b"bad"])[:, None]
    target = np.array([1.0, 0.0], np.float32)
    state, key = plain.init(jax.random.key(0)), jax.random.key(1)
    weight = np.full(2, 5.0, np.float32)
    moment = plain.step(state, features, target, weight, key)[0].opt_state[0].mu  # 0.1 * gradient
    small = clipped.step(clipped.init(jax.random.key(0)), features, target, weight, key)[0].opt_state[1][0].mu
    norm = [float(jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(tree)))) for tree in (moment, small)]
    assert norm[0] > 1e-3
    assert norm[1] == pytest.approx(1e-10, rel=1e-3)


def data_of(encoder, texts, labels):
    features = encoder.features(texts)
    ids = np.arange(len(texts))[:, None]
    target = np.array(labels, np.float32)
    examples = Examples(features=features, ids=ids, target=target, weight=np.ones(len(texts), np.float32))
    return Data(learned=examples, held_out=examples, num_labels=len(texts))


def test_a_round_learns_measures_and_stops():
    encoder, learning = small_learning()
    data = data_of(encoder, [b"good", b"bad"], [1, 0])
    first = learning.init(jax.random.key(0))
    given = {"batch_size": 16, "seed": 0, "figures": label_figures}
    done = run_round(learning, first, data, steps=MEASURE_EVERY_STEPS, **given)
    assert int(done.state.step) == MEASURE_EVERY_STEPS
    assert done.loss is not None
    assert done.loss < 0.1
    assert done.figures is not None
    assert done.figures["accuracy"] == 1.0
    # in two parts it is the same, and measured where a multiple is passed
    half = run_round(learning, first, data, steps=20, **given)
    assert half.figures is None
    rest = run_round(learning, half.state, data, steps=12, **given)
    assert rest.figures == done.figures
    jax.tree.map(np.testing.assert_array_equal, rest.state, done.state)
    stopped = run_round(learning, first, data, steps=9, stop=lambda: True, **given)
    assert stopped == Round(state=first, loss=None, figures=None)


def a_round(step):
    return Round(LearnerState(params={}, opt_state=(), step=jnp.int32(step)), loss=0.5, figures=None)


def take_when_done(worker):
    while worker.is_busy:
        done = worker.take()
        if done is not None:
            return done
        time.sleep(0.005)
    return None


def test_a_thread_works_while_the_caller_goes_on():
    worker, go_on = Worker(in_background=True), threading.Event()

    def work(stop):
        go_on.wait()
        return a_round(3)

    assert worker.start(work) is None
    assert worker.is_busy
    assert worker.take() is None
    go_on.set()
    done = take_when_done(worker)
    assert done is not None
    assert int(done.state.step) == 3
    assert not worker.is_busy
    worker.close()


def test_an_error_in_the_thread_is_told_and_ends_nothing(caplog):
    worker = Worker(in_background=True)

    def fail(stop):
        raise MemoryError("too little of it")

    worker.start(fail)
    assert take_when_done(worker) is None
    assert worker.errors == 1
    assert "too little of it" in caplog.text
    worker.start(lambda stop: a_round(1))
    assert take_when_done(worker) is not None
    worker.close()


def test_closing_ends_a_round_under_way():
    worker, begun = Worker(in_background=True), threading.Event()

    def work(stop):
        begun.set()
        while not stop():
            time.sleep(0.001)
        return a_round(1)

    worker.start(work)
    begun.wait()
    worker.close()
    assert not any(thread.name.startswith("reward-model") for thread in threading.enumerate())


def labelled(texts_and_labels):
    table = CaptionTable(1)
    for text, _ in texts_and_labels:
        table.intern(text)
    table.set_labels(
        LabelUpdate(caption=text, status=LabelStatus.LABELLED, helpful=label, p_helpful=None)
        for text, label in texts_and_labels
    )
    return table


@pytest.mark.slow
def test_a_model_learns_in_the_background():
    config = RewardLearnerConfig(
        ngram_buckets=512, ngram_size=8, batch_size=16, min_labels=8, held_out=0.0, learning_rate=0.03
    )
    assert config.in_background
    table = labelled([(b"good %d" % i, True) for i in range(10)] + [(b"bad %d" % i, False) for i in range(10)])
    model, ids = Classification(config), np.arange(1, 21)
    try:
        model.observe(table, ids.tolist())
        assert not model.score(table, ids).any()  # the first round cannot be over: nobody took it
        count = np.zeros(table.capacity, np.int64)
        while model.metrics()["reward_model/steps"] < 60:
            model.saw(table, count)
            time.sleep(0.005)
        score = model.score(table, ids)
        np.testing.assert_array_equal(score, [1.0] * 10 + [0.0] * 10)
        assert model.metrics()["reward_model/errors"] == 0
    finally:
        model.close()
    assert not any(thread.name.startswith("reward-model") for thread in threading.enumerate())
