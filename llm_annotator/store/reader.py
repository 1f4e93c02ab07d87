"""Reading a store, for people and scripts. Works while a service writes; imports the standard library alone."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm_annotator.errors import StoreError
from llm_annotator.store import rows
from llm_annotator.store.connection import store_errors
from llm_annotator.store.reading import Reading
from llm_annotator.store.records import (
    CaptionHistory,
    CaptionOrder,
    CaptionRow,
    CaptionSummary,
    LabelerRow,
    PairRow,
    RunRow,
    StatusFilter,
    Totals,
)

_ORDERS: dict[CaptionOrder, str] = {
    "count": "o.count DESC, c.id",
    "reward": "o.reward_sum DESC, c.id",
    "label": "l.helpful DESC NULLS LAST, l.score DESC NULLS LAST, c.id",
    "newest": "c.id DESC",
}

_ONE_RUN = (
    "(SELECT caption_id, count, episode_count, first_step, last_step, reward_sum FROM occurrences WHERE run_id = :run)"
)
_ALL_RUNS = """(SELECT caption_id, sum(count) AS count, sum(episode_count) AS episode_count,
    min(first_step) AS first_step, max(last_step) AS last_step, sum(reward_sum) AS reward_sum
    FROM occurrences GROUP BY caption_id)"""

_CAPTIONS = """SELECT c.id, c.text, c.first_seen_at, coalesce(o.count, 0), o.episode_count, o.first_step,
    o.last_step, coalesce(o.reward_sum, 0.0), l.status, l.helpful, l.p_helpful, l.score, l.source, l.updated_at,
    coalesce(l.muted, 0) FROM captions c {join} {occurrences} o ON o.caption_id = c.id
    LEFT JOIN labels l ON l.caption_id = c.id AND l.labeler_id = :labeler
    WHERE {conditions} ORDER BY {order} LIMIT :limit OFFSET :offset"""

_COUNT = """SELECT count(*) FROM captions c {join}
    LEFT JOIN labels l ON l.caption_id = c.id AND l.labeler_id = :labeler WHERE {conditions}"""

_SUMMARY = """SELECT (SELECT count(*) FROM captions) - (SELECT count(*) FROM mere_parts),
    (SELECT total(reward_sum) FROM occurrences),
    count(*) FILTER (WHERE helpful = 1), count(*) FILTER (WHERE helpful = 0),
    count(*) FILTER (WHERE status = 'unparsed'), count(*) FILTER (WHERE status = 'failed'),
    count(*) FILTER (WHERE source = 'human') FROM labels
    WHERE labeler_id = :labeler AND caption_id NOT IN (SELECT caption_id FROM mere_parts)"""
_SUMMARY_OF_RUN = """WITH o AS (SELECT caption_id, reward_sum FROM occurrences WHERE run_id = :run)
    SELECT (SELECT count(*) FROM o), (SELECT total(reward_sum) FROM o),
    count(*) FILTER (WHERE helpful = 1), count(*) FILTER (WHERE helpful = 0),
    count(*) FILTER (WHERE status = 'unparsed'), count(*) FILTER (WHERE status = 'failed'),
    count(*) FILTER (WHERE source = 'human')
    FROM labels WHERE labeler_id = :labeler AND caption_id IN (SELECT caption_id FROM o)"""

_ANNOTATIONS = """SELECT a.id, a.labeler_id, a.status, a.helpful, a.p_helpful, a.score, p.text || a.prompt_suffix,
    a.answer, a.logprobs, a.model, a.backend, a.tokens_in, a.tokens_out, a.latency_s, a.attempts, a.detail,
    a.created_at, l.annotation_id IS a.id AND l.source = 'llm'
    FROM annotations a JOIN prompt_prefixes p ON p.id = a.prompt_prefix_id
    LEFT JOIN labels l ON l.labeler_id = a.labeler_id AND l.caption_id = a.caption_id
    WHERE a.caption_id = ? ORDER BY a.id"""

_LABELERS = """SELECT b.id, b.model, b.spec, b.created_at,
    count(*) FILTER (WHERE l.status = 'labelled'), count(*) FILTER (WHERE l.helpful = 1),
    count(*) FILTER (WHERE l.status = 'unparsed'), count(*) FILTER (WHERE l.status = 'failed'),
    count(*) FILTER (WHERE l.source = 'human'),
    (SELECT count(*) FROM comparisons_in_force c WHERE c.labeler_id = b.id AND c.status = 'labelled')
    FROM labelers b LEFT JOIN labels l ON l.labeler_id = b.id GROUP BY b.id ORDER BY b.created_at, b.id"""

_PAIRS = """WITH pairs AS (
        SELECT min(first_id, second_id) AS a, max(first_id, second_id) AS b, max(change) AS change,
            max(created_at) AS answered_at
        FROM comparisons_in_force WHERE labeler_id = :labeler GROUP BY 1, 2)
    SELECT a.id, a.text, b.id, b.text, answered_at,
        f.status, f.first_better, f.p_first, f.score, f.detail, r.status, r.first_better, r.p_first, r.score, r.detail
    FROM pairs p JOIN captions a ON a.id = p.a JOIN captions b ON b.id = p.b
    LEFT JOIN comparisons_in_force f ON f.labeler_id = :labeler AND f.first_id = p.a AND f.second_id = p.b
    LEFT JOIN comparisons_in_force r ON r.labeler_id = :labeler AND r.first_id = p.b AND r.second_id = p.a
    WHERE {condition} ORDER BY p.change DESC LIMIT :limit"""

_TOTALS = """WITH questions AS (
        SELECT tokens_in, tokens_out, latency_s FROM annotations
        UNION ALL SELECT tokens_in, tokens_out, latency_s FROM comparisons)
    SELECT (SELECT count(*) FROM captions), (SELECT count(*) FROM annotations WHERE backend <> 'parts'),
        (SELECT count(*) FROM comparisons),
        (SELECT count(*) FROM overrides), (SELECT count(*) FROM runs), (SELECT count(*) FROM labelers),
        coalesce(sum(tokens_in), 0), coalesce(sum(tokens_out), 0), avg(latency_s) FROM questions"""


class StoreReader(Reading):
    """An annotation store, open for reading.

    Opening and every method raise `StoreError`, whose message says what to do (no such file, damaged, newer schema).
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self._connection.create_function("holds", 2, _holds, deterministic=True)

    def captions(
        self,
        *,
        run_id: str | None = None,
        labeler_id: str | None = None,
        status: StatusFilter | None = None,
        helpful: bool | None = None,
        text: str | bytes | None = None,
        order_by: CaptionOrder = "count",
        limit: int = 50,
        offset: int = 0,
    ) -> list[CaptionRow]:
        """Returns captions with what they earned and the label in force.

        run_id: only captions that came up in this run, with its totals; None: all captions, totals of all runs.
        labeler_id: whose labels; None: the labeler that the run (or the newest run) used last.
        status: "unlabelled" means that the labeler never answered.
        text: only captions that hold this, upper and lower case of ASCII letters alike.
        order_by: "label" puts helpful captions first, the surest first; "newest" the one first seen last.
        """
        labeler_id = labeler_id or self._default_labeler(run_id)
        # Adding up the rows of every caption takes most of the time, and there is nothing to add up with one run.
        one_run = run_id or self._only_run()
        query = _CAPTIONS.format(
            join="LEFT JOIN" if run_id is None else "JOIN",
            occurrences=_ALL_RUNS if one_run is None else _ONE_RUN,
            conditions=_conditions(status, helpful, text),
            order=_ORDERS[order_by],
        )
        values = _filter_values(one_run, labeler_id, status, helpful, text) | {"limit": limit, "offset": offset}
        return [rows.caption_row(row, labeler_id) for row in self._rows(query, values)]

    def count(
        self,
        *,
        run_id: str | None = None,
        labeler_id: str | None = None,
        status: StatusFilter | None = None,
        helpful: bool | None = None,
        text: str | bytes | None = None,
    ) -> int:
        """Returns how many captions `captions` would list without a limit."""
        labeler_id = labeler_id or self._default_labeler(run_id)
        join = "" if run_id is None else "JOIN occurrences o ON o.caption_id = c.id AND o.run_id = :run"
        query = _COUNT.format(join=join, conditions=_conditions(status, helpful, text))
        return self._rows(query, _filter_values(run_id, labeler_id, status, helpful, text))[0][0]

    def summary(self, *, run_id: str | None = None, labeler_id: str | None = None) -> CaptionSummary:
        """Returns how many captions there are, what became of them, and what they earned.

        run_id, labeler_id: as in `captions`.
        """
        labeler_id = labeler_id or self._default_labeler(run_id)
        query = _SUMMARY if run_id is None else _SUMMARY_OF_RUN
        row = self._rows(query, {"run": run_id, "labeler": labeler_id})[0]
        names = ("captions", "reward_sum", "helpful", "unhelpful", "unparsed", "failed", "overruled")
        return CaptionSummary(labeler_id=labeler_id, **dict(zip(names, row, strict=True)))

    def history(self, caption_id: int) -> CaptionHistory:
        """Returns everything known of one caption.

        Raises:
            StoreError: no such caption.
        """
        with self.snapshot():
            found = self._rows("SELECT text, first_seen_at FROM captions WHERE id = ?", (caption_id,))
            if not found:
                raise StoreError(f"{self.path} holds no caption {caption_id}")
            overrides = self._rows(
                "SELECT id, labeler_id, helpful, note, author, created_at, revoked_at, muted FROM overrides"
                " WHERE caption_id = ? ORDER BY id",
                (caption_id,),
            )
            occurrences = self._rows(
                "SELECT r.id, r.name, o.count, o.episode_count, o.first_step, o.last_step, o.reward_sum"
                " FROM occurrences o JOIN runs r ON r.id = o.run_id WHERE o.caption_id = ? ORDER BY r.created_at",
                (caption_id,),
            )
            annotations = self._rows(_ANNOTATIONS, (caption_id,))
        return CaptionHistory(
            caption_id=caption_id,
            text=found[0][0],
            first_seen_at=found[0][1],
            annotations=tuple(rows.annotation(row) for row in annotations),
            overrides=tuple(rows.override(row) for row in overrides),
            occurrences=tuple(rows.occurrence(row) for row in occurrences),
        )

    def pairs(
        self, *, labeler_id: str | None = None, text: str | bytes | None = None, limit: int = 50
    ) -> list[PairRow]:
        """Returns the captions that a labeler compares, two by two, those answered last first.

        labeler_id: None: the labeler that the newest run used last. text: only pairs in which a caption holds this.
        limit: -1 returns all.
        """
        query = _PAIRS.format(condition="1" if text is None else "(holds(a.text, :text) OR holds(b.text, :text))")
        labeler_id = labeler_id or self._default_labeler(None)
        values = {"labeler": labeler_id, "text": _needle(text), "limit": limit}
        return [rows.pair(row) for row in self._rows(query, values)]

    def find(self, caption: bytes) -> int | None:
        """Returns the id of a caption, None if it was never seen."""
        rows = self._rows("SELECT id FROM captions WHERE text = ?", (caption,))
        return rows[0][0] if rows else None

    def totals(self) -> Totals:
        """Returns the size of the store and what it cost."""
        row = self._rows(_TOTALS)[0]
        names = (
            *("captions", "annotations", "comparisons", "overrides", "runs", "labelers"),
            *("tokens_in", "tokens_out", "latency_s"),
        )
        return Totals(**dict(zip(names, row, strict=True)))

    def runs(self) -> list[RunRow]:
        """Returns the runs that used this store, oldest first."""
        rows = self._rows(
            "SELECT r.id, r.name, r.goal, r.config, r.labeler_id, r.created_at,"
            " (SELECT count(*) FROM occurrences o WHERE o.run_id = r.id) FROM runs r ORDER BY r.created_at, r.id"
        )
        return [
            RunRow(
                run_id=run_id,
                name=name,
                goal=goal,
                config=json.loads(config),
                labeler_id=labeler_id,
                created_at=created_at,
                captions=captions,
            )
            for run_id, name, goal, config, labeler_id, created_at, captions in rows
        ]

    def labelers(self) -> list[LabelerRow]:
        """Returns the labelers and how their answers fell out, oldest first."""
        return [
            LabelerRow(
                labeler_id=labeler_id,
                model=model,
                spec=json.loads(spec),
                created_at=created_at,
                labelled=counts[0],
                helpful=counts[1],
                unparsed=counts[2],
                failed=counts[3],
                overruled=counts[4],
                compared=counts[5],
            )
            for labeler_id, model, spec, created_at, *counts in self._rows(_LABELERS)
        ]

    def _default_labeler(self, run_id: str | None) -> str | None:
        rows = self._rows(
            "SELECT labeler_id FROM runs WHERE :run IS NULL OR id = :run ORDER BY created_at DESC LIMIT 1",
            {"run": run_id},
        ) or self._rows("SELECT id FROM labelers ORDER BY created_at DESC LIMIT 1")
        return rows[0][0] if rows else None

    def _only_run(self) -> str | None:
        found = self._rows("SELECT id FROM runs LIMIT 2")
        return found[0][0] if len(found) == 1 else None

    @contextmanager
    def snapshot(self) -> Generator[None]:
        """Lets all queries inside see the same moment, whatever the service writes meanwhile."""
        with store_errors(self.path):
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.rollback()

    def _rows(self, query: str, values: dict[str, Any] | tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with store_errors(self.path):
            return self._connection.execute(query, values).fetchall()


def _conditions(status: StatusFilter | None, helpful: bool | None, text: str | bytes | None) -> str:
    conditions = ["1"]
    if status == "unlabelled":
        conditions.append("l.status IS NULL")
    elif status is not None:
        conditions.append("l.status = :status")
    if helpful is not None:
        conditions.append("l.helpful = :helpful")
    if text is not None:
        conditions.append("holds(c.text, :text)")
    return " AND ".join(conditions)


def _filter_values(
    run_id: str | None,
    labeler_id: str | None,
    status: StatusFilter | None,
    helpful: bool | None,
    text: str | bytes | None,
) -> dict[str, Any]:
    return {"run": run_id, "labeler": labeler_id, "status": status, "helpful": helpful, "text": _needle(text)}


def _needle(text: str | bytes | None) -> bytes:
    return (text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text or b"").lower()


def _holds(text: bytes, needle: bytes) -> bool:
    return needle in text.lower()
