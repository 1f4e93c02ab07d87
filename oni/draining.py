"""The end of a run: waiting a while for answers that are still to come."""

import time
from collections.abc import Callable
from typing import Protocol

from llm_annotator import ClientHealth

LOOK_S = 0.25
"""How often it is looked whether to go on."""

SAY_EVERY_S = 10.0
"""How often it is said how many captions are still open."""


class Answering(Protocol):
    """A client of the annotator."""

    @property
    def health(self) -> ClientHealth: ...

    def drain(self, timeout_s: float) -> bool:
        """Waits until everything is answered; returns False if that takes longer."""
        ...


def drain(
    client: Answering,
    seconds: float,
    *,
    stop: Callable[[], object],
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Waits until everything is answered, at most so many seconds, and says how many captions are open.

    Args:
        stop: looked at several times a second; a true value ends the waiting at once.

    Returns:
        False if something is still open.
    """
    began_at, said_at = clock(), None
    while not stop() and (left_s := began_at + seconds - clock()) > 0:
        looked_at = clock()
        if client.drain(min(LOOK_S, left_s)):
            if said_at is not None:
                say("Every caption is answered.")
            return True
        if client.health.service.exhausted:
            break
        if said_at is None or clock() - said_at >= SAY_EVERY_S:
            said_at = clock()
            number = _captions(client.health.queued)
            say(f"Waiting for the answers about {number}, {left_s:.0f} s at most; Ctrl-C ends it.")
        # A client that has failed does not wait: here is no place for a busy loop.
        sleep(max(0.0, min(LOOK_S, left_s) - (clock() - looked_at)))
    health = client.health
    if health.queued:
        say(f"{_captions(health.queued)} still open: `--resume` asks about them again. {health.message}".rstrip())
    return not health.queued


def _captions(number: int) -> str:
    return "1 caption" if number == 1 else f"{number:,} captions"
