"""Records that the store takes and gives back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from llm_annotator.types import LabelStatus

LabelSource = Literal["llm", "human"]
CaptionOrder = Literal["count", "reward", "label", "newest"]
StatusFilter = Literal["labelled", "unparsed", "failed", "unlabelled"]


@dataclass(frozen=True, kw_only=True)
class AnswerRecord:
    """One question asked once, retries included, and what came of it; heirs say what it was about.

    score: log P(positive answer word) - log P(the other one), in nats, None without log-probabilities.
    prompt_prefix, prompt_suffix: exactly what was sent; their concatenation is the whole prompt.
    answer: the raw answer, None if none came.
    logprobs: natural log-probability of the alternatives for the first answer token.
    backend: kind of backend, and what its answer was read from: "openai, log-probabilities".
    attempts: requests that it took, those included that the caption was not to blame for.
    detail: why there is no label, empty if there is one.
    created_at: seconds since 1970, UTC.
    """

    labeler_id: str
    status: LabelStatus
    score: float | None
    prompt_prefix: str
    prompt_suffix: str
    answer: str | None
    logprobs: Mapping[str, float] | None
    model: str
    backend: str
    tokens_in: int | None
    tokens_out: int | None
    latency_s: float | None
    attempts: int
    detail: str
    created_at: float


@dataclass(frozen=True, kw_only=True)
class AnnotationRecord(AnswerRecord):
    """One caption asked about: is it helpful?"""

    caption_id: int
    helpful: bool | None
    p_helpful: float | None


@dataclass(frozen=True, kw_only=True)
class ComparisonRecord(AnswerRecord):
    """An ordered pair of captions asked about: which of the two tells of more progress?"""

    first_id: int
    second_id: int
    first_better: bool | None
    p_first: float | None


class StoredLabel(NamedTuple):
    """What is in force for one caption and one labeler.

    asked: False if no annotation is kept (a person overruled before the LLM was asked, or took that back).
    updated_at: seconds since 1970, UTC.
    change: place in the sequence of all changes of this store.
    muted: a person wants it to earn nothing; `helpful` is then False.
    """

    caption: bytes
    status: LabelStatus
    helpful: bool | None
    p_helpful: float | None
    source: LabelSource
    asked: bool
    updated_at: float
    change: int
    muted: bool = False


class StoredComparison(NamedTuple):
    """What is in force for one ordered pair of captions and one labeler; times and changes as in `StoredLabel`."""

    first: bytes
    second: bytes
    status: LabelStatus
    first_better: bool | None
    p_first: float | None
    updated_at: float
    change: int

    @property
    def asked(self) -> bool:
        """True: nobody but the LLM compares."""
        return True


@dataclass(frozen=True, kw_only=True)
class CaptionRow:
    """One caption: how often it came up, what it earned, and the label in force.

    count, episode_count, reward_sum: totals of the run asked for, or of all runs.
    status: None if the labeler has not answered yet.
    labeler_id: whose label it is, None if the store holds no labeler.
    answered_at: seconds since 1970, UTC.
    muted: a person wants it to earn nothing; `helpful` is then False.
    """

    caption_id: int
    text: bytes
    first_seen_at: float
    count: int
    episode_count: int | None
    first_step: int | None
    last_step: int | None
    reward_sum: float
    labeler_id: str | None
    status: LabelStatus | None
    helpful: bool | None
    p_helpful: float | None
    score: float | None
    source: LabelSource | None
    answered_at: float | None
    muted: bool = False


@dataclass(frozen=True, kw_only=True)
class StoredAnnotation:
    """One annotation as it is kept, whole. The fields are those of `AnnotationRecord`."""

    annotation_id: int
    labeler_id: str
    status: LabelStatus
    helpful: bool | None
    p_helpful: float | None
    score: float | None
    prompt: str
    answer: str | None
    logprobs: Mapping[str, float] | None
    model: str
    backend: str
    tokens_in: int | None
    tokens_out: int | None
    latency_s: float | None
    attempts: int
    detail: str
    created_at: float
    in_force: bool
    """True for the one annotation whose label counts now."""


@dataclass(frozen=True, kw_only=True)
class StoredOverride:
    """A person's verdict. It beats the LLM's label unless `revoked_at` is set; of several the newest counts.

    muted: the caption is to earn nothing; `helpful` is then False.
    """

    override_id: int
    labeler_id: str
    helpful: bool
    note: str
    author: str
    created_at: float
    revoked_at: float | None
    muted: bool = False


@dataclass(frozen=True, kw_only=True)
class RunOccurrence:
    """Where one caption came up in one run, totals since the run's start."""

    run_id: str
    run_name: str
    count: int
    episode_count: int | None
    first_step: int
    last_step: int
    reward_sum: float


@dataclass(frozen=True, kw_only=True)
class CaptionHistory:
    """Everything that is known of one caption, annotations and overrides oldest first."""

    caption_id: int
    text: bytes
    first_seen_at: float
    annotations: tuple[StoredAnnotation, ...]
    overrides: tuple[StoredOverride, ...]
    occurrences: tuple[RunOccurrence, ...]


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run that used this store. `labeler_id` is the labeler that it used last."""

    run_id: str
    name: str
    goal: str
    config: Mapping[str, Any]
    labeler_id: str | None
    created_at: float
    captions: int
    """Distinct captions that came up in it."""


@dataclass(frozen=True, kw_only=True)
class LabelerRow:
    """One labeler with the captions it answered, by status, and those a person overruled."""

    labeler_id: str
    model: str
    spec: Mapping[str, Any]
    created_at: float
    labelled: int
    helpful: int
    unparsed: int
    failed: int
    overruled: int
    compared: int
    """Ordered pairs of captions of which it said which one is better."""


@dataclass(frozen=True, kw_only=True)
class OrderedAnswer:
    """What is in force for one order of two captions. The fields are those of `ComparisonRecord`."""

    status: LabelStatus
    first_better: bool | None
    p_first: float | None
    score: float | None
    detail: str


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """Two captions that a labeler compares, the one seen first before the other.

    forward, backward: the answers about (a, b) and (b, a), None where there is none yet.
    answered_at: time of the newest of them, seconds since 1970, UTC.
    """

    a_id: int
    a: bytes
    b_id: int
    b: bytes
    forward: OrderedAnswer | None
    backward: OrderedAnswer | None
    answered_at: float


@dataclass(frozen=True, kw_only=True)
class CaptionSummary:
    """How many captions there are, by what became of them with one labeler, and the intrinsic reward they earned.

    overruled: those of the helpful and unhelpful ones that a person has labelled.
    """

    labeler_id: str | None
    captions: int
    helpful: int
    unhelpful: int
    unparsed: int
    failed: int
    overruled: int
    reward_sum: float


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Size of a store and what it cost.

    annotations, comparisons: questions about single captions and about ordered pairs, each with its retries.
    tokens_in, tokens_out, latency_s: of both; the last is the mean over those that have one, None without any.
    """

    captions: int
    annotations: int
    comparisons: int
    overrides: int
    runs: int
    labelers: int
    tokens_in: int
    tokens_out: int
    latency_s: float | None
