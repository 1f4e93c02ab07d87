"""What a game is beside its rules: what it says, when it was won, what its actions are called, how it looks."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


class Step(NamedTuple):
    """One step of a game, for the functions that say what it did.

    env, params: the library's. before, after: its states. action: number of the action, or the vector of a game whose
    actions are continuous.
    """

    env: Any
    params: Any
    before: Any
    after: Any
    action: Array
    reward: Array
    terminated: Array
    truncated: Array


Happened = Callable[[Step], Array]
"""Tells whether a step did something; jitted."""


def never(step: Step) -> Array:
    """Of games that are not won: they last, or they have no right end."""
    return jnp.zeros_like(step.terminated)


def rewarded(step: Step) -> Array:
    """The step earned something."""
    return step.reward > 0


def terminated(step: Step) -> Array:
    """The step ended the episode."""
    return step.terminated


class Game(NamedTuple):
    """What one game of gymnax says and shows.

    sentences: each with whether a step did it; a caption is those that apply, in this order. Empty where there is
    nothing to say that the numbers do not, which leaves an LLM nothing to judge.
    won: whether an episode that ended here ended well.
    actions: names of all actions; the default numbers them.
    draw: picture of a state; None where drawing takes more than a grid of cells.
    """

    sentences: Mapping[str, Happened] = {}
    won: Happened = never
    actions: tuple[str, ...] = ()
    draw: Callable[[Any, Any, Any], np.ndarray] | None = None
