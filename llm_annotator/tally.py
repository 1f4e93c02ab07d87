"""What the engine has done: counts by labeler, rates, waiting times, and what looks wrong in the answers."""

from collections.abc import Callable

from llm_annotator.jobs import LabelerCounts
from llm_annotator.rates import Latest, RateMeter
from llm_annotator.types import Judgement, LabelStatus

UNPARSED_ALARM = 20
"""Answers in a row without a label after which the health sentence speaks of it."""


class Tally:
    """Counts of one engine since it began."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.waits = Latest()
        """How long subjects waited for their answer, from the first time that they were offered."""
        self._clock = clock
        self._counts: dict[str, LabelerCounts] = {}
        self._rates: dict[str, RateMeter] = {}
        self._unparsed_in_a_row = 0
        self._last_unparsed = ""

    def counts(self, labeler_id: str) -> LabelerCounts:
        """Returns the counts of one labeler, live."""
        return self._counts.setdefault(labeler_id, LabelerCounts())

    def by_labeler(self) -> dict[str, LabelerCounts]:
        """Returns the counts of every labeler."""
        return dict(self._counts)

    def labels_per_s(self, labeler_id: str | None = None) -> float:
        """Returns the labels a second over the last few seconds, of one labeler or of all."""
        if labeler_id is not None:
            return self._rate(labeler_id).per_s()
        return sum(rate.per_s() for rate in self._rates.values())

    def finished(self, labeler_id: str, judgement: Judgement, waited_s: float) -> None:
        """Counts an outcome that is kept."""
        counts = self.counts(labeler_id)
        self.waits.add(waited_s)
        match judgement.status:
            case LabelStatus.LABELLED:
                counts.labelled += 1
                self._unparsed_in_a_row = 0
                self._rate(labeler_id).add()
            case LabelStatus.UNPARSED:
                counts.unparsed += 1
                self._unparsed_in_a_row += 1
                self._last_unparsed = judgement.detail
            case LabelStatus.FAILED:
                counts.failed += 1

    @property
    def problem(self) -> str:
        """What is wrong with the answers, in words; empty if nothing is."""
        if self._unparsed_in_a_row < UNPARSED_ALARM:
            return ""
        return (
            f"The last {self._unparsed_in_a_row} answers of the LLM held no label ({self._last_unparsed}). "
            "Try the prompt with `oni label`, or another model."
        )

    def _rate(self, labeler_id: str) -> RateMeter:
        return self._rates.setdefault(labeler_id, RateMeter(self._clock))
