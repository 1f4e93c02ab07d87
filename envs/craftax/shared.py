"""Small things that both games need."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

NO_LIMIT_STEPS = 2**30
"""Step limit given to the library, which does not tell running out of time from dying; the adapter counts itself."""


def action_names(actions: Iterable[Any]) -> tuple[str, ...]:
    """Returns the names of the library's actions in plain words."""
    return tuple(action.name.lower().replace("_", " ") for action in actions)


def achievement_names(achievements: Iterable[Any]) -> tuple[str, ...]:
    """Returns the names of the library's achievements in the order of a state's array, a misspelt one put right.

    That is the order of their numbers; the full game lists them in another one.
    """
    in_order = sorted(achievements, key=lambda achievement: achievement.value)
    assert [achievement.value for achievement in in_order] == list(range(len(in_order)))
    return tuple(achievement.name.lower().replace("solider", "soldier") for achievement in in_order)


def one_hot_direction(direction: Array) -> list[Array]:
    """Returns four numbers, 1 for the direction that the player faces (left, right, up, down)."""
    return [(direction == number).astype(jnp.float32) for number in (1, 2, 3, 4)]


def without_key(state: Any) -> Any:
    """Returns the state without its random key, which no rule of the game reads, and with strong types.

    A key cannot be saved as an array; a leaf whose type changes in the next step would compile the rollout twice.
    """
    state = state.replace(state_rng=jnp.uint32(0))
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, jnp.asarray(leaf).dtype), state)
