"""Trees that travel between rollout and learner."""

from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int

CoreState = Any
"""Recurrent state of a policy, a tree of `[B, size]`; an empty tuple for one without memory."""


class ActorState(NamedTuple):
    """Where the games and the memory of the policy stand between two rollouts.

    obs: one array, or several by name.
    reset: whether `obs` is the first of an episode. episode_return: extrinsic, so far. episode_length: in steps.
    """

    env_state: Any
    obs: Any
    core_state: CoreState
    reset: Bool[Array, " B"]
    episode_return: Float[Array, " B"]
    episode_length: Int[Array, " B"]


class Endings(NamedTuple):
    """How the last episode of each game that ended in a rollout looked at its end.

    step: the step of the rollout that ended it, -1 where none did. obs: what was observed then, which the policy never
    acts on and `Rollout.obs` does not hold; means nothing where none did.
    """

    step: Int[Array, " B"]
    obs: Any


class Rollout(NamedTuple):
    """T steps of B games, time-major; row t holds what was seen before action t, and what action t led to.

    reset: whether obs[t] is the first of an episode. reward: extrinsic. value: with a last axis of (extrinsic,
    intrinsic) from a network with two value heads, without it from one with one, as all values here.
    bootstrap_value: value of the true last observation where `truncated`, else 0.
    episode_return, episode_length, success: of the episode that ended at t; elsewhere of the one that goes on.
    stats: `episode_stats` of the environment, summed over the episodes of each game that ended, faults left out: it
        has no time axis, since there may be many of them.
    lost: whether the episode was cut off by a fault, so that how it would have ended is not known.
    initial_core_state: memory before the first step. last_value: value of the observation after the last step.
    last_obs: that observation; where an episode just ended, the first of the next one.
    endings: `Endings` of games on the host where moments are sampled, for people to look at; else an empty tuple.
        Jitted games keep none: it would cost a tenth of the time of their rollouts.
    """

    obs: Any
    action: Int[Array, "T B"]
    log_prob: Float[Array, "T B"]
    value: Float[Array, "T B *V"]
    reset: Bool[Array, "T B"]
    reward: Float[Array, "T B"]
    terminated: Bool[Array, "T B"]
    truncated: Bool[Array, "T B"]
    bootstrap_value: Float[Array, "T B *V"]
    episode_return: Float[Array, "T B"]
    episode_length: Int[Array, "T B"]
    success: Bool[Array, "T B"]
    stats: Float[Array, "B S"]
    lost: Bool[Array, "T B"]
    initial_core_state: CoreState
    last_value: Float[Array, " B *V"]
    last_obs: Any
    endings: Any = ()


class MixedReward(NamedTuple):
    """The reward of every step and its parts, after coefficients: total = extrinsic + intrinsic."""

    total: Float[Array, "T B"]
    extrinsic: Float[Array, "T B"]
    intrinsic: Float[Array, "T B"]
