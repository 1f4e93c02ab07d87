"""What servers can do is found out by what they show, and the best of it is used."""

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_annotator.backends import create_backend
from llm_annotator.backends.capabilities import (
    BROKEN_PROMISES,
    RECHECK_S,
    Capabilities,
    Detector,
    Fields,
    ShowsCapabilities,
    Way,
    shown_by,
)
from llm_annotator.client import AnnotatorClient
from llm_annotator.config import AnnotatorConfig, BackendConfig, LabelerConfig
from llm_annotator.errors import BackendAnswerInvalid, BackendError, BackendOverloaded, BackendRejected
from llm_annotator.labeler import Answered, Labeler, resolve_labeler
from llm_annotator.question import QuestionName
from llm_annotator.supervisor import ServiceProcess
from llm_annotator.types import Completion, LabelStatus, Request, Subject
from tests.able_openai_server import AbleServer

HEEDED = ["structured_outputs", "guided_choice", "grammar", "regex", "response_format"]
HELPFUL, UNHELPFUL = b"You open the door.", b"It rains."
SUBJECTS: dict[QuestionName, tuple[Subject, Subject]] = {
    "label": (HELPFUL, UNHELPFUL),
    "preference": ((HELPFUL, UNHELPFUL), (UNHELPFUL, HELPFUL)),
}


@pytest.fixture(scope="module")
def server() -> Iterator[AbleServer]:
    with AbleServer() as server:
        yield server


def config(server: AbleServer, **changes: Any) -> BackendConfig:
    settings = {"kind": "completions", "model": "m", "base_url": server.base_url, "api_key_env": "ONI_TEST_NO_KEY"}
    return BackendConfig(**settings | changes)


def ask(
    config: BackendConfig, subjects: Sequence[Subject], question: QuestionName = "label", **labeler: Any
) -> tuple[list[Answered], Capabilities]:
    async def go() -> tuple[list[Answered], Capabilities]:
        async with create_backend(config) as backend:
            asker = Labeler(resolve_labeler(LabelerConfig(**labeler), question=question), backend.model)
            answers = [await asker.ask(backend.complete, subject) for subject in subjects]
            assert isinstance(backend, ShowsCapabilities)
            return answers, backend.capabilities

    return asyncio.run(go())


@pytest.mark.parametrize("kind", ["completions", "openai"])
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_log_probabilities_are_taken_and_nothing_else_is_asked(server: AbleServer, kind: str, api: str) -> None:
    server.become(heeds="grammar")
    answers, shown = ask(config(server, kind=kind, api=api), [HELPFUL, UNHELPFUL, HELPFUL])
    assert [answer.judgement.helpful for answer in answers] == [True, False, True]
    assert {answer.judgement.read_from for answer in answers} == {"log-probabilities"}
    assert answers[0].judgement.score == pytest.approx(2.4)
    assert shown == Capabilities(log_probabilities=True)
    assert len(server.requests) == 3
    # Once it is known that the first token says it all, no other one is asked for.
    assert [seen.body["max_tokens"] for seen in server.requests] == [3, 1, 1]


@pytest.mark.parametrize("heeds", HEEDED)
@pytest.mark.parametrize("method", ["choice", "reasoned"])
@pytest.mark.parametrize("question", ["label", "preference"])
@pytest.mark.parametrize(("kind", "api"), [("completions", "chat"), ("completions", "completions"), ("openai", "chat")])
def test_a_server_without_them_is_bound_to_the_form(
    server: AbleServer, heeds: str, method: str, question: QuestionName, kind: str, api: str
) -> None:
    server.become(alternatives=0, heeds=heeds)
    answers, shown = ask(config(server, kind=kind, api=api), SUBJECTS[question] * 2, question, method=method)
    assert [answer.judgement.helpful for answer in answers] == [True, False] * 2
    assert {answer.judgement.read_from for answer in answers} == {f"constrained output ({heeds})"}
    assert (shown.final if method == "reasoned" else shown.choice) == heeds
    assert shown.log_probabilities is False
    fields = {field: field.replace("choice", "regex") for field in HEEDED} if method == "reasoned" else {}
    for seen in server.requests[-4:]:  # what was found is remembered
        assert fields.get(heeds, heeds) in seen.body
        assert "logprobs" not in seen.body


@pytest.mark.parametrize("method", ["choice", "reasoned"])
def test_a_server_that_can_do_neither_is_read_as_it_answers(server: AbleServer, method: str) -> None:
    server.become(alternatives=0)
    answers, shown = ask(config(server), SUBJECTS["label"], method=method)
    assert [answer.judgement.helpful for answer in answers] == [True, False]
    assert {answer.judgement.read_from for answer in answers} == {"parsing"}
    assert (shown.choice, shown.final) == (("", None) if method == "choice" else (None, ""))


def test_what_is_asked_to_find_out_says_nothing_of_captions(server: AbleServer) -> None:
    server.become(alternatives=0)
    ask(config(server), [HELPFUL])
    asked = [seen.body["messages"] for seen in server.requests]
    assert len(asked) == 1 + 1 + len(HEEDED) + 1
    assert all("door" not in str(messages) and "legs" in str(messages) for messages in asked[1:-1])


