"""What a client knows about its subjects (captions, or pairs of them): which were answered, which are to be offered.

No network, no clock.
"""

import itertools
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from llm_annotator.marks import Marks
from llm_annotator.question import Question
from llm_annotator.questions import QUESTIONS
from llm_annotator.types import LabelStatus, News, Subject
from llm_annotator.wire import MAX_CAPTION_BYTES

_log = logging.getLogger(__name__)

Item = TypeVar("Item")

MAX_PENDING = 100_000
"""Subjects without an answer that are kept; beyond it the oldest are dropped and counted."""

MAX_PENDING_BYTES = 64 * 2**20
"""Bytes of captions in them, likewise."""

MAX_RECENT = 20_000
"""Answers that are kept whole. Of the others it is only known what they came to."""

MAX_OFFER = 5_000
"""Subjects, or occurrences of captions, in one request."""

MAX_OFFER_BYTES = 4 * 2**20
"""Bytes of captions in one request, so that it stays well below what the service takes."""

_SHOWN_BYTES = 80
"""How much of a caption stands in the log."""

REOFFER_S = 30.0
"""A subject answered without a label is offered again at most this often; the service decides when to ask."""


_MARKS = {LabelStatus.LABELLED: 1, LabelStatus.UNPARSED: 2, LabelStatus.FAILED: 3}
_STATUSES = {mark: status for status, mark in _MARKS.items()}


