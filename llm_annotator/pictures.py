"""Pictures of games for people: what they are made of, how they are checked, and what they say as plain text.

A picture is a map of plain values, one of four kinds, so that msgpack carries it and any page can draw it:

tty     a terminal. chars: one byte a place, row by row, in latin-1. colors: as many bytes, NLE's curses colours: the
        low three bits are the colour (black, red, green, yellow, blue, magenta, cyan, white), bit 3 makes it bright,
        bit 4 swaps it with the background. cursor: row and column.
cells   a grid. cells: the different cells that there are, each a text of one or two characters, the colour of the
        text and that of the ground, as CSS writes them (`#rrggbb`). grid: one byte a place, row by row, the place of
        its cell in `cells`. mark: row and column of who acts and where they look, None if nowhere. legend: what the
        texts stand for, in words. note: what else is known, in words; may be missing.
png     a picture of so many pixels, with the bytes of a PNG file.
text    lines of text.

Whoever draws them must not trust them: texts, colours and PNG bytes come from a game, or from another machine.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict, cast

MAX_SIDE = 512
"""Rows or columns of a picture of cells or of a terminal, at most."""

MAX_PIXELS = 4096
"""Width or height of a PNG, at most."""

_COLOR = re.compile(r"#[0-9a-f]{6}", re.IGNORECASE)
_PNG = b"\x89PNG\r\n\x1a\n"
_ARROWS = {"up": "^", "right": ">", "down": "v", "left": "<", "": "@"}

Looks = Literal["up", "right", "down", "left", ""]


class TtyPicture(TypedDict):
    """A terminal; see the head of this module."""

    kind: Literal["tty"]
    rows: int
    cols: int
    chars: bytes
    colors: bytes
    cursor: list[int]


class CellsPicture(TypedDict):
    """A grid of cells; see the head of this module."""

    kind: Literal["cells"]
    rows: int
    cols: int
    cells: list[list[str]]
    grid: bytes
    mark: list[Any] | None
    legend: dict[str, str]
    note: NotRequired[str]


class PngPicture(TypedDict):
    """A picture of pixels."""

    kind: Literal["png"]
    png: bytes
    width: int
    height: int


class TextPicture(TypedDict):
    """Lines of text."""

    kind: Literal["text"]
    text: str


Picture = TtyPicture | CellsPicture | PngPicture | TextPicture


def check_picture(value: object) -> Picture:
    """Returns a picture that came from elsewhere, if it is one.

    Raises:
        ValueError: it is none; says what is wrong with it.
    """
    if not isinstance(value, dict):
        raise ValueError(f"a picture is a {type(value).__name__}, not a map")
    picture = cast("dict[str, Any]", value)
    check = _CHECKS.get(picture.get("kind", ""))
    if check is None:
        raise ValueError(f"a picture is of kind {picture.get('kind')!r}, which this version does not know")
    check(picture)
    return cast("Picture", picture)


def picture_text(picture: Picture) -> str:
    """Returns a picture as lines of plain text without control characters, for terminals and tests."""
    return _TEXTS[picture["kind"]](picture)


def _require(condition: object, what: str) -> None:
    if not condition:
        raise ValueError(f"a picture has {what}")


def _is_int(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _check_sides(picture: Mapping[str, Any]) -> int:
    rows, cols = picture.get("rows"), picture.get("cols")
    _require(_is_int(rows, 1, MAX_SIDE) and _is_int(cols, 1, MAX_SIDE), f"{rows!r} rows and {cols!r} columns")
    return cast("int", rows) * cast("int", cols)


def _check_bytes(picture: Mapping[str, Any], name: str, size: int) -> bytes:
    value = picture.get(name)
    _require(isinstance(value, bytes) and len(value) == size, f"{name} that are not {size} bytes")
    return cast("bytes", value)


def _check_place(value: object, picture: Mapping[str, Any], what: str) -> None:
    place = cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else ()
    inside = len(place) >= 2 and _is_int(place[0], 0, picture["rows"] - 1) and _is_int(place[1], 0, picture["cols"] - 1)
    _require(inside, f"a {what} at {value!r}")


def _check_tty(picture: Mapping[str, Any]) -> None:
    size = _check_sides(picture)
    _check_bytes(picture, "chars", size)
    _check_bytes(picture, "colors", size)
    _check_place(picture.get("cursor"), picture, "cursor")


def _check_cells(picture: Mapping[str, Any]) -> None:
    grid = _check_bytes(picture, "grid", _check_sides(picture))
    value: object = picture.get("cells")
    cells = cast("list[object]", value) if isinstance(value, list) else []
    _require(all(_is_cell(cell) for cell in cells), "a cell that is not a short text and two colours")
    _require(max(grid) < len(cells), "a place whose cell is not listed")
    mark: Any = picture.get("mark")
    if mark is not None:
        _check_place(mark, picture, "mark")
        _require(len(mark) == 3 and mark[2] in _ARROWS, f"a mark {mark!r}")
    legend: object = picture.get("legend")
    pairs = cast("dict[object, object]", legend).items() if isinstance(legend, dict) else [(0, 0)]
    _require(all(isinstance(part, str) for pair in pairs for part in pair), "a legend that is not texts by text")
    _require(isinstance(picture.get("note", ""), str), "a note that is not a text")


def _is_cell(value: object) -> bool:
    cell = cast("list[object]", value) if isinstance(value, (list, tuple)) else []
    if len(cell) != 3 or not all(isinstance(part, str) for part in cell):
        return False
    text, front, ground = cast("list[str]", cell)
    return len(text) <= 2 and all(_COLOR.fullmatch(color) is not None for color in (front, ground))


def _check_png(picture: Mapping[str, Any]) -> None:
    png: object = picture.get("png")
    _require(isinstance(png, bytes) and png.startswith(_PNG), "bytes that are no PNG")
    for name in ("width", "height"):
        _require(_is_int(picture.get(name), 1, MAX_PIXELS), f"a {name} of {picture.get(name)!r} pixels")


def _check_text(picture: Mapping[str, Any]) -> None:
    _require(isinstance(picture.get("text"), str), "no text")


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "." for char in text)


def _tty_text(picture: TtyPicture) -> str:
    width = picture["cols"]
    screen = _printable(picture["chars"].replace(b"\0", b" ").decode("latin-1"))
    lines = (screen[start : start + width].rstrip() for start in range(0, picture["rows"] * width, width))
    return "\n".join(lines).rstrip("\n")


def _cells_text(picture: CellsPicture) -> str:
    texts = [_printable(cell[0]) for cell in picture["cells"]]
    width = max(map(len, texts))
    places = [texts[number] for number in picture["grid"]]
    if picture["mark"] is not None:
        row, col, looks = picture["mark"]
        places[row * picture["cols"] + col] = _ARROWS[looks]
    padded = [place.ljust(width) for place in places]
    cols = picture["cols"]
    lines = [" ".join(padded[start : start + cols]).rstrip() for start in range(0, len(padded), cols)]
    shown = {text: words for text, words in picture["legend"].items() if text.strip()}
    if shown:
        lines.append(", ".join(f"{_printable(text)} {_printable(words)}" for text, words in shown.items()))
    if note := picture.get("note"):
        lines.append(_printable(note))
    return "\n".join(lines)


def _png_text(picture: PngPicture) -> str:
    return f"[a picture of {picture['width']} x {picture['height']} pixels]"


def _text_text(picture: TextPicture) -> str:
    return "\n".join(_printable(line) for line in picture["text"].split("\n"))


_CHECKS: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
    "tty": _check_tty,
    "cells": _check_cells,
    "png": _check_png,
    "text": _check_text,
}
_TEXTS: Mapping[str, Callable[[Any], str]] = {
    "tty": _tty_text,
    "cells": _cells_text,
    "png": _png_text,
    "text": _text_text,
}
