"""What runs sample for people to look at, as rows: moments in which captions were said, scores over training.

`Store` opens the transactions and knows the ids of captions.
"""

import sqlite3
from collections.abc import Sequence

from llm_annotator.types import CaptionScore, SampledTransition

MAX_SCORES = 50
"""Scores kept of one caption in one run."""

_PUT_TRANSITION = """INSERT INTO transitions (run_id, caption_id, slot, env_step, frames) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (run_id, caption_id, slot) DO UPDATE SET env_step = excluded.env_step, frames = excluded.frames"""

_PUT_SCORE = """INSERT INTO model_scores (run_id, caption_id, env_step, score) VALUES (?, ?, ?, ?)
    ON CONFLICT (run_id, caption_id, env_step) DO UPDATE SET score = excluded.score"""

_COUNT_SCORES = "SELECT count(*) FROM model_scores WHERE run_id = ? AND caption_id = ?"

# Of those between the first and the last, the one whose neighbours are nearest to each other: what is left is spread
# over the run about evenly, however long it goes on.
_THIN_OUT = """DELETE FROM model_scores WHERE run_id = :run AND caption_id = :caption AND env_step = (
    SELECT env_step FROM (
        SELECT env_step, lead(env_step) OVER steps - lag(env_step) OVER steps AS gap
        FROM model_scores WHERE run_id = :run AND caption_id = :caption WINDOW steps AS (ORDER BY env_step))
    WHERE gap IS NOT NULL ORDER BY gap, env_step LIMIT 1)"""


def put_transitions(
    connection: sqlite3.Connection, run_id: str, caption_ids: Sequence[int], moments: Sequence[SampledTransition]
) -> None:
    """Keeps moments, each in place of the one that had its slot."""
    rows = [
        (run_id, key, moment.slot, moment.env_step, moment.frames)
        for key, moment in zip(caption_ids, moments, strict=True)
    ]
    connection.executemany(_PUT_TRANSITION, rows)


def put_scores(
    connection: sqlite3.Connection, run_id: str, caption_ids: Sequence[int], scores: Sequence[CaptionScore]
) -> None:
    """Keeps scores; of a caption with more than `MAX_SCORES` those that are missed least go."""
    for key, score in zip(caption_ids, scores, strict=True):
        connection.execute(_PUT_SCORE, (run_id, key, score.env_step, score.score))
        if connection.execute(_COUNT_SCORES, (run_id, key)).fetchone()[0] > MAX_SCORES:
            connection.execute(_THIN_OUT, {"run": run_id, "caption": key})
