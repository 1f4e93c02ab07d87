"""What was annotated, as a file to take along: annotations, or preferences in the form that training libraries read."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llm_annotator.errors import StoreError
from llm_annotator.store import exported
from llm_annotator.store.reader import StoreReader
from llm_annotator.store.records import LabelerRow
from llm_annotator.tables import Column, Format, Row, encode, format_of

What = Literal["annotations", "preferences"]

SCHEMA = 1
"""In every row; rises when a column is renamed, goes away or changes its meaning."""

EVERY_LABELER = "all"
"""Stands for the labels of all labelers."""

_SCHEMA = Column("schema", "count")
_LABELER = (Column("labeler_id", "text"), Column("goal", "text"), Column("model", "text"))

COLUMNS: Mapping[What, Sequence[Column]] = {
    "annotations": (
        Column("caption", "caption"),
        Column("label", "text"),
        Column("note", "text"),
        Column("source", "text"),
        Column("author", "text"),
        Column("changed_at", "number"),
        *_LABELER,
        Column("llm_label", "text"),
        Column("p_helpful", "number"),
        Column("score", "number"),
        Column("answer", "text"),
        Column("logprobs", "json"),
        Column("prompt", "text"),
        Column("detail", "text"),
        Column("backend", "text"),
        Column("tokens_in", "count"),
        Column("tokens_out", "count"),
        Column("latency_s", "number"),
        Column("attempts", "count"),
        Column("answered_at", "number"),
        Column("count", "count"),
        Column("episode_count", "count"),
        Column("first_step", "count"),
        Column("last_step", "count"),
        Column("reward_sum", "number"),
        Column("caption_id", "count"),
        _SCHEMA,
    ),
    "preferences": (
        Column("prompt", "text"),
        Column("chosen", "caption"),
        Column("rejected", "caption"),
        Column("p_chosen", "number"),
        Column("labeler_id", "text"),
        Column("model", "text"),
        Column("answered_at", "number"),
        _SCHEMA,
    ),
}


class Wanted(NamedTuple):
    """What is taken along.

    run_id: only what came up in this run; None: all. labeler_id: whose answers, `EVERY_LABELER` for all; None: the
    labeler that the run, or the newest run, used last, or for preferences the newest that compares.
    """

    what: What = "annotations"
    run_id: str | None = None
    labeler_id: str | None = None


def export(store: Path, wanted: Wanted, form: Format) -> Iterator[bytes]:
    """Yields the file, piece by piece; a service may be writing to the store.

    Annotations are a row a caption and labeler: what is in force, and what the LLM said. Captions without an answer are
    among them if one labeler is asked for, to be labelled by hand. Preferences are pairs that were answered alike in
    both orders.

    Raises:
        StoreError: no such run or labeler, or the store cannot be read. ConfigError: Parquet without pyarrow.
    """
    with StoreReader(store) as reader:
        labelers = _labelers(reader, wanted)
    return encode(_rows(store, wanted, labelers), COLUMNS[wanted.what], form)


def export_file(store: Path, wanted: Wanted, path: Path) -> None:
    """Writes the file, in the format that its name ends with; it is there whole or not at all.

    Raises:
        StoreError, ConfigError: as `export`. OSError: the file cannot be written.
    """
    pieces = export(store, wanted, format_of(path))
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            for piece in pieces:
                file.write(piece)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def labeler_in_use(reader: StoreReader, run_id: str | None) -> str | None:
    """Returns the labeler that a run, or the newest run, used last; else the newest one, None if there is none."""
    runs = [run for run in reader.runs() if run_id in (None, run.run_id)]
    labelers = reader.labelers()
    used = [run.labeler_id for run in reversed(runs) if run.labeler_id is not None]
    return next(iter([*used, *(row.labeler_id for row in reversed(labelers))]), None)


def _labelers(reader: StoreReader, wanted: Wanted) -> list[LabelerRow]:
    labelers = reader.labelers()
    if wanted.run_id is not None and wanted.run_id not in {run.run_id for run in reader.runs()}:
        raise StoreError(f"{reader.path} holds no run {wanted.run_id!r}")
    question = "preference" if wanted.what == "preferences" else "label"
    fitting = [row for row in labelers if row.spec.get("question", "label") == question]
    if wanted.labeler_id == EVERY_LABELER:
        return fitting
    chosen = wanted.labeler_id or labeler_in_use(reader, wanted.run_id)
    if wanted.labeler_id is None and chosen not in {row.labeler_id for row in fitting}:
        chosen = fitting[-1].labeler_id if fitting else None
    found = [row for row in labelers if row.labeler_id == chosen]
    if not found:
        kind = "compared captions" if wanted.what == "preferences" else "labelled captions"
        problem = f"no labeler {chosen!r}" if chosen else f"no labeler that {kind}"
        raise StoreError(f"{reader.path} holds {problem}: there is nothing to export")
    return found


def _rows(store: Path, wanted: Wanted, labelers: Sequence[LabelerRow]) -> Iterator[Sequence[Row]]:
    for labeler in labelers:
        goal = str(labeler.spec.get("goal", ""))
        shared = {"schema": SCHEMA, "labeler_id": labeler.labeler_id, "model": labeler.model, "goal": goal}
        for rows in _batches(store, wanted, labeler.labeler_id):
            yield [{**row, **shared, "prompt": row.get("prompt", goal)} for row in rows]


def _batches(store: Path, wanted: Wanted, labeler_id: str) -> Iterable[Sequence[Mapping[str, Any]]]:
    if wanted.what == "preferences":
        return exported.preferences(store, labeler_id, wanted.run_id)
    unlabelled = wanted.labeler_id != EVERY_LABELER
    return exported.annotations(store, labeler_id, wanted.run_id, unlabelled=unlabelled)
