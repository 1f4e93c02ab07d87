"""Games for the tests of `envs.host`: one that remembers all it was told, and what can go wrong with a game."""

import itertools
import os
import signal
import sys
import time
import zlib
from pathlib import Path

import numpy as np

from envs.errors import EnvError
from envs.host.types import GameStep
from envs.spec import EnvSpec, ObsSpec

LIMIT = 12

RAW = {
    "state": ObsSpec((3,), np.dtype(np.int64)),
    "screen": ObsSpec((2, 4), np.dtype(np.uint8), num_values=(256, 256, 256, 256)),
}


def crash():
    raise RuntimeError("the dungeon collapsed")


def segfault():
    os.kill(os.getpid(), signal.SIGSEGV)


def sleep():
    time.sleep(1000)


def hold_the_gil():
    all(itertools.repeat(True))


FAULTS = {"raise": crash, "segfault": segfault, "sleep": sleep, "spin": hold_the_gil}
ACTIONS = ("left", "right", "wait", *FAULTS)


class Hall:
    """Every byte it shows depends on its seed and on all actions since. Ends by itself now and then.

    tripwire: while this file exists, a reset kills the process; a reset with the seed `curse` always does. version 2
    shows something else; version 3 ends sooner.
    """

    def __init__(self, tripwire="", curse=-1, version=1):
        self._tripwire, self._curse, self._version = tripwire, curse, version

    def attach(self, raw):
        self._raw = raw

    def reset(self, seed):
        if seed == self._curse or (self._tripwire and Path(self._tripwire).exists()):
            sys.stderr.write("the roof came down\n")
            os._exit(3)
        self._mind, self._steps = zlib.crc32(str(seed).encode()), 0
        self._write()

    def step(self, action):
        if ACTIONS[action] in FAULTS:
            FAULTS[ACTIONS[action]]()
        self._steps += 1
        self._mind = zlib.crc32(bytes([action]), self._mind)
        self._write()
        terminated = self._mind % 11 == 0 or self._version == 3
        caption = b"\xff" * 2000 if self._mind % 13 == 0 else b"You hear %d." % self._mind if self._mind % 3 else b""
        return GameStep(self._mind / 2**32, terminated, caption, success=terminated and self._mind % 2 == 0)

    def stats(self):
        return {"steps": self._steps, "mind": self._mind % 1000}

    def ending(self):
        return f"after {self._steps} steps, in awe " + "é" * 100

    def close(self):
        pass

    def _write(self):
        self._raw["state"][:] = self._mind, self._steps, self._version
        self._raw["screen"][:] = np.frombuffer(np.int64(self._mind).tobytes(), np.uint8).reshape(2, 4)


def make_hall(**options):
    return Hall(**options)


def make_refused(message, kind="env"):
    if kind == "env":
        raise EnvError(message)
    if kind == "import":
        import a_library_that_nobody_has  # noqa: F401 # pyright: ignore[reportMissingImports]
    raise ValueError(message)


class HallEnv:
    """The hall, or another game that shows the same. All that is observed is what the game wrote."""

    def __init__(self, factory="make_hall", limit=LIMIT, **options):
        self.factory = f"{__name__}:{factory}"
        self.options = options
        self.raw = RAW
        self.spec = EnvSpec(
            id="test:hall",
            obs=RAW,
            action_names=ACTIONS,
            max_episode_steps=limit,
            says_text=True,
            episode_stats=("steps", "mind"),
        )

    def observe(self, raw):
        return dict(raw)  # views, so that the pool has to take care


class QuietHallEnv(HallEnv):
    """A hall without the actions that are faults."""

    def __init__(self, factory="make_hall", **options):
        super().__init__(factory, **options)
        self.spec = self.spec._replace(action_names=ACTIONS[:3])


class SlowHall(Hall):
    """Takes its time for a step."""

    def step(self, action):
        time.sleep(0.15)
        return super().step(action)


def make_slow():
    return SlowHall()


class ChattyHall(Hall):
    """Says on its standard output what nobody reads."""

    def step(self, action):
        os.write(1, b"step\n" * 20_000)
        return super().step(action)


def make_chatty():
    return ChattyHall()
