"""Brings intrinsic rewards to one scale, whatever the reward model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from oni.config import RewardConfig
from oni.devices import ALONE, GAMES, SAME, Across

_MIN_STD = 0.01
"""The least that is divided by. Scores are of the order of 1; where they hardly ever differ, or a single one comes up
among very many steps, the standard deviation is near 0 and would turn a reward of 1 into thousands."""


class ReturnStats(NamedTuple):
    """The discounted intrinsic return of each game so far, and moments of it over all steps.

    running: r_t + discount * r_{t-1} + ... within the episode. num_steps: steps that the moments are over.
    """

    running: Float[Array, " B"]
    num_steps: Float[Array, ""]
    mean: Float[Array, ""]
    var: Float[Array, ""]


LAYOUT: Any = ReturnStats(running=GAMES, num_steps=SAME, mean=SAME, var=SAME)
"""How these are laid out over devices."""


def empty_stats(num_envs: int) -> ReturnStats:
    """Returns the state before the first step."""
    return ReturnStats(running=jnp.zeros(num_envs), num_steps=jnp.zeros(()), mean=jnp.zeros(()), var=jnp.zeros(()))


def merge_moments(
    mean: Float[Array, "*N"],
    var: Float[Array, "*N"],
    new_mean: Float[Array, "*N"],
    new_var: Float[Array, "*N"],
    share: float | Float[Array, ""],
) -> tuple[Float[Array, "*N"], Float[Array, "*N"]]:
    """Returns mean and variance of both parts together.

    Args:
        share: of the new part, from 0 to 1.

    Source: Chan et al., "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" (1979).
    """
    apart = new_mean - mean
    merged = (1.0 - share) * var + share * new_var + jnp.square(apart) * share * (1.0 - share)
    return mean + apart * share, merged


def add_returns(
    stats: ReturnStats,
    reward: Float[Array, "T B"],
    reset: Bool[Array, "T B"],
    *,
    discount: float,
    across: Across = ALONE,
) -> ReturnStats:
    """Adds one rollout, of all devices, with the variance of both parts together:

        running_t = reward_t + discount * running_{t-1}      (running is 0 before the first step of an episode)
        mean'     = mean + d * n / (count + n)               (d: mean of the rollout's n returns - mean)
        var'      = (count * var + n * var_n + d^2 * count * n / (count + n)) / (count + n)

    Rollouts before the first reward other than 0 are left out: as long as nothing is labelled there is no scale to
    learn, and their zeros would make the first rewards enormous.

    Source: Burda et al. (arXiv 1810.12894), section 2.4; the merge of variances is Chan et al. (1979). They let the
    return run on through ends of episodes, as their value of intrinsic rewards does; so does ours where every `reset`
    is False.
    """

    def body(running: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        value, first = step
        running = value + discount * jnp.where(first, 0.0, running)
        return running, running

    running, returns = jax.lax.scan(body, stats.running, (reward, reset))
    has_begun = (stats.num_steps > 0) | (across.sum((returns != 0).any().astype(jnp.int32)) > 0)
    new = jnp.where(has_begun, float(returns.size * across.size), 0.0)
    count = stats.num_steps + new
    share = new / jnp.maximum(count, 1.0)
    mean, var = merge_moments(stats.mean, stats.var, *across.moments(returns), share)
    return ReturnStats(running=running, num_steps=count, mean=mean, var=var)


def scale_of(stats: ReturnStats) -> Float[Array, ""]:
    """Returns what rewards are divided by: the standard deviation, at least 0.01; 1 before the first reward."""
    return jnp.where(stats.num_steps > 0, jnp.maximum(jnp.sqrt(stats.var), _MIN_STD), 1.0)


class Normalizer(NamedTuple):
    """Pure functions of a normaliser.

    init: number of games -> state. update: (state, reward, reset, discount) -> state. scale: state -> what rewards are
    divided by. figures: state -> metrics. layout: of the state, over devices.
    """

    init: Callable[[int], Any]
    update: Callable[[Any, Float[Array, "T B"], Bool[Array, "T B"], float], Any]
    scale: Callable[[Any], float | Float[Array, ""]]
    figures: Callable[[Any], dict[str, Float[Array, ""]]]
    layout: Any


def make_normalizer(config: RewardConfig, *, across: Across = ALONE) -> Normalizer:
    """Returns the functions that `config.normalize_intrinsic` asks for."""
    if not config.normalize_intrinsic:
        return Normalizer(
            init=lambda num_envs: (),
            update=lambda state, reward, reset, discount: state,
            scale=lambda state: 1.0,
            figures=lambda state: {},
            layout=(),
        )
    return Normalizer(
        init=empty_stats,
        update=lambda state, reward, reset, discount: add_returns(
            state, reward, reset, discount=discount, across=across
        ),
        scale=scale_of,
        figures=lambda state: {"reward/intrinsic_std": scale_of(state)},
        layout=LAYOUT,
    )
