"""The rules and goals of XLand in plain words."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer
from xminigrid.core.constants import NUM_COLORS

from envs.minigrid.captions import COLOR_NAMES, TILE_NAMES
from envs.minigrid.rules import AGENT_NEAR, HOLD, RULE_SIZE, TILE_NEAR
from envs.minigrid.rulesets import GOAL_HOLD, GOALS_AGENT_NEAR, GOALS_TILE_NEAR

_ON_TILE, _TILE_AT, _AGENT_AT = 2, 5, 6
"""Kinds of goals that no benchmark uses, but that the library has."""

_SIDES = ("next to", "above", "to the right of", "below", "to the left of")


def name(tile: Sequence[int] | Integer[np.ndarray, "2"]) -> str:
    """Returns "red ball" for a tile and its colour."""
    return f"{COLOR_NAMES[int(tile[1])]} {TILE_NAMES[int(tile[0])]}"


def _a(thing: str) -> str:
    return f"an {thing}" if thing[0] in "aeiou" else f"a {thing}"


def _packed_name(number: int) -> str:
    return name(divmod(number, NUM_COLORS))


def fired(packed_rule: Integer[np.ndarray, "4"]) -> str:
    """Says what a rule did: kind, a, b, c, tiles packed as by `envs.minigrid.rules.pack`; "" for the empty rule."""
    kind = int(packed_rule[0])
    if kind == 0:
        return ""
    a, b, c = (_packed_name(int(number)) for number in packed_rule[1:])
    if kind == HOLD:
        return f"The {a} in your hand turns into {_a(b)}."
    if kind in AGENT_NEAR:
        return f"The {a} next to you turns into {_a(b)}."
    return f"The {a} and the {b} become {_a(c)}."


def rule(encoding: Integer[np.ndarray, "7"]) -> str:
    """Says what a rule does, "" for the empty rule."""
    kind = int(encoding[0])
    if kind == 0:
        return ""
    a, b, c = (name(encoding[start : start + 2]) for start in range(1, RULE_SIZE, 2))
    if kind == HOLD:
        return f"Picked up, {_a(a)} turns into {_a(b)}."
    if kind in AGENT_NEAR:
        side = _SIDES[AGENT_NEAR.index(kind)]
        return f"{_a(a).capitalize()} {side} you turns into {_a(b)}."
    side = TILE_NEAR.index(kind)
    return f"{_a(b).capitalize()} {_SIDES[side]} {_a(a)} makes both {_a(c)}."


def goal(encoding: Integer[np.ndarray, "5"]) -> str:
    """Returns what must be the case for a goal to be reached, for example "you hold the red ball"; "" for none."""
    kind = int(encoding[0])
    a, b = name(encoding[1:3]), ""
    if kind in GOALS_TILE_NEAR:
        b = name(encoding[3:5])
        return f"the {b} is {_SIDES[GOALS_TILE_NEAR.index(kind)]} the {a}"
    if kind in GOALS_AGENT_NEAR:
        return f"the {a} is {_SIDES[GOALS_AGENT_NEAR.index(kind)]} you"
    return {
        GOAL_HOLD: f"you hold the {a}",
        _ON_TILE: f"you stand on the {a}",
        _TILE_AT: f"the {a} is where it belongs",
        _AGENT_AT: "you are where you should be",
    }.get(kind, "")
