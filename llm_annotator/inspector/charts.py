"""Curves drawn on the server, as SVG without style or script of its own.

Series differ in dash as well as in colour, and say their names; a chart says its newest values in words to those who
do not see it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

from llm_annotator.inspector.markup import join, tag
from llm_annotator.inspector.words import short

WIDTH, HEIGHT = 340, 150
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 8, 20
"""Room around the curves, in units of the drawing."""

HITS = 40
"""Places along a chart that tell their values when pointed at."""

TICKS = 3

FLAT = 1e-9
"""Part of the values' size below which they do not differ: no figure of a run has more digits that tell anything."""


class Point(NamedTuple):
    """One point of a curve; low and high bound what was put together in it."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """One curve. Points are in the order of x."""

    name: str
    points: Sequence[Point]


def thin(values: Sequence[tuple[float, float]], limit: int = 160) -> list[Point]:
    """Returns at most `limit` points: means of neighbours, with the lowest and the highest of each.

    values: (x, y) in the order of x; what is not finite is left out.
    """
    finite = [(x, y) for x, y in values if math.isfinite(x) and math.isfinite(y)]
    size = max(1, math.ceil(len(finite) / limit))
    points: list[Point] = []
    for start in range(0, len(finite), size):
        group = finite[start : start + size]
        heights = [y for _, y in group]
        points.append(Point(group[-1][0], math.fsum(heights) / len(group), min(heights), max(heights)))
    return points


def ticks(low: float, high: float, number: int = TICKS) -> list[float]:
    """Returns round numbers that span from low to high, about `number` steps apart: 1, 2 or 5 times a power of ten."""
    if high - low <= FLAT * max(abs(low), abs(high), FLAT):
        high = low + (abs(low) if abs(low) > FLAT else 1.0)
    rough = (high - low) / number
    exponent = math.floor(math.log10(rough))
    power = 10.0**exponent
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(k * step, 1 - exponent) for k in range(first, last + 1)]


@dataclass(frozen=True)
class _Axes:
    """From values to places in the drawing."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        span = (self.x_high - self.x_low) or 1.0
        return round(LEFT + (value - self.x_low) / span * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        span = (self.y_high - self.y_low) or 1.0
        return round(HEIGHT - BOTTOM - (value - self.y_low) / span * (HEIGHT - TOP - BOTTOM), 1)


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    in_words: str,
    y_format: Callable[[float], str] = short,
    x_format: Callable[[float], str] = short,
    x_name: str = "step",
    y_range: tuple[float, float] | None = None,
) -> Markup:
    """Returns a chart as an SVG element.

    in_words: what the chart says, for those who do not see it. y_range: by default what the values span, 0 included.
    Without two points altogether there is nothing to draw: the SVG then says so.
    """
    drawn = [curve for curve in series if curve.points]
    points = [point for curve in drawn for point in curve.points]
    if points:
        low, high = y_range or (min(0.0, *(p.low for p in points)), max(0.0, *(p.high for p in points)))
        marks = ticks(low, high)
        axes = _Axes(min(p.x for p in points), max(p.x for p in points), marks[0], marks[-1])
        parts = [*_grid(axes, marks, y_format), *_x_axis(axes, x_format, x_name)]
        for number, curve in enumerate(drawn):
            parts += _curve(axes, curve, number)
        parts += _hits(axes, drawn, lambda x: f"{x_name} {x_format(x)}", y_format)
    else:
        parts = [tag("text", "no figures yet", class_="none", x=WIDTH // 2, y=HEIGHT // 2)]
    return tag(
        "svg",
        join(parts),
        class_="chart",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{title}. {in_words}",
    )


def _grid(axes: _Axes, marks: Sequence[float], y_format: Callable[[float], str]) -> list[Markup]:
    parts: list[Markup] = []
    for mark in marks:
        y = axes.y(mark)
        parts.append(tag("line", class_="grid", x1=LEFT, y1=y, x2=WIDTH - RIGHT, y2=y))
        parts.append(tag("text", y_format(mark), class_="tick y", x=LEFT - 5, y=y + 3.5))
    return parts


def _x_axis(axes: _Axes, x_format: Callable[[float], str], x_name: str) -> list[Markup]:
    y = HEIGHT - 5
    if axes.x_high <= axes.x_low:
        return [tag("text", f"{x_name} {x_format(axes.x_low)}", class_="tick start", x=LEFT, y=y)]
    return [
        tag("text", x_format(axes.x_low), class_="tick start", x=LEFT, y=y),
        tag("text", f"{x_name} {x_format(axes.x_high)}", class_="tick end", x=WIDTH - RIGHT, y=y),
    ]


def _curve(axes: _Axes, curve: Series, number: int) -> list[Markup]:
    places = [(axes.x(p.x), axes.y(p.y)) for p in curve.points]
    parts: list[Markup] = []
    if any(p.high > p.low for p in curve.points):
        upper = [f"{axes.x(p.x)},{axes.y(p.high)}" for p in curve.points]
        lower = [f"{axes.x(p.x)},{axes.y(p.low)}" for p in reversed(curve.points)]
        parts.append(tag("polygon", class_=f"band s{number}", points=" ".join(upper + lower)))
    line = " ".join(f"{x},{y}" for x, y in places)
    parts.append(tag("polyline", class_=f"line s{number}", points=line))
    x, y = places[-1]
    parts.append(tag("circle", class_=f"dot s{number}", cx=x, cy=y, r=2.5))
    return parts


def _hits(
    axes: _Axes, drawn: Sequence[Series], x_words: Callable[[float], str], y_format: Callable[[float], str]
) -> list[Markup]:
    """Returns rectangles over the chart, which a browser explains when they are pointed at."""
    xs = sorted({p.x for curve in drawn for p in curve.points})
    chosen = xs[:: max(1, math.ceil(len(xs) / HITS))]
    edges = [float(LEFT), *((axes.x(a) + axes.x(b)) / 2 for a, b in pairwise(chosen)), float(WIDTH - RIGHT)]
    parts: list[Markup] = []
    for place, x in enumerate(chosen):
        values = ", ".join(f"{curve.name} {y_format(_at(curve.points, x))}" for curve in drawn)
        left, width = round(edges[place], 1), round(edges[place + 1] - edges[place], 1)
        title = tag("title", f"{x_words(x)}: {values}")
        parts.append(tag("rect", title, class_="hit", x=left, y=TOP, width=width, height=HEIGHT - TOP - BOTTOM))
    return parts


def _at(points: Sequence[Point], x: float) -> float:
    return min(points, key=lambda point: abs(point.x - x)).y
