"""Tables as files: JSON lines, CSV and Parquet, written piece by piece and read row by row.

A caption may be any bytes, which no column of text can hold. Each format has two columns for it: `caption`, its text,
and `caption_base64`, its bytes, which is filled where the text alone would not bring them back, and then counts alone.
In CSV that is wherever a spreadsheet might change the text: beyond printable ASCII, or like a number.

A cell of text that a spreadsheet would take for a formula gets an apostrophe in CSV, and loses one when it is read.
"""

import base64
import binascii
import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast

from llm_annotator.captions import decode_caption, printable
from llm_annotator.errors import ConfigError

Kind = Literal["caption", "text", "json", "count", "number"]
Row = Mapping[str, Any]
Format = Literal["jsonl", "csv", "parquet"]

FORMATS: tuple[Format, ...] = ("jsonl", "csv", "parquet")

NO_PYARROW = "Parquet needs the package pyarrow: pip install 'oni-jax[parquet]', or choose .jsonl or .csv"

_BASE64 = "_base64"
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff0b\uff0d\uff1d\uff20]")
"""How a cell begins that a spreadsheet computes; also one that got its apostrophe."""
_MAX_CELL_CHARS = 16 * 2**20
"""Characters of a cell of CSV that is read. The longest caption that is kept takes up to some two million of them; the
module's own limit is 131,072."""
_PLAIN = re.compile(rb"(?!(?i:true|false)$)[A-Za-z][ -/:-~]*(?<! )")
"""Captions that come back from a spreadsheet as they were: letters and signs, no digits (a date?), no space around."""


class Column(NamedTuple):
    """One column. `json` holds JSON text, which becomes an object in JSON lines."""

    name: str
    kind: Kind


class TableError(ConfigError):
    """A file that cannot be read as a table; the message says where and why."""


def format_of(name: str | Path) -> Format:
    """Returns the format that the end of a file's name stands for.

    Raises:
        ConfigError: it stands for none.
    """
    suffix = Path(name).suffix.lower().removeprefix(".")
    for known in FORMATS:
        if suffix == known:
            return known
    raise ConfigError(f"{str(name)!r} names no format: let it end in .jsonl, .csv or .parquet")


def encode(rows: Iterable[Sequence[Row]], columns: Sequence[Column], form: Format) -> Iterator[bytes]:
    """Yields the file, a piece for each batch of rows; what a row lacks is empty.

    Raises:
        ConfigError: Parquet without pyarrow.
    """
    writers: dict[Format, Callable[[Iterable[Sequence[Row]], Sequence[Column]], Iterator[bytes]]] = {
        "jsonl": _encode_jsonl,
        "csv": _encode_csv,
        "parquet": _encode_parquet,
    }
    return writers[form](rows, columns)


