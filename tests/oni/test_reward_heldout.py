"""What is held out, and the figures on it."""

import numpy as np
import pytest

from oni.rewards.heldout import (
    accuracy,
    auc,
    calibration_error,
    is_held_out,
    label_figures,
    log_loss,
    logistic,
    pair_figures,
)

P = np.array([0.9, 0.8, 0.3, 0.6])
LABEL = np.array([True, False, False, True])


def test_figures_by_hand():
    assert accuracy(P, LABEL) == 0.75  # 0.8 is wrong
    assert auc(P, LABEL) == 0.75  # of the pairs (0.9, 0.8) (0.9, 0.3) (0.6, 0.8) (0.6, 0.3) one is the wrong way round
    assert log_loss(P, LABEL) == pytest.approx(-np.log([0.9, 0.2, 0.7, 0.6]).mean())
    # every sample is alone in its bin: |0.9 - 1|, |0.8 - 0|, |0.3 - 0|, |0.6 - 1|
    assert calibration_error(P, LABEL) == pytest.approx((0.1 + 0.8 + 0.3 + 0.4) / 4)


def test_a_bin_compares_means():
    # all in one bin: mean of p 0.85, share of positives 0.5
    assert calibration_error(np.array([0.82, 0.88]), np.array([True, False])) == pytest.approx(0.35)
    assert calibration_error(np.array([1.0, 1.0]), np.array([True, True])) == 0.0


def test_ties_count_half_in_the_auc():
    assert auc(np.array([0.5, 0.5, 0.5]), np.array([True, False, False])) == 0.5
    assert auc(np.array([0.5, 0.5, 0.1]), np.array([True, False, False])) == 0.75


def test_what_is_not_defined_is_left_out():
    assert auc(P, np.ones(4, bool)) is None
    assert "auc" not in label_figures(P, np.ones(4, bool))
    assert set(label_figures(P, LABEL)) == {"accuracy", "auc", "log_loss", "calibration_error"}
    assert set(pair_figures(P, LABEL)) == {"accuracy", "log_loss", "calibration_error"}
    assert label_figures(P[:0], LABEL[:0]) == {}


def test_certain_and_wrong_is_a_finite_loss():
    assert np.isfinite(log_loss(np.array([0.0]), np.array([True])))
    np.testing.assert_allclose(logistic(np.array([-1000.0, 0.0, 1000.0])), [0.0, 0.5, 1.0])


def test_the_text_decides_what_is_held_out():
    texts = [b"You kill the newt %d!" % i for i in range(2000)]
    held_out = [is_held_out(text, share=0.1) for text in texts]
    assert 150 < sum(held_out) < 250
    assert held_out == [is_held_out(text, share=0.1) for text in texts]
    # those held out of a smaller share stay so in a larger one
    assert all(is_held_out(text, share=0.2) for text, out in zip(texts, held_out, strict=True) if out)
    assert not any(is_held_out(text, share=0.0) for text in texts)


def test_the_order_of_a_pair_does_not_matter():
    pairs = [(b"a%d" % i, b"b%d" % i) for i in range(500)]
    assert [is_held_out(a, b, share=0.5) for a, b in pairs] == [is_held_out(b, a, share=0.5) for a, b in pairs]
