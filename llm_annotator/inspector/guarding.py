"""Keeps writes of other sites out: what a form that changes something must show."""

import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from llm_annotator.inspector.door import is_same_site, read_form
from llm_annotator.inspector.multipart import read_upload

MAX_FORM_BYTES = 64 * 2**10

Fields = Mapping[str, bytes]
"""What a form holds, by the names of its fields."""

Action = Callable[[Request, Fields], Awaitable[Response]]

_STALE = "This page is older than the server that it was sent to. Open it anew, and send it again."
_ELSEWHERE = "This was sent by a page of another site, and was left alone. Use the forms on these pages."


class FormToken:
    """A word that all forms of this process carry. No page of another site can know it, and none can read ours."""

    def __init__(self) -> None:
        self._token = secrets.token_urlsafe(32)

    def __call__(self) -> str:
        return self._token

    def is_in(self, fields: Fields) -> bool:
        """Returns whether a form carries it. The time that it takes tells nothing of how another word differs."""
        return hmac.compare_digest(fields.get("token", b""), self._token.encode())


def guarded(token: FormToken, action: Action, *, upload_bytes: int = 0) -> Callable[[Request], Awaitable[Response]]:
    """Returns an endpoint that does something if a form of ours asks for it.

    Three signs are asked for. Where the request came from, by the headers that browsers set and no page can change. The
    token of the form. And, before this, the name of the host (see `door`): against a foreign name for this machine,
    whose pages would count as ours by the first sign, and could read the token.

    upload_bytes: the form may hold a file, and so many bytes in all; 0 for a plain one.
    """

    async def endpoint(request: Request) -> Response:
        if not is_same_site(request):
            raise HTTPException(403, _ELSEWHERE)
        fields = await (read_upload(request, upload_bytes) if upload_bytes else _read_plain(request))
        if not token.is_in(fields):
            raise HTTPException(403, _STALE)
        return await action(request, fields)

    return endpoint


async def _read_plain(request: Request) -> Fields:
    try:
        form = await read_form(request, MAX_FORM_BYTES)
    except ValueError:  # more fields than any form of ours has
        form = None
    if form is None:
        raise HTTPException(400, f"This is no form of these pages, or it holds more than {MAX_FORM_BYTES:,} bytes.")
    return {name: value.encode("utf-8", "replace") for name, value in form.items()}


def text(fields: Fields, name: str, limit: int) -> str:
    """Returns a field as text without space around it; empty if the form lacks it.

    Raises:
        HTTPException: it is longer than `limit` characters.
    """
    found = fields.get(name, b"").decode("utf-8", "replace").strip()
    if len(found) > limit:
        raise HTTPException(400, f"The field {name!r} holds {len(found):,} characters, {limit:,} at most are taken.")
    return found
