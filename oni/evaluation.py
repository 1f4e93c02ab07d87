"""Plays episodes with a trained policy and says how sure the figures are."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from envs.vector import VectorEnv
from oni.networks import ActorCritic, act
from oni.rollout import start
from oni.types import ActorState

MAX_GAMES = 256
"""Games played at once."""

_CHUNK_STEPS = 64
_Z95 = 1.959964
"""Quantile of the normal distribution for 95% confidence."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% confidence interval."""

    mean: float
    low: float
    high: float


def wilson(successes: int, trials: int) -> Estimate:
    """Estimates a rate by Wilson's score interval (Wilson, 1927), which stays within [0, 1]."""
    z2 = _Z95**2
    rate = successes / trials
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z95 / (1 + z2 / trials) * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials**2))
    return Estimate(mean=rate, low=max(0.0, centre - half), high=min(1.0, centre + half))


def mean_interval(values: np.ndarray) -> Estimate:
    """Estimates a mean by the normal approximation; the interval is as wide as the data for a single value."""
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean, mean, mean)
    half = _Z95 * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


class Episodes(NamedTuple):
    """One entry an episode.

    stats: `episode_stats` of the environment by name. ending: in words, empty where the environment says nothing.
    """

    success: np.ndarray
    extrinsic_return: np.ndarray
    length: np.ndarray
    stats: Mapping[str, np.ndarray] = {}
    ending: Sequence[str] = ()


class _Step(NamedTuple):
    ended: Array
    success: Array
    extrinsic_return: Array
    length: Array
    stats: Array


Choose = Callable[[Array, Array], Array]
"""From a key and logits to actions."""


def sample(key: Array, logits: Array) -> Array:
    """Draws actions as in training."""
    return jax.random.categorical(key, logits)


def greedy(_key: Array, logits: Array) -> Array:
    """Takes the most likely actions."""
    return logits.argmax(-1)


def make_step(env: VectorEnv[Any], network: ActorCritic, choose: Choose) -> Callable[..., tuple[ActorState, Any]]:
    """Returns the pure function `(params, actor, key) -> (actor, (action, timestep))` that plays one step."""

    def step(params: Any, actor: ActorState, key: Array) -> tuple[ActorState, Any]:
        act_key, env_key = jax.random.split(key)
        core, logits, _ = act(network, params, actor.core_state, actor.obs, actor.reset)
        action = choose(act_key, logits)
        env_state, timestep = env.step(env_key, actor.env_state, action)
        ended = timestep.terminated | timestep.truncated
        actor = ActorState(
            env_state=env_state,
            obs=timestep.obs,
            core_state=core,
            reset=ended,
            episode_return=jnp.where(actor.reset, 0.0, actor.episode_return) + timestep.reward,
            episode_length=jnp.where(actor.reset, 0, actor.episode_length) + 1,
        )
        return actor, (action, timestep)

    return step


def play(
    env: VectorEnv[Any], network: ActorCritic, params: Any, *, num_episodes: int, seed: int, choose: Choose = sample
) -> Episodes:
    """Plays `num_episodes`, the same number in every game (rounded up), so that short ones do not count more."""
    step = make_step(env, network, choose)
    names = env.spec.episode_stats

    def body(params: Any, actor: ActorState, key: Array) -> tuple[ActorState, _Step]:
        actor, (_, timestep) = step(params, actor, key)
        ended = timestep.terminated | timestep.truncated
        stats = timestep.info["stats"] if names else jnp.zeros((env.num_envs, 0))
        return actor, _Step(ended, timestep.info["success"], actor.episode_return, actor.episode_length, stats)

    @jax.jit
    def chunk(params: Any, actor: ActorState, key: Array) -> tuple[ActorState, _Step]:
        return jax.lax.scan(lambda a, k: body(params, a, k), actor, jax.random.split(key, _CHUNK_STEPS))

    start_key, play_key = jax.random.split(jax.random.key(seed))
    actor = jax.jit(lambda key: start(env, network, key))(start_key)
    per_game = -(-num_episodes // env.num_envs)
    done = np.zeros(env.num_envs, int)
    rows: list[tuple[bool, float, int, np.ndarray]] = []
    for number in _count():
        actor, steps = chunk(params, actor, jax.random.fold_in(play_key, number))
        host: _Step = jax.device_get(steps)
        for t, game in np.argwhere(host.ended):
            if done[game] < per_game:
                done[game] += 1
                success, paid, length, stats = (leaf[t, game] for leaf in host[1:])
                rows.append((bool(success), float(paid), int(length), np.asarray(stats)))
        if (done >= per_game).all():
            break
    success, returns, length, stats = map(np.array, zip(*rows, strict=True))
    return Episodes(success, returns, length, {name: stats[:, i] for i, name in enumerate(names)})


def _count() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


class Frame(NamedTuple):
    """One moment of a recorded episode: the picture before the action, the action, and what it led to."""

    picture: np.ndarray
    action: str
    reward: float
    caption: str


def record(
    env: VectorEnv[Any], network: ActorCritic, params: Any, *, num_episodes: int, seed: int, choose: Choose = sample
) -> Iterator[list[Frame]]:
    """Plays episodes one by one in a vector of one game, with a picture of every step."""
    step = jax.jit(make_step(env, network, choose))
    start_key, play_key = jax.random.split(jax.random.key(seed))
    actor = jax.jit(lambda key: start(env, network, key))(start_key)
    number = 0
    for _ in range(num_episodes):
        frames: list[Frame] = []
        ended = False
        while not ended:
            state = jax.tree.map(lambda leaf: leaf[0], actor.env_state)
            picture = env.env.render(state)  # pyright: ignore[reportAttributeAccessIssue]
            actor, (action, timestep) = step(params, actor, jax.random.fold_in(play_key, number))
            number += 1
            event = np.asarray(timestep.event[0])
            caption = env.env.describe(event) if event.any() else ""
            frames.append(Frame(picture, env.spec.action_names[int(action[0])], float(timestep.reward[0]), caption))
            ended = bool(timestep.terminated[0] | timestep.truncated[0])
        yield frames