def test_a_server_that_gives_fewer_alternatives_is_asked_for_fewer(server: AbleServer) -> None:
    server.become(alternatives=5)
    answers, shown = ask(config(server), [HELPFUL, UNHELPFUL])
    assert [answer.judgement.read_from for answer in answers] == ["log-probabilities"] * 2
    assert server.requests[-1].body["top_logprobs"] == 5
    assert shown == Capabilities(log_probabilities=True)


def test_fields_that_are_refused_are_left_out_or_replaced(server: AbleServer) -> None:
    server.become(refuses=("max_tokens", "temperature"))
    answers, shown = ask(config(server), [HELPFUL, UNHELPFUL])
    assert [answer.judgement.helpful for answer in answers] == [True, False]
    assert shown == Capabilities(log_probabilities=True, left_out=("max_tokens", "temperature"))
    body = server.requests[-1].body
    assert body["max_completion_tokens"] == 1
    assert "temperature" not in body


def test_log_probabilities_that_are_refused_are_done_without(server: AbleServer) -> None:
    server.become(refuses=("logprobs",), strict=True, heeds="response_format")
    answers, shown = ask(config(server), [HELPFUL, UNHELPFUL])
    assert [answer.judgement.read_from for answer in answers] == ["constrained output (response_format)"] * 2
    assert shown.log_probabilities is False
    assert server.requests[-1].body["max_tokens"] >= 10  # {"answer": "no"} is longer than a word


def test_a_server_can_be_left_unbound(server: AbleServer) -> None:
    server.become(alternatives=0, heeds="grammar")
    answers, shown = ask(config(server, options={"constrain": False}), [HELPFUL])
    assert answers[0].judgement.read_from == "parsing"
    assert shown.choice == ""
    assert not [seen for seen in server.requests if "grammar" in seen.body]


def test_further_fields_are_sent_and_make_another_labeler(server: AbleServer) -> None:
    extra = '{"chat_template_kwargs": {"enable_thinking": false}}'
    server.become()
    settings = config(server, options={"extra_body": extra})
    ask(settings, [HELPFUL])
    assert server.requests[0].body["chat_template_kwargs"] == {"enable_thinking": False}
    assert create_backend(settings).model == f"m (with {extra})"


def test_everything_can_be_looked_for_at_once(server: AbleServer) -> None:
    async def look(server: AbleServer) -> Capabilities:
        async with create_backend(config(server)) as backend:
            assert isinstance(backend, ShowsCapabilities)
            assert shown_by(backend) == {"log_probabilities": None, "choice": None, "final": None, "left_out": []}
            return await backend.look()

    server.become(heeds="regex")
    assert asyncio.run(look(server)) == Capabilities(True, "regex", "regex")


def test_a_look_that_fails_is_an_error_and_is_taken_again(server: AbleServer) -> None:
    async def go(server: AbleServer) -> list[object]:
        outcomes: list[object] = []
        async with create_backend(config(server)) as backend:
            labeler = Labeler(resolve_labeler(LabelerConfig(method="reasoned")), backend.model)
            for mode in ("busy", "garbage", "bad_key", "ok"):
                server.mode = mode
                try:
                    outcomes.append((await labeler.ask(backend.complete, HELPFUL)).judgement.read_from)
                except BackendError as error:
                    outcomes.append(type(error))
        return outcomes

    server.become(heeds="grammar")
    assert asyncio.run(go(server)) == [
        BackendOverloaded,
        BackendAnswerInvalid,
        BackendRejected,
        "constrained output (grammar)",
    ]


def test_many_first_questions_at_once_look_once(server: AbleServer) -> None:
    async def go(server: AbleServer) -> None:
        async with create_backend(config(server)) as backend:
            labeler = Labeler(resolve_labeler(LabelerConfig()), backend.model)
            answers = await asyncio.gather(*[labeler.ask(backend.complete, b"open %d" % i) for i in range(10)])
            assert {answer.judgement.read_from for answer in answers} == {"constrained output (grammar)"}

    server.become(alternatives=0, heeds="grammar")
    asyncio.run(go(server))
    harmless = [seen for seen in server.requests if "legs" in str(seen.body)]
    assert len(harmless) == 1 + HEEDED.index("grammar") + 1


class Server:
    """A server behind a `Detector`, without the network."""

    def __init__(self) -> None:
        self.now = 0.0
        self.logprobs = False
        self.model = "a"
        self.questions = 0
        self.detector = Detector(self.ask, Fields(20, "max_tokens", 0.0), clock=lambda: self.now)

    async def ask(self, request: Request, way: Way) -> Completion:
        self.questions += 1
        completion = Completion(
            sent_prefix="",
            sent_suffix="",
            text="yes",
            logprobs={"yes": -0.1, "no": -3.0} if self.logprobs and way.fields.alternatives else None,
            model="m",
            tokens_in=1,
            tokens_out=1,
            latency_s=0.0,
        )
        self.detector.answered(request, way, completion, self.model)
        return completion

    def way(self) -> Way:
        """Asks one question, as `CompatibleBackend.complete`; returns the way that it was asked in at last."""
        request = resolve_labeler(LabelerConfig()).request(HELPFUL)

        async def go() -> Way:
            way = await self.detector.way(request)
            if not (await self.ask(request, way)).logprobs and not way.proven:
                way = await self.detector.way_after_refusal(request)
            return way

        return asyncio.run(go())