def decode(file: IO[bytes], form: Format) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields where a row stands ("line 7") and the row, as the format gives it; see `caption_of`.

    Raises:
        TableError: it is no such file. ConfigError: Parquet without pyarrow.
    """
    readers: dict[Format, Callable[[IO[bytes]], Iterator[tuple[str, dict[str, Any]]]]] = {
        "jsonl": _decode_jsonl,
        "csv": _decode_csv,
        "parquet": _decode_parquet,
    }
    return readers[form](file)


def caption_of(row: Row, name: str = "caption") -> bytes:
    """Returns the bytes of a caption.

    Raises:
        ValueError: the row holds none.
    """
    encoded = row.get(name + _BASE64)
    if encoded:
        try:
            return base64.b64decode(str(encoded), validate=True)
        except binascii.Error as error:
            raise ValueError(f"{name}{_BASE64} is no base64: {error}") from None
    text = row.get(name)
    if not isinstance(text, str) or not text:
        raise ValueError(f"it has no {name}" if text in (None, "") else f"{name} is {text!r}, which is no text")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds half a character (a lone surrogate), which no text has") from None


def _encode_jsonl(batches: Iterable[Sequence[Row]], columns: Sequence[Column]) -> Iterator[bytes]:
    for rows in batches:
        # ASCII alone: a line separator of Unicode would end a line for many readers.
        lines = [json.dumps(_json_row(row, columns), ensure_ascii=True, allow_nan=False) for row in rows]
        yield "".join(f"{line}\n" for line in lines).encode("ascii")


def _json_row(row: Row, columns: Sequence[Column]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for column in columns:
        name, value = column.name, row.get(column.name)
        if column.kind == "caption":
            found |= _caption_fields(name, value)
        elif column.kind == "json":
            found[name] = None if value is None else _finite(json.loads(value))
        else:
            found[name] = _finite(value)
    return found


def _caption_fields(name: str, caption: Any) -> dict[str, str | None]:
    try:
        return {name: caption.decode("utf-8"), name + _BASE64: None}
    except UnicodeDecodeError:
        return {name: decode_caption(caption), name + _BASE64: base64.b64encode(caption).decode("ascii")}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in cast("dict[str, Any]", value).items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _names(columns: Sequence[Column]) -> list[str]:
    return [
        name
        for column in columns
        for name in ((column.name, column.name + _BASE64) if column.kind == "caption" else (column.name,))
    ]


def _encode_csv(batches: Iterable[Sequence[Row]], columns: Sequence[Column]) -> Iterator[bytes]:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(_names(columns))
    yield file.getvalue().encode("utf-8")
    for rows in batches:
        file.seek(0)
        file.truncate()
        writer.writerows([cell for column in columns for cell in _csv_cells(row, column)] for row in rows)
        yield file.getvalue().encode("utf-8")


def _csv_cells(row: Row, column: Column) -> Iterator[Any]:
    value = row.get(column.name)
    if column.kind == "caption":
        yield from _csv_caption(cast("bytes", value))
    elif isinstance(value, str):
        yield guarded(value.replace("\0", "\\x00"))  # many readers end a cell, or the file, at a NUL
    else:
        yield _finite(value)


def _csv_caption(caption: bytes) -> tuple[str, str]:
    if _PLAIN.fullmatch(caption):
        return caption.decode("ascii"), ""
    # The bytes count, the text is for eyes: it stays on one line.
    return guarded(printable(decode_caption(caption))), base64.b64encode(caption).decode("ascii")


def guarded(text: str) -> str:
    """Returns text as it may stand in a cell: no spreadsheet computes it."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(text: str) -> str:
    """Returns the text that `guarded` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


class _Sink(io.RawIOBase):
    """A file that can only be written; what was written is taken from it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        part = bytes(data)
        self._parts.append(part)
        return len(part)

    def take(self) -> bytes:
        """Returns what was written since."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


def _encode_parquet(batches: Iterable[Sequence[Row]], columns: Sequence[Column]) -> Iterator[bytes]:
    pa, pq = _pyarrow()
    types: dict[Kind, Any] = {"count": pa.int64(), "number": pa.float64()}
    kinds: dict[str, Kind] = {column.name: column.kind for column in columns}
    fields = [pa.field(name, types.get(kinds.get(name, "text"), pa.string())) for name in _names(columns)]
    schema, sink = pa.schema(fields), _Sink()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for rows in batches:
            table = pa.Table.from_pylist([_parquet_row(row, columns) for row in rows], schema=schema)
            writer.write_table(table)
            yield sink.take()
    yield sink.take()


def _parquet_row(row: Row, columns: Sequence[Column]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for column in columns:
        value = row.get(column.name)
        found |= _caption_fields(column.name, value) if column.kind == "caption" else {column.name: value}
    return found


def _pyarrow() -> tuple[Any, Any]:
    """Returns pyarrow, which has no types worth reading, and its part for Parquet."""
    try:
        import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs]
        import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs]
    except ImportError:
        raise ConfigError(NO_PYARROW) from None
    return pa, pq


def _decode_jsonl(file: IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            row: object = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except (ValueError, RecursionError) as error:  # what is no UTF-8 is a ValueError, too
            raise TableError(f"{place} is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise TableError(f"{place} is no JSON object: each line is one, such as {{...}}")
        yield place, cast("dict[str, Any]", row)


def _decode_csv(file: IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    # One for the whole process; no reader has its own. It is raised alone, for another reader may be at work.
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_CELL_CHARS))
    try:
        header = text.readline()
        # Spreadsheets of many countries write semicolons.
        delimiter = max(",;\t", key=header.count)
        names: list[str] = next(csv.reader([header], delimiter=delimiter), list[str]())
        reader = csv.reader(text, delimiter=delimiter)
        for cells in reader:
            place = f"line {reader.line_num + 1}"
            if not any(cells):
                continue
            if len(cells) > len(names):
                raise TableError(f"{place} has {len(cells)} cells, the first line names {len(names)} columns")
            yield place, {name: unguarded(cell) for name, cell in zip(names, cells, strict=False)}
    except UnicodeDecodeError as error:
        raise TableError(f"the file is no UTF-8 ({error}): save it as CSV UTF-8") from None
    except csv.Error as error:
        raise TableError(f"the file is no CSV: {error}") from None
    finally:
        text.detach()  # the file is the caller's


def _decode_parquet(file: IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    pa, pq = _pyarrow()
    try:
        number = 0
        for batch in pq.ParquetFile(file).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"the file cannot be read as Parquet: {error}") from None
