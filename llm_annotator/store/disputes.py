"""What two labelers, and people, said about the captions of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llm_annotator.store.reading import Reading
from llm_annotator.types import LabelStatus

# A person's verdict hides the LLM's label in `labels`, but the annotation that would count without it is named there.
_VERDICTS = """SELECT c.id, c.text, o.count, o.reward_sum, a.status, a.helpful, a.p_helpful, b.status, b.helpful,
    b.p_helpful, CASE WHEN f.source = 'human' THEN f.helpful END
    FROM occurrences o JOIN captions c ON c.id = o.caption_id
    LEFT JOIN labels f ON f.labeler_id = :first AND f.caption_id = c.id
    LEFT JOIN annotations a ON a.id = f.annotation_id
    LEFT JOIN labels s ON s.labeler_id = :second AND s.caption_id = c.id
    LEFT JOIN annotations b ON b.id = s.annotation_id
    WHERE o.run_id = :run AND o.count >= :min_count ORDER BY o.count DESC, c.id LIMIT :limit"""


class Said(NamedTuple):
    """What an LLM said about a caption, whatever people say; `status` None if it was not asked."""

    status: LabelStatus | None
    helpful: bool | None
    p_helpful: float | None


@dataclass(frozen=True)
class Verdicts:
    """One caption of a run: how often it came up, what it earned, and what is said about it.

    person: what a person decided against or for the first labeler, None if nobody did.
    """

    caption_id: int
    text: bytes
    count: int
    reward_sum: float
    first: Said
    second: Said
    person: bool | None


def verdicts(
    reading: Reading, run_id: str, first: str, second: str, *, min_count: int = 0, limit: int | None = None
) -> list[Verdicts]:
    """Returns the captions of a run, the most frequent first, with what two labelers said about them.

    first: the labeler whose overrides are returned, too.
    """
    values = {
        "run": run_id,
        "first": first,
        "second": second,
        "min_count": min_count,
        "limit": -1 if limit is None else limit,
    }
    return [
        Verdicts(key, text, count, reward, _said(rest[0:3]), _said(rest[3:6]), _maybe_bool(rest[6]))
        for key, text, count, reward, *rest in reading.rows(_VERDICTS, values)
    ]


def _said(row: Sequence[float | str | None]) -> Said:
    status, helpful, p_helpful = row
    assert not isinstance(p_helpful, str)
    return Said(None if status is None else LabelStatus(str(status)), _maybe_bool(helpful), p_helpful)


def _maybe_bool(value: object) -> bool | None:
    return None if value is None else bool(value)
