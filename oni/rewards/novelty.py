"""Rewards of single steps: what is paid for what the agent sees, whatever the captions say.

They live on the device beside the rollout and come to the mix as `bonus` (`oni.rewards.mixing`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from envs.spec import EnvSpec
from oni.captions import EMPTY_ID
from oni.config import TrainConfig
from oni.devices import ALONE, GAMES, Across
from oni.rewards.mixing import count_in_episode, per_count
from oni.types import Rollout

COUNT_SLOTS = 4096
"""Observations that `counts` tells apart in each game, a byte each. A new one that shares a slot with one seen before
in the episode counts as seen: one in eight after 500 different ones."""

_HASH_SEED = 20_181_030
"""Of the constants of the hash; any number, the same for good, as the counts in a checkpoint depend on it."""

_LARGEST_INT32 = 2**31 - 1


class StepReward(NamedTuple):
    """Pure functions of one reward of steps.

    init: (key, number of games) -> state. score: (state, rollout) -> (state, bonus), the reward of each action before
        coefficients. learn: (state, rollout, key) -> (state, metrics), from a rollout that has been scored.
    layout: of the state, over devices.
    """

    init: Callable[[PRNGKeyArray, int], Any]
    score: Callable[[Any, Rollout], tuple[Any, Float[Array, "T B"]]]
    learn: Callable[[Any, Rollout, PRNGKeyArray], tuple[Any, dict[str, Float[Array, ""]]]]
    layout: Any


def ends(rollout: Rollout) -> Bool[Array, "T B"]:
    """Tells which steps were the last of an episode. A rollout does not hold what they led to, so they get no bonus."""
    return rollout.terminated | rollout.truncated


def _hash_leaf(leaf: Array, num_axes: int, rng: np.random.Generator) -> Array:
    """Sums number * random odd constant modulo 2^32 over all axes but the leading ones."""
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        leaf = jax.lax.bitcast_convert_type(leaf.astype(jnp.float32) + 0.0, jnp.uint32)  # -0.0 is 0.0
    flat = leaf.reshape(*leaf.shape[:num_axes], -1).astype(jnp.uint32)
    factors = rng.integers(0, 2**31, flat.shape[-1], np.uint32) * np.uint32(2) + np.uint32(1)
    return (flat * factors).sum(-1, dtype=jnp.uint32)


def hash_observations(obs: Any, spec: EnvSpec, *, num_axes: int) -> Int[Array, "..."]:
    """Returns a number in [1, 2^31) for each observation, the same for the same observation.

    Of observations by name only grids of categories are looked at, if there are any: numbers beside them, such as
    NetHack's status line with its clock, are new at almost every step.

    Args:
        num_axes: leading axes that are not part of one observation.

    Source: the sum is multilinear hashing (Carter and Wegman, 1979), the mixing of its bits the finaliser of
    MurmurHash3 (Appleby, 2011).
    """
    leaves = [obs]
    if isinstance(spec.obs, Mapping):
        names = [name for name, one in sorted(spec.obs.items()) if one.num_values is not None] or sorted(spec.obs)
        leaves = [obs[name] for name in names]
    rng = np.random.default_rng(_HASH_SEED)
    bits = sum((_hash_leaf(leaf, num_axes, rng) for leaf in leaves), jnp.uint32(0))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
    bits = bits ^ (bits >> 16)
    return (bits % jnp.uint32(_LARGEST_INT32)).astype(jnp.int32) + 1


def make_counts(spec: EnvSpec, *, exponent: float) -> StepReward:
    """Creates the reward 1 / N^exponent for the observation that an action leads to.

    N is how often that observation has been seen in the episode, its first one and this time included; it saturates
    at 255. The last step of an episode gets 0 (see `ends`).

    Source: counts of the state within the episode, as in Raileanu and Rocktäschel (arXiv 2002.12292).
    """

    def score(counts: Any, rollout: Rollout) -> tuple[Any, Float[Array, "T B"]]:
        ids = jnp.concatenate(
            [
                hash_observations(rollout.obs, spec, num_axes=2),
                hash_observations(rollout.last_obs, spec, num_axes=1)[None],
            ]
        )
        # The first observation was counted at the end of the rollout before, unless the episode begins here.
        ids = ids.at[0].set(jnp.where(rollout.reset[0], ids[0], EMPTY_ID))
        ended = ends(rollout)
        counts, number = count_in_episode(counts, ids, jnp.concatenate([rollout.reset[:1], ended]))
        bonus = per_count(jnp.ones(ended.shape), number[1:], exponent)
        return counts, jnp.where(ended, 0.0, bonus)

    return StepReward(
        init=lambda key, num_envs: jnp.zeros((num_envs, COUNT_SLOTS), jnp.uint8),
        score=score,
        learn=lambda state, rollout, key: (state, {}),
        layout=GAMES,
    )


def add_step_rewards(parts: Sequence[tuple[float, StepReward]]) -> StepReward:
    """Returns the sum of several rewards, each with its weight."""

    def init(key: PRNGKeyArray, num_envs: int) -> tuple[Any, ...]:
        keys = jax.random.split(key, len(parts))
        return tuple(part.init(one, num_envs) for (_, part), one in zip(parts, keys, strict=True))

    def score(state: tuple[Any, ...], rollout: Rollout) -> tuple[tuple[Any, ...], Float[Array, "T B"]]:
        total, states = jnp.zeros_like(rollout.reward), list[Any]()
        for (weight, part), one in zip(parts, state, strict=True):
            new, bonus = part.score(one, rollout)
            states.append(new)
            total = total + weight * bonus
        return tuple(states), total

    def learn(
        state: tuple[Any, ...], rollout: Rollout, key: PRNGKeyArray
    ) -> tuple[tuple[Any, ...], dict[str, Float[Array, ""]]]:
        metrics, states = dict[str, Float[Array, ""]](), list[Any]()
        for (_, part), one, part_key in zip(parts, state, jax.random.split(key, len(parts)), strict=True):
            new, figures = part.learn(one, rollout, part_key)
            states.append(new)
            metrics |= figures
        return tuple(states), metrics

    layout = tuple(part.layout for _, part in parts)
    return StepReward(init=init, score=score, learn=learn, layout=layout)


def _make_rnd(config: TrainConfig, spec: EnvSpec, across: Across) -> StepReward:
    from oni.rewards.rnd import make_rnd

    return make_rnd(config.reward.rnd, spec, across=across)


STEP_REWARDS: Mapping[str, Callable[[TrainConfig, EnvSpec, Across], StepReward]] = {
    "counts": lambda config, spec, across: make_counts(spec, exponent=config.reward.count_exponent),
    "rnd": _make_rnd,
}


def make_step_reward(
    weights: Mapping[str, float], config: TrainConfig, spec: EnvSpec, *, across: Across = ALONE
) -> StepReward | None:
    """Creates the sum of the rewards named in `weights`; None if none of them is one of steps."""
    kinds = [(weight, kind) for kind, weight in weights.items() if kind in STEP_REWARDS]
    parts = [(weight, STEP_REWARDS[kind](config, spec, across)) for weight, kind in kinds]
    return add_step_rewards(parts) if parts else None
