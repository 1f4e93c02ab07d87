"""Who may see the pages, and what browsers may do with them."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_annotator.access import Guard, Refused

SAFE_HEADERS: Mapping[str, str] = {
    # Nothing but our own files, no script or style inside a page, no frames around it. `connect-src` is for pages that
    # read themselves anew while a run goes on; `data:` for pictures of games.
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

SESSION_S = 12 * 3600.0
"""How long a browser stays let in."""

MAX_SESSIONS = 100
"""Browsers that are let in at once; beyond it the oldest is forgotten."""

MAX_LOGIN_BYTES = 4096


class Door:
    """Lets browsers in that showed the token once, by a cookie that holds a random number.

    The token itself is never in a cookie, an address or a page. Programs may send it with every request, as to the
    service.
    """

    def __init__(self, guard: Guard, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.guard = guard
        self._clock = clock
        self._sessions: dict[bytes, float] = {}  # digests, by when they end

    def lets_in(self, request: Request) -> bool:
        """Returns whether a request may see pages."""
        if self.guard.has_token(request):
            return True
        shown = _digest(request.cookies.get(cookie_name(request), ""))
        now = self._clock()
        # All are compared: how long that takes tells nothing about any.
        found = [ends > now for known, ends in self._sessions.items() if hmac.compare_digest(known, shown)]
        return any(found)

    def open(self, token: str) -> str | None:
        """Returns the number for the cookie of a browser that showed the token; None if that is wrong."""
        if not self.guard.is_token(token):
            return None
        session = secrets.token_urlsafe(32)
        while len(self._sessions) >= MAX_SESSIONS:
            self._sessions.pop(next(iter(self._sessions)))
        self._sessions[_digest(session)] = self._clock() + SESSION_S
        return session

    def close(self, request: Request) -> None:
        """Forgets the browser."""
        self._sessions.pop(_digest(request.cookies.get(cookie_name(request), "")), None)


def cookie_name(request: Request) -> str:
    """Returns the name of the cookie: one a port, since browsers send cookies to all ports of a host."""
    return f"oni_inspect_{request.url.port or 0}"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def is_same_site(request: Request) -> bool:
    """Returns whether a form was sent by a page of ours, as far as the browser tells."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    # "null" is what browsers send for pages with `referrer-policy: no-referrer`, ours among them.
    return origin in (None, "null") or origin.partition("://")[2] == request.headers.get("host")


async def read_form(request: Request, limit: int) -> dict[str, str] | None:
    """Returns the fields of a plain HTML form, each with its first value; None if it is none, or too long."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return None
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > limit:
            return None
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=100)
    return {name: values[0] for name, values in fields.items()}


def local_target(target: str, root: str) -> str:
    """Returns where a browser goes after it was let in: a page of ours, whatever was asked for."""
    is_ours = target.startswith(f"{root}/") and not target.startswith("//") and "\\" not in target
    return target if is_ours and target.isprintable() else f"{root}/"


class Doorkeeper:
    """Puts the safe headers on every answer, and asks at the door.

    refuse: makes the page for a request that names another host.
    open_paths: paths below the root that need no token.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        door: Door,
        refuse: Callable[[Request, Refused], Response],
        open_paths: tuple[str, ...],
    ) -> None:
        self._app = app
        self._door = door
        self._refuse = refuse
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SAFE_HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        answer = self._app
        try:
            self._door.guard.check_host(request)
        except Refused as refused:
            answer = self._refuse(request, refused)
        else:
            root = scope.get("root_path", "")
            path = scope["path"].removeprefix(root)
            if not path.startswith(self._open_paths) and not self._door.lets_in(request):
                if request.method in ("GET", "HEAD"):
                    target = scope["path"] + (f"?{request.url.query}" if request.url.query else "")
                    query = urlencode({"next": target})
                    answer = RedirectResponse(f"{root}/login?{query}", status_code=303)
                else:
                    answer = self._refuse(request, Refused(401, "wrong_token", "Log in first, then send it again."))
        await answer(scope, receive, send_safely)