class Ledger:
    """Keeps every subject without an answer until it has one. Times are seconds of any steady clock.

    A run goes on for weeks: of those with an answer only the latest are kept, and of the others a mark of some bytes.

    question: which subjects there are; by default single captions.

    What is to be offered is either fresh, and goes on top of what the service has queued, or backlog, which was
    offered before and may be lost: the service was restarted, or its queue ran over. Backlog goes beneath, newest
    first, and only as far as the service says that it has room.
    """

    def __init__(self, question: Question = QUESTIONS["label"]) -> None:
        self._question = question
        self.dropped = 0
        """Subjects that were not kept: too long, refused by the service, or too many."""
        self._given_up = Marks()
        self._pending: OrderedDict[Subject, None] = OrderedDict()  # without an answer, newest last
        self._pending_bytes = 0
        self._fresh: dict[Subject, None] = {}  # those of them that were never offered, or are wanted before all others
        self._backlog: dict[Subject, None] = {}  # those of them that are to be offered again
        self._backlog_is_stale = False  # all that were offered belong into it; put there when they are needed
        # Answers, the latest last, each with when it came, and its session and change.
        self._recent: OrderedDict[Subject, tuple[News, float, tuple[int, int]]] = OrderedDict()
        self._session = 0
        self._answered = Marks()  # what every answer came to
        self._tally: Counter[LabelStatus] = Counter()

    @property
    def pending(self) -> int:
        """Subjects without an answer."""
        return len(self._pending)

    @property
    def has_fresh(self) -> bool:
        """True if subjects wait to be offered on top."""
        return bool(self._fresh)

    @property
    def has_backlog(self) -> bool:
        """True if subjects wait to be offered again."""
        return bool(self._backlog) or self._backlog_is_stale

    def answered(self, status: LabelStatus) -> int:
        """Returns how many subjects have this answer now."""
        return self._tally[status]

    def want(self, subject: Subject, now_s: float) -> None:
        """Notes that an answer is wanted, before those about all subjects so far, even if it was wanted already.

        Empty captions, pairs that need no comparing, and what has a label already change nothing.

        Raises:
            TypeError: a subject of another question.
        """
        captions = self._question.captions(subject)
        if self._question.is_void(captions) or self._given_up.get(subject):
            return
        if subject in self._pending:
            self._forget(subject)
            self._add(subject)
            self._fresh[subject] = None
            return
        if max(map(len, captions)) > MAX_CAPTION_BYTES:
            self.give_up([subject], f"longer than {MAX_CAPTION_BYTES} bytes")
            return
        recent = self._recent.get(subject)
        if self._status(subject) is LabelStatus.LABELLED or (recent is not None and now_s - recent[1] < REOFFER_S):
            return
        self._add(subject)
        self._fresh[subject] = None
        self._drop_oldest()

    def next_fresh(self) -> list[Subject]:
        """Returns fresh subjects for one request, the newest last, where the service starts."""
        return cut(self._fresh, self._bytes)

    def next_backlog(self, room: int) -> list[Subject]:
        """Returns the newest subjects that are to be offered again, at most `room`, the newest last."""
        if self._backlog_is_stale:
            self._backlog = {subject: None for subject in self._pending if subject not in self._fresh}
            self._backlog_is_stale = False
        return cut(itertools.islice(reversed(self._backlog), room), self._bytes)[::-1]

    def offered(self, batch: Iterable[Subject]) -> None:
        """Notes that the service has these subjects."""
        for subject in batch:
            self._fresh.pop(subject, None)
            self._backlog.pop(subject, None)

    def some_lost(self) -> None:
        """Notes that the service may have lost any subject that it was offered."""
        self._backlog_is_stale = len(self._pending) > len(self._fresh)

    def give_up(self, subjects: Sequence[Subject], why: str) -> None:
        """Notes that subjects can never have an answer: they are not offered again. The log tells of the first ones."""
        if subjects and not len(self._given_up):
            _log.warning(
                "%d questions get no label (%s); the first is about %s. Others like it are only counted.",
                len(subjects),
                why,
                " and ".join(repr(caption[:_SHOWN_BYTES]) for caption in self._question.captions(subjects[0])),
            )
        for subject in subjects:
            self._forget(subject)
            self._given_up.set(subject, 1)
            self.dropped += 1

    def start_over(self) -> None:
        """Notes that another labeler answers from now on: every subject is without an answer again.

        Those that were answered long ago are no longer known: whoever asked about them must ask again.
        """
        for subject in reversed(self._recent):
            if subject not in self._pending:
                self._add(subject)
                self._pending.move_to_end(subject, last=False)
        self._recent.clear()
        self._answered.clear()
        self._tally.clear()
        self._drop_oldest()
        self.some_lost()

    def connected(self) -> None:
        """Notes that a service was reached, perhaps another one: changes of before cannot be compared with its own."""
        self._session += 1

    def learn(self, updates: Iterable[News], now_s: float, changes: Iterable[int] = ()) -> list[News]:
        """Notes answers; returns those that are news to this client, which asked about them, and those for all.

        changes: which change of the store made each, where that is known. Answers to two requests that are under way
            at once may come in the wrong order: the older one of a subject then changes nothing.
        """
        news: list[News] = []
        for update, change in zip(updates, itertools.chain(changes, itertools.repeat(0)), strict=False):
            subject = update.subject
            if self._question.concerns_all(update):
                news.append(update)
                continue
            before = self._status(subject)
            if subject not in self._pending and before is None:
                continue  # another run asked
            self._forget(subject)
            recent, order = self._recent.get(subject), (self._session, change)
            if recent is not None and order < recent[2]:
                continue
            self._recent[subject] = (update, now_s, order)
            self._recent.move_to_end(subject)
            if recent is not None and recent[0] == update:
                continue
            if before is not None:
                self._tally[before] -= 1
            self._tally[update.status] += 1
            self._answered.set(subject, _MARKS[update.status])
            news.append(update)
        while len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
        return news

    def _status(self, subject: Subject) -> LabelStatus | None:
        return _STATUSES.get(self._answered.get(subject))

    def _add(self, subject: Subject) -> None:
        self._pending[subject] = None
        self._pending_bytes += self._bytes(subject)

    def _drop_oldest(self) -> None:
        while len(self._pending) > MAX_PENDING or self._pending_bytes > MAX_PENDING_BYTES:
            self._forget(next(iter(self._pending)))
            self.dropped += 1

    def _forget(self, subject: Subject) -> None:
        if subject in self._pending:
            del self._pending[subject]
            self._pending_bytes -= self._bytes(subject)
        self._fresh.pop(subject, None)
        self._backlog.pop(subject, None)

    def _bytes(self, subject: Subject) -> int:
        return sum(map(len, self._question.captions(subject)))


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
