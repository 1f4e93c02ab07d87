"""Craftax and Craftax-Classic as `JaxEnv`s, observed by symbols."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from envs.craftax import captions, drawing, pictures, worlds
from envs.craftax.game import Game, View
from envs.errors import EnvError
from envs.pictures import Picture
from envs.types import EnvSpec, JaxEnv, ObsSpec, TimeStep

_MODULES: Mapping[str, str] = {"Craftax": "envs.craftax.full", "Craftax-Classic": "envs.craftax.classic"}

DETAIL = "brief"
"""Of captions, where none is asked for."""

Option = bool | int | float | str
"""What a config file can give for an option."""


def names() -> list[str]:
    """Lists the games: the part of the id after `craftax:`."""
    return list(_MODULES)


def make(
    name: str,
    *,
    detail: Option = DETAIL,
    max_steps: Option | None = None,
    num_worlds: Option = 0,
    world_seed: Option = 0,
) -> JaxEnv[Any]:
    """Creates a game.

    Args:
        detail: of captions: `brief` says what the player achieves and changes, how the player sleeps, wakes and dies;
            `full` also says hits, hunger, thirst, tiredness, what bars the way, night and day.
        max_steps: step limit of an episode, default the game's own.
        num_worlds: 0 builds a new world for every episode; more builds so many at the start, each episode draws one.
        world_seed: of these worlds.

    Raises:
        EnvError: a value is out of range.
    """
    if detail not in captions.EVENT_SIZES:
        raise EnvError(f"env.options.detail must be one of {', '.join(captions.EVENT_SIZES)}, not {detail!r}")
    for option, value, at_least in (
        ("max_steps", max_steps, 1),
        ("num_worlds", num_worlds, 0),
        ("world_seed", world_seed, 0),
    ):
        if value is not None and (type(value) is not int or value < at_least):
            raise EnvError(f"env.options.{option} must be a whole number of at least {at_least}, not {value!r}")
    game: Game = importlib.import_module(_MODULES[name]).GAME
    if max_steps is not None:
        game = game._replace(max_episode_steps=int(max_steps))
    if num_worlds:
        new_world = worlds.Pool(game.generate, seed=int(world_seed), count=int(num_worlds)).draw
    else:
        new_world = worlds.fresh(game.generate, one_by_one=jax.default_backend() == "cpu")
    return Craftax(f"craftax:{name}", game, new_world, detail=str(detail))


class Craftax:
    """One game of Craftax or Craftax-Classic.

    obs: `map`, `uint8[rows, columns, 2 or 3]`: block, item (Craftax alone) and creature of the cells around the player;
    block 0 is a cell that is dark. `status`, `float32[S]`: what the player owns and how the player is, as named by
    `status_names`. Both hold what the library's symbolic observation holds, in a fortieth of its memory and more (33 KB
    against 0.5 KB, Craftax), and blocks are embedded as what they are; only of things that share a cell one is shown.
    action: the library's, 17 or 43.
    reward: the library's: achievements (worth 1 to 8 in Craftax), and 0.1 for each point of health won or lost.
    end: terminated by death, in Craftax also by defeating the necromancer; truncated at the step limit. `success` is
    that defeat, in Craftax-Classic an episode with every achievement.
    captions: see `make`.
    figures of an episode: `achievements`, how many of them the player has at its end, and of each of them whether.
    state: 21 KB for each game of Craftax-Classic, 273 KB of Craftax.
    """

    def __init__(self, env_id: str, game: Game, new_world: Callable[[Array], Any], *, detail: str) -> None:
        self._game = game
        self._new_world = new_world
        self._detail = detail
        rows, columns = game.view_size
        self._offsets = jnp.stack(
            jnp.meshgrid(jnp.arange(rows) - rows // 2, jnp.arange(columns) - columns // 2, indexing="ij"), axis=-1
        )
        kinds = (game.num_blocks, *([game.num_items] if game.num_items > 1 else []), 1 + len(game.mob_names))
        self._like = jax.eval_shape(game.generate, jax.random.key(0))
        self.status_names = game.status_names
        self._picture = pictures.make_picture(
            num_items=game.num_items, mob_names=game.mob_names, status_names=game.status_names
        )
        self.spec = EnvSpec(
            id=env_id,
            obs={
                "map": ObsSpec((rows, columns, len(kinds)), np.dtype(np.uint8), kinds),
                "status": ObsSpec((len(game.status_names),), np.dtype(np.float32)),
            },
            action_names=game.action_names,
            max_episode_steps=game.max_episode_steps,
            event_size=captions.EVENT_SIZES[detail],
            episode_stats=("achievements", *(f"achievement/{name}" for name in game.achievement_names)),
            reward=game.pays,
        )

    def _map(self, view: View) -> UInt8[Array, "rows columns channels"]:
        rows, columns = self._game.view_size
        cell = view.position + self._offsets
        size = jnp.asarray(view.block.shape)
        inside = ((cell >= 0) & (cell < size)).all(axis=-1)
        row, column = jnp.moveaxis(jnp.clip(cell, 0, size - 1), -1, 0)
        creature = jnp.zeros((rows, columns), jnp.int32)
        for here, seen, code in (
            (view.mobs.position, view.mobs.alive, view.mobs.code),
            (view.hostile.position, view.hostile.flying, view.hostile.code),
            (view.own.position, view.own.flying, view.own.code),
        ):
            at = here - view.position + jnp.asarray([rows // 2, columns // 2])
            at = jnp.where(seen[:, None] & (at >= 0).all(axis=-1, keepdims=True), at, rows + columns)
            # the maximum, because the order in which equal indices are written is not defined
            creature = creature.at[at[:, 0], at[:, 1]].max(code, mode="drop")
        channels = [jnp.where(inside, view.block[row, column], 1), creature]
        if self._game.num_items > 1:
            channels.insert(1, jnp.where(inside, view.item[row, column], 0))
        lit = inside & view.lit[row, column]
        always_lit = self._game.num_items == 1  # the overworld has no dark cells
        shown = jnp.stack(channels, axis=-1)
        return (shown if always_lit else jnp.where(lit[..., None], shown, 0)).astype(jnp.uint8)

    def _observe(self, state: Any, view: View) -> dict[str, Array]:
        return {"map": self._map(view), "status": self._game.status(state)}

    def _cast(self, state: Any) -> Any:
        # Some leaves of a first state have other types than in the next one, which would compile the rollout twice.
        return jax.tree.map(lambda leaf, like: jax.lax.convert_element_type(leaf, like.dtype), state, self._like)

    def reset(self, key: PRNGKeyArray) -> tuple[Any, TimeStep]:
        """Starts an episode in a new world, or in one of the pool."""
        state = self._cast(self._new_world(key))
        return state, TimeStep(
            obs=self._observe(state, self._game.view(state)),  # pyright: ignore[reportArgumentType]
            reward=jnp.float32(0.0),
            terminated=jnp.bool_(False),
            truncated=jnp.bool_(False),
            event=jnp.zeros(self.spec.event_size, jnp.uint8),
            info={"success": jnp.bool_(False), "stats": self._stats(state)},
        )

    def _stats(self, state: Any) -> Float[Array, " S"]:
        done = self._game.achievements(state).astype(jnp.float32)
        return jnp.concatenate([done.sum(keepdims=True), done])

    def step(self, key: PRNGKeyArray, state: Any, action: Array) -> tuple[Any, TimeStep]:
        """Plays one action."""
        new_state, reward = self._game.step(key, state, action)
        new_state = self._cast(new_state)
        before, after = self._game.view(state), self._game.view(new_state)
        terminated, dead = self._game.over(new_state), self._game.dead(new_state)
        truncated = (new_state.timestep >= self.spec.max_episode_steps) & ~terminated
        ending = captions.Ending(dead=dead, won=terminated & ~dead)
        return new_state, TimeStep(
            obs=self._observe(new_state, after),  # pyright: ignore[reportArgumentType]
            reward=jnp.asarray(reward, jnp.float32),
            terminated=terminated,
            truncated=truncated,
            event=captions.event(self._game, before, after, action, ending, detail=self._detail),
            info={
                "success": (terminated | truncated) & self._game.won(new_state),
                "stats": self._stats(new_state),
            },
        )

    def describe(self, event: np.ndarray) -> str:
        """Returns the caption of an event."""
        return captions.describe(self._game, event)

    def depict(self, obs: Mapping[str, np.ndarray]) -> Picture:
        """Returns what the player sees and has, as a grid of cells."""
        return self._picture(obs)

    def render(self, state: Any) -> np.ndarray:
        """Draws what the player sees in one state."""
        view = jax.device_get(jax.jit(self._game.view)(state))
        return drawing.picture(np.asarray(self._map(view)), int(view.direction))
