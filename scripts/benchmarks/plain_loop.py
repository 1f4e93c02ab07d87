"""PPO as a plain loop, with nothing of oni but the network: what `anakin` compares with.

In the style of PureJaxRL (Lu et al., 2022): one jitted function from carry to carry.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from plain_envs import make_plain_env

from envs.types import JaxEnv
from oni.config import TrainConfig
from oni.networks import ActorCritic, act, init_params, unroll


class Transition(NamedTuple):
    """One step of all games."""

    obs: Any
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array
    reset: jax.Array


class Carry(NamedTuple):
    """All that goes from one update to the next."""

    params: Any
    opt_state: Any
    env_state: Any
    obs: Any
    core: Any
    reset: jax.Array
    key: jax.Array


def make_plain_update(config: TrainConfig, network: ActorCritic, env: JaxEnv[Any]) -> tuple[Carry, Any]:
    """Returns the first carry and the jitted function from carry to carry: one rollout and its gradient steps."""
    ppo = config.ppo
    games = make_plain_env(config.env, env)
    num_envs = config.env.num_envs
    optimizer = optax.chain(optax.clip_by_global_norm(ppo.max_grad_norm), optax.adam(ppo.learning_rate, eps=1e-5))

    def env_step(carry: Carry, _: None) -> tuple[Carry, Transition]:
        key, act_key, env_key = jax.random.split(carry.key, 3)
        core, logits, value = act(network, carry.params, carry.core, carry.obs, carry.reset)
        action = jax.random.categorical(act_key, logits)
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], axis=1)[:, 0]
        env_state, obs, reward, done = games.step(env_key, carry.env_state, action)
        transition = Transition(carry.obs, action, log_prob, value, reward, done, carry.reset)
        return carry._replace(env_state=env_state, obs=obs, core=core, reset=done, key=key), transition

    def advantages(rollout: Transition, last_value: jax.Array) -> jax.Array:
        def back(carry: Any, step: Transition) -> tuple[Any, jax.Array]:
            advantage, following = carry
            delta = step.reward + ppo.discount * following * (1 - step.done) - step.value
            advantage = delta + ppo.discount * ppo.gae_lambda * (1 - step.done) * advantage
            return (advantage, step.value), advantage

        return jax.lax.scan(back, (jnp.zeros_like(last_value), last_value), rollout, reverse=True)[1]

    def loss_fn(params: Any, core: Any, batch: Transition, advantage: jax.Array, target: jax.Array) -> jax.Array:
        logits, value = unroll(network, params, core, batch.obs, batch.reset)
        log_p = jax.nn.log_softmax(logits)
        ratio = jnp.exp(jnp.take_along_axis(log_p, batch.action[..., None], axis=-1)[..., 0] - batch.log_prob)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        clipped = jnp.clip(ratio, 1 - ppo.clip_eps, 1 + ppo.clip_eps)
        policy = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
        entropy = -(jnp.exp(log_p) * log_p).sum(-1).mean()
        value_loss = 0.5 * jnp.square(value - target).mean()
        return policy + ppo.value_coef * value_loss - ppo.entropy_coef * entropy

    def minibatch(carry: Any, data: Any) -> tuple[Any, None]:
        params, opt_state = carry
        grads = jax.grad(loss_fn)(params, *data)
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    def update(carry: Carry) -> Carry:
        core_before = carry.core
        carry, rollout = jax.lax.scan(env_step, carry, None, ppo.num_steps)
        last_value = act(network, carry.params, carry.core, carry.obs, carry.reset)[2]
        advantage = advantages(rollout, last_value)
        data = (rollout, advantage, advantage + rollout.value)

        def epoch(state: Any, epoch_key: jax.Array) -> tuple[Any, None]:
            order = jax.random.permutation(epoch_key, num_envs)
            parts = ppo.num_minibatches

            def split(leaf: jax.Array) -> jax.Array:
                shuffled = leaf[:, order]
                return jnp.swapaxes(shuffled.reshape(leaf.shape[0], parts, -1, *leaf.shape[2:]), 0, 1)

            cores = jax.tree.map(lambda leaf: leaf[order].reshape(parts, -1, *leaf.shape[1:]), core_before)
            return jax.lax.scan(minibatch, state, (cores, *jax.tree.map(split, data)))

        key, epochs_key = jax.random.split(carry.key)
        epoch_keys = jax.random.split(epochs_key, ppo.num_epochs)
        (params, opt_state), _ = jax.lax.scan(epoch, (carry.params, carry.opt_state), epoch_keys)
        return carry._replace(params=params, opt_state=opt_state, key=key)

    reset_key, params_key, key = jax.random.split(jax.random.key(config.seed), 3)
    params = jax.jit(lambda k: init_params(network, env.spec, k))(params_key)
    env_state, obs = jax.jit(games.reset)(reset_key)
    carry = Carry(
        params=params,
        opt_state=optimizer.init(params),
        env_state=env_state,
        obs=obs,
        core=network.initial_state(num_envs),
        reset=jnp.ones(num_envs, bool),
        key=key,
    )
    return carry, jax.jit(update)
