"""Checks that an environment keeps the contract of `envs.types` or `envs.host.types`, for ours and for yours."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.host.testing import check_host_env, require
from envs.host.types import HostEnv
from envs.types import EnvSpec, JaxEnv, TimeStep
from envs.vector import VectorEnv


class Checked(NamedTuple):
    """What was seen of an environment that keeps the contract.

    captions: distinct ones that came up. Of a `JaxEnv`, else None: compile_s, seconds to trace and compile a loop that
    plays `num_envs` games and begins new episodes in them; state_bytes, memory that the state of one game takes.
    """

    captions: int
    compile_s: float | None = None
    state_bytes: int | None = None


def _signature(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype), bool(leaf.weak_type)), tree)


def _by_name(obs: Any) -> Mapping[str, Any]:
    """Returns observations, or what the spec says of them, by name; a single one has the empty name."""
    return obs if isinstance(obs, Mapping) else {"": obs}


def _called(name: str) -> str:
    return f"obs {name}" if name else "obs"


def _check_shapes(spec: EnvSpec, timestep: TimeStep, where: str) -> None:
    observed, promises = _by_name(timestep.obs), _by_name(spec.obs)
    require(
        observed.keys() == promises.keys(),
        f"{where}: obs has {sorted(observed)}, the spec promises {sorted(promises)}",
    )
    for name, promised in promises.items():
        obs = observed[name]
        require(
            obs.shape == promised.shape and obs.dtype == promised.dtype,
            f"{where}: {_called(name)} is {obs.dtype}{list(obs.shape)}, "
            f"the spec promises {promised.dtype}{list(promised.shape)}",
        )
    for name, dtype in (("reward", jnp.float32), ("terminated", jnp.bool_), ("truncated", jnp.bool_)):
        leaf = getattr(timestep, name)
        require(
            leaf.shape == () and leaf.dtype == dtype,
            f"{where}: {name} is {leaf.dtype}{list(leaf.shape)}, expected a {jnp.dtype(dtype)} scalar",
        )
    event = timestep.event
    require(
        event.shape == (spec.event_size,) and event.dtype == jnp.uint8,
        f"{where}: event is {event.dtype}{list(event.shape)}, the spec promises uint8[{spec.event_size}]",
    )
    require("success" in timestep.info, f"{where}: info has no 'success'")
    if spec.episode_stats:
        stats, size = timestep.info.get("stats"), len(spec.episode_stats)
        require(
            stats is not None and stats.shape == (size,) and stats.dtype == jnp.float32,
            f"{where}: info['stats'] must be float32[{size}], one for each of spec.episode_stats",
        )
    require(timestep.final_obs is None, f"{where}: a single environment leaves final_obs to VectorEnv (None)")


def check_env(env: JaxEnv[Any] | HostEnv, *, seed: int = 0, num_envs: int = 8, num_steps: int | None = None) -> int:
    """Plays random actions and checks every rule of the contract that can be seen from outside.

    Games of a `HostEnv` are played in this process and again in a worker process, which must give the same.

    Args:
        num_steps: steps played in each of `num_envs` games, default enough for one episode to be cut off, at most
            2,000.

    Returns:
        How many distinct captions came up.

    Raises:
        EnvContractError: a rule is broken; the message says which, and with what value.
    """
    return examine_env(env, seed=seed, num_envs=num_envs, num_steps=num_steps).captions


def examine_env(
    env: JaxEnv[Any] | HostEnv, *, seed: int = 0, num_envs: int = 8, num_steps: int | None = None
) -> Checked:
    """Does what `check_env` does, and returns all that was seen."""
    if isinstance(env, HostEnv):
        return Checked(check_host_env(env, seed=seed, num_envs=num_envs, num_steps=num_steps))
    return _check_jax_env(env, seed=seed, num_envs=num_envs, num_steps=num_steps)


def _check_jax_env(env: JaxEnv[Any], *, seed: int, num_envs: int, num_steps: int | None) -> Checked:
    spec = env.spec
    key = jax.random.key(seed)
    abstract_state, first = jax.eval_shape(env.reset, key)
    _check_shapes(spec, first, "reset")
    action = jax.ShapeDtypeStruct((), jnp.int32)
    next_state, timestep = jax.eval_shape(env.step, key, abstract_state, action)
    _check_shapes(spec, timestep, "step")
    require(
        _signature(abstract_state) == _signature(next_state),
        "step changes shape, dtype or weak type of the state, so every rollout would compile twice: "
        f"reset gives {_signature(abstract_state)}, step gives {_signature(next_state)}",
    )
    require(bool((~np.asarray(env.reset(key)[1].event, bool)).all()), "reset: the event of a first step must be zeros")

    steps = num_steps or min(spec.max_episode_steps + 1, 2_000)
    rollout, compile_s = _play(VectorEnv(env, num_envs), key, steps)
    again, _ = _play(VectorEnv(env, num_envs), key, steps)
    same = all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in zip(jax.tree.leaves(rollout), jax.tree.leaves(again), strict=True)
    )
    require(same, "the same key and actions gave two different episodes")
    captions = _check_episodes(env, rollout, complete=steps > spec.max_episode_steps)
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract_state))
    return Checked(captions, compile_s, state_bytes)


def _play(env: VectorEnv[Any], key: jax.Array, num_steps: int) -> tuple[TimeStep, float]:
    """Returns random play, each time traced anew, and the seconds that compiling it took."""

    def body(carry: tuple[Any, jax.Array], step_key: jax.Array) -> tuple[Any, TimeStep]:
        state, length = carry
        action_key, env_key = jax.random.split(step_key)
        action = jax.random.randint(action_key, (env.num_envs,), 0, env.spec.num_actions)
        state, timestep = env.step(env_key, state, action)
        length = length + 1
        ended = timestep.terminated | timestep.truncated
        timestep = timestep._replace(info={**timestep.info, "length": length})
        return (state, jnp.where(ended, 0, length)), timestep

    def play(key: jax.Array) -> TimeStep:
        reset_key, play_key = jax.random.split(key)
        state, _ = env.reset(reset_key)
        carry = (state, jnp.zeros(env.num_envs, jnp.int32))
        return jax.lax.scan(body, carry, jax.random.split(play_key, num_steps))[1]

    begun = time.perf_counter()
    compiled = jax.jit(play).lower(key).compile()
    compile_s = time.perf_counter() - begun
    return jax.device_get(compiled(key)), compile_s


def _check_episodes(env: JaxEnv[Any], rollout: TimeStep, *, complete: bool) -> int:
    spec = env.spec
    terminated, truncated = np.asarray(rollout.terminated), np.asarray(rollout.truncated)
    ended = terminated | truncated
    length = np.asarray(rollout.info["length"])
    require(not (terminated & truncated).any(), "a step is both terminated and truncated")
    require(bool(np.isfinite(rollout.reward).all()), "a reward is not finite")
    require(bool(np.isfinite(rollout.info.get("stats", 0.0)).all()), "a figure of info['stats'] is not finite")
    require(
        bool((length <= spec.max_episode_steps).all()),
        f"an episode lasted {length.max()} steps, the spec promises at most {spec.max_episode_steps}",
    )
    require(
        bool((length[truncated] == spec.max_episode_steps).all()),
        f"an episode was truncated before the {spec.max_episode_steps} steps of the spec",
    )
    require(ended.any() or not complete, "no episode ended, although the step limit was passed")
    require(
        not (np.asarray(rollout.info["success"]) & ~ended).any(), "info['success'] is true before the end of an episode"
    )
    for name, promised in _by_name(spec.obs).items():
        if promised.num_values is not None:
            highest = np.asarray(_by_name(rollout.obs)[name]).reshape(-1, promised.shape[-1]).max(axis=0)
            require(
                bool((highest < np.asarray(promised.num_values)).all()),
                f"{_called(name)} reaches {highest.tolist()}, the spec promises values below {promised.num_values}",
            )
    return _check_captions(env, np.asarray(rollout.event))


def _check_captions(env: JaxEnv[Any], event: np.ndarray) -> int:
    if env.spec.event_size == 0:
        return 0
    codes = np.unique(event.reshape(-1, env.spec.event_size), axis=0)
    said = [env.describe(code) for code in codes if code.any()]
    for caption in said:
        require(isinstance(caption, str), f"describe returned {type(caption).__name__}, expected str")
    return len({caption for caption in said if caption})
