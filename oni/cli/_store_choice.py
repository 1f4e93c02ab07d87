"""Whose labels in which store a command is about; shared by `oni export`, `oni import` and `oni override`."""

import argparse
from pathlib import Path
from typing import NamedTuple

from llm_annotator.errors import StoreError
from llm_annotator.exporting import labeler_in_use
from llm_annotator.importing import MAX_NOTE_CHARS
from llm_annotator.person import login_name
from llm_annotator.store.reader import StoreReader
from llm_annotator.store.records import LabelerRow
from oni.cli._inspect_query import whole_id
from oni.cli.inspect import find_store
from oni.rundir import RunDir


class Choice(NamedTuple):
    """A store, the run in it that was asked for (None: all), and a labeler."""

    store: Path
    run_id: str | None
    labeler: LabelerRow


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Adds RUN, --run-id and --labeler."""
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory, or the SQLite file of a shared annotator")
    parser.add_argument("--run-id", metavar="ID", help="of a shared store, one run alone (or how its id begins)")
    parser.add_argument(
        "--labeler", metavar="ID", help="whose labels (default: those the run, or the newest run, used last)"
    )


def add_word(parser: argparse.ArgumentParser) -> None:
    """Adds what goes with a person's word: --note and --author."""
    parser.add_argument("--note", type=_note, default="", help="why; kept with it")
    parser.add_argument("--author", default=login_name(), help="who says so (default: %(default)s)")


def _note(text: str) -> str:
    if len(text) > MAX_NOTE_CHARS:
        raise argparse.ArgumentTypeError(f"a note has at most {MAX_NOTE_CHARS} characters, not {len(text)}")
    return text


def choose(args: argparse.Namespace) -> Choice:
    """Returns what the arguments of `add_choice` mean.

    Raises:
        StoreError: no store, no such run or labeler, or no labeler at all. RunError: the run has no store of its own.
    """
    store = find_store(args.run)
    with StoreReader(store) as reader:
        runs = [run.run_id for run in reader.runs()]
        labelers = {row.labeler_id: row for row in reader.labelers()}
        run_id = whole_id("run", args.run_id, runs, store)
        own = RunDir(args.run).meta().get("run_id") if args.run.is_dir() else None
        used = labeler_in_use(reader, run_id or (own if own in runs else None))
        labeler_id = whole_id("labeler", args.labeler, list(labelers), store) or used
    if labeler_id is None:
        raise StoreError(f"{store} holds no labeler yet: the run has not begun to annotate")
    return Choice(store, run_id, labelers[labeler_id])
