"""Files to take along, streamed: nothing of them is kept here, and the store is read a batch at a time."""

from collections.abc import Callable, Iterator
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from llm_annotator.errors import ConfigError, StoreError
from llm_annotator.exporting import Wanted, What, export
from llm_annotator.inspector.scope import NotFound
from llm_annotator.tables import Format

_TYPES: dict[Format, str] = {
    "jsonl": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}

_FILES: tuple[tuple[What, Format], ...] = (
    ("annotations", "jsonl"),
    ("annotations", "csv"),
    ("annotations", "parquet"),
    ("preferences", "jsonl"),
)


def export_routes(store: Path) -> list[BaseRoute]:
    """Returns the routes of all files: /export/annotations.jsonl and so on."""
    return [Route(f"/export/{what}.{form}", _download(store, what, form)) for what, form in _FILES]


def _download(store: Path, what: What, form: Format) -> Callable[[Request], Response]:
    def download(request: Request) -> Response:
        wanted = Wanted(what, request.query_params.get("run") or None, request.query_params.get("labeler") or None)
        try:
            pieces = export(store, wanted, form)
            first = next(pieces, b"")  # what cannot be read at all is said on a page
        except ConfigError as error:
            raise HTTPException(501, f"{error}.") from None
        except StoreError as error:
            raise NotFound(f"Nothing can be taken along: {error}.") from None
        headers = {"content-disposition": f'attachment; filename="{what}.{form}"'}
        return StreamingResponse(_all(first, pieces), media_type=_TYPES[form], headers=headers)

    return download


def _all(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
