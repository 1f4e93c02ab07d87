"""The words that end a run."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from oni.progress import episode_stats, leading, number
from oni.train import Summary

_LEADING = 8
"""Figures named of those that are many of a kind, such as Craftax's achievements."""


def _word(label: bool | None) -> str:
    return "no label" if label is None else "helpful" if label else "unhelpful"


def _command() -> str:
    """Returns how the user can call `oni`, which is on the path only in an activated environment."""
    program = Path(sys.argv[0])
    if shutil.which("oni") or program.name != "oni":
        return "oni"
    return os.path.relpath(program)


def _outcome(summary: Summary) -> Iterator[tuple[str, str]]:
    metrics = summary.metrics
    yield "steps", f"{summary.env_step:,} in {summary.duration_s:.0f} s"
    yield "steps/s", "-" if summary.steps_per_s is None else f"{summary.steps_per_s:,.0f}"
    yield "success rate", number(metrics.get("success"))
    yield "return", number(metrics.get("return/extrinsic"))
    yield from episode_stats(metrics).items()
    for kind, line in leading(metrics, _LEADING).items():
        yield f"  {kind}", line
    if "captions/distinct" in metrics:
        yield "captions seen", number(metrics["captions/distinct"])
    if "annotator/queued" in metrics:
        if "reward_model/pairs_asked" in metrics:
            yield "pairs compared", number(metrics.get("reward_model/labels"))
        if "captions/labelled" in metrics:
            yield "  labelled", number(metrics["captions/labelled"])
        yield "  queued", number(metrics.get("annotator/queued"))
        yield "  failed", number(metrics.get("annotator/failed"))
    if "captions/coverage" in metrics:
        yield "steps whose caption was labelled, lately", f"{metrics['captions/coverage'] or 0.0:.1%}"


def print_summary(summary: Summary, console: Console) -> None:
    """Prints what a run came to, which captions earned most, and how to go on."""
    ending = "done" if summary.stopped_by is None else f"stopped by {summary.stopped_by}"
    ending += " and saved" if summary.saved else ", but its end could NOT be saved"
    console.print(f"\n[bold]Run {summary.run.path}[/bold]: {ending}", highlight=False, soft_wrap=True)
    table = Table.grid(padding=(0, 3))
    for name, value in _outcome(summary):
        table.add_row(name, value)
    console.print(table)
    if summary.top_earners:
        earners = Table("share of intrinsic reward", "label", "caption", box=None, padding=(0, 2))
        for caption, share, label in summary.top_earners:
            printable = "".join(c if c.isprintable() else repr(c)[1:-1] for c in caption)
            earners.add_row(f"{share:.1%}", _word(label), Text(printable))
        console.print("\nCaptions that earned most of the intrinsic reward:")
        console.print(earners)
    if summary.warning:
        console.print(f"\nThe annotator needs attention: {summary.warning}", markup=False, highlight=False)
    oni, path = _command(), summary.run.path
    further = "" if summary.stopped_by else f" --total-env-steps {2 * summary.env_step}"
    lines = [f"  {oni} eval {path}", f"  {oni} train --run-dir {path} --resume{further}"]
    if "annotator/queued" in summary.metrics:
        lines.insert(0, f"  {oni} inspect {path}")
    console.print("\nGo on with:\n" + "\n".join(lines), markup=False, highlight=False, soft_wrap=True)
