"""Pictures of observations, for people: what training kept of a moment is drawn from them.

A picture is a map of plain values, which msgpack carries as it is: a terminal (`tty`), a grid of cells (`cells`), a PNG
(`png`) or text (`text`). What is in each kind is said where they are read, at the head of `llm_annotator/pictures.py`.

An environment that is more than numbers has a method `depict`; what the others observe is shown as it is (`depict`
here). Pictures are made in a thread beside the training, with NumPy alone: no JAX function is called.
"""

import io
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

Picture = dict[str, Any]

SHOWN_NUMBERS = 32
"""Of an array of numbers that is shown as text."""

_PICTURE_AXES = 3
_MAX_SIDE_PX = 512
"""Larger pictures are made smaller."""

_CHANNELS = (1, 3, 4)
"""Of an observation that is a picture: grey, RGB, or several grey ones in a row, the newest one last."""

GROUND, FAINT = "#15171a", "#5f656d"
"""Colour of a cell with nothing on it, and of a dot in it."""

PALETTE = {
    "red": ("r", "#ff5555"),
    "green": ("g", "#4fc85f"),
    "blue": ("b", "#5b8cff"),
    "purple": ("p", "#b06ce8"),
    "yellow": ("y", "#f0d040"),
    "grey": ("e", "#9aa0a6"),
    "black": ("k", "#50545a"),
    "orange": ("o", "#ff9f40"),
    "white": ("w", "#ffffff"),
    "brown": ("n", "#b07840"),
    "pink": ("i", "#ff9ad0"),
}
"""Colours of things in grid worlds: the letter that stands beside the thing's own, since a colour alone is no sign for
everybody, and the colour on a page."""


class Cell(NamedTuple):
    """What stands in one place of a grid: at most two characters, colours (`#rrggbb`) of them and of the ground.

    words: what the text stands for; empty if it needs no words.
    """

    text: str
    front: str
    ground: str = GROUND
    words: str = ""


@runtime_checkable
class Depicts(Protocol):
    """An environment that shows people what its observations mean; optional for a user's own."""

    def depict(self, obs: Any) -> Picture:
        """Returns a picture of one observation: NumPy arrays as `spec.obs` says, without batch axes."""
        ...


def hex_color(rgb: Any) -> str:
    """Returns a colour as CSS writes it, from three numbers up to 255."""
    red, green, blue = (int(value) for value in rgb)
    return f"#{red:02x}{green:02x}{blue:02x}"


def ink_on(ground: str) -> str:
    """Returns black or white, whichever is easier to read on a ground of this colour."""
    red, green, blue = (int(ground[start : start + 2], 16) for start in (1, 3, 5))
    return "#000000" if 299 * red + 587 * green + 114 * blue > 128_000 else "#ffffff"


def cells_picture(
    codes: Int[np.ndarray, "rows cols"],
    cell_of: Callable[[int], Cell],
    *,
    mark: tuple[int, int, str] | None = None,
    note: str = "",
) -> Picture:
    """Returns a grid.

    Args:
        codes: a number for what stands in each place, at most 256 different ones. cell_of: how each is shown.
        mark: row and column of who acts, and where they look: up, right, down, left, or "" if nowhere.
        note: what else is known, in words.
    """
    kinds, places = np.unique(codes, return_inverse=True)
    cells = [cell_of(int(kind)) for kind in kinds]
    return {
        "kind": "cells",
        "rows": codes.shape[0],
        "cols": codes.shape[1],
        "cells": [[cell.text, cell.front, cell.ground] for cell in cells],
        "grid": places.astype(np.uint8).tobytes(),
        "mark": None if mark is None else list(mark),
        "legend": {cell.text: cell.words for cell in cells if cell.words},
        "note": note,
    }


def text_picture(text: str) -> Picture:
    """Returns lines of text."""
    return {"kind": "text", "text": text}


def png_picture(pixels: UInt8[np.ndarray, "height width *channels"]) -> Picture:
    """Returns a picture of pixels, grey or RGB; a large one made smaller."""
    from PIL import Image

    shrink = -(-max(pixels.shape[:2]) // _MAX_SIDE_PX)
    image = Image.fromarray(np.ascontiguousarray(pixels[::shrink, ::shrink]))
    file = io.BytesIO()
    image.save(file, "png")
    return {"kind": "png", "png": file.getvalue(), "width": image.width, "height": image.height}


def depict(env: Any, obs: Any) -> Picture:
    """Returns a picture of one observation: what the environment makes of it, else what `plain_picture` does.

    Args:
        obs: NumPy arrays without batch axes.
    """
    own = getattr(env, "depict", None)  # also where one environment passes on what another one inside it can
    return plain_picture(obs) if own is None else own(obs)


def plain_picture(obs: Any) -> Picture:
    """Returns an observation of which nothing is known as pixels, if it has any, else its numbers as text."""
    named: Mapping[str, np.ndarray] = obs if isinstance(obs, Mapping) else {"": obs}
    for array in named.values():
        if _is_pixels(array):
            return png_picture(array[..., -1] if array.shape[-1] != 3 else array)
    return text_picture("\n".join(_line(name, array) for name, array in named.items()))


def _is_pixels(array: np.ndarray) -> bool:
    return array.dtype == np.uint8 and array.ndim == _PICTURE_AXES and array.shape[-1] in _CHANNELS


def _line(name: str, array: np.ndarray) -> str:
    flat = np.asarray(array).reshape(-1)
    shown = " ".join(f"{value:.4g}" for value in flat[:SHOWN_NUMBERS].astype(np.float64))
    more = f" ... ({flat.size} numbers)" if flat.size > SHOWN_NUMBERS else ""
    return f"{name}{': ' if name else ''}{shown}{more}"
