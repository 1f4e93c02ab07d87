"""`oni relabel`: asks another labeler about the captions of a run, and tells how far the two agree."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llm_annotator.config import AnnotatorConfig, BackendConfig
from llm_annotator.errors import BudgetUsedUp, StoreError
from llm_annotator.store.disputes import Verdicts, verdicts
from llm_annotator.store.reader import StoreReader
from llm_annotator.store.reading import Reading
from llm_annotator.store.records import LabelerRow, RunRow
from oni.cli._annotator_config import add_config_option, load_annotator_config, report_errors, split_overrides
from oni.cli._inspect_query import whole_id
from oni.cli._relabel_report import Comparison, LabelerWords, document, print_comparison
from oni.cli.inspect import find_store
from oni.errors import ConfigError
from oni.rundir import RunDir

PROG = "oni relabel"

SHOWN = 20
"""Captions in dispute that are listed by default."""

TOLD_EVERY_S = 10.0
"""Seconds between two lines of progress where they cannot overwrite each other."""

ENOUGH_TO_GUESS = 10
"""Answers after which the time that is left is guessed."""

EPILOG = """examples:
  oni relabel runs/NAME --goal "Win every fight."           the same LLM, another goal
  oni relabel runs/NAME --backend openai --annotator.backend.base-url http://127.0.0.1:8000/v1 --model my-model
  oni relabel runs/NAME --prompt my_prompt.yaml --limit 200 the 200 captions that came up most

Settings that are not given are those of the run (of --config FILE for the store of a shared annotator). The run and its
labels stay as they are, also while it goes on. Answers are stored: the same command goes on where it was stopped. What
they cost counts against the budgets of the store (--annotator.engine.max-requests, max-tokens, max-cost).
"""


def main(argv: list[str]) -> int:
    """Asks, stores the answers as another labeler's, and prints how far the two agree. Returns the exit status."""
    return report_errors(PROG, lambda: _main(argv))


@dataclass(frozen=True, kw_only=True)
class _Task:
    store: Path
    run: RunRow
    first: LabelerRow
    config: AnnotatorConfig
    limit: int | None
    min_count: int
    shown: int


