"""What the two threads of a client hand to each other."""

import threading
from collections import deque
from dataclasses import dataclass, field

from llm_annotator.types import CaptionScore, News, Occurrence, SampledTransition, Subject
from llm_annotator.wire import LabelerStatus

Sampled = SampledTransition | CaptionScore
"""What is sampled for people to look at."""


@dataclass(frozen=True, kw_only=True)
class ClientHealth:
    """How labelling fares, as one run sees it.

    connected: the service answered last time. message: what is wrong and what to do; empty if all is well.
    queued: subjects (captions, or pairs of them) of this run without an answer, those in flight included.
    in_flight: questions that the service has under way for this labeler. labelled, failed, unparsed: subjects of this
    run by their answer.
    dropped: subjects that fell out of a full queue (here and at the service; they are offered again), and those that
    can never be labelled because a caption is too long.
    labeler: id of the labeler that answers, empty before the first connection. When it changes, all that was answered
    is to be submitted again: of what was answered long ago, the client no longer knows what it was.
    requests: questions to the LLM since the service started. labels_per_s: of this labeler, lately.
    service: all that the service said last.
    records_dropped: moments and scores that the service will never have: it was away for too long, or refused them.
    """

    connected: bool = False
    message: str = ""
    queued: int = 0
    in_flight: int = 0
    labelled: int = 0
    failed: int = 0
    unparsed: int = 0
    dropped: int = 0
    requests: int = 0
    labels_per_s: float = 0.0
    records_dropped: int = 0
    labeler: str = ""
    service: LabelerStatus = field(default_factory=LabelerStatus)


class Mailbox:
    """What the trainer's thread and the background thread share: a queue each way, and one snapshot.

    `batches`, `records` and `updates` are deques, whose append and popleft are atomic. `dropped_captions` and
    `dropped_records` have one writer.
    """

    def __init__(self) -> None:
        self.batches: deque[tuple[Subject, ...] | tuple[Occurrence, ...]] = deque()
        self.records: deque[Sampled] = deque()
        self.updates: deque[News] = deque()
        self.dropped_captions = self.dropped_records = 0
        self._lock = threading.Lock()  # guards `_health`
        self._health = ClientHealth(message="The annotator has not answered yet.")

    @property
    def health(self) -> ClientHealth:
        """The snapshot; whoever sets it replaces it whole."""
        with self._lock:
            return self._health

    @health.setter
    def health(self, health: ClientHealth) -> None:
        with self._lock:
            self._health = health
