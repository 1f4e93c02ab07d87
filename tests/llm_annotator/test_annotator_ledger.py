"""What the client keeps in mind about its captions."""

import pytest

from llm_annotator import ledger as module
from llm_annotator.ledger import REOFFER_S, Ledger
from llm_annotator.types import LabelStatus, LabelUpdate
from llm_annotator.wire import MAX_CAPTION_BYTES


def update(caption: bytes, status: LabelStatus = LabelStatus.LABELLED, *, helpful: bool | None = True) -> LabelUpdate:
    p_helpful = None if status is not LabelStatus.LABELLED else 0.9
    return LabelUpdate(
        caption=caption,
        status=status,
        helpful=helpful if status is LabelStatus.LABELLED else None,
        p_helpful=p_helpful,
    )


def want(ledger: Ledger, *captions: bytes, now_s: float = 0.0) -> None:
    for caption in captions:
        ledger.want(caption, now_s)


def test_what_is_wanted_again_comes_to_the_front_and_the_empty_caption_never() -> None:
    ledger = Ledger()
    want(ledger, b"a", b"", b"b", b"a")
    assert ledger.next_fresh() == [b"b", b"a"]
    ledger.offered([b"a", b"b"])
    want(ledger, b"c", b"a")
    assert ledger.next_fresh() == [b"c", b"a"]
    assert ledger.pending == 3


def test_only_news_about_own_captions_is_passed_on() -> None:
    ledger = Ledger()
    want(ledger, b"a")
    assert ledger.learn([update(b"a"), update(b"of another run")], 0.0) == [update(b"a")]
    assert ledger.learn([update(b"a")], 1.0) == []
    overruled = update(b"a", helpful=False)
    assert ledger.learn([overruled], 2.0) == [overruled]
    assert (ledger.pending, ledger.answered(LabelStatus.LABELLED)) == (0, 1)


def test_of_two_answers_the_one_that_was_read_later_stands_in_whatever_order_they_come() -> None:
    """What a slow offer found is read before a person overrules it, and comes after the poll that tells so."""
    ledger = Ledger()
    ledger.connected()
    want(ledger, b"a", b"b")
    overruled = update(b"a", helpful=False)
    assert ledger.learn([overruled], 0.0, [7]) == [overruled]
    assert ledger.learn([update(b"a"), update(b"b")], 1.0, [5, 6]) == [update(b"b")]
    assert ledger.learn([update(b"a")], 2.0, [8]) == [update(b"a")]
    want(ledger, b"a")
    assert ledger.next_fresh() == []


def test_an_old_answer_is_an_answer_and_that_of_another_store_is_none_of_the_old() -> None:
    ledger = Ledger()
    ledger.connected()
    want(ledger, b"a")
    ledger.learn([update(b"a", LabelStatus.FAILED)], 0.0, [7])
    want(ledger, b"a", now_s=REOFFER_S)
    assert ledger.learn([update(b"a")], REOFFER_S, [6]) == []
    assert ledger.pending == 0, "nobody waits for ever"
    ledger.connected()
    assert ledger.learn([update(b"a")], REOFFER_S + 1, [2]) == [update(b"a")]
    assert ledger.learn([update(b"a", helpful=False)], REOFFER_S + 2) == [], "of this service it is known how old"
    assert ledger.answered(LabelStatus.LABELLED) == 1


def test_a_service_that_tells_no_changes_is_believed() -> None:
    ledger = Ledger()
    ledger.connected()
    want(ledger, b"a")
    for helpful in (True, False, True):
        assert ledger.learn([update(b"a", helpful=helpful)], 0.0) == [update(b"a", helpful=helpful)]


def test_what_has_a_label_is_not_offered_again_and_what_failed_is_after_a_while() -> None:
    ledger = Ledger()
    want(ledger, b"good", b"bad")
    ledger.learn([update(b"good"), update(b"bad", LabelStatus.FAILED)], 100.0)
    want(ledger, b"good", b"bad", now_s=100.0 + REOFFER_S - 1)
    assert ledger.next_fresh() == []
    want(ledger, b"good", b"bad", now_s=100.0 + REOFFER_S)
    assert ledger.next_fresh() == [b"bad"]
    assert ledger.learn([update(b"bad")], 200.0) == [update(b"bad")]
    assert (ledger.answered(LabelStatus.FAILED), ledger.answered(LabelStatus.LABELLED)) == (0, 2)


def test_what_may_be_lost_is_offered_again_newest_first_and_once() -> None:
    ledger = Ledger()
    want(ledger, b"1", b"2", b"3", b"4", b"5")
    ledger.some_lost()
    assert ledger.next_fresh() == [b"1", b"2", b"3", b"4", b"5"]
    ledger.offered([b"1", b"2", b"3", b"4", b"5"])
    assert not ledger.has_backlog
    ledger.learn([update(b"3")], 0.0)
    want(ledger, b"fresh")
    ledger.some_lost()
    assert ledger.has_backlog
    assert ledger.next_backlog(3) == [b"2", b"4", b"5"]
    ledger.offered([b"2", b"4", b"5"])
    assert ledger.next_backlog(3) == [b"1"], "those the service has again are not offered a third time"
    ledger.learn([update(b"1")], 0.0)
    assert not ledger.has_backlog
    assert ledger.next_fresh() == [b"fresh"]


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger()
    want(ledger, b"x" * (MAX_CAPTION_BYTES + 1))
    assert (ledger.pending, ledger.dropped) == (0, 1)
    monkeypatch.setattr(module, "MAX_PENDING", 2)
    want(ledger, b"1", b"2", b"3")
    assert ledger.next_fresh() == [b"2", b"3"]
    assert ledger.dropped == 2
    monkeypatch.setattr(module, "MAX_OFFER_BYTES", 5)
    want(ledger, b"long one")
    ledger.offered([b"2", b"3"])
    assert ledger.next_fresh() == [b"long one"], "a single caption always fits"


def test_another_labeler_makes_every_caption_unanswered() -> None:
    ledger = Ledger()
    want(ledger, b"1", b"2", b"3")
    ledger.offered([b"1", b"2", b"3"])
    ledger.learn([update(b"1"), update(b"2", LabelStatus.FAILED)], 0.0)
    want(ledger, b"4")
    ledger.start_over()
    assert ledger.pending == 4
    assert (ledger.answered(LabelStatus.LABELLED), ledger.answered(LabelStatus.FAILED)) == (0, 0)
    assert (ledger.next_fresh(), ledger.next_backlog(10)) == ([b"4"], [b"1", b"2", b"3"])
    assert ledger.learn([update(b"1")], 1.0) == [update(b"1")], "the same answer of another labeler is news"


def test_what_is_given_up_is_not_offered_again() -> None:
    ledger = Ledger()
    want(ledger, b"1", b"2")
    ledger.give_up([b"1"], "it is odd")
    want(ledger, b"1")
    assert ledger.next_fresh() == [b"2"]
    assert (ledger.pending, ledger.dropped) == (1, 1)
