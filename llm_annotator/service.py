"""The annotator's process: `python -m llm_annotator.service`, which a run starts for itself, and `oni serve`.

On standard output it writes one line of JSON: {"ready": true, "url": ...}, or {"error": class, "message": text} if it
cannot start. Logs, and whatever libraries print, go to standard error. SIGTERM and SIGINT end it in order.
"""

import argparse
import asyncio
import fcntl
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from llm_annotator.backends import create_backend
from llm_annotator.children import Report
from llm_annotator.config import AnnotatorConfig, BackendConfig, EngineConfig, LabelerConfig
from llm_annotator.errors import AnnotatorError, ConfigError, ServiceError, StoreError
from llm_annotator.listening import listen, serve_app
from llm_annotator.secret import backend_secrets, clean_secret, redactor
from llm_annotator.settings import check_settings
from llm_annotator.store.writer import Store

if TYPE_CHECKING:
    from llm_annotator.annotator import Annotator

_log = logging.getLogger(__name__)

EXIT_FAILED = 1

TELL_EVERY_S = 30.0
"""How often the log says how the asking goes."""

PARENT_CHECK_S = 0.5
"""How often a supervised service looks whether the process that started it is still there."""

LAST_WORDS_S = 5.0
"""Time that a service has to end in order once its parent is gone."""


def serve(
    store: Path,
    host: str,
    port: int,
    config: AnnotatorConfig,
    token_env: str | None = None,
    *,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serves an annotator, and pages about its store, until SIGTERM or SIGINT.

    port: 0 takes a free one.
    token_env: environment variable that holds the token, default `config.token_env`. An address that other machines
        can reach needs one.
    on_ready: called with the service's URL once it takes requests.

    Raises:
        ServiceError: `PortInUse`; no token for an address other than loopback; another annotator uses the store.
        StoreError: the store cannot be used; the class and the message say why.
        ConfigError: a backend that does not exist or cannot be set up.
    """
    from llm_annotator.access import is_loopback

    variable = token_env or config.token_env
    token = clean_secret(os.environ.get(variable), f"the token in the environment variable {variable}")
    if not is_loopback(host) and not token:
        raise ServiceError(
            f"{host} can be reached from other machines: set a token in the environment variable {variable}, or serve "
            "on 127.0.0.1"
        )
    with listen(host, port) as listener:
        _serve(store, listener, config, token=token, on_ready=on_ready, pages=True)


def _serve(
    path: Path,
    listener: socket.socket,
    config: AnnotatorConfig,
    *,
    token: str | None,
    on_ready: Callable[[str], None] | None,
    pages: bool = False,
) -> None:
    check_settings(config)  # what cannot work at all is said now
    with exclusive(path):
        store = Store(path)
        asyncio.run(_run(store, listener, config, token=token, on_ready=on_ready, pages=pages))


@contextmanager
def exclusive(path: Path) -> Generator[None]:
    """Holds the store for this process alone: two annotators would ask everything twice.

    The kernel lets go of the lock when the process ends, however it ends.

    Raises:
        ServiceError: another annotator uses the store.
        StoreError: its folder cannot be written.
    """
    lock_path = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_path.open("a")
    except OSError as error:
        raise StoreError(f"{lock_path} cannot be written ({error.strerror}): check the folder's permissions") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ServiceError(
                f"another annotator uses {path}: let this run join it by its URL (annotator.url), or end it"
            ) from error
        yield


async def _run(
    store: Store,
    listener: socket.socket,
    config: AnnotatorConfig,
    *,
    token: str | None,
    on_ready: Callable[[str], None] | None,
    pages: bool = False,
) -> None:
    from llm_annotator.access import is_loopback
    from llm_annotator.annotator import Annotator
    from llm_annotator.app import build_app
    from llm_annotator.askagain import AskAgain

    redact = redactor([*backend_secrets(config.backend), token or ""])
    annotator = Annotator(store, config, create_backend, redact=redact)
    app = build_app(
        annotator,
        token=token,
        loopback_only=is_loopback(listener.getsockname()[0]),
        pages=store.path if pages else None,
        asking=AskAgain(store.path, lambda: config) if pages else None,
    )
    async with annotator.running(), _telling(annotator):
        await serve_app(app, listener, on_ready=on_ready, on_stop=annotator.stop_waiting)


@asynccontextmanager
async def _telling(annotator: "Annotator") -> AsyncGenerator[None]:
    """Writes a line to the log now and then, if there is something new to say."""

    async def tell() -> None:
        said = ""
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            line = annotator.line
            if line and line != said:
                _log.info("%s", line)
            said = line

    task = asyncio.create_task(tell())
    try:
        yield
    finally:
        task.cancel()


def config_from_json(text: str) -> AnnotatorConfig:
    """Returns the settings that `dataclasses.asdict` and `json.dumps` wrote.

    Raises:
        ConfigError: not JSON, or fields that there are none of.
    """
    try:
        fields: dict[str, Any] = json.loads(text)
        backend_fields = dict(fields.pop("backend", {}))
        endpoints = tuple(backend_fields.pop("endpoints", ()))  # JSON has lists alone
        backend = BackendConfig(**backend_fields, endpoints=endpoints)
        labeler = LabelerConfig(**fields.pop("labeler", {}))
        engine = EngineConfig(**fields.pop("engine", {}))
        return AnnotatorConfig(backend=backend, labeler=labeler, engine=engine, **fields)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"the annotator's settings cannot be read: {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """Runs the service with the settings of the command line; returns the exit status."""
    options = _parse(arguments)
    report = Report()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "httpcore", "openai"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if options.parent_pid is not None:
        _end_with(options.parent_pid)
    try:
        # Not from the environment, which the token would then share with every child of this process.
        token = sys.stdin.readline().strip() if options.token_on_stdin else None
        config = config_from_json(options.config.read())

        def on_ready(url: str) -> None:
            report.send({"ready": True, "url": url})

        if options.fd is None:
            serve(options.store, options.host, options.port, config, on_ready=on_ready)
        else:
            _serve(options.store, socket.socket(fileno=options.fd), config, token=token, on_ready=on_ready)
    except AnnotatorError as error:
        report.send({"error": type(error).__name__, "message": str(error)})
        _log.error("%s", error)
        return EXIT_FAILED
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m llm_annotator.service", description="Labels captions for runs.")
    parser.add_argument("--config", type=_open_text, required=True, help="JSON file with the settings, - for stdin")
    parser.add_argument("--store", type=Path, required=True, help="SQLite file, made if there is none")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--fd", type=int, help="listening socket that the parent process hands over")
    parser.add_argument(
        "--token-on-stdin",
        action="store_true",
        help="with --fd: the first line of stdin is the token that clients must send (none without this)",
    )
    parser.add_argument("--parent-pid", type=int, help="end when this process, the parent, has ended")
    return parser.parse_args(arguments)


def _open_text(name: str) -> TextIO:
    return sys.stdin if name == "-" else Path(name).open(encoding="utf-8")


def _end_with(parent_pid: int) -> None:
    """Ends this process soon after its parent, even one that was killed.

    A thread that looks is used instead of PR_SET_PDEATHSIG: that signal comes when the *thread* that started the
    service ends, and the supervisor restarts it from a thread of its own.
    """

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(PARENT_CHECK_S)
        _log.warning("the run that started this annotator has ended: ending too")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LAST_WORDS_S)
        os._exit(EXIT_FAILED)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
