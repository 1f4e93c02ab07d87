"""What asking may cost, and how fast."""

import sqlite3
from pathlib import Path

import pytest
from told_engine import Bench, FakeClock, ToldBackend, play, run_with

from llm_annotator.budget import NOTHING, Budget, Pace, check_budget
from llm_annotator.config import AnnotatorConfig, BackendConfig, EngineConfig, LabelerConfig
from llm_annotator.errors import BackendError, BackendOverloaded, BackendRejected, BackendUnreachable, ConfigError
from llm_annotator.labeler import resolve_labeler
from llm_annotator.settings import check_settings
from llm_annotator.store import Store
from llm_annotator.store.schema import MIGRATIONS
from llm_annotator.store.spending import SPENDING, Spent
from llm_annotator.types import Completion

REQUEST = resolve_labeler(LabelerConfig()).request(b"You see a key.")
PRICES = BackendConfig(price_in=2.0, price_out=10.0)


def completion(tokens_in: int | None, tokens_out: int | None) -> Completion:
    return Completion(
        sent_prefix="",
        sent_suffix="",
        text="y" * 40,
        logprobs=None,
        model="m",
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        latency_s=0.1,
    )


def ask(budget: Budget, tokens_in: int | None = 100, tokens_out: int | None = 10) -> Spent:
    budget.begin()
    return budget.end(REQUEST, completion(tokens_in, tokens_out))


def captions(number: int) -> list[bytes]:
    return [b"%d" % i for i in range(number)]


def test_tokens_and_money_are_counted() -> None:
    budget = Budget(EngineConfig(), PRICES)
    assert ask(budget) == Spent(0, 100, 10, pytest.approx(0.0003))
    ask(budget)
    assert budget.spent == Spent(2, 200, 20, pytest.approx(0.0006))
    assert budget.is_open
    assert budget.left_share is None


def test_a_server_that_does_not_count_is_counted_for() -> None:
    budget = Budget(EngineConfig(), PRICES)
    spent = ask(budget, None, None)
    assert spent.tokens_in == len(REQUEST.text_prefix + REQUEST.text_suffix) // 4
    assert spent.tokens_out == 10


def test_a_limit_of_requests_is_never_passed() -> None:
    budget = Budget(EngineConfig(max_requests=3), PRICES)
    for _ in range(3):
        assert budget.is_open
        budget.begin()
    assert not budget.is_open
    assert budget.exhausted == "", "those under way may still come to nothing"
    budget.give_up()
    assert budget.is_open, "one that did not go out costs nothing"
    budget.begin()
    for _ in range(3):
        budget.end(REQUEST, completion(100, 10))
    assert not budget.is_open
    assert budget.exhausted == "the budget of 3 requests (engine.max_requests)"


def test_those_under_way_are_counted_as_they_will_probably_come_out() -> None:
    budget = Budget(EngineConfig(max_tokens=1000), BackendConfig())
    budget.begin()
    assert not budget.is_open, "what one takes is not known: one goes out to find out"
    assert budget.exhausted == ""
    budget.end(REQUEST, completion(90, 10))
    for _ in range(9):
        assert budget.is_open
        budget.begin()
    assert not budget.is_open
    assert budget.exhausted == "", "900 under way may still fail"
    for _ in range(9):
        budget.end(REQUEST, completion(90, 10))
    assert budget.exhausted == "the budget of 1000 tokens (engine.max_tokens)"
    assert budget.left == {"tokens": 0.0}
    assert budget.left_share == 0.0


def test_a_limit_of_money_needs_prices() -> None:
    engine = EngineConfig(max_cost=5.0)
    for prices in (BackendConfig(), BackendConfig(price_in=1.0)):
        with pytest.raises(ConfigError, match=r"max_cost \(5\).*price_in.*price_out"):
            check_settings(AnnotatorConfig(backend=prices, engine=engine))
    check_budget(engine, BackendConfig(price_in=0.0, price_out=1.0))
    budget = Budget(EngineConfig(max_cost=0.001), PRICES, Spent(10, 0, 0, 0.0008))
    assert budget.is_open
    ask(budget)
    assert "0.001 money" in budget.exhausted


def test_what_was_spent_before_counts() -> None:
    budget = Budget(EngineConfig(max_requests=10, max_tokens=1000), BackendConfig(), Spent(9, 900, 50, 0.0))
    assert budget.left == {"requests": 1, "tokens": 50}
    assert budget.left_share == pytest.approx(0.05)
    assert "max_tokens" in budget.exhausted, "one more takes about a hundred"


def test_the_engine_stops_asking_and_says_so() -> None:
    async def scene() -> None:
        backend = ToldBackend(lambda caption, _: "yes", max_concurrent=4)
        bench = Bench(backend, config=EngineConfig(max_requests=7))
        bench.offer(*captions(20))

        async def act() -> None:
            await bench.clock.advance(60)
            assert len(backend.asked) == len(bench.records) == 7
            assert bench.counts.queued == 13
            assert "budget of 7 requests" in bench.engine.problem
            assert bench.engine.exhausted
            bench.offer(b"another")
            await bench.clock.advance(60)
            assert len(backend.asked) == 7

        await run_with(bench, act)

    play(scene)


