"""Whatever an LLM server does wrong: no garbage becomes a label, and every caption has the right one in the end."""

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from llm_annotator import ledger
from llm_annotator.backends import create_backend
from llm_annotator.client import AnnotatorClient
from llm_annotator.config import AnnotatorConfig, BackendConfig, EngineConfig, LabelerConfig
from llm_annotator.errors import BackendError
from llm_annotator.labeler import Labeler, LabelerSpec, resolve_labeler
from llm_annotator.supervisor import ServiceProcess
from llm_annotator.types import Comparison, Judgement, LabelStatus, News, Subject
from tests.able_openai_server import AbleServer
from tests.faulty_openai_server import FAULTS, FaultyServer

KINDS = ("completions", "openai")
Method = Literal["choice", "reasoned"]
TRUTH_AFTER_ALL = "log-probabilities missing"


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyServer]:
    with FaultyServer(rate=0.0, retry_after_s=0.1) as server:
        yield server


def labeler_spec(method: Method, question: Literal["label", "preference"] = "label") -> LabelerSpec:
    return resolve_labeler(LabelerConfig(goal="open the box", method=method), question=question)


def settings(server: FaultyServer, kind: str, **more: Any) -> BackendConfig:
    return BackendConfig(kind=kind, model="faulty", base_url=server.base_url, **more)


@pytest.mark.parametrize("method", ["choice", "reasoned"])
@pytest.mark.parametrize("kind", ["completions", pytest.param("openai", marks=pytest.mark.slow)])
def test_no_fault_becomes_a_label(server: FaultyServer, kind: str, method: Method) -> None:
    made = asyncio.run(answers_under_each_fault(server, kind, labeler_spec(method)))
    check_outcomes(made)
    assert server.faults.total() >= len(FAULTS)


@pytest.mark.parametrize("method", ["choice", "reasoned"])
@pytest.mark.parametrize("heeds", ["", "grammar", "response_format"])
def test_no_fault_becomes_a_label_without_log_probabilities(heeds: str, method: Method) -> None:
    """Of a server that can be bound to a form of answer by one field, or by none."""
    with FaultyServer(retry_after_s=0.1, able=AbleServer(alternatives=0, heeds=heeds)) as server:
        check_outcomes(asyncio.run(answers_under_each_fault(server, "completions", labeler_spec(method))))


def check_outcomes(made: dict[str, Judgement | BackendError]) -> None:
    assert list(made) == list(FAULTS)
    for fault, outcome in made.items():
        if isinstance(outcome, BackendError):
            assert str(outcome).startswith(("the server", "nothing answers at http://127")), "said in words"
            assert len(str(outcome)) < 500
        elif fault == TRUTH_AFTER_ALL:
            assert outcome.helpful in (True, None)
        else:
            assert outcome.status is LabelStatus.UNPARSED, f"{outcome} came out of {fault!r}"


async def answers_under_each_fault(
    server: FaultyServer, kind: str, spec: LabelerSpec
) -> dict[str, Judgement | BackendError]:
    """Returns what is made of an answer with each fault, each after one without."""
    made: dict[str, Judgement | BackendError] = {}
    try:
        async with create_backend(settings(server, kind, timeout_s=0.15)) as backend:
            labeler = Labeler(spec, backend.model)
            for fault in FAULTS:
                server.rate = 0.0
                good = await labeler.ask(backend.complete, b"you open it")
                assert good.judgement.helpful is True, "the server tells the truth, for once"
                server.rate, server.kinds = 1.0, (fault,)
                try:
                    made[fault] = (await labeler.ask(backend.complete, b"you open the door")).judgement
                except BackendError as error:
                    made[fault] = error
    finally:
        server.rate = 0.0
    return made


CAPTIONS = [b"you open box %d" % i if i % 2 else b"you see box %d" % i for i in range(300)]
PAIRS = [(CAPTIONS[i], CAPTIONS[i + 1]) for i in range(100)]
QUICK = EngineConfig(backoff_s=0.02, max_backoff_s=0.2, max_attempts=3, retry_failed_s=0.5)
"""Pauses of a fault are short, so that the test is; a caption is often given up, and has to be asked about again."""


def subject_of(update: News) -> Subject:
    return (update.first, update.second) if isinstance(update, Comparison) else update.caption


def is_positive(update: News) -> bool | None:
    return update.first_better if isinstance(update, Comparison) else update.helpful