def _main(argv: list[str]) -> int:
    own, overrides = split_overrides(argv)
    args = _parser().parse_args(own)
    store = find_store(args.run)
    config = load_annotator_config(
        _config_file(args), overrides, prog=PROG, change=lambda config: _changed(config, args)
    )
    with StoreReader(store) as reader:
        run = _run(reader, args)
        first = _labeler(reader, run, args.labeler)
    task = _Task(
        store=store,
        run=run,
        first=first,
        config=config,
        limit=args.limit or None,
        min_count=args.min_count,
        shown=args.disputes or sys.maxsize,
    )
    try:
        found, stopped = asyncio.run(_relabel(task))
    except KeyboardInterrupt:
        print(f"\n{PROG}: stopped; what was answered is kept, and the same command goes on from there", file=sys.stderr)
        raise
    _report(found, as_json=args.json)
    return 0 if found.counts.total and not stopped else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        PROG,
        description="Asks another labeler about the captions of a run, the most frequent first, and tells how far the "
        "two agree.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory, or the SQLite file of a shared annotator")
    parser.add_argument(
        "--goal", metavar="GOAL", help="as annotator.labeler.goal; its own prompt and threshold go with it"
    )
    parser.add_argument(
        "--prompt", metavar="PROMPT", help="as annotator.labeler.prompt; its own threshold goes with it"
    )
    parser.add_argument(
        "--backend", metavar="KIND", help="as annotator.backend.kind; what the run set for another is left"
    )
    parser.add_argument("--model", metavar="NAME", help="as annotator.backend.model")
    parser.add_argument(
        "--limit", type=_whole, default=0, metavar="N", help="captions, the most frequent; 0: all (default)"
    )
    parser.add_argument(
        "--min-count", type=_whole, default=1, metavar="N", help="captions that came up so often at least"
    )
    parser.add_argument(
        "--disputes", type=_whole, default=SHOWN, metavar="N", help="disputes listed (default: %(default)s); 0: all"
    )
    parser.add_argument("--run-id", metavar="ID", help="of a shared store, which run (or how its id begins)")
    parser.add_argument(
        "--labeler", metavar="ID", help="compare with this labeler (default: the one the run used last)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_config_option(parser)
    parser.epilog = f"{EPILOG}\n{parser.epilog}"
    return parser


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number: give 0, 1, 2, ...")
    return int(text)


def _config_file(args: argparse.Namespace) -> Path:
    if args.config is not None:
        return args.config
    if args.run.is_dir():
        return RunDir(args.run).config_file
    raise ConfigError(f"{args.run} is no run directory and tells no settings: give --config FILE, that of its runs")


def _changed(config: AnnotatorConfig, args: argparse.Namespace) -> AnnotatorConfig:
    """Returns the settings with the short options, and without what the run chose for that which they replace."""
    labeler, backend = config.labeler, config.backend
    if args.goal is not None:
        labeler = replace(labeler, goal=args.goal, prompt=None, threshold=None)
    if args.prompt is not None:
        labeler = replace(labeler, prompt=args.prompt, threshold=None)
    if args.backend is not None and args.backend != backend.kind:
        backend = BackendConfig(kind=args.backend)
    if args.model is not None:
        backend = replace(backend, model=args.model)
    return replace(config, labeler=labeler, backend=backend)


def _run(reader: StoreReader, args: argparse.Namespace) -> RunRow:
    runs = {run.run_id: run for run in reader.runs()}
    wanted: str | None = args.run_id
    if wanted is None and args.run.is_dir():
        wanted = RunDir(args.run).meta()["run_id"]
    if wanted is None and len(runs) == 1:
        return next(iter(runs.values()))
    if wanted is None:
        raise ConfigError(f"{reader.path} holds {len(runs)} runs: choose one by --run-id ({', '.join(runs) or 'none'})")
    run_id = whole_id("run", wanted, list(runs), reader.path)
    return runs[run_id or ""]


def _labeler(reader: StoreReader, run: RunRow, wanted: str | None) -> LabelerRow:
    labelers = {labeler.labeler_id: labeler for labeler in reader.labelers()}
    labeler_id = whole_id("labeler", wanted, list(labelers), reader.path) or run.labeler_id
    if labeler_id is None:
        raise StoreError(f"run {run.name!r} in {reader.path} has no labeler yet: there is nothing to compare with")
    labeler = labelers[labeler_id]
    if labeler.spec.get("question", "label") != "label":
        raise ConfigError(
            f"labeler {labeler_id} of run {run.name!r} compares captions two by two, and only labels of single "
            "captions can be asked for again; `oni inspect RUN --preferences` lists what it said"
        )
    return labeler


async def _relabel(task: _Task) -> tuple[Comparison, bool]:
    """Returns what both said, and whether a budget stopped the asking."""
    from llm_annotator.backends import create_servers
    from llm_annotator.labeler import Labeler, resolve_labeler
    from llm_annotator.relabel import relabel
    from llm_annotator.storethread import StoreThread

    spec = resolve_labeler(task.config.labeler)
    meter = _Meter()
    async with create_servers(task.config.backend) as backend:
        labeler = Labeler(spec, backend.model)
        if labeler.id == task.first.labeler_id:
            raise ConfigError(
                f"these settings are those of labeler {labeler.id} itself, with which it is to be compared: change the "
                "goal, the prompt, the model or how it answers"
            )
        with Reading(task.store) as reading:
            wanted = _verdicts(reading, task, labeler.id, limit=task.limit)
        stopped = ""
        async with StoreThread(task.store) as store:
            try:
                async for progress in relabel(store, labeler, backend, [item.text for item in wanted], task.config):
                    meter.tell(progress.asked, progress.left, progress.without_label)
            except BudgetUsedUp as error:
                stopped = str(error)
    meter.end()
    if stopped:
        print(f"{PROG}: stopped, for {stopped}. The table is of what was answered", file=sys.stderr)
    with Reading(task.store) as reading:
        found = _verdicts(reading, task, labeler.id)  # all: of a run that goes on others are frequent by now
    asked_for = {item.caption_id for item in wanted}
    comparison = Comparison(
        store=str(task.store),
        run_id=task.run.run_id,
        first=LabelerWords(
            labeler_id=task.first.labeler_id, model=task.first.model, goal=str(task.first.spec.get("goal", ""))
        ),
        second=LabelerWords(labeler_id=labeler.id, model=labeler.model, goal=spec.goal),
        verdicts=[item for item in found if item.caption_id in asked_for],
        questions=meter.asked,
        shown=task.shown,
    )
    return comparison, bool(stopped)


def _verdicts(reading: Reading, task: _Task, labeler_id: str, *, limit: int | None = None) -> Sequence[Verdicts]:
    run_id, first = task.run.run_id, task.first.labeler_id
    return verdicts(reading, run_id, first, labeler_id, min_count=task.min_count, limit=limit)


class _Meter:
    """The line that tells how far it is, on standard error."""

    def __init__(self) -> None:
        self.asked = 0
        self._told = time.monotonic()
        self._first = 0.0  # when the first answer came, for which a model may have to be loaded
        self._live = sys.stderr.isatty()

    def tell(self, asked: int, left: int, without_label: int) -> None:
        self.asked = asked
        now = time.monotonic()
        if asked == 1:
            self._first = now
        if not self._live and now - self._told < TOLD_EVERY_S and left:
            return
        self._told = now
        per_s = (asked - 1) / (now - self._first) if asked > 1 and now > self._first else 0.0
        pace = f", {per_s:.1f}/s" if per_s else ""
        rest = f", about {left / per_s:.0f} s left" if left and asked >= ENOUGH_TO_GUESS and per_s else ""
        missing = f", {without_label:,} without a label" if without_label else ""
        line = f"{asked:,} of {asked + left:,} questions{pace}{missing}{rest}"
        print(f"\r\x1b[K{line}" if self._live else line, end="" if self._live else "\n", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._live:
            print(file=sys.stderr)


def _report(found: Comparison, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(document(found), ensure_ascii=True))
        return
    from oni.cli._inspect_tables import make_console

    print_comparison(found, make_console())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
