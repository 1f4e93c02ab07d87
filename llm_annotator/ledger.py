"""What a client knows about its captions: which were answered, which are to be offered. No network, no clock."""

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from llm_annotator.types import LabelStatus, LabelUpdate
from llm_annotator.wire import MAX_CAPTION_BYTES

_log = logging.getLogger(__name__)

Item = TypeVar("Item")

MAX_PENDING = 100_000
"""Captions without an answer that are kept; beyond it the oldest are dropped and counted."""

MAX_OFFER = 5_000
"""Captions, or occurrences of captions, in one request."""

MAX_OFFER_BYTES = 4 * 2**20
"""Bytes of captions in one request, so that it stays well below what the service takes."""

_SHOWN_BYTES = 80
"""How much of a caption stands in the log."""

REOFFER_S = 30.0
"""A caption answered without a label is offered again at most this often; the service decides when to ask."""


class Ledger:
    """Keeps every caption without an answer until it has one. Times are seconds of any steady clock.

    What is to be offered is either fresh, and goes on top of what the service has queued, or backlog, which was
    offered before and may be lost: the service was restarted, or its queue ran over. Backlog goes beneath, newest
    first, and only as far as the service says that it has room.
    """

    def __init__(self) -> None:
        self.dropped = 0
        """Captions that were not kept: too long, refused by the service, or too many."""
        self._given_up: set[bytes] = set()
        self._pending: dict[bytes, None] = {}  # without an answer, newest last
        self._fresh: dict[bytes, None] = {}  # those of them that were never offered, or are wanted before all others
        self._backlog: dict[bytes, None] = {}  # those of them that are to be offered again
        self._backlog_is_stale = False  # all that were offered belong into it; put there when they are needed
        self._answers: dict[bytes, tuple[LabelUpdate, float]] = {}
        self._tally: Counter[LabelStatus] = Counter()

    @property
    def pending(self) -> int:
        """Captions without an answer."""
        return len(self._pending)

    @property
    def has_fresh(self) -> bool:
        """True if captions wait to be offered on top."""
        return bool(self._fresh)

    @property
    def has_backlog(self) -> bool:
        """True if captions wait to be offered again."""
        return bool(self._backlog) or self._backlog_is_stale

    def answered(self, status: LabelStatus) -> int:
        """Returns how many captions have this answer now."""
        return self._tally[status]

    def want(self, caption: bytes, now_s: float) -> None:
        """Notes that a label is wanted, before those of all captions so far, even if it was wanted already.

        Empty captions, and those labelled already, change nothing.
        """
        if not caption or caption in self._given_up:
            return
        if caption in self._pending:
            self._forget(caption)
            self._pending[caption] = self._fresh[caption] = None
            return
        if len(caption) > MAX_CAPTION_BYTES:
            self.give_up([caption], f"longer than {MAX_CAPTION_BYTES} bytes")
            return
        answer = self._answers.get(caption)
        if answer is not None and (answer[0].status is LabelStatus.LABELLED or now_s - answer[1] < REOFFER_S):
            return
        self._pending[caption] = None
        self._fresh[caption] = None
        self._drop_oldest()

    def next_fresh(self) -> list[bytes]:
        """Returns fresh captions for one request, the newest last, where the service starts."""
        return cut(self._fresh, len)

    def next_backlog(self, room: int) -> list[bytes]:
        """Returns the newest captions that are to be offered again, at most `room`, the newest last."""
        if self._backlog_is_stale:
            self._backlog = {caption: None for caption in self._pending if caption not in self._fresh}
            self._backlog_is_stale = False
        return cut(itertools.islice(reversed(self._backlog), room), len)[::-1]

    def offered(self, batch: Iterable[bytes]) -> None:
        """Notes that the service has these captions."""
        for caption in batch:
            self._fresh.pop(caption, None)
            self._backlog.pop(caption, None)

    def some_lost(self) -> None:
        """Notes that the service may have lost any caption that it was offered."""
        self._backlog_is_stale = len(self._pending) > len(self._fresh)

    def give_up(self, captions: Sequence[bytes], why: str) -> None:
        """Notes that captions can never have a label: they are not offered again. The log tells of the first ones."""
        if captions and not self._given_up:
            _log.warning(
                "%d captions get no label (%s); the first begins %r. Others like it are only counted.",
                len(captions),
                why,
                captions[0][:_SHOWN_BYTES],
            )
        for caption in captions:
            self._forget(caption)
            self._given_up.add(caption)
            self.dropped += 1

    def start_over(self) -> None:
        """Notes that another labeler answers from now on: every caption is without an answer again."""
        answered = [caption for caption in self._answers if caption not in self._pending]
        self._answers.clear()
        self._tally.clear()
        self._pending = dict.fromkeys(answered) | self._pending
        self._drop_oldest()
        self.some_lost()

    def learn(self, updates: Iterable[LabelUpdate], now_s: float) -> list[LabelUpdate]:
        """Notes answers; returns those that are news to this client, which asked for the caption."""
        news: list[LabelUpdate] = []
        for update in updates:
            known = self._answers.get(update.caption)
            if update.caption not in self._pending and known is None:
                continue  # another run asked
            self._forget(update.caption)
            self._answers[update.caption] = (update, now_s)
            if known is not None and known[0] == update:
                continue
            if known is not None:
                self._tally[known[0].status] -= 1
            self._tally[update.status] += 1
            news.append(update)
        return news

    def _drop_oldest(self) -> None:
        while len(self._pending) > MAX_PENDING:
            self._forget(next(iter(self._pending)))
            self.dropped += 1

    def _forget(self, caption: bytes) -> None:
        self._pending.pop(caption, None)
        self._fresh.pop(caption, None)
        self._backlog.pop(caption, None)


def cut(items: Iterable[Item], caption_bytes: Callable[[Item], int]) -> list[Item]:
    """Returns as many items as fit into one request, one at least."""
    batch: list[Item] = []
    size = 0
    for item in itertools.islice(items, MAX_OFFER):
        size += caption_bytes(item)
        if batch and size > MAX_OFFER_BYTES:
            break
        batch.append(item)
    return batch
