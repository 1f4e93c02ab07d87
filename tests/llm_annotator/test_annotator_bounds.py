"""However much is offered, and whatever the server makes of it, the engine keeps a bounded number of captions."""

import asyncio
from pathlib import Path

import pytest
from told_engine import Bench, ToldBackend, play, run_with, settle

from llm_annotator.annotator import Annotator, NotReady
from llm_annotator.backends import create_backend
from llm_annotator.config import AnnotatorConfig, BackendConfig, EngineConfig, LabelerConfig
from llm_annotator.errors import BackendAnswerInvalid, BackendError, BackendUnreachable
from llm_annotator.labeler import resolve_labeler
from llm_annotator.store import Store
from llm_annotator.types import LabelStatus

SMALL = EngineConfig(max_queue=20, max_attempts=3, backoff_s=8.0, max_backoff_s=8.0)


@pytest.mark.parametrize("error", [BackendAnswerInvalid("half a line"), BackendUnreachable("nothing answers")])
def test_a_server_that_answers_nothing_fills_no_memory(error: BackendError) -> None:
    """New captions never end; those that wait for their next attempt are asked again before new ones are."""

    async def scene() -> None:
        backend = ToldBackend(lambda caption, times: error, max_concurrent=4)
        bench = Bench(backend, config=SMALL)
        most = 0

        async def act() -> None:
            nonlocal most
            for number in range(400):
                bench.offer(*(b"%d %d" % (number, i) for i in range(5)))
                await bench.clock.advance(0.25)
                most = max(most, bench.counts.queued + bench.counts.in_flight)
            assert len(bench.engine._open) == bench.counts.queued + bench.counts.in_flight
            assert most <= 2 * SMALL.max_queue + backend.max_concurrent
            assert bench.counts.dropped > 1000
            if isinstance(error, BackendAnswerInvalid):
                assert bench.counts.failed > 50, "attempts come to an end meanwhile"

        await run_with(bench, act)

    play(scene)


def test_captions_that_wait_for_another_attempt_let_new_ones_pass_while_there_is_room() -> None:
    async def scene() -> None:
        backend = ToldBackend(lambda caption, _: BackendAnswerInvalid("?") if caption.startswith(b"bad") else " yes")
        bench = Bench(backend, config=SMALL)
        bench.offer(*(b"bad %d" % i for i in range(10)))

        async def act() -> None:
            assert bench.counts.queued == 10
            bench.offer(*(b"good %d" % i for i in range(20)))
            await settle()
            statuses = [status for status, _ in bench.outcomes().values()]
            assert statuses == [LabelStatus.LABELLED] * 20
            await bench.clock.advance(20.0)
            assert bench.counts.failed == 10
            assert not bench.engine._open

        await run_with(bench, act)

    play(scene)


def test_until_something_can_be_asked_there_is_always_a_reason(tmp_path: Path) -> None:
    """Also in the moment in which the server is open, and the account of the store is still being read."""
    config = AnnotatorConfig(backend=BackendConfig(kind="scripted"))
    annotator = Annotator(Store(tmp_path / "s.sqlite"), config, create_backend)
    spec = resolve_labeler(LabelerConfig(goal="open the box"))

    async def scene() -> None:
        said: set[str] = set()
        async with annotator.running():
            while annotator.engine is None:
                with pytest.raises(NotReady) as caught:
                    await annotator.register("run", "run", {}, spec)
                said.add(str(caught.value))
                await asyncio.sleep(0)
        assert said == {"The annotator is opening its LLM."}

    play(scene)
