"""What people change on the pages: labels, mutes, and whom to ask again; and what they take along and bring."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from llm_annotator.errors import AnnotatorError, ConfigError, StoreError
from llm_annotator.importing import MAX_NAME_CHARS, MAX_NOTE_CHARS, Report, add_labeler, overrule, read_labels
from llm_annotator.inspector.guarding import Fields, FormToken, guarded, text
from llm_annotator.inspector.multipart import FILENAME
from llm_annotator.inspector.scope import NotFound
from llm_annotator.inspector.site import CAPTION_ID, Mending, Site
from llm_annotator.inspector.takealong import export_routes
from llm_annotator.store import figures
from llm_annotator.store.figures import LabelerName
from llm_annotator.store.reader import StoreReader
from llm_annotator.store.reading import Reading
from llm_annotator.store.writer import Store
from llm_annotator.tables import format_of

if TYPE_CHECKING:
    from llm_annotator.askagain import AskAgain

MAX_IMPORT_BYTES = 32 * 2**20
MAX_GOAL_CHARS = 2000
MAX_MODEL_CHARS = 200
MAX_ID_CHARS = 100

_VERDICTS = {"yes": (True, False), "no": (False, False), "mute": (False, True)}
"""Helpful or not, muted or not."""

_NOT_HERE = (
    "These pages know the store alone, and not how its LLM is reached. Ask on the command line: oni relabel STORE "
    "--config FILE --goal GOAL --model NAME, with the configuration of the runs."
)


class Mender:
    """The store that is changed, by whom, and whom to ask again (None: nobody can be asked from here)."""

    def __init__(self, store: Path, author: str, asking: "AskAgain | None") -> None:
        self._store = store
        self._author = author
        self._asking = asking

    async def override(self, request: Request, fields: Fields) -> Response:
        """Keeps what a person says of a caption, and leads back to its page."""
        verdict = _VERDICTS.get(text(fields, "helpful", MAX_ID_CHARS))
        if verdict is None:
            raise HTTPException(400, "Nothing was chosen: press Helpful, Unhelpful or Mute.")
        note = text(fields, "note", MAX_NOTE_CHARS)
        labeler_id, caption_id = text(fields, "labeler", MAX_ID_CHARS), _caption_id(request)
        await run_in_threadpool(self._override, caption_id, labeler_id, *verdict, note)
        return _back(request, caption_id, "override")

    def _override(self, caption_id: int, labeler_id: str, helpful: bool, muted: bool, note: str) -> None:
        caption = self._text_of(caption_id)
        if self._labeler(labeler_id).question != "label" and not muted:
            raise HTTPException(
                400, "This labeler compares captions and calls none helpful. What it is asked about can only be muted."
            )
        with _written(), Store(self._store) as store:
            store.override(caption, labeler_id, helpful=helpful, muted=muted, note=note, author=self._author)

    async def undo(self, request: Request, fields: Fields) -> Response:
        """Takes back what a person said of a caption, and leads back to its page."""
        number, caption_id = text(fields, "override", MAX_ID_CHARS), _caption_id(request)
        await run_in_threadpool(self._undo, caption_id, number)
        return _back(request, caption_id, "undo")

    def _undo(self, caption_id: int, number: str) -> None:
        self._text_of(caption_id)
        with StoreReader(self._store) as reader:
            standing = [item for item in reader.history(caption_id).overrides if item.revoked_at is None]
        found = [item.override_id for item in standing if str(item.override_id) == number]
        if not found:
            raise HTTPException(409, "That was taken back already, by somebody else or on another page. Go back to it.")
        with _written(), Store(self._store) as store:
            store.revoke_override(found[0])

    async def ask(self, request: Request, fields: Fields) -> Response:
        """Asks an LLM about a caption, and leads to the caption's page with its answer."""
        caption_id = _caption_id(request)
        goal, model = text(fields, "goal", MAX_GOAL_CHARS), text(fields, "model", MAX_MODEL_CHARS)
        labeler_id = text(fields, "labeler", MAX_ID_CHARS)
        await run_in_threadpool(self._labeler, labeler_id)
        await run_in_threadpool(self._text_of, caption_id)
        if self._asking is None:
            raise HTTPException(409, _NOT_HERE)
        try:
            answered = await self._asking.ask(caption_id, labeler_id, goal=goal, model=model)
        except AnnotatorError as error:
            raise HTTPException(502, f"It could not be asked: {error}.") from None
        return _back(request, caption_id, "ask", labeler=answered)

    async def bring(self, request: Request, fields: Fields) -> Response:
        """Imports a file, and tells what became of it."""
        filename = fields.get(f"file{FILENAME}", b"").decode("utf-8", "replace")
        if not filename:
            raise HTTPException(400, "No file was chosen.")
        name, labeler_id = text(fields, "name", MAX_NAME_CHARS), text(fields, "labeler", MAX_ID_CHARS)
        content = fields.get("file", b"")
        report = await run_in_threadpool(self._bring, content, filename, labeler_id, name)
        site: Site = request.app.state.site
        return site.html(request, "imported.html", report=report, filename=filename, name=name)

    def _bring(self, content: bytes, filename: str, labeler_id: str, name: str) -> Report:
        labeler = self._labeler(labeler_id)
        note = f"imported from {filename}"
        try:
            labels = read_labels(io.BytesIO(content), format_of(filename))
            if name:
                return add_labeler(self._store, labels, name, goal=labeler.goal, note=note)
            return overrule(self._store, labels, labeler_id, author=self._author, note=note)
        except (ConfigError, ValueError) as error:
            raise HTTPException(400, f"{filename} was not imported, and nothing was changed: {error}.") from None
        except StoreError as error:
            _cannot_write(error)

    def _text_of(self, caption_id: int) -> bytes:
        with Reading(self._store) as reading:
            found = reading.row("SELECT text FROM captions WHERE id = ?", (caption_id,))
        if found is None:
            raise NotFound(f"This store holds no caption {caption_id}. Look for it by its text under Captions.")
        return found[0]

    def _labeler(self, labeler_id: str) -> LabelerName:
        with Reading(self._store) as reading:
            found = [item for item in figures.labelers(reading) if item.labeler_id == labeler_id]
        if not found:
            raise NotFound(f"This store knows no labeler {labeler_id!r}. Choose one of those listed under Labelers.")
        return found[0]


