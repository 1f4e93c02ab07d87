"""`oni salvage`: keeps what is good in a damaged store."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from llm_annotator.errors import StoreError
from llm_annotator.service import exclusive
from llm_annotator.store.salvage import Salvaged, salvage

STORE_NAME = "annotations.sqlite"
"""Name of the store in the folder of a run."""


def main(argv: list[str]) -> int:
    """Puts a new store with all that can be read in the place of a damaged one. Returns the exit status."""
    parser = argparse.ArgumentParser(
        "oni salvage",
        description="Puts a new store, with all that can be read of a damaged one, in its place. The damaged file is "
        "kept beside it. End the run or the annotator that uses the store before.",
        allow_abbrev=False,
    )
    parser.add_argument("store", type=Path, help="SQLite file, or the folder of a run")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    args = parser.parse_args(argv)
    path: Path = args.store / STORE_NAME if args.store.is_dir() else args.store
    if not path.is_file():
        raise StoreError(f"there is no annotation store at {path}")
    with exclusive(path):
        outcome = salvage(path)
    print(json.dumps(asdict(outcome) | {"damaged": str(outcome.damaged)}) if args.json else _words(path, outcome))
    return 0


def _words(path: Path, outcome: Salvaged) -> str:
    lines = [f"{path} can be used again. The damaged file is kept as {outcome.damaged}."]
    lines += [f"  {number:>9,} {table}" for table, number in outcome.kept.items()]
    if outcome.unreadable:
        lines.append(f"Parts of these could not be read: {', '.join(outcome.unreadable)}.")
    if outcome.lost:
        lines.append(f"{outcome.lost} rows were left out: what they belong to could not be read.")
    if not outcome.unreadable:
        lines.append("All tables could be read whole.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
