"""The child process of backend `llama-cpp`: llama.cpp's HTTP server and nothing else.

The parent writes one line of JSON to stdin (`ServerSettings` as an object; the key stays out of the process list) and
reads one line from stdout: {"url": ...}. Whatever else is printed goes to stderr. The child ends when stdin closes, so
it never outlives its parent.
"""

import ctypes
import json
import os
import signal
import sys
from dataclasses import dataclass
from typing import Any

from llm_annotator.children import Report

_PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>: the signal that the kernel sends when the parent dies."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How the server runs. `nice` is added to the parent's niceness."""

    model_path: str
    api_key: str
    nice: int
    threads: int
    slots: int
    n_ctx: int


def main() -> int:
    """Serves until stdin closes."""
    report = Report()
    settings = ServerSettings(**json.loads(sys.stdin.readline()))
    _die_with_parent()
    os.nice(settings.nice)
    server, url = _start(settings)
    report.send({"url": url})
    sys.stdin.read()
    del server
    # The server's threads may be in the middle of a prompt; nobody waits for it any more.
    os._exit(0)


def _start(settings: ServerSettings) -> tuple[object, str]:
    import xllamacpp  # pyright: ignore[reportMissingTypeStubs]

    native: Any = xllamacpp  # a compiled module without type stubs
    params = native.CommonParams()
    params.model.path = settings.model_path
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # any free one
    params.api_keys = [settings.api_key]  # other users of this machine reach loopback too
    params.cpuparams.n_threads = settings.threads
    params.cpuparams_batch.n_threads = settings.threads
    params.n_parallel = settings.slots
    params.n_ctx = settings.n_ctx
    params.kv_unified = True  # a long caption may use what the other slots leave of n_ctx
    params.cache_ram_mib = 0  # no copies of old prompts: captions share one prefix, which stays in its slot
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = 1  # errors
    server = native.Server(params)
    return server, server.listening_address


def _die_with_parent() -> None:
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
