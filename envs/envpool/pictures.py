"""What an agent of EnvPool's MiniGrid and BabyAI sees, as a picture for people."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from envs.envpool.captions import COLORS, OBJECTS, STATES
from envs.envpool.observe import WORDS
from envs.pictures import FAINT, PALETTE, Cell, Picture, cells_picture, ink_on

_LETTERS = {"red": "r", "green": "g", "blue": "b", "purple": "p", "yellow": "y", "grey": "e"}
_LETTERS = {"key": "k", "ball": "b", "box": "x", "agent": "A"}
_DOORS = {"open": "/", "closed": "D", "locked": "L"}
_PLAIN = {
    "unseen": Cell(" ", "#000000", "#000000"),
    "empty": Cell(".", FAINT),
    "floor": Cell(".", FAINT),
    "wall": Cell("#", "#000000", "#9aa0a6", "wall"),
    "goal": Cell("G", "#000000", "#4fc85f", "goal"),
    "lava": Cell("~", "#000000", "#ff7f27", "lava"),
}
_NUM_COLORS, _NUM_STATES = len(COLORS), len(STATES) + 1
_DIRECTIONS = ("east", "south", "west", "north")


@lru_cache(maxsize=512)
def _cell(code: int) -> Cell:
    rest, state = divmod(code, _NUM_STATES)
    number, color = divmod(rest, _NUM_COLORS)
    thing = OBJECTS[number]
    if thing in _PLAIN:
        return _PLAIN[thing]
    name = COLORS[color]
    letter, front = PALETTE[name]
    if thing == "door" and state < len(STATES):
        return Cell(_DOORS[STATES[state]] + letter, ink_on(front), front, f"{STATES[state]} {name} door")
    return Cell(_LETTERS.get(thing, "?") + letter, front, words=f"{name} {thing}")


def picture(obs: Mapping[str, np.ndarray]) -> Picture:
    """Returns what the agent sees, its mission and where it looks.

    It stands at the bottom centre and looks up; what stands in its own place is what it carries.
    """
    image = obs["image"].astype(np.int32).transpose(1, 0, 2)  # by row and column
    codes = (image[..., 0] * _NUM_COLORS + image[..., 1]) * _NUM_STATES + image[..., 2]
    rows, cols = codes.shape
    held = _cell(int(codes[rows - 1, cols // 2]))
    carries = f"; you carry the {held.words}" if held.words else ""
    facing = _DIRECTIONS[int(obs["direction"][0]) % len(_DIRECTIONS)]
    note = f"Mission: {mission(obs['mission'])}. You look {facing}{carries}."
    return cells_picture(codes, _cell, mark=(rows - 1, cols // 2, "up"), note=note)


def mission(places: np.ndarray) -> str:
    """Returns the words of a mission as they are observed; a word that is not known is "..."."""
    words = ["..." if place == 1 else WORDS[place - 2] for place in places.reshape(-1).tolist() if place]
    return " ".join(words).replace(" ,", ",")
