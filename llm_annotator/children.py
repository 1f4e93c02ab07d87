"""How the annotator starts Python processes of its own, and how these report back: with one line of JSON."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO, cast


def python_command(module: str) -> list[str]:
    """Returns the command that runs a module of this package, to be started with `python_environment`.

    `-P` keeps the folder that the user happens to be in off the module path: a `queue.py` there is none of ours.
    """
    return [sys.executable, "-P", "-m", module]


def python_environment() -> dict[str, str]:
    """Returns the environment in which a child finds the same package, installed or not."""
    root = str(Path(__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


class Report:
    """A child's one line to its parent, on standard output.

    From the moment it is made, all that is printed goes to standard error instead: the report stays free of what
    libraries print, and nobody has to read their words for ever.
    """

    def __init__(self) -> None:
        self._output: TextIO | None = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def send(self, line: Mapping[str, Any]) -> None:
        """Sends the report; there is only one, so later ones are left out."""
        output, self._output = self._output, None
        if output is not None:
            with output:
                output.write(json.dumps(line) + "\n")


def read_report(line: bytes, *keys: str) -> dict[str, Any] | None:
    """Returns the report in a line of a child's output; None if it is none: an object with one of `keys`."""
    try:
        value: object = json.loads(line)
    except ValueError:
        return None
    if not isinstance(value, dict) or not any(key in value for key in keys):
        return None
    return cast("dict[str, Any]", value)
