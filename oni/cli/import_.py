"""`oni import`: labels out of a file, as a person's words or as another labeler."""

import argparse
import json
from pathlib import Path

from llm_annotator.importing import Report, add_labeler, overrule, read_labels
from llm_annotator.tables import format_of
from oni.cli._store_choice import add_choice, add_word, choose
from oni.errors import ConfigError

EPILOG = """examples:
  oni import runs/NAME labels.csv               what differs from the labels in force counts from now on
  oni import runs/NAME labels.csv --as kim      beside the others, as the labeler `imported:kim`; changes no run

A file has a column `caption` and a column `label` (helpful, unhelpful, muted, or nothing), as `oni export` writes them;
or `helpful` (true, false). It is read whole before anything is changed. Works while the run goes on, which learns the
labels within seconds.
"""


def main(argv: list[str]) -> int:
    """Imports the file and prints what became of it; returns 0.

    A usage error ends the process with status 2.

    Raises:
        StoreError: no store, no such run or labeler, or the store cannot be written.
        ConfigError: the file cannot be read as labels; the message says where.
    """
    args = _parser().parse_args(argv)
    chosen = choose(args)
    note = args.note or f"imported from {args.file.name}"
    try:
        with args.file.open("rb") as file:
            labels = read_labels(file, format_of(args.file))
        if args.name is None:
            report = overrule(chosen.store, labels, chosen.labeler.labeler_id, author=args.author, note=note)
        else:
            goal = str(chosen.labeler.spec.get("goal", ""))
            report = add_labeler(chosen.store, labels, args.name, goal=goal, note=note)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    print(json.dumps(report._asdict()) if args.json else _in_words(report))
    return 0


def _in_words(report: Report) -> str:
    rest = [f"{report.same:,} as before"]
    if report.skipped:
        rest.append(f"{report.skipped:,} without a label in the file")
    if report.unseen:
        rest.append(f"{report.unseen:,} of captions that the store had not seen")
    labels = "label" if report.changed == 1 else "labels"
    return f"{report.changed:,} {labels} changed for labeler {report.labeler_id}; {', '.join(rest)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "oni import",
        description="Imports labels.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_choice(parser)
    parser.add_argument("file", type=Path, metavar="FILE", help=".jsonl, .csv or .parquet (extra `parquet`)")
    parser.add_argument("--as", dest="name", metavar="NAME", help="keep them as answers of a labeler of this name")
    add_word(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser
