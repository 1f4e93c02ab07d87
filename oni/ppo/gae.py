"""Generalized advantage estimation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def generalized_advantages(
    reward: Float[Array, "T B"],
    value: Float[Array, "T B"],
    last_value: Float[Array, " B"],
    terminated: Bool[Array, "T B"],
    truncated: Bool[Array, "T B"],
    bootstrap_value: Float[Array, "T B"],
    *,
    discount: float,
    gae_lambda: float,
) -> Float[Array, "T B"]:
    """Estimates how much better each action was than the value expected before it.

    With `end = terminated | truncated`:

        next_t  = 0 where terminated, bootstrap_t where truncated, else value_{t+1}
        delta_t = reward_t + discount * next_t - value_t
        adv_t   = delta_t + discount * gae_lambda * (1 - end_t) * adv_{t+1}

    So a time limit ends the trace, but not the value of what would have come after it.

    Args:
        last_value: value of the observation that follows the last step.
        bootstrap_value: value of the true last observation of an episode; read only where truncated.

    Source: Schulman et al., "High-Dimensional Continuous Control Using Generalized Advantage Estimation" (arXiv
    1506.02438); bootstrapping at time limits after Pardo et al. (arXiv 1712.00378).
    """
    next_value = jnp.concatenate([value[1:], last_value[None]])
    next_value = jnp.where(truncated, bootstrap_value, next_value) * ~terminated
    delta = reward + discount * next_value - value
    decay = discount * gae_lambda * ~(terminated | truncated)

    def body(advantage: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        step_delta, step_decay = step
        advantage = step_delta + step_decay * advantage
        return advantage, advantage

    _, advantage = jax.lax.scan(body, jnp.zeros_like(last_value), (delta, decay), reverse=True, unroll=8)
    return advantage
