"""Mutes in the store: in force, taken back, told to runs; older stores; whom else they concern."""

import sqlite3
from pathlib import Path

import inspected_store
import pytest
from inspected_store import DOOR, KEY, SCRIPT, caption_id

from llm_annotator.questions import QUESTIONS
from llm_annotator.store import Store, StoreReader
from llm_annotator.store.listing import CaptionFilter, list_captions
from llm_annotator.store.onecaption import labels_in_force
from llm_annotator.store.overruling import Verdict
from llm_annotator.store.reading import Reading
from llm_annotator.store.schema import MIGRATIONS, migrate
from llm_annotator.types import LabelUpdate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return inspected_store.fill(tmp_path / "store.sqlite")


def told(store: Store, after: int) -> list[LabelUpdate]:
    """Returns what runs are told of judge-1 after a change."""
    question = QUESTIONS["label"]
    return [question.news(item) for item in question.stored_since(store, "judge-1", after, limit=10)]


def test_a_mute_is_in_force_until_it_is_taken_back(path: Path) -> None:
    with Store(path) as store:
        before = store.last_change()
        first = store.override(KEY, "judge-1", helpful=False, note="never mind", author="ann")
        mute = store.override(KEY, "judge-1", helpful=False, muted=True, note="farmed", author="ann")
        (news,) = told(store, before)
        assert (news.caption, news.helpful, news.muted, news.source) == (KEY, False, True, "human")
        store.add_annotations([inspected_store.record(caption_id(path, KEY), True)])
        assert told(store, before)[0].muted, "whatever the LLM says later"
        store.revoke_override(mute)
        (news,) = told(store, before)
        assert (news.helpful, news.muted, news.source) == (False, False, "human"), "what counted before counts again"
        store.revoke_override(first)
        (news,) = told(store, before)
        assert (news.helpful, news.muted, news.source) == (True, False, "llm")
    with StoreReader(path) as reader:
        overrides = reader.history(caption_id(path, KEY)).overrides
        assert [(item.muted, item.note, item.revoked_at is None) for item in overrides] == [
            (False, "never mind", False),
            (True, "farmed", False),
        ]
        assert len([a for a in reader.history(1).annotations if a.labeler_id == "judge-1"]) == 2


def test_helpful_and_muted_is_nonsense(path: Path) -> None:
    with Store(path) as store, pytest.raises(ValueError, match="helpful and muted"):
        store.override(KEY, "judge-1", helpful=True, muted=True)


def test_lists_and_pages_know_of_it(path: Path) -> None:
    with Store(path) as store:
        store.override(SCRIPT, "judge-1", helpful=False, muted=True)
    with Reading(path) as reading:
        found = list_captions(reading, CaptionFilter(labeler_id="judge-1", muted=True), limit=10)
        assert [(item.row.text, item.muted) for item in found.captions] == [(SCRIPT, True)]
        assert [label.muted for label in labels_in_force(reading, caption_id(path, SCRIPT))] == [True]
    with StoreReader(path) as reader:
        assert {row.text for row in reader.captions(labeler_id="judge-1") if row.muted} == {SCRIPT}
        assert not any(row.muted for row in reader.captions(labeler_id="judge-2"))


def test_many_at_once_and_nothing_that_holds_already(path: Path) -> None:
    with Store(path) as store:
        before = store.last_change()
        verdicts = [Verdict(KEY, True), Verdict(DOOR, False, muted=True), Verdict(b"new", False, note="\ud800")]
        assert store.overrule("judge-1", verdicts) == [False, True, True]
        assert {news.caption: news.muted for news in told(store, before)} == {DOOR: True, b"new": False}
        assert store.overrule("judge-1", verdicts) == [False, False, False]
    with StoreReader(path) as reader:
        assert reader.history(caption_id(path, b"new")).overrides[0].note == "\\ud800"


def test_an_older_store_is_read_as_it_is_and_migrated_when_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    migrate(connection, str(path), MIGRATIONS[:6])
    connection.executescript(
        """INSERT INTO captions VALUES (1, x'61', 1.0), (2, x'62', 1.0);
        INSERT INTO labelers VALUES ('judge-1', '{}', 'm', 1.0);
        INSERT INTO overrides VALUES (1, 1, 'judge-1', 0, 'why', 'ann', 2.0, NULL);"""
    )
    connection.close()
    with StoreReader(path) as reader, Reading(path) as reading:
        assert not reader.history(1).overrides[0].muted
        assert [(row.helpful, row.muted) for row in reader.captions(order_by="newest")] == [
            (None, False),
            (False, False),
        ]
        assert [label.muted for label in labels_in_force(reading, 1)] == [False]
        assert list_captions(reading, CaptionFilter(labeler_id="judge-1", muted=True), limit=10).matching == 0
    with Store(path) as store:
        (label,) = store.labels_of("judge-1", [1])
        assert label is not None
        assert (label.helpful, label.muted, label.source) == (False, False, "human")
        store.override(b"a", "judge-1", helpful=False, muted=True)
        (label,) = store.labels_of("judge-1", [1])
        assert label is not None
        assert label.muted


def test_captions_that_hold_a_muted_part_are_not_muted(path: Path) -> None:
    with Store(path) as store:
        (whole,) = store.intern([KEY + b"  " + DOOR])
        store.add_parts("judge-1", {whole: [KEY, DOOR]})
        assert store.labels_of("judge-1", [whole])[0].helpful  # type: ignore[union-attr]
        for part in (KEY, DOOR):
            store.override(part, "judge-1", helpful=False, muted=True)
        (label,) = store.labels_of("judge-1", [whole])
    assert label is not None
    assert (label.helpful, label.muted) == (False, False), "a part that is muted is an unhelpful one to them"
