"""Labels of captions that are asked about by parts: kept, combined and kept right by the store itself.

`caption_parts` says of which parts a caption consists for a labeler. Parts are captions, too, and are labelled like any
other. Whenever the label in force of a part changes, whoever changed it (the LLM, a person, an import), a trigger
combines the labels of the captions that hold it anew, in the same transaction; or notes in it that this is to be done,
where very many captions hold the part (see `recombining`). So there is no moment at which a kill could come between
the two.

A combined label is an ordinary annotation without an answer; `llm_annotator.parts.combine` says what it is, and this
says the same in SQL. There is at most one of each caption and labeler: it follows from its parts, which have the
history, and is replaced when they change.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence

BACKEND = "parts"
"""`annotations.backend` of a combined label. No backend may have this name."""

_LABELLED = "FROM caption_parts p JOIN labels l ON l.labeler_id = p.labeler_id AND l.caption_id = p.part_id"
_HERE = "p.labeler_id = w.labeler_id AND p.caption_id = w.caption_id"

# The part that decides comes first: a helpful one, of those one by a person, of the others that of the highest score;
# a person's "unhelpful" counts below every score.
_BEST = (
    """ORDER BY l.helpful DESC, (l.source = 'human') = l.helpful DESC, l.score DESC NULLS LAST, p.position LIMIT 1"""
)

_TABLE = """CREATE TABLE caption_parts (
    labeler_id TEXT NOT NULL REFERENCES labelers (id),
    caption_id INTEGER NOT NULL REFERENCES captions (id),
    position INTEGER NOT NULL,
    part_id INTEGER NOT NULL REFERENCES captions (id),
    PRIMARY KEY (labeler_id, caption_id, position)
) STRICT, WITHOUT ROWID"""

# decided: 1 if the parts decide what the caption is; 0 while none is helpful and one was not asked about yet.
_COMBINED = """CREATE VIEW combined_labels AS
    SELECT s.labeler_id, s.caption_id, s.has_label OR s.answered = s.parts AS decided,
        CASE WHEN s.has_label THEN 'labelled' WHEN s.answered = s.parts AND s.failed = 0 THEN 'unparsed'
            ELSE 'failed' END AS status,
        CASE WHEN s.has_label THEN b.helpful END AS helpful,
        CASE WHEN s.has_label THEN b.p_helpful END AS p_helpful,
        CASE WHEN s.has_label THEN b.score END AS score,
        CASE WHEN s.has_label THEN 'part ' || (s.best + 1) || ' of ' || s.parts || ' decided: caption ' || d.part_id
            ELSE 'no part is helpful, and part ' || (s.missing + 1) || ' of ' || s.parts || ' has no label: caption '
            || (SELECT part_id FROM caption_parts p
                WHERE p.labeler_id = s.labeler_id AND p.caption_id = s.caption_id AND p.position = s.missing)
            END AS detail
    FROM (
        SELECT *, coalesce(labelled = parts OR any_helpful, 0) AS has_label FROM (
            SELECT w.labeler_id, w.caption_id,
                (SELECT count(*) FROM caption_parts p WHERE {here}) AS parts,
                (SELECT count(l.helpful) {labelled} WHERE {here}) AS labelled,
                (SELECT max(l.helpful) {labelled} WHERE {here}) AS any_helpful,
                (SELECT count(*) {labelled} WHERE {here} AND (l.helpful IS NOT NULL OR l.annotation_id IS NOT NULL))
                    AS answered,
                (SELECT count(*) {labelled} WHERE {here} AND l.status = 'failed') AS failed,
                (SELECT p.position {labelled} WHERE {here} AND l.helpful IS NOT NULL {best}) AS best,
                (SELECT min(p.position) FROM caption_parts p WHERE {here} AND NOT EXISTS (
                    SELECT 1 FROM labels l
                    WHERE l.labeler_id = p.labeler_id AND l.caption_id = p.part_id AND l.helpful IS NOT NULL))
                    AS missing
            FROM caption_parts w WHERE w.position = 0)) s
    LEFT JOIN caption_parts d
        ON d.labeler_id = s.labeler_id AND d.caption_id = s.caption_id AND d.position = s.best
    LEFT JOIN labels b ON b.labeler_id = s.labeler_id AND b.caption_id = d.part_id"""

# Captions that no run has come up with, only captions that hold them.
_MERE_PARTS = """CREATE VIEW mere_parts AS SELECT DISTINCT part_id AS caption_id FROM caption_parts p
    WHERE NOT EXISTS (SELECT 1 FROM occurrences o WHERE o.caption_id = p.part_id)"""

# From which parts a combined label follows.
_PARTS_VIEW = """CREATE VIEW annotation_parts AS
    SELECT a.id AS annotation_id, p.position, p.part_id AS caption_id
    FROM annotations a JOIN caption_parts p ON p.labeler_id = a.labeler_id AND p.caption_id = a.caption_id
    WHERE a.backend = 'parts'"""

# In these two, {labeler}, {captions} and {time} are to be filled in.
# A label that has changed goes, and comes anew. One that is not decided any more, because a person took the helpful
# part back before the others were answered, becomes "failed": it was news to runs, so its loss must be news, too.
FORGET = """DELETE FROM annotations
    WHERE backend = 'parts' AND labeler_id = {labeler} AND caption_id IN ({captions}) AND NOT EXISTS (
        SELECT 1 FROM combined_labels c
        WHERE c.labeler_id = annotations.labeler_id AND c.caption_id = annotations.caption_id
            AND c.status = annotations.status AND c.helpful IS annotations.helpful
            AND c.p_helpful IS annotations.p_helpful AND c.score IS annotations.score
            AND c.detail = annotations.detail)"""
COMBINE = """INSERT INTO annotations (labeler_id, caption_id, status, helpful, p_helpful, score, prompt_prefix_id,
        prompt_suffix, model, backend, attempts, detail, created_at)
    SELECT c.labeler_id, c.caption_id, c.status, c.helpful, c.p_helpful, c.score,
        (SELECT id FROM prompt_prefixes WHERE text = ''), '', b.model, 'parts', 0, c.detail, {time}
    FROM combined_labels c JOIN labelers b ON b.id = c.labeler_id
    WHERE c.labeler_id = {labeler} AND c.caption_id IN ({captions}) AND NOT EXISTS (
            SELECT 1 FROM annotations a
            WHERE a.backend = 'parts' AND a.labeler_id = c.labeler_id AND a.caption_id = c.caption_id)
        AND (c.decided OR EXISTS (
            SELECT 1 FROM labels l WHERE l.labeler_id = c.labeler_id AND l.caption_id = c.caption_id
            AND l.annotation_id IS NOT NULL))"""

HOLDERS = "SELECT caption_id FROM caption_parts WHERE labeler_id = NEW.labeler_id AND part_id = NEW.caption_id"
_FOR_TRIGGER = {"labeler": "NEW.labeler_id", "captions": HOLDERS, "time": "NEW.updated_at"}
_FOR_ONE = {"labeler": ":labeler", "captions": ":caption", "time": ":now"}

PARTS_FOR_READERS: tuple[str, ...] = (
    _TABLE,
    _COMBINED.format(labelled=_LABELLED, here=_HERE, best=_BEST),
    _PARTS_VIEW,
    _MERE_PARTS,
)

# The trigger adds annotations, which changes labels, which calls it again: for captions that are no part of another.
# SQLite does that for connections with `PRAGMA recursive_triggers` alone.
PARTS: tuple[str, ...] = (
    *PARTS_FOR_READERS,
    "CREATE INDEX caption_parts_by_part ON caption_parts (part_id, labeler_id)",
    "INSERT OR IGNORE INTO prompt_prefixes (text) VALUES ('')",
    f"""CREATE TRIGGER part_labelled AFTER INSERT ON labels WHEN EXISTS ({HOLDERS})
        BEGIN {FORGET.format(**_FOR_TRIGGER)}; {COMBINE.format(**_FOR_TRIGGER)}; END""",
)
"""The migration."""

_KEPT = """SELECT p.part_id, c.text FROM caption_parts p JOIN captions c ON c.id = p.part_id
    WHERE p.labeler_id = ? AND p.caption_id = ? ORDER BY p.position"""

# Whether the labeler would not be asked about this caption were it not for the captions that hold it.
_ONLY_A_PART = """SELECT NOT EXISTS (SELECT 1 FROM caption_parts WHERE labeler_id = :labeler AND part_id = :part)
    AND NOT EXISTS (SELECT 1 FROM labels WHERE labeler_id = :labeler AND caption_id = :part)
    AND NOT EXISTS (SELECT 1 FROM occurrences WHERE caption_id = :part)"""

_UNANSWERED = """SELECT p.part_id, sum(coalesce(o.episode_count, o.count))
    FROM (SELECT DISTINCT q.part_id FROM json_each(:captions) c
        JOIN caption_parts q ON q.labeler_id = :labeler AND q.caption_id = c.value
        WHERE NOT EXISTS (SELECT 1 FROM labels l WHERE l.labeler_id = :labeler AND l.caption_id = q.part_id)) u
    JOIN caption_parts p ON p.labeler_id = :labeler AND p.part_id = u.part_id
    JOIN occurrences o ON o.run_id = :run AND o.caption_id = p.caption_id GROUP BY p.part_id"""


def put_parts(
    connection: sqlite3.Connection, labeler_id: str, parts: Mapping[int, Sequence[int]], now: float
) -> tuple[dict[int, list[tuple[int, bytes]]], int]:
    """Keeps of which parts captions consist, and combines the labels of those whose parts have theirs.

    Returns the parts of each caption with their text, and how many questions that saves at least: captions that are
    new here, less those of their parts that never came up alone. What is kept of a caption already stays.
    """
    saved = 0
    kept: dict[int, list[tuple[int, bytes]]] = {}
    for caption_id, part_ids in parts.items():
        found = connection.execute(_KEPT, (labeler_id, caption_id)).fetchall()
        if not found:
            new = sum(
                connection.execute(_ONLY_A_PART, {"labeler": labeler_id, "part": part_id}).fetchone()[0]
                for part_id in part_ids
            )
            saved += 1 - new
            rows = [(labeler_id, caption_id, position, part_id) for position, part_id in enumerate(part_ids)]
            connection.executemany("INSERT INTO caption_parts VALUES (?, ?, ?, ?)", rows)
            found = connection.execute(_KEPT, (labeler_id, caption_id)).fetchall()
        kept[caption_id] = found
        values = {"labeler": labeler_id, "caption": caption_id, "now": now}
        connection.execute(FORGET.format(**_FOR_ONE), values)
        connection.execute(COMBINE.format(**_FOR_ONE), values)
    return kept, saved


def unanswered_parts(
    connection: sqlite3.Connection, labeler_id: str, run_id: str, caption_ids: Sequence[int]
) -> list[tuple[int, int]]:
    """Returns the parts of captions that the labeler has not answered yet, and in how many episodes they came up.

    One that came up twice in an episode of the run, in different captions, is counted twice.
    """
    values = {"labeler": labeler_id, "run": run_id, "captions": json.dumps(list(caption_ids))}
    return connection.execute(_UNANSWERED, values).fetchall()
