"""The annotator's HTTP side: a Starlette app over an `Annotator`. The messages are described in `wire`."""

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from llm_annotator import wire
from llm_annotator.access import Guard, Refused
from llm_annotator.annotator import Annotator, NotReady, Unregistered
from llm_annotator.errors import AnnotatorError, ConfigError, StoreError
from llm_annotator.labeler import LabelerSpec
from llm_annotator.monitoring import CONTENT_TYPE, Monitor

if TYPE_CHECKING:
    from llm_annotator.askagain import AskAgain

MAX_WAIT_S = 30.0
"""Longest poll. Shorter than the minute after which proxies between two machines give a request up."""

Value = TypeVar("Value")
Handler = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


def build_app(
    annotator: Annotator,
    *,
    token: str | None = None,
    loopback_only: bool = True,
    pages: Path | None = None,
    asking: "AskAgain | None" = None,
) -> Starlette:
    """Returns the app.

    token: what clients must send as `Authorization: Bearer TOKEN`; None lets everyone in.
    loopback_only: refuse requests that name another host. A web page that a browser on this machine shows could
        otherwise reach the service through a name of its own that resolves to loopback (DNS rebinding).
    pages: store about which pages for people are served too, None for none. asking: what their button for that asks.
    """
    guard = Guard(token, loopback_only=loopback_only)
    routes = _Routes(annotator)
    monitor = Monitor(annotator)

    async def healthz(_: Request) -> Response:
        asking = annotator.engine is not None and not annotator.problem
        return JSONResponse({"ok": True, "instance": annotator.instance, "asking": asking})

    async def status(request: Request) -> Response:
        try:
            guard.check(request)
        except Refused as refused:
            return _refusal(refused)
        return JSONResponse(annotator.overview())

    async def metrics(request: Request) -> Response:
        try:
            guard.check(request)
        except Refused as refused:
            return _refusal(refused)
        return Response(monitor.text(), media_type=CONTENT_TYPE)

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/v1/status", status),
            Route("/metrics", metrics),
            Route("/v1/runs", _endpoint(guard, routes.runs), methods=["POST"]),
            Route("/v1/captions", _endpoint(guard, routes.captions), methods=["POST"]),
            Route("/v1/labels", _endpoint(guard, routes.labels), methods=["POST"]),
            Route("/v1/occurrences", _endpoint(guard, routes.occurrences), methods=["POST"]),
            Route("/v1/transitions", _endpoint(guard, routes.transitions), methods=["POST"]),
            Route("/v1/scores", _endpoint(guard, routes.scores), methods=["POST"]),
            Route("/v1/leave", _endpoint(guard, routes.leave), methods=["POST"]),
            *_pages(pages, guard, asking),
        ]
    )


def _pages(store: Path | None, guard: Guard, asking: "AskAgain | None") -> list[BaseRoute]:
    if store is None:
        return []
    from llm_annotator.inspector.app import inspector_routes
    from llm_annotator.inspector.mending import make_mending

    return inspector_routes(store, run_dir=None, guard=guard, mending=make_mending(store, asking=asking))


