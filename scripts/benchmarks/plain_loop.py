"""PPO as a plain loop, with nothing of oni but the network: what `overhead` compares with.

In the style of PureJaxRL (Lu et al., 2022): one jitted function, the library's own environment and auto-reset.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import xminigrid
from xminigrid.wrappers import GymAutoResetWrapper

from oni.config import TrainConfig
from oni.networks import ActorCritic, act, init_params, unroll


class Transition(NamedTuple):
    """One step of all games."""

    obs: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array
    reset: jax.Array


def make_plain_update(config: TrainConfig, network: ActorCritic, spec: Any) -> tuple[Any, Any]:
    """Returns the first carry and the jitted function from carry to carry: one rollout and its gradient steps."""
    ppo = config.ppo
    env, env_params = xminigrid.make(config.env.id.partition(":")[2])
    env = GymAutoResetWrapper(env)
    num_envs = config.env.num_envs
    optimizer = optax.chain(optax.clip_by_global_norm(ppo.max_grad_norm), optax.adam(ppo.learning_rate, eps=1e-5))

    def env_step(carry: Any, _: None) -> tuple[Any, Transition]:
        params, opt_state, timestep, core, reset, key = carry
        key, act_key = jax.random.split(key)
        obs = timestep.observation
        core, logits, value = act(network, params, core, obs, reset)
        action = jax.random.categorical(act_key, logits)
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], axis=1)[:, 0]
        timestep = jax.vmap(env.step, in_axes=(None, 0, 0))(env_params, timestep, action)
        done = timestep.last()
        transition = Transition(obs, action, log_prob, value, timestep.reward, done, reset)
        return (params, opt_state, timestep, core, done, key), transition

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

    def update(carry: Any) -> Any:
        core_before = carry[3]
        carry, rollout = jax.lax.scan(env_step, carry, None, ppo.num_steps)
        params, opt_state, timestep, core, reset, key = carry
        last_value = act(network, params, core, timestep.observation, reset)[2]
        advantage = advantages(rollout, last_value)
        data = (rollout, advantage, advantage + rollout.value)

        def epoch(state: Any, epoch_key: jax.Array) -> tuple[Any, None]:
            games = jax.random.permutation(epoch_key, num_envs)
            parts = ppo.num_minibatches

            def split(leaf: jax.Array) -> jax.Array:
                shuffled = leaf[:, games]
                return jnp.swapaxes(shuffled.reshape(leaf.shape[0], parts, -1, *leaf.shape[2:]), 0, 1)

            cores = jax.tree.map(lambda leaf: leaf[games].reshape(parts, -1, *leaf.shape[1:]), core_before)
            return jax.lax.scan(minibatch, state, (cores, *jax.tree.map(split, data)))

        key, epochs_key = jax.random.split(key)
        epoch_keys = jax.random.split(epochs_key, ppo.num_epochs)
        (params, opt_state), _ = jax.lax.scan(epoch, (params, opt_state), epoch_keys)
        return params, opt_state, timestep, core, reset, key

    reset_key, params_key, key = jax.random.split(jax.random.key(config.seed), 3)
    params = init_params(network, spec, params_key)
    timestep = jax.jit(jax.vmap(env.reset, in_axes=(None, 0)))(env_params, jax.random.split(reset_key, num_envs))
    timestep = jax.tree.map(
        lambda leaf: leaf if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jnp.array(leaf, leaf.dtype),
        timestep,
    )
    carry = (params, optimizer.init(params), timestep, network.initial_state(num_envs), jnp.ones(num_envs, bool), key)
    return carry, jax.jit(update)
