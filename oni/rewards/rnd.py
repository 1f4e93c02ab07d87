"""Random network distillation: what a trained network cannot predict yet is new.

Source: Burda et al., "Exploration by Random Network Distillation" (arXiv 1810.12894).
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from envs.spec import EnvSpec, ObsSpec
from oni.config import NetworkConfig, RNDConfig
from oni.devices import ALONE, SAME, Across
from oni.networks.encoders import make_encoder
from oni.rewards.normalizing import LAYOUT, ReturnStats, add_returns, empty_stats, merge_moments, scale_of
from oni.rewards.novelty import StepReward, ends
from oni.types import Rollout

_MAX_DEVIATION = 5.0
"""Standard deviations at which a normalised number is clipped. Source: section 2.4 of the paper."""

_MIN_STD = 0.01
"""The least that a number is divided by, so that one that was constant so far is no more than a surprise."""


class ObsStats(NamedTuple):
    """Moments of one observation of numbers, entry by entry. num_steps: steps that they are over."""

    num_steps: Float[Array, ""]
    mean: Float[Array, "..."]
    var: Float[Array, "..."]


class RNDState(NamedTuple):
    """target: parameters that never change. obs: `ObsStats`, or () where observations are categories."""

    target: Any
    predictor: Any
    opt_state: optax.OptState
    obs: Any
    returns: ReturnStats


class Predictor(nn.Module):
    """An encoder like the target's with a linear layer behind it."""

    encoder: nn.Module
    size: int

    @nn.compact
    def __call__(self, obs: Any) -> Float[Array, "N size"]:
        return nn.Dense(self.size)(self.encoder(obs))


def _is_spec(leaf: Any) -> bool:
    return isinstance(leaf, ObsSpec)


def empty_obs_stats(spec: EnvSpec) -> Any:
    """Returns the moments before the first step."""

    def one(obs: ObsSpec) -> Any:
        if obs.num_values is not None:
            return ()
        return ObsStats(num_steps=jnp.zeros(()), mean=jnp.zeros(obs.shape), var=jnp.zeros(obs.shape))

    return jax.tree.map(one, spec.obs, is_leaf=_is_spec)


def add_observations(stats: Any, obs: Any, spec: EnvSpec, *, across: Across = ALONE) -> Any:
    """Adds observations `[N, ...]`, of all devices, to the moments; those of categories have none."""

    def one(obs_spec: ObsSpec, old: Any, leaf: Array) -> Any:
        if obs_spec.num_values is not None:
            return ()
        values = leaf.astype(jnp.float32)
        new = leaf.shape[0] * across.size
        count = old.num_steps + new
        mean, var = merge_moments(old.mean, old.var, *across.moments(values, axis=0), new / count)
        return ObsStats(num_steps=count, mean=mean, var=var)

    return jax.tree.map(one, spec.obs, stats, obs, is_leaf=_is_spec)


def normalize_observations(stats: Any, obs: Any, spec: EnvSpec) -> Any:
    """Returns (number - mean) / standard deviation, clipped to [-5, 5]; categories stay as they are."""

    def one(obs_spec: ObsSpec, moments: Any, leaf: Array) -> Array:
        if obs_spec.num_values is not None:
            return leaf
        deviation = (leaf - moments.mean) / jnp.maximum(jnp.sqrt(moments.var), _MIN_STD)
        return jnp.clip(deviation, -_MAX_DEVIATION, _MAX_DEVIATION)

    return jax.tree.map(one, spec.obs, stats, obs, is_leaf=_is_spec)


def _flat(obs: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), obs)


def make_rnd(config: RNDConfig, spec: EnvSpec, *, across: Across = ALONE) -> StepReward:
    """Creates the reward of not being predictable.

        error_t = mean over features of (predictor(obs_{t+1}) - target(obs_{t+1}))^2
        bonus_t = error_t / running standard deviation of the discounted sum of errors

    The target is a random network that never changes; the predictor learns from a share of each rollout after it was
    scored. Numbers are normalised by their running moments, this rollout included; categories are embedded at random
    by the target and anew by the predictor. The sum runs on through ends of episodes. The last step of an episode gets
    0 (see `oni.rewards.novelty.ends`). On several devices each draws the steps to learn from out of its own games.
    """
    network = NetworkConfig(embed_size=config.embed_size, hidden_size=config.feature_size)
    target = make_encoder(network, spec)
    predictor = Predictor(encoder=make_encoder(network, spec), size=config.feature_size)
    optimizer = optax.adam(config.learning_rate)

    def errors(params: Any, state: RNDState, obs: Any) -> Float[Array, " N"]:
        obs = normalize_observations(state.obs, obs, spec)
        wanted = target.apply({"params": state.target}, obs)
        predicted = predictor.apply({"params": params}, obs)
        return jnp.square(predicted - jax.lax.stop_gradient(wanted)).mean(-1)  # pyright: ignore[reportOperatorIssue]

    def init(key: PRNGKeyArray, num_envs: int) -> RNDState:
        obs = jax.tree.map(lambda one: jnp.zeros((1, *one.shape), one.dtype), spec.obs, is_leaf=_is_spec)
        stats = empty_obs_stats(spec)
        obs = normalize_observations(stats, obs, spec)
        target_key, predictor_key = jax.random.split(key)
        params = predictor.init(predictor_key, obs)["params"]
        return RNDState(
            target=target.init(target_key, obs)["params"],
            predictor=params,
            opt_state=optimizer.init(params),
            obs=stats,
            returns=empty_stats(num_envs),
        )

    def score(state: RNDState, rollout: Rollout) -> tuple[RNDState, Float[Array, "T B"]]:
        after = jax.tree.map(lambda leaf, last: jnp.concatenate([leaf[1:], last[None]]), rollout.obs, rollout.last_obs)
        after = _flat(after)
        state = state._replace(obs=add_observations(state.obs, after, spec, across=across))
        error = errors(state.predictor, state, after).reshape(rollout.reward.shape)
        error = jnp.where(ends(rollout), 0.0, error)
        never = jnp.zeros_like(rollout.reset)
        returns = add_returns(state.returns, error, never, discount=config.discount, across=across)
        return state._replace(returns=returns), error / scale_of(returns)

    def learn(state: RNDState, rollout: Rollout, key: PRNGKeyArray) -> tuple[RNDState, dict[str, Float[Array, ""]]]:
        obs, num_steps = _flat(rollout.obs), rollout.reward.size
        size = max(1, round(num_steps * config.learn_share / config.num_minibatches))
        rows = jax.random.randint(across.own_key(key), (config.num_minibatches, size), 0, num_steps)

        def gradient_step(state: RNDState, index: Array) -> tuple[RNDState, Array]:
            part = jax.tree.map(lambda leaf: leaf[index], obs)
            loss, grads = across.mean(
                jax.value_and_grad(lambda params: errors(params, state, part).mean())(state.predictor)
            )
            updates, opt_state = optimizer.update(grads, state.opt_state, state.predictor)
            params = optax.apply_updates(state.predictor, updates)
            return state._replace(predictor=params, opt_state=opt_state), loss

        state, losses = jax.lax.scan(gradient_step, state, rows)
        return state, {"novelty/rnd_error": losses.mean(), "novelty/rnd_scale": scale_of(state.returns)}

    layout = RNDState(target=SAME, predictor=SAME, opt_state=SAME, obs=SAME, returns=LAYOUT)  # pyright: ignore[reportArgumentType]
    return StepReward(init=init, score=score, learn=learn, layout=layout)
