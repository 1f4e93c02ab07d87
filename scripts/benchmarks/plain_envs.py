"""Games for the plain loop: B of them in lock step, begun anew as a user of each library would do it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.types import JaxEnv
from oni.config import EnvConfig
from oni.errors import OniError

STEPS_PER_WORLD = 16
"""Games that share one new world a step where resets are optimistic: one of 16 games at most is expected to end."""

_KNOWN_OPTIONS = {
    "xminigrid": {"talkative", "view_size", "max_steps", "ruleset", "difficulty"},
    "gymnax": {"max_steps"},
}
"""Options that are handed on, and `talkative`, which changes nothing but what is said."""


class PlainEnv(NamedTuple):
    """reset: key -> (state, obs). step: (key, state, action) -> (state, obs, reward, done), begun anew where done."""

    reset: Callable[[jax.Array], tuple[Any, Any]]
    step: Callable[[jax.Array, Any, jax.Array], tuple[Any, Any, jax.Array, jax.Array]]


def _strong(tree: Any) -> Any:
    """Returns the tree without weak types, which would compile the loop twice."""
    return jax.tree.map(
        lambda leaf: leaf if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jnp.array(leaf, leaf.dtype),
        tree,
    )


def _xminigrid(config: EnvConfig, env: JaxEnv[Any]) -> PlainEnv:
    """The library's environment and its own auto-reset."""
    del env  # observes the same
    import xminigrid
    from xminigrid.wrappers import GymAutoResetWrapper

    from envs.minigrid.adapter import DIFFICULTY
    from envs.minigrid.rulesets import sample_rulesets

    name, options = config.id.partition(":")[2], config.options
    library, params = xminigrid.make(
        name, **{key: options[key] for key in ("view_size", "max_steps") if key in options}
    )
    if name.startswith("XLand-"):
        rules = sample_rulesets(int(options.get("ruleset", 0)), 1, str(options.get("difficulty", DIFFICULTY)))
        params = params.replace(ruleset=jax.tree.map(lambda leaf: leaf[0], rules))
    wrapped = GymAutoResetWrapper(library)

    def reset(key: jax.Array) -> tuple[Any, Any]:
        keys = jax.random.split(key, config.num_envs)
        timestep = _strong(jax.vmap(wrapped.reset, in_axes=(None, 0))(params, keys))
        return timestep, timestep.observation

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Any, jax.Array, jax.Array]:
        del key  # it is in the state
        timestep = jax.vmap(wrapped.step, in_axes=(None, 0, 0))(params, state, action)
        return timestep, timestep.observation, timestep.reward, timestep.last()

    return PlainEnv(reset, step)


def _gymnax(config: EnvConfig, env: JaxEnv[Any]) -> PlainEnv:
    """The library's environment and its own auto-reset."""
    import gymnax

    library, params = gymnax.make(config.id.partition(":")[2])
    if "max_steps" in config.options:
        params = params.replace(max_steps_in_episode=config.options["max_steps"])
    shape, dtype = env.spec.obs.shape, env.spec.obs.dtype  # pyright: ignore[reportAttributeAccessIssue]

    def observed(obs: Any) -> jax.Array:
        return obs.reshape(-1, *shape).astype(dtype)

    def reset(key: jax.Array) -> tuple[Any, Any]:
        obs, state = jax.vmap(library.reset, in_axes=(0, None))(jax.random.split(key, config.num_envs), params)
        # a step or two settle the types of a state that begins with Python numbers
        action = jnp.zeros(config.num_envs, jnp.int32)
        for _ in range(2):
            like = jax.eval_shape(lambda s: step(key, s, action)[0], state)
            state = jax.tree.map(lambda leaf, to: leaf.astype(to.dtype), _strong(state), like)
        return state, observed(obs)

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Any, jax.Array, jax.Array]:
        keys = jax.random.split(key, config.num_envs)
        stepped = jax.vmap(library.step, in_axes=(0, 0, 0, None))(keys, state, action, params)
        obs, state, reward, terminated, truncated, _ = stepped
        return state, observed(obs), jnp.asarray(reward, jnp.float32), terminated | truncated

    return PlainEnv(reset, step)


def _optimistic(config: EnvConfig, env: JaxEnv[Any]) -> PlainEnv:
    """The functions of one game with optimistic resets, as users of Craftax do: few new worlds a step, shared.

    What a game says is not used here, so the compiler leaves it out.
    """
    num_envs = config.num_envs
    num_worlds = max(1, num_envs // STEPS_PER_WORLD)

    def begin(key: jax.Array, count: int) -> tuple[Any, Any]:
        state, timestep = jax.vmap(env.reset)(jax.random.split(key, count))
        return state, timestep.obs

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Any, jax.Array, jax.Array]:
        step_key, reset_key = jax.random.split(key)
        state, timestep = jax.vmap(env.step)(jax.random.split(step_key, num_envs), state, action)
        done = timestep.terminated | timestep.truncated
        world = (jnp.cumsum(done) - 1) % num_worlds

        def chosen(old: jax.Array, new: jax.Array) -> jax.Array:
            return jnp.where(done.reshape(-1, *[1] * (old.ndim - 1)), new[world], old)

        state, obs = jax.tree.map(chosen, (state, timestep.obs), begin(reset_key, num_worlds))
        return state, obs, timestep.reward, done

    return PlainEnv(lambda key: begin(key, num_envs), step)


def make_plain_env(config: EnvConfig, env: JaxEnv[Any]) -> PlainEnv:
    """Returns the games of the plain loop.

    Args:
        env: ours; the plain loop observes the same, so that the network is the same.

    Raises:
        OniError: an option means something for the game, and is not handed on to the library here.
    """
    family = config.id.partition(":")[0]
    make = {"xminigrid": _xminigrid, "gymnax": _gymnax}.get(family, _optimistic)
    if make is not _optimistic and (unknown := config.options.keys() - _KNOWN_OPTIONS[family]):
        raise OniError(f"the plain loop of {family} does not know env.options.{min(unknown)}: leave it out")
    return make(config, env)