def broken_off() -> BackendUnreachable:
    error = BackendUnreachable("reset by peer")
    error.may_cost = True
    return error


def test_requests_that_fail_on_the_way_cost_too() -> None:
    async def scene() -> None:
        backend = ToldBackend(lambda *_: broken_off())
        bench = Bench(backend, config=EngineConfig(max_requests=3, backoff_s=1.0))
        bench.offer(b"a")

        async def act() -> None:
            await bench.clock.advance(600)
            assert len(backend.asked) == 3
            assert bench.records == [], "and fail no caption: it is asked about when there is money again"
            assert bench.counts.queued == 1

        await run_with(bench, act)

    play(scene)


@pytest.mark.parametrize("error", [BackendUnreachable, BackendOverloaded, BackendRejected])
def test_requests_that_nobody_took_up_cost_nothing(error: type[BackendError]) -> None:
    async def scene() -> None:
        down = True
        backend = ToldBackend(lambda *_: error("down") if down else "yes", max_concurrent=2)
        bench = Bench(backend, config=EngineConfig(max_requests=3, max_tokens=1000, backoff_s=1.0, max_backoff_s=2.0))
        bench.offer(*captions(5))

        async def act() -> None:
            nonlocal down
            await bench.clock.advance(60)
            assert len(backend.asked) > 10
            assert bench.engine.budget.spent == NOTHING
            assert not bench.engine.exhausted
            down = False
            await bench.clock.advance(60)
            assert len(bench.records) == 3
            assert bench.engine.budget.take_unsaved().requests == 3
            assert "budget of 3 requests" in bench.engine.exhausted

        await run_with(bench, act)

    play(scene)


def test_tokens_in_flight_do_not_pass_the_limit() -> None:
    async def scene() -> None:
        backend = ToldBackend(lambda caption, _: "yes", max_concurrent=32)  # ten tokens each
        bench = Bench(backend, config=EngineConfig(max_tokens=105))
        bench.offer(*captions(50))

        async def act() -> None:
            await bench.clock.advance(10)
            assert bench.engine.budget.spent.tokens_in + bench.engine.budget.spent.tokens_out == 100
            assert "budget of 105 tokens" in bench.engine.problem
            assert bench.counts.tokens_in == 90

        await run_with(bench, act)

    play(scene)


def test_pace_spreads_requests_over_the_minute() -> None:
    async def scene() -> None:
        backend = ToldBackend(lambda caption, _: "yes", max_concurrent=8)
        bench = Bench(backend, config=EngineConfig(requests_per_minute=120.0))
        bench.offer(*captions(90))

        async def act() -> None:
            await bench.clock.advance(30)
            assert len(backend.asked) == pytest.approx(60, abs=3)
            assert bench.engine.problem == "", "that is no trouble"

        await run_with(bench, act)

    play(scene)


def test_pace_of_tokens_is_kept_on_average() -> None:
    clock = FakeClock()
    pace = Pace(None, 600.0, clock=clock)
    sent = 0
    for _ in range(120):
        while pace.delay_s() == 0:
            pace.charge(requests=1, tokens=50)
            sent += 50
        clock.now += 0.5
    assert sent == pytest.approx(600, abs=60)
    assert Pace(None, None, clock=clock).delay_s() == 0.0


def test_the_account_is_kept_in_the_store(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite") as store:
        assert store.spent() == NOTHING
        store.add_spent("one", Spent(3, 30, 3, 0.5))
        store.add_spent("two", Spent(1, 10, 1, 0.25))
        store.add_spent("one", Spent(2, 20, 2, 0.0))
    with Store(tmp_path / "s.sqlite") as store:
        assert store.spent() == Spent(6, 60, 6, 0.75)


def test_a_store_from_before_there_was_an_account_has_one(tmp_path: Path) -> None:
    """What its answers took is counted, as far as it is known."""
    path = tmp_path / "s.sqlite"
    number = next(i for i, migration in enumerate(MIGRATIONS) if SPENDING[0] in migration)
    with sqlite3.connect(path) as old:
        for migration in MIGRATIONS[:number]:
            for statement in migration:
                old.execute(statement)
        old.execute("PRAGMA application_id = 0x4F4E4941")
        old.execute(f"PRAGMA user_version = {number}")
        old.execute("INSERT INTO labelers VALUES ('l', '{}', 'm', 0.0)")
        old.execute("INSERT INTO captions VALUES (1, x'61', 0.0)")
        old.execute("INSERT INTO prompt_prefixes VALUES (99, 'p')")
        for tokens in (100, None):
            old.execute(
                "INSERT INTO annotations (labeler_id, caption_id, status, helpful, prompt_prefix_id, prompt_suffix,"
                " model, backend, tokens_in, tokens_out, attempts, detail, created_at)"
                " VALUES ('l', 1, 'labelled', 1, 99, 's', 'm', 'b', ?, 1, 2, '', 0.0)",
                (tokens,),
            )
    old.close()
    with Store(path) as store:
        assert store.spent() == Spent(4, 100, 2, 0.0)
