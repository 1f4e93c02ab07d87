"""An OpenAI-compatible server of known capacity: so many slots, each busy for a fixed time with one request.

What comes while all slots are busy waits in a queue, or with --refuse is refused (429). GET /stats tells what it saw.
It is written for little overhead: it parses what HTTP clients really send, and no more.
"""

import argparse
import asyncio
import json
import random
import time
from collections import deque
from collections.abc import Callable

_ALTERNATIVES = [{"token": " yes", "logprob": -0.2}, {"token": " no", "logprob": -2.0}] + [
    {"token": f" word{i}", "logprob": -3.0 - i} for i in range(18)
]
_CHOICE = {
    "index": 0,
    "finish_reason": "length",
    "text": " yes",
    "message": {"role": "assistant", "content": " yes"},
    "logprobs": {"content": [{**_ALTERNATIVES[0], "top_logprobs": _ALTERNATIVES}]},
}
_USAGE = {"prompt_tokens": 120, "completion_tokens": 1, "total_tokens": 121}


def _response(status: str, body: dict[str, object]) -> bytes:
    content = json.dumps(body).encode()
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    ).encode() + content


_ANSWER = _response(
    "200 OK", {"id": "x", "object": "x", "created": 1, "model": "known", "choices": [_CHOICE], "usage": _USAGE}
)
_BUSY = _response("429 Too Many Requests", {"error": {"message": "all slots are busy"}})


class Slots:
    """The capacity, and what was seen."""

    def __init__(self, number: int, seconds: float, *, refuse: bool, jitter: float) -> None:
        self._number = number
        self._seconds = seconds
        self._refuse = refuse
        self._jitter = jitter
        self._random = random.Random(0)  # noqa: S311 - varies service times, no secret
        self._busy = 0
        self._busy_s, self._changed_at = 0.0, time.perf_counter()
        self._waiting: deque[tuple[Callable[[bytes], None], float]] = deque()
        self.served = self.refused = 0
        self.waited_s = 0.0

    def take(self, reply: Callable[[bytes], None]) -> None:
        """Serves a request, now or when a slot is free."""
        if self._busy < self._number:
            self._serve(reply)
        elif self._refuse:
            self.refused += 1
            reply(_BUSY)
        else:
            self._waiting.append((reply, time.perf_counter()))

    def _serve(self, reply: Callable[[bytes], None]) -> None:
        self._count(1)
        seconds = self._seconds * (1.0 + self._jitter * self._random.uniform(-1.0, 1.0))
        asyncio.get_running_loop().call_later(seconds, self._done, reply)

    def _done(self, reply: Callable[[bytes], None]) -> None:
        self._count(-1)
        self.served += 1
        if self._waiting:
            later, since = self._waiting.popleft()
            self.waited_s += time.perf_counter() - since
            self._serve(later)
        reply(_ANSWER)

    def _count(self, change: int) -> None:
        now = time.perf_counter()
        self._busy_s += self._busy * (now - self._changed_at)
        self._busy, self._changed_at = self._busy + change, now

    def stats(self) -> dict[str, object]:
        """Returns what was seen so far."""
        self._count(0)
        return {
            "served": self.served,
            "refused": self.refused,
            "waited_s": self.waited_s,
            "busy_s": self._busy_s,
            "at": self._changed_at,
        }


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Takes requests as they come in."""
        self._unread += data
        while (end := self._unread.find(b"\r\n\r\n")) >= 0:
            head = self._unread[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._unread) < end + 4 + length:
                return
            self._unread = self._unread[end + 4 + length :]
            if head.startswith(b"get /stats"):
                self._transport.write(_response("200 OK", self._slots.stats()))
            else:
                self._slots.take(self._reply)

    def _reply(self, response: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(response)


async def _serve(options: argparse.Namespace) -> None:
    slots = Slots(options.slots, options.seconds, refuse=options.refuse, jitter=options.jitter)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(slots), "127.0.0.1", 0, backlog=1024)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await asyncio.sleep(options.lifetime)


def main() -> None:
    """Serves until it is ended, an hour at most; prints its port as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="that one request takes")
    parser.add_argument("--jitter", type=float, default=0.0, help="share by which that varies")
    parser.add_argument("--refuse", action="store_true", help="answer 429 where all slots are busy")
    parser.add_argument("--lifetime", type=float, default=3600.0)
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
