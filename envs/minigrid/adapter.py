"""The tasks of XLand-MiniGrid as `JaxEnv`s: those of MiniGrid here, those with rule sets in `envs.minigrid.xland`.

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
from envs.minigrid import captions, pictures
from envs.pictures import Picture
from envs.talkative import Talkative
from envs.types import EnvSpec, JaxEnv, ObsSpec, TimeStep

ACTION_NAMES = ("forward", "turn right", "turn left", "pick up", "put down", "toggle")
TOGGLE = ACTION_NAMES.index("toggle")

_REWARD_DECAY = 0.9
"""A success is worth `1 - 0.9 * steps / max_steps`, as in MiniGrid."""


def names() -> list[str]:
    """Lists the tasks: the part of the id after `xminigrid:`."""
    return list(xminigrid.registered_environments())


Option = bool | int | float | str
"""What a config file can give for an option."""

DIFFICULTY = "small"
"""Of sampled rule sets, where none is asked for."""


def make(
    name: str,
    *,
    talkative: Option = False,
    max_steps: Option | None = None,
    view_size: Option | None = None,
    ruleset: Option | None = None,
    num_rulesets: Option | None = None,
    difficulty: Option | None = None,
    benchmark: Option | None = None,
) -> JaxEnv[Any]:
    """Creates a task.

    Args:
        talkative: using a wall shows one of many pointless lines (see `envs.talkative`).
        max_steps: step limit of an episode, default the task's own.
        view_size: side of the square that the agent sees, in cells, odd and at least 3; default the task's own.
        ruleset: number of the rule set of an XLand task, from 0, the default.
        num_rulesets: rule sets from that number on, one of which each episode draws; default 1.
        difficulty: trivial, small (the default), medium or high; rule sets are sampled by `envs.minigrid.rulesets`.
        benchmark: take the rule sets of this benchmark of the library instead, by name or file; never downloaded.

    Raises:
        EnvError: a value is out of range, or an option is one of rule sets where the task has none.
    """
    if type(talkative) is not bool:
        raise EnvError(f"env.options.talkative must be true or false, not {talkative!r}")
    if view_size is not None and (type(view_size) is not int or view_size < 3 or view_size % 2 == 0):
        raise EnvError(f"env.options.view_size must be an odd number of cells, at least 3, not {view_size!r}")
    _check_whole("max_steps", max_steps, at_least=1)
    changes = {"view_size": view_size, "max_steps": max_steps}
    env, params = xminigrid.make(name, **{key: value for key, value in changes.items() if value is not None})
    of_rules = {"ruleset": ruleset, "num_rulesets": num_rulesets, "difficulty": difficulty, "benchmark": benchmark}
    given = {key: value for key, value in of_rules.items() if value is not None}
    if name.startswith("XLand-"):
        task = _make_xland(f"xminigrid:{name}", env, params, **given)
    elif given:
        raise EnvError(f"env.options.{next(iter(given))}: xminigrid:{name} has no rule sets, the XLand-... tasks have")
    else:
        task = MiniGrid(f"xminigrid:{name}", env, params)
    return Talkative(task) if talkative else task


def _check_whole(option: str, value: Option | None, *, at_least: int) -> None:
    if value is not None and (type(value) is not int or value < at_least):
        raise EnvError(f"env.options.{option} must be a whole number of at least {at_least}, not {value!r}")


def _make_xland(
    env_id: str,
    env: Environment[Any, Any],
    params: EnvParams,
    *,
    ruleset: Any = 0,
    num_rulesets: Any = 1,
    difficulty: Any = None,
    benchmark: Any = None,
) -> "MiniGrid":
    from envs.minigrid.rulesets import read_rulesets, sample_rulesets
    from envs.minigrid.xland import XLand

    _check_whole("ruleset", ruleset, at_least=0)
    _check_whole("num_rulesets", num_rulesets, at_least=1)
    if benchmark is None:
        return XLand(env_id, env, params, sample_rulesets(ruleset, num_rulesets, difficulty or DIFFICULTY))
    if difficulty is not None:
        raise EnvError("env.options: difficulty is for sampled rule sets, leave it out where there is a benchmark")
    return XLand(env_id, env, params, read_rulesets(str(benchmark), ruleset, num_rulesets))


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
            reward="1 - 0.9 * steps / limit on success",
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

    def _new_state(self, key: PRNGKeyArray) -> State[Any]:
        return self._env.reset(self._params, key).state

    def reset(self, key: PRNGKeyArray) -> tuple[State[Any], TimeStep]:
        """Builds a new world."""
        state = self._new_state(key)
        # The library leaves some leaves weakly typed; a changed type in the next step would compile the rollout twice.
        state = jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), state)
        return state, TimeStep(
            obs=self._observe(state.grid, state.agent),
            reward=jnp.float32(0.0),
            terminated=jnp.bool_(False),
            truncated=jnp.bool_(False),
            event=jnp.zeros(self.spec.event_size, jnp.uint8),
            info={"success": jnp.bool_(False)},
        )

    def step(self, key: PRNGKeyArray, state: State[Any], action: Array) -> tuple[State[Any], TimeStep]:
        """Plays one action."""
        del key  # the game is deterministic
        new_state, terminated, reward, event = self._play(state, action)
        return new_state, TimeStep(
            obs=self._observe(new_state.grid, new_state.agent),
            reward=reward.astype(jnp.float32),
            terminated=terminated,
            truncated=(new_state.step_num >= self.spec.max_episode_steps) & ~terminated,
            event=event,
            info={"success": terminated & (reward > 0)},
        )

    def _play(self, state: State[Any], action: Array) -> tuple[State[Any], Array, Array, Array]:
        """Returns the state after an action, whether the episode terminated, the reward, and the event."""
        if type(self._env).step is Environment.step:
            grid, agent, changed = take_action(state.grid, state.agent, action)
            new_state = state.replace(grid=grid, agent=agent, step_num=state.step_num + 1)
            terminated = check_goal(state.goal_encoding, grid, agent, action, changed)
            reward = self._reward(new_state, terminated)
        else:  # the task has rules of its own (Memory)
            before = LibraryTimeStep(
                state=state,
                step_type=StepType.MID,
                reward=jnp.float32(0.0),
                discount=jnp.float32(1.0),
                observation=self._observe(state.grid, state.agent),
            )
            after = self._env.step(self._params, before, action)
            new_state, terminated, reward = after.state, after.discount == 0, after.reward
        return (
            new_state,
            terminated,
            reward,
            captions.event(state, new_state, self._front(state), terminated & (reward > 0)),
        )

    def _reward(self, state: State[Any], terminated: Array) -> Array:
        return jnp.where(terminated, 1.0 - _REWARD_DECAY * state.step_num / self.spec.max_episode_steps, 0.0)

    def uses_nothing(self, state: State[Any], action: Array) -> Array:
        """Tells whether the action is to use a wall, which does nothing in the game (see `envs.talkative`)."""
        front = self._front(state)
        return (action == TOGGLE) & (state.grid[front[0], front[1], 0] == Tiles.WALL)

    def describe(self, event: np.ndarray) -> str:
        """Returns the caption of an event."""
        return captions.describe(event)

    def depict(self, obs: UInt8[np.ndarray, "v v 2"]) -> Picture:
        """Returns what the agent sees, as a grid of cells."""
        return pictures.picture(obs)

    def render(self, state: State[Any]) -> np.ndarray:
        """Draws one state."""
        host = jax.device_get(state)
        return render_rgb(np.asarray(host.grid), host.agent, self._params.view_size)
