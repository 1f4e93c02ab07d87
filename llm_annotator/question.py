"""What a labeler may be asked: subjects, their worked examples, and all in which one question differs from another."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from llm_annotator.parts import PartsMode
from llm_annotator.store.records import AnnotationRecord, ComparisonRecord, StoredComparison, StoredLabel
from llm_annotator.types import Judgement, News, Subject

if TYPE_CHECKING:
    from llm_annotator.store.writer import Store

QuestionName = Literal["label", "preference"]

SubjectId = int | tuple[int, int]
"""The id of a caption in the store, or those of the two that are compared."""


class Example(NamedTuple):
    """One worked example of a prompt: a caption and the right answer word."""

    caption: str
    answer: str


class PairExample(NamedTuple):
    """One worked example of a prompt that compares: two captions and the right answer word."""

    first: str
    second: str
    answer: str


class ReasonedExample(NamedTuple):
    """As `Example`, with the thoughts that lead to the answer."""

    caption: str
    thoughts: str
    answer: str


class ReasonedPairExample(NamedTuple):
    """As `PairExample`, with the thoughts that lead to the answer."""

    first: str
    second: str
    thoughts: str
    answer: str


AnyExample = Example | PairExample | ReasonedExample | ReasonedPairExample


class Question(Protocol):
    """What is asked about a subject.

    parts_modes: how subjects may be taken apart and asked about by parts (`LabelerSpec.parts`).
    placeholders: what stands for the captions of a subject in a prompt, in their order; also the keys of an example.
    example, reasoned_example: what worked examples are, without and with thoughts.
    default_prompt: the packaged prompt that asks this, None if the goal says which one.
    reasoned_prompt: the packaged prompt that asks this and lets the model think.
    content_free: subjects that say nothing, by which a labeler is calibrated.
    """

    name: QuestionName
    parts_modes: tuple[PartsMode, ...]
    placeholders: tuple[str, ...]
    example: type[Example] | type[PairExample]
    reasoned_example: type[ReasonedExample] | type[ReasonedPairExample]
    default_prompt: str | None
    reasoned_prompt: str
    content_free: tuple[Subject, ...]

    def captions(self, subject: object) -> tuple[bytes, ...]:
        """Returns the captions of a subject.

        Raises:
            TypeError: it is no subject of this question.
        """
        ...

    def is_void(self, captions: tuple[bytes, ...]) -> bool:
        """Returns whether there is nothing to ask about these captions of a subject."""
        ...

    def examples(self, labelled: Sequence[tuple[str, bool]], words: tuple[str, str]) -> tuple[tuple[str, ...], ...]:
        """Returns worked examples made of captions and whether they are helpful, answered with one of the words."""
        ...

    def from_wire(self, value: Any) -> Subject:
        """Returns the subject that a message holds.

        Raises:
            TypeError: it is no subject of this question.
        """
        ...

    def to_row(self, news: Any) -> list[Any]:
        """Returns news about a subject as a row of a message."""
        ...

    def from_row(self, row: Sequence[Any]) -> News:
        """Returns the news that a row of a message holds."""
        ...

    def intern(self, store: "Store", subjects: Sequence[Any]) -> Sequence[SubjectId]:
        """Returns the id of each subject; captions that are new are kept."""
        ...

    def stored(
        self, store: "Store", labeler_id: str, ids: Sequence[Any]
    ) -> Sequence[StoredLabel | StoredComparison | None]:
        """Returns what is in force for each subject, None where the labeler never answered."""
        ...

    def stored_since(
        self, store: "Store", labeler_id: str, change: int, *, limit: int
    ) -> Sequence[StoredLabel | StoredComparison]:
        """Returns what changed after `change`, oldest first."""
        ...

    def standing(self, store: "Store", labeler_id: str) -> Sequence[StoredLabel | StoredComparison]:
        """Returns what a run has to know from the start, beside the answers about what it asks."""
        ...

    def concerns_all(self, news: News) -> bool:
        """Returns whether news concern every run, whatever it has asked about."""
        ...

    def news(self, stored: Any) -> News:
        """Returns what is in force as news for a run."""
        ...

    def record(self, subject_id: Any, judgement: Judgement, **answer: Any) -> AnnotationRecord | ComparisonRecord:
        """Returns what the store keeps of an answer; `answer` holds the other fields of `AnswerRecord`."""
        ...
