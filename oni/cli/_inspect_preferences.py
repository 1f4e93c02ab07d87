"""`oni inspect --preferences`: which captions were compared, and which of two is preferred."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llm_annotator.captions import printable
from llm_annotator.store.reader import StoreReader
from llm_annotator.store.records import LabelerRow, OrderedAnswer, PairRow
from llm_annotator.types import LabelStatus
from oni.cli._inspect_json import SCHEMA, text_document
from oni.cli._inspect_query import Query, whole_id
from oni.cli._inspect_tables import caption_text, field_grid

Verdict = Literal["a", "b", "tie", "pending"]

_VERDICT_STYLES: dict[Verdict, str] = {"a": "green", "b": "green", "tie": "yellow", "pending": "cyan"}


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """Pairs of captions with their answers, those answered last first. `labeler` is None if none compares."""

    store: Path
    labeler: LabelerRow | None
    pairs: Sequence[PairRow]
    limit: int | None


def preferences(reader: StoreReader, query: Query) -> Preferences:
    """Returns the pairs that a labeler compared.

    The labeler is the one asked for, else that of the run asked for, else the newest one that compares.

    Raises:
        StoreError: no run or labeler of that id, or the store cannot be read.
    """
    with reader.snapshot():
        labelers = {row.labeler_id: row for row in reader.labelers()}
        runs = {row.run_id: row for row in reader.runs()}
        run_id = whole_id("run", query.run_id, list(runs), reader.path)
        chosen = whole_id("labeler", query.labeler_id, list(labelers), reader.path)
        if chosen is None and run_id is not None:
            chosen = runs[run_id].labeler_id
        if chosen is None:
            comparing = [key for key, row in labelers.items() if row.spec.get("question") == "preference"]
            chosen = comparing[-1] if comparing else None
        pairs: list[PairRow] = []
        if chosen is not None:
            limit = -1 if query.limit is None else query.limit
            pairs = reader.pairs(labeler_id=chosen, text=query.search, limit=limit)
    return Preferences(store=reader.path, labeler=labelers.get(chosen or ""), pairs=pairs, limit=query.limit)


def verdict(pair: PairRow) -> Verdict:
    """Returns which caption is preferred: "a" or "b" if both orders say so, "tie" if each says something else.

    "pending" means that an order has no label yet: it was not asked about, or its answer held none.
    """
    forward, backward = _first_better(pair.forward), _first_better(pair.backward)
    if forward is None or backward is None:
        return "pending"
    if forward == backward:
        return "tie"
    return "a" if forward else "b"


def preferences_document(found: Preferences) -> dict[str, Any]:
    """Returns the pairs as plain data."""
    return {
        "schema": SCHEMA,
        "store": str(found.store),
        "labeler": None if found.labeler is None else found.labeler.labeler_id,
        "compared": 0 if found.labeler is None else found.labeler.compared,
        "pairs": [_pair(pair) for pair in found.pairs],
    }


def print_preferences(found: Preferences, console: Console) -> None:
    """Prints the pairs as a table."""
    fields = {"Store": printable(str(found.store))}
    if found.labeler is not None:
        fields["Goal"] = printable(str(found.labeler.spec.get("goal", "?")))
        fields["Labeler"] = f"{found.labeler.labeler_id}, model {printable(found.labeler.model)}"
        fields["Compared"] = f"{found.labeler.compared:,} ordered pairs"
    console.print(field_grid(fields))
    console.print()
    if not found.pairs:
        console.print(
            Text("No pair fits." if found.labeler and found.labeler.compared else "No captions compared yet.")
        )
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("A", "B", "Better", "A first", "B first"):
        table.add_column(name, no_wrap=True)
    for name in ("Caption A", "Caption B"):
        table.add_column(name, overflow="fold", min_width=20)
    for pair in found.pairs:
        word = verdict(pair)
        answers = (_answer_text(pair.forward, "a", "b"), _answer_text(pair.backward, "b", "a"))
        cells = [Text(str(pair.a_id)), Text(str(pair.b_id)), Text(word, style=_VERDICT_STYLES[word]), *answers]
        table.add_row(*cells, caption_text(pair.a), caption_text(pair.b))
    console.print(table)
    console.print(Text("A pair is asked about in both orders; one that each order answers otherwise is a tie."))
    if len(found.pairs) == found.limit:
        console.print(Text("There may be more; --limit 0 lists all."))


def _first_better(answer: OrderedAnswer | None) -> bool | None:
    return None if answer is None else answer.first_better


def _answer_text(answer: OrderedAnswer | None, first: str, second: str) -> Text:
    if answer is None:
        return Text("-")
    if answer.status is not LabelStatus.LABELLED:
        return Text(answer.status.value)
    word = first if answer.first_better else second
    return Text(word if answer.score is None else f"{word} {answer.score:+.2f}")


def _pair(pair: PairRow) -> dict[str, Any]:
    return {
        "a": {"caption_id": pair.a_id, **text_document(pair.a)},
        "b": {"caption_id": pair.b_id, **text_document(pair.b)},
        "preferred": verdict(pair),
        "a_first": None if pair.forward is None else asdict(pair.forward),
        "b_first": None if pair.backward is None else asdict(pair.backward),
        "answered_at": pair.answered_at,
    }
