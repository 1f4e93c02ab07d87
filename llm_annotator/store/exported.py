"""What is taken along from a store: annotations, and preferences, some hundred rows at a time.

Each batch is a query of its own on a connection of its own, which begins behind the last one. So no read stays open
while somebody downloads slowly, and a service that writes meanwhile can fold its log; a caption whose label changes in
between is given as it was when its batch was read.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from llm_annotator.store.reading import Reading

BATCH = 500
"""Rows read at once: with their prompts a megabyte or so."""

_ANNOTATIONS = """SELECT c.id AS caption_id, c.text AS caption,
    CASE WHEN l.muted = 1 THEN 'muted' WHEN l.helpful = 1 THEN 'helpful' WHEN l.helpful = 0 THEN 'unhelpful'
        ELSE l.status END AS label,
    v.note, l.source, v.author, l.updated_at AS changed_at,
    CASE WHEN a.helpful = 1 THEN 'helpful' WHEN a.helpful = 0 THEN 'unhelpful' ELSE a.status END AS llm_label,
    a.p_helpful, a.score, a.answer, a.logprobs, p.text || a.prompt_suffix AS prompt, a.detail, a.backend, a.tokens_in,
    a.tokens_out, a.latency_s, a.attempts, a.created_at AS answered_at,
    o.count, o.episode_count, o.first_step, o.last_step, o.reward_sum
    FROM captions c LEFT JOIN labels l ON l.labeler_id = :labeler AND l.caption_id = c.id
    LEFT JOIN annotations a ON a.id = l.annotation_id LEFT JOIN prompt_prefixes p ON p.id = a.prompt_prefix_id
    LEFT JOIN overrides v ON v.id = l.override_id
    LEFT JOIN {occurrences} o ON o.caption_id = c.id {of_run}
    WHERE c.id > :after AND {condition} ORDER BY c.id LIMIT :limit"""

_MUTED = """NOT EXISTS (SELECT 1 FROM labels l
    WHERE l.labeler_id = :labeler AND l.caption_id IN (f.first_id, f.second_id) AND l.muted = 1)"""
_OF_RUN = """(SELECT count(*) FROM occurrences o
    WHERE o.run_id = :run AND o.caption_id IN (f.first_id, f.second_id)) = 2"""

# Both orders were answered, and for the same caption; the row is that of the order in which it came first.
_PREFERENCES = """SELECT f.id, a.text AS chosen, b.text AS rejected, (f.p_first + 1.0 - r.p_first) / 2 AS p_chosen,
    max(f.created_at, r.created_at) AS answered_at
    FROM comparisons_in_force f
    JOIN comparisons_in_force r
        ON r.labeler_id = f.labeler_id AND r.first_id = f.second_id AND r.second_id = f.first_id
    JOIN captions a ON a.id = f.first_id JOIN captions b ON b.id = f.second_id
    WHERE f.labeler_id = :labeler AND f.id > :after AND f.first_better = 1 AND r.first_better = 0
    AND {muted} AND {condition} ORDER BY f.id LIMIT :limit"""

Row = Mapping[str, Any]


def annotations(store: Path, labeler_id: str, run_id: str | None, *, unlabelled: bool) -> Iterator[list[Row]]:
    """Yields captions with what is in force, what the LLM said, and what they earned; batches in the order of captions.

    run_id: only captions that came up in this run, with its totals; None: all, with totals over all runs.
    unlabelled: also captions that the labeler never answered.

    Raises:
        StoreError: the store cannot be read.
    """
    condition = "(l.caption_id IS NOT NULL OR o.caption_id IS NOT NULL)" if unlabelled else "l.caption_id IS NOT NULL"
    if run_id is not None:
        condition += " AND o.caption_id IS NOT NULL"
    query = _ANNOTATIONS.format(
        occurrences="caption_totals" if run_id is None else "occurrences",
        of_run="" if run_id is None else "AND o.run_id = :run",
        condition=condition,
    )
    return _batches(store, query, {"labeler": labeler_id, "run": run_id})


def preferences(store: Path, labeler_id: str, run_id: str | None) -> Iterator[list[Row]]:
    """Yields pairs of captions of which a labeler preferred one in both orders, pairs with a muted caption left out.

    run_id: only pairs of captions that both came up in this run.

    Raises:
        StoreError: the store cannot be read.
    """
    query = _PREFERENCES.format(muted=_MUTED, condition="1" if run_id is None else _OF_RUN)
    return _batches(store, query, {"labeler": labeler_id, "run": run_id})


_BEFORE_ALL: Final = 0
"""Less than every row id."""


def _batches(store: Path, query: str, values: Mapping[str, Any]) -> Iterator[list[Row]]:
    """Yields what the query finds after a row id, its first column, until nothing is left."""
    after = _BEFORE_ALL
    while True:
        with Reading(store) as reading:
            names, found = reading.table(query, {**values, "after": after, "limit": BATCH})
        if found:
            yield [dict(zip(names, row, strict=True)) for row in found]
        if len(found) < BATCH:
            return
        after = found[-1][0]
