"""Pictures of what the player sees, for recordings: plain colours, because the library's own take a minute to load."""

import numpy as np
from jaxtyping import UInt8

CELL_PX = 16

BLOCK_COLORS = np.array(
    [
        *((0, 0, 0), (60, 60, 60), (95, 155, 60), (60, 110, 200), (130, 130, 130), (35, 95, 35), (140, 100, 60)),
        *((190, 165, 125), (45, 45, 45), (215, 155, 120), (220, 245, 250), (165, 105, 45), (90, 90, 105)),
        *((225, 210, 150), (235, 95, 20), (120, 190, 80), (200, 210, 60), (80, 75, 75), (10, 10, 10), (75, 95, 75)),
        *((110, 100, 95), (50, 90, 235), (215, 40, 70), (180, 130, 40), (90, 150, 220), (120, 70, 45)),
        *((195, 220, 230), (150, 145, 140), (165, 60, 30), (165, 205, 225), (230, 110, 60), (110, 190, 235)),
        *((120, 30, 160), (100, 100, 95), (100, 100, 95), (100, 100, 95), (220, 60, 220)),
    ],
    np.uint8,
)
"""By the library's number of the block."""

ITEM_COLORS = np.array([(0, 0, 0), (255, 210, 60), (70, 45, 20), (240, 225, 190), (70, 20, 20)], np.uint8)
"""By the library's number: nothing, torch, ladder down, ladder up, ladder down that is closed."""

_PLAYER = (255, 255, 255)
_FACE_PX = 4

_SIDES = {1: (slice(None), slice(0, _FACE_PX)), 2: (slice(None), slice(-_FACE_PX, None))}
_SIDES |= {3: (slice(0, _FACE_PX), slice(None)), 4: (slice(-_FACE_PX, None), slice(None))}
"""Part of the player's square that shows where it looks: left, right, up, down."""


def creature_color(code: int) -> tuple[int, int, int]:
    """Returns a colour of its own for each code: bright, and far from those of its neighbours."""
    turn = code * 0.618034 % 1.0 * 6.0  # golden ratio steps around the circle of hues
    red, green, blue = (int(255 * np.clip(abs((turn + shift) % 6.0 - 3.0) - 1.0, 0.0, 1.0)) for shift in (0, 4, 2))
    return red, green, blue


def picture(cells: UInt8[np.ndarray, "rows columns channels"], direction: int) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the observed map in colours: blocks fill a cell, items and creatures are squares in it.

    Args:
        cells: block, item (if there are three channels) and creature. direction: that the player faces, 1 to 4.
    """
    rows, columns = cells.shape[:2]
    drawn = BLOCK_COLORS[cells[..., 0]].repeat(CELL_PX, axis=0).repeat(CELL_PX, axis=1)

    def square(row: int, column: int, color: tuple[int, ...] | np.ndarray, margin_px: int) -> np.ndarray:
        top, left = row * CELL_PX + margin_px, column * CELL_PX + margin_px
        inner = drawn[top : top + CELL_PX - 2 * margin_px, left : left + CELL_PX - 2 * margin_px]
        inner[:] = color
        return inner

    for row, column in np.ndindex(rows, columns):
        if cells.shape[-1] > 2 and cells[row, column, 1]:
            square(row, column, ITEM_COLORS[cells[row, column, 1]], 2)
        if cells[row, column, -1]:
            square(row, column, creature_color(int(cells[row, column, -1])), 4)
    player = square(rows // 2, columns // 2, _PLAYER, 2)
    player[_SIDES.get(direction, (slice(0, 0), slice(0, 0)))] = (0, 0, 0)
    return drawn