class _Routes:
    """The messages; each takes the decoded body and returns the answer's body."""

    def __init__(self, annotator: Annotator) -> None:
        self._annotator = annotator

    async def runs(self, body: Mapping[str, Any]) -> dict[str, Any]:
        if body.get("protocol") != wire.PROTOCOL:
            raise Refused(
                400,
                "protocol",
                f"the client speaks protocol {body.get('protocol')!r}, this annotator {wire.PROTOCOL}: "
                "use the same version of oni-jax on both sides",
            )
        run_id, name, config = _take(body, "run_id", str), _take(body, "name", str), _map(body, "config")
        json.dumps(config)  # raises TypeError for what no JSON column can hold
        spec = LabelerSpec.from_wire(_map(body, "labeler"))
        labeler_id, cursor, standing = await self._annotator.register(run_id, name, config, spec)
        question = self._annotator.question(labeler_id)
        return {
            "instance": self._annotator.instance,
            "labeler_id": labeler_id,
            "cursor": cursor,
            "standing": [question.to_row(news) for news in standing],
            "changes": [news.change for news in standing],
        }

    async def captions(self, body: Mapping[str, Any]) -> dict[str, Any]:
        labeler_id = _take(body, "labeler_id", str)
        question = self._annotator.question(labeler_id)
        subjects = [question.from_wire(value) for value in _list(body, "captions")]
        if any(len(text) > wire.MAX_CAPTION_BYTES for subject in subjects for text in question.captions(subject)):
            raise Refused(400, "captions", f"captions are byte strings of at most {wire.MAX_CAPTION_BYTES} bytes")
        older = bool(body.get("older"))
        run_id = _take(body, "run_id", str)
        reply = await self._annotator.offer(run_id, labeler_id, subjects, older=older)
        return {
            "instance": self._annotator.instance,
            "known": [question.to_row(news) for news in reply.known],
            "changes": [news.change for news in reply.known],
            "accepted": reply.offer.accepted,
            "dropped": reply.offer.dropped,
            "status": self._annotator.status(labeler_id, run_id).to_wire(),
        }

    async def labels(self, body: Mapping[str, Any]) -> dict[str, Any]:
        labeler_id, after = _take(body, "labeler_id", str), _take(body, "after", int)
        run_id = _take(body, "run_id", str) if "run_id" in body else None
        wait_s = min(max(float(body.get("wait_s", 0.0)), 0.0), MAX_WAIT_S)
        question = self._annotator.question(labeler_id)
        updates, cursor = await self._annotator.labels(labeler_id, after, wait_s, run_id=run_id)
        return {
            "instance": self._annotator.instance,
            "updates": [question.to_row(news) for news in updates],
            "changes": [news.change for news in updates],
            "cursor": cursor,
            "status": self._annotator.status(labeler_id, run_id or "").to_wire(),
        }

    async def occurrences(self, body: Mapping[str, Any]) -> dict[str, Any]:
        items = [wire.occurrence_from_wire(row) for row in _list(body, "occurrences")]
        await self._annotator.record(_take(body, "run_id", str), items)
        return {"instance": self._annotator.instance, "stored": len(items)}

    async def transitions(self, body: Mapping[str, Any]) -> dict[str, Any]:
        items = [wire.transition_from_wire(row) for row in _list(body, "transitions")]
        await self._annotator.record_transitions(_take(body, "run_id", str), items)
        return {"instance": self._annotator.instance, "stored": len(items)}

    async def scores(self, body: Mapping[str, Any]) -> dict[str, Any]:
        items = [wire.score_from_wire(row) for row in _list(body, "scores")]
        await self._annotator.record_scores(_take(body, "run_id", str), items)
        return {"instance": self._annotator.instance, "stored": len(items)}

    async def leave(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self._annotator.leave(_take(body, "run_id", str))
        return {"instance": self._annotator.instance}


def _take(body: Mapping[str, Any], name: str, kind: type[Value]) -> Value:
    value = body.get(name)
    if not isinstance(value, kind):
        raise Refused(400, "bad_request", f"field {name!r} must be of type {kind.__name__}")
    return value


def _map(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    return cast("dict[str, Any]", _take(body, name, dict))


def _list(body: Mapping[str, Any], name: str) -> list[Any]:
    return cast("list[Any]", _take(body, name, list))


def _endpoint(guard: Guard, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            guard.check(request)
            answer = await handler(await _body(request))
        except Refused as refused:
            return _refusal(refused)
        except NotReady as error:
            return _refusal(Refused(503, wire.NOT_READY, str(error)))
        except Unregistered as error:
            return _refusal(Refused(409, wire.UNREGISTERED, str(error)))
        except StoreError as error:
            return _refusal(Refused(507, "store", str(error)))
        except (ConfigError, AnnotatorError) as error:
            return _refusal(Refused(400, "bad_request", str(error)))
        except (TypeError, ValueError, OverflowError) as error:
            return _refusal(Refused(400, "bad_request", f"the request cannot be read: {error}"))
        return Response(wire.pack(answer), media_type=wire.CONTENT_TYPE)

    return endpoint


async def _body(request: Request) -> Mapping[str, Any]:
    # Besides saying what it is, this type keeps foreign web pages out: a browser asks before it sends it elsewhere.
    if request.headers.get("content-type") != wire.CONTENT_TYPE:
        raise Refused(415, "content_type", f"requests are {wire.CONTENT_TYPE}")
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > wire.MAX_BODY_BYTES:
            raise Refused(413, "too_large", f"a request holds at most {wire.MAX_BODY_BYTES} bytes: send it in parts")
        parts.append(part)
    try:
        return wire.unpack(b"".join(parts))
    except ValueError as error:  # what every error of msgpack derives from, too
        raise Refused(400, "bad_request", f"the body is not a msgpack map: {error}") from None


def _refusal(refused: Refused) -> Response:
    return JSONResponse({"error": refused.error, "message": str(refused)}, status_code=refused.status)
