"""NetHack's screen as a picture for people: the terminal in colour."""

from collections.abc import Mapping

import numpy as np

from envs.host.types import Arrays
from envs.pictures import Picture
from envs.spec import ObsSpec

ROWS, COLUMNS = 24, 80

SCENE: Mapping[str, ObsSpec] = {
    "tty_chars": ObsSpec((ROWS, COLUMNS), np.dtype(np.uint8)),
    "tty_cursor": ObsSpec((2,), np.dtype(np.uint8)),
}
"""What NLE keeps for a person alone."""

SHOWN = ("chars", "colors", *SCENE)

_TEXT_COLOR = 7
_MAP_ROWS = slice(1, 22)
"""Lines of the screen that the map has: above it stand messages, below it the status."""


def picture(shown: Arrays) -> Picture:
    """Returns the terminal. Its colours are those of the map where the map is what it shows; all else is grey.

    NLE would also keep the colours of the terminal itself, at 2% of the speed of the games. Those differ on 2% of
    screens, by the headings of menus and the mark of a monster remembered but not seen.
    """
    chars = shown["tty_chars"]
    columns = shown["chars"].shape[1]
    colors = np.full((ROWS, COLUMNS), _TEXT_COLOR, np.uint8)
    on_map = (chars[_MAP_ROWS, :columns] == shown["chars"]) & (shown["chars"] != ord(" "))
    colors[_MAP_ROWS, :columns][on_map] = shown["colors"][on_map]
    row, column = shown["tty_cursor"].tolist()
    return {
        "kind": "tty",
        "rows": ROWS,
        "cols": COLUMNS,
        "chars": chars.tobytes(),
        "colors": colors.tobytes(),
        "cursor": [min(row, ROWS - 1), min(column, COLUMNS - 1)],
    }
