"""A store that is read, and not written."""

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

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._connection: sqlite3.Connection = open_for_reading(self.path)

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

    @contextmanager
    def snapshot(self) -> Generator[None]:
        """Lets all queries inside see the same moment, whatever the service writes meanwhile."""
        with store_errors(self.path):
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.rollback()
