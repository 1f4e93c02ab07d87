"""The two things that a labeler may be asked: labels of captions, and preferences between two of them.

`QUESTIONS` is the one place that knows both. Everything else holds a `Question` and does not ask which one it is.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from llm_annotator import wire
from llm_annotator.parts import PARTS_MODES, PartsMode
from llm_annotator.question import (
    Example,
    PairExample,
    Question,
    QuestionName,
    ReasonedExample,
    ReasonedPairExample,
    SubjectId,
)
from llm_annotator.store.records import AnnotationRecord, ComparisonRecord, StoredComparison, StoredLabel
from llm_annotator.types import Comparison, Judgement, LabelUpdate, News, Subject

if TYPE_CHECKING:
    from llm_annotator.store.writer import Store

CONTENT_FREE_CAPTIONS = (b"N/A", b"", b"[MASK]")
"""The inputs that say nothing in Zhao et al., "Calibrate Before Use" (arXiv 2102.09690), section 5."""


class LabelQuestion:
    """Is this caption helpful? Subjects are captions."""

    name: QuestionName = "label"
    parts_modes: tuple[PartsMode, ...] = PARTS_MODES
    placeholders: tuple[str, ...] = ("caption",)
    example: type[Example] | type[PairExample] = Example
    reasoned_example: type[ReasonedExample] | type[ReasonedPairExample] = ReasonedExample
    default_prompt: str | None = None
    reasoned_prompt: str = "reason"
    content_free: tuple[Subject, ...] = CONTENT_FREE_CAPTIONS

    def captions(self, subject: object) -> tuple[bytes, ...]:
        """Returns the caption alone."""
        if not isinstance(subject, bytes):
            raise TypeError(f"this labeler judges single captions, bytes: it cannot be asked about {_shown(subject)}")
        return (subject,)

    def is_void(self, captions: tuple[bytes, ...]) -> bool:
        """Returns whether the caption is empty."""
        return not captions[0]

    def examples(self, labelled: Sequence[tuple[str, bool]], words: tuple[str, str]) -> tuple[tuple[str, ...], ...]:
        """Returns each caption with its word."""
        return tuple(Example(caption, words[0] if helpful else words[1]) for caption, helpful in labelled)

    def from_wire(self, value: Any) -> Subject:
        """Returns the caption."""
        self.captions(value)
        return value

    def to_row(self, news: LabelUpdate) -> list[Any]:
        """Returns a label as a row."""
        return wire.label_to_row(news)

    def from_row(self, row: Sequence[Any]) -> News:
        """Returns the label that a row holds."""
        return wire.label_from_row(row)

    def intern(self, store: "Store", subjects: Sequence[bytes]) -> Sequence[SubjectId]:
        """Returns the ids of captions."""
        return store.intern(subjects)

    def stored(self, store: "Store", labeler_id: str, ids: Sequence[int]) -> Sequence[StoredLabel | None]:
        """Returns the label in force of each caption."""
        return store.labels_of(labeler_id, ids)

    def stored_since(self, store: "Store", labeler_id: str, change: int, *, limit: int) -> Sequence[StoredLabel]:
        """Returns the labels that changed."""
        return store.labels_since(labeler_id, change, limit=limit)

    def standing(self, store: "Store", labeler_id: str) -> Sequence[StoredLabel]:
        """Returns nothing: a run asks about each of its captions, and what a person said of one is the answer."""
        return []

    def concerns_all(self, news: News) -> bool:
        """Returns False."""
        return False

    def news(self, stored: StoredLabel) -> News:
        """Returns a stored label as news."""
        return _label_news(stored)

    def record(self, subject_id: int, judgement: Judgement, **answer: Any) -> AnnotationRecord:
        """Returns the annotation of a caption."""
        return AnnotationRecord(
            caption_id=subject_id, helpful=judgement.helpful, p_helpful=judgement.p_helpful, **answer
        )


class PreferenceQuestion:
    """Which of two captions tells of more progress? Subjects are ordered pairs of captions."""

    name: QuestionName = "preference"
    parts_modes: tuple[PartsMode, ...] = ("none",)
    placeholders: tuple[str, ...] = ("first", "second")
    example: type[Example] | type[PairExample] = PairExample
    reasoned_example: type[ReasonedExample] | type[ReasonedPairExample] = ReasonedPairExample
    default_prompt: str | None = "compare"
    reasoned_prompt: str = "reason-compare"
    content_free: tuple[Subject, ...] = tuple((caption, caption) for caption in CONTENT_FREE_CAPTIONS)
    """What such a pair scores is the model's liking for a place."""

    def captions(self, subject: object) -> tuple[bytes, ...]:
        """Returns both captions."""
        parts = cast("tuple[object, ...]", subject) if isinstance(subject, tuple) else ()
        pair = tuple(part for part in parts if isinstance(part, bytes))
        if not len(pair) == len(parts) == 2:
            shown = _shown(cast("object", subject))
            raise TypeError(f"this labeler compares two captions, (bytes, bytes): it cannot be asked about {shown}")
        return pair

    def is_void(self, captions: tuple[bytes, ...]) -> bool:
        """Returns whether one of the captions is empty, or both are the same."""
        first, second = captions
        return not first or not second or first == second

    def examples(self, labelled: Sequence[tuple[str, bool]], words: tuple[str, str]) -> tuple[tuple[str, ...], ...]:
        """Returns each helpful caption against an unhelpful one; the better one comes first and second by turns."""
        good = [caption for caption, helpful in labelled if helpful]
        bad = [caption for caption, helpful in labelled if not helpful]
        pairs = enumerate(zip(good, bad, strict=False))  # as many as the rarer kind gives
        return tuple(
            PairExample(better, worse, words[0]) if number % 2 == 0 else PairExample(worse, better, words[1])
            for number, (better, worse) in pairs
        )

    def from_wire(self, value: Any) -> Subject:
        """Returns the pair; msgpack makes a list of it."""
        pair = tuple(cast("list[object]", value)) if isinstance(value, list) else value
        return cast("tuple[bytes, bytes]", self.captions(pair))

    def to_row(self, news: Comparison | LabelUpdate) -> list[Any]:
        """Returns a comparison, or what a person said of a caption, as a row."""
        return wire.label_to_row(news) if isinstance(news, LabelUpdate) else wire.comparison_to_row(news)

    def from_row(self, row: Sequence[Any]) -> News:
        """Returns the comparison that a row holds, or what a person said of a caption."""
        return wire.label_from_row(row) if isinstance(row[0], bytes) else wire.comparison_from_row(row)

    def intern(self, store: "Store", subjects: Sequence[tuple[bytes, bytes]]) -> Sequence[SubjectId]:
        """Returns the ids of both captions of each pair."""
        ids = store.intern([caption for pair in subjects for caption in pair])
        return list(zip(ids[::2], ids[1::2], strict=True))

    def stored(
        self, store: "Store", labeler_id: str, ids: Sequence[tuple[int, int]]
    ) -> Sequence[StoredComparison | None]:
        """Returns the answer in force about each ordered pair."""
        return store.comparisons_of(labeler_id, ids)

    def stored_since(
        self, store: "Store", labeler_id: str, change: int, *, limit: int
    ) -> Sequence[StoredComparison | StoredLabel]:
        """Returns the comparisons that changed, and what people said of captions: that is, which they muted."""
        comparisons = store.comparisons_since(labeler_id, change, limit=limit)
        said = store.labels_since(labeler_id, change, limit=limit)
        return sorted([*comparisons, *said], key=lambda stored: stored.change)[:limit]

    def standing(self, store: "Store", labeler_id: str) -> Sequence[StoredLabel]:
        """Returns what people said of captions, and took back: no run asks for that here."""
        found = store.labels_since(labeler_id, 0, limit=wire.MAX_UPDATES)
        while more := store.labels_since(labeler_id, found[-1].change if found else 0, limit=wire.MAX_UPDATES):
            found += more
        return found

    def concerns_all(self, news: News) -> bool:
        """Returns whether it is what a person said of a caption."""
        return isinstance(news, LabelUpdate)

    def news(self, stored: StoredComparison | StoredLabel) -> News:
        """Returns a stored comparison, or what a person said of a caption, as news."""
        if isinstance(stored, StoredLabel):
            return _label_news(stored)
        return Comparison(
            first=stored.first,
            second=stored.second,
            status=stored.status,
            first_better=stored.first_better,
            p_first=stored.p_first,
            change=stored.change,
        )

    def record(self, subject_id: tuple[int, int], judgement: Judgement, **answer: Any) -> ComparisonRecord:
        """Returns the comparison of two captions."""
        first_id, second_id = subject_id
        return ComparisonRecord(
            first_id=first_id,
            second_id=second_id,
            first_better=judgement.helpful,
            p_first=judgement.p_helpful,
            **answer,
        )


def _label_news(stored: StoredLabel) -> LabelUpdate:
    return LabelUpdate(
        caption=stored.caption,
        status=stored.status,
        helpful=stored.helpful,
        p_helpful=stored.p_helpful,
        source=stored.source,
        muted=stored.muted,
        change=stored.change,
    )


QUESTIONS: dict[QuestionName, Question] = {"label": LabelQuestion(), "preference": PreferenceQuestion()}


def _shown(subject: object) -> str:
    text = repr(subject)
    return text if len(text) <= 80 else f"{text[:77]}..."
