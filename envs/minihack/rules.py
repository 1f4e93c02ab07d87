"""Rewards and ends of MiniHack's tasks, as its `RewardManager` has them, but for two faults of it.

It reads the message line, of which a step has several while only the last is left; here a text counts wherever in the
caption it stands. It takes the hero to stand on an altar or sink when none is in sight; here the hero must be where one
was seen, if any was.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.minihack.actions import YES
from envs.minihack.definitions import Definition, Event
from envs.nethack.tasks import ON_STAIRS_DOWN, TIME, Views, X, Y

# Offsets of the glyphs of the dungeon (`defsyms` of NetHack 3.6's drawing.c) from nle.nethack.GLYPH_CMAP_OFF.
DOORS_CLOSED = (15, 16)
_PLACES = {"altar": 27, "sink": 30}


def cmap_offset() -> int:
    """Returns the glyph of the first piece of the dungeon."""
    from nle import nethack as module

    nethack: Any = module  # its constants come from the compiled part, which has no types
    return int(nethack.GLYPH_CMAP_OFF)


class _Place:
    """Where an altar or a sink is."""

    def __init__(self, views: Views, name: str) -> None:
        self._views = views
        self._glyph = cmap_offset() + _PLACES[name]
        self._seen: set[tuple[int, int]] = set()
        self.look()

    def look(self) -> None:
        rows, columns = np.nonzero(self._views.glyph_array == self._glyph)
        self._seen.update(zip(columns.tolist(), rows.tolist(), strict=True))

    def stood_on(self) -> bool:
        """Whether the hero stands there; one who never saw any may have started on it."""
        return not self._seen or (self._views.blstats[X], self._views.blstats[Y]) in self._seen


class Rules:
    """Judges a task: `envs.nethack.tasks.Task` for what the arrays tell, `hear` for what the caption tells.

    step_penalty: taken off the reward of a step in which the game's clock stood still.
    """

    def __init__(self, definition: Definition, step_penalty: float) -> None:
        self._events: Sequence[Event] = definition.events
        self._stairs_reward = definition.stairs_reward
        self._step_penalty = step_penalty

    def start(self, views: Views) -> None:
        self._views = views
        self._time = views.blstats[TIME]
        self._done = [False] * len(self._events)
        self._confirming = -1
        self._places = [_Place(views, event.place) if event.place else None for event in self._events]

    def step(self, key: int) -> tuple[float, bool]:
        time = self._views.blstats[TIME]
        penalty = self._step_penalty if time == self._time else 0.0
        self._time = time
        on_stairs = bool(self._views.internal[ON_STAIRS_DOWN])
        return (self._stairs_reward if on_stairs else 0.0) - penalty, on_stairs

    def hear(self, key: int, caption: bytes, *, asked: bool) -> tuple[float, bool]:
        """Returns what the events of a step pay, and whether they end the episode; not asked where the hero died.

        Args:
            key: of the action. asked: whether the game now waits for an answer.
        """
        if not self._events:
            return 0.0, False
        said = caption.decode("latin-1")
        confirmed = self._confirming if key == YES else -1
        self._confirming = -1
        paid, enough = 0.0, False
        for i, (event, place) in enumerate(zip(self._events, self._places, strict=True)):
            if place is not None:
                place.look()
                if asked and key == event.command and place.stood_on():
                    self._confirming = i
            if self._done[i] or not (confirmed == i if place else any(text in said for text in event.messages)):
                continue
            paid += event.reward
            self._done[i] = not event.repeats
            enough |= event.enough and self._done[i]
        return paid, enough or all(
            done or not event.needed for done, event in zip(self._done, self._events, strict=True)
        )
