"""One environment of EnvPool as a worker process of ours plays it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.envpool.captions import Narrator
from envs.envpool.library import describe, make_envs
from envs.envpool.observe import Observer
from envs.host.types import Arrays, GameStep

_SEEDS = 1 << 31  # EnvPool's are of 32 bits


def paid_by_limit(reward: np.ndarray, length: np.ndarray, limit: int) -> np.ndarray:
    """Returns MiniGrid's rewards for episodes of a step limit: a success pays `1 - 0.9 * length / limit`.

    The library calls all that ends on the last step a truncation, so the limit that it is given lies one step beyond,
    and it pays by that one. What else there is of rewards is left as it is.
    """
    return np.where(reward > 0, 1 - 0.9 * length / limit, reward).astype(np.float32)


def make_game(*, name: str, kwargs: Mapping[str, Any], captions: Mapping[str, bool] | None) -> "EnvPoolGame":
    """Makes a game in a worker process; the options are those of `envs.envpool.adapter.EnvPoolEnv`."""
    narrator = None if captions is None else Narrator(**captions)
    return EnvPoolGame(name, kwargs, Observer(describe(name, kwargs).observation_space), narrator)


class EnvPoolGame:
    """Plays an environment that is made anew for each episode: EnvPool takes a seed only then.

    That takes a millisecond for MiniGrid and a hundred for Atari, so Atari is better played by `EnvPoolEnv.open_pool`.
    """

    def __init__(self, name: str, kwargs: Mapping[str, Any], observer: Observer, narrator: Narrator | None) -> None:
        self._name = name
        self._kwargs = kwargs
        self._observer = observer
        self._narrator = narrator
        self._limit = int(kwargs["max_episode_steps"]) - 1
        self._length = 0
        self._env: Any = None
        self._ending = ""

    def attach(self, raw: Arrays) -> None:
        self._raw = raw

    def reset(self, seed: int) -> None:
        self.close()
        self._env = make_envs(name=self._name, kwargs=self._kwargs, num_envs=1, seed=seed % _SEEDS, num_threads=1)
        self._ending = ""
        self._length = 0
        self._show(self._env.reset()[0])

    def step(self, action: int) -> GameStep:
        chosen = np.array([action], np.int32)
        before = self._seen
        obs, reward, terminated, truncated, _ = self._env.step(chosen)
        self._show(obs)
        self._length += 1
        said = b""
        if self._narrator is not None:
            reward = paid_by_limit(reward, np.array([self._length]), self._limit)
            (said,) = self._narrator.say(before, self._seen, chosen, reward, terminated)
        over = bool(terminated[0])
        success = over and self._narrator is not None and bool(reward[0] > 0)
        self._ending = "it was a success" if success else "terminated" if over else "truncated"
        return GameStep(float(reward[0]), over, said, success, truncated=bool(truncated[0]) and not over)

    def stats(self) -> Mapping[str, float]:
        return {}

    def ending(self) -> str:
        return self._ending

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def _show(self, obs: Any) -> None:
        self._seen = self._observer.read(obs)
        for name, array in self._seen.items():
            self._raw[name][...] = array[0]