def test_a_server_that_stops_giving_what_it_showed_is_not_read_but_looked_at_anew() -> None:
    server = Server()
    server.logprobs = True
    server.way()
    assert server.way().proven
    server.logprobs = False
    for _ in range(BROKEN_PROMISES):
        with pytest.raises(BackendAnswerInvalid, match="without log-probabilities, as it did before"):
            server.way()
    assert server.way().fields.alternatives == 0
    assert server.detector.capabilities.log_probabilities is False


def test_one_odd_answer_changes_nothing() -> None:
    server = Server()
    for logprobs in (True, False, True, False, True, False, True):
        server.logprobs = logprobs
        if logprobs:
            server.way()
        else:
            with pytest.raises(BackendAnswerInvalid):
                server.way()
    assert server.detector.capabilities.log_probabilities is True


@pytest.mark.parametrize("sign", ["connection", "model"])
def test_a_better_server_is_noticed_when_it_may_be_another_one(sign: str) -> None:
    server = Server()
    assert server.way().fields.alternatives == 0
    server.logprobs = True
    asked = server.questions
    assert server.way().fields.alternatives == 0
    assert server.questions == asked + 1, "while nothing tells of a change, nothing is looked for"
    if sign == "connection":
        server.detector.server_failed()
    else:
        server.model = "b"
        server.way()
    assert server.way().fields.alternatives == 0, "it was looked for a moment ago"
    server.now += RECHECK_S
    assert server.way().fields.alternatives == 20


def test_restart_with_log_probabilities_is_noticed_after_the_connection_failed(server: AbleServer) -> None:
    server.become(alternatives=0)
    backend = create_backend(config(server, timeout_s=5.0))

    async def ask_once() -> str:
        labeler = Labeler(resolve_labeler(LabelerConfig()), backend.model)
        return (await labeler.ask(backend.complete, HELPFUL)).judgement.read_from

    async def go() -> list[str]:
        async with backend:
            read = [await ask_once()]
            backend._detector._looked_at -= RECHECK_S  # pyright: ignore[reportAttributeAccessIssue]
            server.mode = "no_gateway"
            with pytest.raises(BackendError):
                await ask_once()
            server.mode, server.alternatives = "ok", 20
            return [*read, await ask_once()]

    assert asyncio.run(go()) == ["parsing", "log-probabilities"]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_a_word_in_the_thinking_that_a_server_gives_apart_is_not_read(server: AbleServer, name: str) -> None:
    server.become(alternatives=0, thinks=name, says=" ")
    (answer,), _ = ask(config(server), [HELPFUL], method="reasoned")
    assert answer.judgement.status is LabelStatus.UNPARSED
    assert "<think>\nAnswer: yes\n</think>" in answer.completion.text
    server.says = "I see.\nAnswer: no"
    (answer,), _ = ask(config(server), [HELPFUL], method="reasoned")
    assert answer.judgement.helpful is False


def test_an_answer_that_reached_the_limit_is_not_read(server: AbleServer) -> None:
    server.become(says="Well.\nAnswer: yes", finish="length")
    (answer,), _ = ask(config(server), [HELPFUL], method="reasoned", max_tokens=64)
    assert answer.judgement.status is LabelStatus.UNPARSED
    assert "at 64 tokens" in answer.judgement.detail
    assert answer.completion.text.count("=== cut ===") == 2


@pytest.mark.slow
def test_service_says_what_the_server_can_do_and_the_store_how_each_answer_was_read(
    server: AbleServer, tmp_path: Path
) -> None:
    server.become(alternatives=0, heeds="grammar", says="I cannot tell.")
    spec = resolve_labeler(LabelerConfig(method="reasoned"))
    store = tmp_path / "annotations.sqlite"
    settings = AnnotatorConfig(backend=config(server))
    with ServiceProcess(store, settings, tmp_path / "log") as service:
        with AnnotatorClient(service.url, "run", "run", {}, spec, token=service.token) as client:
            client.submit([HELPFUL, UNHELPFUL])
            assert client.drain(30)
        status = httpx.get(f"{service.url}/v1/status", headers={"authorization": f"Bearer {service.token}"}).json()
    assert status["capabilities"] == {"log_probabilities": False, "choice": None, "final": "grammar", "left_out": []}
    connection = sqlite3.connect(store)
    rows = connection.execute("SELECT helpful, backend, answer FROM annotations ORDER BY helpful").fetchall()
    connection.close()
    assert [(row[0], row[1]) for row in rows] == [
        (flag, "completions, constrained output (grammar)") for flag in (0, 1)
    ]
    assert all("Answer: " in row[2] for row in rows)
