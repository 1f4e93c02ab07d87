"""Comparisons of captions: what the store keeps, what it says of files of before, and what is replayed of them."""

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_annotator.backends import create_backend
from llm_annotator.backends.replay import NotInStore
from llm_annotator.config import BackendConfig, LabelerConfig
from llm_annotator.errors import StoreError
from llm_annotator.jobs import Job
from llm_annotator.labeler import Labeler, resolve_labeler
from llm_annotator.store import ComparisonRecord, Store, StoreReader
from llm_annotator.store.answers import ANSWERS_OF_PAIRS, AnswerReader
from llm_annotator.store.schema import APPLICATION_ID, MIGRATIONS
from llm_annotator.types import Completion, Judgement, LabelStatus
from tests.answered_store import answer_into

SPEC = resolve_labeler(LabelerConfig(goal="open the box"), question="preference")
HOSTILE = [b"\xff\xfe\x00", b"'; DROP TABLE comparisons; --", b"\x1b[31m\r\n", "größer 🗝".encode()]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "annotations.sqlite", wall_clock=lambda: 1000.0) as opened:
        opened.add_labeler("judge", SPEC.to_wire(), "model-1")
        opened.add_run("run-1", "first", {}, labeler_id="judge", goal="open the box")
        yield opened


def comparison(first_id: int, second_id: int, first_better: bool | None = True, **fields: Any) -> ComparisonRecord:
    labelled = first_better is not None
    values: dict[str, Any] = {
        "labeler_id": "judge",
        "first_id": first_id,
        "second_id": second_id,
        "status": LabelStatus.LABELLED if labelled else LabelStatus.UNPARSED,
        "first_better": first_better,
        "p_first": {True: 0.9, False: 0.1, None: None}[first_better],
        "score": {True: 2.2, False: -2.2, None: None}[first_better],
        "prompt_prefix": "Goal: open the box.\n",
        "prompt_suffix": "a or b?",
        "answer": " one\ud800",
        "logprobs": {" one": -0.1},
        "model": "model-1",
        "backend": "scripted",
        "tokens_in": 12,
        "tokens_out": 1,
        "latency_s": 0.25,
        "attempts": 1,
        "detail": "" if labelled else "no word",
        "created_at": 2000.0,
    }
    return ComparisonRecord(**(values | fields))


def test_an_ordered_pair_is_not_its_other_order(store: Store) -> None:
    a, b = store.intern([b"a", b"b"])
    assert store.comparisons_of("judge", [(a, b), (b, a)]) == [None, None]
    store.add_annotations([comparison(a, b, True)])
    forward, backward = store.comparisons_of("judge", [(a, b), (b, a)])
    assert backward is None
    assert forward is not None
    assert (forward.first, forward.second, forward.first_better, forward.p_first) == (b"a", b"b", True, 0.9)
    assert (forward.status, forward.asked, forward.updated_at) == (LabelStatus.LABELLED, True, 2000.0)
    assert store.comparisons_of("another", [(a, b)]) == [None]


def test_any_bytes_come_back_as_they_were(store: Store) -> None:
    ids = store.intern(HOSTILE)
    store.add_annotations(comparison(first, second) for first in ids for second in ids if first != second)
    found = store.comparisons_since("judge", 0, limit=100)
    assert [(item.first, item.second) for item in found] == [(a, b) for a in HOSTILE for b in HOSTILE if a != b]


def test_the_newest_label_counts_and_what_does_not_count_is_no_news(store: Store) -> None:
    a, b = store.intern([b"a", b"b"])
    start = store.last_change()
    store.add_annotations([comparison(a, b, None)])
    (item,) = store.comparisons_since("judge", start, limit=9)
    assert (item.status, item.first_better, item.p_first) == (LabelStatus.UNPARSED, None, None)
    store.add_annotations([comparison(a, b, True), comparison(a, b, False)])
    (newest,) = store.comparisons_since("judge", item.change, limit=9)
    assert newest.first_better is False
    store.add_annotations([comparison(a, b, None)])
    assert store.comparisons_since("judge", newest.change, limit=9) == []
    assert store.last_change() > newest.change
    assert store.comparisons_of("judge", [(a, b)]) == [newest]


