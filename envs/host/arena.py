"""The memory that a pool shares with its workers: what they write about each game, row by row."""

import mmap
import os
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from envs.spec import ObsSpec

CAPTION_BYTES = 1024
"""Longest caption; what goes beyond is cut off. A message of NetHack has up to 256 bytes, but several may be joined."""

ENDING_BYTES = 128
"""Longest account of how an episode ended."""

_ALIGNMENT = 64
"""Bytes of a cache line: two workers that write to different arrays do not slow each other down."""

BEAT, ROW = 0, 1
"""Columns of `beat`: how many games a worker has played a step of, and the row that it is playing."""

_BEAT_COLUMNS = 8  # a cache line for each worker

Fields = dict[str, tuple[tuple[int, ...], str]]
"""Shape and dtype of each array by name, as JSON values."""


def arena_fields(raw: Mapping[str, ObsSpec], *, num_envs: int, num_stats: int, num_workers: int) -> Fields:
    """Returns the arrays of a pool: `raw/NAME` and `final/NAME` hold observations, the others say what a step led to.

    `final/NAME` is written where an episode ended only, as are `stats` and `ending`.
    """
    fields: Fields = {}
    for part in ("raw", "final"):
        for name, spec in raw.items():
            fields[f"{part}/{name}"] = ((num_envs, *spec.shape), np.dtype(spec.dtype).str)
    fields |= {
        "action": ((num_envs,), "<i4"),
        "reward": ((num_envs,), "<f4"),
        "terminated": ((num_envs,), "|b1"),
        "truncated": ((num_envs,), "|b1"),
        "success": ((num_envs,), "|b1"),
        "caption": ((num_envs, CAPTION_BYTES), "|u1"),
        "caption_length": ((num_envs,), "<i4"),
        "stats": ((num_envs, num_stats), "<f4"),
        "ending": ((num_envs, ENDING_BYTES), "|u1"),
        "ending_length": ((num_envs,), "<i4"),
        "beat": ((num_workers, _BEAT_COLUMNS), "<i8"),
    }
    return fields


def _sizes(fields: Mapping[str, Any]) -> tuple[dict[str, int], int]:
    offsets: dict[str, int] = {}
    end = 0
    for name, (shape, dtype) in fields.items():
        offsets[name] = end
        end += int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        end += -end % _ALIGNMENT
    return offsets, max(end, _ALIGNMENT)


def create_memory(fields: Mapping[str, Any]) -> int:
    """Returns a descriptor of zeroed memory for the arrays that has no name, so nothing is left behind by a crash."""
    _, size = _sizes(fields)
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("oni-games")
    else:
        descriptor, path = tempfile.mkstemp(prefix="oni-games-")
        os.unlink(path)  # noqa: PTH108 - the path is this function's own
    os.ftruncate(descriptor, size)
    return descriptor


class Arena:
    """The arrays in the memory of a descriptor. The memory, and a descriptor of it, live as long as any of them."""

    def __init__(self, descriptor: int, fields: Mapping[str, Any]) -> None:
        offsets, size = _sizes(fields)
        memory = mmap.mmap(descriptor, size)
        self.memory: np.ndarray = np.frombuffer(memory, np.uint8)
        """All bytes."""
        self._arrays: dict[str, np.ndarray] = {}
        for name, (shape, dtype) in fields.items():
            count = int(np.prod(shape, dtype=np.int64))
            self._arrays[name] = np.frombuffer(memory, dtype, count, offsets[name]).reshape(shape)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def rows(self, first: int, last: int) -> "SharedRows":
        """Returns the rows from first on and before last of every array."""
        rows = slice(first, last)
        return SharedRows(
            raw=self._part("raw", rows),
            final=self._part("final", rows),
            **{name: self[name][rows] for name in ("action", "reward", "terminated", "truncated", "success", "stats")},
            caption=[memoryview(row) for row in self["caption"][rows]],
            caption_length=self["caption_length"][rows],
            ending=[memoryview(row) for row in self["ending"][rows]],
            ending_length=self["ending_length"][rows],
        )

    def _part(self, prefix: str, rows: slice) -> dict[str, np.ndarray]:
        found = {n.removeprefix(f"{prefix}/"): a for n, a in self._arrays.items() if n.startswith(f"{prefix}/")}
        return {name: array[rows] for name, array in found.items()}


class SharedRows(NamedTuple):
    """What is shared about consecutive games. The text of each is in the first bytes of its own piece of memory."""

    raw: dict[str, np.ndarray]
    final: dict[str, np.ndarray]
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray
    stats: np.ndarray
    caption: list[memoryview]
    caption_length: np.ndarray
    ending: list[memoryview]
    ending_length: np.ndarray
