"""What an agent of XLand-MiniGrid sees, as a picture for people: what the cells are and which colour they have."""

from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from xminigrid.core.constants import NUM_COLORS, Tiles

from envs.minigrid.captions import COLOR_NAMES, TILE_NAMES
from envs.pictures import FAINT, PALETTE, Cell, Picture, cells_picture, ink_on

_LETTERS = dict(zip(TILE_NAMES, " .#bspGkLD/h*", strict=True))
_WALL = "#6b7078"
_OUTSIDE = "#000000"


@lru_cache(maxsize=256)
def _cell(code: int) -> Cell:
    tile, color = divmod(code, NUM_COLORS)
    if tile == Tiles.WALL:
        return Cell("#", ink_on(_WALL), _WALL, "wall")
    if tile == Tiles.FLOOR:
        return Cell(".", FAINT)
    if tile == Tiles.EMPTY:
        return Cell(" ", _OUTSIDE, _OUTSIDE)
    name = COLOR_NAMES[color]
    letter, front = PALETTE.get(name, ("", "#ffffff"))
    text = _LETTERS[TILE_NAMES[tile]] + letter
    words = f"{name} {TILE_NAMES[tile].replace('-', ' ')}"
    return Cell(text, ink_on(front), front, words) if "door" in words else Cell(text, front, words=words)


def picture(obs: UInt8[np.ndarray, "view view 2"]) -> Picture:
    """Returns what the agent sees: it stands at the bottom centre and looks up."""
    view = obs.shape[0]
    codes = obs[..., 0].astype(np.int32) * NUM_COLORS + obs[..., 1]
    return cells_picture(codes, _cell, mark=(view - 1, view // 2, "up"))
