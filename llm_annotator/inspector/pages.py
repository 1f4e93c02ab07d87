"""The pages that only show: each reads the store once, in a thread of its own, and fills a template."""

from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from llm_annotator.inspector.captionpage import caption_view
from llm_annotator.inspector.liststate import PAGE_SIZE, ListState, caption_filter, read_state
from llm_annotator.inspector.overview import overview
from llm_annotator.inspector.scope import NotFound, Scope, find_scope
from llm_annotator.inspector.site import Site
from llm_annotator.store import figures
from llm_annotator.store.listing import MODEL, list_captions
from llm_annotator.store.reader import StoreReader
from llm_annotator.store.reading import Reading
from llm_annotator.store.records import LabelerRow

Page = Callable[[Request], Response]

DONE: Mapping[str, str] = {
    "override": "Saved. A run that goes on learns it within seconds.",
    "undo": "Taken back. What counted before counts again.",
    "ask": "Asked again. The answer stands below.",
}
"""What a page says after something was changed, by the word that the address has in `done`."""

MAX_PAIRS = 200
"""Pairs of captions that are listed, the newest."""


def overview_page(site: Site) -> Page:
    """Returns the page that tells whether the reward is sane."""

    def page(request: Request) -> Response:
        with site.reading() as reading, reading.snapshot():
            scope = find_scope(reading, request.query_params)
            view = overview(reading, scope, site.figures(), state_of(scope))
        return site.html(request, "overview.html", scope=scope, view=view, state=state_of(scope))

    return page


def captions_page(site: Site) -> Page:
    """Returns the page that lists captions."""

    def page(request: Request) -> Response:
        state, problems = read_state(request.query_params)
        with site.reading() as reading, reading.snapshot():
            scope = find_scope(reading, request.query_params)
            state, more = _check_differs(state, scope)
            offset = (state.number - 1) * PAGE_SIZE
            listing = list_captions(reading, caption_filter(state, scope), limit=PAGE_SIZE, offset=offset)
            earned = figures.earned(reading, scope.run_id)
            has_scores = reading.row("SELECT 1 FROM model_scores LIMIT 1") is not None
        return site.html(
            request,
            "captions.html",
            scope=scope,
            state=state,
            problems=[*problems, *more],
            scope_fields={
                name: value
                for name, value in state.given().items()
                if name not in ("run", "labeler", "page", "differs")
            },
            listing=listing,
            first=offset + 1,
            pages=max(1, -(-listing.matching // PAGE_SIZE)),
            earned=earned if earned > 0 else None,
            has_scores=has_scores,
            done=_done(request),
        )

    return page


def caption_page(site: Site) -> Page:
    """Returns the page about one caption."""

    def page(request: Request) -> Response:
        caption_id = request.path_params["caption_id"]
        if caption_id >= 2**63:
            raise NotFound(f"This store holds no caption {caption_id}. Look for it by its text under Captions.")
        with site.reading() as reading, reading.snapshot():
            scope = find_scope(reading, request.query_params)
            view = caption_view(reading, scope, caption_id, request.query_params.get("moment", ""))
        return site.html(request, "caption.html", scope=scope, view=view, state=state_of(scope), done=_done(request))

    return page


def labelers_page(site: Site) -> Page:
    """Returns the page about labelers, and how far two of them agree."""

    def page(request: Request) -> Response:
        with site.reading() as reading, reading.snapshot():
            scope = find_scope(reading, request.query_params)
            first, second = _two_labelers(scope, request)
            agreed = figures.agreement(reading, first, second) if first and second else None
            costs = figures.costs(reading)
            rows = _counted_labelers(reading)
        return site.html(
            request,
            "labelers.html",
            scope=scope,
            rows=rows,
            costs=costs,
            first=first,
            second=second,
            agreed=agreed,
            state=state_of(scope),
        )

    return page


def runs_page(site: Site) -> Page:
    """Returns the page about the runs that share the store."""

    def page(request: Request) -> Response:
        with site.reading() as reading, reading.snapshot():
            scope = find_scope(reading, request.query_params)
            totals = figures.run_totals(reading)
        return site.html(request, "runs.html", scope=scope, totals=totals)

    return page


def pairs_page(site: Site) -> Page:
    """Returns the page about captions that were compared, two by two."""

    def page(request: Request) -> Response:
        text = request.query_params.get("q", "")
        with site.reading() as reading, reading.snapshot():
            scope = find_scope(reading, request.query_params)
            with StoreReader(reading.path) as reader:
                pairs = reader.pairs(labeler_id=_comparing(scope), text=text or None, limit=MAX_PAIRS)
        return site.html(request, "pairs.html", scope=scope, pairs=pairs, q=text, limit=MAX_PAIRS)

    return page


def state_of(scope: Scope) -> ListState:
    """Returns the list of all captions of a scope."""
    return ListState(run=scope.explicit.get("run", ""), labeler=scope.explicit.get("labeler", ""))


def _done(request: Request) -> str:
    return DONE.get(request.query_params.get("done", ""), "")


def _check_differs(state: ListState, scope: Scope) -> tuple[ListState, list[str]]:
    known = {MODEL, "", *(item.labeler_id for item in scope.labelers)}
    if state.differs in known:
        return state, []
    return ListState(**{**vars(state), "differs": ""}), [f"There is no labeler {state.differs!r}: it was left out."]


def _two_labelers(scope: Scope, request: Request) -> tuple[str | None, str | None]:
    """Returns the two labelers that are compared: those asked for, else the page's and the newest other one."""
    labels = [item.labeler_id for item in scope.labelers if item.question == "label"]
    first = request.query_params.get("a") or scope.labeler_id
    others = [key for key in reversed(labels) if key != first]
    second = request.query_params.get("b") or (others[0] if others else None)
    for key in (first, second):
        if key is not None and key not in {item.labeler_id for item in scope.labelers}:
            raise NotFound(f"This store knows no labeler {key!r}. Choose two of those listed under Labelers.")
    return first, second


def _counted_labelers(reading: Reading) -> list[LabelerRow]:
    with StoreReader(reading.path) as reader:
        return reader.labelers()


def _comparing(scope: Scope) -> str | None:
    """Returns the labeler whose comparisons are shown: that of the page, else the newest that compares."""
    if scope.compares or not scope.labelers:
        return scope.labeler_id
    comparing = [item.labeler_id for item in scope.labelers if item.question == "preference"]
    return comparing[-1] if comparing else scope.labeler_id
