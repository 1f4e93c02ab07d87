"""The process that plays some rows of every group of a pool: `python -m envs.host.worker SOCKET MEMORY`.

It imports neither JAX nor anything of the trainer. It ends when the pool closes its side of the socket, and so when
the trainer dies, however that dies.
"""

import contextlib
import faulthandler
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from envs.host.arena import BEAT, CAPTION_BYTES, ENDING_BYTES, ROW, Arena
from envs.host.seeding import episode_seed
from envs.host.types import Game
from envs.host.wire import DONE, NO_GROUP, START, STEP, Episode, Frame, pack, read, unpack_episodes

LONGEST_OUTPUT_BYTES = 1 << 20
"""What games print is kept in a file until it is that long, then forgotten."""

ORPHAN_GRACE_S = 2.0
"""Time that a game has for the step it is in after the trainer has died."""

_CHECK_S = 1.0
"""How often the worker looks after itself."""


class LateGuard:
    """Ends this process if a game hangs while nobody is left to end it.

    A thread sees the trainer's end of the socket close. A game that hangs inside a C library may hold the GIL, so that
    no thread runs: for that there is a timer of CPU time, started anew as long as games go on. (CPU time, since a
    machine or container that was frozen for an hour has done no wrong.)
    """

    def __init__(self, connection: socket.socket, limit_s: float) -> None:
        self._limit_s = limit_s
        self._next_check = 0.0
        self._connection = connection
        threading.Thread(target=self._watch, name="orphan-guard", daemon=True).start()

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._connection.fileno(), select.POLLRDHUP)
        poll.poll()
        time.sleep(ORPHAN_GRACE_S)
        os._exit(1)

    def step(self) -> None:
        """Says that games go on."""
        now = time.monotonic()
        if now >= self._next_check:
            self._next_check = now + _CHECK_S
            signal.setitimer(signal.ITIMER_PROF, self._limit_s)  # the default action of SIGPROF is to end
            with contextlib.suppress(OSError):
                if os.fstat(2).st_size > LONGEST_OUTPUT_BYTES:
                    os.ftruncate(2, 0)


def load_factory(factory: str) -> Callable[..., Game]:
    """Returns the function behind `package.module:function`."""
    module, _, attribute = factory.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Games:
    """The games of one worker in one group: consecutive rows of the shared memory."""

    def __init__(self, config: Mapping[str, Any], arena: Arena, first: int, last: int) -> None:
        self.first = first
        self.games: list[Game] = []
        self._seed: int = config["seed"]
        self._limit: int = config["max_episode_steps"]
        self._stat_names: list[str] = config["episode_stats"]
        self._episode = [-1] * (last - first)
        self._length = [0] * (last - first)
        self._shared = shared = arena.rows(first, last)
        # Single numbers are written much faster through these than into the arrays.
        self._caption_length = shared.caption_length.data
        self._terminated, self._truncated, self._success = (
            array.data for array in (shared.terminated, shared.truncated, shared.success)
        )

    def add(self, game: Game) -> None:
        """Takes in the game of the next row."""
        row = len(self.games)
        game.attach({name: array[row, ...] for name, array in self._shared.raw.items()})
        self.games.append(game)

    def start(self, episode: Episode, beat: Callable[[int], None]) -> str:
        """Starts an episode and replays the actions it begins with; returns in words what went wrong, or nothing."""
        i = episode.row - self.first
        game = self.games[i]
        self._episode[i], self._length[i] = episode.number, len(episode.actions)
        beat(episode.row)
        game.reset(episode_seed(self._seed, episode.row, episode.number))
        for played, action in enumerate(episode.actions.tolist(), 1):
            beat(episode.row)
            result = game.step(action)
            if result.terminated or result.truncated:
                return f"the episode ended after {played} of the {len(episode.actions)} actions it had survived"
        return ""

    def step(self, beat: Callable[[int], None]) -> None:
        """Plays one action in every game; ended ones begin their next episode."""
        shared, first, lengths, limit = self._shared, self.first, self._length, self._limit
        rewards: list[float] = []
        for i, (game, action) in enumerate(zip(self.games, shared.action.tolist(), strict=True)):
            beat(first + i)
            reward, terminated, caption, success, truncated = game.step(action)
            lengths[i] += 1
            cut = not terminated and (truncated or lengths[i] >= limit)
            if caption:
                caption = caption[:CAPTION_BYTES]
                shared.caption[i][: len(caption)] = caption
            self._caption_length[i] = len(caption)
            rewards.append(reward)
            self._terminated[i] = terminated
            self._truncated[i] = cut
            self._success[i] = False
            if terminated or cut:
                self._success[i] = success
                self._finish(i)
                beat(first + i)
                self._next_episode(i)
        shared.reward[:] = rewards

    def _finish(self, i: int) -> None:
        game = self.games[i]
        for name, final in self._shared.final.items():
            final[i] = self._shared.raw[name][i]
        if self._stat_names:
            stats = game.stats()
            self._shared.stats[i] = [stats[name] for name in self._stat_names]
        # Cut between characters: half a one would not decode.
        ending = game.ending().encode()[:ENDING_BYTES].decode(errors="ignore").encode()
        self._shared.ending[i][: len(ending)] = ending
        self._shared.ending_length[i] = len(ending)

    def _next_episode(self, i: int) -> None:
        self._episode[i] += 1
        self._length[i] = 0
        self.games[i].reset(episode_seed(self._seed, self.first + i, self._episode[i]))


