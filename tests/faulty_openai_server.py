"""An OpenAI-compatible server that fails: so many answers of a hundred are refused, broken off, garbled or absurd.

By hand:

    .venv/bin/python -m tests.faulty_openai_server --port 8001 --rate 0.3
    oni label captions.txt --annotator.backend.kind completions --annotator.backend.model faulty \
        --annotator.backend.base-url http://127.0.0.1:8001/v1
    curl -d '{"rate": 0}' http://127.0.0.1:8001/faults     # the faults stop
    curl http://127.0.0.1:8001/stats                       # what was asked and how it was answered

In tests:

    with FaultyServer(rate=0.3) as server:
        ... server.base_url, server.rate = 0.0, server.faults ...

Without a fault it tells the truth: captions with "open" in them are helpful, and better than those without. Whatever
label stands in a broken answer is the opposite of the truth, so that one that came out of it is seen. Which request
meets which fault follows from the seed and the number of the request.
"""

import argparse
import asyncio
import email.utils
import json
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from tests.able_openai_server import PAIRS, AbleServer

MAX_REQUEST_BYTES = 16 << 20

_OPPOSITE = dict(PAIRS) | {worse: better for better, worse in PAIRS}
_WORD = re.compile(rf"\b({'|'.join(_OPPOSITE)})\b")

Answer = dict[str, Any]


def opposite(answer: Answer) -> Answer:
    """Returns the answer with the other label in it, wherever one stands."""
    return json.loads(_WORD.sub(lambda match: _OPPOSITE[match[1]], json.dumps(answer)))


def _with_text(answer: Answer, text: str | None) -> Answer:
    """Returns the answer with another text and without log-probabilities."""
    (choice,) = answer["choices"]
    said = {"message": {"role": "assistant", "content": text}} if "message" in choice else {"text": text}
    rest = {name: value for name, value in choice.items() if name not in ("message", "text", "logprobs")}
    return answer | {"choices": [rest | said]}


def _with_logprobs(answer: Answer, values: Sequence[float]) -> Answer:
    """Returns the answer with other log-probabilities; one that holds none stays without."""
    (choice,) = answer["choices"]
    if "logprobs" not in choice:
        return _with_text(answer, "")
    tops = choice["logprobs"]["content"][0]["top_logprobs"]
    changed = [item | {"logprob": value} for item, value in zip(tops, values, strict=True)]
    content = [choice["logprobs"]["content"][0] | {"top_logprobs": changed}]
    return answer | {"choices": [choice | {"logprobs": {"content": content}}]}


def _without_logprobs(answer: Answer) -> Answer:
    (choice,) = answer["choices"]
    return answer | {"choices": [{name: value for name, value in choice.items() if name != "logprobs"}]}


BROKEN_ANSWERS: dict[str, Callable[[Answer, Answer], object]] = {
    "empty text": lambda _, lie: _with_text(lie, ""),
    "no text": lambda _, lie: _with_text(lie, None),
    "absurd text": lambda _, lie: _with_text(lie, "\x00\x1b[31m\ufffd" * 50 + "yes no first second\u202e"),
    "markup": lambda _, lie: _with_text(lie, "<html><body>Answer: yes</body></html>"),
    "small talk": lambda _, lie: _with_text(lie, "No idea what you mean, yes or no, first or second?"),
    "no choices": lambda _, lie: lie | {"choices": []},
    "choices of another type": lambda _, lie: lie | {"choices": {"0": lie["choices"][0]}},
    "one choice too many": lambda truth, lie: lie | {"choices": lie["choices"] + truth["choices"]},
    "log-probabilities missing": lambda truth, _: _without_logprobs(truth),
    "log-probabilities of certainty": lambda _, lie: _with_logprobs(lie, (0.0, 0.0)),
    "log-probabilities that are no number": lambda _, lie: _with_logprobs(lie, (float("nan"), float("nan"))),
    "log-probabilities above nought": lambda _, lie: _with_logprobs(lie, (5.0, -3.0)),
    "a list": lambda _, lie: [lie],
    "an error in a good status": lambda _, lie: {"error": {"message": "CUDA out of memory"}},
}
"""Answers in a good status, made of the true one and of one with the opposite label. Only one without
log-probabilities may still be read: its text is the truth."""

