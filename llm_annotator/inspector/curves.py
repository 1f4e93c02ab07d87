"""Which curves the overview shows: of a run its own figures, of a shared store how its labels came in."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from markupsafe import Markup

from llm_annotator.inspector.charts import Series, line_chart, thin
from llm_annotator.inspector.metricsfile import Figures
from llm_annotator.inspector.words import percent, percent_tick, reward, seconds, short
from llm_annotator.store.figures import LabelCounts

Values = list[tuple[float, float]]
Read = Callable[[Figures], Values]


class Curve(NamedTuple):
    """One curve of a chart, and how its values are read."""

    name: str
    read: Read


class Plan(NamedTuple):
    """One chart: its title, what it shows in words, its curves, and how values are written."""

    title: str
    meaning: str
    curves: Sequence[Curve]
    write: Callable[[float], str]
    y_range: tuple[float, float] | None = None


class ChartView(NamedTuple):
    """A chart as it is shown. newest: newest value of each curve, (name, value)."""

    title: str
    meaning: str
    newest: Sequence[tuple[str, str]]
    svg: Markup


def _of(name: str) -> Read:
    return lambda figures: figures.curve(name)


def _combined(first: str, second: str, combine: Callable[[float, float], float]) -> Read:
    def read(figures: Figures) -> Values:
        return [
            (float(line["env_step"]), combine(float(line[first]), float(line[second])))
            for line in figures.lines
            if first in line and second in line
        ]

    return read


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


WAITING = "Waiting captions"
"""Shown for runs that did not yet write down how old the queue was."""

PLANS: Sequence[Plan] = (
    Plan(
        "Label coverage",
        "share of the last rollout's steps with a caption whose caption had a label",
        [Curve("coverage", _of("captions/coverage"))],
        percent,
        (0.0, 1.0),
    ),
    Plan(
        "Helpful share",
        "of the labelled captions of the run, those labelled helpful",
        [Curve("helpful", _combined("captions/helpful", "captions/labelled", _ratio))],
        percent,
    ),
    Plan(
        "Answers without a label",
        "captions whose answer could not be read, or that got none after every retry",
        [Curve("unparsed", _of("annotator/unparsed")), Curve("failed", _of("annotator/failed"))],
        short,
    ),
    Plan(
        "Queue age",
        "for how long the oldest caption has been without an answer; median wait of the last answers",
        [Curve("oldest", _of("annotator/oldest_s")), Curve("answered", _of("annotator/wait_s"))],
        seconds,
    ),
    Plan(
        WAITING,
        "captions of this run that wait for an answer",
        [Curve("waiting", _of("annotator/queued"))],
        short,
    ),
    Plan(
        "Success",
        "share of episodes that succeeded, over the last two step limits",
        [Curve("success", _of("success"))],
        percent,
        (0.0, 1.0),
    ),
    Plan(
        "Extrinsic return",
        "mean sum of the game's rewards over the same episodes",
        [Curve("game", _of("return/extrinsic"))],
        reward,
    ),
    Plan(
        "Intrinsic return",
        "mean intrinsic reward of a step times the mean length of an episode",
        [Curve("intrinsic", _combined("reward/intrinsic", "episode/length", lambda mean, length: mean * length))],
        reward,
    ),
    Plan("Steps a second", "env steps a second, over all games", [Curve("steps/s", _of("steps_per_s"))], short),
)


def run_charts(figures: Figures) -> list[ChartView]:
    """Returns the charts of a run; those of which it has no figures are left out."""
    charts: list[ChartView] = []
    for plan in PLANS:
        values = [(curve.name, curve.read(figures)) for curve in plan.curves]
        if any(points for _, points in values):
            charts.append(_chart(plan, values, short, "step"))
    has_age = any("annotator/oldest_s" in line for line in figures.lines)
    return [chart for chart in charts if chart.title != WAITING or not has_age]


def store_charts(counts: Sequence[LabelCounts]) -> list[ChartView]:
    """Returns how the labels of a store came in; nothing if there are none."""
    if not counts:
        return []
    days = counts[-1].time - counts[0].time > 86_400

    def clock(moment: float) -> str:
        return datetime.fromtimestamp(moment).astimezone().strftime("%d %b %H:%M" if days else "%H:%M:%S")

    def over(read: Callable[[LabelCounts], float]) -> Values:
        return [(item.time, read(item)) for item in counts]

    plans: list[tuple[Plan, list[tuple[str, Values]]]] = [
        (
            Plan("Answered captions", "captions that the labeler answered, or a person labelled", (), short),
            [("answered", over(lambda item: item.answered)), ("labelled", over(lambda item: item.labelled))],
        ),
        (
            Plan("Helpful share", "of the captions labelled so far", (), percent),
            [("helpful", over(lambda item: _ratio(item.helpful, item.labelled)))],
        ),
        (
            Plan("Answers without a label", "answers that could not be read, and none after every retry", (), short),
            [("unparsed", over(lambda item: item.unparsed)), ("failed", over(lambda item: item.failed))],
        ),
    ]
    return [_chart(plan, values, clock, "time") for plan, values in plans]


_TICKS: Mapping[Callable[[float], str], Callable[[float], str]] = {percent: percent_tick, seconds: seconds}


def _chart(
    plan: Plan, values: Sequence[tuple[str, Values]], x_format: Callable[[float], str], x_name: str
) -> ChartView:
    series = [Series(name, thin(points)) for name, points in values]
    newest = [(name, plan.write(points[-1][1]) if points else "-") for name, points in values]
    words = ", ".join(f"{name} {value}" for name, value in newest)
    svg = line_chart(
        series,
        title=plan.title,
        in_words=f"Newest: {words}",
        y_format=_TICKS.get(plan.write, short),
        x_format=x_format,
        x_name=x_name,
        y_range=plan.y_range,
    )
    return ChartView(plan.title, plan.meaning, newest, svg)
