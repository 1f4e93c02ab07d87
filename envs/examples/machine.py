"""An old machine: pull the levers in the order that a drawing shows. A wrong one sets it back; only the end pays."""

from collections.abc import Mapping

import numpy as np

from envs import Arrays, EnvSpec, Game, GameStep, ObsSpec

LEVERS = ("red", "green", "blue", "yellow", "white")
WHEELS, MAX_STEPS = 8, 100


class Machine(Game):
    """The game. Each worker process plays several; what is seen is written into the array `view`."""

    def attach(self, raw: Arrays) -> None:
        self.view = raw["view"]

    def reset(self, seed: int) -> None:
        self.drawing = np.random.default_rng(seed).integers(len(LEVERS), size=WHEELS).tolist()
        self.turning = self.most = 0
        self.look()

    def step(self, action: int) -> GameStep:
        if action == self.drawing[self.turning]:
            self.turning += 1
            said = f"Wheel {self.turning} begins to turn."
        else:
            said = "The machine rattles and stops." if self.turning else f"The {LEVERS[action]} lever springs back."
            self.turning = 0
        self.most = max(self.most, self.turning)
        won = self.turning == WHEELS
        self.look()
        return GameStep(reward=float(won), terminated=won, caption=said.encode(), success=won)

    def look(self) -> None:
        """Shows how many wheels turn, and which lever the drawing names next."""
        self.view[:] = 0.0
        if self.turning < WHEELS:
            self.view[[self.turning, WHEELS + self.drawing[self.turning]]] = 1.0

    def stats(self) -> Mapping[str, float]:
        return {"wheels": float(self.most)}


class MachineEnv:
    """What is fixed about the game. This side is in the trainer."""

    def __init__(self) -> None:
        self.factory, self.options = f"{__name__}:Machine", {}
        self.raw = {"view": ObsSpec((WHEELS + len(LEVERS),), np.dtype(np.float32))}
        self.spec = EnvSpec(
            "machine", self.raw, LEVERS, MAX_STEPS, says_text=True, episode_stats=("wheels",), reward="1 at the end"
        )

    def observe(self, raw: Arrays) -> dict[str, np.ndarray]:
        return {"view": raw["view"].copy()}
