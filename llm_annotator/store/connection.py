"""Opening the SQLite file, and SQLite's errors in words."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from llm_annotator.errors import StoreCorrupt, StoreError, StoreFull
from llm_annotator.store.schema import check_schema, migrate, stand_in

BUSY_TIMEOUT_S = 10.0
"""How long one process waits for another one's transaction to end. Ours take milliseconds."""

_PRIMARY_CODE = 0xFF
"""SQLite keeps the kind of an error in the low byte of its extended code."""


_FAULTS_OF_VALUES = (
    sqlite3.IntegrityError,
    sqlite3.DataError,  # a text that is too long
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,  # a value of a type that SQLite does not know
)


@contextmanager
def store_errors(path: Path) -> Generator[None]:
    """Turns SQLite's errors about the file into ours.

    A broken constraint, or a value that no column holds, is a fault of the program or of one record, and stays one.
    """
    try:
        yield
    except _FAULTS_OF_VALUES:
        raise
    except sqlite3.Error as error:
        raise _translate(error, path) from error


def _translate(error: sqlite3.Error, path: Path) -> StoreError:
    code = (getattr(error, "sqlite_errorcode", None) or 0) & _PRIMARY_CODE
    if code == sqlite3.SQLITE_CORRUPT:
        return StoreCorrupt(
            f"{path} is damaged ({error}): end what uses it and run `oni salvage {path}`, which keeps all of it that "
            "can be read, or restore a copy"
        )
    if code == sqlite3.SQLITE_NOTADB:
        return StoreCorrupt(
            f"{path} is damaged or is not an annotation store ({error}): restore a copy, or move it away and start anew"
        )
    if code == sqlite3.SQLITE_FULL:
        return StoreFull(f"the disk that holds {path} is full: free some space; nothing acknowledged is lost")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return StoreFull(f"{path} cannot be written ({error}): check the permissions of the file and its folder")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR):
        return StoreFull(f"{path} cannot be opened or written ({error}): check that its folder exists and is writable")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreError(f"{path} stays locked by another process ({error}): close the program that writes to it")
    return StoreError(f"{path}: {error}")


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Returns a connection to the store at `path`, made or migrated if need be.

    The connection is in autocommit mode: transactions are opened by `BEGIN` alone.

    Raises:
        StoreError: a subclass that says why the file cannot be used.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreFull(f"the folder of {path} cannot be made: {error.strerror}") from error
    with store_errors(path):
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        with store_errors(path):
            check_schema(connection, str(path))  # before anything is written to a file that may not be ours
            connection.execute("PRAGMA journal_mode = WAL")
            # A commit in WAL mode is a write() to the log. The kernel has it even if this process is killed at once,
            # so NORMAL loses nothing to kill -9. Only a power cut can undo the last commits (never damage the file),
            # and FULL would pay an fsync a commit against that; a lost label is merely asked again.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            # A label of a part adds an annotation of the captions that hold it, inside the trigger of its own.
            connection.execute("PRAGMA recursive_triggers = ON")
            migrate(connection, str(path))
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Returns a connection that cannot write, usable while a service writes.

    Raises:
        StoreError: no such file, or a subclass that says why the file cannot be used.
    """
    if not path.is_file():
        raise StoreError(f"there is no annotation store at {path}")
    uri = path.resolve().as_uri()
    # Reading a WAL database needs its -shm file, which cannot be made in a folder that is not writable. Without a
    # log there is nothing to share, and SQLite may read the file as it stands.
    modes = ("mode=ro", "mode=ro&immutable=1") if not Path(f"{path}-wal").exists() else ("mode=ro",)
    for mode in modes:
        with store_errors(path):
            connection = sqlite3.connect(f"{uri}?{mode}", uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            with store_errors(path):
                version = check_schema(connection, str(path))
        except StoreFull:
            connection.close()
            if mode == modes[-1]:
                raise
        except BaseException:
            connection.close()
            raise
        else:
            if version == 0:
                connection.close()
                raise StoreError(f"{path} is empty: no annotator has written to it yet")
            stand_in(connection, version)
            return connection
    raise AssertionError("unreachable: the last mode returns or raises")