def test_changes_are_numbered_across_both_kinds_and_come_in_parts(store: Store) -> None:
    ids = store.intern([b"%d" % n for n in range(5)])
    store.override(b"0", "judge", helpful=True)
    store.add_annotations(comparison(ids[0], other) for other in ids[1:])
    found, cursor = [], 0
    while batch := store.comparisons_since("judge", cursor, limit=3):
        found += batch
        cursor = batch[-1].change
    assert [item.second for item in found] == [b"1", b"2", b"3", b"4"]
    assert [item.change for item in found] == [2, 3, 4, 5]
    assert store.last_change() == 5


def test_a_comparison_without_a_label_cannot_prefer(store: Store) -> None:
    a, b = store.intern([b"a", b"b"])
    with pytest.raises(sqlite3.IntegrityError):
        store.add_annotations([comparison(a, b, True), comparison(b, a, True, status=LabelStatus.FAILED)])
    assert store.comparisons_of("judge", [(a, b)]) == [None], "all of a batch or nothing"


def test_pairs_are_listed_with_both_orders_newest_first(store: Store) -> None:
    a, b, c = store.intern([b"Alpha", b"beta", b"gamma"])
    store.add_annotations([comparison(b, a, False), comparison(a, c, None), comparison(a, b, True, created_at=3000.0)])
    with StoreReader(store.path) as reader:
        first, second = reader.pairs()
        assert (first.a_id, first.a, first.b_id, first.b) == (a, b"Alpha", b, b"beta")
        assert first.forward is not None
        assert first.backward is not None
        assert (first.forward.first_better, first.backward.first_better) == (True, False)
        assert (first.forward.score, first.answered_at) == (2.2, 3000.0)
        assert second.backward is None
        assert second.forward is not None
        assert (second.forward.status, second.forward.detail) == (LabelStatus.UNPARSED, "no word")
        assert [pair.b for pair in reader.pairs(limit=1)] == [b"beta"]
        assert [pair.b for pair in reader.pairs(text="GAMMA")] == [b"gamma"]
        assert [pair.b for pair in reader.pairs(text=b"alpha", limit=-1)] == [b"beta", b"gamma"]
        assert reader.pairs(labeler_id="another") == []
        totals = reader.totals()
        assert (totals.comparisons, totals.annotations, totals.tokens_in, totals.latency_s) == (3, 0, 36, 0.25)
        assert [row.compared for row in reader.labelers()] == [2]


def test_every_step_of_a_look_up_uses_an_index(store: Store) -> None:
    a, b = store.intern([b"a", b"b"])
    store.add_annotations([comparison(a, b)])
    in_force = "SELECT * FROM comparisons_in_force WHERE labeler_id = ? "
    queries = {
        ANSWERS_OF_PAIRS: (b"", b"", ""),
        in_force + "AND first_id = ? AND second_id = ?": ("", 1, 2),
        in_force + "AND change > ? ORDER BY change LIMIT 5": ("", 1),
    }
    with sqlite3.connect(store.path) as connection:
        for query, values in queries.items():
            steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", values).fetchall()]
            assert not [step for step in steps if step.startswith("SCAN")], query
    connection.close()


def write_v1(path: Path) -> None:
    """Makes a store as the version before comparisons made it, with one label in it."""
    connection = sqlite3.connect(path)
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    connection.execute("INSERT INTO captions VALUES (1, x'6f6c64', 5.0)")
    connection.execute("INSERT INTO labelers VALUES ('old', '{\"goal\": \"g\"}', 'm', 5.0)")
    connection.execute("INSERT INTO prompt_prefixes VALUES (1, 'p')")
    connection.execute(
        "INSERT INTO annotations VALUES (1, 'old', 1, 'labelled', 1, 0.9, 2.2, 1, 's', ' yes', NULL, 'm', 'b', 3, 1,"
        " 0.5, 1, '', 6.0)"
    )
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()


