"""Cuts moments out of a rollout: gathered on the device by one function of fixed shapes, then clipped on the host."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from oni.devices import ROLLOUT, SAME, STEPS, Devices
from oni.types import Rollout

PICKS = 8
"""Moments that are cut out at once; the arrays have that many rows even where fewer are wanted."""


class Window(NamedTuple):
    """Some steps of one game around one of them. From `make_gather`, of `PICKS` games.

    obs: what was seen before each step. The other fields are those of `Rollout` and `MixedReward`. Where a step is
    beyond the rollout they repeat the first or the last one, but for `obs`, which goes on to what came after the last.
    ending: how the last episode that ended in the rollout looked at its end (`Endings`), if that was kept; else ().
    """

    obs: Any
    action: Int[Array, "*P L"]
    extrinsic: Float[Array, "*P L"]
    intrinsic: Float[Array, "*P L"]
    terminated: Bool[Array, "*P L"]
    truncated: Bool[Array, "*P L"]
    reset: Bool[Array, "*P L"]
    caption_id: Int[Array, "*P L"]
    ending: Any


Gather = Callable[[Rollout, Float[Array, "T B"], Int[Array, "T B"], Int[np.ndarray, "P 2"]], Window]


def make_gather(devices: Devices, *, before: int, after: int) -> Gather:
    """Returns the function `(rollout, intrinsic reward, caption_id, [[step, row], ...]) -> Window`.

    It has to be compiled once: its shapes depend on those of a rollout alone. Each device cuts out what happened in its
    games, and only that is handed on.
    """
    across = devices.across

    def gather(
        rollout: Rollout, intrinsic: Float[Array, "T B"], caption_id: Int[Array, "T B"], where: Int[Array, "P 2"]
    ) -> Window:
        num_steps, num_rows = rollout.reward.shape
        own = where[:, 1, None] - across.number * num_rows
        is_own = (own >= 0) & (own < num_rows)
        row = jnp.clip(own, 0, num_rows - 1)
        time = where[:, 0, None] + jnp.arange(-before, after + 1)
        step = jnp.clip(time, 0, num_steps - 1)

        def seen(obs: Array, last: Array) -> Array:
            over = (time >= num_steps).reshape(*time.shape, *[1] * (obs.ndim - 2))
            return jnp.where(over, last[row], obs[step, row])

        window = Window(
            obs=jax.tree.map(seen, rollout.obs, rollout.last_obs),
            action=rollout.action[step, row],
            extrinsic=rollout.reward[step, row],
            intrinsic=intrinsic[step, row],
            terminated=rollout.terminated[step, row],
            truncated=rollout.truncated[step, row],
            reset=rollout.reset[step, row],
            caption_id=caption_id[step, row],
            ending=jax.tree.map(lambda leaf: leaf[row[:, 0]], rollout.endings),
        )

        def of_owner(leaf: Array) -> Array:
            owned = jnp.where(is_own.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 0)
            return across.sum(owned).astype(leaf.dtype)

        return window if across.size == 1 else jax.tree.map(of_owner, window)

    return devices.jit(gather, takes=(ROLLOUT, STEPS, STEPS, SAME), gives=SAME)


class Span(NamedTuple):
    """Which steps of a rollout belong to a moment: first to last, both included.

    shows_after: whether what was seen after the last one belongs to it, too; the rollout ends there, and the episode
        goes on. ended: whether the episode ended with the last one.
    """

    first: int
    last: int
    shows_after: bool
    ended: bool


def span_of(
    step: int,
    *,
    reset: Bool[np.ndarray, " L"],
    ended: Bool[np.ndarray, " L"],
    before: int,
    after: int,
    num_steps: int,
) -> Span:
    """Returns the steps of a moment around `step`, none of another episode and none beyond the rollout.

    Args:
        reset, ended: whether each of the steps from `step - before` to `step + after` begins or ends an episode; what
            they hold for steps beyond the rollout does not matter.
    """
    start = step - before
    first = max(start, 0)
    begins = np.flatnonzero(reset[first - start : before + 1])
    if len(begins):
        first += int(begins[-1])
    last = min(step + after, num_steps - 1)
    ends = np.flatnonzero(ended[before : last - start + 1])
    if len(ends):
        return Span(first, step + int(ends[0]), shows_after=False, ended=True)
    return Span(first, last, shows_after=step + after >= num_steps, ended=False)
