"""Stores on disks that are full, read-only or damaged: it is said in words, and what is good is kept."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_annotator.client import AnnotatorClient
from llm_annotator.config import AnnotatorConfig, BackendConfig, LabelerConfig
from llm_annotator.errors import StoreCorrupt, StoreError, StoreFull
from llm_annotator.labeler import resolve_labeler
from llm_annotator.service import exclusive
from llm_annotator.store import Store, StoreReader
from llm_annotator.store.salvage import salvage
from llm_annotator.supervisor import ServiceProcess
from llm_annotator.types import LabelUpdate
from oni.cli.main import main
from tests.inspected_store import add_comparisons, fill, occurrence, record

PAGE_BYTES = 4096


def labels_in(path: Path) -> dict[bytes, bool]:
    """Returns the labels in force of a store that must be sound."""
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    query = "SELECT text, helpful FROM labels JOIN captions ON captions.id = caption_id WHERE helpful IS NOT NULL"
    rows = {text: bool(helpful) for text, helpful in connection.execute(query)}
    connection.close()
    return rows


def is_helpful(caption: bytes) -> bool:
    return int(caption.split()[1]) % 2 == 0


def add_labels(store: Store, numbers: range) -> None:
    captions = [b"caption %d of some length, so that pages fill" % number for number in numbers]
    ids = store.intern(captions)
    store.add_annotations(
        record(key, is_helpful(caption), labeler_id="judge") for key, caption in zip(ids, captions, strict=True)
    )


def opened(path: Path) -> Store:
    store = Store(path)
    store.add_labeler("judge", {"goal": "open the box"}, "model-1")
    return store


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A store with 600 labels, closed."""
    path = tmp_path / "annotations.sqlite"
    with opened(path) as store:
        add_labels(store, range(600))
    return path


def left_by_a_crash(tmp_path: Path) -> Path:
    """Returns a store as a process that was killed leaves it: ten labels a commit, the last ones in the log alone."""
    path, copy = tmp_path / "live.sqlite", tmp_path / "crashed.sqlite"
    with opened(path) as store:
        for number in range(20):
            add_labels(store, range(10 * number, 10 * number + 10))
        shutil.copy(path, copy)
        shutil.copy(f"{path}-wal", f"{copy}-wal")
    return copy


@pytest.mark.parametrize("share", [0.3, 0.7, 0.999])
@pytest.mark.parametrize("how", ["cut off", "garbled"])
def test_of_a_damaged_log_all_that_comes_before_the_damage_is_kept(tmp_path: Path, how: str, share: float) -> None:
    path = left_by_a_crash(tmp_path)
    log = Path(f"{path}-wal")
    content = log.read_bytes()
    good = int(share * len(content))
    log.write_bytes(content[:good] + (b"" if how == "cut off" else random.Random(0).randbytes(len(content) - good)))
    with opened(path) as store:
        kept = labels_in(path)
        assert len(kept) % 10 == 0, "whole commits"
        assert kept == {caption: is_helpful(caption) for caption in kept}
        assert {int(caption.split()[1]) for caption in kept} == set(range(len(kept))), "the first ones"
        assert len(kept) >= 200 * share - 30
        add_labels(store, range(200))
    assert len(labels_in(path)) == 200


