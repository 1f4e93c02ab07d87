"""A pool's side of one worker process: starting it, talking to it, noticing its death and saying the cause."""

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from envs import errors
from envs.errors import EnvError
from envs.host.arena import BEAT, ROW
from envs.host.wire import CONFIGURE, NO_GROUP, Frame, pack, read

START_TIMEOUT_S = 120.0
"""Time a worker has to make each of its games: imports on a slow disk, dozens of games on a busy machine."""

_LOOKS = 4
"""How often, within the time that a step may take, we look whether a silent worker is getting on."""

_REAP_TIMEOUT_S = 2.0
_TAIL_BYTES = 4000


class WorkerDied(Exception):
    """A worker process is gone; the message says how, in words."""


class WorkerProcess:
    """One worker process after another, at the same place in the pool.

    rows: of each group, those that it plays, as (first, last + 1). config: what the worker is told, JSON values.
    beats: the worker's row of the arena's `beat`.
    """

    def __init__(self, rows: list[tuple[int, int]], config: Mapping[str, Any], beats: np.ndarray) -> None:
        self.rows = rows
        self._config = {**config, "rows": rows, "path": sys.path}
        self._beats = beats
        self._step_timeout_s: float = config["step_timeout_s"]
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._output: IO[bytes] | None = None
        self._receive_timeout_s = 0.0
        self._answers: dict[int, bytes] = {}
        self._verdict = ""

    @property
    def pid(self) -> int | None:
        """Process id, None while there is no process."""
        return None if self._process is None else self._process.pid

    def spawn(self, memory: int) -> None:
        """Starts a process on the shared memory of a descriptor; `await_ready` says when it is of use.

        Raises:
            EnvError: the system cannot start another process.
        """
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        # The worker empties the file when it grows too long, and goes on at its start.
        fcntl.fcntl(self._output.fileno(), fcntl.F_SETFL, os.O_APPEND)
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "envs.host.worker", str(theirs.fileno()), str(memory)],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                pass_fds=(theirs.fileno(), memory),
                start_new_session=True,  # Ctrl-C at the terminal is not for it, not even before it can say so
                env=_environment(),
            )
        except BaseException as error:
            ours.close()
            if isinstance(error, OSError):
                raise EnvError(f"no worker process for games can be started: {error}") from error
            raise
        finally:
            theirs.close()
        self._connection = ours
        self._receive_timeout_s = 0.0
        self._answers.clear()
        self._verdict = ""
        self._beats[:] = -1
        self.send(pack(Frame(CONFIGURE, NO_GROUP, json.dumps(self._config).encode())))

    def await_ready(self) -> str:
        """Waits until the games are made; returns in words why the factory cannot make them, or nothing.

        Raises:
            EnvError: an `EnvError` of the factory's own.
            WorkerDied: the process is gone.
        """
        payload = self.wait(NO_GROUP, START_TIMEOUT_S)
        if not payload:
            return ""
        report = json.loads(payload)
        self.end(0.0)
        kind = getattr(errors, report["error"], None)
        if isinstance(kind, type) and issubclass(kind, EnvError):
            raise kind(report["message"])
        return f"{report['error']}: {report['message']}"

    def send(self, message: bytes) -> None:
        """Sends a request. If the worker is gone, `wait` will notice."""
        assert self._connection is not None
        try:  # noqa: SIM105 - `suppress` takes as long as all else here
            self._connection.sendall(message)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def wait(self, group: int, timeout_s: float | None = None) -> bytes:
        """Waits for the answer to the oldest request about a group; returns what it says beyond "done".

        Args:
            timeout_s: time that a single step may take, default that of the pool.

        Raises:
            WorkerDied: the process is gone, or was killed since a single step took longer than allowed.
        """
        if group in self._answers:
            return self._answers.pop(group)
        assert self._connection is not None
        limit_s = timeout_s or self._step_timeout_s
        self._set_receive_timeout(limit_s / _LOOKS)
        last_beat, idle_looks = int(self._beats[BEAT]), 0
        while True:
            try:
                frame = read(self._connection)
            except BlockingIOError:
                beat = int(self._beats[BEAT])
                idle_looks = idle_looks + 1 if beat == last_beat else 0
                last_beat = beat
                if idle_looks >= _LOOKS:
                    self._verdict = f"was killed, since a single step took over {limit_s:g} s"
                    raise self._died() from None
                continue
            except OSError:
                frame = None
            if frame is None:
                raise self._died()
            if frame.group == group:
                return frame.payload
            self._answers[frame.group] = frame.payload

    def _set_receive_timeout(self, seconds: float) -> None:
        """Bounds each `recv`. (`socket.settimeout` would do the same with two system calls for each `recv`.)"""
        if seconds != self._receive_timeout_s:
            assert self._connection is not None
            timeval = struct.pack("ll", int(seconds), max(1, int(seconds % 1 * 1e6)))
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
            self._receive_timeout_s = seconds

    def _died(self) -> WorkerDied:
        row = int(self._beats[ROW])
        where = f" while it played row {row}" if row >= 0 else ""
        pid = self.pid
        killed_by_us = bool(self._verdict)
        status = self._reap(0.0 if killed_by_us else _REAP_TIMEOUT_S)
        verdict = self._verdict or _cause(status, self.tail())
        return WorkerDied(f"the worker process {pid} of rows {self._row_names()} {verdict}{where}")

    def _row_names(self) -> str:
        return ", ".join(f"{first}-{last - 1}" if last - first > 1 else str(first) for first, last in self.rows)

    def tail(self) -> str:
        """Returns the end of what the process wrote to its standard output and error."""
        if self._output is None:
            return ""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), _TAIL_BYTES, max(0, size - _TAIL_BYTES)).decode(errors="replace").strip()

    def hang_up(self) -> None:
        """Tells the worker to end."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def end(self, grace_s: float) -> None:
        """Ends the process, by force after so many seconds, and frees what belongs to it."""
        self.hang_up()
        self._reap(grace_s)
        self._process = None
        if self._output is not None:
            self._output.close()
            self._output = None

    def _reap(self, grace_s: float) -> int:
        process = self._process
        if process is None:
            return 0
        try:
            return process.wait(timeout=grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    # A worker is one of many and never needs the threads that NumPy's libraries start for themselves.
    return {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        **os.environ,
        "PYTHONPATH": path,
    }


def _cause(status: int, tail: str) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    last_line = tail.splitlines()[-1].strip() if tail else ""
    return f"ended with status {status}" + (f" ({last_line})" if last_line else "")
