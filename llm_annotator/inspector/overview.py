"""The overview: is the reward sane?"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from llm_annotator.inspector.curves import ChartView, run_charts, store_charts
from llm_annotator.inspector.findings import Finding, findings
from llm_annotator.inspector.liststate import ListState
from llm_annotator.inspector.metricsfile import Figures
from llm_annotator.inspector.scope import Scope
from llm_annotator.store import figures
from llm_annotator.store.figures import Lately, Waiting
from llm_annotator.store.listing import CaptionFilter, ListedCaption, list_captions
from llm_annotator.store.reader import StoreReader
from llm_annotator.store.reading import Reading
from llm_annotator.store.records import CaptionSummary

TOP = 20
"""Captions in the table of those that earned most."""


@dataclass(frozen=True, kw_only=True)
class Earner:
    """A caption with its part in all intrinsic reward; shares are None if nothing was earned."""

    caption: ListedCaption
    share: float | None
    cumulative: float | None


@dataclass(frozen=True, kw_only=True)
class Overview:
    """All that the page shows.

    earners: captions that earned anything at all. oldest_wait_s: since the oldest unanswered caption was first seen.
    """

    summary: CaptionSummary
    earners: Sequence[Earner]
    findings: Sequence[Finding]
    charts: Sequence[ChartView]
    lately: Lately
    waiting: Waiting
    oldest_wait_s: float | None


def overview(reading: Reading, scope: Scope, curves: Figures | None, state: ListState, *, top: int = TOP) -> Overview:
    """Returns what the page shows.

    curves: figures of the run, None where the store alone is known. state: run and labeler, for links to lists.
    """
    with StoreReader(reading.path) as reader:
        summary = reader.summary(run_id=scope.run_id, labeler_id=scope.labeler_id)
    wanted = CaptionFilter(run_id=scope.run_id, labeler_id=scope.labeler_id, score_run=scope.score_run)
    captions = [item for item in list_captions(reading, wanted, limit=top).captions if item.row.reward_sum > 0]
    if curves is not None and curves.lines:
        charts = run_charts(curves)
    else:
        charts = store_charts(figures.labels_over_time(reading, scope.labeler_id))
    waiting = figures.waiting(reading, scope.run_id, scope.labeler_id)
    return Overview(
        summary=summary,
        earners=earners(captions, summary.reward_sum),
        findings=findings(summary, captions, curves, state),
        charts=charts,
        lately=figures.lately(reading, scope.labeler_id),
        waiting=waiting,
        oldest_wait_s=None if waiting.oldest_at is None else max(time.time() - waiting.oldest_at, 0.0),
    )


def earners(captions: Sequence[ListedCaption], total: float) -> list[Earner]:
    """Returns captions, sorted by what they earned, with their shares of `total`."""
    sums = accumulate(item.row.reward_sum for item in captions)
    if total <= 0:
        return [Earner(caption=item, share=None, cumulative=None) for item in captions]
    return [
        Earner(caption=item, share=item.row.reward_sum / total, cumulative=so_far / total)
        for item, so_far in zip(captions, sums, strict=True)
    ]
