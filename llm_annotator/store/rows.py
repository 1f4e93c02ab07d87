"""Rows of SQL as records: the order of columns is that of the queries in `reader`."""

import json
from typing import Any

from llm_annotator.store.records import (
    CaptionRow,
    OrderedAnswer,
    PairRow,
    RunOccurrence,
    StoredAnnotation,
    StoredOverride,
)
from llm_annotator.types import LabelStatus


def _maybe_bool(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def caption_row(row: tuple[Any, ...], labeler_id: str | None) -> CaptionRow:
    """Returns a caption with what it earned and the label in force."""
    return CaptionRow(
        caption_id=row[0],
        text=row[1],
        first_seen_at=row[2],
        count=row[3],
        episode_count=row[4],
        first_step=row[5],
        last_step=row[6],
        reward_sum=row[7],
        labeler_id=labeler_id,
        status=None if row[8] is None else LabelStatus(row[8]),
        helpful=_maybe_bool(row[9]),
        p_helpful=row[10],
        score=row[11],
        source=row[12],
        answered_at=row[13],
        muted=bool(row[14]),
    )


def annotation(row: tuple[Any, ...]) -> StoredAnnotation:
    """Returns a question with its answer."""
    return StoredAnnotation(
        annotation_id=row[0],
        labeler_id=row[1],
        status=LabelStatus(row[2]),
        helpful=_maybe_bool(row[3]),
        p_helpful=row[4],
        score=row[5],
        prompt=row[6],
        answer=row[7],
        logprobs=None if row[8] is None else json.loads(row[8]),
        model=row[9],
        backend=row[10],
        tokens_in=row[11],
        tokens_out=row[12],
        latency_s=row[13],
        attempts=row[14],
        detail=row[15],
        created_at=row[16],
        in_force=bool(row[17]),
    )


def override(row: tuple[Any, ...]) -> StoredOverride:
    """Returns a person's verdict."""
    return StoredOverride(
        override_id=row[0],
        labeler_id=row[1],
        helpful=bool(row[2]),
        note=row[3],
        author=row[4],
        created_at=row[5],
        revoked_at=row[6],
        muted=bool(row[7]),
    )


def occurrence(row: tuple[Any, ...]) -> RunOccurrence:
    """Returns where a caption came up in one run."""
    return RunOccurrence(
        run_id=row[0],
        run_name=row[1],
        count=row[2],
        episode_count=row[3],
        first_step=row[4],
        last_step=row[5],
        reward_sum=row[6],
    )


def pair(row: tuple[Any, ...]) -> PairRow:
    """Returns two captions with the answers about both orders."""
    return PairRow(
        a_id=row[0],
        a=row[1],
        b_id=row[2],
        b=row[3],
        answered_at=row[4],
        forward=_ordered_answer(row[5:10]),
        backward=_ordered_answer(row[10:15]),
    )


def _ordered_answer(row: tuple[Any, ...]) -> OrderedAnswer | None:
    status, first_better, p_first, score, detail = row
    if status is None:
        return None
    return OrderedAnswer(
        status=LabelStatus(status),
        first_better=_maybe_bool(first_better),
        p_first=p_first,
        score=score,
        detail=detail,
    )
