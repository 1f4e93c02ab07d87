"""Anakin rollouts: the games step inside jit, next to the policy (Hessel et al., arXiv 2104.06272)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from envs.types import TimeStep
from envs.vector import VectorEnv, replace_rows
from oni.devices import ALONE, Across
from oni.networks import ActorCritic, act
from oni.ppo.loss import categorical_log_prob
from oni.types import ActorState, CoreState, Rollout


def start(env: VectorEnv[Any], network: ActorCritic, key: PRNGKeyArray, *, across: Across = ALONE) -> ActorState:
    """Starts an episode in every game."""
    env_state, timestep = env.reset(key, first_row=across.number * env.num_envs)
    num_envs = env.num_envs
    return ActorState(
        env_state=env_state,
        obs=timestep.obs,
        core_state=network.initial_state(num_envs),
        reset=jnp.ones(num_envs, bool),
        episode_return=jnp.zeros(num_envs),
        episode_length=jnp.zeros(num_envs, jnp.int32),
    )


def _values_where(mask: Array, network: ActorCritic, params: Any, core_state: CoreState, obs: Any) -> Array:
    """Returns the values of the rows that `mask` names, zeros elsewhere; only those are computed."""

    def rows(index: Array) -> Array:
        core_rows, obs_rows = jax.tree.map(lambda leaf: leaf[index], (core_state, obs))
        return act(network, params, core_rows, obs_rows, jnp.zeros(index.shape, bool))[2]

    return replace_rows(mask, jnp.zeros(mask.shape + network.value_shape), rows)


Collect = Callable[[Any, ActorState, PRNGKeyArray], tuple[ActorState, Rollout, Array]]


def make_collect(env: VectorEnv[Any], network: ActorCritic, *, num_steps: int, across: Across = ALONE) -> Collect:
    """Returns the pure function `(params, actor_state, key) -> (actor_state, rollout, event)`.

    event: `uint8[T, B, E]`, what each action caused.

    Args:
        env: the games of one device. across: all devices; together they play what one would play.
    """

    def ended_stats(timestep: TimeStep, ended: Array) -> Array:
        if not env.spec.episode_stats:
            return jnp.zeros((env.num_envs, 0))
        return jnp.where(ended[:, None], timestep.info["stats"], 0.0)

    def step(params: Any, actor: ActorState, key: PRNGKeyArray) -> tuple[ActorState, tuple[Rollout, Array], Array]:
        act_key, env_key = jax.random.split(key)
        core_state, logits, value = act(network, params, actor.core_state, actor.obs, actor.reset)
        action = across.categorical(act_key, logits)
        first_row = across.number * env.num_envs
        env_state, timestep = env.step(env_key, actor.env_state, action, first_row=first_row)
        last_obs = timestep.obs if timestep.final_obs is None else timestep.final_obs
        ended = timestep.terminated | timestep.truncated
        episode_return = actor.episode_return + timestep.reward
        episode_length = actor.episode_length + 1
        transition = Rollout(
            obs=actor.obs,
            action=action,
            log_prob=categorical_log_prob(logits, action),
            value=value,
            reset=actor.reset,
            reward=timestep.reward,
            terminated=timestep.terminated,
            truncated=timestep.truncated,
            bootstrap_value=_values_where(timestep.truncated, network, params, core_state, last_obs),
            episode_return=episode_return,
            episode_length=episode_length,
            success=timestep.info["success"],
            stats=jnp.zeros(()),
            lost=jnp.zeros_like(timestep.truncated),
            initial_core_state=(),
            last_value=jnp.zeros(()),
            last_obs=(),
        )
        actor = ActorState(
            env_state=env_state,
            obs=timestep.obs,
            core_state=core_state,
            reset=ended,
            episode_return=jnp.where(ended, 0.0, episode_return),
            episode_length=jnp.where(ended, 0, episode_length),
        )
        return actor, (transition, timestep.event), ended_stats(timestep, ended)

    def collect(params: Any, actor: ActorState, key: PRNGKeyArray) -> tuple[ActorState, Rollout, Array]:
        def body(carry: tuple[ActorState, Array], key: PRNGKeyArray) -> tuple[Any, tuple[Rollout, Array]]:
            actor, stats = carry
            actor, played, ended = step(params, actor, key)
            return (actor, stats + ended), played

        initial_core_state = actor.core_state
        no_stats = jnp.zeros((env.num_envs, len(env.spec.episode_stats)))
        (actor, stats), (rollout, event) = jax.lax.scan(body, (actor, no_stats), jax.random.split(key, num_steps))
        _, _, last_value = act(network, params, actor.core_state, actor.obs, actor.reset)
        rollout = rollout._replace(
            initial_core_state=initial_core_state, last_value=last_value, last_obs=actor.obs, stats=stats
        )
        return actor, rollout, event

    return collect
