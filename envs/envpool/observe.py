"""From EnvPool's observations to what a network here can read."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.envpool.captions import COLORS, OBJECTS, STATES, mission_text
from envs.gymnasium.spaces import Part, parts_of
from envs.host.types import Arrays
from envs.spec import ObsSpec

# Every word that missions of MiniGrid and BabyAI are made of; 0 is no word, 1 another one.
_ALL_WORDS = (
    ", a after and at avoid ball behind blue box door end fetch find from front get go goal green grey hallway in key "
    "left lava matching maze must near next object of on open opening pick purple put reach red right room rooms "
    "square the then to traverse unlock up use yellow you your"
)
WORDS = tuple(_ALL_WORDS.split())
MISSION_WORDS = 32
"""Words of a mission that are observed; the longest have 31."""

_PLACES = {word: place for place, word in enumerate(WORDS, start=2)}
_IMAGE_VALUES = (len(OBJECTS), len(COLORS), len(STATES) + 1)  # the agent, if it is seen, has a direction for state
_PICTURE_AXES, _MOST_FRAMES = 3, 16


def mission_words(mission: bytes) -> np.ndarray:
    """Returns the places of the first words in `WORDS`, `uint8[MISSION_WORDS, 1]`."""
    words = mission.decode("ascii", errors="replace").replace(",", " ,").split()[:MISSION_WORDS]
    places = np.zeros((MISSION_WORDS, 1), np.uint8)
    places[: len(words), 0] = [_PLACES.get(word, 1) for word in words]
    return places


class Observer:
    """Reads the observations of one library of EnvPool; this one takes arrays as they are.

    Pictures that have their channels or frames first get them last, as encoders here want them.
    """

    def __init__(self, space: Any) -> None:
        self._parts: list[Part] = parts_of(space)
        self.raw: Mapping[str, ObsSpec] = {part.name: part.spec for part in self._parts}
        self.spec: Mapping[str, ObsSpec] = {name: self._seen(spec) for name, spec in self.raw.items()}

    def _seen(self, spec: ObsSpec) -> ObsSpec:
        return spec._replace(shape=(*spec.shape[1:], spec.shape[0])) if _is_planes(spec) else spec

    def read(self, obs: Any) -> dict[str, np.ndarray]:
        """From what EnvPool returns for N environments to raw arrays `[N, ...]` that nobody else writes to."""
        arrays: dict[str, np.ndarray] = {}
        for part in self._parts:
            value = obs
            for key in part.path:
                value = value[key]
            if part.spec.num_values is not None and value.ndim == 1:
                value = value[:, None]
            arrays[part.name] = np.ascontiguousarray(value, part.spec.dtype)
        return arrays

    def observe(self, raw: Arrays) -> dict[str, np.ndarray]:
        """From raw arrays to what the policy sees."""
        return {
            name: np.ascontiguousarray(np.moveaxis(raw[name], 1, -1)) if _is_planes(spec) else raw[name].copy()
            for name, spec in self.raw.items()
        }


def _is_planes(spec: ObsSpec) -> bool:
    return len(spec.shape) == _PICTURE_AXES and spec.shape[0] <= _MOST_FRAMES < spec.shape[2]


class MiniGridObserver(Observer):
    """MiniGrid's view as categories, and the mission word by word."""

    def __init__(self, space: Any) -> None:
        super().__init__(space)
        image = self.raw["image"]
        self.spec = {
            "image": ObsSpec(image.shape, image.dtype, _IMAGE_VALUES),
            "direction": self.raw["direction"],
            "mission": ObsSpec((MISSION_WORDS, 1), np.dtype(np.uint8), (len(WORDS) + 2,)),
        }
        self._known: dict[bytes, np.ndarray] = {}

    def observe(self, raw: Arrays) -> dict[str, np.ndarray]:
        missions = [self._words(mission_text(row)) for row in raw["mission"]]
        return {"image": raw["image"].copy(), "direction": raw["direction"].copy(), "mission": np.stack(missions)}

    def _words(self, mission: bytes) -> np.ndarray:
        words = self._known.get(mission)
        if words is None:
            if len(self._known) > _MISSIONS_KEPT:
                self._known.clear()
            words = self._known[mission] = mission_words(mission)
        return words


_MISSIONS_KEPT = 10_000
