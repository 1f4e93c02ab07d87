"""One connection for the queries of one page."""

import sqlite3
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from llm_annotator.store.connection import open_for_reading, store_errors


class Reading:
    """A store, open for reading; a service may be writing to it. For one thread at a time.

    Opening and every method raise `StoreError`, whose message says what to do (no such file, damaged, newer schema).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection = open_for_reading(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def rows(self, query: str, values: Mapping[str, Any] | Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Returns what a query finds."""
        with store_errors(self.path):
            return self._connection.execute(query, values).fetchall()

    def row(self, query: str, values: Mapping[str, Any] | Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """Returns the first row that a query finds, None if there is none."""
        with store_errors(self.path):
            return self._connection.execute(query, values).fetchone()

    def table(
        self, query: str, values: Mapping[str, Any] | Sequence[Any] = ()
    ) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Returns the names of the columns of a query, and what it finds."""
        with store_errors(self.path):
            cursor = self._connection.execute(query, values)
            return [column[0] for column in cursor.description], cursor.fetchall()

    def has(self, table: str, column: str | None = None) -> bool:
        """Returns whether the store has a table (or a view), and in it a column: older stores lack some."""
        found = self.rows("SELECT name FROM pragma_table_info(?)", (table,))
        return bool(found) if column is None else (column,) in found

    @contextmanager
    def snapshot(self) -> Generator[None]:
        """Lets all queries inside see the same moment, whatever the service writes meanwhile."""
        with store_errors(self.path):
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.rollback()
