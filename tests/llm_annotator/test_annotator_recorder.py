"""The recorder and the annotator around it: stores that fill up, backends that come late."""

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from llm_annotator import annotator as annotator_module
from llm_annotator import recorder as module
from llm_annotator.annotator import Annotator, NotReady, Unregistered
from llm_annotator.backends.scripted import ScriptedBackend, ScriptedOptions
from llm_annotator.config import AnnotatorConfig, BackendConfig, EngineConfig, LabelerConfig
from llm_annotator.errors import BackendUnreachable, ConfigError
from llm_annotator.labeler import resolve_labeler
from llm_annotator.recorder import Recorder
from llm_annotator.store import AnnotationRecord, Store, StoreReader
from llm_annotator.store.spending import Spent
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


def test_a_value_that_sqlite_does_not_know_jams_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.02)

    async def scene() -> None:
        recorder = Recorder(store, on_commit=lambda: None)
        running = asyncio.create_task(recorder.run())
        wrong = {
            2: record(2, latency_s=timedelta(seconds=1)),
            4: record(4, tokens_in=2**64),
            6: record(6, answer="\ud800", detail="\x00"),  # odd, but it can be kept
        }
        adding = [asyncio.create_task(recorder.add(wrong.get(key, record(key)))) for key in range(1, 8)]
        results = await asyncio.gather(*adding, return_exceptions=True)
        assert [key for key, result in enumerate(results, 1) if result is not None] == [2, 4]
        assert isinstance(results[3], OverflowError)
        assert recorder.problem == ""
        recorder.stop()
        await running
        await recorder.close()

    play(scene)
    with StoreReader(store.path) as reader:
        assert reader.totals().annotations == 5


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


async def labelled(annotator: Annotator, *captions: bytes) -> str:
    await until(lambda: annotator.problem == "")
    labeler_id, cursor, _ = await annotator.register("run", "run", {}, SPEC)
    await annotator.offer("run", labeler_id, captions)
    open_ones = set(captions)
    while open_ones:
        updates, cursor = await annotator.labels(labeler_id, cursor, 1.0)
        open_ones -= {update.subject for update in updates}
    return labeler_id


def test_an_account_that_cannot_be_stored_ends_neither_the_upkeep_nor_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(annotator_module, "UPKEEP_S", 0.01)
    far_too_much = Spent(requests=2**70)  # more than any column holds

    async def scene() -> None:
        annotator = Annotator(Store(tmp_path / "s.sqlite"), AnnotatorConfig(), late())
        async with annotator.running():
            await labelled(annotator, b"one", b"two")
            assert annotator.engine is not None
            budget = annotator.engine.budget
            budget.give_back(far_too_much)
            await until(lambda: "cannot be added to the account" in caplog.text)
            await asyncio.sleep(0.1)
            assert caplog.text.count("cannot be added to the account") == 1, "said once"
            budget.give_back(Spent(requests=-far_too_much.requests))
            await asyncio.sleep(0.1)
            assert not any(budget.take_unsaved()), "the upkeep goes on"
            budget.give_back(far_too_much)

    play(scene)
    with Store(tmp_path / "s.sqlite") as store:
        assert store.spent().requests == 2


def test_what_was_spent_is_stored_even_if_its_storing_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that ends cancels its upkeep, which may wait for a store that is busy with something else."""
    monkeypatch.setattr(annotator_module, "UPKEEP_S", 0.01)
    free = threading.Event()

    async def scene() -> None:
        annotator = Annotator(Store(tmp_path / "s.sqlite"), AnnotatorConfig(), late())
        async with annotator.running():
            await labelled(annotator, b"one", b"two")
            assert annotator.engine is not None
            busy = asyncio.create_task(annotator._recorder.call(lambda _: free.wait(10)))
            await asyncio.sleep(0)
            budget = annotator.engine.budget
            budget.give_back(Spent(tokens_in=500))
            await asyncio.sleep(0.1)
            assert not any(budget.take_unsaved()), "it waits for the store"
            asyncio.get_running_loop().call_later(0.1, free.set)
        await busy

    play(scene)
    with Store(tmp_path / "s.sqlite") as store:
        assert store.spent().requests == 2
        assert store.spent().tokens_in >= 500


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
