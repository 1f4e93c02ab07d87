"""Labels of captions that hold a part which very many of them hold: they follow the part's label bit by bit.

A sentence like "It's a wall." is part of a hundred thousand captions, and to combine their labels takes some ten
seconds, in which nobody else could write. So a label of such a part is noted in `changed_parts` by the trigger that
would else have combined at once, in the same transaction. Whoever overruled, and each annotator while it runs, then
combines a few hundred captions in a transaction of their own, again and again, until nothing is noted any more. The
note says how far that is, so a kill at any moment only means that somebody else goes on later.
"""

import json
import sqlite3

from llm_annotator.store.combining import COMBINE, FORGET, HOLDERS

AT_ONCE = 8
"""Captions that hold a part, up to which they follow at once: a transaction may label hundreds of parts."""

_IS_HELD = f"EXISTS ({HOLDERS})"
_BY_MANY = f"EXISTS ({HOLDERS} LIMIT 1 OFFSET {AT_ONCE})"
_FOR_TRIGGER = {"labeler": "NEW.labeler_id", "captions": HOLDERS, "time": "NEW.updated_at"}
_FOR_SOME = {"labeler": ":labeler", "captions": "SELECT value FROM json_each(:captions)", "time": ":now"}

_FORGET_SOME, _COMBINE_SOME = FORGET.format(**_FOR_SOME), COMBINE.format(**_FOR_SOME)

# Not INSERT OR REPLACE: what a statement that fires a trigger does about a conflict holds inside the trigger too.
RECOMBINING: tuple[str, ...] = (
    """CREATE TABLE changed_parts (
        labeler_id TEXT NOT NULL, part_id INTEGER NOT NULL, combined_to INTEGER NOT NULL,
        PRIMARY KEY (labeler_id, part_id)
    ) STRICT, WITHOUT ROWID""",
    "DROP TRIGGER part_labelled",
    f"""CREATE TRIGGER part_labelled AFTER INSERT ON labels WHEN {_IS_HELD} AND NOT {_BY_MANY}
        BEGIN {FORGET.format(**_FOR_TRIGGER)}; {COMBINE.format(**_FOR_TRIGGER)}; END""",
    f"""CREATE TRIGGER part_of_many_labelled AFTER INSERT ON labels WHEN {_BY_MANY}
        BEGIN
        DELETE FROM changed_parts WHERE labeler_id = NEW.labeler_id AND part_id = NEW.caption_id;
        INSERT INTO changed_parts VALUES (NEW.labeler_id, NEW.caption_id, 0); END""",  # noqa: S608 - our own names
)
"""The migration. `combined_to`: captions up to this id have followed."""

_NEXT = "SELECT labeler_id, part_id, combined_to FROM changed_parts LIMIT 1"

_NEXT_HOLDERS = """SELECT DISTINCT caption_id FROM caption_parts
    WHERE part_id = ? AND labeler_id = ? AND caption_id > ? ORDER BY caption_id LIMIT ?"""

_NOTE = "UPDATE changed_parts SET combined_to = ? WHERE labeler_id = ? AND part_id = ?"
_DONE = "DELETE FROM changed_parts WHERE labeler_id = ? AND part_id = ?"


def is_behind(connection: sqlite3.Connection) -> bool:
    """Returns whether labels of captions have yet to follow those of their parts."""
    return connection.execute(_NEXT).fetchone() is not None


def recombine(connection: sqlite3.Connection, now: float, *, limit: int) -> int:
    """Combines the labels of captions anew whose parts have changed; returns how many it looked at, 0 if none is left.

    limit: captions that are looked at, at most.
    """
    left = limit
    while left and (found := connection.execute(_NEXT).fetchone()) is not None:
        labeler_id, part_id, combined_to = found
        rows = connection.execute(_NEXT_HOLDERS, (part_id, labeler_id, combined_to, left)).fetchall()
        ids = [caption_id for (caption_id,) in rows]
        values = {"labeler": labeler_id, "captions": json.dumps(ids), "now": now}
        connection.execute(_FORGET_SOME, values)
        connection.execute(_COMBINE_SOME, values)
        if len(ids) < left:
            connection.execute(_DONE, (labeler_id, part_id))
        else:
            connection.execute(_NOTE, (ids[-1], labeler_id, part_id))
        left -= len(ids)
    return limit - left
