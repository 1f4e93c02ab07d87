"""An annotator of its own, started as a user would start it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from llm_annotator.config import AnnotatorConfig


def start_service(
    folder: Path, config: AnnotatorConfig, store: Path, *, port: int = 0
) -> tuple[str, subprocess.Popen[str]]:
    """Returns the address of a service that is ready, and its process; `folder` gets its settings and its log."""
    (folder / "config.json").write_text(json.dumps(asdict(config)))
    arguments = ["--config", str(folder / "config.json"), "--store", str(store), "--port", str(port)]
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "llm_annotator.service", *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
        )
    assert process.stdout is not None
    with process.stdout as output:
        ready = json.loads(output.readline())
    assert ready["ready"]
    return ready["url"], process


@contextmanager
def serving(folder: Path, port: int, config: AnnotatorConfig) -> Iterator[None]:
    """A service at a fixed address, with its store in `folder`."""
    _, process = start_service(folder, config, folder / "s.sqlite", port=port)
    with process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