class Worker:
    """Serves the requests of a pool."""

    def __init__(self, connection: socket.socket, memory: int, config: Mapping[str, Any]) -> None:
        self._connection = connection
        arena = Arena(memory, config["fields"])
        os.close(memory)
        self._beats = arena["beat"][config["worker"]].data
        self._num_beats = 0
        self._guard = LateGuard(connection, 2 * config["step_timeout_s"])
        self._groups = [Games(config, arena, first, last) for first, last in config["rows"]]
        factory = load_factory(config["factory"])
        for games, (first, last) in zip(self._groups, config["rows"], strict=True):
            for row in range(first, last):
                self._beats[ROW], self._beats[BEAT] = row, row
                games.add(factory(**config["options"]))
        self._beats[ROW] = -1

    def _beat(self, row: int) -> None:
        """Tells the pool that this worker is alive and what it is at."""
        self._num_beats += 1
        self._beats[ROW] = row
        self._beats[BEAT] = self._num_beats
        self._guard.step()

    def serve(self) -> None:
        """Answers requests until the pool closes the connection."""
        self._connection.sendall(pack(Frame(DONE, NO_GROUP)))
        answers = [pack(Frame(DONE, group)) for group in range(len(self._groups))]
        while (frame := read(self._connection)) is not None:
            if frame.kind == STEP:
                self._groups[frame.group].step(self._beat)
                answer = answers[frame.group]
            else:
                assert frame.kind == START
                answer = pack(Frame(DONE, frame.group, self._start(frame.payload)))
            self._beats[ROW] = -1
            self._connection.sendall(answer)

    def _start(self, payload: bytes) -> bytes:
        for episode in unpack_episodes(payload):
            games = next(games for games in reversed(self._groups) if games.first <= episode.row)
            if problem := games.start(episode, self._beat):
                return json.dumps({"row": episode.row, "problem": problem}).encode()
        return b""

    def close(self) -> None:
        """Frees the games."""
        for games in self._groups:
            for game in games.games:
                game.close()


def main(argv: list[str]) -> int:
    """Plays until the pool has no more use for this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which decides what becomes of us
    faulthandler.enable()
    connection = socket.socket(fileno=int(argv[0]))
    request = read(connection)
    if request is None:
        return 1
    config = json.loads(request.payload)
    sys.path[:] = config["path"]  # a user's own game is found here if it is found there
    try:
        worker = Worker(connection, int(argv[1]), config)
    except Exception as error:  # noqa: BLE001 - outermost frame: the pool tells the user
        report = {"error": type(error).__name__, "message": str(error)}
        connection.sendall(pack(Frame(DONE, NO_GROUP, json.dumps(report).encode())))
        return 1
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the trainer died while a game was in its step
        worker.serve()
    worker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
