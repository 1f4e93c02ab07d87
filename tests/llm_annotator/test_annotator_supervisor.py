"""The supervised service under fire: real processes are killed."""

import http.server
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_annotator.client import AnnotatorClient
from llm_annotator.config import AnnotatorConfig, BackendConfig, LabelerConfig
from llm_annotator.errors import ConfigError, StoreCorrupt, StoreNewerSchema
from llm_annotator.labeler import LabelerSpec, resolve_labeler
from llm_annotator.store import Store, StoreReader
from llm_annotator.supervisor import ServiceProcess


def scripted(**options: Any) -> AnnotatorConfig:
    return AnnotatorConfig(backend=BackendConfig(kind="scripted", max_concurrent=4, options=options))


@pytest.fixture(scope="module")
def spec() -> LabelerSpec:
    return resolve_labeler(LabelerConfig(goal="open the box"))


def eventually(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """A zombie counts as dead: nobody may be left to reap an orphan."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def mark_newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


@pytest.mark.slow
def test_kill_9_loses_no_acknowledged_label_and_the_client_goes_on(tmp_path: Path, spec: LabelerSpec) -> None:
    path = tmp_path / "annotations.sqlite"
    captions = [b"caption %d" % i for i in range(600)]
    with ServiceProcess(path, scripted(latency_s=0.004), tmp_path / "log") as service:
        url, first_pid = service.url, service.pid
        assert first_pid is not None
        with AnnotatorClient(url, "run", "run", {}, spec, service.token) as client:
            client.submit(captions)
            eventually(lambda: client.health.labelled > 50)
            os.kill(first_pid, signal.SIGKILL)
            acknowledged = {update.caption: update.helpful for update in client.poll()}
            assert 50 < len(acknowledged) < 600, "killed in the midst of work"
            assert client.drain(30)
            later = client.poll()
        assert service.health.restarts == 1
        assert "SIGKILL" in service.health.last_exit
        assert (service.url, service.health.running) == (url, True)
        assert service.pid != first_pid
    told = [*acknowledged, *(update.caption for update in later)]
    assert sorted(told) == sorted(captions), "each is told once"
    with StoreReader(path) as reader:
        rows = {row.text: row for row in reader.captions(limit=1000)}
        assert {text: rows[text].helpful for text in acknowledged} == acknowledged
        assert len(rows) == 600
        assert all(row.status == "labelled" for row in rows.values())
        assert reader.totals().annotations == 600, "none was stored twice"


@pytest.mark.slow
def test_the_service_ends_with_its_run_even_if_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from llm_annotator.config import AnnotatorConfig, BackendConfig\n"
        "from llm_annotator.supervisor import ServiceProcess\n"
        "folder = Path(sys.argv[1])\n"
        "config = AnnotatorConfig(backend=BackendConfig(kind='scripted'))\n"
        "with ServiceProcess(folder / 's.sqlite', config, folder / 'log') as service:\n"
        "    print(service.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )
    assert run.stdout is not None
    with run, run.stdout:
        pid = int(run.stdout.readline())
        assert alive(pid)
        run.kill()
    eventually(lambda: not alive(pid))


def test_only_who_has_the_token_gets_in_and_nobody_can_look_it_up(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path / "s.sqlite", scripted(), tmp_path / "log") as service:
        headers = {"authorization": f"Bearer {service.token}"}
        assert httpx.get(f"{service.url}/v1/status").status_code == 401
        assert httpx.get(f"{service.url}/v1/status", headers=headers).status_code == 200
        for file in ("cmdline", "environ"):
            assert service.token.encode() not in Path(f"/proc/{service.pid}/{file}").read_bytes()
    assert service.token not in (tmp_path / "log").read_text()
    assert ServiceProcess(tmp_path / "s.sqlite", scripted(), tmp_path / "log").token != service.token


def test_what_is_printed_before_the_report_and_after_it_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('hello')\nprint('3')\nprint('{}', flush=True)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with ServiceProcess(tmp_path / "s.sqlite", scripted(), tmp_path / "log") as service:
        assert service.health.running
        assert Path(f"/proc/{service.pid}/fd/1").readlink() == tmp_path / "log"


def test_files_of_the_folder_that_the_user_is_in_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("msgpack", "queue", "llm_annotator"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is a file of the user')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with ServiceProcess(tmp_path / "s.sqlite", scripted(), tmp_path / "log") as service:
        assert service.health.running


def test_close_ends_the_service(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path / "s.sqlite", scripted(), tmp_path / "log") as service:
        pid = service.pid
        assert pid is not None
    assert not alive(pid)
    assert service.pid is None
    assert not service.health.running
    service.close()


@pytest.mark.slow
def test_what_no_restart_can_mend_is_raised_at_the_start(tmp_path: Path) -> None:
    newer = tmp_path / "newer.sqlite"
    Store(newer).close()
    mark_newer(newer)
    with pytest.raises(StoreNewerSchema, match="upgrade oni-jax"):
        ServiceProcess(newer, scripted(), tmp_path / "log").__enter__()
    (tmp_path / "notes.sqlite").write_text("no database\n" * 100)
    with pytest.raises(StoreCorrupt, match="not an annotation store"):
        ServiceProcess(tmp_path / "notes.sqlite", scripted(), tmp_path / "log").__enter__()
    with pytest.raises(ConfigError, match="no_such_option"):
        ServiceProcess(tmp_path / "s.sqlite", scripted(no_such_option=1), tmp_path / "log").__enter__()


@pytest.mark.slow
def test_what_no_restart_can_mend_ends_the_restarts(tmp_path: Path, spec: LabelerSpec) -> None:
    path = tmp_path / "s.sqlite"
    with ServiceProcess(path, scripted(), tmp_path / "log") as service:
        mark_newer(path)
        pid = service.pid
        assert pid is not None
        with AnnotatorClient(service.url, "run", "run", {}, spec, service.token) as client:
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: "upgrade oni-jax" in service.health.given_up)
            client.submit([b"a"])
            eventually(lambda: "Nothing answers" in client.health.message)
        assert not service.health.running
        assert service.health.restarts == 1


class _Indiscreet(http.server.BaseHTTPRequestHandler):
    """Refuses every key, and repeats it, as some servers do."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        message = f"Incorrect API key provided: {self.headers['authorization']}"
        body = json.dumps({"error": {"message": message, "code": "invalid_api_key"}}).encode()
        self.send_response(401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.slow
def test_keys_stay_out_of_log_and_store(tmp_path: Path, spec: LabelerSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_API_KEY", "sk-very-secret")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Indiscreet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        backend = BackendConfig(kind="openai", model="some-model", base_url=url, api_key_env="TEST_API_KEY")
        try:
            with (
                ServiceProcess(tmp_path / "s.sqlite", AnnotatorConfig(backend=backend), tmp_path / "log") as service,
                AnnotatorClient(service.url, "run", "run", {}, spec, service.token) as client,
            ):
                client.submit([b"a"])
                eventually(lambda: "refuses" in client.health.message)
                assert "TEST_API_KEY" in client.health.message or "api_key_env" in client.health.message
                assert "sk-very-secret" not in client.health.message
                assert (client.health.queued, client.health.failed) == (1, 0), "a wrong key is not the caption's fault"
        finally:
            server.shutdown()
            thread.join()
    for file in tmp_path.iterdir():
        assert b"sk-very-secret" not in file.read_bytes()
