"""`oni inspect`: what was annotated, how it was answered, what it earned; as pages, as one page, or in the terminal."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_annotator.errors import StoreError
from llm_annotator.store.reader import StoreReader
from oni.cli._arguments import port_number
from oni.cli._inspect_query import Query, overview, whole_id
from oni.config import ANNOTATED_KINDS
from oni.configfile import read_yaml
from oni.errors import NotARun, RunError
from oni.rundir import RunDir, write_atomically

if TYPE_CHECKING:
    from llm_annotator.askagain import AskAgain
    from llm_annotator.config import AnnotatorConfig

DEFAULT_LIMIT = 20
EXPORT_LIMIT = 100
"""Captions in an exported page, unless --limit says otherwise. Each takes some ten kilobytes."""

_NO_LIMIT = -1
"""What SQLite takes for "all"."""

ORDERS = ("reward", "count", "label", "newest")

EPILOG = """examples:
  oni inspect runs/NAME                            pages in the browser, also while the run goes on
  oni inspect runs/NAME --export reward.html       one page with everything, to send to somebody
  oni inspect runs/NAME --text                     what earned most, in the terminal
  oni inspect runs/NAME --sort count --unhelpful   what the LLM turned down, most frequent first
  oni inspect runs/NAME --search door --limit 0    every caption that holds "door"
  oni inspect runs/NAME --show 12                  all that is known of caption 12
  oni inspect runs/NAME --show 12 --moments        when it was said, step by step
  oni inspect runs/NAME --preferences              which of two captions is preferred

