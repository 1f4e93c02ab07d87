"""What the engine works on: jobs, and the counts that it keeps of them."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from llm_annotator.labeler import Labeler
from llm_annotator.question import SubjectId
from llm_annotator.store.records import AnnotationRecord, ComparisonRecord
from llm_annotator.types import Completion, Judgement, Subject

JobKey = tuple[str, SubjectId]


@dataclass(kw_only=True, eq=False)
class Job:
    """One subject about which one labeler is to answer, until it has."""

    labeler: Labeler
    subject_id: SubjectId
    subject: Subject
    since: float = 0.0
    """Time at which it was first offered, on the engine's clock."""
    runs: dict[str, None] = field(default_factory=dict[str, None])
    """Ids of the runs that want the answer."""
    episodes: int = 0
    """In how many episodes of a run the caption came up, as far as it was told."""
    requests: int = 0
    attempts: int = 0
    """Failures that count against the subject."""
    answers_at_fault: dict[str, int] = field(default_factory=dict[str, int])
    """How many answers each server had given when it last faulted on this subject, by its name."""

    @property
    def key(self) -> JobKey:
        """What no two open jobs share."""
        return (self.labeler.id, self.subject_id)

    @property
    def size(self) -> int:
        """Bytes of what is asked about."""
        return len(self.subject) if isinstance(self.subject, bytes) else sum(map(len, self.subject))

    def record(
        self, judgement: Judgement, completion: Completion | None, *, backend: str, created_at: float
    ) -> AnnotationRecord | ComparisonRecord:
        """Returns what is kept of the outcome. Without a completion, the question stands in for what was sent."""
        if completion is None:
            completion = self._unanswered()
            answer = None
        else:
            answer = completion.text
        return self.labeler.question.record(
            self.subject_id,
            judgement,
            labeler_id=self.labeler.id,
            status=judgement.status,
            score=judgement.score,
            prompt_prefix=completion.sent_prefix,
            prompt_suffix=completion.sent_suffix,
            answer=answer,
            logprobs=completion.logprobs,
            model=completion.model,
            backend=f"{backend}, {judgement.read_from}" if judgement.read_from else backend,
            tokens_in=completion.tokens_in,
            tokens_out=completion.tokens_out,
            latency_s=completion.latency_s if answer is not None else None,
            attempts=self.requests,
            detail=judgement.detail,
            created_at=created_at,
        )

    def _unanswered(self) -> Completion:
        """Returns the question that got no answer, for its record."""
        request = self.labeler.request(self.subject)
        return Completion(
            sent_prefix=request.text_prefix,
            sent_suffix=request.text_suffix,
            text="",
            logprobs=None,
            model=self.labeler.model,
            tokens_in=None,
            tokens_out=None,
            latency_s=0.0,
        )


@dataclass(kw_only=True)
class LabelerCounts:
    """What one labeler has to do and has done since the service started.

    queued, in_flight: subjects waiting and being asked. labelled, failed, unparsed: outcomes. dropped: subjects that
    fell out of the full queue. requests: questions sent. failures: failed requests by the error's name.
    tokens_in, tokens_out: as the server counted them, or estimated. cost: theirs, in the currency of the prices.
    saved_by_cache: subjects that were offered and had a label already. saved_by_parts: questions
    that asking by parts saved, at least; less than 0 if it took more.
    """

    queued: int = 0
    in_flight: int = 0
    labelled: int = 0
    failed: int = 0
    unparsed: int = 0
    dropped: int = 0
    requests: int = 0
    failures: Counter[str] = field(default_factory=Counter[str])
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    saved_by_cache: int = 0
    saved_by_parts: int = 0


class Offer(NamedTuple):
    """What became of subjects offered: newly queued; dropped (the oldest, of any offer) or not taken, lacking room."""

    accepted: int
    dropped: int
