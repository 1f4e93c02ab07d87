"""What is asked in the foreground costs as much as what a service asks: budgets are obeyed, and it is counted."""

import asyncio
import sqlite3
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from llm_annotator.annotator import Annotator
from llm_annotator.askagain import AskAgain
from llm_annotator.backends import create_backend
from llm_annotator.backends.scripted import ScriptedBackend, ScriptedOptions
from llm_annotator.budget import Budget
from llm_annotator.config import AnnotatorConfig, BackendConfig, EngineConfig, LabelerConfig
from llm_annotator.errors import BackendError, BudgetUsedUp
from llm_annotator.labeler import Labeler, resolve_labeler
from llm_annotator.paid import PaidBackend
from llm_annotator.relabel import relabel
from llm_annotator.store import Store
from llm_annotator.store.spending import Spent
from llm_annotator.storethread import StoreThread
from llm_annotator.types import Completion, Request

CAPTIONS = [b"caption %d" % number for number in range(6)]
BACKEND = BackendConfig(kind="scripted", options={"helpful_pattern": "[024]"}, price_in=10.0, price_out=10.0)
SPEC = resolve_labeler(LabelerConfig(threshold=0.0))
REQUEST = Labeler(SPEC, "m").request(CAPTIONS[0])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store that has cost 10 requests already."""
    with Store(tmp_path / "s.sqlite") as store:
        store.add_spent("other", Spent(10, 0, 0, 0.0))
    return tmp_path / "s.sqlite"


def spent(path: Path) -> Spent:
    with Store(path) as store:
        return store.spent()


def ask(path: Path, **engine: float) -> int:
    """Relabels all captions, until a budget ends; returns how many were answered."""
    config = AnnotatorConfig(backend=BACKEND, engine=EngineConfig(**engine))  # pyright: ignore[reportArgumentType]
    asked = 0

    async def scene() -> None:
        nonlocal asked
        async with asyncio.timeout(20), create_backend(BACKEND) as backend, StoreThread(path) as store:
            async for progress in relabel(store, Labeler(SPEC, backend.model), backend, CAPTIONS, config):
                asked = progress.asked

    with suppress(BudgetUsedUp):
        asyncio.run(scene())
    return asked


def test_a_relabelling_is_counted(path: Path) -> None:
    assert ask(path) == 6
    requests, tokens_in, tokens_out, cost = spent(path)
    assert requests == 16
    assert tokens_in > tokens_out > 0
    assert cost == pytest.approx((tokens_in + tokens_out) * 1e-5)


def test_a_relabelling_stops_where_the_budget_ends_and_goes_on_when_it_is_raised(path: Path) -> None:
    assert ask(path, max_requests=10) == 0
    assert ask(path, max_requests=14) == 4
    assert spent(path).requests == 14
    assert ask(path, max_requests=20) == 2
    assert spent(path).requests == 16
    assert ask(path, max_requests=16) == 0, "nothing is left to ask, so nothing is used up"


def test_tokens_and_money_are_budgets_too(path: Path) -> None:
    assert ask(path, max_tokens=1) == 1, "what the first one costs nobody knows before"
    one = spent(path)
    tokens = one.tokens_in + one.tokens_out
    assert ask(path, max_tokens=3.5 * tokens) == 2
    assert ask(path, max_cost=4.5 * one.cost) == 1
    assert spent(path).requests == 14


class Slow(ScriptedBackend):
    """Answers, or fails, when it is told to."""

    def __init__(self) -> None:
        super().__init__(ScriptedOptions())
        self.asked = 0
        self.error: BackendError | None = None
        self.may_answer = asyncio.Event()

    async def complete(self, request: Request) -> Completion:
        self.asked += 1
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return await super().complete(request)


def test_questions_wait_for_those_under_way_and_take_the_place_of_those_that_cost_nothing() -> None:
    async def scene() -> None:
        slow, budget = Slow(), Budget(EngineConfig(max_requests=2), BackendConfig())
        slow.error = BackendError("nobody there")
        slow.error.may_cost = False
        paid = PaidBackend(slow, budget)
        asking = [asyncio.create_task(paid.complete(REQUEST)) for _ in range(2)]
        await asyncio.sleep(0)
        assert slow.asked == 2
        slow.may_answer.set()
        assert all(isinstance(found, BackendError) for found in await asyncio.gather(*asking, return_exceptions=True))
        assert budget.spent.requests == 0
        slow.error = None
        assert [bool((await paid.complete(REQUEST)).text) for _ in range(2)] == [True, True]
        with pytest.raises(BudgetUsedUp, match=r"the budget of 2 requests \(engine.max_requests\) is used up"):
            await paid.complete(REQUEST)
        assert slow.asked == 4

    asyncio.run(scene())


def test_the_second_question_waits_until_it_is_known_what_the_first_one_cost() -> None:
    async def scene() -> None:
        slow, budget = Slow(), Budget(EngineConfig(max_tokens=10**6), BackendConfig())
        paid = PaidBackend(slow, budget)
        asking = [asyncio.create_task(paid.complete(REQUEST)) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert slow.asked == 1
        slow.may_answer.set()
        await asyncio.gather(*asking)
        assert (slow.asked, budget.spent.requests) == (3, 3)

    asyncio.run(scene())


def test_a_question_that_is_broken_off_is_counted() -> None:
    async def scene() -> None:
        budget = Budget(EngineConfig(max_requests=1), BackendConfig())
        paid = PaidBackend(Slow(), budget)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(paid.complete(REQUEST), 0.01)
        with pytest.raises(BudgetUsedUp):
            await paid.complete(REQUEST)

    asyncio.run(scene())


def again(path: Path, config: AnnotatorConfig) -> tuple[AskAgain, str]:
    labeler = Labeler(SPEC, create_backend(BACKEND).model)
    with Store(path) as store:
        store.add_labeler(labeler.id, SPEC.to_wire(), labeler.model)
        store.intern(CAPTIONS)
    return AskAgain(path, lambda: config), labeler.id


def test_asking_again_is_counted_and_stops_where_the_budget_ends(path: Path) -> None:
    config = AnnotatorConfig(backend=BACKEND, engine=EngineConfig(max_requests=12))
    asking, labeler_id = again(path, config)
    for _ in range(2):
        asyncio.run(asking.ask(1, labeler_id))
    with pytest.raises(BudgetUsedUp, match="12 requests"):
        asyncio.run(asking.ask(1, labeler_id))
    assert spent(path).requests == 12
    raised = AskAgain(path, lambda: replace(config, engine=EngineConfig(max_requests=13)))
    assert asyncio.run(raised.ask(1, labeler_id)) == labeler_id


def test_asking_again_holds_up_nobody_while_another_process_writes(path: Path) -> None:
    asking, labeler_id = again(path, AnnotatorConfig(backend=BACKEND))

    async def scene() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answering = asyncio.create_task(asking.ask(1, labeler_id))
            await asyncio.sleep(0.2)  # were SQLite to wait on this thread, the lock would not be given back in time
            assert not answering.done()
            other.execute("ROLLBACK")
        async with asyncio.timeout(10):
            assert await answering == labeler_id

    asyncio.run(scene())


def test_a_service_hears_what_others_spent() -> None:
    budget = Budget(EngineConfig(max_requests=10), BackendConfig(), Spent(requests=4))
    budget.begin()
    assert budget.take_unsaved() == Spent(requests=1)
    budget.begin()  # while the first one is being saved
    budget.saved(Spent(requests=4 + 1 + 3))
    assert (budget.spent, budget.take_unsaved()) == (Spent(requests=9), Spent(requests=1))


def test_a_service_stops_where_others_have_used_up_the_budget(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_annotator.annotator.UPKEEP_S", 0.05)
    config = AnnotatorConfig(backend=BACKEND, engine=EngineConfig(max_requests=16))

    async def scene() -> None:
        annotator = Annotator(Store(path), config, create_backend)
        async with asyncio.timeout(20), annotator.running():
            while annotator.problem:
                await asyncio.sleep(0.005)
            labeler_id, _, _ = await annotator.register("run", "run", {}, SPEC)
            with Store(path) as other:
                other.add_spent("other", Spent(5, 0, 0, 0.0))
            await annotator.offer("run", labeler_id, [CAPTIONS[0]])
            while "the budget of 16 requests" not in annotator.problem:
                await asyncio.sleep(0.01)

    asyncio.run(scene())
    assert spent(path).requests == 16
