"""`oni inspect` and `oni serve` as a user starts them: the address, the pages behind it, how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import inspected_store
import pytest

from oni.cli.main import main

OPTIONS = ["--annotator.backend.kind", "scripted"]


@contextmanager
def running(*arguments: object, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Starts `oni` and yields its process and the address that it prints first."""
    command = [sys.executable, "-m", "oni.cli.main", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return inspected_store.fill(tmp_path / "store.sqlite")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_interrupted(store: Path, number: signal.Signals) -> None:
    with running("inspect", store) as (process, url):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/inspect/", url)
        assert "You take the yellow key." in httpx.get(url).text
        assert httpx.get(url.removesuffix("inspect/")).headers["location"] == "/inspect/"
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert "Ctrl-C ends the pages" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_it_shows_what_a_service_writes_meanwhile(store: Path) -> None:
    with running("inspect", store) as (_, url):
        assert "a new caption" not in httpx.get(f"{url}captions").text
        with inspected_store.Store(store) as writer:
            writer.add_occurrences("run-a", [inspected_store.occurrence(b"a new caption", 3, 99.0)])
        assert "a new caption" in httpx.get(f"{url}captions").text


def test_a_port_that_is_taken_is_said(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status = main(["inspect", str(store), "--port", str(taken.getsockname()[1])])
    assert status == 1
    assert "another process listens on 127.0.0.1:" in capsys.readouterr().err


def test_one_page_is_written(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "page.html"
    arguments = ["inspect", str(store), "--export", str(target), "--limit", "3", "--labeler", "judge-2"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{target}\n"
    html = target.read_text(encoding="utf-8")
    assert html.count('<article class="one"') == 3
    assert list(tmp_path.glob("*.partial")) == []


@pytest.mark.slow
def test_a_shared_annotator_has_the_pages_too_behind_its_token(tmp_path: Path) -> None:
    store = inspected_store.fill(tmp_path / "shared.sqlite")
    arguments = ("serve", "--store", store, "--port", 0, *OPTIONS)
    with running(*arguments, ONI_ANNOTATOR_TOKEN="secret") as (_, url), httpx.Client(base_url=url) as http:
        assert http.get("/healthz").json()["ok"]
        assert http.get("/v1/status").status_code == 401
        assert http.get("/inspect/").headers["location"].startswith("/inspect/login")
        assert http.post("/inspect/login", data={"token": "secret"}).headers["location"] == "/inspect/"
        assert "You take the yellow key." in http.get("/inspect/").text
        assert http.get("/v1/status").status_code == 401  # the cookie is for the pages alone


@pytest.mark.slow
def test_a_supervised_annotator_serves_no_pages(tmp_path: Path) -> None:
    from llm_annotator.config import AnnotatorConfig, BackendConfig
    from llm_annotator.supervisor import ServiceProcess

    config = AnnotatorConfig(backend=BackendConfig(kind="scripted"))
    with ServiceProcess(tmp_path / "store.sqlite", config, tmp_path / "log.txt") as service:
        assert httpx.get(f"{service.url}/inspect/").status_code == 404
