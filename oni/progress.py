"""Live progress: a panel where a terminal is attached, plain lines where not; always on stderr."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from oni.metrics import EPISODE_STAT

PLAIN_EVERY_S = 5.0
"""Seconds between two plain lines."""

PLAIN_STATS = 2
"""Figures of an episode beside return and success that a plain line has room for."""

LIVE_PER_SECOND = 4


@runtime_checkable
class Reporter(Protocol):
    """Shows how a run goes; a context manager."""

    def report(self, metrics: Mapping[str, float | int | None], warning: str) -> None:
        """Shows the newest figures, and what is wrong with the annotator, if anything."""
        ...

    def say(self, text: str) -> None:
        """Shows a line that stays."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def number(value: float | int | None, digits: int = 3) -> str:
    """Formats a figure for people, "-" for none."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def episode_stats(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Returns the figures of an episode that only some environments have, formatted, by name.

    Those of which there are many of a kind (`achievement/...`) are left to `leading`.
    """
    named = {name.removeprefix(EPISODE_STAT): value for name, value in metrics.items() if name.startswith(EPISODE_STAT)}
    few = {name: value for name, value in named.items() if name != "length" and "/" not in name}
    return {name.replace("_", " "): number(value, 2) for name, value in few.items()}


def leading(metrics: Mapping[str, Any], limit: int) -> dict[str, str]:
    """Returns by kind the highest of figures of which there are many (`achievement/...`), as one line of text each."""
    kinds: dict[str, list[tuple[float, str]]] = {}
    for name, value in metrics.items():
        kind, slash, one = name.removeprefix(EPISODE_STAT).partition("/")
        if name.startswith(EPISODE_STAT) and slash and value:
            kinds.setdefault(kind, []).append((value, one.replace("_", " ")))
    lines: dict[str, str] = {}
    for kind, found in kinds.items():
        best = sorted(found, reverse=True)
        more = f", and {len(best) - limit} more" if len(best) > limit else ""
        lines[kind] = ", ".join(f"{name} {number(value, 2)}" for value, name in best[:limit]) + more
    return lines


_ANNOTATION = {
    "captions": "captions/distinct",
    "labelled": "captions/labelled",
    "pairs": "reward_model/pairs_asked",
    "queued": "annotator/queued",
    "coverage": "captions/coverage",
}


def annotation_figures(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Returns how far the annotator is, formatted, by name; empty without one."""
    if "annotator/queued" not in metrics:
        return {}
    return {name: number(metrics[key], 2) for name, key in _ANNOTATION.items() if key in metrics}


def trouble_figures(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Returns what tells how bad it is when something is wrong with the annotator, formatted, by name."""
    if "annotator/queued" not in metrics:
        return {}
    figures = {
        "failures": number(metrics.get("annotator/failures")),
        "oldest": f"{metrics.get('annotator/oldest_s') or 0.0:.0f} s",
        "servers up": number(metrics.get("annotator/endpoints_up")),
    }
    if metrics.get("annotator/budget_left") is not None:
        figures["budget left"] = f"{metrics['annotator/budget_left']:.0%}"
    return figures


class PlainReporter:
    """Writes a line every few seconds, and a warning when it changes."""

    def __init__(self, console: Console, total_steps: int) -> None:
        self._console = console
        self._total = total_steps
        self._shown_at = 0.0
        self._warning = ""

    def report(self, metrics: Mapping[str, float | int | None], warning: str) -> None:
        if warning != self._warning:
            self._warning = warning
            self.say(f"annotator: {warning}" if warning else "annotator: works again")
        now = time.monotonic()
        if now - self._shown_at < PLAIN_EVERY_S:
            return
        self._shown_at = now
        figures = annotation_figures(metrics) | (trouble_figures(metrics) if warning else {})
        speed = metrics.get("steps_per_s")
        stats = "".join(f"{name} {value}  " for name, value in list(episode_stats(metrics).items())[:PLAIN_STATS])
        self.say(
            f"step {number(metrics['env_step'])}/{self._total:,}  success {number(metrics.get('success'))}  "
            f"return {number(metrics.get('return/extrinsic'))}  "
            f"{stats}{'-' if speed is None else f'{speed / 1000:.1f}k'} steps/s  "
            f"{' '.join(f'{name} {value}' for name, value in figures.items())}".rstrip()
        )

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class LiveReporter:
    """Keeps a small panel up to date at the foot of the terminal."""

    def __init__(self, console: Console, total_steps: int) -> None:
        self._console = console
        self._total = total_steps
        self._live = Live(console=console, refresh_per_second=LIVE_PER_SECOND, transient=True)

    def report(self, metrics: Mapping[str, float | int | None], warning: str) -> None:
        table = Table.grid(padding=(0, 2))
        step = int(metrics["env_step"] or 0)
        speed = metrics.get("steps_per_s")
        rate = "-" if speed is None else f"{speed / 1000:.1f}k steps/s"
        table.add_row("step", f"{step:,} / {self._total:,}", ProgressBar(self._total, step, width=30), rate)
        success, paid = number(metrics.get("success")), number(metrics.get("return/extrinsic"))
        table.add_row("success", success, "return", paid)
        stats = list(episode_stats(metrics).items())
        for pair in zip(stats[::2], stats[1::2], strict=False):
            table.add_row(*(cell for stat in pair for cell in stat))
        figures = list(annotation_figures(metrics).items())
        for pair in zip(figures[::2], figures[1::2], strict=False):
            table.add_row(*(cell for figure in pair for cell in figure))
        if warning:
            table.add_row("[yellow]annotator", f"[yellow]{escape(warning)}")
        self._live.update(table)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)


def make_reporter(total_steps: int) -> Reporter:
    """Creates the reporter that fits stderr."""
    console = Console(stderr=True)
    return LiveReporter(console, total_steps) if console.is_terminal else PlainReporter(console, total_steps)
