"""Recordings of episodes that NLE's own programs play.

NLE writes ttyrec version 3: frames of the terminal (channel 0), keys (1) and the in-game score (2). Its player
`nle-ttyplay2` refuses the third channel (as of nle 1.3), so the finished file is version 2, which has the first two and
which `nle.dataset` reads as well; the score is on the screen anyway.
"""

import bz2
import struct
from pathlib import Path

_HEADER = struct.Struct("<iiiB")  # seconds, microseconds, length of what follows, channel
_SCORE_CHANNEL = 2


class Recorder:
    """Names the file of each episode and finishes it when the episode is over: `FOLDER/SEED.ttyrec2.bz2`.

    An episode of the same seed replaces the one before. What a killed process leaves behind ends in `.part`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: Path | None = None
        self._episodes = 0

    def next_path(self, seed: int) -> Path:
        """Gives the file that the episode of a seed, about to begin, is to be written to."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._episodes += 1  # NLE opens the next file before it closes the last, which may be of the same seed
        path = self._folder / f"{seed}.{self._episodes}.part"
        path.unlink(missing_ok=True)  # NLE appends
        return path

    def begin(self, path: Path) -> None:
        """Takes note that NLE has begun to write to a path, and so has closed the file before."""
        self.finish()
        self._running = path

    def finish(self) -> None:
        """Finishes the file of the last episode, which NLE must have closed."""
        if self._running is not None:
            seed = self._running.name.partition(".")[0]
            _without_scores(self._running, self._folder / f"{seed}.ttyrec2.bz2")
            self._running.unlink()
            self._running = None


def _without_scores(source: Path, target: Path) -> None:
    with bz2.open(source) as reader, bz2.open(target, "wb") as writer:
        while header := reader.read(_HEADER.size):
            *_, length, channel = _HEADER.unpack(header)
            data = reader.read(length)
            if channel != _SCORE_CHANNEL:
                writer.write(header + data)
