"""Service and client over real sockets; the backend alone is scripted."""

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_annotator import wire
from llm_annotator.access import is_loopback
from llm_annotator.client import AnnotatorClient
from llm_annotator.config import AnnotatorConfig, BackendConfig, EngineConfig, LabelerConfig
from llm_annotator.errors import ConfigError, PortInUse, ServiceError
from llm_annotator.labeler import LabelerSpec, resolve_labeler
from llm_annotator.service import config_from_json, serve
from llm_annotator.store import Store, StoreReader
from llm_annotator.supervisor import ServiceProcess
from llm_annotator.types import LabelStatus, Occurrence

ODD_CAPTIONS = [
    b"nul \x00 you open it",
    b"\xff\xfe you open it",
    b"\x1b[31m you open it",
    b"you open it" + b"x" * 10_000,
]

PACKBODY = {"content-type": wire.CONTENT_TYPE}


def scripted(engine: EngineConfig = EngineConfig(), **options: Any) -> AnnotatorConfig:
    return AnnotatorConfig(backend=BackendConfig(kind="scripted", options=options), engine=engine)


def occurrence(*row: Any) -> bytes:
    return wire.pack({"run_id": "r", "occurrences": [row]})


@pytest.fixture(scope="module")
def spec() -> LabelerSpec:
    return resolve_labeler(LabelerConfig(goal="open the box"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """One quick service for all tests that need nothing special; each uses captions of its own."""
    folder = tmp_path_factory.mktemp("shared")
    with ServiceProcess(folder / "annotations.sqlite", scripted(helpful_pattern="open"), folder / "log.txt") as service:
        yield service


def client_of(service: ServiceProcess | str, spec: LabelerSpec, run_id: str = "run", **more: Any) -> AnnotatorClient:
    if isinstance(service, ServiceProcess):
        more = {"token": service.token} | more
        service = service.url
    return AnnotatorClient(service, run_id, f"name of {run_id}", {"seed": 1}, spec, **more)


def eventually(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def status_of(service: ServiceProcess) -> dict[str, Any]:
    return httpx.get(f"{service.url}/v1/status", headers={"authorization": f"Bearer {service.token}"}).json()


def test_labels_come_back_for_any_bytes(shared: ServiceProcess, spec: LabelerSpec) -> None:
    with client_of(shared, spec) as client:
        client.submit([*ODD_CAPTIONS, b"you wander", b""])
        assert client.drain(20)
        updates = {update.caption: update for update in client.poll()}
        health = client.health
    assert set(updates) == {*ODD_CAPTIONS, b"you wander"}
    assert all(updates[caption].helpful for caption in ODD_CAPTIONS)
    assert updates[b"you wander"].helpful is False
    assert updates[b"you wander"].p_helpful == pytest.approx(0.05, abs=0.01)
    assert {update.source for update in updates.values()} == {"llm"}
    assert (health.connected, health.message, health.queued, health.labelled) == (True, "", 0, 5)


def test_a_second_run_gets_known_labels_without_a_question(shared: ServiceProcess, spec: LabelerSpec) -> None:
    captions = [b"shared %d" % i for i in range(50)]
    with client_of(shared, spec, "first") as first:
        first.submit(captions)
        assert first.drain(20)
        asked = first.health.requests
        with client_of(shared, spec, "second") as second:
            second.submit(captions)
            assert second.drain(20)
            assert {update.caption for update in second.poll()} == set(captions)
            assert second.health.requests == asked


def test_runs_hear_only_of_their_own_captions(shared: ServiceProcess, spec: LabelerSpec) -> None:
    with client_of(shared, spec, "one") as one, client_of(shared, spec, "two") as two:
        one.submit([b"only one"])
        two.submit([b"only two"])
        assert one.drain(20)
        assert two.drain(20)
        assert [update.caption for update in one.poll()] == [b"only one"]
        assert [update.caption for update in two.poll()] == [b"only two"]


def test_occurrences_and_runs_reach_the_store(shared: ServiceProcess, spec: LabelerSpec) -> None:
    with client_of(shared, spec, "counting") as client:
        for count in (1, 2, 3):
            client.record([Occurrence(caption=b"counted", count=count, first_step=1, last_step=count, reward_sum=0.5)])
        assert client.flush(20)
    with StoreReader(shared.store) as reader:
        (row,) = reader.captions(run_id="counting")
        assert (row.text, row.count, row.last_step, row.status) == (b"counted", 3, 3, None)
        (run,) = [run for run in reader.runs() if run.run_id == "counting"]
        assert (run.name, run.goal, run.config) == ("name of counting", spec.goal, {"seed": 1})


def test_a_persons_verdict_reaches_the_run(shared: ServiceProcess, spec: LabelerSpec) -> None:
    with client_of(shared, spec, "overruled") as client:
        client.submit([b"you open a trap"])
        assert client.drain(20)
        assert client.poll()[0].helpful is True
        (labeler_id,) = status_of(shared)["labelers"]
        with Store(shared.store) as store:  # another process, to SQLite
            store.override(b"you open a trap", labeler_id, helpful=False)
        client.submit([b"wakes the poll"])
        eventually(lambda: client.health.labelled == 2 and client.health.queued == 0)
        updates = {update.caption: update for update in client.poll()}
        assert (updates[b"you open a trap"].helpful, updates[b"you open a trap"].source) == (False, "human")


def test_idle_polls_notice_what_another_process_changed(shared: ServiceProcess, spec: LabelerSpec) -> None:
    with client_of(shared, spec, "overruled later") as client:
        client.submit([b"you open a door"])
        assert client.drain(20)
        client.poll()
        (labeler_id,) = status_of(shared)["labelers"]
        with Store(shared.store) as store:
            store.override(b"you open a door", labeler_id, helpful=False)
        found: list[Any] = []
        eventually(lambda: bool(found.extend(client.poll()) or found))
        assert (found[0].caption, found[0].helpful) == (b"you open a door", False)


def test_submit_and_poll_return_at_once_when_nothing_listens(spec: LabelerSpec) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with client_of(f"http://127.0.0.1:{port}", spec) as client:
        client.submit([b"a", b"b"])
        client.record([Occurrence(caption=b"a", count=1, first_step=1, last_step=1, reward_sum=0)])
        assert client.poll() == []
        eventually(lambda: "Nothing answers" in client.health.message)
        assert (client.health.connected, client.health.queued) == (False, 2)
        assert not client.drain(0.05)
        assert not client.flush(0.05)


def test_a_client_that_is_closed_takes_no_harm(shared: ServiceProcess, spec: LabelerSpec) -> None:
    client = client_of(shared, spec)
    with pytest.raises(RuntimeError, match="with"):
        client.submit([b"too early"])
    with client:
        pass
    client.submit([b"too late"])
    assert not client.drain(0.1)
    client.close()


class _Impostor(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_something_else_at_the_address_is_told(spec: LabelerSpec) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), _Impostor) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            with client_of(f"http://127.0.0.1:{server.server_port}", spec) as client:
                client.submit([b"a"])
                eventually(lambda: "no annotator" in client.health.message)
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "word"),
    [
        ("/v1/captions", PACKBODY, b"\xc1", 400, "msgpack"),
        ("/v1/captions", PACKBODY, wire.pack({"captions": [b"x"]}), 400, "labeler_id"),
        (
            "/v1/captions",
            PACKBODY,
            wire.pack({"run_id": "r", "labeler_id": "l", "captions": ["text"]}),
            409,
            "registered",
        ),
        ("/v1/captions", PACKBODY, wire.pack({"run_id": "r", "labeler_id": "l", "captions": []}), 409, "registered"),
        ("/v1/captions", {"content-type": "text/plain"}, wire.pack({}), 415, wire.CONTENT_TYPE),
        ("/v1/captions", PACKBODY, b"x" * (wire.MAX_BODY_BYTES + 1), 413, "parts"),
        ("/v1/captions", PACKBODY | {"host": "evil.example"}, wire.pack({}), 421, "own machine"),
        ("/v1/runs", PACKBODY, wire.pack({"protocol": 99}), 400, "same version"),
        ("/v1/occurrences", PACKBODY, wire.pack({"run_id": "r", "occurrences": [[1, 2]]}), 400, "cannot be read"),
        ("/v1/occurrences", PACKBODY, occurrence(b"c", 1, 1, 1, float("nan"), None), 400, "not a finite number"),
        ("/v1/occurrences", PACKBODY, occurrence(b"c", 1, 2**63, 1, 0.0, None), 400, "first_step"),
        ("/v1/occurrences", PACKBODY, occurrence("c", 1, 1, 1, 0.0, None), 400, "a caption is bytes"),
    ],
)
def test_bad_requests_are_refused_in_words(
    shared: ServiceProcess, path: str, headers: dict[str, str], body: bytes, status: int, word: str
) -> None:
    answer = httpx.post(shared.url + path, content=body, headers=headers | {"authorization": f"Bearer {shared.token}"})
    assert answer.status_code == status
    assert word in answer.json()["message"]
    assert httpx.get(f"{shared.url}/healthz").json()["ok"] is True


