"""Cohen's kappa and its interval, by hand and against chance."""

import random

import pytest

from llm_annotator.agreement import Z_95, Counts, agreement, kappa, kappa_interval


def test_kappa_by_hand() -> None:
    # Agreement 35/50 = 0.7; by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5; (0.7 - 0.5) / (1 - 0.5) = 0.4.
    counts = Counts(20, 5, 10, 15)
    assert agreement(counts) == pytest.approx(0.7)
    assert kappa(counts) == pytest.approx(0.4)


def test_the_interval_by_hand() -> None:
    # The variance of Fleiss, Cohen and Everitt for the same counts, n = 50, chance 0.5, kappa 0.4:
    # 0.4 (1 - 1.1 * 0.6)^2 + 0.3 (1 - 0.9 * 0.6)^2 + 0.36 (0.1 * 1.1^2 + 0.2 * 0.9^2) - (0.4 - 0.5 * 0.6)^2 = 0.2016,
    # over 50 * 0.5^2: 0.016128, of which the root is 0.12700.
    interval = kappa_interval(Counts(20, 5, 10, 15))
    assert interval is not None
    assert interval[1] == pytest.approx(0.4 + Z_95 * 0.126996, abs=1e-5)
    # Wilson's interval of 35 of 50 begins at 0.5625, which reaches further down: (0.5625 - 0.5) / 0.5.
    assert interval[0] == pytest.approx(0.1250, abs=2e-4)


@pytest.mark.parametrize(
    ("counts", "value"),
    [
        (Counts(3, 0, 0, 4), 1.0),
        (Counts(0, 3, 3, 0), -1.0),
        (Counts(1, 1, 1, 1), 0.0),
        (Counts(5, 0, 0, 0), None),
        (Counts(0, 0, 0, 0), None),
    ],
)
def test_kappa_at_its_ends(counts: Counts, value: float | None) -> None:
    assert kappa(counts) == value
    assert (kappa_interval(counts) is None) == (value is None)


def test_full_agreement_on_few_captions_proves_little() -> None:
    few, many = kappa_interval(Counts(5, 0, 0, 5)), kappa_interval(Counts(500, 0, 0, 500))
    assert few is not None
    assert many is not None
    assert few[1] == many[1] == 1.0
    assert few[0] < 0.5 < 0.98 < many[0]


def test_swapping_the_two_changes_nothing() -> None:
    one, other = Counts(30, 12, 5, 90), Counts(30, 5, 12, 90)
    assert kappa(one) == pytest.approx(kappa(other))
    assert kappa_interval(one) == pytest.approx(kappa_interval(other))


def test_the_interval_holds_the_kappa_of_all_captions_as_often_as_it_says() -> None:
    draw = random.Random(5)
    chances = (0.12, 0.05, 0.03, 0.80)
    truth = kappa(Counts(12, 5, 3, 80))
    assert truth is not None
    held = 0
    for _ in range(400):
        drawn = draw.choices(range(4), chances, k=200)
        interval = kappa_interval(Counts(*(drawn.count(kind) for kind in range(4))))
        held += interval is not None and interval[0] <= truth <= interval[1]
    assert 0.92 <= held / 400 <= 0.99