def schema_of(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA user_version").fetchone()[0]
    finally:
        connection.close()


def test_a_store_of_before_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    write_v1(path)
    with StoreReader(path) as reader:
        assert reader.totals().comparisons == 0
        assert reader.totals().tokens_in == 3
        assert reader.pairs(labeler_id="old") == []
        assert [row.compared for row in reader.labelers()] == [0]
        assert [row.text for row in reader.captions(labeler_id="old")] == [b"old"]
    answers = AnswerReader(path)
    assert answers.models() == ["m"]
    assert [item.answer for item in answers.answers([b"old"], "m")] == [" yes"]
    assert answers.answers([b"old", b"older"], "m") == []
    answers.close()
    assert schema_of(path) == 1, "reading changes nothing"


def test_a_store_of_before_is_migrated_with_all_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    write_v1(path)
    with Store(path) as store:
        assert [label.caption for label in store.labels_since("old", 0, limit=9)] == [b"old"]
        a, b = store.intern([b"old", b"new"])
        assert a == 1
        store.add_annotations([comparison(a, b, True, labeler_id="old")])
        (item,) = store.comparisons_since("old", 0, limit=9)
        assert item.change == 2, "the counter goes on"
    assert schema_of(path) == len(MIGRATIONS)
    with StoreReader(path) as reader:
        assert reader.totals().comparisons == 1


def test_comparisons_are_replayed_each_order_with_its_own_answer(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    pairs = [(b"You open it.", b"Rain."), (b"Rain.", b"You open it."), (b"\xff", b"\x00"), (b"Rain.", b"Snow.")]
    answered = answer_into(path, pairs, spec=SPEC)
    replay = BackendConfig(kind="replay", options={"store": str(path)})

    async def go() -> list[Completion]:
        async with create_backend(replay) as backend:
            labeler = Labeler(SPEC, backend.model)
            with pytest.raises(NotInStore, match="never answered about b'Snow.' and b'Rain.'"):
                await backend.complete(labeler.request((b"Snow.", b"Rain.")))
            with pytest.raises(NotInStore, match="never answered"):
                await backend.complete(resolve_labeler(LabelerConfig()).request(b"Rain."))
            return [await backend.complete(labeler.request(pair)) for pair in pairs]

    replayed = asyncio.run(go())
    assert [(item.text, item.logprobs, item.sent_suffix) for item in replayed] == [
        (item.text, item.logprobs, item.sent_suffix) for item in answered
    ]
    assert [item.text.strip() for item in replayed[:2]] == [SPEC.positive, SPEC.negative]


def test_a_pair_that_got_no_answer_keeps_its_question(tmp_path: Path) -> None:
    nothing = Judgement(status=LabelStatus.FAILED, helpful=None, p_helpful=None, score=None, detail="no answer")
    labeler = Labeler(SPEC, "m")
    job = Job(labeler=labeler, subject_id=(1, 2), subject=(b"a", b"b"), requests=3)
    record = job.record(nothing, None, backend="scripted", created_at=1.0)
    assert isinstance(record, ComparisonRecord)
    assert (record.first_id, record.second_id, record.first_better, record.p_first) == (1, 2, None, None)
    assert (record.answer, record.latency_s, record.attempts, record.detail) == (None, None, 3, "no answer")
    assert record.prompt_suffix == labeler.request((b"a", b"b")).text_suffix
    with Store(tmp_path / "s.sqlite") as store:
        store.add_labeler(labeler.id, SPEC.to_wire(), "m")
        assert store.intern([b"a", b"b"]) == [1, 2]
        store.add_annotations([record])
    with pytest.raises(StoreError, match="no annotation store"):
        StoreReader(tmp_path / "none.sqlite")