def truth(subject: Subject) -> bool:
    return b"open" in (subject if isinstance(subject, bytes) else subject[0])


def labelled(client: AnnotatorClient, subjects: list[Any], *, timeout_s: float = 60.0) -> dict[Any, list[bool | None]]:
    """Returns the labels that were told of each subject, once all have one; as a trainer, it asks again and again."""
    told: dict[Any, list[bool | None]] = {subject: [] for subject in subjects}
    deadline = time.monotonic() + timeout_s
    while missing := [subject for subject in subjects if not told[subject]]:
        assert time.monotonic() < deadline, f"{len(missing)} of {len(subjects)} are not labelled: {client.health}"
        client.submit(missing)
        time.sleep(0.1)
        for update in client.poll():
            if update.status is LabelStatus.LABELLED:
                told[subject_of(update)].append(is_positive(update))
    return told


def stored(path: Path, question: str) -> list[tuple[Subject, bool]]:
    """Returns the subject and the label of every answer in a store that holds one."""
    connection = sqlite3.connect(path)
    rows: list[tuple[Subject, bool]]
    if question == "label":
        query = "SELECT text, helpful FROM annotations a JOIN captions c ON c.id = caption_id WHERE helpful IS NOT NULL"
        rows = [(text, bool(helpful)) for text, helpful in connection.execute(query)]
    else:
        query = """SELECT a.text, b.text, first_better FROM comparisons JOIN captions a ON a.id = first_id
            JOIN captions b ON b.id = second_id WHERE first_better IS NOT NULL"""
        rows = [((first, second), bool(better)) for first, second, better in connection.execute(query)]
    connection.close()
    return rows


def eventually(condition: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("question", ["label", "preference"])
@pytest.mark.parametrize("method", ["choice", "reasoned"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_caption_ends_labelled_right_and_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    method: Method,
    question: Literal["label", "preference"],
) -> None:
    monkeypatch.setattr(ledger, "REOFFER_S", 0.5)
    subjects: list[Any] = list(CAPTIONS if question == "label" else PAIRS)
    with FaultyServer(rate=0.3, retry_after_s=0.1, seed=len(kind)) as server:
        backend = settings(server, kind, timeout_s=0.5, max_concurrent=16)
        config = AnnotatorConfig(backend=backend, engine=QUICK)
        with (
            ServiceProcess(tmp_path / "s.sqlite", config, tmp_path / "log") as service,
            AnnotatorClient(service.url, "run", "run", {}, labeler_spec(method, question), service.token) as client,
        ):
            client.submit(subjects)
            eventually(lambda: server.requests > 1.2 * len(subjects))
            server.rate = 0.0
            told = labelled(client, subjects)
            assert service.health.restarts == 0
        assert len(server.faults) > len(FAULTS) // 2, "it met most of them"
        asked = Counter(server.answered)
    assert told == {subject: [truth(subject)] for subject in subjects}, "right, and told once"
    rows = stored(tmp_path / "s.sqlite", question)
    assert Counter(subject for subject, _ in rows) == Counter(subjects), "labelled once"
    assert all(positive == truth(subject) for subject, positive in rows), "no garbage became a label"
    twice = {question: times for question, times in asked.items() if times > 1}
    assert len(twice) <= len(subjects) // 20, f"{twice}: what was answered is not asked again"


@pytest.mark.slow
def test_the_server_can_be_run_by_hand(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faulty_openai_server", "--rate", "1", "--kinds", "500", "empty text"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            base_url = json.loads(process.stdout.readline())["base_url"]
            root_url = base_url.removesuffix("/v1")
            body = {"model": "x", "messages": [{"role": "user", "content": "Event: you open it"}], "max_tokens": 3}
            for _ in range(20):
                answer = httpx.post(f"{base_url}/chat/completions", json=body)
                assert answer.status_code == 500 or answer.json()["choices"][0]["message"]["content"] == ""
            stats = httpx.post(f"{root_url}/faults", json={"rate": 0}).json()
            assert (stats["requests"], stats["answered"], set(stats["faults"])) == (20, 0, {"500", "empty text"})
            answer = httpx.post(f"{base_url}/chat/completions", json=body)
            assert answer.json()["choices"][0]["message"]["content"].strip() == "yes"
            assert httpx.get(f"{root_url}/stats").json()["answered"] == 1
        finally:
            process.kill()
