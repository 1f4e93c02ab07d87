"""An engine on a clock that the test moves, with backends that behave as told."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from llm_annotator.budget import NOTHING, Budget
from llm_annotator.config import BackendConfig, EngineConfig, LabelerConfig
from llm_annotator.endpoints import Endpoint
from llm_annotator.engine import Engine
from llm_annotator.labeler import Labeler, resolve_labeler
from llm_annotator.pool import Pool
from llm_annotator.store import AnnotationRecord
from llm_annotator.store.spending import Spent
from llm_annotator.types import Completion, LabelStatus, Request

CONFIG = EngineConfig(max_queue=100, max_attempts=3, backoff_s=1.0, max_backoff_s=8.0)


class FakeClock:
    """Time that stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        if seconds > 0:
            future = asyncio.get_running_loop().create_future()
            self._sleepers.append((self.now + seconds, future))
            await future

    async def advance(self, seconds: float) -> None:
        """Lets time pass in steps of a quarter second; everything that is due gets to run."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + 0.25, end)
            for item in [item for item in self._sleepers if item[0] <= self.now]:
                self._sleepers.remove(item)
                if not item[1].done():
                    item[1].set_result(None)
            await settle()


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


class ToldBackend:
    """Answers what `reply` says: an exception to raise, or the answer's text; waits while `hold` is not set."""

    name = "told"
    model = "told-1"

    def __init__(self, reply: Callable[[bytes, int], Exception | str], *, max_concurrent: int = 1) -> None:
        self.max_concurrent = max_concurrent
        self.asked: list[bytes] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.hold = asyncio.Event()
        self.hold.set()
        self._reply = reply
        self._times: Counter[bytes] = Counter()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def complete(self, request: Request) -> Completion:
        self.asked.append(request.captions[0])
        self._times[request.captions[0]] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.hold.wait()
        finally:
            self.in_flight -= 1
        reply = self._reply(request.captions[0], self._times[request.captions[0]])
        if isinstance(reply, Exception):
            raise reply
        return Completion(
            sent_prefix=request.text_prefix,
            sent_suffix=request.text_suffix,
            text=reply,
            logprobs=None,
            model=self.model,
            tokens_in=9,
            tokens_out=1,
            latency_s=0.5,
        )


class Bench:
    """An engine that runs, with its clock, and what it has handed on."""

    def __init__(
        self,
        *backends: Any,
        config: EngineConfig = CONFIG,
        prices: BackendConfig = BackendConfig(),
        spent: Spent = NOTHING,
    ) -> None:
        self.clock = FakeClock()
        self.records: list[AnnotationRecord] = []
        self.labeler = Labeler(resolve_labeler(LabelerConfig()), backends[0].model)
        self.sink_error: Exception | None = None
        endpoints = [
            Endpoint(f"server {i}", config, clock=self.clock, draw=lambda: 1.0, backend=backend)
            for i, backend in enumerate(backends)
        ]
        self.engine = Engine(
            Pool(endpoints),
            config,
            self._keep,
            budget=Budget(config, prices, spent),
            clock=self.clock,
            wall_clock=lambda: 1e9 + self.clock.now,
            sleep=self.clock.sleep,
            draw=lambda: 1.0,
            redact=lambda text: text.replace("sk-secret", "***"),
        )
        self._ids = itertools.count(1)
        self._known: dict[bytes, int] = {}

    async def _keep(self, record: AnnotationRecord) -> None:
        if self.sink_error is not None:
            raise self.sink_error
        self.records.append(record)

    def offer(self, *captions: bytes, run_id: str = "run", older: bool = False) -> tuple[int, int]:
        pairs = [(self._known.setdefault(c, len(self._known)), c) for c in captions]
        return self.engine.offer(self.labeler, pairs, run_id=run_id, older=older)

    @property
    def counts(self) -> Any:
        return self.engine.tally.counts(self.labeler.id)

    def outcomes(self) -> dict[bytes, tuple[LabelStatus, bool | None]]:
        texts = {key: caption for caption, key in self._known.items()}
        return {texts[record.caption_id]: (record.status, record.helpful) for record in self.records}


def play(scene: Callable[[], Awaitable[None]]) -> None:
    """Runs a test's scene on an event loop."""

    async def whole() -> None:
        async with asyncio.timeout(20):
            await scene()

    asyncio.run(whole())


async def run_with(bench: Bench, scene: Callable[[], Awaitable[None]]) -> None:
    task = asyncio.create_task(bench.engine.run())
    try:
        await settle()
        await scene()
        assert not task.done(), "the engine must go on whatever happens"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
