"""Keeps an annotator service alive beside a run."""

import json
import logging
import os
import secrets
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from llm_annotator import errors
from llm_annotator.children import python_command, python_environment, read_report
from llm_annotator.config import AnnotatorConfig
from llm_annotator.errors import AnnotatorError, ServiceError, StoreFull

_log = logging.getLogger(__name__)

START_TIMEOUT_S = 60.0
"""Time a service has to say that it is ready: imports and opening the store, on a busy machine."""

CLOSE_TIMEOUT_S = 10.0
"""Time a service has to end after SIGTERM before it is killed."""

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 30.0
"""Pauses between restarts: doubling from the first to the longest."""

STEADY_S = 60.0
"""A service that lived this long is restarted with the first pause again."""

BACKLOG = 128
"""Requests that wait in the kernel while the service restarts."""


@dataclass(frozen=True, kw_only=True)
class ServiceHealth:
    """How the supervised service fares.

    running: a process is up. restarts: how often it had to be started again. last_exit: how it last ended, in words,
    empty if it never did. given_up: why it will not be started again, in words, empty unless that is so.
    """

    running: bool
    restarts: int
    last_exit: str
    given_up: str


class ServiceProcess:
    """An annotator service in a process of its own, restarted when it dies; to be used as a context manager.

    The listening socket belongs to this process and is handed down, so the address stays the same and requests
    wait, rather than fail, while the service restarts. The service ends with this process, even if that is killed.
    """

    def __init__(self, store: Path, config: AnnotatorConfig, log_file: Path) -> None:
        self.store = store
        self.log_file = log_file
        self.token = secrets.token_urlsafe()
        """What clients must send: other users of this machine reach loopback too. The same across restarts."""
        self._config_json = json.dumps(asdict(config))
        self._url = ""
        self._listener: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None
        self._lock = threading.Lock()  # guards `_health`, which the watcher writes and everyone reads
        self._health = ServiceHealth(running=False, restarts=0, last_exit="", given_up="")

    @property
    def url(self) -> str:
        """Address of the service, the same across restarts."""
        if not self._url:
            raise ServiceError("the annotator service is not started: use `with ServiceProcess(...)`")
        return self._url

    @property
    def health(self) -> ServiceHealth:
        """How the service fares, at this moment."""
        with self._lock:
            return self._health

    @property
    def pid(self) -> int | None:
        """Process id of the service, None while there is none."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def __enter__(self) -> Self:
        """Starts the service.

        Raises:
            AnnotatorError: the service cannot work at all; the error is the one that it met (a store of a newer
                schema, no such backend, ...).
        """
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        host, port = self._listener.getsockname()
        self._url = f"http://{host}:{port}"
        try:
            self._process = self._spawn()
            if refusal := self._await_ready(self._process):
                raise refusal
        except BaseException:
            self.close()
            raise
        self._note(running=True)
        self._watcher = threading.Thread(target=self._watch, name="annotator-supervisor", daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the service: SIGTERM, so that it commits what it has, and SIGKILL if it does not end."""
        self._closing.set()
        if self._process is not None:
            _end(self._process)
        if self._watcher is not None:
            self._watcher.join()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._note(running=False)

    def _spawn(self) -> subprocess.Popen[bytes]:
        assert self._listener is not None
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = self._listener.fileno()
        arguments = ["--config", "-", "--store", str(self.store.absolute()), "--fd", str(descriptor)]
        arguments += ["--token-on-stdin", "--parent-pid", str(os.getpid())]
        with self.log_file.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [*python_command("llm_annotator.service"), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(descriptor,),
                # A session of its own: Ctrl-C at the terminal is for the run, which saves first and then ends us.
                start_new_session=True,
                env=python_environment(),
            )
        assert process.stdin is not None
        try:
            process.stdin.write(f"{self.token}\n{self._config_json}".encode())
            process.stdin.close()
        except BrokenPipeError:
            pass  # it died at once; the exit status and the log say why
        return process

    def _await_ready(self, process: subprocess.Popen[bytes]) -> AnnotatorError | None:
        """Returns why the service cannot start, None once it is ready."""
        assert process.stdout is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        unread = b""
        with process.stdout as output:
            while select.select([output], [], [], max(0.0, deadline - time.monotonic()))[0]:
                chunk = os.read(output.fileno(), 4096)
                if not chunk:
                    how = _ending(_reap(process))
                    return ServiceError(f"the annotator service {how} while starting: see {self.log_file}")
                *lines, unread = (unread + chunk).split(b"\n")
                for line in lines:  # a library may print, before the service can keep it from that
                    if report := read_report(line, "ready", "error"):
                        return _refusal(report)
        process.kill()
        return ServiceError(f"the annotator service did not start within {START_TIMEOUT_S:.0f} s: see {self.log_file}")

    def _watch(self) -> None:
        try:
            self._keep_alive()
        except Exception as error:  # noqa: BLE001 - outermost frame of the thread
            _log.exception("the annotator's supervisor failed")
            self._note(running=False, given_up=f"the annotator's supervisor failed: {type(error).__name__}: {error}")

    def _keep_alive(self) -> None:
        failures = 0
        while True:
            assert self._process is not None
            started = time.monotonic()
            status = self._process.wait()
            if self._closing.is_set():
                return
            failures = 1 if time.monotonic() - started >= STEADY_S else failures + 1
            self._note(running=False, last_exit=f"the annotator service {_ending(status)}")
            _log.warning("the annotator service %s; starting it again", _ending(status))
            if not self._start_again(failures):
                return

    def _start_again(self, failures: int) -> bool:
        """Returns True once a new process is ready, False if there is no use in trying or the run ends."""
        while True:
            pause_s = min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 20), LONGEST_PAUSE_S)
            if self._closing.wait(pause_s):
                return False
            self._process = self._spawn()
            refusal = self._await_ready(self._process)
            with self._lock:
                restarts = self._health.restarts + 1
            self._note(restarts=restarts, running=refusal is None)
            if self._closing.is_set():  # `close` may have looked before there was this process to end
                _end(self._process)
                return False
            if refusal is None:
                return True
            _end(self._process)
            failures += 1
            self._note(last_exit=str(refusal))
            if not _may_pass(refusal):
                _log.error("the annotator service is given up: %s", refusal)
                self._note(given_up=str(refusal))
                assert self._listener is not None
                self._listener.close()  # so that clients are refused at once instead of waiting for nobody
                return False

    def _note(self, **changes: Any) -> None:
        with self._lock:
            self._health = replace(self._health, **changes)


def _refusal(report: Mapping[str, Any]) -> AnnotatorError | None:
    """Returns the error that a service reports; None if it is ready."""
    if report.get("ready"):
        return None
    kind = getattr(errors, str(report["error"]), ServiceError)
    return kind(report.get("message", "the annotator service cannot start"))


def _may_pass(refusal: AnnotatorError) -> bool:
    """Returns whether what kept a service from starting may be over at the next try.

    A full disk may be emptied, a lock of the process before this one is let go, a crash may not repeat. A store of a
    newer schema or a backend that does not exist stay what they are.
    """
    return type(refusal) in (StoreFull, ServiceError, errors.StoreError)


def _ending(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        _reap(process)


def _reap(process: subprocess.Popen[bytes]) -> int:
    """Returns the status of a process that is about to end; one that does not is killed."""
    try:
        return process.wait(timeout=CLOSE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
