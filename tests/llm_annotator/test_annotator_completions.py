"""What the backend `completions` sees to itself, since it asks by plain HTTP; and that no key is kept anywhere."""

import asyncio
import gzip
import json
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, RedirectResponse, Response

from llm_annotator.backends import create_backend
from llm_annotator.backends.completions import MAX_BODY_BYTES, _proxy
from llm_annotator.backends.failures import Failures, FieldRefused
from llm_annotator.config import BackendConfig, LabelerConfig
from llm_annotator.errors import BackendAnswerInvalid, BackendError, BackendOverloaded, BackendRejected, ConfigError
from llm_annotator.labeler import Answered, Labeler, resolve_labeler
from llm_annotator.store import StoreReader
from oni.cli import backends
from tests.able_openai_server import AbleServer
from tests.answered_store import answer_into

SECRET = "sk-planted-0123456789"


@pytest.fixture(scope="module")
def shared_server() -> Iterator[AbleServer]:
    with AbleServer() as server:
        yield server


@pytest.fixture
def server(shared_server: AbleServer, monkeypatch: pytest.MonkeyPatch) -> AbleServer:
    monkeypatch.setenv("ONI_TEST_KEY", SECRET)
    return shared_server.become()


def config(server: AbleServer, **changes: Any) -> BackendConfig:
    settings = {"kind": "completions", "model": "m", "base_url": server.base_url, "api_key_env": "ONI_TEST_KEY"}
    return BackendConfig(**settings | changes)


def ask(config: BackendConfig, method: str = "choice") -> Answered:
    async def go() -> Answered:
        async with create_backend(config) as backend:
            labeler = Labeler(resolve_labeler(LabelerConfig(method=method)), backend.model)  # pyright: ignore[reportArgumentType]
            return await labeler.ask(backend.complete, b"You open the door.")

    return asyncio.run(go())


class Odd(AbleServer):
    """Answers with `answer`, whatever is asked."""

    answer: Response = Response()

    def complete(self, body: dict[str, Any], *, chat: bool, authorization: str) -> dict[str, Any] | Response:
        return self.answer


@pytest.fixture(scope="module")
def odd() -> Iterator[Odd]:
    with Odd() as server:
        yield server


def test_an_answer_of_any_size_is_not_read_whole(server: AbleServer, odd: Odd) -> None:
    odd.answer = Response(b" " * (MAX_BODY_BYTES + 1))
    with pytest.raises(BackendAnswerInvalid, match=f"more than {MAX_BODY_BYTES} bytes"):
        ask(config(odd))


def test_a_long_text_is_cut(server: AbleServer) -> None:
    server.become(alternatives=0, says="no\n" + "x" * 100_000)
    answer = ask(config(server))
    assert len(answer.completion.text) == 65_536
    assert answer.judgement.helpful is False


def test_compressed_answers_are_read(server: AbleServer, odd: Odd) -> None:
    good = {"choices": [{"message": {"content": "yes"}}], "model": "m"}
    packed = gzip.compress(json.dumps(good).encode())
    odd.answer = Response(packed, headers={"content-encoding": "gzip"})
    assert ask(config(odd)).judgement.helpful is True
    odd.answer = Response(packed[:-10], headers={"content-encoding": "gzip"})
    with pytest.raises(BackendAnswerInvalid):
        ask(config(odd))
    odd.answer = Response(b"not gzip", headers={"content-encoding": "gzip"})
    with pytest.raises(BackendAnswerInvalid):
        ask(config(odd))


def test_a_redirection_is_not_followed_with_the_key(server: AbleServer, odd: Odd) -> None:
    odd.answer = RedirectResponse(f"{server.base_url}/chat/completions", status_code=307)
    with pytest.raises(BackendRejected, match="307"):
        ask(config(odd))
    assert server.requests == []


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (JSONResponse({"error": "model 'm' not found"}, status_code=404), BackendRejected, "says: model 'm' not found"),
        (JSONResponse({"detail": [{"msg": "bad"}]}, status_code=422), BackendRejected, "bad"),
        (JSONResponse({"message": "too long", "code": 400}, status_code=400), BackendRejected, "too long"),
        (JSONResponse(["?"], status_code=500), BackendOverloaded, "500"),
        (Response("[" * 100_000, status_code=500), BackendOverloaded, "500"),
        (Response("[" * 100_000), BackendAnswerInvalid, "not the JSON"),
        (Response(b'{"choices": [{"text": "\xff"}]}'), BackendAnswerInvalid, "not the JSON"),
        (JSONResponse({"choices": "none"}), BackendAnswerInvalid, "without any choice"),
        (Response("nothing", status_code=501), BackendRejected, "501"),
    ],
)
def test_servers_say_what_is_wrong_in_many_ways(
    server: AbleServer, odd: Odd, answer: Response, kind: type[BackendError], says: str
) -> None:
    odd.answer = answer
    with pytest.raises(kind, match=says) as caught:
        ask(config(odd))
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("code", "error", "field"),
    [
        (400, {"message": "Unsupported parameter", "param": "max_tokens"}, "max_tokens"),
        (400, {"message": "Unrecognized request argument supplied: logprobs"}, "logprobs"),
        (400, {"message": "Logprobs is not enabled for this model", "param": "body"}, "logprobs"),
        (403, {"message": "You are not allowed to request logprobs from this model"}, "logprobs"),
        (422, {"message": "no"}, ""),
    ],
)
def test_field_that_a_server_finds_fault_with_is_found(code: int, error: dict[str, str], field: str) -> None:
    failures = Failures(BackendConfig(), url="http://x/v1", key=None)
    refusal = failures.status(code, {}, json.dumps({"error": error}))
    assert isinstance(refusal, FieldRefused)
    assert (refusal.field, refusal.status) == (field, code)
    assert type(refusal.plain()) is BackendRejected


