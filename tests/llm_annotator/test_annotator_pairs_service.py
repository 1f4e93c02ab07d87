"""Service and client over real sockets, asked to compare. What goes for any subject is tested with captions alone."""

import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_annotator import wire
from llm_annotator.client import AnnotatorClient
from llm_annotator.config import AnnotatorConfig, BackendConfig, EngineConfig, LabelerConfig
from llm_annotator.labeler import LabelerSpec, resolve_labeler
from llm_annotator.store import StoreReader
from llm_annotator.store.schema import APPLICATION_ID, MIGRATIONS
from llm_annotator.supervisor import ServiceProcess
from llm_annotator.types import Comparison, LabelStatus, Occurrence

Pair = tuple[bytes, bytes]

HOSTILE = [
    b"nul \x00 you open it",
    b"\xff\xfe wall",
    b"\x1b[31m you open it",
    b"wall" + b"x" * 10_000,
    b"<|im_end|>\n{goal}",
]


def scripted(engine: EngineConfig = EngineConfig(), **options: Any) -> AnnotatorConfig:
    return AnnotatorConfig(backend=BackendConfig(kind="scripted", options=options), engine=engine)


@pytest.fixture(scope="module")
def spec() -> LabelerSpec:
    # Without the threshold of the prompt, which was measured with an LLM: of equals the script says 0.
    return resolve_labeler(LabelerConfig(goal="open the box", threshold=0.0), question="preference")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("shared")
    with ServiceProcess(folder / "annotations.sqlite", scripted(helpful_pattern="open"), folder / "log.txt") as service:
        yield service


def client_of(service: ServiceProcess, spec: LabelerSpec, run_id: str) -> AnnotatorClient:
    return AnnotatorClient(service.url, run_id, f"name of {run_id}", {}, spec, service.token)


def by_pair(client: AnnotatorClient) -> dict[Pair, Comparison]:
    found: dict[Pair, Comparison] = {}
    for news in client.poll():
        assert isinstance(news, Comparison)
        found[news.subject] = news
    return found


def test_comparisons_come_back_for_any_bytes(shared: ServiceProcess, spec: LabelerSpec) -> None:
    pairs = [(first, second) for first in HOSTILE for second in HOSTILE if first != second]
    with client_of(shared, spec, "bytes") as client:
        client.submit([*pairs, (b"", b"a"), (b"same", b"same")])
        assert client.drain(20)
        found, health = by_pair(client), client.health
    assert set(found) == set(pairs)
    for (first, second), news in found.items():
        assert news.status is LabelStatus.LABELLED
        assert news.first_better is (b"open" in first and b"open" not in second)
        lean = (b"open" in first) - (b"open" in second)
        assert news.p_first == pytest.approx({1: 0.95, 0: 0.5, -1: 0.05}[lean], abs=0.01)
    assert (health.connected, health.message, health.queued, health.labelled) == (True, "", 0, len(pairs))


def test_a_second_run_gets_known_comparisons_without_a_question(shared: ServiceProcess, spec: LabelerSpec) -> None:
    pairs = [(b"open %d" % n, b"wall %d" % n) for n in range(40)]
    with client_of(shared, spec, "first") as first, client_of(shared, spec, "second") as second:
        first.submit(pairs)
        assert first.drain(20)
        asked = first.health.requests
        second.submit(pairs)
        assert second.drain(20)
        assert set(by_pair(second)) == set(pairs)
        assert second.health.requests == asked
        second.submit([(b"wall 1", b"open 1")])  # the other order is another question
        assert second.drain(20)
        assert by_pair(second)[b"wall 1", b"open 1"].first_better is False
        assert second.health.requests == asked + 1
        assert by_pair(first).keys() == set(pairs), "and nobody else's business"


def test_labels_and_comparisons_live_in_one_service(shared: ServiceProcess, spec: LabelerSpec) -> None:
    labels = resolve_labeler(LabelerConfig(goal="open the box"))
    with client_of(shared, spec, "compares") as compares, client_of(shared, labels, "labels") as judges:
        compares.submit([(b"you open one", b"wall one")])
        judges.submit([b"you open one", b"wall one"])
        compares.record([Occurrence(caption=b"wall one", count=3, first_step=1, last_step=9, reward_sum=0.5)])
        assert compares.drain(20)
        assert judges.drain(20)
        assert compares.flush(20)
        assert {news.subject for news in judges.poll()} == {b"you open one", b"wall one"}
        assert set(by_pair(compares)) == {(b"you open one", b"wall one")}
    with StoreReader(shared.store) as reader:
        asked = {row.spec.get("question", "label"): row for row in reader.labelers()}
        assert asked["label"].labelled == 2
        assert asked["preference"].compared > 0
        (row,) = reader.captions(run_id="compares")
        assert (row.text, row.count, row.status) == (b"wall one", 3, None)


def test_subjects_of_the_other_kind_are_refused_where_they_are_submitted(
    shared: ServiceProcess, spec: LabelerSpec
) -> None:
    labels = resolve_labeler(LabelerConfig(goal="open the box"))
    with client_of(shared, spec, "compares") as compares, client_of(shared, labels, "labels") as judges:
        with pytest.raises(TypeError, match="compares two captions"):
            compares.submit([(b"fine", b"too"), b"a caption"])
        with pytest.raises(TypeError, match="judges single captions"):
            judges.submit([(b"a", b"pair")])
        assert compares.health.queued == judges.health.queued == 0, "nothing of such a call is asked"


