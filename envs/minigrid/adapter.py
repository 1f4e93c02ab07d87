"""The MiniGrid tasks of XLand-MiniGrid as `JaxEnv`s.

Rules of the game, world generation, goals and rewards are the library's own functions. What is done here instead of
`Environment.step`: the rule check is left out, since no MiniGrid task has rules, and the field of view is gathered by
index. Both are tested to give the library's own steps, and together they are five times faster. Tasks with a `step` of
their own keep it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xminigrid
from jaxtyping import Array, Int, PRNGKeyArray, UInt8
from xminigrid.core.actions import take_action
from xminigrid.core.constants import DIRECTIONS, NUM_COLORS, NUM_TILES, Tiles
from xminigrid.core.goals import check_goal
from xminigrid.environment import Environment, EnvParams
from xminigrid.rendering.rgb_render import render as render_rgb
from xminigrid.types import AgentState, State, StepType
from xminigrid.types import TimeStep as LibraryTimeStep

from envs.errors import EnvError
from envs.minigrid import captions
from envs.talkative import Talkative
from envs.types import EnvSpec, JaxEnv, ObsSpec, TimeStep

ACTION_NAMES = ("forward", "turn right", "turn left", "pick up", "put down", "toggle")
TOGGLE = ACTION_NAMES.index("toggle")

_REWARD_DECAY = 0.9
"""A success is worth `1 - 0.9 * steps / max_steps`, as in MiniGrid."""


def names() -> list[str]:
    """Lists the tasks: the part of the id after `xminigrid:`."""
    return [name for name in xminigrid.registered_environments() if name.startswith("MiniGrid-")]


Option = bool | int | float | str
"""What a config file can give for an option."""


def make(
    name: str, *, talkative: Option = False, max_steps: Option | None = None, view_size: Option | None = None
) -> JaxEnv[Any]:
    """Creates a task.

    Args:
        talkative: using a wall shows one of many pointless lines (see `envs.talkative`).
        max_steps: step limit of an episode, default the task's own.
        view_size: side of the square that the agent sees, in cells, odd and at least 3; default the task's own.

    Raises:
        EnvError: a value is out of range.
    """
    if type(talkative) is not bool:
        raise EnvError(f"env.options.talkative must be true or false, not {talkative!r}")
    if view_size is not None and (type(view_size) is not int or view_size < 3 or view_size % 2 == 0):
        raise EnvError(f"env.options.view_size must be an odd number of cells, at least 3, not {view_size!r}")
    if max_steps is not None and (type(max_steps) is not int or max_steps < 1):
        raise EnvError(f"env.options.max_steps must be a whole number of at least 1, not {max_steps!r}")
    changes = {"view_size": view_size, "max_steps": max_steps}
    env, params = xminigrid.make(name, **{key: value for key, value in changes.items() if value is not None})
    task = MiniGrid(f"xminigrid:{name}", env, params)
    return Talkative(task) if talkative else task


def _view_offsets(size: int) -> Int[np.ndarray, "4 size size 2"]:
    """Row and column offsets of every cell in view, for each direction (up, right, down, left)."""
    ahead, right = np.meshgrid(np.arange(size - 1, -1, -1), np.arange(size) - size // 2, indexing="ij")
    by_direction = [(-ahead, right), (right, ahead), (ahead, -right), (-right, -ahead)]
    return np.stack([np.stack(pair, axis=-1) for pair in by_direction])


class MiniGrid:
    """One MiniGrid task.

    obs: `uint8[view, view, 2]`, tile and colour of the cells in front of the agent, which stands at the bottom centre.
    action: forward, turn right, turn left, pick up, put down, toggle.
    reward: `1 - 0.9 * steps / max_steps` on success, else 0.
    end: terminated on success (in Memory on a wrong choice too), truncated at `max_steps`.
    captions: taking, putting down, unlocking, opening, closing, reaching the goal.
    """

    def __init__(self, env_id: str, env: Environment[Any, Any], params: EnvParams) -> None:
        if params.max_steps is None:
            raise EnvError(f"{env_id} has no step limit: set env.options.max_steps")
        self._env = env
        self._params = params
        self._offsets = jnp.asarray(_view_offsets(params.view_size), jnp.int32)
        self.spec = EnvSpec(
            id=env_id,
            obs=ObsSpec((params.view_size, params.view_size, 2), np.dtype(np.uint8), (NUM_TILES, NUM_COLORS)),
            action_names=ACTION_NAMES,
            max_episode_steps=params.max_steps,
            event_size=captions.EVENT_SIZE,
        )

    def _observe(self, grid: UInt8[Array, "h w 2"], agent: AgentState) -> UInt8[Array, "v v 2"]:
        """Returns the cells in view, turned so that the agent looks up; cells outside the grid are 0."""
        cell = self._offsets[agent.direction] + agent.position
        size = jnp.asarray(grid.shape[:2])
        inside = ((cell >= 0) & (cell < size)).all(-1)
        cell = jnp.clip(cell, 0, size - 1)
        return jnp.where(inside[..., None], grid[cell[..., 0], cell[..., 1]], jnp.uint8(Tiles.EMPTY))

    def _front(self, state: State[Any]) -> Array:
        return state.agent.position + DIRECTIONS[state.agent.direction]

    def reset(self, key: PRNGKeyArray) -> tuple[State[Any], TimeStep]:
        """Builds a new world."""
        state = self._env.reset(self._params, key).state
        # The library leaves some leaves weakly typed; a changed type in the next step would compile the rollout twice.
        state = jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), state)
        return state, TimeStep(
            obs=self._observe(state.grid, state.agent),
            reward=jnp.float32(0.0),
            terminated=jnp.bool_(False),
            truncated=jnp.bool_(False),
            event=jnp.zeros(captions.EVENT_SIZE, jnp.uint8),
            info={"success": jnp.bool_(False)},
        )

    def step(self, key: PRNGKeyArray, state: State[Any], action: Array) -> tuple[State[Any], TimeStep]:
        """Plays one action."""
        del key  # the game is deterministic
        new_state, terminated, reward = self._play(state, action)
        success = terminated & (reward > 0)
        return new_state, TimeStep(
            obs=self._observe(new_state.grid, new_state.agent),
            reward=reward.astype(jnp.float32),
            terminated=terminated,
            truncated=(new_state.step_num >= self.spec.max_episode_steps) & ~terminated,
            event=captions.event(state, new_state, self._front(state), success),
            info={"success": success},
        )

    def _play(self, state: State[Any], action: Array) -> tuple[State[Any], Array, Array]:
        """Returns the state after an action, whether the episode terminated, and the reward."""
        if type(self._env).step is not Environment.step:  # the task has rules of its own (Memory)
            before = LibraryTimeStep(
                state=state,
                step_type=StepType.MID,
                reward=jnp.float32(0.0),
                discount=jnp.float32(1.0),
                observation=self._observe(state.grid, state.agent),
            )
            after = self._env.step(self._params, before, action)
            return after.state, after.discount == 0, after.reward
        grid, agent, changed = take_action(state.grid, state.agent, action)
        new_state = state.replace(grid=grid, agent=agent, step_num=state.step_num + 1)
        terminated = check_goal(state.goal_encoding, grid, agent, action, changed)
        max_steps = self.spec.max_episode_steps
        return new_state, terminated, jnp.where(terminated, 1.0 - _REWARD_DECAY * new_state.step_num / max_steps, 0.0)

    def uses_nothing(self, state: State[Any], action: Array) -> Array:
        """Tells whether the action is to use a wall, which does nothing in the game (see `envs.talkative`)."""
        front = self._front(state)
        return (action == TOGGLE) & (state.grid[front[0], front[1], 0] == Tiles.WALL)

    def describe(self, event: np.ndarray) -> str:
        """Returns the caption of an event."""
        return captions.describe(event)

    def render(self, state: State[Any]) -> np.ndarray:
        """Draws one state."""
        host = jax.device_get(state)
        return render_rgb(np.asarray(host.grid), host.agent, self._params.view_size)