def test_other_things_that_are_forbidden_are_the_keys_matter() -> None:
    failures = Failures(BackendConfig(), url="http://x/v1", key=SECRET)
    refusal = failures.status(403, {}, json.dumps({"error": {"message": f"not with {SECRET[:9]}", "param": "model"}}))
    assert type(refusal) is BackendRejected
    assert "OPENAI_API_KEY" in str(refusal)
    assert SECRET[:9] not in str(refusal), "some servers repeat a part of the key"


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"message": None},
        {"message": {"content": None}},
        {"message": {"content": ["yes"]}},
        {"message": {"content": "yes"}, "logprobs": {"content": [{"top_logprobs": [{"token": "yes"}]}]}},
        {"message": {"content": "maybe"}, "logprobs": "none"},
    ],
)
def test_absurd_answers_of_the_right_form_are_no_fault_of_ours(
    server: AbleServer, odd: Odd, choice: dict[str, Any]
) -> None:
    odd.answer = JSONResponse({"choices": [choice], "usage": "much", "model": 3})
    judgement = ask(config(odd)).judgement
    assert (judgement.helpful is True) == ((choice.get("message") or {}).get("content") == "yes")
    assert judgement.score is None


def test_proxy_of_the_environment_is_used_but_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert _proxy("https://api.example/v1") == "http://proxy:3128"
    for url in ("http://127.0.0.1:8000/v1", "http://localhost/v1", "http://[::1]:1/v1", "http://inside.example/v1"):
        assert _proxy(url) is None


@pytest.mark.parametrize("text", ["[]", "{", "yes", "3"])
def test_further_fields_that_are_no_object_are_refused(server: AbleServer, text: str) -> None:
    with pytest.raises(ConfigError, match="extra_body.*JSON object"):
        create_backend(config(server, options={"extra_body": text}))


@pytest.mark.parametrize(
    ("kind", "abilities"),
    [
        ("completions", {"alternatives": 0, "says": f"Bearer {SECRET}"}),
        ("completions", {"says": f"yes {SECRET}", "thinks": "reasoning"}),
        ("completions", {"alternatives": 0, "refuses": ("temperature",), "strict": True}),
        ("openai", {"alternatives": 0, "heeds": "grammar"}),
    ],
)
def test_no_key_is_kept_even_if_the_server_repeats_it(
    server: AbleServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    kind: str,
    abilities: dict[str, Any],
) -> None:
    caplog.set_level(logging.INFO)
    store = tmp_path / "annotations.sqlite"
    settings = config(server, kind=kind)
    for method in ("choice", "reasoned"):
        server.become(repeats=True, named=SECRET, **abilities)
        spec = resolve_labeler(LabelerConfig(method=method))  # pyright: ignore[reportArgumentType]
        answer_into(store, [b"You open the door.", b"It rains."], settings, spec)
        options = [f"--annotator.backend.{name}={getattr(settings, name)}" for name in ("kind", "model", "base_url")]
        options += ["--annotator.backend.api-key-env=ONI_TEST_KEY", f"--annotator.labeler.method={method}"]
        assert backends.main(["check", *options, *(["--json"] if method == "choice" else [])]) in (0, 1)
    assert {seen.authorization for seen in server.requests} == {f"Bearer {SECRET}"}
    shown = capsys.readouterr()
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    with StoreReader(store) as reader:
        assert reader.totals().annotations == 4
    for place in (shown.out, shown.err, caplog.text, kept.decode("latin-1")):
        assert SECRET not in place


@pytest.mark.parametrize("mode", ["bad_key", "no_model", "bad_request", "crash", "garbage"])
def test_no_key_is_in_an_error_of_a_look(server: AbleServer, mode: str) -> None:
    server.mode = mode
    with pytest.raises(BackendError) as caught:
        ask(config(server), "reasoned")
    assert SECRET not in "".join(traceback.format_exception(caught.value))