def test_a_store_that_is_too_short_is_refused_in_words_and_most_of_it_is_kept(built: Path) -> None:
    content = built.read_bytes()
    built.write_bytes(content[: int(0.8 * len(content)) // PAGE_BYTES * PAGE_BYTES])
    before = built.read_bytes()
    with pytest.raises(StoreCorrupt, match=r"is damaged .*`oni salvage .*annotations.sqlite"):
        Store(built)
    outcome = salvage(built)
    assert outcome.damaged.read_bytes() == before, "the damaged one is kept as it was"
    kept = labels_in(built)
    assert kept == {caption: is_helpful(caption) for caption in kept}, "no label of another caption"
    assert 300 < len(kept) < 600
    assert outcome.unreadable
    assert outcome.kept["annotations"] == len(kept)
    with opened(built) as store:
        add_labels(store, range(600))
    assert len(labels_in(built)) == 600, "what was lost is labelled anew"


@pytest.mark.parametrize("seed", range(3))
def test_of_a_store_with_garbled_pages_no_label_comes_out_wrong(built: Path, seed: int) -> None:
    content = bytearray(built.read_bytes())
    draw = random.Random(seed)
    pages = range(len(content) // PAGE_BYTES // 3, len(content) // PAGE_BYTES)
    for page in draw.sample(pages, 6):
        content[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = draw.randbytes(PAGE_BYTES)
    built.write_bytes(content)
    outcome = salvage(built)
    kept = labels_in(built)
    assert kept == {caption: is_helpful(caption) for caption in kept}
    assert 300 < len(kept) <= 600
    assert outcome.lost >= 0
    with StoreReader(built) as reader:
        for caption in list(kept)[:20]:
            row = reader.find(caption)
            assert row is not None
            assert reader.history(row).annotations[0].answer, "with its history"


def rows_of(path: Path) -> dict[str, list[dict[str, object]]]:
    """Returns the rows of all tables; when a label changed is left out, it only orders the news."""
    connection = sqlite3.connect(path)
    content: dict[str, list[dict[str, object]]] = {}
    for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        cursor = connection.execute(f"SELECT * FROM {table}")
        names = [str(column[0]) for column in cursor.description]
        rows: list[dict[str, object]] = [dict(zip(names, row, strict=True)) for row in cursor]
        for row in rows:
            row["change"] = None
        content[table] = sorted(rows, key=repr)
    connection.close()
    del content["change_counter"]
    return content


def test_of_a_sound_store_everything_is_kept(tmp_path: Path) -> None:
    path = fill(tmp_path / "annotations.sqlite")
    add_comparisons(path)
    with Store(path) as store:
        changes = store.last_change()
    before = rows_of(path)
    assert all(before[table] for table in ("annotations", "comparisons", "overrides", "occurrences", "transitions"))
    outcome = salvage(path)
    assert (outcome.lost, outcome.unreadable) == (0, ())
    assert rows_of(path) == before
    with Store(path) as store:
        assert store.last_change() >= changes, "no client takes a new change for an old one"


def test_labels_by_parts_are_combined_anew(tmp_path: Path) -> None:
    path = tmp_path / "annotations.sqlite"
    with opened(path) as store:
        whole, other = store.intern([b"You see a door. You open it.", b"You see a door. You see a wall."])
        kept, _ = store.add_parts("judge", {whole: [b"door", b"open"], other: [b"door", b"wall"]})
        ids = {text: key for parts in kept.values() for key, text in parts}
        store.add_annotations(record(ids[text], text == b"open", labeler_id="judge") for text in ids)
    before = labels_in(path)
    assert before[b"You see a door. You open it."] is True
    assert before[b"You see a door. You see a wall."] is False
    assert salvage(path).lost == 0
    assert labels_in(path) == before
    assert {table: len(rows) for table, rows in rows_of(path).items() if table == "annotations"} == {"annotations": 5}


def test_the_command_says_what_was_kept(built: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    content = built.read_bytes()
    built.write_bytes(content[: len(content) * 3 // 4])
    assert main(["salvage", str(tmp_path), "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["kept"]["annotations"] == len(labels_in(built)) > 0
    assert Path(outcome["damaged"]).is_file()
    assert main(["salvage", str(built)]) == 0
    out = capsys.readouterr().out
    assert "can be used again" in out
    assert "All tables could be read whole" in out


def test_what_cannot_be_salvaged_is_left_alone_and_told(
    built: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with exclusive(built):
        assert main(["salvage", str(built)]) == 1
    assert "another annotator uses" in capsys.readouterr().err
    assert main(["salvage", str(tmp_path / "none.sqlite")]) == 1
    assert "there is no annotation store" in capsys.readouterr().err
    garbled = random.Random(0).randbytes(PAGE_BYTES) + built.read_bytes()[PAGE_BYTES:]
    built.write_bytes(garbled)
    with pytest.raises(StoreError, match="not an annotation store"):
        Store(built)
    assert main(["salvage", str(built)]) == 1
    assert "first page is damaged" in capsys.readouterr().err
    assert built.read_bytes() == garbled
    assert not [file for file in tmp_path.iterdir() if "salvaged" in file.name or "damaged" in file.name]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def eventually(condition: Callable[[], bool], *, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_full_disk_holds_labels_back_until_there_is_room_even_over_a_kill(disk: Path, tmp_path: Path) -> None:
    path = disk / "annotations.sqlite"
    options: dict[str, str | int | float | bool] = {"helpful_pattern": "open", "latency_s": 0.002}
    config = AnnotatorConfig(backend=BackendConfig(kind="scripted", max_concurrent=4, options=options))
    captions = [b"you %s box %d %s" % (b"open" if n % 2 else b"see", n, b"x" * 3000) for n in range(150)]
    with (
        ServiceProcess(path, config, tmp_path / "log") as service,
        AnnotatorClient(
            service.url, "run", "run", {}, resolve_labeler(LabelerConfig(goal="open the box")), service.token
        ) as client,
    ):
        client.submit(captions)
        eventually(lambda: "full" in client.health.message)
        assert "free some space" in client.health.message
        told = {update.caption: update.helpful for update in client.poll() if isinstance(update, LabelUpdate)}
        assert service.pid is not None
        os.kill(service.pid, signal.SIGKILL)
        eventually(lambda: service.health.restarts > 0 or not service.health.running)
        remount(disk, "size=64m")
        assert client.drain(60)
        eventually(lambda: client.health.message == "")
        for update in client.poll():
            assert isinstance(update, LabelUpdate)
            assert update.caption not in told, "told twice"
            told[update.caption] = update.helpful
    truth = {caption: b"open" in caption for caption in captions}
    assert told == truth
    assert labels_in(path) == truth
    with StoreReader(path) as reader:
        assert reader.totals().annotations == len(captions), "none was asked or stored twice"


@pytest.mark.slow
def test_a_disk_that_is_read_only_is_told_and_can_be_read(disk: Path, tmp_path: Path) -> None:
    path = disk / "annotations.sqlite"
    with opened(path) as store:
        add_labels(store, range(20))
    remount(disk, "ro")
    try:
        with StoreReader(path) as reader:
            assert reader.totals().captions == 20
        with pytest.raises(StoreError, match="cannot be written") as caught:
            ServiceProcess(path, AnnotatorConfig(backend=BackendConfig(kind="scripted")), tmp_path / "log").__enter__()
        assert "permissions" in str(caught.value)
        with pytest.raises(StoreFull, match="written"), opened(path):
            pass
        assert main(["salvage", str(path)]) == 1
    finally:
        remount(disk, "rw")
    assert len(labels_in(path)) == 20


@pytest.mark.slow
def test_damage_that_is_met_while_runs_go_on_is_told_and_harms_none_of_them(built: Path, tmp_path: Path) -> None:
    content = bytearray(built.read_bytes())
    good = len(content) // PAGE_BYTES // 3 * PAGE_BYTES
    built.write_bytes(content[:good] + random.Random(0).randbytes(len(content) - good))
    config = AnnotatorConfig(backend=BackendConfig(kind="scripted"))
    spec = resolve_labeler(LabelerConfig(goal="open the box"))
    with (
        ServiceProcess(built, config, tmp_path / "log") as service,
        AnnotatorClient(service.url, "run", "run", {}, spec, service.token) as client,
    ):
        client.submit([b"caption %d of some length, so that pages fill" % number for number in range(600)])
        eventually(lambda: "oni salvage" in client.health.message)
        assert str(built) in client.health.message
        assert not client.drain(0.1)
        assert service.health.restarts == 0
    assert main(["salvage", str(built)]) == 0
    kept = labels_in(built)
    assert {caption: is_helpful(caption) for caption in kept} == kept
    with (
        ServiceProcess(built, config, tmp_path / "log") as service,
        AnnotatorClient(service.url, "run", "run", {}, spec, service.token) as client,
    ):
        client.submit([b"caption 1 of some length, so that pages fill", b"another one"])
        assert client.drain(20)


def test_of_totals_and_scores_those_on_both_sides_of_the_damage_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "annotations.sqlite"
    with opened(path) as store:
        store.add_run("run", "run", {}, labeler_id="judge", goal="open the box")
        captions = [b"caption %d" % number for number in range(2000)]
        store.intern(captions)
        store.add_occurrences("run", [occurrence(caption, 5, 1.0) for caption in captions])
    query = "SELECT pageno FROM dbstat WHERE name = 'occurrences' AND pagetype = 'leaf' ORDER BY path"
    connection = sqlite3.connect(path)
    try:
        pages = [page for (page,) in connection.execute(query)]
    except sqlite3.OperationalError:
        pytest.skip("this SQLite cannot tell which page holds what")
    finally:
        connection.close()
    assert len(pages) > 8
    content = bytearray(path.read_bytes())
    for page in pages[4:6]:
        content[(page - 1) * PAGE_BYTES : page * PAGE_BYTES] = b"\xa5" * PAGE_BYTES
    path.write_bytes(content)
    outcome = salvage(path)
    assert "occurrences" in outcome.unreadable
    kept = [row["caption_id"] for row in rows_of(path)["occurrences"]]
    assert len(kept) == len(set(kept)) == outcome.kept["occurrences"]
    assert 2000 * (1 - 4 / len(pages)) < len(kept) < 2000
    assert {1, 2000} <= set(kept), "those before and those after"
