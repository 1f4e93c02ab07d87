"""The production rules of XLand (arXiv 2312.12044, section 3), applied to the few cells that an action can reach.

A rule is `uint8[7]`: kind, tile a, tile b, tile c, each tile with its colour. Kinds are numbered as in the library, and
what they do is the library's, which is tested. Unlike its `check_rule`, which works on the whole grid and evaluates
twelve functions a rule, this looks at the four cells around the agent and the four around the cell in front of it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Shaped, UInt8
from xminigrid.core.constants import DIRECTIONS, NUM_COLORS, Colors, Tiles
from xminigrid.types import AgentState

RULE_SIZE = 7
HOLD = 1
"""Picked up, a becomes b."""

AGENT_NEAR = (2, 8, 9, 10, 11)
"""Next to the agent, a becomes b: on any side, above, right, below, left."""

TILE_NEAR = (3, 4, 5, 6, 7)
"""Put down next to each other, a and b become c: on any side, or with b above, right of, below, left of a."""

NUM_KINDS = 12
_FORWARD, _PICK_UP, _PUT_DOWN = 0, 3, 4
_FLOOR = Tiles.FLOOR * NUM_COLORS + Colors.BLACK
_UP, _RIGHT, _DOWN, _LEFT = range(4)


def _sides(kinds: tuple[int, ...], *, opposite: bool = False) -> Bool[np.ndarray, "K 4"]:
    """Returns on which sides (up, right, down, left) each kind of rule looks: all for the first of `kinds`."""
    table = np.zeros((NUM_KINDS, 4), bool)
    table[kinds[0]] = True
    for side, kind in enumerate(kinds[1:]):
        table[kind, (side + 2) % 4 if opposite else side] = True
    return table


_AGENT_SIDES = _sides(AGENT_NEAR)
_B_BESIDE_A = _sides(TILE_NEAR)
_A_BESIDE_B = _sides(TILE_NEAR, opposite=True)
_ON_FORWARD = np.isin(np.arange(NUM_KINDS), AGENT_NEAR)
_ON_PUT_DOWN = np.isin(np.arange(NUM_KINDS), AGENT_NEAR[1:])  # of the library: the kinds with a side, not the first


def pack(tile: Shaped[Array, "*n 2"]) -> Int[Array, "*n"]:
    """Returns tile and colour as one number below 156."""
    return tile[..., 0].astype(jnp.int32) * NUM_COLORS + tile[..., 1]


def unpack(number: Int[Array, "*n"]) -> UInt8[Array, "*n 2"]:
    """Returns tile and colour of a number made by `pack`."""
    return jnp.stack([number // NUM_COLORS, number % NUM_COLORS], axis=-1).astype(jnp.uint8)


def pack_rules(rules: UInt8[Array, "R 7"]) -> Int[Array, "R 4"]:
    """Returns kind, a, b and c of each rule, tiles packed."""
    tiles = pack(rules[:, 1:].reshape(-1, 3, 2))
    return jnp.concatenate([rules[:, :1].astype(jnp.int32), tiles], axis=1)


def apply_rules(
    packed_rules: Int[Array, "R 4"], grid: UInt8[Array, "h w 2"], agent: AgentState, action: Array
) -> tuple[UInt8[Array, "h w 2"], AgentState, Bool[Array, " R"]]:
    """Applies the rules one after the other to the world that an action led to: new grid, agent, which rules fired.

    The agent must stand inside an outer wall, as it does in every world of the library.
    """
    direction = agent.direction
    sides = agent.position + DIRECTIONS
    # The cells around the agent and those around the one in front of it are eight different cells.
    cells = jnp.concatenate([sides, sides[direction] + DIRECTIONS])
    cells = jnp.clip(cells, 0, jnp.asarray(grid.shape[:2]) - 1)  # past the outer wall: nothing there can match
    near = pack(grid[cells[:, 0], cells[:, 1]])
    forward, pick_up, put_down = action == _FORWARD, action == _PICK_UP, action == _PUT_DOWN
    in_front = jnp.arange(4) == direction

    def apply(
        carry: tuple[Array, Array, Array], rule: Int[Array, "4"]
    ) -> tuple[tuple[Array, Array, Array], Bool[Array, ""]]:
        beside_agent, beside_front, pocket = carry
        kind, a, b, c = rule
        held = (kind == HOLD) & pick_up & (pocket == a)
        acted = (forward & jnp.asarray(_ON_FORWARD)[kind]) | (put_down & jnp.asarray(_ON_PUT_DOWN)[kind])
        touched = acted & jnp.asarray(_AGENT_SIDES)[kind] & (beside_agent == a)
        front = beside_agent[direction]
        joined = put_down & (
            (jnp.asarray(_B_BESIDE_A)[kind] & (front == a) & (beside_front == b))
            | (jnp.asarray(_A_BESIDE_B)[kind] & (front == b) & (beside_front == a))
        )
        beside_agent = jnp.where(touched, b, jnp.where(in_front & joined.any(), _FLOOR, beside_agent))
        carry = beside_agent, jnp.where(joined, c, beside_front), jnp.where(held, b, pocket)
        return carry, held | touched.any() | joined.any()

    start = near[:4], near[4:], pack(agent.pocket)
    (beside_agent, beside_front, pocket), fired = jax.lax.scan(apply, start, packed_rules)
    grid = grid.at[cells[:, 0], cells[:, 1]].set(unpack(jnp.concatenate([beside_agent, beside_front])))
    return grid, agent.replace(pocket=unpack(pocket)), fired
