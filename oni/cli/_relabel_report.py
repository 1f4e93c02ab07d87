"""What `oni relabel` prints: how far two labelers agree, and where they do not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llm_annotator.agreement import Counts, agreement, kappa, kappa_interval
from llm_annotator.captions import decode_caption, printable
from llm_annotator.store.disputes import Said, Verdicts
from llm_annotator.types import LabelStatus
from oni.cli._inspect_json import text_document
from oni.cli._inspect_tables import field_grid

SCHEMA = 1
"""Layout of the JSON."""


@dataclass(frozen=True, kw_only=True)
class LabelerWords:
    """A labeler in words."""

    labeler_id: str
    model: str
    goal: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two labelers over the captions of a run.

    first: the labeler of the run. second: the one that was asked now.
    verdicts: the captions that were to be asked about.
    questions: asked now. shown: disputes that are listed.
    """

    store: str
    run_id: str
    first: LabelerWords
    second: LabelerWords
    verdicts: Sequence[Verdicts]
    questions: int
    shown: int

    @property
    def counts(self) -> Counts:
        """Captions that both LLMs labelled, by what they said."""
        pairs = [(item.first.helpful, item.second.helpful) for item in self.verdicts]
        return _counts(pairs)

    @property
    def disputes(self) -> list[Verdicts]:
        """Captions that one calls helpful and the other does not, those that earned most first."""
        found = [
            item
            for item in self.verdicts
            if None not in (item.first.helpful, item.second.helpful) and item.first.helpful != item.second.helpful
        ]
        return sorted(found, key=lambda item: (-item.reward_sum, -item.count, item.caption_id))

    @property
    def weighted(self) -> float | None:
        """Share of agreement among captions that both labelled, each counted as often as it came up."""
        both = [item for item in self.verdicts if None not in (item.first.helpful, item.second.helpful)]
        total = sum(item.count for item in both)
        agreed = sum(item.count for item in both if item.first.helpful == item.second.helpful)
        return agreed / total if total else None

    def with_people(self, second: bool) -> Counts:
        """Returns how captions that a person labelled were labelled by the person (first) and by an LLM (second)."""
        return _counts([(item.person, (item.second if second else item.first).helpful) for item in self.verdicts])


def _counts(pairs: Sequence[tuple[bool | None, bool | None]]) -> Counts:
    both = [pair for pair in pairs if None not in pair]
    return Counts(*(both.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))))


def _tally(said: Sequence[Said]) -> dict[str, int]:
    """Returns how many captions got no label, by what became of them."""
    statuses = [item.status for item in said]
    return {
        "unparsed": statuses.count(LabelStatus.UNPARSED),
        "failed": statuses.count(LabelStatus.FAILED),
        "unlabelled": statuses.count(None),
    }


def document(found: Comparison) -> dict[str, Any]:
    """Returns the comparison as plain data."""
    counts, interval = found.counts, kappa_interval(found.counts)
    return {
        "schema": SCHEMA,
        "store": found.store,
        "run": found.run_id,
        "labeler": vars(found.first) | _tally([item.first for item in found.verdicts]),
        "other": vars(found.second) | _tally([item.second for item in found.verdicts]),
        "captions": len(found.verdicts),
        "questions": found.questions,
        "compared": counts.total,
        "both_helpful": counts.both,
        "only_labeler_helpful": counts.only_first,
        "only_other_helpful": counts.only_second,
        "both_unhelpful": counts.neither,
        "agreement": agreement(counts),
        "agreement_by_count": found.weighted,
        "kappa": kappa(counts),
        "kappa_interval": None if interval is None else list(interval),
        "people": {
            "captions": sum(item.person is not None for item in found.verdicts),
            "agreement_of_labeler": agreement(found.with_people(second=False)),
            "agreement_of_other": agreement(found.with_people(second=True)),
        },
        "disputes": [_dispute(item) for item in found.disputes[: found.shown]],
        "disputed": len(found.disputes),
    }


def _dispute(item: Verdicts) -> dict[str, Any]:
    return {
        "caption_id": item.caption_id,
        **text_document(item.text),
        "count": item.count,
        "reward_sum": item.reward_sum,
        "labeler_helpful": item.first.helpful,
        "labeler_p_helpful": item.first.p_helpful,
        "other_helpful": item.second.helpful,
        "other_p_helpful": item.second.p_helpful,
        "person_helpful": item.person,
    }


def print_comparison(found: Comparison, console: Console) -> None:
    """Prints who was compared, how far they agree, and the captions in dispute."""
    counts, interval = found.counts, kappa_interval(found.counts)
    between = "" if interval is None else f" (95%: {interval[0]:.2f} to {interval[1]:.2f})"
    fields = {
        "Run's labeler": _who(found.first),
        "Other labeler": _who(found.second),
        "Captions": f"{len(found.verdicts):,}, {counts.total:,} labelled by both; {found.questions:,} questions asked",
        "Cohen's kappa": _figure(kappa(counts)) + between,
        "Agreement": f"{_percent(agreement(counts))} of captions, {_percent(found.weighted)} of the times they came up",
    }
    for name, said in (("Run's labeler", "first"), ("Other labeler", "second")):
        missing = _tally([getattr(item, said) for item in found.verdicts])
        if any(missing.values()):
            words = ", ".join(f"{number:,} {word}" for word, number in missing.items() if number)
            fields[f"{name}, no label"] = words
    people = sum(item.person is not None for item in found.verdicts)
    if people:
        agreed = [_percent(agreement(found.with_people(second=second))) for second in (False, True)]
        fields["People"] = (
            f"{people:,} captions labelled by hand: run's labeler agrees on {agreed[0]}, other on {agreed[1]}"
        )
    console.print(field_grid(fields))
    console.print(_confusion(counts))
    _print_disputes(found, console)


def _who(labeler: LabelerWords) -> str:
    return printable(f"{labeler.labeler_id}  {labeler.model}  {labeler.goal}")


def _confusion(counts: Counts) -> Table:
    table = Table("", "Other: helpful", "Other: unhelpful", box=SIMPLE_HEAD, pad_edge=False)
    table.add_row("Run: helpful", f"{counts.both:,}", f"{counts.only_first:,}")
    table.add_row("Run: unhelpful", f"{counts.only_second:,}", f"{counts.neither:,}")
    return table


def _print_disputes(found: Comparison, console: Console) -> None:
    disputes = found.disputes
    if not disputes:
        console.print(Text("No caption is in dispute."))
        return
    listed = disputes[: found.shown]
    some = f"{len(listed):,} of {len(disputes):,}" if len(listed) < len(disputes) else f"{len(disputes):,}"
    console.print(Text(f"{some} captions in dispute, by intrinsic reward earned", style="bold"))
    table = Table("ID", "Reward", "Count", "Run", "Other", "Person", "Caption", box=SIMPLE_HEAD, pad_edge=False)
    for item in listed:
        caption = Text(printable(decode_caption(item.text)), overflow="fold")
        row = (str(item.caption_id), f"{item.reward_sum:,.1f}", f"{item.count:,}")
        table.add_row(*row, _verdict(item.first), _verdict(item.second), _word(item.person), caption)
    console.print(table)


def _verdict(said: Said) -> str:
    return _word(said.helpful) if said.p_helpful is None else f"{_word(said.helpful)} {said.p_helpful:.2f}"


def _word(helpful: bool | None) -> str:
    return {None: "-", True: "helpful", False: "unhelpful"}[helpful]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
