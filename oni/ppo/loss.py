"""The losses of PPO, as functions of batches of any shape."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def categorical_log_prob(logits: Float[Array, "*N A"], action: Int[Array, "*N"]) -> Float[Array, "*N"]:
    """Returns the natural log-probability of each action."""
    log_p = jax.nn.log_softmax(logits)
    # A sum over one-hot is faster than a gather, and far faster in its gradient, for a handful of actions.
    return (log_p * jax.nn.one_hot(action, logits.shape[-1])).sum(-1)


def categorical_entropy(logits: Float[Array, "*N A"]) -> Float[Array, "*N"]:
    """Returns the entropy of each distribution, in nats."""
    log_p = jax.nn.log_softmax(logits)
    return -(jnp.exp(log_p) * log_p).sum(-1)


class PPOLossTerms(NamedTuple):
    """Means over the batch. value: summed over value heads. kl: the estimator `(ratio - 1) - log ratio`, in nats."""

    policy: Float[Array, ""]
    value: Float[Array, ""]
    entropy: Float[Array, ""]
    kl: Float[Array, ""]
    clip_fraction: Float[Array, ""]


def ppo_loss(
    log_prob: Float[Array, "*N"],
    old_log_prob: Float[Array, "*N"],
    advantage: Float[Array, "*N"],
    value: Float[Array, "*M"],
    old_value: Float[Array, "*M"],
    target: Float[Array, "*M"],
    entropy: Float[Array, "*N"],
    *,
    clip_eps: float,
    value_clip_eps: float | None,
) -> PPOLossTerms:
    """Returns the terms of the PPO loss.

        ratio  = exp(log_prob - old_log_prob)
        policy = -mean(min(ratio * adv, clip(ratio, 1 - eps, 1 + eps) * adv))
        value  = 0.5 * mean((value - target)^2), summed over value heads

    Args:
        value: has the axes of `log_prob`, and with several heads one more at the end.
        value_clip_eps: also takes the worse of the value error and that of a value clipped to this distance from the
            old one; None leaves it out.

    Source: Schulman et al., "Proximal Policy Optimization Algorithms" (arXiv 1707.06347); value clipping as in its
    published code; the estimator of the KL divergence is k3 of Schulman, "Approximating KL Divergence" (2020).
    """
    log_ratio = log_prob - old_log_prob
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - clip_eps, 1.0 + clip_eps)
    policy = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
    error = jnp.square(value - target)
    if value_clip_eps is not None:
        near = old_value + jnp.clip(value - old_value, -value_clip_eps, value_clip_eps)
        error = jnp.maximum(error, jnp.square(near - target))
    return PPOLossTerms(
        policy=policy,
        value=0.5 * error.mean(tuple(range(log_prob.ndim))).sum(),
        entropy=entropy.mean(),
        kl=(ratio - 1.0 - log_ratio).mean(),
        clip_fraction=(jnp.abs(ratio - 1.0) > clip_eps).mean(),
    )
