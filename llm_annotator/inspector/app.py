"""The pages as an app of their own, to be mounted at `PREFIX`."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from llm_annotator.access import Guard, Refused
from llm_annotator.errors import StoreError
from llm_annotator.inspector import pages
from llm_annotator.inspector.door import (
    MAX_LOGIN_BYTES,
    SESSION_S,
    Doorkeeper,
    cookie_name,
    is_same_site,
    local_target,
    read_form,
)
from llm_annotator.inspector.scope import NotFound
from llm_annotator.inspector.site import CAPTION_ID, STATIC, Mending, Site, static_file

PREFIX = "/inspect"
"""Path below which the pages stand."""

WRONG_TOKEN_PAUSE_S = 0.5
"""How long the answer to a wrong token takes, so that nobody tries out many."""

_KEEP = "public, max-age=31536000, immutable"
"""For files whose address changes when they do."""


def build_inspector(store: Path, *, run_dir: Path | None, guard: Guard, mending: Mending | None = None) -> Starlette:
    """Returns the pages about a store.

    run_dir: directory of the run whose figures are shown beside what the store knows, None where there is none.
    guard: who is let in. mending: what lets people change labels; None shows them alone.
    """
    site = Site(store, run_dir, guard, mending)

    def refuse(request: Request, refused: Refused) -> Response:
        return _error(site, request, refused.status, str(refused))

    door = Middleware(Doorkeeper, door=site.door, refuse=refuse, open_paths=("/login", "/static/"))
    app = Starlette(
        routes=[*_routes(site), *(mending.routes if mending is not None else ())],
        middleware=[door],
        exception_handlers={
            NotFound: lambda request, error: _error(site, request, 404, str(error)),
            StoreError: lambda request, error: _error(site, request, 503, f"The store cannot be read: {error}."),
            HTTPException: lambda request, error: _http_error(site, request, error),
            Exception: lambda request, error: _error(
                site,
                request,
                500,
                f"This page cannot be made ({type(error).__name__}). The log of the server says more.",
            ),
        },
    )
    app.state.site = site  # for the routes of `mending`, which answer with pages, too
    return app


def inspector_routes(
    store: Path, *, run_dir: Path | None, guard: Guard, mending: Mending | None = None
) -> list[BaseRoute]:
    """Returns what mounts the pages at `PREFIX`; the bare address leads there."""

    def home(_: Request) -> Response:
        return RedirectResponse(f"{PREFIX}/", status_code=303)

    return [
        Route("/", home),
        Route(PREFIX, home),
        Mount(PREFIX, app=build_inspector(store, run_dir=run_dir, guard=guard, mending=mending)),
    ]


def _routes(site: Site) -> list[BaseRoute]:
    return [
        Route("/", pages.overview_page(site)),
        Route("/captions", pages.captions_page(site)),
        Route(f"/caption/{CAPTION_ID}", pages.caption_page(site)),
        Route("/labelers", pages.labelers_page(site)),
        Route("/runs", pages.runs_page(site)),
        Route("/pairs", pages.pairs_page(site)),
        Route("/static/{name}", _static),
        Route("/login", _login_page(site)),
        Route("/login", _login(site), methods=["POST"]),
        Route("/logout", _logout(site), methods=["POST"]),
    ]


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        raise HTTPException(404)
    return Response(static_file(name), headers={"content-type": STATIC[name], "cache-control": _KEEP})


def _login_page(site: Site) -> Callable[[Request], Response]:
    def page(request: Request) -> Response:
        target = request.query_params.get("next", "")
        if site.door.lets_in(request):
            return RedirectResponse(local_target(target, request.scope["root_path"]), status_code=303)
        return site.html(request, "login.html", target=target, wrong=False)

    return page


def _login(site: Site) -> Callable[[Request], Awaitable[Response]]:
    async def login(request: Request) -> Response:
        form = await read_form(request, MAX_LOGIN_BYTES)
        if form is None or not is_same_site(request):
            return _error(
                site, request, 400, "This is not the form of the login page. Open that page and send it again."
            )
        session = site.door.open(form.get("token", "").strip())
        target = form.get("next", "")
        if session is None:
            await asyncio.sleep(WRONG_TOKEN_PAUSE_S)
            return site.html(request, "login.html", status=401, target=target, wrong=True)
        root = request.scope["root_path"]
        response = RedirectResponse(local_target(target, root), status_code=303)
        response.set_cookie(
            cookie_name(request),
            session,
            max_age=int(SESSION_S),
            path=root or "/",
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    return login


def _logout(site: Site) -> Callable[[Request], Response]:
    def logout(request: Request) -> Response:
        if not is_same_site(request):
            return _error(site, request, 400, "Only the button on these pages logs out.")
        site.door.close(request)
        root = request.scope["root_path"]
        response = RedirectResponse(f"{root}/login", status_code=303)
        response.delete_cookie(cookie_name(request), path=root or "/", httponly=True, samesite="strict")
        return response

    return logout


_WORDS = {
    404: "There is no such page. The links at the top lead to all there are.",
    405: "This address takes no such request. Use the forms on the pages.",
}


def _http_error(site: Site, request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(site, request, error.status_code, _WORDS.get(error.status_code, error.detail))


def _error(site: Site, request: Request, status: int, message: str) -> Response:
    return site.html(request, "error.html", status=status, code=status, message=message)
