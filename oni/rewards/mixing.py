"""From scores of captions to the reward that the policy learns from."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from envs.vector import replace_rows
from oni.captions import EMPTY_ID, CaptionStats
from oni.config import PPOConfig, RewardConfig
from oni.devices import ALONE, GAMES, Across
from oni.rewards.guards import make_guard
from oni.rewards.normalizing import make_normalizer
from oni.types import MixedReward

RewardCounts = UInt8[Array, "B S"]
"""How often each caption came up in the running episode of each game, saturating at 255."""

_SATURATED = 255


class MixMemory(NamedTuple):
    """What mixing keeps from rollout to rollout where it does more than count.

    guard: state of the guard. returns: state of the normaliser. An empty tuple for one that keeps nothing.
    """

    counts: RewardCounts
    guard: Any
    returns: Any


MixState = RewardCounts | MixMemory
"""The counts alone where nothing else is kept, so that checkpoints from before there was more can still be read."""


def _as_memory(state: MixState) -> MixMemory:
    return state if isinstance(state, MixMemory) else MixMemory(counts=state, guard=(), returns=())


def _as_state(memory: MixMemory) -> MixState:
    return memory if jax.tree.leaves((memory.guard, memory.returns)) else memory.counts


def empty_counts(config: RewardConfig, num_envs: int) -> MixState:
    """Returns the counts, and what else mixing keeps, at the start of a run."""
    counts = jnp.zeros((num_envs, config.count_slots), jnp.uint8)
    normalizer = make_normalizer(config)
    return _as_state(MixMemory(counts, guard=make_guard(config).init(num_envs), returns=normalizer.init(num_envs)))


def without_scale(state: MixState, config: RewardConfig) -> MixState:
    """Returns the state with nothing known about the scale of scores, as for a new goal."""
    memory = _as_memory(state)
    normalizer = make_normalizer(config)
    return _as_state(memory._replace(returns=normalizer.init(memory.counts.shape[0])))


def mix_layout(config: RewardConfig) -> Any:
    """Returns how the state is laid out over devices."""
    guard = jax.tree.map(lambda leaf: GAMES, make_guard(config).init(1))
    returns = make_normalizer(config).layout
    return MixMemory(counts=GAMES, guard=guard, returns=returns) if jax.tree.leaves((guard, returns)) else GAMES


def mix_figures(state: MixState, config: RewardConfig) -> dict[str, Float[Array, ""]]:
    """Returns the metrics about what mixing keeps."""
    return make_normalizer(config).figures(_as_memory(state).returns)


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


def per_count(
    value: Float[Array, "T B"], episode_count: Int[Array, "T B"] | UInt8[Array, "T B"], exponent: float
) -> Float[Array, "T B"]:
    """Returns value / episode_count^exponent."""
    return value / episode_count.astype(jnp.float32) ** exponent


def mix_rewards(
    extrinsic: Float[Array, "T B"],
    score: Float[Array, "T B"],
    episode_count: Int[Array, "T B"] | UInt8[Array, "T B"],
    *,
    extrinsic_coef: float,
    intrinsic_coef: float | Float[Array, ""],
    count_exponent: float,
) -> MixedReward:
    """Returns extrinsic_coef * extrinsic + intrinsic_coef * score / episode_count^count_exponent, and both parts.

    Source: Zheng et al. (arXiv 2410.23022); dividing by episodic counts after Klissarov et al. (arXiv 2310.00166).
    """
    paid = extrinsic_coef * extrinsic
    earned = per_count(intrinsic_coef * score, episode_count, count_exponent)
    return MixedReward(total=paid + earned, extrinsic=paid, intrinsic=earned)


def caption_stats(
    caption_id: Int[Array, "T B"],
    episode_count: UInt8[Array, "T B"],
    earned: Float[Array, "T B"],
    *,
    num_captions: int,
) -> CaptionStats:
    """Sums what each caption did in a rollout.

    Args:
        earned: what was paid for the caption of each step, after coefficients and guards.
    """
    says = (caption_id != EMPTY_ID).astype(jnp.int32)

    def total(values: Array) -> Array:
        return jax.ops.segment_sum(values.reshape(-1), caption_id.reshape(-1), num_captions)

    return CaptionStats(
        num_steps=total(says), num_episodes=total(says * (episode_count == 1)), reward_sum=total(earned)
    )


def share_of(part: Float[Array, "T B"], whole: Float[Array, "T B"], paid: Float[Array, "T B"]) -> Float[Array, "T B"]:
    """Returns paid * part / whole: what one of the parts got where a guard paid `paid` for `whole`; 0 for 0."""
    return part * jnp.where(whole == 0.0, 0.0, paid / jnp.where(whole == 0.0, 1.0, whole))


@runtime_checkable
class Mix(Protocol):
    """From scores of captions, and rewards of steps, to the reward that the policy learns from."""

    def __call__(
        self,
        state: MixState,
        extrinsic: Float[Array, "T B"],
        reset: Bool[Array, "T B"],
        caption_id: Int[Array, "T B"],
        caption_score: Float[Array, " V"],
        intrinsic_coef: float | Float[Array, ""] = ...,
        bonus: Float[Array, "T B"] | None = None,
    ) -> tuple[MixState, MixedReward, CaptionStats]:
        """Mixes one rollout. `bonus` costs nothing where there is none."""
        ...


def make_mix(
    config: RewardConfig, *, discount: float = PPOConfig.discount, episodic: bool = True, across: Across = ALONE
) -> Mix:
    """Returns the pure function from scores to rewards.

    It is `(state, extrinsic, reset, caption_id, caption_score, intrinsic_coef, bonus) -> (state, reward, stats)`:

        intrinsic_t = intrinsic_coef / scale * (score(caption_t) / N_episode(caption_t)^beta + bonus_t)

    A score goes through the guard, is divided by the episodic count, and gets the bonus of the step added, which is no
    matter of captions (`oni.rewards.novelty`). The sum is divided by the running scale, multiplied by the coefficient,
    and looked at by the guard once more. What comes out is what is paid. The statistics hold what captions earned of
    it: where a guard cuts the sum, caption and bonus lose the same share.

    Args:
        discount: of the return whose scale is learned. episodic: whether that return ends with the episode.
        across: all devices; the scale and the statistics are of the games of all.
    """
    guard, normalizer = make_guard(config), make_normalizer(config, across=across)

    def mix(
        state: MixState,
        extrinsic: Float[Array, "T B"],
        reset: Bool[Array, "T B"],
        caption_id: Int[Array, "T B"],
        caption_score: Float[Array, " V"],
        intrinsic_coef: float | Float[Array, ""] = config.intrinsic_coef,
        bonus: Float[Array, "T B"] | None = None,
    ) -> tuple[MixState, MixedReward, CaptionStats]:
        counts, guarding, returns = _as_memory(state)
        counts, number = count_in_episode(counts, caption_id, reset)
        guarding, score = guard.on_score(guarding, caption_score[caption_id], reset)
        worth = per_count(score, number, config.count_exponent)
        ends = reset if episodic else jnp.zeros_like(reset)
        returns = normalizer.update(returns, worth if bonus is None else worth + bonus, ends, discount)
        coef = intrinsic_coef / normalizer.scale(returns)
        reward = mix_rewards(
            extrinsic,
            score,
            number,
            extrinsic_coef=config.extrinsic_coef,
            intrinsic_coef=coef,
            count_exponent=config.count_exponent,
        )
        wanted = reward.intrinsic if bonus is None else reward.intrinsic + coef * bonus
        guarding, paid = guard.on_reward(guarding, wanted, extrinsic, reset)
        earned = paid if bonus is None else share_of(reward.intrinsic, wanted, paid)
        reward = reward._replace(total=reward.extrinsic + paid, intrinsic=paid)
        stats = caption_stats(caption_id, number, earned, num_captions=caption_score.shape[0])
        return _as_state(MixMemory(counts=counts, guard=guarding, returns=returns)), reward, across.sum(stats)

    return mix
