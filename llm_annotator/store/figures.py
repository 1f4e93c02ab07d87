"""Figures of a whole store for people: who is in it, what became of the questions, which labelers agree."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from llm_annotator.store.reading import Reading

RECENT_ANSWERS = 2000
"""Newest answers that "lately" stands for."""

BUCKETS = 120
"""Points of a curve over time."""

_RUNS = """SELECT id, name, goal, labeler_id, created_at FROM runs ORDER BY created_at, id"""

_LABELERS = """SELECT id, model, spec, created_at FROM labelers ORDER BY created_at, id"""

_EARNED = "SELECT total(reward_sum) FROM occurrences WHERE run_id = :run"
_EARNED_IN_ALL = "SELECT total(reward_sum) FROM caption_totals"

_LATELY = """WITH recent AS (
        SELECT labeler_id, caption_id, status, latency_s, created_at FROM annotations ORDER BY id DESC LIMIT :limit)
    SELECT r.created_at, r.latency_s, r.status = 'labelled', r.created_at - c.first_seen_at
    FROM recent r JOIN captions c ON c.id = r.caption_id WHERE r.labeler_id = :labeler"""

_WAITING = """SELECT count(*), min(c.first_seen_at) FROM captions c
    WHERE NOT EXISTS (SELECT 1 FROM labels l WHERE l.labeler_id = :labeler AND l.caption_id = c.id)"""
_WAITING_OF_RUN = """SELECT count(*), min(c.first_seen_at) FROM occurrences o JOIN captions c ON c.id = o.caption_id
    WHERE o.run_id = :run
    AND NOT EXISTS (SELECT 1 FROM labels l WHERE l.labeler_id = :labeler AND l.caption_id = o.caption_id)"""

_TIME_SPAN = "SELECT min(updated_at), max(updated_at) FROM labels WHERE labeler_id = :labeler"
_OVER_TIME = """SELECT min(CAST((updated_at - :begin) / :width AS INTEGER), :last) AS bucket, count(*),
    count(*) FILTER (WHERE status = 'labelled'), count(*) FILTER (WHERE helpful = 1),
    count(*) FILTER (WHERE status = 'unparsed'), count(*) FILTER (WHERE status = 'failed')
    FROM labels WHERE labeler_id = :labeler GROUP BY bucket ORDER BY bucket"""

_AGREEMENT = """SELECT count(*) FILTER (WHERE a.helpful = 1 AND b.helpful = 1),
    count(*) FILTER (WHERE a.helpful = 1 AND b.helpful = 0), count(*) FILTER (WHERE a.helpful = 0 AND b.helpful = 1),
    count(*) FILTER (WHERE a.helpful = 0 AND b.helpful = 0)
    FROM labels a JOIN labels b ON b.labeler_id = :second AND b.caption_id = a.caption_id
    WHERE a.labeler_id = :first"""

_COSTS = """SELECT labeler_id, count(*), total(tokens_in), total(tokens_out), avg(latency_s) FROM annotations
    GROUP BY labeler_id"""

_EARNED_BY_RUN = """SELECT run_id, count(*), total(reward_sum), max(last_step) FROM occurrences GROUP BY run_id"""


class Run(NamedTuple):
    """A run that used the store. `labeler_id` is the labeler that it used last."""

    run_id: str
    name: str
    goal: str
    labeler_id: str | None
    created_at: float


class LabelerName(NamedTuple):
    """A labeler, without the counts of what it answered."""

    labeler_id: str
    model: str
    spec: Mapping[str, Any]
    created_at: float

    @property
    def goal(self) -> str:
        """What the agent is to achieve, in plain words."""
        return str(self.spec.get("goal", ""))

    @property
    def question(self) -> str:
        """ "label", or "preference" where it compares captions."""
        return str(self.spec.get("question", "label"))


class Lately(NamedTuple):
    """The newest answers of a labeler, `RECENT_ANSWERS` of the store at most.

    wait_s: median seconds from the moment a caption was first seen to its answer. latency_s: median of the answers
    that have one. newest_at: seconds since 1970. None without answers.
    """

    answers: int
    without_label: int
    wait_s: float | None
    latency_s: float | None
    newest_at: float | None


class Waiting(NamedTuple):
    """Captions that a labeler never answered; when the oldest was first seen, in seconds since 1970."""

    captions: int
    oldest_at: float | None


class LabelCounts(NamedTuple):
    """What had become of captions at `time` (seconds since 1970), counted from the beginning."""

    time: float
    answered: int
    labelled: int
    helpful: int
    unparsed: int
    failed: int


class Agreement(NamedTuple):
    """Captions that two labelers labelled, by what they said."""

    both_helpful: int
    only_first: int
    only_second: int
    both_unhelpful: int

    @property
    def captions(self) -> int:
        """How many there are."""
        return sum(self)

    @property
    def share(self) -> float | None:
        """Share of them on which the two agree."""
        return (self.both_helpful + self.both_unhelpful) / self.captions if self.captions else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa: 1 for full agreement, 0 for as much as chance gives; None where chance gives all."""
        if self.share is None:
            return None
        first = (self.both_helpful + self.only_first) / self.captions
        second = (self.both_helpful + self.only_second) / self.captions
        chance = first * second + (1 - first) * (1 - second)
        return None if chance >= 1.0 else (self.share - chance) / (1.0 - chance)


