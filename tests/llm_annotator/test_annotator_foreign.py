"""What a third party's backend may do wrong, and that none of it harms the annotator or shows a secret."""

import asyncio
import datetime
import logging
import math
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import pytest

from llm_annotator import backends as registry
from llm_annotator.backends import create_backend
from llm_annotator.backends.capabilities import Capabilities, ShowsCapabilities
from llm_annotator.backends.foreign import adopt
from llm_annotator.captions import printable
from llm_annotator.config import BackendConfig, LabelerConfig
from llm_annotator.errors import (
    AnnotatorError,
    BackendAnswerInvalid,
    BackendError,
    BackendOverloaded,
    BackendRejected,
    BackendUnreachable,
    ConfigError,
)
from llm_annotator.labeler import Labeler, resolve_labeler
from llm_annotator.secret import backend_secrets, redactor
from llm_annotator.types import Completion, Request
from oni.cli import backends, label

KEY, PASSWORD = "sk-planted-4711", "pass word"
SPEC = resolve_labeler(LabelerConfig(goal="open the box", threshold=0.0))


class OwnError(BackendOverloaded):
    """An error that a third party made of ours, which wants other arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two} {KEY}", retry_after_s=7.0)


class Loose:
    """A backend that does what `act` says and repeats what it should not."""

    name = "loose"
    max_concurrent = 2

    def __init__(self, act: Callable[[Request], Any], model: object = "loose-1") -> None:
        self._act = act
        self.model = model
        self.is_open = False

    async def complete(self, request: Request) -> Completion:
        return self._act(request)

    async def __aenter__(self) -> Self:
        self.is_open = True
        if self.model == "unknown":
            self.model = "known by now"
        if self.model == "crash":
            raise KeyError(KEY)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.is_open = False


class Telling(Loose):
    """One that says what it can do."""

    capabilities = Capabilities(log_probabilities=True)

    async def look(self) -> Capabilities:
        raise BackendUnreachable(f"no answer to Bearer {KEY}")


def answer(**fields: Any) -> Completion:
    values: dict[str, Any] = {"sent_prefix": "a", "sent_suffix": "b", "text": "yes", "model": "m", "latency_s": 0.1}
    return Completion(**values | fields)


def fail(error: Exception) -> Callable[[Request], Any]:
    def act(request: Request) -> Any:
        raise error

    return act


def ask(backend: Loose) -> Completion:
    async def go() -> Completion:
        async with adopt(cast("Any", backend), "loose", redactor([KEY])) as adopted:
            return await adopted.complete(SPEC.request(b"You open the box."))

    return asyncio.run(go())


def test_a_good_answer_is_left_as_it_is() -> None:
    good = answer(logprobs={"yes": -0.1, "no": -2.0}, tokens_in=3, constraint="grammar", cut=True)
    assert ask(Loose(lambda _: good)) == good


def test_no_secret_of_an_answer_is_kept() -> None:
    fields = dict.fromkeys(("sent_prefix", "sent_suffix", "text", "model", "constraint"), f"x {KEY} y")
    kept = ask(Loose(lambda _: answer(**fields, logprobs={KEY: -0.1, "no": -3.0})))
    assert KEY not in repr(kept)
    assert kept.text == "x *** y"
    assert kept.logprobs == {"***": -0.1, "no": -3.0}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BackendRejected(f"refused {KEY}"), BackendRejected),
        (BackendUnreachable(f"{KEY}"), BackendUnreachable),
        (OwnError(1, 2), BackendOverloaded),
        (BackendError(f"odd {KEY}"), BackendError),
    ],
)
def test_errors_keep_their_class_and_lose_the_secret(error: BackendError, kind: type[BackendError]) -> None:
    error.status = 499
    with pytest.raises(BackendError) as caught:
        ask(Loose(fail(error)))
    assert type(caught.value) is kind
    assert KEY not in str(caught.value)
    assert "***" in str(caught.value)
    said = caught.value
    assert (said.retryable, said.retry_after_s, said.status) == (error.retryable, error.retry_after_s, 499)


def test_an_error_without_a_secret_stays_itself() -> None:
    error = BackendRejected("no such model")
    with pytest.raises(BackendRejected) as caught:
        ask(Loose(fail(error)))
    assert caught.value is error


def test_a_bug_of_it_is_said_to_be_its_own_and_the_log_has_the_trace_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def go() -> None:
        backend = Loose(fail(KeyError(f"headers of {KEY}")))
        async with adopt(cast("Any", backend), "loose", redactor([KEY])) as adopted:
            for _ in range(2):
                with pytest.raises(BackendAnswerInvalid, match="backend 'loose' failed on a question .KeyError"):
                    await adopted.complete(SPEC.request(b"x"))
        assert not backend.is_open

    asyncio.run(go())
    assert caplog.text.count("Traceback") == 1
    assert KEY not in caplog.text


@pytest.mark.parametrize("returned", [None, "yes", answer(text=None)])
def test_what_is_no_completion_is_no_answer(returned: object) -> None:
    with pytest.raises(BackendAnswerInvalid, match="not a Completion with a text"):
        ask(Loose(lambda _: returned))


@pytest.mark.parametrize(
    ("tokens", "kept"),
    [(7, 7), (np.int64(7), 7), (2**64 - 1, None), (10**30, None), (-1, None), (True, None), ("7", None), (7.0, None)],
)
def test_a_count_that_no_server_can_have_meant_is_none(tokens: Any, kept: int | None) -> None:
    got = ask(Loose(lambda _: answer(tokens_in=tokens, tokens_out=tokens)))
    assert (got.tokens_in, got.tokens_out) == (kept, kept)
    assert type(got.tokens_in) is type(kept)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sent_prefix", None),
        ("sent_suffix", b"x"),
        ("model", 3),
        ("constraint", None),
        ("latency_s", datetime.timedelta(seconds=1)),
        ("latency_s", math.nan),
        ("latency_s", -1.0),
        ("logprobs", [("yes", -0.1)]),
        ("logprobs", {"yes": "-0.1"}),
        ("logprobs", {"yes": math.nan, "no": -1.0}),
        ("logprobs", {1: -0.1}),
    ],
)
def test_a_field_that_cannot_be_kept_is_said_and_no_answer(field: str, value: Any) -> None:
    with pytest.raises(BackendAnswerInvalid, match=f"backend 'loose' returned a Completion whose {field} is not"):
        ask(Loose(lambda _: answer(**{field: value})))


def test_numbers_of_numpy_are_taken_as_numbers() -> None:
    got = ask(Loose(lambda _: answer(latency_s=np.float32(0.5), logprobs={"yes": np.float32(-0.5), "no": -math.inf})))
    assert got == answer(latency_s=0.5, logprobs={"yes": -0.5})
    assert got.logprobs is not None
    assert type(got.latency_s) is type(got.logprobs["yes"]) is float


def test_nothing_that_a_terminal_obeys_is_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    escapes = "\x1b]0;title\x07\x1b[2J\u202egone"
    for error in (BackendRejected(escapes), KeyError(escapes), ValueError(escapes), ConfigError(escapes)):
        with pytest.raises(AnnotatorError) as caught:
            ask(Loose(fail(error)))
        assert printable(str(caught.value)) == str(caught.value)
        assert "gone" in str(caught.value)
    assert "title" in caplog.text
    assert printable(caplog.text, keep_lines=True) == caplog.text


@pytest.mark.parametrize(("asked", "granted"), [(3, 3.0), ("3", None), (math.nan, None), (-1.0, None)])
def test_a_pause_is_a_number_of_seconds_or_none(asked: Any, granted: float | None) -> None:
    with pytest.raises(BackendOverloaded) as caught:
        ask(Loose(fail(BackendOverloaded("busy", retry_after_s=asked))))
    assert caught.value.retry_after_s == granted


def test_a_model_that_is_known_when_open_is_taken_then() -> None:
    adopted = adopt(cast("Any", Loose(lambda _: answer(), model="unknown")), "loose", str)

    async def go() -> None:
        async with adopted as opened:
            assert (opened.name, opened.model, opened.max_concurrent) == ("loose", "known by now", 2)

    asyncio.run(go())


def test_one_that_cannot_be_opened_or_made_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"backend 'loose' failed as it was opened .KeyError: '\*\*\*'"):
        ask(Loose(lambda _: answer(), model="crash"))
    with pytest.raises(ConfigError, match="'loose' is no backend .*needs name, model"):
        adopt(cast("Any", object()), "loose", str)
    entry = EntryPoint("odd", f"{__name__}:make_odd", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda *, group: [entry])  # installed packages are the seam
    with pytest.raises(ConfigError, match=r"backend 'odd' .*cannot be made: ValueError: \*\*\* is no model"):
        create_backend(BackendConfig(kind="odd", model=PASSWORD, base_url=f"http://u:{PASSWORD.replace(' ', '%20')}@h"))


def make_odd(config: BackendConfig) -> Loose:
    """Fails."""
    raise ValueError(f"{config.model} is no model")


def test_abilities_are_shown_only_by_one_that_has_them() -> None:
    plain = adopt(cast("Any", Loose(lambda _: answer())), "loose", str)
    telling = adopt(cast("Any", Telling(lambda _: answer())), "loose", redactor([KEY]))
    assert not isinstance(plain, ShowsCapabilities)
    assert isinstance(telling, ShowsCapabilities)
    assert telling.capabilities.log_probabilities
    with pytest.raises(BackendUnreachable, match=r"Bearer \*\*\*"):
        asyncio.run(telling.look())


def test_secrets_are_the_key_and_passwords_in_both_spellings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONI_TEST_KEY", f" {KEY}\n")
    config = BackendConfig(api_key_env="ONI_TEST_KEY", endpoints=("http://u:a%20b@h/v1", "http://[", "http://h2"))
    assert set(backend_secrets(config)) == {KEY, "a%20b", "a b"}
    assert redactor(["ab", "abc", ""])("abc ab") == "*** ***", "the longer one first"


def make_leaky(config: BackendConfig) -> Loose:
    """Repeats its key."""
    return Loose(lambda _: answer(text=f"perhaps {KEY}"))


def test_nothing_that_a_user_sees_of_it_holds_the_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("ONI_TEST_KEY", KEY)
    entry = EntryPoint("leaky", f"{__name__}:make_leaky", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda *, group: [entry])
    file = tmp_path / "captions"
    file.write_text("You open the box.\n")
    options = ["--annotator.backend.kind", "leaky", "--annotator.backend.api-key-env", "ONI_TEST_KEY"]
    assert backends.main(["check", *options]) == 1
    assert label.main([str(file), *options]) == 1
    assert label.main([str(file), "--json", *options]) == 1
    shown = capsys.readouterr()
    assert shown.out.count("perhaps ***") >= 3
    assert KEY not in shown.out + shown.err


def test_the_labeler_is_that_of_the_backend() -> None:
    backend = Loose(lambda _: answer())
    adopted = adopt(cast("Any", backend), "loose", str)
    assert Labeler(SPEC, adopted.model).id == Labeler(SPEC, "loose-1").id
