"""A tower: on each floor find the key, carry it back to the door, go up. Only the top pays."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs import EnvSpec, ObsSpec, TimeStep

FLOORS, CELLS = 5, 6  # the door of each floor is in cell 0, where the player comes in
ACTIONS = ("left", "right", "take", "open")
TAKE, OPEN = 2, 3
SAYS = ("", "You bump into the wall.", "The door is locked.", "You pick up the key of floor {}.", "You open door {}.")
BUMP, LOCKED, KEY, DOOR = 1, 2, 3, 4


class State(NamedTuple):
    """keys: the cell of each floor's key. floor: from 0; FLOORS is the top."""

    keys: jax.Array
    floor: jax.Array
    player: jax.Array
    has_key: jax.Array
    step: jax.Array


class Tower:
    """Observed: the floor, the cell that the player is in, whether the key lies there, whether the player has it."""

    obs = ObsSpec((CELLS + 3,), np.dtype(np.float32))
    spec = EnvSpec("tower", obs, ACTIONS, max_episode_steps=100, event_size=2, reward="1 for the top")

    def reset(self, key: jax.Array) -> tuple[State, TimeStep]:
        keys = jax.random.randint(key, (FLOORS,), 1, CELLS)
        state = State(keys, floor=jnp.int32(0), player=jnp.int32(0), has_key=jnp.bool_(False), step=jnp.int32(0))
        return state, self._shown(state, event=jnp.zeros(2, jnp.uint8))

    def step(self, key: jax.Array, state: State, action: jax.Array) -> tuple[State, TimeStep]:
        place = state.player + jnp.array([-1, 1, 0, 0])[action]
        player = jnp.clip(place, 0, CELLS - 1)
        tries = (action == OPEN) & (player == 0)
        opens = tries & state.has_key
        takes = (action == TAKE) & (player == state.keys[state.floor]) & ~state.has_key
        what = jnp.select([place != player, opens, tries, takes], [BUMP, DOOR, LOCKED, KEY], 0)
        event = jnp.where(what > 0, jnp.stack([what, state.floor + 1]), 0).astype(jnp.uint8)
        state = State(state.keys, state.floor + opens, player, (state.has_key | takes) & ~opens, state.step + 1)
        return state, self._shown(state, event)

    def _shown(self, state: State, event: jax.Array) -> TimeStep:
        key_here = (state.player == state.keys[state.floor]) & ~state.has_key
        obs = jnp.stack([state.floor / FLOORS, key_here, state.has_key, *(jnp.arange(CELLS) == state.player)])
        won, late = state.floor == FLOORS, state.step >= self.spec.max_episode_steps
        return TimeStep(
            obs.astype(jnp.float32), won.astype(jnp.float32), won, late & ~won, event, info={"success": won}
        )

    def describe(self, event: np.ndarray) -> str:
        return SAYS[event[0]].format(event[1])
