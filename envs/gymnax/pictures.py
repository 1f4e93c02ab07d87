"""What an agent of gymnax sees, as a picture for people: planes of cells as a grid, all else as numbers."""

from collections.abc import Mapping

import numpy as np

from envs.gymnax.drawing import PLANE_COLORS
from envs.pictures import FAINT, Cell, Picture, cells_picture, hex_color, ink_on, plain_picture

_FREEWAY = ("chicken", "car", *(f"trail of a car of speed {speed}" for speed in range(1, 6)))
_SEAQUEST = ("front of your submarine", "back of your submarine", "bullet of yours", "trail of a swimmer")
PLANES: Mapping[str, tuple[str, ...]] = {
    "Asterix-MinAtar": ("you", "enemy", "trail", "gold"),
    "Breakout-MinAtar": ("paddle", "ball", "trail of the ball", "brick"),
    "Freeway-MinAtar": _FREEWAY,
    "Seaquest-MinAtar": (*_SEAQUEST, "enemy bullet", "fish", "enemy submarine", "oxygen", "divers aboard", "diver"),
    "SpaceInvaders-MinAtar": (
        "cannon",
        "alien",
        "aliens go left",
        "aliens go right",
        "bullet of yours",
        "alien bullet",
    ),
}
"""What each plane of an observation shows, in the order of gymnax 1.0.1."""


def picture(name: str, obs: np.ndarray) -> Picture:
    """Returns what is seen in the game of this name; of several things in one place the one of the lowest plane."""
    if obs.ndim < 2:
        return plain_picture(obs)
    planes = obs.reshape(*obs.shape[:2], -1) > 0
    codes = np.where(planes.any(-1), planes.argmax(-1) + 1, 0)
    words = PLANES.get(name, ())
    return cells_picture(codes, lambda code: _cell(code, words))


def _cell(code: int, words: tuple[str, ...]) -> Cell:
    if code == 0:
        return Cell(".", FAINT)
    ground = hex_color(PLANE_COLORS[code % len(PLANE_COLORS)])
    return Cell(str(code), ink_on(ground), ground, words[code - 1] if code <= len(words) else f"plane {code}")
