"""Pictures of games as HTML: terminals as coloured text, grids as SVG. What they hold is never trusted.

The kinds are those of `llm_annotator.pictures`, checked when they were read.
"""

import base64
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import Any

from markupsafe import Markup

from llm_annotator.captions import is_printable, printable
from llm_annotator.inspector.markup import join, tag
from llm_annotator.inspector.words import visible
from llm_annotator.pictures import CellsPicture, Picture, PngPicture, TextPicture, TtyPicture

CELL = 22
"""Side of a cell of a grid, in units of the drawing."""

GRID_PIXELS, LARGEST_CELL_PIXELS = 520, 56
"""How wide a grid is shown at most, and a cell of it."""

COLOR_BITS, INVERSE_BIT = 0x0F, 0x10
"""Of a byte of a terminal's colours: one of sixteen colours; colour and ground swapped."""

_TURNS: Mapping[str, int] = {"up": 0, "right": 90, "down": 180, "left": 270}


def draw(picture: Picture) -> Markup:
    """Returns a picture as an element of HTML."""
    return _DRAW[picture["kind"]](picture)


def _tty(picture: TtyPicture) -> Markup:
    """Returns a terminal as text, one element a run of equal colour; the place of the cursor is marked."""
    width = picture["cols"]
    row, col = picture["cursor"][:2]
    lines: list[Markup] = []
    for number in range(picture["rows"]):
        chars = picture["chars"][number * width : (number + 1) * width].decode("latin-1")
        colors = picture["colors"][number * width : (number + 1) * width]
        cursor = col if number == row else None
        lines.append(join([*_spans(chars, colors, cursor), Markup("\n")]))
    return tag("pre", join(lines), class_="tty", data_cols=width)


def _spans(chars: str, colors: bytes, cursor: int | None) -> Iterator[Markup]:
    def style(place: int) -> tuple[int, bool, bool]:
        color = colors[place]
        # Nothing to see in a blank's colour: fewer runs.
        blank = chars[place] in " \0" and not color & INVERSE_BIT
        return (0 if blank else color & COLOR_BITS, bool(color & INVERSE_BIT), place == cursor)

    places = range(len(chars.rstrip(" \0"))) if cursor is None else range(len(chars))
    for (color, inverse, here), group in groupby(places, key=style):
        text = "".join(_cell_char(chars[place]) for place in group)
        classes = " ".join([f"c{color}", *(["inv"] if inverse else []), *(["cur"] if here else [])])
        yield tag("span", text, class_=classes) if text.strip() or inverse or here else Markup(" ") * len(text)


def _cell_char(char: str) -> str:
    """Returns what a place of a terminal shows: exactly one printable character."""
    if char == "\0":
        return " "
    return char if is_printable(char) else "\N{REPLACEMENT CHARACTER}"


def _cells(picture: CellsPicture) -> Markup:
    rows, cols = picture["rows"], picture["cols"]
    parts: list[Markup] = []
    for row in range(rows):
        places = [picture["cells"][number] for number in picture["grid"][row * cols : (row + 1) * cols]]
        parts += _grounds(places, row)
        parts += _texts(places, row)
    if picture["mark"] is not None:
        parts.append(_mark(*picture["mark"]))
    drawing = tag(
        "svg",
        join(parts),
        class_="cells",
        viewBox=f"0 0 {cols * CELL} {rows * CELL}",
        width=cols * min(LARGEST_CELL_PIXELS, max(1, GRID_PIXELS // cols)),
        role="img",
        aria_label=f"grid of {rows} rows and {cols} columns",
    )
    return join([drawing, _legend(picture)])


def _grounds(places: list[list[str]], row: int) -> Iterator[Markup]:
    col = 0
    for ground, group in groupby(places, key=lambda cell: cell[2]):
        width = len(list(group))
        yield tag("rect", x=col * CELL, y=row * CELL, width=width * CELL + 0.5, height=CELL + 0.5, fill=ground)
        col += width


def _texts(places: list[list[str]], row: int) -> Iterator[Markup]:
    for col, (text, front, _) in enumerate(places):
        if text.strip():
            x, y = (col + 0.5) * CELL, (row + 0.5) * CELL + CELL * 0.27
            yield tag("text", printable(text), x=x, y=y, fill=front, class_="cell")


def _mark(row: int, col: int, looks: str) -> Markup:
    """Returns who acts: a triangle that points where they look, a ring if that is not known."""
    x, y = (col + 0.5) * CELL, (row + 0.5) * CELL
    if looks not in _TURNS:
        return tag("circle", class_="mark", cx=x, cy=y, r=CELL * 0.42, fill="none")
    size = CELL * 0.36
    points = f"0,{-size} {size},{size} {-size},{size}"
    return tag("polygon", class_="mark", points=points, transform=f"translate({x} {y}) rotate({_TURNS[looks]})")


def _legend(picture: CellsPicture) -> Markup:
    used = {picture["cells"][number][0] for number in set(picture["grid"])}
    items = [
        tag("li", join([tag("code", visible(text)), Markup(" "), visible(words)]))
        for text, words in picture["legend"].items()
        if text.strip() and text in used
    ]
    parts = [tag("ul", join(items), class_="legend")] if items else []
    if note := picture.get("note"):
        parts.append(tag("p", visible(note), class_="note"))
    return join(parts)


def _png(picture: PngPicture) -> Markup:
    data = base64.b64encode(picture["png"]).decode("ascii")
    width, height = picture["width"], picture["height"]
    scale = max(1, min(8, 320 // max(width, height, 1)))
    return tag(
        "img",
        class_="pixels",
        src=f"data:image/png;base64,{data}",
        width=width * scale,
        height=height * scale,
        alt="what was seen",
    )


def _text(picture: TextPicture) -> Markup:
    return tag("pre", visible(picture["text"]), class_="seen")


_DRAW: Mapping[str, Callable[[Any], Markup]] = {"tty": _tty, "cells": _cells, "png": _png, "text": _text}
