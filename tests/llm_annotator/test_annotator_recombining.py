"""Parts that very many captions hold: their captions' labels follow in short transactions, whoever is killed when."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llm_annotator.annotator import Annotator
from llm_annotator.backends.scripted import ScriptedBackend, ScriptedOptions
from llm_annotator.config import AnnotatorConfig, LabelerConfig
from llm_annotator.labeler import Labeler, resolve_labeler
from llm_annotator.lookup import look_up
from llm_annotator.store import Store
from llm_annotator.store.connection import open_for_writing
from llm_annotator.store.recombining import AT_ONCE, recombine
from llm_annotator.store.records import AnnotationRecord
from llm_annotator.store.salvage import salvage
from llm_annotator.store.schema import MIGRATIONS, migrate
from llm_annotator.store.writer import RECOMBINED_AT_ONCE
from llm_annotator.types import LabelStatus

LABELER = Labeler(resolve_labeler(LabelerConfig(goal="open the box", parts="sentences")), "m")
WALL = b"It's a wall."
MANY = 2 * RECOMBINED_AT_ONCE + 50
NAMES = [bytes([65 + number // 26, 97 + number % 26]) + b"x" for number in range(MANY)]
CAPTIONS = [b"You see a thing called %s.  It's a wall." % name for name in NAMES]


def answer(caption_id: int, *, helpful: bool) -> AnnotationRecord:
    return AnnotationRecord(
        labeler_id=LABELER.id,
        caption_id=caption_id,
        status=LabelStatus.LABELLED,
        helpful=helpful,
        p_helpful=0.5,
        score=1.0 if helpful else -1.0,
        prompt_prefix="p",
        prompt_suffix="s",
        answer="",
        logprobs=None,
        model="m",
        backend="b",
        tokens_in=1,
        tokens_out=1,
        latency_s=0.1,
        attempts=1,
        detail="",
        created_at=1.0,
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """All parts are unhelpful but for the wall, which all captions hold and which nobody has answered yet."""
    with Store(tmp_path / "s.sqlite") as store:
        store.add_labeler(LABELER.id, LABELER.spec.to_wire(), "m")
        to_ask = look_up(store, LABELER, CAPTIONS, lambda _: False).to_ask
        parts = store.intern([part for _, part in to_ask if isinstance(part, bytes) and part != WALL])
        store.add_annotations([answer(key, helpful=False) for key in parts])
        yield store


def labels(store: Store) -> list[bool | None]:
    found = store.labels_of(LABELER.id, store.intern(CAPTIONS))
    return [None if label is None else label.helpful for label in found]


def answer_wall(store: Store, *, helpful: bool) -> None:
    store.add_annotations([answer(store.intern([WALL])[0], helpful=helpful)])


def noted(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [to for (to,) in connection.execute("SELECT combined_to FROM changed_parts")]


def test_a_label_of_a_common_part_is_one_short_transaction_and_captions_follow_in_others(store: Store) -> None:
    answer_wall(store, helpful=False)
    assert labels(store) == [None] * MANY
    assert noted(store.path) == [0]
    assert [store.recombine() for _ in range(4)] == [RECOMBINED_AT_ONCE, RECOMBINED_AT_ONCE, 50, 0]
    assert labels(store) == [False] * MANY
    assert noted(store.path) == []


def test_parts_that_few_hold_are_combined_along_with_their_label(tmp_path: Path) -> None:
    for number in (AT_ONCE, AT_ONCE + 1):
        with Store(tmp_path / f"{number}.sqlite") as store:
            store.add_labeler(LABELER.id, LABELER.spec.to_wire(), "m")
            ids = store.intern(CAPTIONS[:number])
            look_up(store, LABELER, CAPTIONS[:number], lambda _: False)
            answer_wall(store, helpful=True)
            followed = [label is not None for label in store.labels_of(LABELER.id, ids)]
            assert followed == [number == AT_ONCE] * number


def test_captions_have_followed_when_a_person_has_overruled(store: Store) -> None:
    answer_wall(store, helpful=False)
    override = store.override(WALL, LABELER.id, helpful=True)
    assert labels(store) == [True] * MANY
    before = store.last_change()
    store.revoke_override(override)
    assert labels(store) == [False] * MANY
    changed = store.labels_since(LABELER.id, before, limit=2 * MANY)
    assert {label.caption for label in changed} == {WALL, *CAPTIONS}, "runs hear of each"


def test_a_part_that_changes_again_meanwhile_begins_anew(store: Store) -> None:
    answer_wall(store, helpful=True)
    assert store.recombine() == RECOMBINED_AT_ONCE
    assert noted(store.path) != [0]
    answer_wall(store, helpful=False)
    assert noted(store.path) == [0]
    store.recombine_all()
    assert labels(store) == [False] * MANY


def test_two_parts_that_wait_share_a_transaction(store: Store) -> None:
    others = [b"A newt bites %s.  You fall." % name for name in NAMES[:20]]
    look_up(store, LABELER, others, lambda _: False)
    store.add_annotations([answer(key, helpful=True) for key in store.intern([b"You fall."])])
    answer_wall(store, helpful=True)
    with closing(open_for_writing(store.path)) as connection:
        assert recombine(connection, 1.0, limit=2 * MANY) == MANY + 20
    assert [label and label.helpful for label in store.labels_of(LABELER.id, store.intern(others))] == [True] * 20
    assert labels(store) == [True] * MANY


_KILLED = """
import os, signal, sys
from pathlib import Path
from llm_annotator.store.writer import Store
from llm_annotator.store import writer
rest = writer.recombine
def some(*arguments, **options):
    if os.environ["FIRST"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    os.environ["FIRST"] = "0"
    return rest(*arguments, **options)
writer.recombine = some
Store(Path(sys.argv[1])).override(sys.argv[2].encode(), sys.argv[3], helpful=True)
"""


@pytest.mark.parametrize("first", ["0", "1"])
def test_who_overrules_is_killed_and_somebody_else_goes_on(store: Store, first: str) -> None:
    """first: whether it combined some captions before; inside the next transaction it is killed."""
    answer_wall(store, helpful=False)
    store.recombine_all()
    environment = {**os.environ, "FIRST": first, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _KILLED, str(store.path), WALL.decode(), LABELER.id]
    assert subprocess.run(command, check=False, env=environment, timeout=30).returncode == -signal.SIGKILL
    assert labels(store).count(True) == int(first) * RECOMBINED_AT_ONCE
    store.recombine_all()
    assert labels(store) == [True] * MANY


def test_an_annotator_goes_on_with_what_others_left(store: Store) -> None:
    answer_wall(store, helpful=False)
    path = store.path

    async def scene() -> None:
        annotator = Annotator(Store(path), AnnotatorConfig(), lambda _: ScriptedBackend(ScriptedOptions()))
        async with asyncio.timeout(20), annotator.running():
            while noted(path):
                await asyncio.sleep(0.01)
            with closing(open_for_writing(path)) as other:  # a program that follows up nothing
                other.execute(
                    "INSERT INTO overrides (caption_id, labeler_id, helpful, note, author, created_at)"
                    " SELECT id, ?, 1, '', '', 2.0 FROM captions WHERE text = ?",
                    (LABELER.id, WALL),
                )
            assert noted(path) != []
            while noted(path):
                await asyncio.sleep(0.01)

    asyncio.run(scene())
    assert labels(store) == [True] * MANY


def test_an_annotator_that_ends_leaves_little_behind(store: Store) -> None:
    path = store.path

    async def scene() -> None:
        annotator = Annotator(Store(path), AnnotatorConfig(), lambda _: ScriptedBackend(ScriptedOptions()))
        async with asyncio.timeout(20), annotator.running():
            answer_wall(store, helpful=True)

    asyncio.run(scene())
    assert labels(store) == [True] * MANY


def test_a_store_of_before_combines_bit_by_bit_from_now_on(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        migrate(old, str(path), MIGRATIONS[:7])
    with Store(path) as store:
        store.add_labeler(LABELER.id, LABELER.spec.to_wire(), "m")
        look_up(store, LABELER, CAPTIONS, lambda _: False)
        answer_wall(store, helpful=True)
        assert noted(path) == [0]
        store.recombine_all()
        assert labels(store) == [True] * MANY


def test_what_is_salvaged_has_followed(store: Store) -> None:
    answer_wall(store, helpful=True)
    store.close()
    assert salvage(store.path).lost == 0
    assert noted(store.path) == []
    with Store(store.path) as whole:
        assert labels(whole) == [True] * MANY
