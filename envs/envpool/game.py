"""One environment of EnvPool as a worker process of ours plays it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.envpool.captions import Narrator
from envs.envpool.library import describe, make_envs
from envs.envpool.observe import Observer
from envs.host.types import Arrays, GameStep

_SEEDS = 1 << 31  # EnvPool's are of 32 bits


def terminated_for_good(terminated: np.ndarray, reward: np.ndarray, *, captioned: bool) -> np.ndarray:
    """Returns where episodes ended for good.

    MiniGrid's reward depends on its step limit, so the library is given the very limit that is played with, and calls
    a success on the last step a truncation; there is no other reward than that of success. (The limit that the library
    is given of other environments lies one step beyond.)
    """
    return terminated | (reward > 0) if captioned else terminated


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
        self._env: Any = None
        self._ending = ""

    def attach(self, raw: Arrays) -> None:
        self._raw = raw

    def reset(self, seed: int) -> None:
        self.close()
        self._env = make_envs(name=self._name, kwargs=self._kwargs, num_envs=1, seed=seed % _SEEDS, num_threads=1)
        self._ending = ""
        self._show(self._env.reset()[0])

    def step(self, action: int) -> GameStep:
        chosen = np.array([action], np.int32)
        before = self._seen
        obs, reward, terminated, truncated, _ = self._env.step(chosen)
        self._show(obs)
        said = b""
        terminated = terminated_for_good(terminated, reward, captioned=self._narrator is not None)
        if self._narrator is not None:
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