class Cost(NamedTuple):
    """What the questions of one labeler cost. latency_s: mean, None if no answer has one."""

    answers: int
    tokens_in: int
    tokens_out: int
    latency_s: float | None


class RunTotals(NamedTuple):
    """What a run came to: distinct captions, intrinsic reward, and the last step that showed one."""

    captions: int
    reward_sum: float
    last_step: int


def runs(reading: Reading) -> list[Run]:
    """Returns the runs that used the store, oldest first."""
    return [Run(*row) for row in reading.rows(_RUNS)]


def labelers(reading: Reading) -> list[LabelerName]:
    """Returns the labelers, oldest first."""
    return [LabelerName(key, model, json.loads(spec), at) for key, model, spec, at in reading.rows(_LABELERS)]


def earned(reading: Reading, run_id: str | None) -> float:
    """Returns all intrinsic reward of a run, or of all."""
    row = reading.row(_EARNED_IN_ALL if run_id is None else _EARNED, {"run": run_id})
    return row[0] if row else 0.0


def lately(reading: Reading, labeler_id: str | None) -> Lately:
    """Returns how the newest questions of a labeler went."""
    rows = reading.rows(_LATELY, {"labeler": labeler_id, "limit": RECENT_ANSWERS})
    return Lately(
        answers=len(rows),
        without_label=sum(not row[2] for row in rows),
        wait_s=_median([max(row[3], 0.0) for row in rows]),
        latency_s=_median([row[1] for row in rows if row[1] is not None]),
        newest_at=max((row[0] for row in rows), default=None),
    )


def waiting(reading: Reading, run_id: str | None, labeler_id: str | None) -> Waiting:
    """Returns the captions of a run, or of all, that a labeler never answered."""
    query = _WAITING if run_id is None else _WAITING_OF_RUN
    found = reading.row(query, {"run": run_id, "labeler": labeler_id})
    return Waiting(*found) if found else Waiting(0, None)


def labels_over_time(reading: Reading, labeler_id: str | None) -> list[LabelCounts]:
    """Returns how the labels of a labeler that are in force now came in, `BUCKETS` points at most."""
    begin, end = reading.row(_TIME_SPAN, {"labeler": labeler_id}) or (None, None)
    if begin is None or end is None:
        return []
    width = max((end - begin) / BUCKETS, 1e-3)
    values = {"labeler": labeler_id, "begin": begin, "width": width, "last": BUCKETS - 1}
    sums = [0, 0, 0, 0, 0]
    curve: list[LabelCounts] = []
    for bucket, *counts in reading.rows(_OVER_TIME, values):
        sums = [total + count for total, count in zip(sums, counts, strict=True)]
        curve.append(LabelCounts(begin + (bucket + 1) * width, *sums))
    return curve


def agreement(reading: Reading, first: str, second: str) -> Agreement:
    """Returns on which captions two labelers agree."""
    return Agreement(*(reading.row(_AGREEMENT, {"first": first, "second": second}) or (0, 0, 0, 0)))


def costs(reading: Reading) -> dict[str, Cost]:
    """Returns what the questions about single captions cost, by labeler."""
    return {key: Cost(n, int(t_in), int(t_out), s) for key, n, t_in, t_out, s in reading.rows(_COSTS)}


def run_totals(reading: Reading) -> dict[str, RunTotals]:
    """Returns what each run came to, by its id."""
    return {key: RunTotals(*rest) for key, *rest in reading.rows(_EARNED_BY_RUN)}


def _median(values: list[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None
