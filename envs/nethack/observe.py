"""From what NLE wrote to what a policy is given, for N games at once."""

from collections.abc import Callable

import numpy as np

from envs.host.types import Arrays
from envs.spec import ObsSpec

ROWS, COLUMNS = 21, 79
NUM_CHARS, NUM_COLORS, MESSAGE_BYTES = 256, 16, 256
CONDITIONS = (
    "stoned",
    "slimed",
    "strangled",
    "food_poisoned",
    "terminally_ill",
    "blind",
    "deaf",
    "stunned",
    "confused",
    "hallucinating",
    "levitating",
    "flying",
    "riding",
)  # fmt: skip - bits of blstats[25], lowest first

_X, _Y, _HP, _MAX_HP, _POWER, _MAX_POWER, _CONDITION = 0, 1, 10, 11, 14, 15, 25

# Figures used as they are: place in blstats, and what is taken off and divided by to come near [-1, 1].
_LINEAR = (
    ("strength", 2, 12.5, 12.5), ("strength_percentile", 3, 62.5, 62.5), ("dexterity", 4, 12.5, 12.5),
    ("constitution", 5, 12.5, 12.5), ("intelligence", 6, 12.5, 12.5), ("wisdom", 7, 12.5, 12.5),
    ("charisma", 8, 12.5, 12.5), ("x", 0, 39, 39), ("y", 1, 10, 10), ("armor_class", 16, 0, 10),
    ("monster_level", 17, 0, 30), ("experience_level", 18, 0, 30), ("hunger", 21, 3, 3), ("encumbrance", 22, 0, 5),
    ("dungeon", 23, 0, 8), ("alignment", 26, 0, 1),
)  # fmt: skip
# Figures whose logarithm is used, log(1 + value) / divisor: those that grow without bound.
_LOGARITHMIC = (
    ("log_hit_points", 10, 5), ("log_power", 14, 5), ("log_depth", 12, 4), ("log_level", 24, 4), ("log_gold", 13, 10),
    ("log_score", 9, 10), ("log_experience", 19, 10), ("log_turns", 20, 10),
)  # fmt: skip
_FRACTIONS = ("hit_points", "power")
_PROMPTS = ("asked_for_key", "asked_for_line", "window_open")

# What each number of `status` is.
STATUS: tuple[str, ...] = (
    *(name for name, *_ in _LINEAR),
    *(name for name, *_ in _LOGARITHMIC),
    *_FRACTIONS,
    *CONDITIONS,
    *_PROMPTS,
)

_CONDITION_BITS = 1 << np.arange(len(CONDITIONS))
_LOG_START = len(_LINEAR)
_FRACTION_START = _LOG_START + len(_LOGARITHMIC)
_CONDITION_START = _FRACTION_START + len(_FRACTIONS)
_PROMPT_START = _CONDITION_START + len(CONDITIONS)

_PLACES = np.array([place for _, place, *_ in (*_LINEAR, *_LOGARITHMIC)] + [_HP, _POWER, _MAX_HP, _MAX_POWER])
_OFFSET = np.array([offset for _, _, offset, _ in _LINEAR], np.float32)
_SCALE = np.array([1 / divisor for *_, divisor in (*_LINEAR, *_LOGARITHMIC)], np.float32)


def obs_spec(*, full: bool, crop: int) -> dict[str, ObsSpec]:
    """Describes the arrays of one observation. Squares of the map have two categories, character and colour."""
    byte, square = np.dtype(np.uint8), (NUM_CHARS, NUM_COLORS)
    spec = {
        "crop": ObsSpec((crop, crop, 2), byte, square),
        "status": ObsSpec((len(STATUS),), np.dtype(np.float32)),
    }
    if full:
        spec["map"] = ObsSpec((ROWS, COLUMNS, 2), byte, square)
        spec["message"] = ObsSpec((MESSAGE_BYTES, 1), byte, (256,))
    return spec


def write_status(blstats: np.ndarray, misc: np.ndarray, status: np.ndarray) -> None:
    """Scales the status line to about [-1, 1], into float32[N, len(STATUS)], columns as named in `STATUS`.

    The figures are whole numbers below 2^24, but for those that grow without bound: float32 holds them exactly.
    """
    figures = blstats.take(_PLACES, 1, mode="clip").astype(np.float32)
    scaled, logs = status[:, :_FRACTION_START], status[:, _LOG_START:_FRACTION_START]
    np.subtract(figures[:, :_LOG_START], _OFFSET, out=status[:, :_LOG_START])
    np.maximum(figures[:, _LOG_START:_FRACTION_START], 0, out=logs)
    np.log1p(logs, out=logs)
    np.multiply(scaled, _SCALE, out=scaled)
    most = np.maximum(figures[:, _CONDITION_START:], 1)
    np.divide(figures[:, _FRACTION_START:_CONDITION_START], most, out=status[:, _FRACTION_START:_CONDITION_START])
    status[:, _CONDITION_START:_PROMPT_START] = (blstats[:, _CONDITION, None] & _CONDITION_BITS) != 0
    status[:, _PROMPT_START:] = misc


def crop_writer(size: int) -> Callable[[Arrays, np.ndarray], None]:
    """Makes a function that cuts `size` x `size` squares around the hero out of the map, into uint8[N, size, size, 2].

    Beyond the edge of the map both are 0, which no square on it is: what was not seen is a space.
    """
    reach = np.arange(-(size // 2), size // 2 + 1)
    places = (reach[:, None] * COLUMNS + reach).reshape(-1)  # of the squares, from the hero's
    row = np.arange(ROWS)[:, None, None, None] + reach[:, None]
    column = np.arange(COLUMNS)[None, :, None, None] + reach
    inside = (row >= 0) & (row < ROWS) & (column >= 0) & (column < COLUMNS)
    on_map = inside.reshape(ROWS * COLUMNS, size * size).astype(np.uint8)

    def write(raw: Arrays, crop: np.ndarray) -> None:
        chars, blstats = raw["chars"], raw["blstats"]
        games = len(chars)
        hero = blstats[:, _Y] * COLUMNS + blstats[:, _X]
        # While a level is built the hero may be nowhere: that shows the nearest corner, never another game.
        np.maximum(np.minimum(hero, ROWS * COLUMNS - 1, out=hero), 0, out=hero)
        mask = on_map.take(hero, 0, mode="clip")
        hero += np.arange(0, games * ROWS * COLUMNS, ROWS * COLUMNS)
        where = hero[:, None] + places  # beyond the edge this is some other square, which the mask wipes out
        squares = crop.reshape(games, size * size, 2)
        np.multiply(chars.reshape(-1).take(where, mode="clip"), mask, out=squares[..., 0])
        np.multiply(raw["colors"].reshape(-1).take(where, mode="clip"), mask, out=squares[..., 1])

    return write


def make_observer(*, full: bool, crop: int) -> Callable[[Arrays, Arrays], None]:
    """Makes a function that fills, from raw arrays, the arrays that `obs_spec` describes."""
    write_crop = crop_writer(crop)

    def observe(raw: Arrays, obs: Arrays) -> None:
        write_crop(raw, obs["crop"])
        write_status(raw["blstats"], raw["misc"], obs["status"])
        if full:
            obs["map"][..., 0] = raw["chars"]
            obs["map"][..., 1] = raw["colors"]
            obs["message"][..., 0] = raw["message"]

    return observe
