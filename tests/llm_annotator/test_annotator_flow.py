"""A service under several runs, with budgets, and what it shows of itself; the backend alone is scripted."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from llm_annotator import service as service_module
from llm_annotator.annotator import Annotator
from llm_annotator.app import build_app
from llm_annotator.backends import create_backend
from llm_annotator.client import AnnotatorClient
from llm_annotator.config import AnnotatorConfig, BackendConfig, EngineConfig, LabelerConfig
from llm_annotator.labeler import LabelerSpec, resolve_labeler
from llm_annotator.presence import ABSENT_S, Presence
from llm_annotator.store import Store
from llm_annotator.supervisor import ServiceProcess


def scripted(
    engine: EngineConfig | None = None, backend: dict[str, Any] | None = None, **options: Any
) -> AnnotatorConfig:
    settings = BackendConfig(kind="scripted", options=options, **(backend or {}))
    return AnnotatorConfig(backend=settings, engine=engine or EngineConfig())


@pytest.fixture(scope="module")
def spec() -> LabelerSpec:
    return resolve_labeler(LabelerConfig(goal="open the box"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A service with two servers, prices and a budget that is not used up, for tests that need nothing special."""
    folder = tmp_path_factory.mktemp("shared")
    backend = {
        "endpoints": ("http://first/v1", "http://user:secret@second/v1"),
        "price_in": 1.0,
        "price_out": 2.0,
        "max_concurrent": 4,
    }
    config = scripted(EngineConfig(max_cost=100.0), backend, helpful_pattern="open", latency_s=0.005)
    with ServiceProcess(folder / "annotations.sqlite", config, folder / "log.txt") as service:
        yield service


def client_of(service: ServiceProcess, spec: LabelerSpec, run_id: str = "run") -> AnnotatorClient:
    return AnnotatorClient(service.url, run_id, run_id, {}, spec, service.token)


def get(service: ServiceProcess, path: str) -> httpx.Response:
    return httpx.get(service.url + path, headers={"authorization": f"Bearer {service.token}"})


