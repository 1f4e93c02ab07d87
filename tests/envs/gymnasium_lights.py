"""An environment of one's own for Gymnasium, with a captioner, for the tests."""

import random

import gymnasium
import numpy as np
from gymnasium import spaces

LAMPS = "no function"


class Lights(gymnasium.Env):
    """Four lamps and a mission: switch the named one on. The observation is one and the same dict of arrays."""

    COLORS = ("red", "green", "blue", "white")

    def __init__(self, lamps=4):
        self.action_space = spaces.Discrete(lamps, start=1)
        self.observation_space = spaces.Dict(
            {
                "lamps": spaces.MultiBinary(lamps),
                "wanted": spaces.Discrete(lamps),
                "mission": spaces.Text(50),
                "where": spaces.Dict({"x": spaces.Box(-1.0, 1.0, (2,), np.float64)}),
            }
        )
        self._lamps = np.zeros(lamps, np.int8)
        self._obs = {"lamps": self._lamps, "wanted": 0, "mission": "", "where": {"x": np.zeros(2)}}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._lamps[:] = 0
        self._obs["where"]["x"][:] = self.np_random.uniform(size=2)
        wanted = int(self.np_random.integers(len(self._lamps)))
        self._obs.update(wanted=wanted, mission=f"switch on the {self.COLORS[wanted]} lamp")
        return self._obs, {}

    def step(self, action):
        lamp = action - 1
        self._lamps[lamp] ^= 1
        won = bool(lamp == self._obs["wanted"])
        return self._obs, float(won), won, bool(self._lamps.all()), {"is_success": won}


gymnasium.register("oni-tests/Lights-v0", entry_point=Lights, max_episode_steps=12)


class Lamp(gymnasium.Env):
    """Pays 1 a step for ever; what is seen is a number that every process draws for itself, if it draws."""

    def __init__(self, draws=False):
        self.action_space = spaces.Discrete(1)
        self.observation_space = spaces.Box(0.0, 1.0, (2,), np.float32)
        self._draws = draws

    def _obs(self):
        return np.full(2, random.random() if self._draws else 0.0, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._obs(), {}

    def step(self, action):
        return self._obs(), 1.0, False, False, {"is_success": True}


def timed(steps=5, **kwargs):
    """The lamp with a limit of its own, which Gymnasium's registry does not know of."""
    return gymnasium.wrappers.TimeLimit(Lamp(**kwargs), steps)


gymnasium.register("oni-tests/TimedLamp-v0", entry_point=timed)
gymnasium.register("oni-tests/RandomLamp-v0", entry_point=Lamp, nondeterministic=True, kwargs={"draws": True})
gymnasium.register("oni-tests/SecretlyRandomLamp-v0", entry_point=Lamp, kwargs={"draws": True})


def say_end(transition):
    return "The time is up." if transition.truncated else "That is the end." if transition.terminated else ""


def say(transition):
    (lamp,) = np.flatnonzero(transition.before["lamps"] != transition.obs["lamps"])
    state = "on" if transition.obs["lamps"][lamp] else "off"
    said = f"Mission: {transition.obs['mission']}. The {Lights.COLORS[lamp]} lamp goes {state}."
    return said.encode() if transition.info["is_success"] else said