With --json or any of the filters nothing is served: they print in the terminal.
"""


def main(argv: list[str]) -> int:
    """Serves pages about a store until it is interrupted, or prints what it holds; returns 0.

    A usage error ends the process with status 2.

    Raises:
        StoreError: no store, or one that cannot be read; no caption, run or labeler of that id.
        RunError: the run has no store of its own (the message says where its captions are).
        ServiceError: the address for the pages cannot be had.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    _check(parser, args)
    store = find_store(args.run)
    if args.export is not None:
        _export(args, store)
        return 0
    if not _in_terminal(args):
        _serve(args, store)
        return 0
    with StoreReader(store) as reader:
        if args.show is not None:
            _show(reader, args.show, as_json=args.json, moments=args.moments)
        elif args.preferences:
            _preferences(reader, _query(args), as_json=args.json)
        else:
            _overview(reader, args)
    return 0


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the process if options were given of which one would be ignored."""
    if args.show is not None and (args.run_id or args.labeler or args.search):
        parser.error("--show tells all of one caption: leave --run-id, --labeler and --search out")
    if args.moments and (args.show is None or args.json):
        parser.error("--moments goes with --show ID, and is text: --json does without it")
    if args.export is not None and (args.json or args.text or args.sort or args.search or _only(args)):
        parser.error(
            "--export writes the captions that earned most: it goes with --limit, --run-id and --labeler alone"
        )
    if args.port is not None and (args.export is not None or _in_terminal(args)):
        parser.error("--port is for the pages, and nothing is served with these options: leave one of them out")


def _only(args: argparse.Namespace) -> bool:
    return args.only is not None or args.preferences or args.show is not None


def _in_terminal(args: argparse.Namespace) -> bool:
    """Returns whether something is to be printed instead of served."""
    filters = (args.sort, args.search, args.limit, args.run_id, args.labeler)
    return args.text or args.json or _only(args) or any(value is not None for value in filters)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "oni inspect",
        description="Shows what was annotated, how it was answered, and what it earned. Works while the run goes on.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory, or the SQLite file of a shared annotator")
    parser.add_argument("--port", type=port_number, help="port of the pages on 127.0.0.1 (default: a free one)")
    parser.add_argument("--export", type=Path, metavar="FILE.html", help="write one page that needs no other file")
    parser.add_argument("--text", action="store_true", help="print tables in the terminal")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--sort", choices=ORDERS, help="order of the captions (default: reward)")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--helpful", dest="only", action="store_const", const="helpful", help="labelled helpful")
    only.add_argument("--unhelpful", dest="only", action="store_const", const="unhelpful", help="labelled unhelpful")
    only.add_argument("--unlabelled", dest="only", action="store_const", const="unlabelled", help="never answered")
    only.add_argument("--unparsed", dest="only", action="store_const", const="unparsed", help="answered, but no label")
    only.add_argument("--failed", dest="only", action="store_const", const="failed", help="no answer came")
    only.add_argument("--preferences", action="store_true", help="pairs of captions that were compared, newest first")
    only.add_argument("--show", "--caption", type=int, metavar="ID", help="the whole history of one caption")
    parser.add_argument("--moments", action="store_true", help="with --show: when it was said, step by step, as text")
    parser.add_argument("--search", metavar="TEXT", help="captions that hold TEXT, in any case")
    parser.add_argument(
        "--limit",
        type=_limit,
        metavar="N",
        help=f"captions listed (default: {DEFAULT_LIMIT}, with --export {EXPORT_LIMIT}); 0: all",
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
        sort=args.sort or "reward",
        limit=DEFAULT_LIMIT if args.limit is None else args.limit or None,
    )


def _serve(args: argparse.Namespace, store: Path) -> None:
    from llm_annotator.inspector.serving import serve_pages

    def on_ready(url: str) -> None:
        print(url, flush=True)
        print(f"Open it in a browser on this machine. Ctrl-C ends the pages about {args.run}.", file=sys.stderr)

    run_dir = _run_dir(args.run)
    serve_pages(store, run_dir=run_dir, port=args.port or 0, on_ready=on_ready, asking=_asking(store, run_dir))


def _asking(store: Path, run_dir: Path | None) -> "AskAgain | None":
    """Returns what asks the LLM of a run again; None if there is a store alone, which does not say how to reach one."""
    if run_dir is None:
        return None
    from llm_annotator.askagain import AskAgain
    from llm_annotator.errors import ConfigError as AnnotatorConfigError
    from oni.cli._annotator_config import load_annotator_config
    from oni.errors import ConfigError

    def settings() -> "AnnotatorConfig":
        try:
            return load_annotator_config(RunDir(run_dir).config_file, [], prog="oni inspect")
        except ConfigError as error:
            raise AnnotatorConfigError(str(error)) from error

    return AskAgain(store, settings)


def _export(args: argparse.Namespace, store: Path) -> None:
    from llm_annotator.inspector.export import export_page

    with StoreReader(store) as reader:
        run_id = whole_id("run", args.run_id, [run.run_id for run in reader.runs()], store)
        labeler_id = whole_id("labeler", args.labeler, [item.labeler_id for item in reader.labelers()], store)
    chosen = {name: value for name, value in (("run", run_id), ("labeler", labeler_id)) if value is not None}
    limit = EXPORT_LIMIT if args.limit is None else args.limit or _NO_LIMIT
    page = export_page(store, run_dir=_run_dir(args.run), limit=limit, parameters=chosen)
    try:
        write_atomically(args.export, page)
    except OSError as error:
        raise RunError(f"{args.export} cannot be written ({error.strerror}): choose another file") from error
    print(args.export)


def _run_dir(path: Path) -> Path | None:
    return path if path.is_dir() else None


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


def _show(reader: StoreReader, caption_id: int, *, as_json: bool, moments: bool) -> None:
    from llm_annotator.store.onecaption import holders, parts
    from llm_annotator.store.reading import Reading

    history = reader.history(caption_id)
    if moments:
        from oni.cli._inspect_moments import print_moments
        from oni.cli._inspect_tables import make_console

        print_moments(reader.path, history.text, caption_id, make_console())
        return
    with Reading(reader.path) as reading:
        of, held_by = parts(reading, caption_id), holders(reading, caption_id)
    if as_json:
        from oni.cli._inspect_json import history_document, to_json

        print(to_json(history_document(history, of, held_by, reader.path)))
        return
    from oni.cli._inspect_history import print_history
    from oni.cli._inspect_tables import make_console

    print_history(history, of, held_by, make_console())
