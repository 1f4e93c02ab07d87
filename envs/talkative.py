"""A world that talks: using a wall shows one of many pointless lines.

The caption's version of the "noisy TV" (Burda et al., arXiv 1808.04355): an endless supply of new captions that mean
nothing. An agent rewarded for novelty farms them; only a judge of meaning tells them from progress.
"""

from importlib import resources
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from envs.types import EnvSpec, JaxEnv, StateT, TimeStep


@runtime_checkable
class UsesNothing(JaxEnv[StateT], Protocol[StateT]):
    """An environment that knows when an action does nothing, so that a pointless line can be shown instead."""

    def uses_nothing(self, state: StateT, action: Array) -> Array:
        """Tells whether the action is an attempt that has no effect."""
        ...


def read_lines() -> tuple[str, ...]:
    """Reads the pointless lines that ship with the package."""
    text = resources.files("envs").joinpath("data/chatter.txt").read_text(encoding="utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


class Talkative:
    """Adds pointless lines to an environment; game, observations and rewards stay as they are.

    The event of the inner environment gets one byte in front: 1 + number of the line shown, 0 for none.
    """

    def __init__(self, env: UsesNothing[Any], lines: tuple[str, ...] | None = None) -> None:
        self.env = env
        self.lines = read_lines() if lines is None else lines
        self.spec: EnvSpec = env.spec._replace(event_size=env.spec.event_size + 1)

    def _with_line(self, timestep: TimeStep, line: Array) -> TimeStep:
        return timestep._replace(event=jnp.concatenate([line[None].astype(jnp.uint8), timestep.event]))

    def reset(self, key: PRNGKeyArray) -> tuple[Any, TimeStep]:
        """Starts an episode."""
        state, timestep = self.env.reset(key)
        return state, self._with_line(timestep, jnp.uint8(0))

    def step(self, key: PRNGKeyArray, state: Any, action: Array) -> tuple[Any, TimeStep]:
        """Plays one action; where it does nothing, a line drawn at random is shown."""
        env_key, line_key = jax.random.split(key)
        new_state, timestep = self.env.step(env_key, state, action)
        shown = self.env.uses_nothing(state, action) & ~timestep.event.any()
        line = jax.random.randint(line_key, (), 1, len(self.lines) + 1, dtype=jnp.uint8)
        return new_state, self._with_line(timestep, jnp.where(shown, line, jnp.uint8(0)))

    def describe(self, event: np.ndarray) -> str:
        """Returns the pointless line, or what the inner environment says."""
        return self.lines[int(event[0]) - 1] if event[0] else self.env.describe(event[1:])

    def __getattr__(self, name: str) -> Any:
        # `render` and the like, where the inner environment has them
        if name.startswith("_") or name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)
