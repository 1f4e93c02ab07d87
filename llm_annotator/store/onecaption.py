"""What one caption is connected with, beyond its own history: labels in force, parts, comparisons, its place."""

from typing import Any, NamedTuple

from llm_annotator.store.reading import Reading
from llm_annotator.types import LabelStatus

MAX_COMPARISONS = 50
"""Comparisons of one caption that are returned, the newest."""

# CROSS JOIN: labelers first, of which there are few; SQLite would read every label of each.
_IN_FORCE = """SELECT l.labeler_id, l.status, l.helpful, l.p_helpful, l.source, l.annotation_id, l.override_id,
    l.updated_at, coalesce(l.muted, 0) FROM labelers b CROSS JOIN labels l ON l.labeler_id = b.id AND l.caption_id = ?
    ORDER BY b.created_at, b.id"""

_PARTS = """SELECT p.annotation_id, c.id, c.text, l.status, l.helpful, l.p_helpful
    FROM annotations a JOIN annotation_parts p ON p.annotation_id = a.id JOIN captions c ON c.id = p.caption_id
    LEFT JOIN labels l ON l.labeler_id = a.labeler_id AND l.caption_id = c.id
    WHERE a.caption_id = ? ORDER BY p.annotation_id, p.position"""

_COMPARISONS = """SELECT f.labeler_id, c.id, c.text, f.status, f.first_better, f.p_first, r.status, r.first_better,
    r.p_first, f.created_at
    FROM comparisons_in_force f JOIN captions c ON c.id = f.second_id
    LEFT JOIN comparisons_in_force r
        ON r.first_id = f.second_id AND r.second_id = f.first_id AND r.labeler_id = f.labeler_id
    WHERE f.first_id = ? ORDER BY f.id DESC LIMIT ?"""


class LabelInForce(NamedTuple):
    """What counts for a caption and one labeler. override_id: the person's verdict that counts, None if none does."""

    labeler_id: str
    status: LabelStatus
    helpful: bool | None
    p_helpful: float | None
    source: str
    annotation_id: int | None
    override_id: int | None
    updated_at: float
    muted: bool


class Part(NamedTuple):
    """One caption of those from whose labels that of a longer one was combined, with its label in force."""

    caption_id: int
    text: bytes
    status: LabelStatus | None
    helpful: bool | None
    p_helpful: float | None


class ComparedWith(NamedTuple):
    """Another caption that a labeler compared with this one.

    forward, backward: whether the answer was for this caption, asked first and asked second; None without a label.
    p_forward, p_backward: probability that this one is better.
    """

    labeler_id: str
    caption_id: int
    text: bytes
    forward: bool | None
    p_forward: float | None
    backward: bool | None
    p_backward: float | None
    answered_at: float

    @property
    def better(self) -> bool | None:
        """Whether this caption is the better one; None while an order is unanswered, or if the two disagree."""
        return self.forward if self.forward == self.backward else None


def labels_in_force(reading: Reading, caption_id: int) -> list[LabelInForce]:
    """Returns what counts for a caption, one entry a labeler that answered or was overruled."""
    return [
        LabelInForce(key, LabelStatus(status), _maybe_bool(helpful), p, source, annotation, override, at, bool(mute))
        for key, status, helpful, p, source, annotation, override, at, mute in reading.rows(_IN_FORCE, (caption_id,))
    ]


def parts(reading: Reading, caption_id: int) -> dict[int, list[Part]]:
    """Returns from which parts labels of a caption were combined, by annotation, in their order."""
    found: dict[int, list[Part]] = {}
    for annotation_id, key, text, status, helpful, p_helpful in reading.rows(_PARTS, (caption_id,)):
        part = Part(key, text, None if status is None else LabelStatus(status), _maybe_bool(helpful), p_helpful)
        found.setdefault(annotation_id, []).append(part)
    return found


def holders(reading: Reading, caption_id: int) -> int:
    """Returns of how many captions, over all labelers, a caption is a part."""
    found = reading.row("SELECT count(DISTINCT caption_id) FROM caption_parts WHERE part_id = ?", (caption_id,))
    return found[0] if found else 0


def compared_with(reading: Reading, caption_id: int) -> list[ComparedWith]:
    """Returns the captions that a caption was compared with, those answered last first."""
    return [_compared(*row) for row in reading.rows(_COMPARISONS, (caption_id, MAX_COMPARISONS))]


def _compared(labeler_id: str, caption_id: int, text: bytes, *rest: Any) -> ComparedWith:
    _, forward, p_forward, _, other, p_other, answered_at = rest
    return ComparedWith(
        labeler_id=labeler_id,
        caption_id=caption_id,
        text=text,
        forward=_maybe_bool(forward),
        p_forward=p_forward,
        backward=None if other is None else not other,
        p_backward=None if p_other is None else 1.0 - p_other,
        answered_at=answered_at,
    )


def _maybe_bool(value: int | None) -> bool | None:
    return None if value is None else bool(value)
