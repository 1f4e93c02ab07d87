"""Several servers of one model: load over those that answer, and what becomes of one that does not."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import pytest
from told_engine import CONFIG, Bench, FakeClock, ToldBackend, play, run_with, settle

from llm_annotator.addresses import endpoint_configs
from llm_annotator.backends import create_backend
from llm_annotator.backends.scripted import ScriptedBackend, ScriptedOptions
from llm_annotator.config import BackendConfig, EngineConfig
from llm_annotator.endpoints import FAULT_COST, MOST_CREDIT, REST_S, Endpoint
from llm_annotator.errors import BackendOverloaded, BackendRejected, BackendUnreachable, ConfigError
from llm_annotator.pool import Pool
from llm_annotator.types import LabelStatus


def yes(caption: bytes, times: int) -> str:
    return "yes"


def captions(number: int, name: str = "") -> list[bytes]:
    return [b"%s %d" % (name.encode(), i) for i in range(number)]


def test_load_goes_to_all_servers() -> None:
    async def scene() -> None:
        backends = [ToldBackend(yes, max_concurrent=2) for _ in range(3)]
        for backend in backends:
            backend.hold.clear()
        bench = Bench(*backends)
        bench.offer(*captions(30))

        async def act() -> None:
            assert [backend.in_flight for backend in backends] == [2, 2, 2]
            for backend in backends:
                backend.hold.set()
            await settle()
            await settle()
            assert len(bench.records) == 30
            assert all(len(backend.asked) >= 8 for backend in backends)
            assert max(Counter(caption for backend in backends for caption in backend.asked).values()) == 1

        await run_with(bench, act)

    play(scene)


@pytest.mark.parametrize("error", [BackendUnreachable, BackendRejected, BackendOverloaded])
def test_a_server_that_is_down_is_named_and_the_others_answer(error: type[Exception]) -> None:
    async def scene() -> None:
        down = True
        bad = ToldBackend(lambda *_: error("key sk-secret, go away") if down else "yes", max_concurrent=2)
        good = ToldBackend(yes, max_concurrent=2)
        bench = Bench(bad, good)
        bench.offer(*captions(60))

        async def act() -> None:
            nonlocal down
            await bench.clock.advance(1)
            assert len(bench.records) == 60
            assert {record.status for record in bench.records} == {LabelStatus.LABELLED}
            problem = bench.engine.problem
            assert problem.startswith("Labels come from the other servers of the LLM, but not from server 0.")
            assert "key ***, go away" in problem
            bad_endpoint = bench.engine.pool.endpoints[0]
            assert bad_endpoint.gate.state in ("open", "half-open")
            down = False
            for turn in range(20):
                bench.offer(*captions(4, f"more {turn}"))
                await bench.clock.advance(1)
            assert bench.engine.problem == ""
            assert bad_endpoint.gate.state == "closed"
            assert bad_endpoint.outcomes["answered"] > 5

        await run_with(bench, act)

    play(scene)


def test_all_servers_down_cost_no_caption() -> None:
    async def scene() -> None:
        backends = [ToldBackend(lambda *_: BackendUnreachable("refused"), max_concurrent=4) for _ in range(2)]
        bench = Bench(*backends)
        bench.offer(*captions(10))

        async def act() -> None:
            await bench.clock.advance(300)
            assert bench.records == []
            assert bench.counts.queued == 10
            assert "None of the 2 servers of the LLM answers (server 0, server 1)" in bench.engine.problem
            for backend in backends:
                assert len(backend.asked) <= 4 + 3 + 300 / CONFIG.max_backoff_s + 1

        await run_with(bench, act)

    play(scene)


def test_a_server_that_chokes_now_and_then_is_not_taken_for_down() -> None:
    async def scene() -> None:
        turns = iter(range(10**6))
        backend = ToldBackend(
            lambda *_: BackendUnreachable("reset") if next(turns) % 4 == 3 else "yes", max_concurrent=4
        )
        bench = Bench(backend, config=EngineConfig(max_queue=1000, max_attempts=100))
        bench.offer(*captions(400))

        async def act() -> None:
            await bench.clock.advance(60)
            assert len(bench.records) == 400
            assert bench.engine.problem == ""

        await run_with(bench, act)

    play(scene)


def endpoint(clock: FakeClock, limit: int = 64) -> Endpoint:
    backend = ToldBackend(yes, max_concurrent=limit)
    return Endpoint("server", CONFIG, clock=clock, draw=lambda: 1.0, backend=backend)


def test_an_outage_is_noticed_after_a_few_requests() -> None:
    server = endpoint(FakeClock())
    for _ in range(100):
        visit = server.begin()
        server.answered(visit)
        server.left(visit)
    faults = 0
    while server.gate.state == "closed":
        visit = server.begin()
        server.faulted(visit, BackendUnreachable("refused"))
        server.left(visit)
        faults += 1
    assert faults == MOST_CREDIT // FAULT_COST + 1
    assert server.delay_s() == CONFIG.backoff_s


def test_a_server_that_hangs_is_noticed_at_once_whatever_its_credit() -> None:
    clock = FakeClock()
    server = endpoint(clock)
    for _ in range(100):
        visit = server.begin()
        server.answered(visit)
        server.left(visit)
    visits = [server.begin() for _ in range(8)]
    clock.now = 60.0
    assert server.faulted(visits[0], BackendOverloaded("did not answer within 60 s")) == 0.0
    assert server.gate.state == "open"
    assert "did not answer" in server.problem


def test_one_that_is_too_much_rests_while_the_others_go_on() -> None:
    clock = FakeClock()
    server = endpoint(clock)
    visits = [server.begin() for _ in range(4)]
    assert server.faulted(visits[3], BackendOverloaded("429")) == REST_S
    assert (server.gate.state, server.problem) == ("closed", "")
    assert server.in_flight == 4, "its place stays taken"
    server.left(visits[3], rested=True)
    for visit in visits[:2]:
        server.answered(visit)
        server.left(visit)
    assert server.faulted(visits[2], BackendOverloaded("429")) == REST_S, "it has answered others meanwhile"
    server.left(visits[2], rested=True)
    lonely = server.begin()
    server.faulted(lonely, BackendOverloaded("429"))
    server.left(lonely)
    lonely = server.begin()
    server.faulted(lonely, BackendOverloaded("429"))
    assert server.gate.state == "open", "one that is too busy for a single request, again, is down"


def test_a_pause_that_a_busy_server_asks_for_holds_for_all_and_is_no_fault() -> None:
    clock = FakeClock()
    server = endpoint(clock)
    first, second, third = (server.begin() for _ in range(3))
    assert server.faulted(first, BackendOverloaded("429", retry_after_s=20.0)) == 0.0
    server.left(first)
    assert server.delay_s() == 20.0
    assert "overloaded" in server.problem
    clock.now = 5.0
    server.answered(second)
    server.left(second)
    assert server.delay_s() == 15.0, "an answer to a question of before changes nothing"
    server.faulted(third, BackendOverloaded("429", retry_after_s=30.0))
    server.left(third)
    assert server.delay_s() == 30.0
    clock.now = 35.0
    assert server.delay_s() == 0.0
    visits = [server.begin(), server.begin()]
    assert server.in_flight == 2, "all go on, not one to see"
    server.answered(visits[0])
    assert server.problem == ""


class _Opening(ScriptedBackend):
    def __init__(self, *failures: Exception, model: str = "the model") -> None:
        super().__init__(ScriptedOptions())
        self.model = model
        self._failures = list(failures)
        self.closed = 0

    async def __aenter__(self) -> Self:
        if self._failures:
            raise self._failures.pop(0)
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed += 1


async def open_pool(act: Callable[[Pool], Awaitable[None]], *backends: _Opening) -> None:
    config = EngineConfig(backoff_s=0.01, max_backoff_s=0.01)
    servers = [Endpoint(f"server {i}", config, clock=FakeClock(), draw=lambda: 1.0) for i in range(len(backends))]
    pool = Pool(servers)
    makers = {server.name: (lambda each=each: each) for server, each in zip(servers, backends, strict=True)}
    async with pool.opened(makers, lambda: None):
        await asyncio.wait_for(pool.first(), 10)
        await act(pool)
    assert all(each.closed == 1 for each in backends if each.model == "the model")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_servers_are_opened_each_in_its_own_time() -> None:
    async def scene() -> None:
        async def act(pool: Pool) -> None:
            assert pool.model == "the model"
            assert pool.endpoints[1].backend is not None
            await until(lambda: pool.problem == "")
            assert all(server.backend is not None for server in pool.endpoints)

        late = _Opening(BackendUnreachable("not yet"), ConfigError("no such file"), OSError("odd"))
        await open_pool(act, late, _Opening())

    play(scene)


def test_a_server_of_another_model_is_not_asked() -> None:
    async def scene() -> None:
        async def act(pool: Pool) -> None:
            await until(lambda: "model is another" in pool.problem.replace("'", ""))
            assert "server 1" in pool.problem
            assert pool.endpoints[1].backend is None

        await open_pool(act, _Opening(), _Opening(model="another"))

    play(scene)


def test_addresses_become_settings_of_one_server_each() -> None:
    config = BackendConfig(kind="completions", model="m", endpoints=("http://a:1/v1", "http://user:secret@b:2/v1"))
    configs = endpoint_configs(config)
    assert list(configs) == ["http://a:1/v1", "http://b:2/v1"], "names hold no login"
    assert [each.base_url for each in configs.values()] == ["http://a:1/v1", "http://user:secret@b:2/v1"]
    assert {each.endpoints for each in configs.values()} == {()}
    assert list(endpoint_configs(BackendConfig(kind="llama-cpp"))) == ["llama-cpp"]
    assert list(endpoint_configs(BackendConfig(kind="completions", base_url="http://x@h/v1"))) == ["http://h/v1"]
    with pytest.raises(ConfigError, match=r"both set.*backend.endpoints"):
        endpoint_configs(BackendConfig(base_url="http://a/v1", endpoints=("http://b/v1",)))
    with pytest.raises(ConfigError, match="twice"):
        endpoint_configs(BackendConfig(endpoints=("http://a/v1", "http://a/v1")))


def test_a_backend_never_sees_more_than_one_address() -> None:
    seen: list[BackendConfig] = []

    class _Plugin:
        name = "mine"
        value = "mine:create"

        def load(self) -> Callable[[BackendConfig], ScriptedBackend]:
            def create(config: BackendConfig) -> ScriptedBackend:
                seen.append(config)
                return ScriptedBackend(ScriptedOptions())

            return create

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llm_annotator.backends.entry_points", lambda group: [_Plugin()])
        create_backend(BackendConfig(kind="mine", endpoints=("http://a/v1", "http://b/v1")))
    assert [(config.base_url, config.endpoints) for config in seen] == [("http://a/v1", ())]
