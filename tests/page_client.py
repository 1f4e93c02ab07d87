"""Requests to the pages of `oni inspect` through their app, without a server."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette

from llm_annotator.access import Guard
from llm_annotator.inspector.app import inspector_routes

OPEN = Guard(None, loopback_only=True)

Get = Callable[..., httpx.Response]


def client(store: Path, guard: Guard = OPEN, run_dir: Path | None = None) -> Get:
    """Returns a function that sends one request to the pages and returns the answer; cookies are kept."""
    app = Starlette(routes=inspector_routes(store, run_dir=run_dir, guard=guard))
    return requester(app)


def requester(app: Starlette) -> Get:
    """Returns the same for any app."""
    cookies = httpx.Cookies()

    def request(path: str, method: str = "GET", **options: Any) -> httpx.Response:
        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1", cookies=cookies) as http:
                answer = await http.request(method, path, **options)
                cookies.update(http.cookies)
                return answer

        return asyncio.run(go())

    return request
