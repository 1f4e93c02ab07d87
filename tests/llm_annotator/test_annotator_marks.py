"""Marks of very many things in little memory."""

import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_annotator import ledger as ledger_module
from llm_annotator.ledger import Ledger
from llm_annotator.marks import Marks
from llm_annotator.types import LabelStatus, LabelUpdate


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=3), st.integers(1, 3)), max_size=300))
def test_marks_are_as_a_dictionary_has_them(entries: list[tuple[bytes, int]]) -> None:
    marks, expected = Marks(), {}
    for thing, mark in entries:
        marks.set(thing, mark)
        expected[thing] = mark
    assert len(marks) == len(expected)
    assert all(marks.get(thing) == mark for thing, mark in expected.items())
    assert marks.get(b"never marked") == 0
    assert marks.get((b"a", b"pair")) == 0
    marks.clear()
    assert len(marks) == 0
    assert not any(marks.get(thing) for thing in expected)


def test_many_take_little_room() -> None:
    tracemalloc.start()
    marks = Marks()
    for number in range(20_000):
        marks.set(b"caption %d" % number, 1 + number % 3)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(marks) == 20_000
    assert size / 20_000 < 30, "bytes each"
    assert all(marks.get(b"caption %d" % number) == 1 + number % 3 for number in range(0, 20_000, 97))


def label(caption: bytes, status: LabelStatus = LabelStatus.LABELLED, *, helpful: bool = True) -> LabelUpdate:
    is_label = status is LabelStatus.LABELLED
    return LabelUpdate(caption=caption, status=status, helpful=helpful if is_label else None, p_helpful=None)


def test_a_ledger_knows_old_answers_without_keeping_them(monkeypatch) -> None:
    monkeypatch.setattr(ledger_module, "MAX_RECENT", 10)
    ledger = Ledger()
    for number in range(100):
        ledger.want(b"%d" % number, 0.0)
    status = [LabelStatus.LABELLED, LabelStatus.FAILED]
    news = ledger.learn([label(b"%d" % i, status[i % 2]) for i in range(100)], 0.0)
    assert len(news) == 100
    assert (ledger.answered(LabelStatus.LABELLED), ledger.answered(LabelStatus.FAILED)) == (50, 50)
    ledger.want(b"0", 1.0)
    assert ledger.pending == 0, "it has a label"
    ledger.want(b"1", 1.0)
    assert ledger.pending == 1, "that it failed was too long ago to know when"
    assert ledger.learn([label(b"1")], 2.0) == [label(b"1")]
    assert (ledger.answered(LabelStatus.LABELLED), ledger.answered(LabelStatus.FAILED)) == (51, 49)
    overruled = label(b"2", helpful=False)
    assert ledger.learn([overruled, label(b"of another run")], 3.0) == [overruled], "it is still this run's caption"
    ledger.start_over()
    assert ledger.pending == 10, "the others must be submitted again"
    assert ledger.answered(LabelStatus.LABELLED) == 0


def test_a_ledger_hardly_grows_with_its_answers(monkeypatch) -> None:
    monkeypatch.setattr(ledger_module, "MAX_RECENT", 1000)
    ledger = Ledger()

    def go_on(numbers: range) -> None:
        for begin in range(numbers.start, numbers.stop, 1000):
            captions = [b"You see the key number %d." % i for i in range(begin, begin + 1000)]
            for caption in captions:
                ledger.want(caption, 0.0)
            ledger.offered(captions)
            ledger.learn(map(label, captions), 0.0)

    go_on(range(3_000))
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    go_on(range(3_000, 15_000))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # What was allocated before is not traced, so that the recent answers, which are replaced, seem new once.
    assert after - before < 12_000 * 40 + ledger_module.MAX_RECENT * 700


def test_captions_without_an_answer_are_bounded_by_their_bytes(monkeypatch) -> None:
    monkeypatch.setattr(ledger_module, "MAX_PENDING_BYTES", 1000)
    ledger = Ledger()
    for number in range(5):
        ledger.want(b"%d" % number * 300, 0.0)
    assert ledger.pending == 3
    assert ledger.dropped == 2
