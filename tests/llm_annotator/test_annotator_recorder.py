"""The recorder and the annotator around it: stores that fill up, backends that come late."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from llm_annotator import recorder as module
from llm_annotator.annotator import Annotator, NotReady, Unregistered
from llm_annotator.backends.scripted import ScriptedBackend, ScriptedOptions
from llm_annotator.config import AnnotatorConfig, BackendConfig, EngineConfig, LabelerConfig
from llm_annotator.errors import BackendUnreachable, ConfigError
from llm_annotator.labeler import resolve_labeler
from llm_annotator.recorder import Recorder
from llm_annotator.store import AnnotationRecord, Store, StoreReader
from llm_annotator.types import LabelStatus

SPEC = resolve_labeler(LabelerConfig(goal="open the box"))


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20):
            await scene()

    asyncio.run(whole())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def record(caption_id: int, **fields: Any) -> AnnotationRecord:
    values: dict[str, Any] = {
        "labeler_id": "judge",
        "caption_id": caption_id,
        "status": LabelStatus.LABELLED,
        "helpful": True,
        "p_helpful": None,
        "score": None,
        "prompt_prefix": "prefix",
        "prompt_suffix": "s" * 2000,
        "answer": " yes",
        "logprobs": None,
        "model": "m",
        "backend": "b",
        "tokens_in": None,
        "tokens_out": None,
        "latency_s": None,
        "attempts": 1,
        "detail": "",
        "created_at": 1.0,
    }
    return AnnotationRecord(**(values | fields))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store(tmp_path / "annotations.sqlite")
    opened.add_labeler("judge", {}, "m")
    opened.intern([b"%d" % i for i in range(100)])
    return opened


def test_a_full_disk_holds_labels_back_and_loses_none(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.02)

    async def scene() -> None:
        commits: list[int] = []
        recorder = Recorder(store, on_commit=lambda: commits.append(1))
        running = asyncio.create_task(recorder.run())
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        await recorder.call(lambda s: s._connection.execute(f"PRAGMA max_page_count = {pages}"))
        adding = [asyncio.create_task(recorder.add(record(key))) for key in range(1, 51)]
        await until(lambda: "disk" in recorder.problem)
        assert not any(task.done() for task in adding), "not acknowledged before it is committed"
        assert commits == []
        await recorder.call(lambda s: s._connection.execute("PRAGMA max_page_count = 100000"))
        await asyncio.gather(*adding)
        assert recorder.problem == ""
        recorder.stop()
        await running
        await recorder.close()

    play(scene)
    with StoreReader(store.path) as reader:
        assert reader.totals().annotations == 50


def test_one_record_that_cannot_be_kept_does_not_take_others_with_it(store: Store) -> None:
    async def scene() -> None:
        recorder = Recorder(store, on_commit=lambda: None)
        wrong = {2: record(2, helpful=None), 4: record(4, logprobs={"a": object()})}
        adding = [asyncio.create_task(recorder.add(wrong.get(key, record(key)))) for key in range(1, 6)]
        await asyncio.sleep(0)
        running = asyncio.create_task(recorder.run())
        results = await asyncio.gather(*adding, return_exceptions=True)
        assert [type(result) for result in results] == [
            type(None),
            sqlite3.IntegrityError,
            type(None),
            TypeError,
            type(None),
        ]
        recorder.stop()
        await running
        await recorder.close()

    play(scene)
    with StoreReader(store.path) as reader:
        assert reader.totals().annotations == 3


def test_stopping_writes_what_is_left(store: Store) -> None:
    async def scene() -> None:
        recorder = Recorder(store, on_commit=lambda: None)
        adding = asyncio.create_task(recorder.add(record(1)))
        await asyncio.sleep(0)
        recorder.stop()
        await recorder.run()
        await recorder.close()
        await adding

    play(scene)
    with StoreReader(store.path) as reader:
        assert reader.totals().annotations == 1


class _LateBackend(ScriptedBackend):
    """Cannot be opened the first `failures` times, and breaks down when told to."""

    failures: list[Exception] = []

    async def __aenter__(self) -> Self:
        if self.failures:
            raise self.failures.pop(0)
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def late(*failures: Exception) -> Callable[[BackendConfig], ScriptedBackend]:
    waiting = list(failures)

    def open_backend(_: BackendConfig) -> ScriptedBackend:
        backend = _LateBackend(ScriptedOptions())
        backend.failures = waiting
        return backend

    return open_backend


def test_a_backend_that_comes_late_is_awaited_and_said_to_be(tmp_path: Path) -> None:
    async def scene() -> None:
        config = AnnotatorConfig(engine=EngineConfig(backoff_s=0.3, max_backoff_s=0.3))  # each is seen
        failures = [BackendUnreachable("no server yet"), ConfigError("no such file: model.gguf"), OSError("odd")]
        annotator = Annotator(Store(tmp_path / "s.sqlite"), config, late(*failures))
        async with annotator.running():
            for word in ("no server yet", "model.gguf", "odd"):
                await until(lambda word=word: word in annotator.problem)
                with pytest.raises(NotReady, match=word):
                    await annotator.register("run", "run", {}, SPEC)
            await until(lambda: annotator.problem == "")
            labeler_id, cursor, _ = await annotator.register("run", "run", {}, SPEC)
            reply = await annotator.offer("run", labeler_id, [b"You open the box"])
            assert (reply.known, reply.offer.accepted) == ([], 1)
            updates, later = await annotator.labels(labeler_id, cursor, 10.0)
            assert [(update.caption, update.helpful) for update in updates] == [(b"You open the box", True)]
            assert later > cursor
            assert (await annotator.offer("run", labeler_id, [b"You open the box"])).known == updates
            with pytest.raises(Unregistered):
                await annotator.offer("another run", labeler_id, [])
            with pytest.raises(Unregistered):
                await annotator.labels("another labeler", 0, 0.0)

    play(scene)


def test_waiting_polls_end_when_the_annotator_stops(tmp_path: Path) -> None:
    async def scene() -> None:
        annotator = Annotator(Store(tmp_path / "s.sqlite"), AnnotatorConfig(), late())
        async with annotator.running():
            await until(lambda: annotator.problem == "")
            labeler_id, cursor, _ = await annotator.register("run", "run", {}, SPEC)
            poll = asyncio.create_task(annotator.labels(labeler_id, cursor, 30.0))
            await asyncio.sleep(0.02)
            assert not poll.done()
            annotator.stop_waiting()
            assert await poll == ([], cursor)

    play(scene)
