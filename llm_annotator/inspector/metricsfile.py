"""The figures that a run writes to `metrics.jsonl`, kept in memory and read on as the file grows."""

import json
import math
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

MAX_LINES = 20_000
"""Lines of a long file that are read, evenly chosen: a chart has room for some hundred points."""

GOING_ON_S = 30.0
"""A run whose newest line is younger than this is taken to go on, or one whose lines come more slowly, so many of its
own intervals: `INTERVALS`."""

INTERVALS = 4

Line = Mapping[str, float | int]


class Figures(NamedTuple):
    """The lines of the file, oldest first; when it was last written to, in seconds since 1970, None without a file."""

    lines: Sequence[Line]
    written_at: float | None

    def curve(self, name: str) -> list[tuple[float, float]]:
        """Returns a figure over steps, where there is one."""
        return [(float(line["env_step"]), float(value)) for line in self.lines if (value := line.get(name)) is not None]

    def newest(self, name: str) -> float | None:
        """Returns the value of a figure in the newest line that has one."""
        return next((float(value) for line in reversed(self.lines) if (value := line.get(name)) is not None), None)

    def goes_on(self, now: float) -> bool:
        """Returns whether the run seems to go on: a file tells no more than how long ago it was written to."""
        if self.written_at is None:
            return False
        times = [float(line["wall_s"]) for line in self.lines[-2:] if "wall_s" in line]
        interval_s = times[1] - times[0] if len(times) == 2 else 0.0
        return now - self.written_at < max(GOING_ON_S, INTERVALS * interval_s)


class MetricsFile:
    """Reads what was added since the last time, and everything anew after a resume has cut the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()  # guards all that follows: pages are made in several threads
        self._lines: list[Line] = []
        self._offset = 0
        self._last = b""
        self._every = 1
        self._number = 0

    def read(self) -> Figures:
        """Returns the figures so far. No file, or one that cannot be read, is one without lines."""
        with self._lock:
            try:
                with self._path.open("rb") as file:
                    written_at = os.fstat(file.fileno()).st_mtime
                    size = os.fstat(file.fileno()).st_size
                    if not self._goes_on_in(file, size):
                        self._forget(size)
                        file.seek(0)
                    self._read_on(file)
            except OSError:
                self._forget(0)
                return Figures((), None)
            return Figures(tuple(self._lines), written_at)

    def _goes_on_in(self, file: Any, size: int) -> bool:
        """Moves to where reading stopped; returns False if the file is no longer the one that was read so far."""
        if size < self._offset:
            return False
        file.seek(self._offset - len(self._last))
        return file.read(len(self._last)) == self._last

    def _forget(self, size: int) -> None:
        self._lines.clear()
        self._offset, self._last, self._number = 0, b"", 0
        self._every = 1 + size // (MAX_LINES * 1000)  # a line has about a thousand bytes

    def _read_on(self, file: Any) -> None:
        newest: bytes | None = None
        for raw in cast("Sequence[bytes]", file):
            if not raw.endswith(b"\n"):  # it is being written
                break
            self._offset += len(raw)
            self._last = raw
            self._number += 1
            if self._number % self._every:
                newest = raw
                continue
            newest = None
            self._add(raw)
        if newest is not None:
            self._add(newest)

    def _add(self, raw: bytes) -> None:
        try:
            line = cast("object", json.loads(raw))
        except ValueError:
            return
        if isinstance(line, dict):
            figures = {name: value for name, value in cast("dict[str, Any]", line).items() if _is_number(value)}
            if isinstance(figures.get("env_step"), int):
                self._lines.append(figures)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