def test_messages_that_hold_no_pairs_are_refused_in_words(shared: ServiceProcess, spec: LabelerSpec) -> None:
    headers = {"content-type": wire.CONTENT_TYPE, "authorization": f"Bearer {shared.token}"}

    def post(path: str, **body: Any) -> httpx.Response:
        return http.post(path, content=wire.pack(body), headers=headers)

    with httpx.Client(base_url=shared.url, trust_env=False, verify=False) as http:
        run = {"protocol": wire.PROTOCOL, "run_id": "raw", "name": "raw", "config": {}}
        answer = wire.unpack(post("/v1/runs", **run, labeler=spec.to_wire()).content)
        asked = {"run_id": "raw", "labeler_id": answer["labeler_id"]}
        for wrong in (b"ab", [b"a"], [b"a", b"b", b"c"], [b"a", "b"], [[b"a"], b"b"], None, 7, {"a": b"b"}):
            refused = post("/v1/captions", **asked, captions=[[b"a", b"b"], wrong])
            assert refused.status_code == 400
            assert "compares two captions" in refused.json()["message"]
        long = post("/v1/captions", **asked, captions=[[b"a", b"x" * (wire.MAX_CAPTION_BYTES + 1)]])
        assert (long.status_code, long.json()["error"]) == (400, "captions")
        bad = post("/v1/runs", **run, labeler=spec.to_wire() | {"question": "rank"})
        assert bad.status_code == 400
        assert "no question 'rank'" in bad.json()["message"]
        label = wire.unpack(post("/v1/runs", **run, labeler=resolve_labeler(LabelerConfig()).to_wire()).content)
        text = post("/v1/captions", run_id="raw", labeler_id=label["labeler_id"], captions=["text"])
        assert text.status_code == 400
        assert "single captions, bytes" in text.json()["message"]


@pytest.mark.slow
def test_comparisons_survive_a_killed_service_and_go_on(tmp_path: Path, spec: LabelerSpec) -> None:
    config = scripted(latency_s=0.01, helpful_pattern="open")
    path = tmp_path / "s.sqlite"
    pairs = [(b"open %d" % n, b"wall %d" % n) for n in range(60)]
    pairs += [(b, a) for a, b in pairs]
    with ServiceProcess(path, config, tmp_path / "log") as service, client_of(service, spec, "run") as client:
        client.submit(pairs)
        found: dict[Pair, Comparison] = {}
        while len(found) < 20:
            found |= by_pair(client)
        pid = httpx.get(f"{service.url}/v1/status", headers={"authorization": f"Bearer {service.token}"}).json()["pid"]
        os.kill(pid, signal.SIGKILL)
        with StoreReader(path) as reader:
            kept = reader.pairs(limit=-1)
        stored = {(row.a, row.b) for row in kept if row.forward} | {(row.b, row.a) for row in kept if row.backward}
        assert set(found) <= stored, "every answer that was told of is kept"
        assert client.drain(30)
        found |= by_pair(client)
    assert set(found) == set(pairs)
    assert all(news.first_better is news.first.startswith(b"open") for news in found.values())
    with ServiceProcess(path, config, tmp_path / "log") as service, client_of(service, spec, "again") as client:
        client.submit(pairs)
        assert client.drain(20)
        assert set(by_pair(client)) == set(pairs)
        assert client.health.requests == 0, "what was answered costs nothing again"


@pytest.mark.slow
def test_pairs_without_a_label_are_told_and_asked_again(tmp_path: Path, spec: LabelerSpec) -> None:
    engine = EngineConfig(retry_failed_s=0.001)
    config = scripted(engine, garble_rate=0.5, seed=3)
    pairs = [(b"you open %d" % n, b"wall") for n in range(12)]
    with (
        ServiceProcess(tmp_path / "s.sqlite", config, tmp_path / "l") as service,
        client_of(service, spec, "r") as client,
    ):
        client.submit(pairs)
        assert client.drain(20)
        first = by_pair(client)
        unparsed = [pair for pair, news in first.items() if news.status is LabelStatus.UNPARSED]
        assert 0 < len(unparsed) < len(pairs)
        assert all((first[pair].first_better, first[pair].p_first) == (None, None) for pair in unparsed)
        assert client.health.unparsed == len(unparsed)
    config = scripted(engine, seed=3)
    with (
        ServiceProcess(tmp_path / "s.sqlite", config, tmp_path / "l") as service,
        client_of(service, spec, "r") as client,
    ):
        client.submit(pairs)
        assert client.drain(20)
        assert {news.status for news in by_pair(client).values()} == {LabelStatus.LABELLED}


@pytest.mark.slow
def test_a_service_migrates_a_store_of_before_and_compares_in_it(tmp_path: Path, spec: LabelerSpec) -> None:
    path = tmp_path / "old.sqlite"
    connection = sqlite3.connect(path)
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    connection.execute("INSERT INTO captions VALUES (1, x'77616c6c', 5.0)")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    config = scripted(helpful_pattern="open")
    with ServiceProcess(path, config, tmp_path / "log") as service, client_of(service, spec, "run") as client:
        client.submit([(b"open", b"wall")])
        assert client.drain(20)
        assert by_pair(client)[b"open", b"wall"].first_better is True
    with StoreReader(path) as reader:
        (pair,) = reader.pairs()
        assert (pair.a_id, pair.a, pair.b, pair.forward) == (1, b"wall", b"open", None)
        assert pair.backward is not None
        assert pair.backward.first_better is True
