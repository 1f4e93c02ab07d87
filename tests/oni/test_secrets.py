"""A key and a token are planted; whatever a run, a service or a command writes is searched for them."""

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_annotator import wire
from tests.able_openai_server import AbleServer

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

KEY = "sk-planted-key-0123456789"
TOKEN = "planted-token-9876543210"

SETTINGS = """
name: probe
total_env_steps: 20_000
env: {id: "probe:intrinsic", num_envs: 32}
network: {hidden_size: 16, core: none}
ppo: {num_steps: 8, num_minibatches: 2, learning_rate: 5.0e-3}
reward: {kind: retrieval, intrinsic_coef: 1.0, count_exponent: 0.0}
"""

PLUGIN = '''
"""Repeats the key wherever it can."""
import os
import sys
from llm_annotator import BackendRejected, BackendUnreachable, Completion

class Cause(Exception):
    pass

class Leaky:
    name = "leaky"
    max_concurrent = 2

    def __init__(self, config):
        self.key = os.environ[config.api_key_env]
        self.model = f"model of {self.key}"
        self.asked = 0

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        pass

    async def complete(self, request):
        self.asked += 1
        try:
            raise Cause(f"cause {self.key}")
        except Cause as cause:
            if self.asked % 4 == 0:
                raise RuntimeError(f"internal {self.key}") from cause
            if self.asked % 4 == 1:
                raise BackendUnreachable(f"unreachable with {self.key}") from cause
        return Completion(
            sent_prefix=request.text_prefix + self.key,
            sent_suffix=request.text_suffix,
            text=" yes " + self.key if self.asked % 4 == 2 else "sorry, " + self.key,
            model=self.model,
            logprobs=None if self.asked % 4 == 3 else {" yes": -0.1, " no": -3.0, self.key: -9.0},
            tokens_in=3,
            tokens_out=1,
            latency_s=0.01,
        )

class Refusing(Leaky):
    async def complete(self, request):
        raise BackendRejected(f"refused {self.key}")

class Unmakeable:
    def __init__(self, config):
        from llm_annotator import ConfigError
        raise ConfigError(f"cannot work with {os.environ[config.api_key_env]}")
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A folder in which a package with leaky backends is installed."""
    folder = tmp_path / "installed"
    info = folder / "oni_leaky-1.dist-info"
    info.mkdir(parents=True)
    (folder / "oni_leaky.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: oni-leaky\nVersion: 1\n")
    names = {"leaky": "Leaky", "refusing": "Refusing", "unmakeable": "Unmakeable"}
    entries = "".join(f"{name} = oni_leaky:{value}\n" for name, value in names.items())
    (info / "entry_points.txt").write_text(f"[oni.backends]\n{entries}")
    return folder


def planted(plugin: Path) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join([root, str(plugin), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": paths, "TEST_KEY": KEY, "ONI_ANNOTATOR_TOKEN": TOKEN}


def oni(plugin: Path, *arguments: object) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "oni.cli.main", *map(str, arguments)]
    return subprocess.run(command, env=planted(plugin), capture_output=True, timeout=120, check=False)


def holds_secret(content: bytes) -> bool:
    """Returns whether something holds one of the two, a large part of it, or what an encoding makes of it."""
    secrets = (KEY.encode(), TOKEN.encode())
    forms = [form for secret in secrets for form in (secret, secret[3:-3], base64.b64encode(secret)[:-4])]
    return any(form in content for form in forms)


def search(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        assert not holds_secret(path.read_bytes()), f"{path} holds the key or the token"


def backend(kind: str, *more: str) -> list[str]:
    return [
        f"--annotator.backend.{name}={value}"
        for name, value in (("kind", kind), ("model", "m"), ("api-key-env", "TEST_KEY"))
    ] + list(more)


@pytest.mark.parametrize("kind", ["leaky", "refusing", "completions", "openai"])
def test_a_run_writes_no_key_anywhere(tmp_path: Path, plugin: Path, kind: str) -> None:
    settings = tmp_path / "probe.yaml"
    settings.write_text(SETTINGS)
    run_dir = tmp_path / "run"
    with AbleServer(repeats=True, alternatives=0, mode="crash" if kind == "openai" else "ok") as server:
        url = [] if kind in ("leaky", "refusing") else [f"--annotator.backend.base-url={server.base_url}"]
        drain = ["--annotator.drain-s=3", "--annotator.engine.backoff-s=0.05", "--annotator.engine.max-backoff-s=0.2"]
        done = oni(plugin, "train", "--config", settings, "--run-dir", run_dir, *backend(kind, *url), *drain)
        assert done.returncode == 0, done.stderr.decode()
        if url:
            assert server.requests[0].authorization == f"Bearer {KEY}", "it was used, and repeated by the server"
    assert not holds_secret(done.stdout + done.stderr)
    if kind in ("leaky", "refusing"):
        assert b"***" in b"".join(path.read_bytes() for path in run_dir.glob("annota*"))
    assert (run_dir / "checkpoints").is_dir()
    search(run_dir)
    for options in (["--text"], ["--json"], ["--json", "--show", "1"]):
        assert not holds_secret(oni(plugin, "inspect", run_dir, *options).stdout)


def test_no_command_prints_a_key(tmp_path: Path, plugin: Path) -> None:
    captions = tmp_path / "captions.txt"
    captions.write_text("you open it\nyou wander\n")
    for kind in ("leaky", "refusing", "unmakeable"):
        for command in (["label", captions], ["label", captions, "--json"], ["backends", "check"]):
            done = oni(plugin, *command, *backend(kind))
            assert done.stdout + done.stderr
            assert not holds_secret(done.stdout + done.stderr), f"oni {command} with {kind}"
    done = oni(plugin, "train", "--run-dir", tmp_path / "run", *backend("unmakeable"))
    assert done.returncode == 2
    assert b"cannot work with ***" in done.stderr
    assert not holds_secret(done.stderr)


@contextlib.contextmanager
def served(tmp_path: Path, plugin: Path, host: str) -> Iterator[str]:
    command = [sys.executable, "-m", "oni.cli.main", "serve", "--store", str(tmp_path / "store" / "s.sqlite")]
    command += ["--host", host, "--port", "0", *backend("leaky")]
    with (
        (tmp_path / "store.log").open("wb") as log,
        subprocess.Popen(command, env=planted(plugin), stdout=subprocess.PIPE, stderr=log) as process,
    ):
        assert process.stdout is not None
        try:
            yield process.stdout.readline().decode().strip()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def fetch(url: str, *, token: str | None = None, body: bytes | None = None) -> tuple[int, bytes]:
    headers = {"content-type": wire.CONTENT_TYPE} if body is not None else {}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as response:
            return response.status, response.read() + str(response.headers).encode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read() + str(error.headers).encode()


def test_a_service_tells_nobody_its_key_and_only_who_has_the_token_anything(tmp_path: Path, plugin: Path) -> None:
    from llm_annotator.client import AnnotatorClient
    from llm_annotator.config import LabelerConfig
    from llm_annotator.labeler import resolve_labeler

    with served(tmp_path, plugin, "127.0.0.1") as url:
        spec = resolve_labeler(LabelerConfig(goal="open the box"))
        with AnnotatorClient(url, "run", "run", {}, spec, TOKEN) as client:
            client.submit([b"caption %d" % i for i in range(12)])
            deadline = time.monotonic() + 20
            while client.health.labelled < 3 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert client.health.labelled >= 3
            assert not holds_secret(repr(client.health).encode())
        # What is to be had without the token: that there is an annotator, and nothing of what it holds.
        status, body = fetch(f"{url}/healthz")
        assert status == 200
        assert set(json.loads(body.split(b"}")[0] + b"}")) == {"ok", "instance", "asking"}
        assert not holds_secret(body)
        wrong = [None, "", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\u00e9"]
        for path in ("/v1/status", "/metrics"):
            assert {fetch(url + path, token=token)[0] for token in wrong} == {401}
            status, body = fetch(url + path, token=TOKEN)
            assert (status, holds_secret(body)) == (200, False)
        for path in ("/v1/runs", "/v1/captions", "/v1/labels", "/v1/occurrences", "/v1/transitions", "/v1/scores"):
            assert {fetch(url + path, token=token, body=b"\x80")[0] for token in wrong} == {401}
            status, body = fetch(url + path, token=TOKEN, body=b"\x80")
            assert status in (400, 409)
            assert not holds_secret(body)
            status, body = fetch(url + path, token=TOKEN, body=bytes(wire.MAX_BODY_BYTES + 1))
            assert (status, b"too_large" in body) == (413, True), "a request is not read beyond its bound"
        for path in ("/inspect/", "/inspect/captions", "/inspect/caption/1"):
            status, body = fetch(url + path, token=TOKEN)
            assert not holds_secret(body), path
            status, body = fetch(url + path)
            assert status in (401, 403, 404) or b"token" in body.lower(), path
            assert b"caption 1" not in body
            assert not holds_secret(body)
    assert (tmp_path / "store.log").stat().st_size > 0
    for path in (tmp_path / "store.log", *(tmp_path / "store").iterdir()):
        assert not holds_secret(path.read_bytes()), f"{path} holds the key or the token"


def test_an_address_that_others_reach_is_not_served_without_a_token(tmp_path: Path, plugin: Path) -> None:
    command = [sys.executable, "-m", "oni.cli.main", "serve", "--store", str(tmp_path / "s.sqlite")]
    environment = planted(plugin)
    del environment["ONI_ANNOTATOR_TOKEN"]
    for host in ("0.0.0.0", "::"):
        done = subprocess.run(
            [*command, "--host", host, "--port", "0", *backend("leaky")],
            env=environment,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert b"set a token in the environment variable ONI_ANNOTATOR_TOKEN" in done.stderr
        assert not (tmp_path / "s.sqlite").exists()
