"""What a client has for the service beside questions and totals: moments and scores, for people to look at.

They are worth something, but nobody waits for them: while the service is away as many are kept as fit, the newest, and
the others are dropped and counted.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from llm_annotator import wire
from llm_annotator.mailbox import Sampled
from llm_annotator.types import CaptionScore, SampledTransition

Item = TypeVar("Item")

MAX_ITEMS = 20_000
"""Items of each kind that wait to be sent."""

MAX_WAITING_BYTES = 16 * 2**20
"""Bytes of moments that wait to be sent."""

MAX_REQUEST_BYTES = 2 * 2**20
"""Bytes in one request, or one item that is larger: well below what the service takes, and soon stored."""

MAX_REQUEST_ITEMS = 1_000


class Outbox(Generic[Item]):
    """Items that wait to be sent, oldest first. One takes the place of an older one with the same key.

    Args:
        key: what items stand for. size: their bytes.
    """

    def __init__(
        self,
        key: Callable[[Item], Hashable],
        size: Callable[[Item], int],
        *,
        max_items: int = MAX_ITEMS,
        max_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._key, self._size = key, size
        self._max_items, self._max_bytes = max_items, max_bytes
        self._items: dict[Hashable, Item] = {}
        self._bytes = 0
        self.dropped = 0
        """Items that were never sent: there were too many, or the service refused them."""

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item) -> None:
        """Keeps an item; the oldest go if there are too many."""
        self._pop(self._key(item))
        self._items[self._key(item)] = item
        self._bytes += self._size(item)
        while len(self._items) > self._max_items or self._bytes > self._max_bytes:
            self._pop(next(iter(self._items)))
            self.dropped += 1

    def next_batch(self) -> list[Item]:
        """Returns the oldest items, as many as fit into one request, one at least."""
        batch: list[Item] = []
        size = 0
        for item in self._items.values():
            size += self._size(item)
            if batch and (size > MAX_REQUEST_BYTES or len(batch) == MAX_REQUEST_ITEMS):
                break
            batch.append(item)
        return batch

    def done(self, batch: Sequence[Item]) -> None:
        """Forgets items that were sent, but for those that a newer one took the place of meanwhile."""
        for item in batch:
            if self._items.get(self._key(item)) is item:
                self._pop(self._key(item))

    def _pop(self, key: Hashable) -> None:
        item = self._items.pop(key, None)
        if item is not None:
            self._bytes -= self._size(item)


class _Kind(NamedTuple):
    """How one kind of items is sent: where to, under which name, and how."""

    path: str
    field: str
    outbox: Outbox[Any]
    check: Callable[[Any], None]
    to_wire: Callable[[Any], list[Any]]


class Parcel(NamedTuple):
    """One request that is to be made."""

    path: str
    field: str
    rows: list[list[Any]]
    items: list[Any]


class Sendings:
    """The moments and scores of a run on their way to the service."""

    def __init__(self) -> None:
        self._kinds: dict[type[Any], _Kind] = {
            SampledTransition: _Kind(
                "/v1/transitions",
                "transitions",
                Outbox[SampledTransition](
                    lambda item: (item.caption, item.slot), lambda item: len(item.caption) + len(item.frames)
                ),
                wire.check_transition,
                wire.transition_to_wire,
            ),
            CaptionScore: _Kind(
                "/v1/scores",
                "scores",
                Outbox[CaptionScore](lambda item: (item.caption, item.env_step), lambda item: len(item.caption)),
                wire.check_score,
                wire.score_to_wire,
            ),
        }
        self._refused = 0

    def __len__(self) -> int:
        return sum(len(kind.outbox) for kind in self._kinds.values())

    @property
    def dropped(self) -> int:
        """Items that were never sent."""
        return self._refused + sum(kind.outbox.dropped for kind in self._kinds.values())

    def add(self, item: Sampled) -> None:
        """Keeps an item until it is sent; one that no store takes is dropped."""
        kind = self._kinds[type(item)]
        try:
            kind.check(item)
        except (TypeError, ValueError, OverflowError):
            self._refused += 1
        else:
            kind.outbox.add(item)

    def next(self) -> Parcel | None:
        """Returns the next request, None if nothing waits."""
        for kind in self._kinds.values():
            items = kind.outbox.next_batch()
            if items:
                return Parcel(kind.path, kind.field, [kind.to_wire(item) for item in items], items)
        return None

    def done(self, parcel: Parcel, *, refused: bool = False) -> None:
        """Forgets what a request held: it was stored, or refused for good."""
        self._kinds[type(parcel.items[0])].outbox.done(parcel.items)
        self._refused += len(parcel.items) if refused else 0
