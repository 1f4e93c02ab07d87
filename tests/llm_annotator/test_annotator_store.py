"""The store: what goes in comes out, and files that cannot be used are refused in words."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_annotator.errors import StoreCorrupt, StoreError, StoreFull, StoreNewerSchema
from llm_annotator.store import AnnotationRecord, Store, StoreReader
from llm_annotator.store.schema import APPLICATION_ID, MIGRATIONS, migrate
from llm_annotator.types import LabelStatus, Occurrence

ODD_CAPTIONS = [
    b"You see a key.",
    b"nul \x00 inside",
    b"\xff\xfe not UTF-8 \x80",
    b"\x1b[31mred\x1b[0m\r\n\t",
    "größer 🗝".encode(),
    b"x" * 10_000,
    b"'; DROP TABLE captions; --",
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "annotations.sqlite", wall_clock=lambda: 1000.0) as opened:
        opened.add_labeler("judge", {"goal": "open the box"}, "model-1")
        opened.add_run("run-1", "first", {"seed": 1}, labeler_id="judge", goal="open the box")
        yield opened


def annotation(caption_id: int, status: LabelStatus = LabelStatus.LABELLED, **fields: Any) -> AnnotationRecord:
    labelled = status is LabelStatus.LABELLED
    values: dict[str, Any] = {
        "labeler_id": "judge",
        "caption_id": caption_id,
        "status": status,
        "helpful": True if labelled else None,
        "p_helpful": 0.9 if labelled else None,
        "score": 2.2 if labelled else None,
        "prompt_prefix": "Goal: open the box.\n",
        "prompt_suffix": "You see a key.\nAnswer:",
        "answer": " yes",
        "logprobs": {" yes": -0.1, " no": -2.3},
        "model": "model-1",
        "backend": "scripted",
        "tokens_in": 12,
        "tokens_out": 1,
        "latency_s": 0.25,
        "attempts": 1,
        "detail": "" if labelled else "no word",
        "created_at": 2000.0,
    }
    return AnnotationRecord(**(values | fields))


def reopen(store: Store) -> StoreReader:
    return StoreReader(store.path)


def test_any_bytes_come_back_as_they_were(store: Store) -> None:
    ids = store.intern(ODD_CAPTIONS)
    store.add_annotations(annotation(key) for key in ids)
    assert [label.caption for label in store.labels_since("judge", 0, limit=100)] == ODD_CAPTIONS
    with reopen(store) as reader:
        assert [reader.history(key).text for key in ids] == ODD_CAPTIONS
        assert [reader.find(caption) for caption in ODD_CAPTIONS] == ids


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(captions=st.lists(st.binary(max_size=50), max_size=20))
def test_the_same_caption_has_one_id(store: Store, captions: list[bytes]) -> None:
    ids = store.intern(captions)
    assert store.intern(captions) == ids
    assert len(set(ids)) == len(set(captions))


def test_whole_history_of_a_caption(store: Store) -> None:
    (key,) = store.intern([b"You see a key."])
    store.add_annotations([annotation(key, LabelStatus.UNPARSED, answer="\ud800maybe", created_at=1500.0)])
    store.add_annotations([annotation(key, logprobs=None, latency_s=None)])
    store.add_occurrences("run-1", [Occurrence(caption=b"You see a key.", count=7, first_step=10, last_step=90,
                                               reward_sum=1.5, episode_count=3)])  # fmt: skip
    with reopen(store) as reader:
        history = reader.history(key)
    unparsed, labelled = history.annotations
    assert unparsed.prompt == "Goal: open the box.\nYou see a key.\nAnswer:"
    assert unparsed.answer == "\\ud800maybe"  # no lone surrogate can be stored
    assert unparsed.logprobs == {" yes": -0.1, " no": -2.3}
    assert (unparsed.helpful, unparsed.in_force, unparsed.detail) == (None, False, "no word")
    assert (labelled.helpful, labelled.in_force, labelled.p_helpful, labelled.score) == (True, True, 0.9, 2.2)
    assert (labelled.logprobs, labelled.latency_s, labelled.tokens_in) == (None, None, 12)
    (occurrence,) = history.occurrences
    assert (occurrence.run_name, occurrence.count, occurrence.episode_count) == ("first", 7, 3)
    assert (occurrence.first_step, occurrence.last_step, occurrence.reward_sum) == (10, 90, 1.5)


def test_newest_label_counts_and_no_failure_undoes_it(store: Store) -> None:
    (key,) = store.intern([b"caption"])
    store.add_annotations([annotation(key, LabelStatus.FAILED)])
    assert store.labels_of("judge", [key])[0].status is LabelStatus.FAILED
    store.add_annotations([annotation(key, helpful=True)])
    store.add_annotations([annotation(key, helpful=False)])
    store.add_annotations([annotation(key, LabelStatus.UNPARSED)])
    label = store.labels_of("judge", [key])[0]
    assert (label.status, label.helpful, label.source) == (LabelStatus.LABELLED, False, "llm")


def test_a_failure_cannot_carry_a_label(store: Store) -> None:
    (key,) = store.intern([b"caption"])
    with pytest.raises(sqlite3.IntegrityError):
        store.add_annotations([annotation(key, LabelStatus.FAILED, helpful=False)])
    assert store.labels_of("judge", [key]) == [None]


def test_a_person_overrules_the_llm_until_it_is_taken_back(store: Store) -> None:
    (key,) = store.intern([b"caption"])
    store.add_annotations([annotation(key, helpful=True)])
    before = store.last_change()
    override = store.override(b"caption", "judge", helpful=False, note="a trap", author="ann")
    store.add_annotations([annotation(key, helpful=True)])
    (label,) = store.labels_since("judge", before, limit=10)
    assert (label.helpful, label.p_helpful, label.source) == (False, None, "human")
    with reopen(store) as reader:
        (row,) = reader.captions()
        assert (row.helpful, row.source, row.score) == (False, "human", None)
        assert not any(item.in_force for item in reader.history(key).annotations)
        assert reader.history(key).overrides[0].note == "a trap"
    store.revoke_override(override)
    (label,) = store.labels_since("judge", label.change, limit=10)
    assert (label.helpful, label.source) == (True, "llm")
    with pytest.raises(StoreError, match="no override"):
        store.revoke_override(override)


def test_an_override_before_the_llm_was_asked(store: Store) -> None:
    override = store.override(b"never asked", "judge", helpful=True)
    (key,) = store.intern([b"never asked"])
    label = store.labels_of("judge", [key])[0]
    assert (label.status, label.helpful, label.asked) == (LabelStatus.LABELLED, True, False)
    store.revoke_override(override)
    label = store.labels_of("judge", [key])[0]
    assert (label.status, label.helpful, label.asked) == (LabelStatus.FAILED, None, False)


def test_changes_are_told_in_order_and_once(store: Store) -> None:
    ids = store.intern([b"a", b"b", b"c"])
    store.add_labeler("other", {}, "model-2")
    store.add_annotations([annotation(ids[0]), annotation(ids[1], labeler_id="other"), annotation(ids[2])])
    first = store.labels_since("judge", 0, limit=1)
    assert [label.caption for label in first] == [b"a"]
    rest = store.labels_since("judge", first[-1].change, limit=10)
    assert [label.caption for label in rest] == [b"c"]
    assert store.labels_since("judge", store.last_change(), limit=10) == []


def test_occurrences_are_totals_not_increments(store: Store) -> None:
    for count, last_step in ((3, 30), (5, 50)):
        store.add_occurrences("run-1", [Occurrence(caption=b"a", count=count, first_step=1, last_step=last_step,
                                                   reward_sum=count / 2)])  # fmt: skip
    with reopen(store) as reader:
        (row,) = reader.captions(run_id="run-1")
    assert (row.count, row.first_step, row.last_step, row.reward_sum) == (5, 1, 50, 2.5)
    with pytest.raises(StoreError, match="no run 'run-9'"):
        store.add_occurrences("run-9", [])


def test_reader_filters_and_orders(store: Store) -> None:
    store.add_run("run-2", "second", {}, labeler_id="judge", goal="g")
    ids = store.intern([b"take KEY", b"open door", b"wander", b"key again"])
    store.add_annotations([annotation(ids[0], score=3.0), annotation(ids[1], helpful=False, score=-1.0)])
    store.add_annotations([annotation(ids[2], LabelStatus.UNPARSED)])
    totals = {b"take KEY": (5, 0.5), b"open door": (9, 0.1), b"wander": (1, 0.9)}
    store.add_occurrences("run-1", [Occurrence(caption=c, count=n, first_step=1, last_step=2, reward_sum=r)
                                    for c, (n, r) in totals.items()])  # fmt: skip
    store.add_occurrences("run-2", [Occurrence(caption=b"wander", count=99, first_step=1, last_step=2, reward_sum=0)])

    with reopen(store) as reader:

        def texts(**query: Any) -> list[bytes]:
            return [row.text for row in reader.captions(**query)]

        assert texts(run_id="run-1") == [b"open door", b"take KEY", b"wander"]
        assert texts() == [b"wander", b"open door", b"take KEY", b"key again"]
        assert texts(run_id="run-1", order_by="reward") == [b"wander", b"take KEY", b"open door"]
        assert texts(order_by="label") == [b"take KEY", b"open door", b"wander", b"key again"]
        assert texts(order_by="newest") == [b"key again", b"wander", b"open door", b"take KEY"]
        assert texts(text="Key") == [b"take KEY", b"key again"]
        assert texts(status="unlabelled") == [b"key again"]
        assert texts(status="unparsed") == [b"wander"]
        assert texts(helpful=False) == [b"open door"]
        assert texts(order_by="newest", limit=2, offset=1) == [b"wander", b"open door"]
        assert texts(labeler_id="nobody", status="labelled") == []
        (labeler,) = reader.labelers()
        assert (labeler.labelled, labeler.helpful, labeler.unparsed, labeler.failed) == (2, 1, 1, 0)
        assert [(run.name, run.captions, run.config) for run in reader.runs()] == [
            ("first", 3, {"seed": 1}),
            ("second", 1, {}),
        ]
        totals_read = reader.totals()
        assert (totals_read.captions, totals_read.annotations, totals_read.tokens_in) == (4, 3, 36)
        assert totals_read.latency_s == pytest.approx(0.25)


def test_summary_and_count_agree_with_the_list(store: Store) -> None:
    store.add_run("run-2", "second", {}, labeler_id="judge", goal="open the box")
    ids = store.intern([b"caption %d" % i for i in range(6)])
    store.add_annotations([annotation(ids[0]), annotation(ids[1], helpful=False), annotation(ids[2])])
    store.add_annotations([annotation(ids[3], LabelStatus.UNPARSED), annotation(ids[4], LabelStatus.FAILED)])
    store.override(b"caption 2", "judge", helpful=False)
    for run_id, keys in (("run-1", (0, 1, 2)), ("run-2", (2, 3, 5))):
        seen = [
            Occurrence(caption=b"caption %d" % i, count=1, first_step=1, last_step=1, reward_sum=0.5 * i) for i in keys
        ]
        store.add_occurrences(run_id, seen)
    with reopen(store) as reader:
        whole, first, second = (reader.summary(run_id=run_id) for run_id in (None, "run-1", "run-2"))
        assert (whole.captions, whole.helpful, whole.unhelpful, whole.overruled) == (6, 1, 2, 1)
        assert (whole.unparsed, whole.failed, whole.reward_sum, whole.labeler_id) == (
            1,
            1,
            0.5 + 1 + 1 + 1.5 + 2.5,
            "judge",
        )
        assert (first.captions, first.helpful, first.unhelpful, first.overruled, first.reward_sum) == (3, 1, 2, 1, 1.5)
        assert (second.captions, second.unhelpful, second.unparsed, second.failed, second.reward_sum) == (
            3,
            1,
            1,
            0,
            5.0,
        )
        assert reader.summary(labeler_id="nobody").helpful == 0
        for query in (
            {},
            {"run_id": "run-2"},
            {"status": "unlabelled"},
            {"run_id": "run-1", "helpful": False},
            {"text": "ION 3"},
            {"run_id": "run-1", "text": "ION 3"},
        ):
            assert reader.count(**query) == len(reader.captions(**query)), query


def test_a_store_of_one_run_lists_what_never_came_up_too(store: Store) -> None:
    store.intern([b"unseen"])
    store.add_occurrences("run-1", [Occurrence(caption=b"seen", count=2, first_step=1, last_step=3, reward_sum=0.5)])
    with reopen(store) as reader:
        assert [(row.text, row.count, row.last_step, row.reward_sum) for row in reader.captions()] == [
            (b"seen", 2, 3, 0.5),
            (b"unseen", 0, None, 0.0),
        ]


def test_a_snapshot_does_not_move(store: Store) -> None:
    with reopen(store) as reader:
        with reader.snapshot():
            assert reader.count() == 0
            store.intern([b"new"])
            assert (reader.count(), reader.summary().captions) == (0, 0)
        assert reader.count() == 1


def test_reading_while_a_writer_writes(store: Store) -> None:
    with reopen(store) as reader:
        assert reader.captions() == []
        store.intern([b"new"])
        assert [row.text for row in reader.captions()] == [b"new"]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._connection.execute("DELETE FROM captions")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_reading_in_a_folder_without_write_permission(store: Store) -> None:
    store.intern([b"kept"])
    store.close()
    store.path.parent.chmod(0o500)
    try:
        with reopen(store) as reader:
            assert [row.text for row in reader.captions()] == [b"kept"]
    finally:
        store.path.parent.chmod(0o700)


def test_reader_says_that_there_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no annotation store at"):
        StoreReader(tmp_path / "missing.sqlite")
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(StoreError, match="is empty"):
        StoreReader(tmp_path / "empty.sqlite")


def test_reader_knows_no_such_caption(store: Store) -> None:
    with reopen(store) as reader, pytest.raises(StoreError, match="no caption 77"):
        reader.history(77)


def test_migration_keeps_what_is_there(store: Store) -> None:
    store.intern(ODD_CAPTIONS)
    store.close()
    connection = sqlite3.connect(store.path, isolation_level=None)
    migrate(connection, "x", (*MIGRATIONS, ("ALTER TABLE captions ADD COLUMN language TEXT",)))
    rows = connection.execute("SELECT text, language FROM captions ORDER BY id").fetchall()
    assert rows == [(caption, None) for caption in ODD_CAPTIONS]
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
    connection.close()


def test_migration_happens_whole_or_not_at_all(store: Store) -> None:
    store.close()
    connection = sqlite3.connect(store.path, isolation_level=None)
    broken = ("ALTER TABLE captions ADD COLUMN language TEXT", "ALTER TABLE nowhere ADD COLUMN x TEXT")
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, "x", (*MIGRATIONS, broken))
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert "language" not in [row[1] for row in connection.execute("PRAGMA table_info(captions)")]
    connection.close()
    Store(store.path).close()


def test_newer_schema_is_refused_and_left_alone(store: Store) -> None:
    store.close()
    connection = sqlite3.connect(store.path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    before = store.path.read_bytes()
    for opening in (Store, StoreReader):
        with pytest.raises(StoreNewerSchema, match="upgrade oni-jax"):
            opening(store.path)
    assert store.path.read_bytes() == before


def test_a_foreign_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "holiday.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE photos (name TEXT)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    for opening in (Store, StoreReader):
        with pytest.raises(StoreCorrupt, match="not an annotation store"):
            opening(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"just some notes, no database at all\n" * 200)
    before = path.read_bytes()
    for opening in (Store, StoreReader):
        with pytest.raises(StoreCorrupt, match="not an annotation store"):
            opening(path)
    assert path.read_bytes() == before


def test_damaged_pages_are_reported(store: Store) -> None:
    keys = store.intern([b"caption %d" % i for i in range(2000)])
    store.add_annotations(annotation(key) for key in keys)
    store.close()
    content = bytearray(store.path.read_bytes())
    content[4096 * 4 :] = b"\xa5" * (len(content) - 4096 * 4)
    store.path.write_bytes(content)

    def look() -> None:
        with StoreReader(store.path) as reader:
            reader.captions()
            reader.history(keys[-1])

    with pytest.raises(StoreCorrupt, match="damaged"):
        look()


def test_a_full_disk_writes_nothing_and_recovers(store: Store) -> None:
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(StoreFull, match="free some space"):
        store.intern([b"%d" % i * 500 for i in range(500)])
    with reopen(store) as reader:
        assert reader.totals().captions == 0
    store._connection.execute("PRAGMA max_page_count = 100000")
    assert len(store.intern([b"fits now"])) == 1


def test_a_store_that_cannot_be_written(store: Store, tmp_path: Path) -> None:
    store._connection.execute("PRAGMA query_only = 1")
    with pytest.raises(StoreFull, match="cannot be written"):
        store.intern([b"caption"])
    (tmp_path / "file").touch()
    with pytest.raises(StoreFull, match="folder"):
        Store(tmp_path / "file" / "annotations.sqlite")


def test_application_id_marks_our_files(store: Store) -> None:
    store.close()
    assert store.path.read_bytes()[68:72] == APPLICATION_ID.to_bytes(4) == b"ONIA"


def test_committed_labels_survive_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "annotations.sqlite"
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from llm_annotator.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "store.intern([b'committed %d' % i for i in range(500)])\n"
        "store._connection.execute('BEGIN')\n"
        "store._connection.execute('INSERT INTO captions (text, first_seen_at) VALUES (?, 0)', (b'not',))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script, str(path)], env=environment, check=False).returncode == -9
    with Store(path), StoreReader(path) as reader:
        assert reader.totals().captions == 500
        assert reader.find(b"not") is None


def test_reader_needs_the_standard_library_alone() -> None:
    script = (
        "import sys, llm_annotator.store.reader\n"
        "heavy = {'msgpack', 'httpx', 'openai', 'numpy', 'jax', 'pydantic', 'starlette', 'asyncio'}\n"
        "foreign = heavy & set(sys.modules)\n"
        "assert not foreign, foreign"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
