"""`oni inspect`: what was annotated, how it was answered, and what it earned."""

import argparse
from pathlib import Path
from typing import Any

from llm_annotator.errors import StoreError
from llm_annotator.store.reader import StoreReader
from oni.cli._inspect_query import Query, overview
from oni.config import ANNOTATED_KINDS
from oni.configfile import read_yaml
from oni.errors import NotARun, RunError
from oni.rundir import RunDir

DEFAULT_LIMIT = 20
ORDERS = ("reward", "count", "label", "newest")

EPILOG = """examples:
  oni inspect runs/NAME                          what earned most
  oni inspect runs/NAME --sort count --unhelpful what the LLM turned down, most frequent first
  oni inspect runs/NAME --search door --limit 0  every caption that holds "door"
  oni inspect runs/NAME --show 12                all that is known of caption 12
  oni inspect runs/NAME --preferences            which of two captions is preferred
"""


def main(argv: list[str]) -> int:
    """Prints what a store holds, for people or as one JSON document on stdout; returns 0.

    A usage error ends the process with status 2.

    Raises:
        StoreError: no store, or one that cannot be read; no caption, run or labeler of that id.
        RunError: the run has no store of its own (the message says where its captions are).
    """
    parser = _parser()
    args = parser.parse_args(argv)
    if args.show is not None and (args.run_id or args.labeler or args.search):
        parser.error("--show tells all of one caption: leave --run-id, --labeler and --search out")
    with StoreReader(find_store(args.run)) as reader:
        if args.show is not None:
            _show(reader, args.show, as_json=args.json)
        elif args.preferences:
            _preferences(reader, _query(args), as_json=args.json)
        else:
            _overview(reader, args)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "oni inspect",
        description="Shows what was annotated, how it was answered, and what it earned. Works while the run goes on.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory, or the SQLite file of a shared annotator")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--sort", choices=ORDERS, default="reward", help="order of the captions (default: %(default)s)")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--helpful", dest="only", action="store_const", const="helpful", help="labelled helpful")
    only.add_argument("--unhelpful", dest="only", action="store_const", const="unhelpful", help="labelled unhelpful")
    only.add_argument("--unlabelled", dest="only", action="store_const", const="unlabelled", help="never answered")
    only.add_argument("--unparsed", dest="only", action="store_const", const="unparsed", help="answered, but no label")
    only.add_argument("--failed", dest="only", action="store_const", const="failed", help="no answer came")
    only.add_argument("--preferences", action="store_true", help="pairs of captions that were compared, newest first")
    only.add_argument("--show", type=int, metavar="ID", help="the whole history of one caption")
    parser.add_argument("--search", metavar="TEXT", help="captions that hold TEXT, in any case")
    parser.add_argument(
        "--limit",
        type=_limit,
        default=DEFAULT_LIMIT,
        metavar="N",
        help="captions listed (default: %(default)s); 0: all",
    )
    parser.add_argument("--run-id", metavar="ID", help="of a shared store, one run alone (or how its id begins)")
    parser.add_argument("--labeler", metavar="ID", help="whose labels (default: those the newest run used)")
    return parser


def _limit(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of captions: give 0 (all), 1, 2, ...")
    return int(text)


def find_store(path: Path) -> Path:
    """Returns the SQLite file that `path` stands for: the file itself, or that of a run directory.

    Raises:
        StoreError: nothing there. NotARun: a directory without a run. RunError: the run has no store of its own.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise StoreError(f"there is no run and no annotation store at {path}")
    run = RunDir(path)
    if run.store.exists():
        return run.store
    run_id = run.meta().get("run_id", "?")
    config = read_yaml(run.config_file)
    if url := _setting(config, "annotator", "url"):
        raise RunError(
            f"{path} has no store of its own: its captions are with the shared annotator at {url}. "
            f"On its machine: oni inspect STORE --run-id {run_id}, where STORE is the file given to `oni serve --store`"
        )
    kinds = [kind for key in ("kind", "add") if (kind := _setting(config, "reward", key)) is not None]
    if not ANNOTATED_KINDS.intersection(kinds):
        raise RunError(f"{path} has no annotation store: with reward.kind `{kinds[0]}` no caption is annotated")
    raise NotARun(f"{path} has no annotation store yet ({run.store.name}): the run has not begun to annotate")


def _setting(config: Any, section: str, key: str) -> Any:
    """Returns a setting as the file has it. Not checked: a run whose settings are out of date can be inspected too."""
    try:
        return config[section][key]
    except (KeyError, TypeError, IndexError):
        return None


def _query(args: argparse.Namespace) -> Query:
    return Query(
        run_id=args.run_id,
        labeler_id=args.labeler,
        only=args.only,
        search=args.search,
        sort=args.sort,
        limit=args.limit or None,
    )


def _overview(reader: StoreReader, args: argparse.Namespace) -> None:
    found = overview(reader, _query(args))
    if args.json:
        from oni.cli._inspect_json import overview_document, to_json

        print(to_json(overview_document(found)))
        return
    from oni.cli._inspect_tables import make_console, print_overview

    print_overview(found, make_console())


def _preferences(reader: StoreReader, query: Query, *, as_json: bool) -> None:
    from oni.cli._inspect_preferences import preferences, preferences_document, print_preferences

    found = preferences(reader, query)
    if as_json:
        from oni.cli._inspect_json import to_json

        print(to_json(preferences_document(found)))
        return
    from oni.cli._inspect_tables import make_console

    print_preferences(found, make_console())


def _show(reader: StoreReader, caption_id: int, *, as_json: bool) -> None:
    history = reader.history(caption_id)
    if as_json:
        from oni.cli._inspect_json import history_document, to_json

        print(to_json(history_document(history, reader.path)))
        return
    from oni.cli._inspect_history import print_history
    from oni.cli._inspect_tables import make_console

    print_history(history, make_console())
