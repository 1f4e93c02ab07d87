"""What on the overview wants a look, said in words. Rules of thumb, each with the list that shows the captions."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from llm_annotator.inspector.liststate import ListState
from llm_annotator.inspector.metricsfile import Figures
from llm_annotator.inspector.words import caption_line, percent, plural
from llm_annotator.store.listing import ListedCaption
from llm_annotator.store.records import CaptionSummary

Weight = Literal["check", "note"]

FEW = 5
"""Captions that, if they alone earn most of the reward, are worth a look each."""

MOST = 0.8
"""Share of the reward that is most of it."""

ONE_TOO_MANY = 0.4
"""Share of the reward that one caption rarely earns unless the agent seeks it out."""

MANY_FAILED = 0.05
"""Share of answers without a label above which the prompt or the server has a fault."""

ENOUGH = 30
"""Captions below which shares say nothing."""

ONE_SIDED = 0.9
"""Share of helpful labels above which they tell little apart; likewise for unhelpful."""

LOW_COVERAGE = 0.5


class Finding(NamedTuple):
    """One sentence. weight: whether it wants a look. link: end of an address of the list of captions, "" for none."""

    weight: Weight
    text: str
    link: str


def findings(
    summary: CaptionSummary, earners: Sequence[ListedCaption], curves: Figures | None, state: ListState
) -> list[Finding]:
    """Returns what wants a look first, then what is worth knowing.

    earners: the captions that earned most, the first one most. state: run and labeler, for the links.
    """
    found = [
        *_of_reward(summary, earners, state),
        *_of_labels(summary, state),
        *_of_annotator(curves),
    ]
    return sorted(found, key=lambda finding: finding.weight != "check")


def _of_reward(summary: CaptionSummary, earners: Sequence[ListedCaption], state: ListState) -> Iterator[Finding]:
    if summary.reward_sum <= 0 or not earners:
        return
    shares = [item.row.reward_sum / summary.reward_sum for item in earners]
    if shares[0] >= ONE_TOO_MANY:
        words = (
            f"One caption earned {percent(shares[0])} of all intrinsic reward: {caption_line(earners[0].row.text)!r}."
        )
        yield Finding("check", f"{words} Is it progress, or does the agent collect it?", state.url())
    elif sum(shares[:FEW]) >= MOST:
        words = f"{FEW} captions earned {percent(sum(shares[:FEW]))} of all intrinsic reward."
        yield Finding("note", words, state.url())
    unhelpful = [item for item in earners if item.row.helpful is False and item.row.reward_sum > 0]
    if unhelpful:
        share = percent(sum(item.row.reward_sum for item in unhelpful) / summary.reward_sum)
        words = f"Of the top {len(earners)} earners {len(unhelpful)} {'is' if len(unhelpful) == 1 else 'are'} labelled"
        yield Finding("check", f"{words} unhelpful, and earned {share} of the reward.", state.url(label="unhelpful"))


def _of_labels(summary: CaptionSummary, state: ListState) -> Iterator[Finding]:
    labelled, wrong = summary.helpful + summary.unhelpful, summary.unparsed + summary.failed
    if wrong and wrong / (labelled + wrong) >= MANY_FAILED:
        label = "unparsed" if summary.unparsed >= summary.failed else "failed"
        words = f"{percent(wrong / (labelled + wrong))} of the answered captions got no label"
        more = f"({summary.unparsed:,} unparsed, {summary.failed:,} failed)"
        yield Finding("check", f"{words} {more}: look at the raw answers.", state.url(label=label))
    if labelled >= ENOUGH:
        share = summary.helpful / labelled
        if share > ONE_SIDED:
            words = f"{percent(share)} of the labels are helpful: nearly everything is paid."
            yield Finding("check", words, state.url(label="helpful"))
        elif share < 1 - ONE_SIDED and summary.helpful == 0:
            yield Finding("check", "No caption is labelled helpful: nothing is paid.", state.url(label="unhelpful"))
    if summary.overruled:
        verb = "was" if summary.overruled == 1 else "were"
        words = f"{plural(summary.overruled, 'caption')} {verb} labelled by hand."
        yield Finding("note", words, state.url(by="human"))


def _of_annotator(curves: Figures | None) -> Iterator[Finding]:
    if curves is None:
        return
    if curves.newest("annotator/connected") == 0:
        yield Finding("check", "The annotator did not answer last time: no new labels arrive. See annotator.log.", "")
    coverage = curves.newest("captions/coverage")
    if coverage is not None and coverage < LOW_COVERAGE:
        words = f"Only {percent(coverage)} of the last steps with a caption had a labelled one: the LLM is behind."
        yield Finding("check", words, "")
