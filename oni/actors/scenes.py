"""What games in worker processes show, step by step, kept as long as a moment may be cut out of the rollout."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from envs.host.types import Arrays, GivesScenes, HostEnv, ShowsScenes

MAX_BYTES = 64 * 2**20
"""Memory of one rollout's scenes. Where all games would need more, only the first ones are watched."""


class Scenes:
    """What the first games showed in one rollout.

    num_rows: how many games are watched.

    Args:
        max_bytes: of memory; at least one game is watched.
    """

    def __init__(self, env: HostEnv, *, num_steps: int, num_envs: int, max_bytes: int = MAX_BYTES) -> None:
        assert isinstance(env, ShowsScenes)
        specs = {name: spec for name, spec in (*env.raw.items(), *env.scene.items()) if name in env.shown}
        row_bytes = sum(int(np.prod(spec.shape)) * spec.dtype.itemsize for spec in specs.values())
        self.num_rows = min(num_envs, max(1, max_bytes // (row_bytes * (num_steps + 1))))
        shape = (num_steps + 1, self.num_rows)
        self._shown = {name: np.zeros(shape + spec.shape, spec.dtype) for name, spec in specs.items()}
        self._endings: dict[tuple[int, int], Arrays] = {}

    def begin(self) -> None:
        """Forgets the rollout of before."""
        self._endings.clear()

    def write(self, step: int, rows: slice, shown: Arrays) -> None:
        """Copies what is shown before a step in consecutive games; `step` T is after the last one."""
        number = min(rows.stop, self.num_rows) - rows.start
        if number > 0:
            for name, array in self._shown.items():
                array[step, rows.start : rows.start + number] = shown[name][:number]

    def write_endings(self, step: int, rows: slice, ended: Bool[np.ndarray, " R"], last_shown: Arrays) -> None:
        """Copies what was shown at the end of the episodes that a step ended."""
        for i in np.flatnonzero(ended).tolist():
            if rows.start + i < self.num_rows:
                copy = {name: last_shown[name][i].copy() for name in self._shown}
                self._endings[step, rows.start + i] = copy

    def cut(self, row: int, first: int, last: int) -> "ScenesOfGame":
        """Returns copies of what a game showed before the steps from `first` to `last`; beyond the rollout is nothing.

        Step T is what came after the last one.
        """
        first = max(first, 0)
        copies = {name: array[first : last + 1, row].copy() for name, array in self._shown.items()}
        number = len(next(iter(copies.values())))
        return ScenesOfGame(
            before={first + i: {name: array[i] for name, array in copies.items()} for i in range(number)},
            endings={step: shown for (step, of), shown in self._endings.items() if of == row},
        )


class ScenesOfGame(NamedTuple):
    """What one game showed before some steps, and at the ends of the episodes that some steps ended, by step."""

    before: Mapping[int, Arrays]
    endings: Mapping[int, Arrays]


class SceneWriter:
    """Writes what one group of games shows."""

    def __init__(self, scenes: Scenes, env: object, rows: slice) -> None:
        assert isinstance(env, GivesScenes)
        self._scenes, self._env, self._rows = scenes, env, rows

    def write(self, step: int) -> None:
        """Copies what is shown before a step."""
        self._scenes.write(step, self._rows, self._env.scenes()[0])

    def write_endings(self, step: int, ended: Bool[np.ndarray, " R"], info: Mapping[str, np.ndarray]) -> None:
        """Copies what was shown at the end of the episodes that a step ended, unless the game was lost."""
        if ended.any():
            self._scenes.write_endings(step, self._rows, ended & ~info["lost"], self._env.scenes()[1])
