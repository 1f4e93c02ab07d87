"""What a person says of captions on its way to runs: to those that ask about captions, and those that compare."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_annotator import wire
from llm_annotator.annotator import Annotator
from llm_annotator.app import build_app
from llm_annotator.backends.scripted import ScriptedBackend, ScriptedOptions
from llm_annotator.client import AnnotatorClient
from llm_annotator.config import AnnotatorConfig, BackendConfig, LabelerConfig
from llm_annotator.labeler import LabelerSpec, resolve_labeler
from llm_annotator.ledger import Ledger
from llm_annotator.questions import QUESTIONS
from llm_annotator.store import Store, StoreReader
from llm_annotator.supervisor import ServiceProcess
from llm_annotator.types import Comparison, LabelStatus, LabelUpdate, News

COIN, WIND = b"You find a coin.", b"\xff You hear the wind."


def mute(caption: bytes, *, muted: bool = True) -> LabelUpdate:
    return LabelUpdate(
        caption=caption, status=LabelStatus.LABELLED, helpful=False, p_helpful=None, source="human", muted=muted
    )


@pytest.mark.parametrize("muted", [True, False])
def test_a_mute_survives_the_wire_of_both_questions(muted: bool) -> None:
    for question in QUESTIONS.values():
        row = wire.unpack(wire.pack({"row": question.to_row(mute(COIN, muted=muted))}))["row"]
        assert question.from_row(row) == mute(COIN, muted=muted)


def test_a_service_that_knows_no_mutes_is_understood() -> None:
    row = wire.label_to_row(mute(COIN, muted=False))[:5]
    assert wire.label_from_row(row) == mute(COIN, muted=False)


def test_of_a_labeler_that_compares_every_run_hears_what_people_say() -> None:
    ledger = Ledger(QUESTIONS["preference"])
    unasked = Comparison(first=COIN, second=WIND, status=LabelStatus.LABELLED, first_better=True, p_first=None)
    assert ledger.learn([unasked, mute(WIND)], 0.0) == [mute(WIND)]
    assert Ledger(QUESTIONS["label"]).learn([mute(WIND)], 0.0) == [], "that is an answer, to those who asked"


def test_all_that_people_said_stands_however_much_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_UPDATES", 5)
    question = QUESTIONS["preference"]
    with Store(tmp_path / "s.sqlite") as store:
        store.add_labeler("compares", {}, "m")
        assert question.standing(store, "compares") == []
        said = [b"caption %d" % number for number in range(12)]
        for caption in said:
            store.override(caption, "compares", helpful=False, muted=True)
        assert [stored.caption for stored in question.standing(store, "compares")] == said


def test_beside_each_label_stands_which_change_made_it(tmp_path: Path) -> None:
    """By that a client knows the older of two answers, in whatever order they come."""
    store = Store(tmp_path / "s.sqlite")
    annotator = Annotator(store, AnnotatorConfig(), lambda _: ScriptedBackend(ScriptedOptions()))
    headers = {"content-type": wire.CONTENT_TYPE}

    async def scene() -> None:
        transport = httpx.ASGITransport(build_app(annotator))
        async with annotator.running(), httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as http:

            async def post(path: str, **body: Any) -> dict[str, Any]:
                answer = await http.post(path, content=wire.pack(body), headers=headers)
                assert answer.status_code == 200
                return wire.unpack(answer.content)

            while annotator.problem:
                await asyncio.sleep(0.005)
            spec = resolve_labeler(LabelerConfig(goal="Find coins."))
            run = {"protocol": wire.PROTOCOL, "run_id": "r", "name": "r", "config": {}, "labeler": spec.to_wire()}
            labeler_id = (await post("/v1/runs", **run))["labeler_id"]
            asked = {"run_id": "r", "labeler_id": labeler_id}
            await post("/v1/captions", **asked, captions=[COIN])
            first = await post("/v1/labels", **asked, after=0, wait_s=5.0)
            with Store(store.path) as another:
                another.override(COIN, labeler_id, helpful=False)
            second = await post("/v1/labels", **asked, after=first["cursor"], wait_s=5.0)
            known = await post("/v1/captions", **asked, captions=[COIN])
            assert (known["known"], known["changes"]) == (second["updates"], second["changes"])
            assert first["changes"][0] < second["changes"][0] == second["cursor"]

    asyncio.run(scene())


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    config = AnnotatorConfig(backend=BackendConfig(kind="scripted", options={"helpful_pattern": "coin"}))
    with ServiceProcess(tmp_path / "annotations.sqlite", config, tmp_path / "log") as started:
        yield started


@pytest.fixture(scope="module")
def spec() -> LabelerSpec:
    return resolve_labeler(LabelerConfig(goal="Find coins.", threshold=0.0), question="preference")


def client_of(service: ServiceProcess, spec: LabelerSpec, run_id: str) -> AnnotatorClient:
    return AnnotatorClient(service.url, run_id, run_id, {}, spec, token=service.token)


def heard(client: AnnotatorClient, wanted: Callable[[News], bool], *, within_s: float) -> News:
    deadline = time.monotonic() + within_s
    while True:
        for news in client.poll():
            if wanted(news):
                return news
        assert time.monotonic() < deadline, "nothing was heard in time"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_run_that_compares_hears_of_single_captions(
    service: ServiceProcess, spec: LabelerSpec, tmp_path: Path
) -> None:
    path = tmp_path / "annotations.sqlite"
    with client_of(service, spec, "one") as client:
        client.submit([(COIN, WIND), (WIND, COIN)])
        assert client.drain(20.0)
        assert len(client.poll()) == 2
        with StoreReader(path) as reader:
            (labeler,) = reader.labelers()
        with Store(path) as store:  # as another program does
            override = store.override(WIND, labeler.labeler_id, helpful=False)
        news = heard(client, lambda news: isinstance(news, LabelUpdate), within_s=3.0 + 2.0)
        assert isinstance(news, LabelUpdate)
        assert (news.caption, news.helpful, news.source) == (WIND, False, "human")
        client.submit([(COIN, b"new"), (b"new", COIN)])
        assert client.drain(20.0), "it goes on comparing"
        assert all(isinstance(news, Comparison) for news in client.poll())
    with client_of(service, spec, "two") as client:
        news = heard(client, lambda news: isinstance(news, LabelUpdate), within_s=20.0)
        assert isinstance(news, LabelUpdate)
        assert news.caption == WIND, "a run that begins, or goes on, is told what stands"
    with Store(path) as store:
        store.revoke_override(override)
    with client_of(service, spec, "one") as client:
        news = heard(client, lambda news: isinstance(news, LabelUpdate), within_s=20.0)
        assert isinstance(news, LabelUpdate)
        assert (news.caption, news.helpful, news.source) == (WIND, None, "llm"), "also that it was taken back"
