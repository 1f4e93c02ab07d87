"""Kinds of command line arguments that several commands take."""

import argparse

MAX_PORT = 65535


def port_number(text: str) -> int:
    """Returns the number of a TCP port; 0 stands for a free one.

    Raises:
        ArgumentTypeError: it is none.
    """
    port = int(text) if text.isdecimal() else -1
    if not 0 <= port <= MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 0 to {MAX_PORT}")
    return port
