"""What client and service say to each other: msgpack bodies over HTTP.

POST /v1/runs         {protocol, run_id, name, config, labeler}   -> {instance, labeler_id, cursor, standing}
POST /v1/captions     {run_id, labeler_id, captions, older}       -> {instance, known, accepted, dropped, status}
POST /v1/labels       {run_id, labeler_id, after, wait_s}         -> {instance, updates, cursor, status}
POST /v1/occurrences  {run_id, occurrences}                       -> {instance, stored}
POST /v1/transitions  {run_id, transitions}                       -> {instance, stored}
POST /v1/scores       {run_id, scores}                            -> {instance, stored}
POST /v1/leave        {run_id}                                    -> {instance}
GET  /v1/status, /healthz                                         -> JSON for people and monitors
GET  /metrics                                                     -> text for Prometheus

`captions` holds what the labeler is asked about: captions, or, of a labeler that compares, ordered pairs [first,
second]. They are asked about last one first, after (`older`) or before those that are queued already.
`standing` holds what people said of captions where a run would not ask: of a labeler that compares.
A run that has said that it leaves, or was silent for two minutes, is forgotten: what only it waits for is not asked.
`instance` is new each time the service starts: a client that sees another one registers again and offers again what
is unanswered. `known` and `updates` hold labels or comparisons; `cursor` numbers the changes of the store and outlives
the service.
Errors are JSON, {error, message}, whatever was asked.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import msgpack  # pyright: ignore[reportMissingTypeStubs]

from llm_annotator.moments import MAX_PACKED_BYTES, MAX_PER_CAPTION
from llm_annotator.types import CaptionScore, Comparison, LabelStatus, LabelUpdate, Occurrence, SampledTransition

PROTOCOL = 2
"""Version of these messages."""

CONTENT_TYPE = "application/msgpack"

MAX_BODY_BYTES = 16 * 2**20
"""Requests above this are refused (413)."""

MAX_CAPTION_BYTES = 256 * 2**10
"""Longer captions are not taken: no game says that much, and no model reads it."""

BATCH_REFUSED = frozenset({400, 413})
"""HTTP statuses that mean: this body will never be taken, do not send it again."""

_MAX_INTEGER = 2**63 - 1
"""What a column of SQLite holds."""

MAX_UPDATES = 5_000
"""Labels in one answer at most; the cursor says where to go on."""

UNREGISTERED = "unregistered"
"""`error` of an answer that means: register the run (again)."""

NOT_READY = "not_ready"
"""`error` of an answer that means: the backend is not open yet, try again; `message` says why."""


def pack(body: Mapping[str, Any]) -> bytes:
    """Returns a body as msgpack."""
    return cast("bytes", msgpack.packb(body))  # pyright: ignore[reportUnknownMemberType] - msgpack has no types


def unpack(body: bytes) -> dict[str, Any]:
    """Returns the map that a body holds.

    Raises:
        ValueError: not msgpack, or not a map.
    """
    value = cast("Any", msgpack.unpackb(body))  # pyright: ignore[reportUnknownMemberType] - msgpack has no types
    if not isinstance(value, dict):
        raise ValueError(f"it is a {type(value).__name__}")
    return cast("dict[str, Any]", value)


@dataclass(frozen=True, kw_only=True)
class LabelerStatus:
    """How the service stands with one labeler.

    queued, in_flight: captions waiting and being asked. labelled, failed, unparsed, requests: counts since the service
    started. dropped: captions of this run that fell out of the full queue.
    room: captions of this run that may be offered again; 0 unless half of its share of the queue is free.
    failures: requests that failed. tokens_in, tokens_out: of the requests. cost: of them, None without prices.
    oldest_s: for how long the caption offered first, by any run, is without an answer. wait_s: median of the last ones
    that were answered.
    saved_by_cache: captions that had a label already when they were offered.
    saved_by_parts: questions that asking by parts saved, at least; less than 0 if it took more.
    concurrency: requests that may be in flight now. endpoints, endpoints_up: servers, and those that answer.
    budget_left: smallest share left of a budget, None without one. exhausted: nothing is asked any more.
    problem: what is wrong and what to do, empty if all is well.
    """

    queued: int = 0
    in_flight: int = 0
    labelled: int = 0
    failed: int = 0
    unparsed: int = 0
    dropped: int = 0
    requests: int = 0
    labels_per_s: float = 0.0
    room: int = 0
    failures: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float | None = None
    oldest_s: float = 0.0
    wait_s: float = 0.0
    saved_by_cache: int = 0
    saved_by_parts: int = 0
    concurrency: int = 0
    endpoints: int = 0
    endpoints_up: int = 0
    budget_left: float | None = None
    exhausted: bool = False
    problem: str = ""

    def to_wire(self) -> dict[str, Any]:
        """Returns plain types."""
        return asdict(self)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "LabelerStatus":
        """Returns what `to_wire` wrote; fields that this version does not know are left out."""
        return cls(**{name: value for name, value in wire.items() if name in cls.__dataclass_fields__})


def label_to_row(update: LabelUpdate) -> list[Any]:
    """Returns one label as a row."""
    return [update.caption, str(update.status), update.helpful, update.p_helpful, update.source, update.muted]


def label_from_row(row: Sequence[Any]) -> LabelUpdate:
    """Returns the label that a row holds. One of five fields is of a service that knows no mutes."""
    caption, status, helpful, p_helpful, source, *rest = row
    (muted,) = rest or (False,)
    return LabelUpdate(
        caption=caption,
        status=LabelStatus(status),
        helpful=helpful,
        p_helpful=p_helpful,
        source=source,
        muted=bool(muted),
    )


def comparison_to_row(comparison: Comparison) -> list[Any]:
    """Returns one comparison as a row."""
    return [
        [comparison.first, comparison.second],
        str(comparison.status),
        comparison.first_better,
        comparison.p_first,
    ]


def comparison_from_row(row: Sequence[Any]) -> Comparison:
    """Returns the comparison that a row holds."""
    (first, second), status, first_better, p_first = row
    return Comparison(
        first=first, second=second, status=LabelStatus(status), first_better=first_better, p_first=p_first
    )


def occurrence_to_wire(item: Occurrence) -> list[Any]:
    """Returns one occurrence as a row."""
    episodes = None if item.episode_count is None else int(item.episode_count)
    # Numbers of NumPy pass for Python's everywhere, but not with msgpack.
    return [item.caption, int(item.count), int(item.first_step), int(item.last_step), float(item.reward_sum), episodes]


def _check_caption(caption: object) -> None:
    if not isinstance(caption, bytes):  # it may come from another program
        raise ValueError(f"a caption is bytes, not {type(caption).__name__}")
    if len(caption) > MAX_CAPTION_BYTES:
        raise ValueError(f"a caption has {len(caption)} bytes, {MAX_CAPTION_BYTES} at most are kept")


def _check_integer(name: str, value: int, limit: int) -> None:
    if not 0 <= value <= limit:
        raise ValueError(f"{name} is {value}, not from 0 to {limit}")


def check_occurrence(item: Occurrence) -> None:
    """Checks that an occurrence can be sent and stored.

    Raises:
        ValueError: a caption that is too long, a number that is not finite or that no column holds.
    """
    _check_caption(item.caption)
    if not math.isfinite(item.reward_sum):
        raise ValueError(f"reward_sum is {item.reward_sum}, not a finite number")
    for name, value in (("count", item.count), ("first_step", item.first_step), ("last_step", item.last_step)):
        _check_integer(name, value, _MAX_INTEGER)
    if item.episode_count is not None and not 0 <= item.episode_count <= _MAX_INTEGER:
        raise ValueError(f"episode_count is {item.episode_count}, not from 0 to {_MAX_INTEGER}")


def occurrence_from_wire(row: Sequence[Any]) -> Occurrence:
    """Returns the occurrence that a row holds.

    Raises:
        ValueError: not such a row, or one that `check_occurrence` refuses.
    """
    caption, count, first_step, last_step, reward_sum, episode_count = row
    item = Occurrence(
        caption=caption,
        count=int(count),
        first_step=int(first_step),
        last_step=int(last_step),
        reward_sum=float(reward_sum),
        episode_count=None if episode_count is None else int(episode_count),
    )
    check_occurrence(item)
    return item


def transition_to_wire(item: SampledTransition) -> list[Any]:
    """Returns one moment as a row."""
    return [item.caption, int(item.env_step), int(item.slot), item.frames]


def transition_from_wire(row: Sequence[Any]) -> SampledTransition:
    """Returns the moment that a row holds. What is in its frames is for those to check who read them.

    Raises:
        ValueError: not such a row, or one that `check_transition` refuses.
    """
    caption, env_step, slot, frames = row
    item = SampledTransition(caption=caption, env_step=int(env_step), slot=int(slot), frames=frames)
    check_transition(item)
    return item


def check_transition(item: SampledTransition) -> None:
    """Checks that a moment can be sent and stored.

    Raises:
        ValueError: a caption or frames that are too long, a number out of range.
    """
    _check_caption(item.caption)
    frames = cast("object", item.frames)
    if not isinstance(frames, bytes) or len(frames) > MAX_PACKED_BYTES:
        raise ValueError(f"frames are bytes, {MAX_PACKED_BYTES} at most")
    _check_integer("env_step", item.env_step, _MAX_INTEGER)
    _check_integer("slot", item.slot, MAX_PER_CAPTION - 1)


def score_to_wire(item: CaptionScore) -> list[Any]:
    """Returns one score as a row."""
    return [item.caption, int(item.env_step), float(item.score)]


def score_from_wire(row: Sequence[Any]) -> CaptionScore:
    """Returns the score that a row holds.

    Raises:
        ValueError: not such a row, or one that `check_score` refuses.
    """
    caption, env_step, score = row
    item = CaptionScore(caption=caption, env_step=int(env_step), score=float(score))
    check_score(item)
    return item


def check_score(item: CaptionScore) -> None:
    """Checks that a score can be sent and stored.

    Raises:
        ValueError: a caption that is too long, a number out of range or not finite.
    """
    _check_caption(item.caption)
    _check_integer("env_step", item.env_step, _MAX_INTEGER)
    if not math.isfinite(item.score):
        raise ValueError(f"score is {item.score}, not a finite number")