def eventually(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_a_run_that_floods_does_not_starve_another(shared: ServiceProcess, spec: LabelerSpec) -> None:
    with client_of(shared, spec, "flood") as flood, client_of(shared, spec, "quiet") as quiet:
        flood.submit([b"flood %d" % i for i in range(4000)])
        eventually(lambda: flood.health.in_flight > 0)
        quiet.submit([b"quiet %d" % i for i in range(20)])
        assert quiet.drain(20)
        assert flood.health.queued > 3000, "it was answered long before the flood was over"
        assert len(quiet.poll()) == 20
    eventually(lambda: "flood" not in get(shared, "/v1/status").json()["runs"])
    (labeler,) = get(shared, "/v1/status").json()["labelers"].values()
    assert labeler["queued"] == 0, "nobody is left who wants the flood's"


def test_what_two_runs_ask_at_once_is_asked_once(shared: ServiceProcess, spec: LabelerSpec) -> None:
    captions = [b"both want %d" % i for i in range(200)]
    with client_of(shared, spec, "one") as one, client_of(shared, spec, "two") as two:
        before = get(shared, "/v1/status").json()["spent"]["requests"]
        one.submit(captions)
        two.submit(captions[::-1])
        assert one.drain(20)
        assert two.drain(20)
        assert len(one.poll()) == len(two.poll()) == 200
        assert get(shared, "/v1/status").json()["spent"]["requests"] - before == 200
        with client_of(shared, spec, "three") as three:
            three.submit(captions)
            assert three.drain(20)
            assert three.health.service.saved_by_cache >= 200
        assert get(shared, "/v1/status").json()["spent"]["requests"] - before == 200


def test_metrics_are_those_of_prometheus_and_need_the_token(shared: ServiceProcess, spec: LabelerSpec) -> None:
    with client_of(shared, spec, "metrics") as client:
        client.submit([b"metrics %d" % i for i in range(50)])
        assert client.drain(20)
        health = client.health
    assert httpx.get(f"{shared.url}/metrics").status_code == 401
    assert httpx.get(f"{shared.url}/metrics", headers={"host": "evil.example"}).status_code == 421
    answer = get(shared, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "secret" not in answer.text
    assert shared.token not in answer.text
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}

    def value(name: str, **labels: str) -> float:
        samples = [sample for family in families.values() for sample in family.samples if sample.name == name]
        found = [sample.value for sample in samples if labels.items() <= sample.labels.items()]
        assert len(found) == 1, (name, labels, found)
        return found[0]

    assert value("oni_annotator_up") == value("oni_annotator_healthy") == 1
    labelled = value("oni_annotator_answers_total", status="labelled")
    assert labelled >= 50
    by_server = [
        value("oni_annotator_requests_total", endpoint=f"http://{name}/v1", outcome="answered")
        for name in ("first", "second")
    ]
    assert min(by_server) > 0
    assert sum(by_server) == value("oni_annotator_spent_total", unit="requests") == labelled
    assert value("oni_annotator_request_seconds_count", endpoint="http://first/v1") == by_server[0]
    assert value("oni_annotator_concurrency_limit", endpoint="http://first/v1") == 4
    assert value("oni_annotator_endpoint_state", endpoint="http://first/v1") == 0
    money = value("oni_annotator_spent_total", unit="money")
    tokens = [value("oni_annotator_tokens_total", direction=direction) for direction in ("in", "out")]
    assert money == pytest.approx((tokens[0] * 1.0 + tokens[1] * 2.0) / 1e6)
    assert value("oni_annotator_budget_left", unit="cost") == pytest.approx(100.0 - money)
    assert value("oni_annotator_queue_length") == value("oni_annotator_in_flight") == 0
    assert value("oni_annotator_queue_wait_median_seconds") > 0
    assert value("process_resident_memory_bytes") > 1e6
    service = health.service
    assert (service.concurrency, service.endpoints, service.endpoints_up) == (8, 2, 2)
    assert service.cost == pytest.approx(money)
    assert 0.99 < (service.budget_left or 0.0) < 1.0


def test_health_needs_no_token_and_tells_nothing_but_that(shared: ServiceProcess) -> None:
    answer = httpx.get(f"{shared.url}/healthz").json()
    assert set(answer) == {"ok", "instance", "asking"}
    assert (answer["ok"], answer["asking"]) == (True, True)


def test_status_names_every_server(shared: ServiceProcess, spec: LabelerSpec) -> None:
    status = get(shared, "/v1/status").json()
    assert [server["name"] for server in status["endpoints"]] == ["http://first/v1", "http://second/v1"]
    assert {server["state"] for server in status["endpoints"]} == {"closed"}
    assert {server["problem"] for server in status["endpoints"]} == {""}


@pytest.mark.slow
def test_a_budget_outlives_a_restart_and_stored_labels_are_answered(tmp_path: Path, spec: LabelerSpec) -> None:
    store = tmp_path / "s.sqlite"
    captions = [b"%d" % i for i in range(30)]
    config, log = scripted(EngineConfig(max_requests=20)), tmp_path / "log"
    with ServiceProcess(store, config, log) as service, client_of(service, spec) as client:
        client.submit(captions)
        eventually(lambda: client.health.service.exhausted)
        eventually(lambda: client.health.labelled == 20)
        assert "budget of 20 requests" in client.health.message
        labelled = [update.caption for update in client.poll()]
    with Store(store) as kept:
        assert kept.spent().requests == 20
    with ServiceProcess(store, config, log) as service, client_of(service, spec, "second seed") as client:
        client.submit(labelled)
        assert client.drain(20), "what the store knows costs nothing"
        client.submit(captions)
        eventually(lambda: client.health.service.exhausted and client.health.queued == 10)
        assert client.health.requests == 0
        assert client.health.service.budget_left == 0.0
    more = scripted(EngineConfig(max_requests=40))
    with ServiceProcess(store, more, log) as service, client_of(service, spec, "third") as client:
        client.submit(captions)
        assert client.drain(20)
        eventually(lambda: (client.health.requests, client.health.message) == (10, ""))


@pytest.mark.slow
def test_answers_under_way_at_the_end_are_kept(tmp_path: Path, spec: LabelerSpec) -> None:
    """They are paid for."""
    store = tmp_path / "s.sqlite"
    config = scripted(backend={"max_concurrent": 4}, latency_s=0.5)
    with ServiceProcess(store, config, tmp_path / "log") as service, client_of(service, spec) as client:
        client.submit([b"%d" % i for i in range(50)])
        eventually(lambda: client.health.in_flight == 4)
    with Store(store) as kept:
        (labeler_id,) = [row[0] for row in kept._connection.execute("SELECT id FROM labelers")]
        assert 4 <= len(kept.labels_since(labeler_id, 0, limit=100)) == kept.spent().requests < 50


def test_the_service_says_now_and_then_how_it_goes(
    tmp_path: Path, spec: LabelerSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service_module, "TELL_EVERY_S", 0.05)
    caplog.set_level("INFO")
    config = scripted(EngineConfig(max_requests=5), {"price_in": 1000.0, "price_out": 0.0})
    annotator = Annotator(Store(tmp_path / "s.sqlite"), config, create_backend)
    assert annotator.line == "", "nothing was asked yet"
    assert annotator.problem == "The annotator is opening its LLM."

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if " labels (" in record.getMessage()]

    async def scene() -> None:
        async with annotator.running(), service_module._telling(annotator), asyncio.timeout(20):
            while annotator.engine is None:
                await asyncio.sleep(0.01)
            labeler_id = (await annotator.register("run", "run", {}, spec))[0]
            await annotator.offer("run", labeler_id, [b"%d" % i for i in range(8)])
            while not any(line.startswith("5 labels") for line in lines()):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)

    asyncio.run(scene())
    last = lines()[-1]
    assert "; 3 open, the oldest for " in last
    assert "; 0 failures;" in last
    assert "; cost 0." in last
    assert last.endswith(
        "Nothing is asked any more: the budget of 5 requests (engine.max_requests) is used up. Raise it to go on."
    )
    assert len(lines()) < 8, "what is not new is not said again"


def test_runs_that_are_silent_for_long_are_forgotten() -> None:
    now = 0.0
    runs = Presence(lambda: now)
    runs.add("a", "labeler")
    now = 1.0
    runs.add("b", "labeler")
    now = ABSENT_S
    assert runs.absent() == ["a"]
    runs.heard("b")
    runs.heard("never seen")
    runs.remove("a")
    now += ABSENT_S - 1.0
    assert runs.absent() == []
    assert runs.names() == ["b"]
    assert "a" not in runs
    now += 1.0
    assert runs.absent() == ["b"]


def test_before_the_llm_is_open_there_is_something_to_see(tmp_path: Path) -> None:
    annotator = Annotator(Store(tmp_path / "s.sqlite"), scripted(), lambda _: pytest.fail("not opened here"))

    async def look() -> tuple[httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(build_app(annotator))  # this machine alone, no token
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as http:
            return await http.get("/metrics"), await http.get("/healthz")

    metrics, health = asyncio.run(look())
    assert metrics.status_code == 200
    assert "oni_annotator_up 0.0" in metrics.text
    assert health.json()["asking"] is False
