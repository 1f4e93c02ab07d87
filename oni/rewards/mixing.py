"""From scores of captions to the reward that the policy learns from."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from envs.vector import replace_rows
from oni.captions import EMPTY_ID, CaptionStats
from oni.config import RewardConfig

RewardCounts = UInt8[Array, "B S"]
"""How often each caption came up in the running episode of each game, saturating at 255."""

_SATURATED = 255


def empty_counts(config: RewardConfig, num_envs: int) -> RewardCounts:
    """Returns the counts at the start of a run."""
    return jnp.zeros((num_envs, config.count_slots), jnp.uint8)


def count_in_episode(
    counts: RewardCounts, caption_id: Int[Array, "T B"], reset: Bool[Array, "T B"]
) -> tuple[RewardCounts, UInt8[Array, "T B"]]:
    """Counts how often each caption came up in its episode, the step itself included.

    Args:
        reset: whether the step is the first of an episode; the counts of that game begin anew before it.

    Returns:
        The counts after the last step, and for each step the count N >= 1 of its caption so far.

    The empty caption is not counted: its N is 1. A caption uses slot `id mod S`, so with more captions than slots two
    of them can share a count.
    """
    rows = jnp.arange(counts.shape[0])

    def body(counts: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        ids, first = step
        slot = ids % counts.shape[1]
        counts = replace_rows(first, counts, lambda index: jnp.zeros((index.shape[0], counts.shape[1]), jnp.uint8))
        old = counts[rows, slot]
        number = jnp.where(old == _SATURATED, old, old + jnp.uint8(1))
        says = ids != EMPTY_ID
        return counts.at[rows, slot].set(jnp.where(says, number, old)), jnp.where(says, number, jnp.uint8(1))

    return jax.lax.scan(body, counts, (caption_id, reset))


class MixedReward(NamedTuple):
    """The reward of every step and its parts, after coefficients: total = extrinsic + intrinsic."""

    total: Float[Array, "T B"]
    extrinsic: Float[Array, "T B"]
    intrinsic: Float[Array, "T B"]


def mix_rewards(
    extrinsic: Float[Array, "T B"],
    score: Float[Array, "T B"],
    episode_count: Int[Array, "T B"] | UInt8[Array, "T B"],
    *,
    extrinsic_coef: float,
    intrinsic_coef: float,
    count_exponent: float,
) -> MixedReward:
    """Returns extrinsic_coef * extrinsic + intrinsic_coef * score / episode_count^count_exponent, and both parts.

    Source: Zheng et al. (arXiv 2410.23022); dividing by episodic counts after Klissarov et al. (arXiv 2310.00166).
    """
    paid = extrinsic_coef * extrinsic
    earned = intrinsic_coef * score / episode_count.astype(jnp.float32) ** count_exponent
    return MixedReward(total=paid + earned, extrinsic=paid, intrinsic=earned)


Mix = Callable[
    [RewardCounts, Float[Array, "T B"], Bool[Array, "T B"], Int[Array, "T B"], Float[Array, " V"]],
    tuple[RewardCounts, MixedReward, CaptionStats],
]


def make_mix(config: RewardConfig) -> Mix:
    """Returns the pure function `(counts, extrinsic, reset, caption_id, caption_score)` -> (counts, reward, stats)."""

    def mix(
        counts: RewardCounts,
        extrinsic: Float[Array, "T B"],
        reset: Bool[Array, "T B"],
        caption_id: Int[Array, "T B"],
        caption_score: Float[Array, " V"],
    ) -> tuple[RewardCounts, MixedReward, CaptionStats]:
        counts, number = count_in_episode(counts, caption_id, reset)
        reward = mix_rewards(
            extrinsic,
            caption_score[caption_id],
            number,
            extrinsic_coef=config.extrinsic_coef,
            intrinsic_coef=config.intrinsic_coef,
            count_exponent=config.count_exponent,
        )
        says = (caption_id != EMPTY_ID).astype(jnp.int32)
        size = caption_score.shape[0]
        flat = caption_id.reshape(-1)
        stats = CaptionStats(
            num_steps=jax.ops.segment_sum(says.reshape(-1), flat, size),
            num_episodes=jax.ops.segment_sum((says * (number == 1)).reshape(-1), flat, size),
            reward_sum=jax.ops.segment_sum(reward.intrinsic.reshape(-1), flat, size),
        )
        return counts, reward, stats

    return mix
