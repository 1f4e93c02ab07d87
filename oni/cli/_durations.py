"""Durations on the command line: `30`, `30s`, `2m`, `1.5h`."""

import argparse
import re

_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """Returns a duration in seconds.

    Raises:
        ArgumentTypeError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write 30s, 2m or 1h")
    return float(match[1]) * _UNITS_S[match[2]]
