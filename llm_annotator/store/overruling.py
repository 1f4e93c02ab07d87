"""A person's word on a caption, as rows."""

import sqlite3
from typing import NamedTuple

_PUT = """INSERT INTO overrides (caption_id, labeler_id, helpful, muted, note, author, created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id"""

_IN_FORCE = "SELECT helpful, muted FROM labels WHERE labeler_id = ? AND caption_id = ?"


class Verdict(NamedTuple):
    """What a person says of a caption, why, and who it is.

    muted: it is to earn nothing, whatever a reward model makes of it; goes with `helpful` False alone.
    """

    caption: bytes
    helpful: bool
    muted: bool = False
    note: str = ""
    author: str = ""


def put_override(connection: sqlite3.Connection, labeler_id: str, caption_id: int, verdict: Verdict, now: float) -> int:
    """Keeps a verdict, which is in force from then on; returns its id."""
    if verdict.helpful and verdict.muted:
        raise ValueError("a caption cannot be helpful and muted")
    said = (verdict.helpful, verdict.muted, storable(verdict.note), storable(verdict.author))
    row = (caption_id, labeler_id, *said, now)
    return connection.execute(_PUT, row).fetchone()[0]


def storable(text: str) -> str:
    """Returns `text` with lone surrogates, which no UTF-8 column can hold, written out as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def is_in_force(connection: sqlite3.Connection, labeler_id: str, caption_id: int, verdict: Verdict) -> bool:
    """Returns whether just that is in force already, whoever said it."""
    found = connection.execute(_IN_FORCE, (labeler_id, caption_id)).fetchone()
    return found == (verdict.helpful, verdict.muted)
