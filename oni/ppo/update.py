"""The update of recurrent PPO: mixed rewards in, better parameters out."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from oni.config import PPOConfig
from oni.devices import ALONE, Across
from oni.networks import ActorCritic, unroll
from oni.ppo.loss import categorical_entropy, categorical_log_prob, ppo_loss
from oni.ppo.streams import advantages_and_targets, reward_streams
from oni.types import CoreState, MixedReward, Rollout


class LearnerState(NamedTuple):
    """Parameters and the state of the optimizer."""

    params: Any
    opt_state: optax.OptState


class Batch(NamedTuple):
    """What the gradient steps see of a rollout; sequences stay whole, games are shuffled.

    advantage: before normalisation. target: what the value should have been.
    """

    obs: Array
    action: Int[Array, "T B"]
    log_prob: Float[Array, "T B"]
    value: Float[Array, "T B *V"]
    reset: Bool[Array, "T B"]
    advantage: Float[Array, "T B"]
    target: Float[Array, "T B *V"]


class Learner(NamedTuple):
    """init: params -> LearnerState. update: (state, rollout, reward, key) -> (state, metrics)."""

    init: Callable[[Any], LearnerState]
    update: Callable[
        [LearnerState, Rollout, MixedReward, PRNGKeyArray], tuple[LearnerState, dict[str, Float[Array, ""]]]
    ]


def make_optimizer(config: PPOConfig, *, num_updates: int) -> optax.GradientTransformation:
    """Creates Adam behind clipping by global norm."""
    steps = num_updates * config.num_epochs * config.num_minibatches
    rate = (
        optax.linear_schedule(config.learning_rate, 0.0, steps) if config.anneal_learning_rate else config.learning_rate
    )
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(rate, eps=1e-5))


def make_learner(network: ActorCritic, config: PPOConfig, *, num_updates: int, across: Across = ALONE) -> Learner:
    """Returns the pure functions of PPO for a network with `config.value_heads` values.

    On several devices each shuffles its own games and puts an equal share of them into every minibatch; gradients,
    metrics, and the moments that normalise advantages are over the games of all.

    Raises:
        ValueError: the network has another number of them.
    """
    streams = reward_streams(config)
    if network.num_values != len(streams):
        raise ValueError(f"the network has {network.num_values} value heads, and ppo.value_heads is {len(streams)}")
    optimizer = make_optimizer(config, num_updates=num_updates)

    def loss_fn(params: Any, core_state: CoreState, batch: Batch) -> tuple[Array, dict[str, Array]]:
        logits, value = unroll(network, params, core_state, batch.obs, batch.reset)
        advantage = batch.advantage
        if config.normalize_advantage:
            mean, var = across.moments(advantage)
            advantage = (advantage - mean) / (jnp.sqrt(var) + 1e-8)
        terms = ppo_loss(
            categorical_log_prob(logits, batch.action),
            batch.log_prob,
            advantage,
            value,
            batch.value,
            batch.target,
            categorical_entropy(logits),
            clip_eps=config.clip_eps,
            value_clip_eps=config.value_clip_eps,
        )
        loss = terms.policy + config.value_coef * terms.value - config.entropy_coef * terms.entropy
        return loss, {f"loss/{name}": term for name, term in terms._asdict().items()}

    def gradient_step(state: LearnerState, minibatch: tuple[CoreState, Batch]) -> tuple[LearnerState, dict[str, Array]]:
        (_, metrics), grads = across.mean(jax.value_and_grad(loss_fn, has_aux=True)(state.params, *minibatch))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics["loss/grad_norm"] = optax.tree.norm(grads)
        return LearnerState(params=optax.apply_updates(state.params, updates), opt_state=opt_state), metrics

    def epoch(state: LearnerState, core_state: CoreState, batch: Batch, key: PRNGKeyArray) -> tuple[LearnerState, Any]:
        num_envs = batch.reset.shape[1]
        index = jax.random.permutation(across.own_key(key), num_envs).reshape(config.num_minibatches, -1)

        def on_games(state: LearnerState, games: Array) -> tuple[LearnerState, dict[str, Array]]:
            part = jax.tree.map(lambda leaf: leaf[:, games], batch)
            return gradient_step(state, (jax.tree.map(lambda leaf: leaf[games], core_state), part))

        return jax.lax.scan(on_games, state, index)

    def update(
        state: LearnerState, rollout: Rollout, reward: MixedReward, key: PRNGKeyArray
    ) -> tuple[LearnerState, dict[str, Array]]:
        advantage, target = advantages_and_targets(reward, rollout, streams, gae_lambda=config.gae_lambda)
        batch = Batch(
            obs=rollout.obs,
            action=rollout.action,
            log_prob=rollout.log_prob,
            value=rollout.value,
            reset=rollout.reset,
            advantage=advantage,
            target=target,
        )
        state, metrics = jax.lax.scan(
            lambda s, k: epoch(s, rollout.initial_core_state, batch, k), state, jax.random.split(key, config.num_epochs)
        )
        return state, jax.tree.map(jnp.mean, metrics)

    return Learner(init=lambda params: LearnerState(params=params, opt_state=optimizer.init(params)), update=update)
