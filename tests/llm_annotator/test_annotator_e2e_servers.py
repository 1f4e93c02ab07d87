"""A real llama.cpp server with a real model, asked through every backend that can ask it."""

import asyncio
import math
from collections.abc import Awaitable, Iterator
from typing import TypeVar

import pytest

from llm_annotator.backends import create_backend
from llm_annotator.backends.capabilities import Capabilities, ShowsCapabilities
from llm_annotator.backends.llama_cpp import default_model_path
from llm_annotator.backends.llama_process import LlamaProcess
from llm_annotator.backends.llama_server import ServerSettings
from llm_annotator.config import BackendConfig, LabelerConfig
from llm_annotator.errors import BackendRejected
from llm_annotator.labeler import Answered, Labeler, resolve_labeler
from llm_annotator.question import QuestionName
from llm_annotator.types import LabelStatus, Subject

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(240)]

OPENS, RAINS = b"You open the red door.", b"It rains."
SUBJECTS: dict[QuestionName, list[Subject]] = {"label": [OPENS, RAINS], "preference": [(OPENS, RAINS), (RAINS, OPENS)]}
CHOICE: list[tuple[str, str, QuestionName]] = [
    ("llama-cpp", "completions", "label"),
    ("llama-cpp", "completions", "preference"),
    ("completions", "completions", "label"),
    ("completions", "chat", "label"),
    ("openai", "completions", "preference"),
]
REASONED: list[tuple[str, str, QuestionName]] = [
    ("llama-cpp", "completions", "label"),
    ("llama-cpp", "completions", "preference"),
    ("completions", "completions", "label"),
    ("completions", "completions", "preference"),
    ("openai", "chat", "label"),
]
"""Backend, API, question: prompts that are long for a CPU, so that not all of them are tried with each other."""

Result = TypeVar("Result")


class RealServer:
    """llama.cpp's server in a process of its own; its key stands in the environment."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        settings = ServerSettings(
            model_path=str(default_model_path()), api_key="", nice=0, threads=2, slots=1, n_ctx=4096
        )
        self._process = LlamaProcess(settings)
        self.run(self._process.ensure_running())
        self.key = self._process.api_key
        self.base_url = f"{self._process.url}/v1"

    def run(self, work: Awaitable[Result]) -> Result:
        return self._loop.run_until_complete(work)

    def close(self) -> None:
        self.run(self._process.stop())
        self._loop.close()


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    server = RealServer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONI_TEST_LLAMA_KEY", server.key)
        yield server
    server.close()


def settings(server: RealServer, kind: str, api: str, **options: bool | int) -> BackendConfig:
    if kind == "llama-cpp":
        return BackendConfig(kind=kind, timeout_s=100.0, options={"slots": 1})  # one cache of the shared prefix
    return BackendConfig(
        kind=kind,
        model="smollm2",
        base_url=server.base_url,
        api=api,  # pyright: ignore[reportArgumentType]
        api_key_env="ONI_TEST_LLAMA_KEY",
        timeout_s=100.0,
        options=dict(options),
    )


def ask(server: RealServer, config: BackendConfig, question: QuestionName, method: str) -> list[Answered]:
    async def go() -> list[Answered]:
        async with create_backend(config) as backend:
            spec = resolve_labeler(LabelerConfig(method=method, max_tokens=64), question=question)  # pyright: ignore[reportArgumentType]
            labeler = Labeler(spec, backend.model)
            return await asyncio.gather(*[labeler.ask(backend.complete, subject) for subject in SUBJECTS[question]])

    return server.run(go())


@pytest.mark.parametrize(("kind", "api", "question"), CHOICE)
def test_choice_is_read_from_log_probabilities(server: RealServer, kind: str, api: str, question: QuestionName) -> None:
    answers = ask(server, settings(server, kind, api), question, "choice")
    better, worse = (answer.judgement.score for answer in answers)
    assert better is not None
    assert worse is not None
    assert all(answer.judgement.read_from == "log-probabilities" for answer in answers)
    assert all(answer.completion.tokens_out for answer in answers)
    if api == "completions":  # as a chat, a model of this size says no to everything
        assert better > worse


@pytest.mark.parametrize(("kind", "api", "question"), REASONED)
def test_thoughts_end_in_an_answer(server: RealServer, kind: str, api: str, question: QuestionName) -> None:
    for answer in ask(server, settings(server, kind, api), question, "reasoned"):
        assert answer.judgement.status is LabelStatus.LABELLED
        assert answer.judgement.read_from == "constrained output (grammar)"
        thoughts, _, last = answer.completion.text.rstrip().rpartition("\n")
        assert thoughts.strip()
        assert last in ("Answer: yes", "Answer: no", "Answer: first", "Answer: second")
        assert 4 < (answer.completion.tokens_out or 0) <= 64


def test_every_way_of_asking_gives_the_same_scores(server: RealServer) -> None:
    """The embedded server's distribution over the answer words alone, and the whole one of the API."""
    ways = [("llama-cpp", "completions"), ("completions", "completions"), ("openai", "completions")]
    scores = [
        [answer.judgement.score or math.nan for answer in ask(server, settings(server, kind, api), "label", "choice")]
        for kind, api in ways
    ]
    for other in scores[1:]:
        assert other == pytest.approx(scores[0], abs=0.25)  # rounding, by what is evaluated at the same moment


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_the_server_shows_what_it_can(server: RealServer, api: str) -> None:
    async def look() -> Capabilities:
        async with create_backend(settings(server, "completions", api)) as backend:
            assert isinstance(backend, ShowsCapabilities)
            return await backend.look()

    assert server.run(look()) == Capabilities(log_probabilities=True, choice="grammar", final="grammar")


def test_without_log_probabilities_the_answer_is_bound(server: RealServer) -> None:
    answers = ask(server, settings(server, "completions", "completions", top_logprobs=0), "label", "choice")
    assert all(answer.judgement.read_from == "constrained output (grammar)" for answer in answers)
    assert all(answer.completion.text.strip() in ("yes", "no") for answer in answers)


def test_unbound_thoughts_are_read_or_no_label(server: RealServer) -> None:
    answers = ask(server, settings(server, "completions", "completions", constrain=False), "label", "reasoned")
    for answer in answers:
        assert answer.judgement.read_from == "parsing"
        assert (answer.judgement.helpful is None) == (answer.judgement.status is LabelStatus.UNPARSED)


def test_wrong_key_is_refused(server: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONI_TEST_LLAMA_KEY", "sk-wrong")
    with pytest.raises(BackendRejected, match="ONI_TEST_LLAMA_KEY.*was refused"):
        ask(server, settings(server, "completions", "completions"), "label", "choice")
