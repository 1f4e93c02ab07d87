"""What the client does with input and with answers that are not as they should be."""

import contextlib
import http.server
import json
import logging
import resource
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_annotator import client_worker, wire
from llm_annotator.client import MAX_BATCHES, AnnotatorClient
from llm_annotator.config import AnnotatorConfig, BackendConfig, LabelerConfig
from llm_annotator.errors import ConfigError
from llm_annotator.labeler import LabelerSpec, resolve_labeler
from llm_annotator.service import serve
from llm_annotator.store import StoreReader
from llm_annotator.supervisor import ServiceProcess
from llm_annotator.types import LabelStatus, Occurrence
from tests.annotator_service import serving

TOO_LONG = b"x" * (wire.MAX_CAPTION_BYTES + 1)


def scripted(**options: Any) -> AnnotatorConfig:
    return AnnotatorConfig(backend=BackendConfig(kind="scripted", options=options))


@pytest.fixture(scope="module")
def spec() -> LabelerSpec:
    return resolve_labeler(LabelerConfig(goal="open the box"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("shared")
    with ServiceProcess(folder / "annotations.sqlite", scripted(helpful_pattern="open"), folder / "log.txt") as service:
        yield service


def client_of(service: ServiceProcess, spec: LabelerSpec, run_id: str, token: str | None = None) -> AnnotatorClient:
    return AnnotatorClient(service.url, run_id, run_id, {}, spec, token or service.token)


def seen(caption: bytes, **fields: Any) -> Occurrence:
    values = {"count": 1, "first_step": 1, "last_step": 1, "reward_sum": 0.5}
    return Occurrence(caption=caption, **(values | fields))


def eventually(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_white_space_around_a_token_does_not_count(shared: ServiceProcess, spec: LabelerSpec) -> None:
    with client_of(shared, spec, "newline", f" {shared.token}\n") as client:
        client.submit([b"token"])
        assert client.drain(20)
        assert client.health.message == ""


@pytest.mark.parametrize("token", ["geheim-\u00fc", "geheim geheim", "geheim\x07"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(
    token: str, spec: LabelerSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="token_env") as caught:
        AnnotatorClient("http://127.0.0.1:9", "run", "run", {}, spec, token)
    assert "geheim" not in str(caught.value)
    monkeypatch.setenv("ONI_ANNOTATOR_TOKEN", token)
    with pytest.raises(ConfigError, match="ONI_ANNOTATOR_TOKEN") as caught:
        serve(tmp_path / "s.sqlite", "127.0.0.1", 0, scripted())
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    "bad",
    [
        seen(b"bad", reward_sum=float("nan")),
        seen(b"bad", reward_sum=float("-inf")),
        seen(b"bad", count=2**63),
        seen(b"bad", episode_count=-1),
        seen(TOO_LONG),
        seen(b"bad", reward_sum=None),
    ],
    ids=["nan", "inf", "large", "negative", "long", "none"],
)
def test_totals_that_cannot_be_stored_are_left_out_and_told_once(
    shared: ServiceProcess, spec: LabelerSpec, bad: Occurrence, caplog: pytest.LogCaptureFixture
) -> None:
    with client_of(shared, spec, "bad totals") as client:
        client.record([bad, seen(b"good one"), bad])
        assert client.flush(20)
        assert client.health.message == ""
    with StoreReader(shared.store) as reader:
        assert [row.text for row in reader.captions(run_id="bad totals")] == [b"good one"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_who_waits_for_labels_does_not_wait_for_a_pause_between_two_polls(
    shared: ServiceProcess, spec: LabelerSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_worker, "POLL_PAUSE_S", 3600.0)
    with client_of(shared, spec, "no pause") as client:
        for number in range(3):
            client.submit([b"%d of them: %d" % (number, i) for i in range(50)])
            assert client.drain(20)
            assert len(client.poll()) == 50, "they are there when the waiting ends"


def test_totals_of_long_captions_go_in_parts(shared: ServiceProcess, spec: LabelerSpec) -> None:
    captions = [b"%d " % i + b"x" * 200_000 for i in range(100)]  # 20 MB, the service takes 16 at once
    with client_of(shared, spec, "long") as client:
        client.record([seen(caption) for caption in captions])
        assert client.flush(30)
    with StoreReader(shared.store) as reader:
        assert reader.count(run_id="long") == 100


def test_captions_that_are_too_long_are_given_up_and_told_once(
    shared: ServiceProcess, spec: LabelerSpec, caplog: pytest.LogCaptureFixture
) -> None:
    with client_of(shared, spec, "too long") as client:
        for _ in range(3):
            client.submit([TOO_LONG, b"short"])
        client.submit([TOO_LONG + b"x"])
        assert client.drain(20)
        assert [update.caption for update in client.poll()] == [b"short"]
        assert (client.health.dropped, client.health.queued, client.health.message) == (2, 0, "")
    assert len(caplog.records) == 1
    assert "262144 bytes" in caplog.text


class _Picky(http.server.BaseHTTPRequestHandler):
    """An annotator that takes no captions and no totals, for reasons of its own."""

    protocol_version = "HTTP/1.1"
    posts: list[str] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.posts.append(self.path)
        status = wire.LabelerStatus().to_wire()
        answers = {
            "/v1/runs": {"instance": "i", "labeler_id": "l", "cursor": 0},
            "/v1/labels": {"instance": "i", "updates": [], "cursor": 0, "status": status},
        }
        if self.path in answers:
            code, body = 200, wire.pack(answers[self.path])
        else:
            code, body = 400, json.dumps({"error": "bad_request", "message": "not in this version"}).encode()
        self.send_response(code)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_what_the_service_will_never_take_is_sent_once(spec: LabelerSpec, caplog: pytest.LogCaptureFixture) -> None:
    _Picky.posts = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Picky) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            with AnnotatorClient(f"http://127.0.0.1:{server.server_port}", "run", "run", {}, spec) as client:
                client.submit([b"a", b"b"])
                client.record([seen(b"a")])
                assert client.drain(20)
                assert client.flush(20)
                client.submit([b"a", b"b"])
                assert client.drain(20)
                assert client.health.dropped == 2
        finally:
            server.shutdown()
            thread.join()
    assert [_Picky.posts.count(path) for path in ("/v1/runs", "/v1/captions", "/v1/occurrences")] == [1, 1, 1]
    assert sorted(record.getMessage()[:13] for record in caplog.records) == ["1 totals of c", "2 questions g"]
    assert "not in this version" in caplog.text


class _SlowToOffers(http.server.BaseHTTPRequestHandler):
    """An annotator that looks up what was offered, hears a person's word about it, and only then answers."""

    protocol_version = "HTTP/1.1"
    overruled = threading.Event()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body: dict[str, Any] = {"instance": "i", "status": wire.LabelerStatus().to_wire()}
        if self.path == "/v1/runs":
            body |= {"labeler_id": "l", "cursor": 0}
        elif self.path == "/v1/captions":
            self.overruled.wait(10)
            row = [b"a", "labelled", True, 0.9, "llm", False]
            body |= {"known": [row], "changes": [5], "accepted": 0, "dropped": 0}
        else:
            row = [b"a", "labelled", False, None, "human", False]
            body |= {"updates": [row], "changes": [7], "cursor": 7}
            if self.overruled.is_set():
                time.sleep(0.05)
        content = wire.pack(body)
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        with contextlib.suppress(OSError):  # the client may have left
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_an_answer_to_an_offer_that_comes_late_does_not_undo_what_a_person_said(spec: LabelerSpec) -> None:
    _SlowToOffers.overruled.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _SlowToOffers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            with AnnotatorClient(f"http://127.0.0.1:{server.server_port}", "run", "run", {}, spec) as client:
                client.submit([b"a"])
                assert client.drain(20)  # by the poll
                _SlowToOffers.overruled.set()
                time.sleep(0.5)  # the offer is answered, and whatever it came to is there
                assert [getattr(news, "source", None) for news in client.poll()] == ["human"]
        finally:
            server.shutdown()
            thread.join()


class _Emptied(deque[Any]):
    """A full queue that the background thread empties right after its length was read."""

    def __len__(self) -> int:
        return MAX_BATCHES


def test_a_queue_that_is_emptied_meanwhile_is_no_error(shared: ServiceProcess, spec: LabelerSpec) -> None:
    with client_of(shared, spec, "race") as client:
        client._mailbox.batches = _Emptied()
        client.submit([b"a"])
        client.record([seen(b"a")])
        client._mailbox.batches = deque()


def test_a_client_whose_thread_cannot_start_says_so_and_raises_nothing(
    spec: LabelerSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llm_annotator.client_worker", None)  # lets its import fail
    with AnnotatorClient("http://127.0.0.1:9", "run", "run", {}, spec) as client:
        client.submit([b"a"])
        client.record([seen(b"a")])
        assert client.poll() == []
        assert not client.drain(1)
        assert not client.flush(1)
        assert "client has failed" in client.health.message


@pytest.mark.slow
def test_another_model_is_asked_about_everything_again(tmp_path: Path, spec: LabelerSpec) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with AnnotatorClient(f"http://127.0.0.1:{port}", "run", "run", {}, spec) as client:
        with serving(tmp_path, port, scripted(helpful_pattern="door")):
            client.submit([b"door", b"box"])
            assert client.drain(20)
            assert {update.caption: update.helpful for update in client.poll()} == {b"door": True, b"box": False}
        with serving(tmp_path, port, scripted(helpful_pattern="box")):
            # until the new one is ready, `health` shows what was known of the one before
            news: dict[bytes, bool | None] = {}

            def both_are_there() -> bool:
                news.update((update.caption, update.helpful) for update in client.poll())
                return len(news) == 2

            eventually(both_are_there)
            assert news == {b"door": False, b"box": True}
            assert client.health.requests == 2


@pytest.mark.slow
def test_a_service_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(tmp_path: Path, spec: LabelerSpec) -> None:
    with (
        ServiceProcess(tmp_path / "s.sqlite", scripted(latency_s=0.05), tmp_path / "log") as service,
        client_of(service, spec, "run") as client,
    ):
        client.submit([b"before"])
        assert client.drain(20)
        pid = service.pid
        assert pid is not None
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, hard))  # no file can grow, as on a full disk
        client.submit([b"during %d" % i for i in range(20)])
        client.record([seen(b"during 1")])
        eventually(lambda: "s.sqlite" in client.health.message and "written" in client.health.message)
        assert not client.drain(0.5)
        assert (service.pid, service.health.running) == (pid, True)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert client.drain(20)
        assert client.flush(20)
        eventually(lambda: client.health.message == "")
        assert service.pid == pid, "it was not restarted"
        assert {update.status for update in client.poll()} == {LabelStatus.LABELLED}
    with StoreReader(tmp_path / "s.sqlite") as reader:
        assert (reader.totals().annotations, reader.count(run_id="run")) == (21, 1)