class _written:  # noqa: N801 - a context like contextlib's
    """Says of a store that cannot be written what is wrong."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, StoreError):
            _cannot_write(error)


def _cannot_write(error: StoreError) -> NoReturn:
    raise HTTPException(507, f"It was not kept, for the store cannot be written: {error}.") from None


def make_mending(store: Path, *, author: str = "", asking: "AskAgain | None" = None) -> Mending:
    """Returns what lets people change a store on the pages about it.

    author: who the person at the browser is, kept with what is said; empty where that is not known.
    asking: what asks an LLM again, None if none can be reached from here.
    """
    token, mender = FormToken(), Mender(store, author, asking)
    caption = f"/caption/{CAPTION_ID}"
    return Mending(
        routes=[
            Route(f"{caption}/override", guarded(token, mender.override), methods=["POST"]),
            Route(f"{caption}/undo", guarded(token, mender.undo), methods=["POST"]),
            Route(f"{caption}/ask", guarded(token, mender.ask), methods=["POST"]),
            Route("/import", guarded(token, mender.bring, upload_bytes=MAX_IMPORT_BYTES), methods=["POST"]),
            *export_routes(store),
        ],
        form_token=token,
    )


def _caption_id(request: Request) -> int:
    return min(request.path_params["caption_id"], 2**63 - 1)


def _back(request: Request, caption_id: int, done: str, **changed: str) -> Response:
    """Returns what leads to a caption's page, with the run and the labeler that were chosen there.

    done: a word of `pages.DONE`, which the page says.
    """
    kept = (
        {name: value for name, value in request.query_params.items() if name in ("run", "labeler")}
        | changed
        | {"done": done}
    )
    path = f"{request.scope['root_path']}/caption/{caption_id}"
    url = request.url.replace(path=path, query="", fragment="").include_query_params(**kept)
    return RedirectResponse(f"{url.path}?{url.query}", status_code=303)
