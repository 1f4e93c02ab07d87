"""Advantages where extrinsic and intrinsic reward have values of their own."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from oni.config import PPOConfig
from oni.ppo.gae import generalized_advantages
from oni.types import MixedReward, Rollout


class Stream(NamedTuple):
    """One return. discount: worth of a reward one step later. episodic: whether it ends with the episode."""

    discount: float
    episodic: bool


def reward_streams(config: PPOConfig) -> tuple[Stream, ...]:
    """Returns the streams of reward, one for each value head; intrinsic reward belongs to the last one."""
    whole = Stream(discount=config.discount, episodic=True)
    if config.value_heads == 1:
        return (whole,)
    return whole, Stream(discount=config.intrinsic_discount, episodic=config.intrinsic_episodic)


def _stream_advantages(
    reward: Float[Array, "T B"],
    value: Float[Array, "T B"],
    last_value: Float[Array, " B"],
    bootstrap_value: Float[Array, "T B"],
    rollout: Rollout,
    stream: Stream,
    gae_lambda: float,
) -> Float[Array, "T B"]:
    never = jnp.zeros_like(rollout.terminated)
    return generalized_advantages(
        reward,
        value,
        last_value,
        rollout.terminated if stream.episodic else never,
        rollout.truncated if stream.episodic else never,
        bootstrap_value,
        discount=stream.discount,
        gae_lambda=gae_lambda,
    )


def advantages_and_targets(
    reward: MixedReward, rollout: Rollout, streams: tuple[Stream, ...], *, gae_lambda: float
) -> tuple[Float[Array, "T B"], Float[Array, "T B *V"]]:
    """Returns the advantage of every action, and what each value should have been.

    With one stream both are of the total reward. With two, extrinsic and intrinsic, each has its own values and

        advantage = advantage_extrinsic + advantage_intrinsic      target_s = advantage_s + value_s

    (coefficients are in the rewards already). A stream that is not episodic runs on through ends of episodes: what
    follows the last step is the value of the next episode's first observation, so that an end costs the novelty of
    what comes after it and nothing else.

    Source: Burda et al., "Exploration by Random Network Distillation" (arXiv 1810.12894), section 2.3.
    """
    if len(streams) == 1:
        values = (rollout.value, rollout.last_value, rollout.bootstrap_value)
        advantage = _stream_advantages(reward.total, *values, rollout, streams[0], gae_lambda)
        return advantage, advantage + rollout.value
    apart = jnp.stack(
        [
            _stream_advantages(
                part,
                rollout.value[..., head],
                rollout.last_value[..., head],
                rollout.bootstrap_value[..., head],
                rollout,
                stream,
                gae_lambda,
            )
            for head, (part, stream) in enumerate(zip((reward.extrinsic, reward.intrinsic), streams, strict=True))
        ],
        axis=-1,
    )
    return apart.sum(-1), apart + rollout.value
