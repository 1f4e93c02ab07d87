"""Keeps what is good in a damaged store.

A disk that lost power or ran out of good sectors leaves a file whose end is missing or whose pages hold something else.
SQLite refuses a file that is too short altogether, and every query that meets a bad page. Most of such a file can still
be read, page by page. All that can be is put into a new store, which takes the place of the damaged one; that is kept
beside it, as it is.
"""

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_annotator.errors import StoreCorrupt, StoreError
from llm_annotator.store.connection import store_errors
from llm_annotator.store.recombining import recombine
from llm_annotator.store.schema import MIGRATIONS, check_schema, migrate

_FIRST = ("captions", "labelers", "prompt_prefixes", "caption_parts", "runs", "annotations", "overrides")
"""Tables that others refer to, in this order; an override is newer than the annotation that it overrules."""

_DERIVED = ("labels", "caption_totals", "change_counter", "changed_parts")
"""Tables that triggers fill from the others."""

_CHUNK = 1024
"""Rows that are read at once; where one of them cannot be, each alone is tried."""

_EMPTY_CHUNKS = 64
"""So many chunks without a row end a table whose last page cannot be read."""

_SIDE_FILES = ("-wal", "-shm")

Row = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Salvaged:
    """What became of a damaged store.

    kept: rows of each table that were kept. lost: rows that were seen but refer to one that could not be read.
    unreadable: tables of which parts, or all, could not be read.
    damaged: where the damaged file is now.
    """

    kept: dict[str, int]
    lost: int
    unreadable: tuple[str, ...]
    damaged: Path


def salvage(path: Path) -> Salvaged:
    """Puts a new store, with all that can be read of the damaged one, in its place.

    No annotator may use the store meanwhile. Nothing is changed unless it succeeds.

    Raises:
        StoreError: there is no such file, nothing of it can be read, or the new one cannot be written.
    """
    if not path.is_file():
        raise StoreError(f"there is no annotation store at {path}")
    new_path = _free_name(path, "salvaged")
    try:
        with closing(_open_damaged(path)) as old:
            version = _version(old, path)
            with store_errors(new_path), closing(sqlite3.connect(new_path, isolation_level=None)) as new:
                new.execute("PRAGMA recursive_triggers = ON")
                new.execute("PRAGMA foreign_keys = ON")
                migrate(new, str(new_path), MIGRATIONS[:version])
                kept, lost, unreadable = _copy_all(old, new)
    except BaseException:
        new_path.unlink(missing_ok=True)
        raise
    damaged = _free_name(path, "damaged")
    path.rename(damaged)
    for suffix in _SIDE_FILES:
        side = Path(f"{path}{suffix}")
        if side.exists():
            side.rename(f"{damaged}{suffix}")
    new_path.rename(path)
    return Salvaged(kept=kept, lost=lost, unreadable=unreadable, damaged=damaged)


def _free_name(path: Path, what: str) -> Path:
    number = 1
    while (name := path.with_name(f"{path.name}.{what}-{number}")).exists():
        number += 1
    return name


