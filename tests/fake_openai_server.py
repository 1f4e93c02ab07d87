"""A small OpenAI-compatible server that can misbehave in every way that a client has to survive.

with FakeOpenAIServer() as server:
    server.mode = "busy"
    ... server.base_url, server.requests ...
"""

import asyncio
import json
import socket
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

ALTERNATIVES = [(" yes", -0.2), (" Yes", -2.5), (" no", -3.0), ("\n", -4.0)]
"""What the server answers when all is well: yes, clearly."""


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    path: str
    authorization: str | None
    body: dict[str, Any]


@dataclass
class FakeOpenAIServer:
    """Serves on a free loopback port until it is closed. `mode` may be changed at any time."""

    paths: ClassVar[tuple[str, ...]] = ("/v1/chat/completions", "/v1/completions")

    mode: str = "ok"
    requests: list[Seen] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        app = Starlette(routes=[Route(path, self._answer, methods=["POST"]) for path in self.paths])
        config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = self._server.force_exit = True  # answers under way are of no more use
        self._thread.join(timeout=10)
        self._socket.close()

    async def _answer(self, request: Request) -> Response:
        body = await request.json()
        chat = "chat" in request.url.path
        self.requests.append(Seen(request.url.path, request.headers.get("authorization"), body))
        if self.mode == "slow":
            await asyncio.sleep(2.0)
        if failure := _failure(self.mode, request.headers.get("authorization", "")):
            return failure
        answer = self.complete(body, chat=chat, authorization=request.headers.get("authorization", ""))
        if isinstance(answer, Response):
            return answer
        good = json.dumps(answer)
        bodies = {"truncated": good[: len(good) // 2], "garbage": "<html>Welcome!</html>", "empty": "", "list": "[1]"}
        if self.mode == "no_choices":
            bodies["no_choices"] = json.dumps({"choices": []})
        return Response(bodies.get(self.mode, good), media_type="application/json")

    def complete(self, body: dict[str, Any], *, chat: bool, authorization: str) -> dict[str, Any] | Response:
        """Returns the answer when all is well, or a refusal."""
        return _completion(body, chat=chat, logprobs=self.mode != "no_logprobs", newer=self.mode == "newer")


def _failure(mode: str, authorization: str) -> Response | None:
    def error(status: int, message: str, code: str | None = None, **headers: str) -> Response:
        return JSONResponse({"error": {"message": message, "code": code}}, status_code=status, headers=headers)

    # The worst servers repeat the whole header.
    failures = {
        "bad_key": lambda: error(401, f"Incorrect API key provided: {authorization}"),
        "no_model": lambda: error(404, f"no such model; you sent {authorization}"),
        "bad_request": lambda: error(400, f"unknown field top_logprobs; you sent {authorization}"),
        "busy": lambda: error(429, "slow down", **{"Retry-After": "7"}),
        "broke": lambda: error(429, "You exceeded your current quota", "insufficient_quota"),
        "crash": lambda: error(500, f"internal error; you sent {authorization}"),
        "loading": lambda: error(503, "Loading model", **{"Retry-After": "2.5"}),
        "no_gateway": lambda: Response("bad gateway", status_code=502),
    }
    return failures[mode]() if mode in failures else None


def _completion(body: dict[str, Any], *, chat: bool, logprobs: bool, newer: bool) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
    choice |= {"message": {"role": "assistant", "content": " yes"}} if chat else {"text": " yes"}
    if logprobs and (chat or newer):
        tops = [{"token": token, "logprob": value} for token, value in ALTERNATIVES]
        choice["logprobs"] = {"content": [{**tops[0], "top_logprobs": tops}]}
    elif logprobs:
        choice["logprobs"] = {"tokens": [" yes"], "top_logprobs": [dict(ALTERNATIVES)]}
    usage = {"prompt_tokens": 120, "completion_tokens": 1, "total_tokens": 121}
    return {"id": "x", "object": "x", "created": 1, "model": body["model"], "choices": [choice], "usage": usage}