def test_status_tells_what_goes_on(shared: ServiceProcess, spec: LabelerSpec) -> None:
    with client_of(shared, spec, "status") as client:
        client.submit([b"status"])
        assert client.drain(20)
    status = status_of(shared)
    assert status["backend"] == "scripted"
    assert status["problem"] == ""
    assert "status" in status["runs"]
    (labeler,) = status["labelers"].values()
    assert (labeler["goal"], labeler["queued"], labeler["in_flight"]) == (spec.goal, 0, 0)


@pytest.mark.slow
def test_dropped_captions_are_offered_again(tmp_path: Path, spec: LabelerSpec) -> None:
    config = scripted(EngineConfig(max_queue=20), latency_s=0.002)
    captions = [b"many %d" % i for i in range(60)]
    with ServiceProcess(tmp_path / "s.sqlite", config, tmp_path / "log") as service, client_of(service, spec) as client:
        client.submit(captions)
        assert client.drain(20)
        assert {update.caption for update in client.poll()} == set(captions)
        assert client.health.dropped == 40
        assert client.health.requests == 60


@pytest.mark.slow
def test_a_broken_backend_is_told_and_labels_resume(tmp_path: Path, spec: LabelerSpec) -> None:
    engine = EngineConfig(backoff_s=0.1, max_backoff_s=0.1)
    config = scripted(engine, fail_first=5, fail_with="unreachable")
    with ServiceProcess(tmp_path / "s.sqlite", config, tmp_path / "log") as service, client_of(service, spec) as client:
        client.submit([b"a", b"b"])
        eventually(lambda: "cannot be reached" in client.health.message)
        assert client.drain(20)
        assert [update.status for update in client.poll()] == [LabelStatus.LABELLED] * 2
        eventually(lambda: client.health.message == "")