def _open_damaged(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
    connection.execute("PRAGMA writable_schema = ON")  # so that a file that is shorter than it should be is read
    connection.execute("PRAGMA cell_size_check = ON")  # a damaged page is an error, not a row of nonsense
    return connection


def _version(old: sqlite3.Connection, path: Path) -> int:
    """Returns the schema number of the damaged store."""
    try:
        version = check_schema(old, str(path))
    except sqlite3.DatabaseError as error:
        raise StoreCorrupt(
            f"nothing of {path} can be read, for its first page is damaged ({error}): restore a copy, or move it away "
            "and start anew"
        ) from error
    if version == 0:
        raise StoreError(f"{path} is empty: move it away and start anew")
    return version


def _copy_all(old: sqlite3.Connection, new: sqlite3.Connection) -> tuple[dict[str, int], int, tuple[str, ...]]:
    """Copies what can be read; returns the rows of each table, those left out, and tables with damage."""
    tables = _tables(new) - set(_DERIVED)
    ordered = [name for name in _FIRST if name in tables] + sorted(tables - set(_FIRST))
    kept: Counter[str] = Counter()
    damaged: list[str] = []
    lost = 0
    new.execute("BEGIN")
    new.execute("DELETE FROM prompt_prefixes")  # ids are those of the old store
    for table in ordered:
        rows = _Rows(old, table)
        columns = ", ".join(rows.columns)
        places = ", ".join("?" * len(rows.columns))
        # Combined labels follow from those of their parts.
        prefix_at = rows.columns.index("prompt_prefix_id") if "prompt_prefix_id" in rows.columns else None
        is_derived = _is_combined(rows.columns) if table == "annotations" else _never
        for row in rows:
            if is_derived(row):
                continue
            if prefix_at is not None:  # a label counts without the prompt that it was an answer to
                new.execute("INSERT INTO prompt_prefixes VALUES (?, ?) ON CONFLICT DO NOTHING", _lost(row[prefix_at]))
            try:
                # Not OR IGNORE, which would hold inside triggers as well.
                new.execute(f"INSERT INTO {table} ({columns}) VALUES ({places})", row)  # noqa: S608 - our own names
            except sqlite3.IntegrityError:
                lost += 1
            else:
                kept[table] += 1
        if table == "prompt_prefixes":
            new.execute("INSERT INTO prompt_prefixes (text) VALUES ('') ON CONFLICT DO NOTHING")
        if rows.damaged:
            damaged.append(table)
    while "changed_parts" in _tables(new) and recombine(new, time.time(), limit=_CHUNK):
        pass
    _go_on_counting(old, new)
    new.execute("COMMIT")
    return dict(kept), lost, tuple(damaged)


def _tables(connection: sqlite3.Connection) -> set[str]:
    query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return {name for (name,) in connection.execute(query)}


def _is_combined(columns: list[str]) -> Callable[[Row], bool]:
    at = columns.index("backend")
    return lambda row: row[at] == "parts"


def _lost(prefix_id: int) -> tuple[int, str]:
    return prefix_id, f"(beginning {prefix_id} of a prompt: it could not be read)\n"


def _never(_: Row) -> bool:
    return False


def _go_on_counting(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    """Lets changes have higher numbers than all before, so that no client takes a new one for one that it knows."""
    try:
        (before,) = old.execute("SELECT max(value) FROM change_counter").fetchone()
        highest = int(before)
    except (sqlite3.DatabaseError, TypeError, ValueError):
        return
    new.execute("UPDATE labels SET change = change + ?", (highest,))
    new.execute("UPDATE change_counter SET value = value + ?", (highest,))


class _Rows:
    """The rows of one table that can be read. damaged: whether some could not, known at the end."""

    def __init__(self, connection: sqlite3.Connection, table: str) -> None:
        self._connection, self._table = connection, table
        info = connection.execute(f"PRAGMA table_info({table})").fetchall()
        self.columns = [str(column[1]) for column in info]
        self._key = [str(column[1]) for column in sorted(info, key=lambda column: column[5]) if column[5]]
        self.damaged = False

    def __iter__(self) -> Iterator[Row]:
        (sql,) = self._connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (self._table,)).fetchone()
        return self._by_key() if "WITHOUT ROWID" in sql else self._by_rowid()

    def _select(self, condition: str, *values: int) -> list[Row]:
        columns = ", ".join(self.columns)
        # NOT INDEXED: what is asked is whether the rows can be read, not what an index says of them.
        query = f"SELECT {columns} FROM {self._table} NOT INDEXED WHERE {condition}"  # noqa: S608 - our own names
        return self._connection.execute(query, values).fetchall()

    def _by_rowid(self) -> Iterator[Row]:
        last = self._last_rowid()
        start, empty = 1, 0
        while start <= last if last is not None else empty < _EMPTY_CHUNKS:
            rows = self._chunk(start)
            empty = 0 if rows else empty + 1
            yield from rows
            start += _CHUNK

    def _last_rowid(self) -> int | None:
        """Returns the highest number of a row, None if that cannot be read."""
        try:
            return self._connection.execute(f"SELECT max(rowid) FROM {self._table} NOT INDEXED").fetchone()[0] or 0  # noqa: S608
        except sqlite3.DatabaseError:
            self.damaged = True
            return None

    def _chunk(self, start: int) -> list[Row]:
        try:
            return self._select("rowid BETWEEN ? AND ?", start, start + _CHUNK - 1)
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            self.damaged = True
        rows: list[Row] = []
        for number in range(start, start + _CHUNK):
            try:
                rows += self._select("rowid = ?", number)
            except (sqlite3.DatabaseError, UnicodeDecodeError):
                continue
        return rows

    def _by_key(self) -> Iterator[Row]:
        """Yields the rows before the first page that cannot be read, and those after the last one."""
        first = [*self._key, *(name for name in self.columns if name not in self._key)]
        places = [first.index(name) for name in self.columns]
        last: Row | None = None
        for direction in ("ASC", "DESC"):
            order = ", ".join(f"{name} {direction}" for name in self._key)
            query = f"SELECT {', '.join(first)} FROM {self._table} ORDER BY {order}"  # noqa: S608 - our own names
            try:
                for row in self._connection.execute(query):
                    key = row[: len(self._key)]
                    if direction == "ASC":
                        last = key
                    elif last is not None and key <= last:
                        return
                    yield tuple(row[place] for place in places)
            except (sqlite3.DatabaseError, UnicodeDecodeError, TypeError):  # TypeError: keys of nonsense
                self.damaged = True
            else:
                return
