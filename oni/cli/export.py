"""`oni export`: annotations or preferences as a file."""

import argparse
import sys
from pathlib import Path
from typing import get_args

from llm_annotator.exporting import EVERY_LABELER, Wanted, What, export, export_file
from llm_annotator.store.reader import StoreReader
from oni.cli._inspect_query import whole_id
from oni.cli.inspect import find_store

EPILOG = """examples:
  oni export runs/NAME --out labels.csv                    for a spreadsheet; change `label`, then `oni import`
  oni export runs/NAME --out labels.parquet --labeler all  what every labeler said, for analysis
  oni export runs/NAME --out pairs.jsonl --what preferences  prompt, chosen, rejected
  oni export runs/NAME --out - | head                      JSON lines on standard output

Works while the run goes on. A caption that its text alone would not bring back has its bytes in `caption_base64`.
"""


def main(argv: list[str]) -> int:
    """Writes the file; returns 0.

    A usage error ends the process with status 2.

    Raises:
        StoreError: no store, no such run or labeler, or nothing to export. RunError: the run has no store of its own.
        ConfigError: the file's name names no format, or Parquet without pyarrow. OSError: it cannot be written.
    """
    args = _parser().parse_args(argv)
    store = find_store(args.run)
    with StoreReader(store) as reader:
        run_id = whole_id("run", args.run_id, [run.run_id for run in reader.runs()], store)
        labelers = [EVERY_LABELER, *(row.labeler_id for row in reader.labelers())]
        labeler_id = whole_id("labeler", args.labeler, labelers, store)
    wanted = Wanted(args.what, run_id, labeler_id)
    if args.out == Path("-"):
        for piece in export(store, wanted, "jsonl"):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return 0
    export_file(store, wanted, args.out)
    print(args.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "oni export",
        description="Writes what was annotated into a file.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory, or the SQLite file of a shared annotator")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help=".jsonl, .csv or .parquet (extra `parquet`); - for JSON lines on standard output",
    )
    parser.add_argument(
        "--what",
        choices=get_args(What),
        default="annotations",
        help="captions with their labels, or pairs of which one is preferred (default: %(default)s)",
    )
    parser.add_argument("--run-id", metavar="ID", help="what came up in one run alone (or how its id begins)")
    parser.add_argument(
        "--labeler", metavar="ID", help="whose labels (default: those the newest run used); `all`: every labeler's"
    )
    return parser