@pytest.mark.slow
def test_failed_and_unparsed_are_no_labels_and_are_asked_again_later(tmp_path: Path, spec: LabelerSpec) -> None:
    engine = EngineConfig(backoff_s=0.01, max_backoff_s=0.02, max_attempts=1, retry_failed_s=0.05)
    path = tmp_path / "s.sqlite"
    with ServiceProcess(path, scripted(engine, garble_rate=1.0), tmp_path / "log") as service:
        with client_of(service, spec) as client:
            client.submit([b"you open it"])
            assert client.drain(20)
            (update,) = client.poll()
            assert (update.status, update.helpful) == (LabelStatus.UNPARSED, None)
            assert (client.health.unparsed, client.health.labelled) == (1, 0)
        time.sleep(0.1)
        with client_of(service, spec) as client:
            client.submit([b"you open it"])
            assert client.drain(20)
            eventually(lambda: client.health.requests == 2)


@pytest.mark.slow
def test_a_token_is_asked_for(tmp_path: Path, spec: LabelerSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_TOKEN", "correct-horse")
    with _command(tmp_path, token_env="TEST_TOKEN") as url:
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert httpx.get(f"{url}/v1/status").status_code == 401
        with client_of(url, spec, token="wrong") as client:
            client.submit([b"a"])
            eventually(lambda: "token" in client.health.message)
            assert client.poll() == []
        with client_of(url, spec, token="correct-horse") as client:
            client.submit([b"a"])
            assert client.drain(20)
    assert "correct-horse" not in (tmp_path / "log").read_text()


def test_an_open_address_needs_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONI_ANNOTATOR_TOKEN", raising=False)
    with pytest.raises(ServiceError, match="ONI_ANNOTATOR_TOKEN"):
        serve(tmp_path / "s.sqlite", "0.0.0.0", 0, scripted())


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=f"127.0.0.1:{port}.*choose another port"):
            serve(tmp_path / "s.sqlite", "127.0.0.1", port, scripted())
    assert not (tmp_path / "s.sqlite").exists()


def test_two_annotators_do_not_share_a_store(shared: ServiceProcess) -> None:
    with pytest.raises(ServiceError, match="another annotator uses"):
        serve(shared.store, "127.0.0.1", 0, scripted())


def test_an_unknown_backend_is_told(tmp_path: Path) -> None:
    config = AnnotatorConfig(backend=BackendConfig(kind="scriptd"))
    with pytest.raises(ConfigError, match="scripted"):
        serve(tmp_path / "s.sqlite", "127.0.0.1", 0, config)


def test_sigterm_commits_and_ends_in_order(tmp_path: Path, spec: LabelerSpec) -> None:
    with _command(tmp_path) as url, client_of(url, spec) as client:
        client.submit([b"a", b"b"])
        assert client.drain(20)
    assert not Path(f"{tmp_path / 's.sqlite'}-wal").exists(), "closed in order, the log is folded in"
    with StoreReader(tmp_path / "s.sqlite") as reader:
        assert reader.totals().annotations == 2


class _command:
    """`python -m llm_annotator.service` as a user would run it; ends it with SIGTERM."""

    def __init__(self, folder: Path, **fields: Any) -> None:
        self._folder = folder
        self._config = folder / "config.json"
        self._config.write_text(json.dumps(asdict(scripted()) | fields))

    def __enter__(self) -> str:
        arguments = ["--config", str(self._config), "--store", str(self._folder / "s.sqlite")]
        with (self._folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "llm_annotator.service", *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                text=True,
            )
        assert self._process.stdout is not None
        with self._process.stdout as output:
            return json.loads(output.readline())["url"]

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(20) == 0


def test_settings_travel_as_json() -> None:
    config = AnnotatorConfig(
        backend=BackendConfig(kind="scripted", options={"seed": 3}), engine=EngineConfig(max_queue=7), drain_s=2.5
    )
    assert config_from_json(json.dumps(asdict(config))) == config
    for wrong in ("{", "[]", '{"engine": {"speed": 1}}', '{"engine": 3}'):
        with pytest.raises(ConfigError, match="settings cannot be read"):
            config_from_json(wrong)


def test_which_addresses_are_this_machine_alone() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "192.168.1.4", "example.org", "", "::"))