REFUSALS: dict[str, tuple[int, bool]] = {
    "429": (429, False),
    "429 with Retry-After": (429, True),
    "500": (500, False),
    "502": (502, False),
    "503": (503, False),
    "503 with Retry-After": (503, True),
}
"""Statuses, and whether they name a pause: in turn as seconds and as a date."""

BROKEN_CONNECTIONS = ("reset", "hang-up", "reset in the midst", "silence", "drip")
BROKEN_BODIES = ("truncated JSON", "garbled JSON", "shorter than announced")

FAULTS = (*REFUSALS, *BROKEN_CONNECTIONS, *BROKEN_BODIES, *BROKEN_ANSWERS)


class FaultyServer:
    """Serves on a loopback port until it is closed. `rate` and `kinds` may be changed at any time.

    rate: share of the answers that are faults. kinds: which faults, each as often as the others.
    seed: decides which request meets which. retry_after_s: pause that is asked for.
    hold_s: how long silence and drips last; longer than any client waits. service_s: time that a good answer takes.
    """

    def __init__(
        self,
        rate: float = 0.3,
        *,
        kinds: Sequence[str] = FAULTS,
        seed: int = 0,
        retry_after_s: float = 1.0,
        hold_s: float = 3600.0,
        service_s: float = 0.0,
        able: AbleServer | None = None,
    ) -> None:
        self.rate = rate
        self.kinds = tuple(kinds)
        self.requests = 0
        self.faults: Counter[str] = Counter()
        """How often each fault was met."""
        self.answered: Counter[str] = Counter()
        """How often each question (the last message of the prompt) was answered well."""
        self._seed, self._retry_after_s = seed, retry_after_s
        self._hold_s, self._service_s = hold_s, service_s
        self._able = able or AbleServer(alternatives=20)
        self._open: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._until_closed(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(10), "the server did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(timeout=10)

    @property
    def stats(self) -> dict[str, Any]:
        """What was asked and how it was answered."""
        good = self.answered.total()
        return {"requests": self.requests, "answered": good, "rate": self.rate, "faults": dict(self.faults)}

    async def _until_closed(self, ready: threading.Event) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        await self.listen(0)
        ready.set()
        await self._closing.wait()
        await self.close()

    async def listen(self, port: int) -> None:
        """Takes requests at a loopback port, 0 for a free one; `base_url` is there afterwards."""
        self._server = await asyncio.start_server(self._converse, "127.0.0.1", port, limit=MAX_REQUEST_BYTES)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def close(self) -> None:
        """Breaks off everything."""
        self._server.close()
        talks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await _read(reader):
                if not await self._reply(writer, *request):
                    break
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async def _reply(self, writer: asyncio.StreamWriter, target: str, content: bytes) -> bool:
        """Answers one request; returns whether the connection stays."""
        if target == "/stats":
            writer.write(_response(200, json.dumps(self.stats).encode()))
            return True
        if target == "/faults":
            self.rate = float(json.loads(content)["rate"])
            writer.write(_response(200, json.dumps(self.stats).encode()))
            return True
        number, self.requests = self.requests, self.requests + 1
        draw = random.Random(f"{self._seed}:{number}")
        body: dict[str, Any] = json.loads(content)
        chat = "chat" in target
        truth = self._able.complete(body, chat=chat, authorization="")
        if not isinstance(truth, dict):  # a field that the server does not take
            writer.write(_response(truth.status_code, bytes(truth.body)))
            return True
        if draw.random() < self.rate:
            fault = draw.choice(self.kinds)
            self.faults[fault] += 1
            return await self._fail(writer, fault, truth, draw)
        await asyncio.sleep(self._service_s)
        self.answered[body["messages"][-1]["content"] if chat else body["prompt"]] += 1
        writer.write(_response(200, json.dumps(truth).encode()))
        return True

    async def _fail(self, writer: asyncio.StreamWriter, fault: str, truth: Answer, draw: random.Random) -> bool:
        """Answers with a fault; returns whether the connection stays."""
        if fault in REFUSALS:
            writer.write(self._refusal(*REFUSALS[fault], draw))
            return True
        lie = opposite(truth)
        if fault in BROKEN_ANSWERS:
            writer.write(_response(200, json.dumps(BROKEN_ANSWERS[fault](truth, lie)).encode()))
            return True
        good = json.dumps(lie).encode()
        whole = _response(200, good)
        half = len(good) // 2
        match fault:
            case "truncated JSON":
                writer.write(_response(200, good[:-half]))
                return True
            case "garbled JSON":
                at = draw.randrange(len(good))
                noise = bytes(draw.randrange(0x80, 0x100) for _ in range(8))
                writer.write(_response(200, good[:at] + noise + good[at:]))
                return True
            case "shorter than announced":
                writer.write(whole[:-half])
                await writer.drain()
                writer.write_eof()
            case "hang-up":
                writer.write_eof()
            case "reset in the midst":
                writer.write(whole[:-half])
                await writer.drain()
            case "silence":
                await asyncio.sleep(self._hold_s)
            case "drip":
                await self._drip(writer, whole)
            case _:  # reset
                pass
        return False  # the transport is aborted: what is unsent is lost

    async def _drip(self, writer: asyncio.StreamWriter, whole: bytes) -> None:
        """Sends an answer byte by byte, so slowly that it never ends, and never waits as long as a read may take."""
        until = time.monotonic() + self._hold_s
        for number in range(len(whole) - 1):
            writer.write(whole[number : number + 1])
            await writer.drain()
            await asyncio.sleep(0.02)
            if time.monotonic() > until:
                return

    def _refusal(self, status: int, names_pause: bool, draw: random.Random) -> bytes:
        headers = {}
        if names_pause:
            date = email.utils.formatdate(time.time() + self._retry_after_s, usegmt=True)
            headers["retry-after"] = draw.choice((f"{self._retry_after_s:g}", date))
        return _response(status, json.dumps({"error": {"message": "Answer: yes"}}).encode(), **headers)


async def _read(reader: asyncio.StreamReader) -> tuple[str, bytes] | None:
    """Returns target and body of the next request, None if there is none."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    length = re.search(r"^content-length: *(\d+)", head, re.MULTILINE | re.IGNORECASE)
    body = await reader.readexactly(min(int(length[1]), MAX_REQUEST_BYTES)) if length else b""
    return head.split(" ", 2)[1], body


def _response(status: int, body: bytes, **headers: str) -> bytes:
    fields = {"content-type": "application/json", "content-length": str(len(body))} | headers
    lines = [f"HTTP/1.1 {status} -", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def _serve(options: argparse.Namespace) -> None:
    server = FaultyServer(
        options.rate,
        kinds=options.kinds,
        seed=options.seed,
        retry_after_s=options.retry_after,
        hold_s=options.hold,
        service_s=options.service,
    )
    await server.listen(options.port)
    sys.stdout.write(json.dumps({"base_url": server.base_url}) + "\n")
    sys.stdout.flush()
    await asyncio.sleep(options.lifetime)
    await server.close()


def main() -> None:
    """Serves until it is ended, an hour at most; prints its address as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (default)")
    parser.add_argument("--rate", type=float, default=0.3, help="share of the answers that are faults")
    parser.add_argument("--kinds", nargs="+", choices=FAULTS, default=FAULTS, metavar="FAULT", help=", ".join(FAULTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--retry-after", type=float, default=1.0, metavar="S", help="pause that Retry-After asks for")
    parser.add_argument("--hold", type=float, default=3600.0, metavar="S", help="how long silence and drips last")
    parser.add_argument("--service", type=float, default=0.0, metavar="S", help="time that a good answer takes")
    parser.add_argument("--lifetime", type=float, default=3600.0, metavar="S")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
