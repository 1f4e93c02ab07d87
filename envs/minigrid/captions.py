"""What happened in a MiniGrid step: a small code computed in jit, and its caption.

An event is `uint8[3]`: kind, tile, colour; all zeros if nothing worth saying happened. It is computed from the states
before and after the step, so it cannot miss or invent what the step did.
"""

from enum import IntEnum

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, UInt8
from xminigrid.core.constants import Tiles
from xminigrid.types import State

EVENT_SIZE = 3

TILE_NAMES = (
    "nothing floor wall ball square pyramid goal key locked-door closed-door open-door hex star".split()  # noqa: SIM905
)
COLOR_NAMES = "- red green blue purple yellow grey black orange white brown pink".split()  # noqa: SIM905


class Kind(IntEnum):
    """What an action did. Later ones win where several would fit."""

    NOTHING = 0
    PUT_DOWN = 1
    CLOSE = 2
    OPEN = 3
    UNLOCK = 4
    PICK_UP = 5
    REACH_GOAL = 6
    PICK_UP_WANTED = 7


TEMPLATES = {
    Kind.PUT_DOWN: "You put down the {thing}.",
    Kind.CLOSE: "You close the {color} door.",
    Kind.OPEN: "You open the {color} door.",
    Kind.UNLOCK: "You unlock the {color} door.",
    Kind.PICK_UP: "You pick up the {thing}.",
    Kind.REACH_GOAL: "You reach the goal.",
    Kind.PICK_UP_WANTED: "You pick up the {thing}, which is what you were looking for.",
}


def event(
    before: State,  # pyright: ignore[reportMissingTypeArgument]
    after: State,  # pyright: ignore[reportMissingTypeArgument]
    front: Array,
    success: Bool[Array, ""],
) -> UInt8[Array, "3"]:
    """Returns the event of one step.

    Args:
        front: row and column of the cell that the agent faced before the step.
        success: whether the step ended the episode with what was wanted.
    """
    tile_before, tile_after = before.grid[front[0], front[1]], after.grid[front[0], front[1]]
    kind_before, kind_after = tile_before[0], tile_after[0]
    held_before, held_after = before.agent.pocket, after.agent.pocket
    took = (held_before[0] == Tiles.EMPTY) & (held_after[0] != Tiles.EMPTY)
    dropped = (held_before[0] != Tiles.EMPTY) & (held_after[0] == Tiles.EMPTY)

    kind = jnp.uint8(Kind.NOTHING)
    thing = tile_after
    for condition, value, subject in (
        (dropped, Kind.PUT_DOWN, held_before),
        ((kind_before == Tiles.DOOR_OPEN) & (kind_after == Tiles.DOOR_CLOSED), Kind.CLOSE, tile_after),
        ((kind_before == Tiles.DOOR_CLOSED) & (kind_after == Tiles.DOOR_OPEN), Kind.OPEN, tile_after),
        ((kind_before == Tiles.DOOR_LOCKED) & (kind_after == Tiles.DOOR_OPEN), Kind.UNLOCK, tile_after),
        (took, Kind.PICK_UP, held_after),
        (success & ~took, Kind.REACH_GOAL, jnp.zeros_like(tile_after)),
        (success & took, Kind.PICK_UP_WANTED, held_after),
    ):
        kind = jnp.where(condition, jnp.uint8(value), kind)
        thing = jnp.where(condition, subject, thing)
    return jnp.where(kind == Kind.NOTHING, jnp.uint8(0), jnp.concatenate([kind[None], thing]))


def describe(code: np.ndarray) -> str:
    """Returns the caption of an event `uint8[3]`, "" for none."""
    kind = Kind(int(code[0]))
    if kind == Kind.NOTHING:
        return ""
    color = COLOR_NAMES[int(code[2])]
    return TEMPLATES[kind].format(color=color, thing=f"{color} {TILE_NAMES[int(code[1])]}")
