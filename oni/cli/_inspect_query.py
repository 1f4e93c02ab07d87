"""What `oni inspect` asks a store for, apart from how it is shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal, NamedTuple

from llm_annotator.errors import StoreError
from llm_annotator.store.reader import StoreReader
from llm_annotator.store.records import (
    CaptionOrder,
    CaptionRow,
    CaptionSummary,
    LabelerRow,
    RunRow,
    StatusFilter,
    Totals,
)

Only = Literal["helpful", "unhelpful", "unlabelled", "unparsed", "failed"]

_NO_LIMIT = -1
"""What SQLite takes for "all"."""


class Query(NamedTuple):
    """Which captions, and in which order. None does not filter.

    run_id, labeler_id: whole, or how exactly one of them begins.
    """

    run_id: str | None
    labeler_id: str | None
    only: Only | None
    search: str | None
    sort: CaptionOrder
    limit: int | None


class RankedCaption(NamedTuple):
    """A caption and its part in all intrinsic reward.

    share: in [0, 1] if no caption earned less than 0; None if nothing was earned.
    cumulative_share: that of this caption and those listed above it; None unless the list is sorted by reward.
    """

    row: CaptionRow
    share: float | None
    cumulative_share: float | None


class CaptionTotals(NamedTuple):
    """How many captions there are, by what became of them, and what they earned."""

    seen: int
    labelled: int
    helpful: int
    unhelpful: int
    unparsed: int
    failed: int
    unlabelled: int
    overruled: int
    reward_sum: float


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What a store holds.

    run: the run that was asked for, None for all together.
    labeler: whose labels are counted, None if the store holds none.
    totals: of all captions of the run, whatever the filter. cost: of the whole store.
    matching: captions that pass the filter; `captions` are the first of them.
    """

    store: Path
    run: RunRow | None
    runs: Sequence[RunRow]
    labeler: LabelerRow | None
    labelers: Sequence[LabelerRow]
    totals: CaptionTotals
    cost: Totals
    query: Query
    matching: int
    captions: Sequence[RankedCaption]


def overview(reader: StoreReader, query: Query) -> Overview:
    """Returns what the store holds.

    Raises:
        StoreError: no run or labeler of that id, or the store cannot be read.
    """
    with reader.snapshot():  # totals, shares and list tell of one moment while a service writes
        return _overview(reader, query)


def _overview(reader: StoreReader, query: Query) -> Overview:
    runs = {run.run_id: run for run in reader.runs()}
    labelers = {labeler.labeler_id: labeler for labeler in reader.labelers()}
    run_id = whole_id("run", query.run_id, list(runs), reader.path)
    labeler_id = whole_id("labeler", query.labeler_id, list(labelers), reader.path)
    status, helpful = _status(query.only)
    summary = reader.summary(run_id=run_id, labeler_id=labeler_id)
    captions = reader.captions(
        run_id=run_id,
        labeler_id=labeler_id,
        status=status,
        helpful=helpful,
        text=query.search,
        order_by=query.sort,
        limit=_NO_LIMIT if query.limit is None else query.limit,
    )
    matching = len(captions)
    if matching == query.limit:  # there may be more
        matching = reader.count(run_id=run_id, labeler_id=labeler_id, status=status, helpful=helpful, text=query.search)
    totals = _totals(summary)
    return Overview(
        store=reader.path,
        run=None if run_id is None else runs[run_id],
        runs=list(runs.values()),
        labeler=labelers.get(summary.labeler_id or ""),
        labelers=list(labelers.values()),
        totals=totals,
        cost=reader.totals(),
        query=query,
        matching=matching,
        captions=_ranked(captions, totals.reward_sum, by_reward=query.sort == "reward"),
    )


def label_word(row: CaptionRow) -> str:
    """Returns what became of a caption in one word: helpful, unhelpful, unparsed, failed or unlabelled."""
    if row.status is None:
        return "unlabelled"
    if row.helpful is None:
        return row.status.value
    return "helpful" if row.helpful else "unhelpful"


def whole_id(kind: str, wanted: str | None, ids: Sequence[str], store: Path) -> str | None:
    """Returns the one id that is meant by how it begins; None for None.

    Raises:
        StoreError: none or several begin so.
    """
    if wanted is None or wanted in ids:
        return wanted
    found = [key for key in ids if key.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    problem = f"holds no {kind} {wanted!r}" if not found else f"holds {len(found)} {kind}s that begin with {wanted!r}"
    raise StoreError(f"{store} {problem}; there are: {', '.join(ids) or 'none'}")


def _status(only: Only | None) -> tuple[StatusFilter | None, bool | None]:
    if only in ("helpful", "unhelpful"):
        return "labelled", only == "helpful"
    return only, None


def _totals(summary: CaptionSummary) -> CaptionTotals:
    labelled = summary.helpful + summary.unhelpful
    return CaptionTotals(
        seen=summary.captions,
        labelled=labelled,
        helpful=summary.helpful,
        unhelpful=summary.unhelpful,
        unparsed=summary.unparsed,
        failed=summary.failed,
        unlabelled=summary.captions - labelled - summary.unparsed - summary.failed,
        overruled=summary.overruled,
        reward_sum=summary.reward_sum,
    )


def _ranked(rows: Sequence[CaptionRow], total: float, *, by_reward: bool) -> list[RankedCaption]:
    if total <= 0:
        return [RankedCaption(row, None, None) for row in rows]
    sums = accumulate(row.reward_sum for row in rows)
    return [
        RankedCaption(row, row.reward_sum / total, so_far / total if by_reward else None)
        for row, so_far in zip(rows, sums, strict=True)
    ]
