"""One environment of Gymnasium as a worker plays it."""

import copy
import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from envs.errors import EnvError, UnknownEnv
from envs.gymnasium.spaces import Part, parts_of, write
from envs.host.arena import CAPTION_BYTES
from envs.host.types import Arrays, GameStep

_SEEDS = 1 << 31
"""Seeds below it are good for every environment: some hand theirs on to C code."""

_SUCCESS = ("is_success", "success")
"""What environments call it in `info`."""


class Transition(NamedTuple):
    """What a captioner is told: the observation before, the action, and what it led to, as the environment has them.

    truncated: whether the environment itself cut the episode off, not the step limit that it is played with.
    """

    before: Any
    action: int
    obs: Any
    reward: float
    terminated: bool
    info: Mapping[str, Any]
    truncated: bool = False


Captioner = Callable[[Transition], str | bytes]
"""Says what an action did, nothing for most of them. It must depend on the transition alone."""


def load_captioner(name: str) -> Captioner:
    """Returns the function behind `package.module:function`.

    Raises:
        EnvError: there is none.
    """
    try:
        module, _, function = name.partition(":")
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise EnvError(f"captioner is {name!r}, expected a function as package.module:function ({error})") from error
    if not callable(found):
        raise EnvError(f"captioner {name!r} is a {type(found).__name__}, expected a function")
    captioner: Any = found  # what it takes and gives shows when it is called
    return captioner


def make_env(env_id: str, kwargs: Mapping[str, Any]) -> Any:
    """Makes an environment without Gymnasium's step limit and checks.

    Raises:
        UnknownEnv: Gymnasium does not know it.
        EnvError: Gymnasium cannot make it.
    """
    import gymnasium

    try:
        return gymnasium.make(env_id, max_episode_steps=-1, disable_env_checker=True, **kwargs)
    except gymnasium.error.UnregisteredEnv as error:
        raise UnknownEnv(f"Gymnasium has no environment {env_id!r}: {error}") from error
    except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:
        raise EnvError(f"Gymnasium cannot make {env_id!r}: {error}") from error


def make_game(
    *, env_id: str, kwargs: Mapping[str, Any], max_episode_steps: int, captioner: str | None = None
) -> "GymnasiumGame":
    """Makes a game in a worker process; the options are those of `envs.gymnasium.adapter.make`."""
    said = None if captioner is None else load_captioner(captioner)
    return GymnasiumGame(make_env(env_id, kwargs), said, max_episode_steps)


class GymnasiumGame:
    """Plays an environment. Where it cuts an episode off by itself, as its own `TimeLimit` does, that is truncation.

    max_episode_steps: it is cut off there anyway, so what it says of success counts then.
    """

    def __init__(self, env: Any, captioner: Captioner | None, max_episode_steps: int) -> None:
        self._env = env
        self._captioner = captioner
        self._limit = max_episode_steps
        self._length = 0
        self._parts: list[Part] = parts_of(env.observation_space)
        self._first_action = int(env.action_space.start)
        self._obs: Any = None
        self._ending = ""

    def attach(self, raw: Arrays) -> None:
        self._raw = raw

    def reset(self, seed: int) -> None:
        obs, _ = self._env.reset(seed=seed % _SEEDS)
        self._ending = ""
        self._length = 0
        self._show(obs)

    def step(self, action: int) -> GameStep:
        before = self._obs
        obs, reward, terminated, truncated, info = self._env.step(self._first_action + action)
        terminated, truncated = bool(terminated), bool(truncated and not terminated)
        self._length += 1
        self._show(obs)
        said = b""
        if self._captioner is not None:
            transition = Transition(before, action, obs, float(reward), terminated, info, truncated)
            said = _encode(self._captioner(transition))
        over = terminated or truncated or self._length >= self._limit
        success = over and any(bool(info.get(name, False)) for name in _SUCCESS)
        if over:
            self._ending = "it was a success" if success else "terminated" if terminated else "truncated"
        return GameStep(float(reward), terminated, said, success, truncated)

    def stats(self) -> Mapping[str, float]:
        return {}

    def ending(self) -> str:
        return self._ending

    def close(self) -> None:
        self._env.close()

    def _show(self, obs: Any) -> None:
        # A copy for the captioner: environments may write the next observation into the same arrays.
        self._obs = None if self._captioner is None else copy.deepcopy(obs)
        write(self._parts, obs, self._raw)


def _encode(said: str | bytes) -> bytes:
    text = said.encode() if isinstance(said, str) else said
    return text[:CAPTION_BYTES].decode(errors="ignore").encode() if isinstance(said, str) else text[:CAPTION_BYTES]
