"""Bounds on what a policy can gain by pleasing the reward model instead of playing the game.

A guard looks twice: at the scores of captions, before anything is done with them, and at the intrinsic reward as it
would be paid. What it leaves is what is used and what is logged. Its state runs on through rollouts and begins anew
with each episode.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from oni.config import RewardConfig
from oni.errors import ConfigError


class Guard(NamedTuple):
    """Pure functions of one guard.

    init: number of games -> state. on_score: (state, score, reset) -> (state, score).
    on_reward: (state, intrinsic, extrinsic, reset) -> (state, intrinsic), where `intrinsic` is after coefficient, and
        `extrinsic` the game's own reward before it.
    """

    init: Callable[[int], Any]
    on_score: Callable[[Any, Float[Array, "T B"], Bool[Array, "T B"]], tuple[Any, Float[Array, "T B"]]]
    on_reward: Callable[
        [Any, Float[Array, "T B"], Float[Array, "T B"], Bool[Array, "T B"]], tuple[Any, Float[Array, "T B"]]
    ]


def clip_episode(
    earned: Float[Array, " B"], intrinsic: Float[Array, "T B"], reset: Bool[Array, "T B"], *, limit: float
) -> tuple[Float[Array, " B"], Float[Array, "T B"]]:
    """Pays min(r_t, limit - s_{t-1}), where s_t is what the episode was paid up to t: s_t <= limit at every step.

    Negative rewards are paid in full, and leave as much more to be earned.

    Args:
        earned: s before the first step.

    Source: the idea, that the sum over a trajectory must be bounded, is Gao et al. (arXiv 2410.15115); they clip each
    step at a threshold and bound the sum by 0.
    """

    def body(earned: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, first = step
        earned = jnp.where(first, 0.0, earned)
        return jnp.minimum(earned + reward, limit), jnp.minimum(reward, limit - earned)

    return jax.lax.scan(body, earned, (intrinsic, reset))


def score_increase(
    last: Float[Array, " B"], score: Float[Array, "T B"], reset: Bool[Array, "T B"]
) -> tuple[Float[Array, " B"], Float[Array, "T B"]]:
    """Returns max(score_t - score_{t-1}, 0), where the score before the first step of an episode is 0.

    A step that says nothing has score 0, so a caption that comes up again after a silent step is an increase again
    (`reward.count_exponent` is what makes that worth less).

    Args:
        last: score of the step before the first one.

    Source: after Gao et al. (arXiv 2410.15115), who pay the difference of adjacent steps, decreases included. Without
    those, the sum is not bounded by the highest score.
    """
    before = jnp.where(reset, 0.0, jnp.concatenate([last[None], score[:-1]]))
    return score[-1], jnp.maximum(score - before, 0.0)


class GateState(NamedTuple):
    """extrinsic: the game's own reward in the running episode. is_open: whether it has passed the limit there."""

    extrinsic: Float[Array, " B"]
    is_open: Bool[Array, " B"]


def gate_intrinsic(
    state: GateState,
    intrinsic: Float[Array, "T B"],
    extrinsic: Float[Array, "T B"],
    reset: Bool[Array, "T B"],
    *,
    limit: float,
) -> tuple[GateState, Float[Array, "T B"]]:
    """Pays nothing before the game's own rewards of the episode sum to more than `limit`, and everything afterwards.

    The step that passes it is paid: its caption tells of the moment after the action, when it is passed, and at the
    last step of an episode there is no later one. Once passed, the gate stays open to the end of the episode.
    """

    def body(state: GateState, step: tuple[Array, Array, Array]) -> tuple[GateState, Array]:
        reward, paid, first = step
        total = jnp.where(first, 0.0, state.extrinsic) + paid
        is_open = (state.is_open & ~first) | (total > limit)
        return GateState(extrinsic=total, is_open=is_open), jnp.where(is_open, reward, 0.0)

    return jax.lax.scan(body, state, (intrinsic, extrinsic, reset))


def _limit(config: RewardConfig) -> float:
    if config.guard_limit is None:
        raise ConfigError(f"reward.guard {config.guard} needs reward.guard_limit")
    return config.guard_limit


NO_GUARD = Guard(
    init=lambda num_envs: (),
    on_score=lambda state, score, reset: (state, score),
    on_reward=lambda state, intrinsic, extrinsic, reset: (state, intrinsic),
)
"""Leaves everything as it is."""


def _make_clip(config: RewardConfig) -> Guard:
    limit = _limit(config)
    return NO_GUARD._replace(
        init=jnp.zeros,
        on_reward=lambda state, intrinsic, extrinsic, reset: clip_episode(state, intrinsic, reset, limit=limit),
    )


def _make_gate(config: RewardConfig) -> Guard:
    limit = _limit(config)
    return NO_GUARD._replace(
        init=lambda num_envs: GateState(extrinsic=jnp.zeros(num_envs), is_open=jnp.zeros(num_envs, bool)),
        on_reward=lambda state, intrinsic, extrinsic, reset: gate_intrinsic(
            state, intrinsic, extrinsic, reset, limit=limit
        ),
    )


GUARDS: dict[str, Callable[[RewardConfig], Guard]] = {
    "none": lambda config: NO_GUARD,
    "clip": _make_clip,
    "delta": lambda config: NO_GUARD._replace(init=jnp.zeros, on_score=score_increase),
    "gate": _make_gate,
}


def make_guard(config: RewardConfig) -> Guard:
    """Creates the guard named by `config.guard`.

    Raises:
        ConfigError: it needs a limit, and there is none.
    """
    return GUARDS[config.guard](config)
