"""Plays whole episodes in games that run in worker processes."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from envs.host.types import HostEnv, HostTimeStep, HostVectorEnv
from oni.actors.games import open_games
from oni.evaluation import Choose, Episodes
from oni.networks import ActorCritic, Params, act

MAX_HOST_GAMES = 32
"""Games played at once."""


class _Row(NamedTuple):
    """One finished episode."""

    success: bool
    extrinsic_return: float
    length: int
    stats: dict[str, float]
    ending: str


class _Player:
    """The policy in front of one group of games."""

    def __init__(self, env: HostVectorEnv, network: ActorCritic, params: Params, choose: Choose, key: Any) -> None:
        self._env = env
        self._params = params
        self._key = key
        self._core_state = network.initial_state(env.num_envs)
        self._reset = np.ones(env.num_envs, bool)
        self._return = np.zeros(env.num_envs)
        self._length = np.zeros(env.num_envs, int)
        self._obs = env.reset().obs
        self.done = np.zeros(env.num_envs, int)

        def chosen(params: Params, core_state: Any, obs: Any, reset: Any, key: Any, t: Any) -> Any:
            core_state, logits, _ = act(network, params, core_state, obs, reset)
            return core_state, choose(jax.random.fold_in(key, t), logits)

        self._choose = jax.jit(chosen)

    def send(self, t: int) -> None:
        """Begins step t."""
        t_array = np.asarray(t, np.int32)
        self._core_state, action = self._choose(
            self._params, self._core_state, self._obs, self._reset, self._key, t_array
        )
        self._env.send(np.asarray(action))

    def recv(self) -> Iterator[tuple[int, _Row]]:
        """Ends the step; yields the episodes that ended, with their game."""
        step = self._env.recv()
        self._return += step.reward
        self._length += 1
        self._obs, self._reset = step.obs, step.terminated | step.truncated
        for game in np.flatnonzero(self._reset):
            if not step.info["lost"][game]:  # its worker died, and how it would have ended is not known
                yield int(game), self._row(step, int(game))
            self._return[game], self._length[game] = 0.0, 0

    def _row(self, step: HostTimeStep, game: int) -> _Row:
        return _Row(
            success=bool(step.info["success"][game]),
            extrinsic_return=float(self._return[game]),
            length=int(self._length[game]),
            stats={name: float(step.info[name][game]) for name in self._env.spec.episode_stats},
            ending=step.ending[game],
        )


def play_host(
    env: HostEnv,
    network: ActorCritic,
    params: Params,
    *,
    num_episodes: int,
    seed: int,
    choose: Choose,
    max_games: int = MAX_HOST_GAMES,
) -> Episodes:
    """Plays `num_episodes`, the same number in every game (rounded up), so that short ones do not count more.

    Raises:
        EnvError: the games cannot be played.
    """
    num_games = min(num_episodes, max_games)
    num_groups = 2 if num_games > 1 else 1
    num_games = -(-num_games // num_groups) * num_groups
    per_game = -(-num_episodes // num_games)
    rows: list[_Row] = []
    with open_games(env, num_games, seed=seed, num_groups=num_groups) as pool:
        keys = jax.random.split(jax.random.key(seed), num_groups)
        players = [_Player(group, network, params, choose, key) for group, key in zip(pool.groups, keys, strict=True)]
        t = 0
        while any((player.done < per_game).any() for player in players):
            for player in players:
                if t > 0:
                    for game, row in player.recv():
                        if player.done[game] < per_game:
                            player.done[game] += 1
                            rows.append(row)
                player.send(t)
            t += 1
        for player in players:
            list(player.recv())
    return Episodes(
        success=np.array([row.success for row in rows]),
        extrinsic_return=np.array([row.extrinsic_return for row in rows]),
        length=np.array([row.length for row in rows]),
        stats={name: np.array([row.stats[name] for row in rows]) for name in env.spec.episode_stats},
        ending=[row.ending for row in rows if row.ending],
    )
