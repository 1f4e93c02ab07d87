"""What a client knows about its captions: which were answered, which are to be offered. No network, no clock."""

import itertools
from collections import Counter
from collections.abc import Iterable

from llm_annotator.types import LabelStatus, LabelUpdate
from llm_annotator.wire import MAX_CAPTION_BYTES

MAX_PENDING = 100_000
"""Captions without an answer that are kept; beyond it the oldest are dropped and counted."""

MAX_OFFER = 5_000
"""Captions in one request."""

MAX_OFFER_BYTES = 4 * 2**20
"""Bytes of captions in one request, so that it stays well below what the service takes."""

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
        """Captions that were not kept: too long, or too many."""
        self._pending: dict[bytes, None] = {}  # without an answer, newest last
        self._fresh: dict[bytes, None] = {}  # those of them that were never offered
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
        """True if captions wait to be offered for the first time."""
        return bool(self._fresh)

    @property
    def has_backlog(self) -> bool:
        """True if captions wait to be offered again."""
        return bool(self._backlog) or self._backlog_is_stale

    def answered(self, status: LabelStatus) -> int:
        """Returns how many captions have this answer now."""
        return self._tally[status]

    def want(self, caption: bytes, now_s: float) -> None:
        """Notes that a label is wanted. Empty captions, and those asked for or labelled already, change nothing."""
        if not caption or caption in self._pending:
            return
        if len(caption) > MAX_CAPTION_BYTES:
            self.dropped += 1
            return
        answer = self._answers.get(caption)
        if answer is not None and (answer[0].status is LabelStatus.LABELLED or now_s - answer[1] < REOFFER_S):
            return
        self._pending[caption] = None
        self._fresh[caption] = None
        if len(self._pending) > MAX_PENDING:
            oldest = next(iter(self._pending))
            self._forget(oldest)
            self.dropped += 1

    def next_fresh(self) -> list[bytes]:
        """Returns fresh captions for one request, the newest last, where the service starts."""
        return _cut(itertools.islice(self._fresh, MAX_OFFER))

    def next_backlog(self, room: int) -> list[bytes]:
        """Returns the newest captions that are to be offered again, at most `room`, the newest last."""
        if self._backlog_is_stale:
            self._backlog = {caption: None for caption in self._pending if caption not in self._fresh}
            self._backlog_is_stale = False
        return _cut(itertools.islice(reversed(self._backlog), min(room, MAX_OFFER)))[::-1]

    def offered(self, batch: Iterable[bytes]) -> None:
        """Notes that the service has these captions."""
        for caption in batch:
            self._fresh.pop(caption, None)
            self._backlog.pop(caption, None)

    def some_lost(self) -> None:
        """Notes that the service may have lost any caption that it was offered."""
        self._backlog_is_stale = len(self._pending) > len(self._fresh)

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

    def _forget(self, caption: bytes) -> None:
        self._pending.pop(caption, None)
        self._fresh.pop(caption, None)
        self._backlog.pop(caption, None)


def _cut(captions: Iterable[bytes]) -> list[bytes]:
    """Returns as many captions as fit into one request, one at least."""
    batch: list[bytes] = []
    size = 0
    for caption in captions:
        size += len(caption)
        if batch and size > MAX_OFFER_BYTES:
            break
        batch.append(caption)
    return batch
