"""Failures of an OpenAI-compatible server, against a real one on loopback, through both backends that ask such."""

import asyncio
import math
import socket
import traceback
from collections.abc import Iterator

import pytest

from llm_annotator.backends import create_backend
from llm_annotator.backends.failures import retry_after_s
from llm_annotator.config import BackendConfig, LabelerConfig
from llm_annotator.errors import (
    BackendAnswerInvalid,
    BackendError,
    BackendOverloaded,
    BackendRejected,
    BackendUnreachable,
    ConfigError,
)
from llm_annotator.labeler import Labeler, resolve_labeler
from llm_annotator.types import Completion
from tests.fake_openai_server import FakeOpenAIServer

SECRET = "sk-planted-0123456789"

SETTINGS: dict[str, object] = {"model": "m", "api_key_env": "ONI_TEST_KEY"}
"""Of the backend; its kind is set for each test."""


@pytest.fixture(scope="module")
def shared_server() -> Iterator[FakeOpenAIServer]:
    with FakeOpenAIServer() as server:
        yield server


@pytest.fixture(params=["openai", "completions"])
def server(
    shared_server: FakeOpenAIServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> FakeOpenAIServer:
    monkeypatch.setenv("ONI_TEST_KEY", SECRET)
    monkeypatch.setitem(SETTINGS, "kind", request.param)
    shared_server.mode = "ok"
    shared_server.requests.clear()
    return shared_server


def config(server: FakeOpenAIServer, **changes: object) -> BackendConfig:
    settings = {**SETTINGS, "base_url": server.base_url, **changes}
    return BackendConfig(**settings)  # pyright: ignore[reportArgumentType]


def ask(config: BackendConfig) -> Completion:
    async def go() -> Completion:
        async with create_backend(config) as backend:
            labeler = Labeler(resolve_labeler(LabelerConfig()), backend.model)
            return await backend.complete(labeler.request(b"You open the door."))

    return asyncio.run(go())


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_question_is_sent_as_the_api_asks(server: FakeOpenAIServer, api: str) -> None:
    completion = ask(config(server, api=api))
    (seen,) = server.requests
    assert seen.authorization == f"Bearer {SECRET}"
    assert (completion.tokens_in, completion.tokens_out) == (120, 1)
    assert completion.logprobs == {" yes": -0.2, " Yes": -2.5, " no": -3.0, "\n": -4.0}
    if api == "chat":
        assert seen.path == "/v1/chat/completions"
        assert (seen.body["logprobs"], seen.body["top_logprobs"]) == (True, 20)
        assert [turn["role"] for turn in seen.body["messages"]][:3] == ["system", "user", "assistant"]
        assert seen.body["messages"][-1]["role"] == "user"
        assert completion.model == "m"
    else:
        assert seen.path == "/v1/completions"
        assert seen.body["logprobs"] == 20
        assert seen.body["prompt"] == completion.sent_prefix + completion.sent_suffix
        assert completion.model == "m (completions)"


def test_chat_prompt_that_is_kept_is_the_one_that_was_sent(server: FakeOpenAIServer) -> None:
    import json

    completion = ask(config(server))
    assert json.loads(completion.sent_prefix + completion.sent_suffix) == server.requests[0].body["messages"]


def test_newer_form_of_completions_is_read(server: FakeOpenAIServer) -> None:
    server.mode = "newer"
    assert (ask(config(server, api="completions")).logprobs or {})[" no"] == -3.0


def test_without_logprobs_the_text_is_all(server: FakeOpenAIServer) -> None:
    server.mode = "no_logprobs"
    completion = ask(config(server))
    assert completion.logprobs is None
    judgement = Labeler(resolve_labeler(LabelerConfig()), "m").judge(completion)
    assert (judgement.helpful, judgement.score) == (True, None)


def test_what_changes_the_reading_is_another_model(server: FakeOpenAIServer) -> None:
    text_only = {"top_logprobs": 0}
    configs = [
        config(server, api=api, options=options) for api in ("chat", "completions") for options in ({}, text_only)
    ]
    models = [create_backend(item).model for item in configs]
    assert models == ["m", "m (first word)", "m (completions)", "m (completions, first word)"]
    spec = resolve_labeler(LabelerConfig())
    assert len({Labeler(spec, model).id for model in models}) == 4


def test_options_change_the_fields(server: FakeOpenAIServer) -> None:
    ask(config(server, options={"top_logprobs": 0, "max_tokens_field": "max_completion_tokens"}))
    body = server.requests[0].body
    assert "logprobs" not in body
    assert "max_tokens" not in body
    assert body["max_completion_tokens"] == 3
    assert body["temperature"] == 0.0


def test_no_key_sends_none_not_that_of_another_variable(
    server: FakeOpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    ask(config(server, api_key_env="ONI_TEST_UNSET"))
    assert server.requests[0].authorization is None


@pytest.mark.parametrize(
    ("mode", "kind", "says"),
    [
        ("bad_key", BackendRejected, "ONI_TEST_KEY.*was refused"),
        ("no_model", BackendRejected, "404.*no model 'm'.*base_url"),
        ("bad_request", BackendRejected, "400.*top_logprobs"),
        ("broke", BackendRejected, "no credit"),
        ("busy", BackendOverloaded, "429.*busy"),
        ("crash", BackendOverloaded, "500"),
        ("loading", BackendOverloaded, "503.*Loading model"),
        ("no_gateway", BackendUnreachable, "502"),
        ("truncated", BackendAnswerInvalid, "not the JSON"),
        ("garbage", BackendAnswerInvalid, "ends in /v1"),
        ("empty", BackendAnswerInvalid, "not the JSON"),
        ("list", BackendAnswerInvalid, "not the JSON"),
        ("no_choices", BackendAnswerInvalid, "without any choice"),
    ],
)
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_failure_is_told_apart_and_explained(
    server: FakeOpenAIServer, api: str, mode: str, kind: type[BackendError], says: str
) -> None:
    server.mode = mode
    with pytest.raises(kind, match=says) as caught:
        ask(config(server, api=api))
    assert type(caught.value) is kind
    if mode != "bad_request":  # of a field that is refused, it is tried what the server takes without it
        assert len(server.requests) == 1, "nothing is to be asked twice"
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    assert SECRET not in repr(caught.value)


def test_missing_key_is_named(server: FakeOpenAIServer) -> None:
    server.mode = "bad_key"
    with pytest.raises(BackendRejected, match="ONI_TEST_UNSET.*not set"):
        ask(config(server, api_key_env="ONI_TEST_UNSET"))


@pytest.mark.parametrize(("mode", "seconds"), [("busy", 7.0), ("loading", 2.5), ("crash", None)])
def test_pause_that_the_server_asks_for_is_passed_on(
    server: FakeOpenAIServer, mode: str, seconds: float | None
) -> None:
    server.mode = mode
    with pytest.raises(BackendOverloaded) as caught:
        ask(config(server))
    assert caught.value.retry_after_s == seconds


@pytest.mark.parametrize(
    ("mode", "may_cost"),
    [
        ("busy", False),
        ("loading", False),
        ("bad_key", False),
        ("no_model", False),
        ("bad_request", False),
        ("no_gateway", False),
        ("crash", True),
        ("garbage", True),
    ],
)
def test_what_the_server_did_not_take_up_costs_nothing(server: FakeOpenAIServer, mode: str, may_cost: bool) -> None:
    server.mode = mode
    with pytest.raises(BackendError) as caught:
        ask(config(server))
    assert caught.value.may_cost is may_cost


def test_slow_server_is_given_up(server: FakeOpenAIServer) -> None:
    server.mode = "slow"
    with pytest.raises(BackendOverloaded, match=r"within 0.1 s.*timeout_s") as caught:
        ask(config(server, timeout_s=0.1))
    assert caught.value.may_cost, "it may be at work on it"


def test_nobody_at_the_address(server: FakeOpenAIServer) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, but nobody listens
        url = f"http://user:{SECRET}@127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(BackendUnreachable, match="nothing answers at http://127.0.0.1") as caught:
            ask(config(server, base_url=url))
    assert SECRET not in str(caught.value)
    assert not caught.value.may_cost


def test_server_that_hangs_up_is_unreachable(server: FakeOpenAIServer) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(5)

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.close()

        async def go() -> Completion:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            hanging_up = asyncio.create_task(asyncio.to_thread(hang_up))
            async with create_backend(config(server, base_url=url)) as backend:
                labeler = Labeler(resolve_labeler(LabelerConfig()), backend.model)
                try:
                    return await backend.complete(labeler.request(b"Hi."))
                finally:
                    await hanging_up

        with pytest.raises(BackendUnreachable) as caught:
            asyncio.run(go())
        assert caught.value.may_cost


def test_key_with_impossible_characters_is_refused_unseen(
    server: FakeOpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONI_TEST_KEY", f"{SECRET}\nX-Other: 1")
    with pytest.raises(ConfigError, match="ONI_TEST_KEY") as caught:
        create_backend(config(server))
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_key_may_end_in_a_line_end(server: FakeOpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONI_TEST_KEY", f"{SECRET}\n")
    ask(config(server))
    assert server.requests[0].authorization == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://x/v1", "http://", "http://x:0/v1", "http://x:abc", "http://[1"]
)
def test_address_that_is_none_is_refused(server: FakeOpenAIServer, url: str) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        create_backend(config(server, base_url=url))


def test_model_is_required(server: FakeOpenAIServer) -> None:
    with pytest.raises(ConfigError, match="backend.model"):
        create_backend(config(server, model=None))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("-1", 0.0), ("", None), ("soon", None), ("inf", None), ("nan", None)],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after_s({"retry-after": value}) == seconds


def test_retry_after_as_a_date() -> None:
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    later = retry_after_s({"retry-after": "Wed, 21 Oct 2515 07:28:00 GMT"})
    assert later is not None
    assert math.isfinite(later)
