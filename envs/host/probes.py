"""Four probes of `envs.probes` as games in worker processes: what each isolates, a learner on host games must do too.

Each episode draws a cue of +1 or -1 and lasts a fixed number of steps. This file is also the shortest example of a
game of one's own: `ProbeGame` is what runs in a worker, `HostProbe` what is fixed about it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.host.types import Arrays, GameStep, HostEnv
from envs.spec import EnvSpec, ObsSpec

_FLOAT32 = np.dtype(np.float32)

Rule = Callable[[float, int, int], float]
"""From cue, step (before the action, from 0) and action to a number."""


@dataclass(frozen=True)
class Probe:
    """What one probe does.

    length: steps of an episode. obs: from cue and step to the two observed numbers. reward: of an action.
    decides: whether the action on the last step makes the success. captions: of the wrong and the right action.
    truncates: the episode ends by time limit instead of by itself. pays: the reward, in a few words.
    """

    pays: str
    length: int = 1
    num_actions: int = 2
    obs: Callable[[float, int], tuple[float, float]] = lambda cue, step: (0.0, 0.0)
    reward: Rule = lambda cue, step, action: 0.0
    decides: bool = True
    captions: tuple[bytes, bytes] = (b"", b"")
    truncates: bool = False


def _matches(cue: float, action: int) -> bool:
    return (action == 1) == (cue > 0)


def _sign(right: bool) -> float:
    return 1.0 if right else -1.0


PROBES = {
    "obs-policy": Probe(
        "1 for the action shown, else -1",
        obs=lambda cue, step: (cue, 0.0),
        reward=lambda cue, step, action: _sign(_matches(cue, action)),
    ),
    "memory": Probe(
        "1 at the end for the action shown at the start, else -1",
        length=4,
        obs=lambda cue, step: (cue if step == 0 else 0.0, step / 4),
        reward=lambda cue, step, action: _sign(_matches(cue, action)) if step == 3 else 0.0,
    ),
    "time-limit": Probe(
        "1 a step", length=5, num_actions=1, reward=lambda cue, step, action: 1.0, decides=False, truncates=True
    ),
    "intrinsic": Probe(
        "nothing", length=2, obs=lambda cue, step: (cue, 0.0), captions=(b"You hear the wind.", b"You find a coin.")
    ),
}


class ProbeGame:
    """Plays one probe. The only figure of an episode is its cue."""

    def __init__(self, name: str) -> None:
        self._probe = PROBES[name]
        self._signal = np.zeros(2, np.float32)
        self._cue, self._step = 1.0, 0

    def attach(self, raw: Arrays) -> None:
        self._signal = raw["signal"]

    def reset(self, seed: int) -> None:
        self._cue, self._step = _sign(seed % 2 == 0), 0
        self._write()

    def step(self, action: int) -> GameStep:
        probe, cue, step = self._probe, self._cue, self._step
        self._step += 1
        self._write()
        ended, right = self._step >= probe.length, _matches(cue, action)
        return GameStep(
            reward=probe.reward(cue, step, action),
            terminated=ended and not probe.truncates,
            caption=probe.captions[right],
            success=ended and (right or not probe.decides),
        )

    def stats(self) -> Mapping[str, float]:
        return {"cue": self._cue}

    def ending(self) -> str:
        return "the time was up" if self._probe.truncates else "the cue was answered"

    def close(self) -> None:
        """Holds nothing."""

    def _write(self) -> None:
        self._signal[:] = self._probe.obs(self._cue, self._step)


def make_game(name: str) -> ProbeGame:
    """Creates the game of a probe, in a worker."""
    return ProbeGame(name)


class HostProbe:
    """A probe as `HostEnv`: two numbers observed as `signal`, a caption where the probe has one."""

    factory = "envs.host.probes:make_game"

    def __init__(self, name: str) -> None:
        probe = PROBES[name]
        self.raw: Mapping[str, ObsSpec] = {"signal": ObsSpec((2,), _FLOAT32)}
        self.options: Mapping[str, Any] = {"name": name}
        self.spec = EnvSpec(
            id=f"hostprobe:{name}",
            obs=self.raw,
            action_names=tuple(f"action {i}" for i in range(probe.num_actions)),
            max_episode_steps=probe.length,
            says_text=any(probe.captions),
            episode_stats=("cue",),
            reward=probe.pays,
        )

    def observe(self, raw: Arrays) -> dict[str, np.ndarray]:
        return {"signal": raw["signal"].copy()}


def names() -> list[str]:
    """Lists the probes: the part of the id after `hostprobe:`."""
    return list(PROBES)


def make(name: str) -> HostEnv:
    """Creates a probe."""
    return HostProbe(name)
