"""What all pages share: the store, the figures of the run, the templates."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import BaseRoute

from llm_annotator.access import Guard
from llm_annotator.inspector import words
from llm_annotator.inspector.door import SAFE_HEADERS, Door
from llm_annotator.inspector.metricsfile import Figures, MetricsFile
from llm_annotator.inspector.scope import Scope
from llm_annotator.store.reading import Reading

FOLDER = Path(__file__).parent

REFRESH_S = 5
"""How often a page reads itself anew while the run goes on."""

REFRESH_WITHOUT_SCRIPT_S = 30

STATIC: Mapping[str, str] = {"style.css": "text/css; charset=utf-8", "app.js": "text/javascript; charset=utf-8"}
"""Files that pages use, and what they are."""

CAPTION_ID = "{caption_id:row_id}"
"""Stands in the path of a route for the id of a caption."""


class _RowId(Convertor[int]):
    """As `int`, but no digits by the thousand, which Python refuses to read."""

    regex: ClassVar[str] = "[0-9]{1,40}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("row_id", _RowId())


class Mending(NamedTuple):
    """What lets people change something: the routes that do it, below the root of the pages, and what their forms hold.

    form_token: a word that every form carries in the field `token`, so that no page of another site can send one.
    """

    routes: Sequence[BaseRoute]
    form_token: Callable[[], str]


class Site:
    """The pages' surroundings.

    store: SQLite file. run_dir: directory of the run whose figures are shown, None where there is none.
    mending: None if pages only show.
    """

    def __init__(self, store: Path, run_dir: Path | None, guard: Guard, mending: Mending | None) -> None:
        self.store = store
        self.run_dir = run_dir
        self.door = Door(guard)
        self.mending = mending
        self._metrics = None if run_dir is None else MetricsFile(run_dir / "metrics.jsonl")
        self._templates = make_templates()

    def reading(self) -> Reading:
        """Opens the store for one page.

        Raises:
            StoreError: it cannot be read; the message says why.
        """
        return Reading(self.store)

    def figures(self) -> Figures | None:
        """Returns the figures of the run, None where the store alone is known."""
        return None if self._metrics is None else self._metrics.read()

    def goes_on(self, now: float) -> bool:
        """Returns whether something seems to be written still: figures of the run, or the store."""
        figures = self.figures()
        if figures is not None and figures.written_at is not None:
            return figures.goes_on(now)
        try:
            newest = max(path.stat().st_mtime for path in (self.store, wal_of(self.store)) if path.exists())
        except (OSError, ValueError):
            return False
        return Figures((), newest).goes_on(now)

    def html(
        self, request: Request, template: str, *, scope: Scope | None = None, status: int = 200, **context: Any
    ) -> HTMLResponse:
        """Returns a page. scope: what the page is about, None where that is not known (errors, login)."""
        now = time.time()
        figures = self.figures()
        live = scope is not None and self.goes_on(now)
        root: str = request.scope.get("root_path", "")
        keep = "" if scope is None else scope.query()

        def link_to(caption_id: int) -> str:
            return f"{root}/caption/{caption_id}{keep}"

        shared: dict[str, Any] = {
            "root": root,
            "path": request.scope["path"],
            "static": static_url,
            "scope": scope,
            "keep": keep,
            "source": str(self.run_dir or self.store),
            "now": now,
            "goes_on": live,
            "refresh_s": REFRESH_S if live and request.query_params.get("live") != "off" else 0,
            "refresh_without_script_s": REFRESH_WITHOUT_SCRIPT_S,
            "stop_url": "?" + urlencode({**request.query_params, "live": "off"}),
            "scope_fields": {},
            "link_to": link_to,
            "list_url": f"{root}/captions",
            "written_at": None if figures is None else figures.written_at,
            "mends": self.mending is not None,
            "form_token": "" if self.mending is None else self.mending.form_token(),
            "needs_token": self.door.guard.needs_token,
        }
        text = self._templates.get_template(template).render(shared | context)
        return HTMLResponse(text, status_code=status, headers=dict(SAFE_HEADERS))


def wal_of(store: Path) -> Path:
    """Returns the log that SQLite keeps beside a store."""
    return store.with_name(store.name + "-wal")


def make_templates() -> Environment:
    """Returns the templates, with the words of `words` as filters. All that they are given is escaped."""
    templates = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = (
        *("visible", "caption_html", "caption_line", "count", "short", "reward", "percent", "seconds"),
        *("probability", "fine_probability", "when", "iso", "plain"),
    )
    templates.filters.update({name: getattr(words, name) for name in names})  # pyright: ignore[reportUnknownMemberType]
    templates.globals.update(label_word=words.label_word, plural=words.plural)  # pyright: ignore[reportUnknownMemberType]
    return templates


@cache
def static_file(name: str) -> bytes:
    """Returns a file that pages use; `name` is one of `STATIC`."""
    return (FOLDER / "static" / name).read_bytes()


@cache
def static_url(name: str) -> str:
    """Returns the address of a file below the root; another one when the file changes, so that browsers may keep it."""
    return f"/static/{name}?v={hashlib.sha256(static_file(name)).hexdigest()[:12]}"
