"""Pictures of games that are grids of cells."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Integer, UInt8

CELL_SIDE_PX = 16
"""About the size of what other grid worlds draw."""

_FREE, _WALL, _GOAL, _HOLE, _AGENT = range(5)
_MAZE_COLORS = np.array([[235, 235, 235], [90, 90, 90], [60, 180, 75], [40, 80, 160], [220, 50, 47]], np.uint8)
PLANE_COLORS = np.array(
    [
        [0, 0, 0],
        [255, 255, 255],
        [230, 60, 60],
        [250, 160, 40],
        [250, 230, 70],
        [70, 190, 90],
        [70, 200, 220],
        [60, 110, 230],
        [160, 80, 210],
        [240, 130, 190],
        [150, 150, 150],
    ],
    np.uint8,
)
"""Black for nothing, then one colour a plane; Seaquest has the most, ten."""


def _paint(index: Integer[np.ndarray, "h w"], colors: UInt8[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "H W 3"]:
    return colors[index].repeat(CELL_SIDE_PX, axis=0).repeat(CELL_SIDE_PX, axis=1)


def planes(env: Any, params: Any, state: Any) -> UInt8[np.ndarray, "H W 3"]:
    """Draws a game that observes planes of cells, the lower-numbered plane on top."""
    obs = np.asarray(env.observe(jax.random.key(0), state, None, params))
    shown = obs.reshape(*obs.shape[:2], -1) > 0
    return _paint(np.where(shown.any(-1), shown.argmax(-1) + 1, 0), PLANE_COLORS)


def maze(env: Any, params: Any, state: Any) -> UInt8[np.ndarray, "H W 3"]:
    """Draws walls, goal and agent of FourRooms and MetaMaze."""
    del params
    index = np.where(np.asarray(env.env_map), _FREE, _WALL)
    index[tuple(np.asarray(state.goal))] = _GOAL
    index[tuple(np.asarray(state.pos))] = _AGENT
    return _paint(index, _MAZE_COLORS)


def lake(env: Any, params: Any, state: Any) -> UInt8[np.ndarray, "H W 3"]:
    """Draws holes, goal and agent of FrozenLake."""
    del params
    from gymnax.environments.misc import frozen_lake

    desc = np.asarray(env.desc)
    index = np.select([desc == frozen_lake.HOLE, desc == frozen_lake.GOAL], [_HOLE, _GOAL], _FREE)
    index[divmod(int(state.position), index.shape[1])] = _AGENT
    return _paint(index, _MAZE_COLORS)
