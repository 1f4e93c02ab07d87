"""What an environment is.

`JaxEnv` is one game: pure functions of keys and states, without auto-reset. `envs.vector.VectorEnv` makes B of them
step at once and resets them in the same step. Keeping the reset out of the single game lets the vector build new
worlds only for the rows that ended; a reset inside a vmapped step builds one for every row, every step, which for
XLand-MiniGrid costs six times the step itself.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8

from envs.spec import EnvSpec, ObsSpec

__all__ = ["EnvSpec", "JaxEnv", "Obs", "ObsSpec", "Renders", "TimeStep"]

StateT = TypeVar("StateT")
StateT_contra = TypeVar("StateT_contra", contravariant=True)


Obs = jax.Array | Mapping[str, jax.Array]
"""One array, or several by name."""


class TimeStep(NamedTuple):
    """What one step led to.

    obs: what the agent sees next; from a `VectorEnv` the new episode's first observation where one just ended.
    reward: extrinsic reward of the step.
    terminated: the episode ended for good. truncated: it was cut off by the step limit; never both.
    event: code of what the step caused, all zeros for nothing; `describe` turns it into a caption. It belongs to the
        action just taken, on the last step of an episode too.
    info: by name; `success` (bool, meaningful on the last step) is required, and `stats` (float32[S], likewise) of an
        environment whose spec names S `episode_stats`.
    final_obs: the true last observation where an episode ended and `obs` elsewhere; None from a `JaxEnv`.
    """

    obs: Obs
    reward: Float[Array, "..."]
    terminated: Bool[Array, "..."]
    truncated: Bool[Array, "..."]
    event: UInt8[Array, "... event_size"]
    info: Mapping[str, jax.Array]
    final_obs: Obs | None = None


@runtime_checkable
class JaxEnv(Protocol[StateT]):
    """One game as pure functions; every method but `describe` can be jitted and vmapped."""

    @property
    def spec(self) -> EnvSpec:
        """What is fixed about this environment."""
        ...

    def reset(self, key: PRNGKeyArray) -> tuple[StateT, TimeStep]:
        """Starts an episode. The leaves of the state keep shape, dtype and strong type in `step`."""
        ...

    def step(self, key: PRNGKeyArray, state: StateT, action: jax.Array) -> tuple[StateT, TimeStep]:
        """Plays one action and never resets."""
        ...

    def describe(self, event: np.ndarray) -> str:
        """Returns the caption of an event `uint8[E]`; runs on the host, once for each event never seen before."""
        ...


@runtime_checkable
class Renders(Protocol[StateT_contra]):
    """A `JaxEnv` that can also draw itself, for recordings and the inspector."""

    def render(self, state: StateT_contra) -> np.ndarray:
        """Returns a picture of one (unbatched) state as `uint8[height, width, 3]`."""
        ...
