"""A shared annotator that is started again with another model, under a run that goes on."""

import socket
import time
from collections.abc import Callable

import pytest

from llm_annotator import AnnotatorConfig, BackendConfig
from llm_annotator import ledger as ledger_module
from oni import rundir
from oni.annotation import AnnotationSession
from oni.captions import CaptionTable
from oni.config import TrainConfig
from oni.rewards import make_reward_model
from tests.annotator_service import serving


def scripted(pattern: str) -> AnnotatorConfig:
    return AnnotatorConfig(backend=BackendConfig(kind="scripted", options={"helpful_pattern": pattern}))


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.slow
def test_everything_is_asked_again_what_the_client_has_forgotten_too(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ledger_module, "MAX_RECENT", 3)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = TrainConfig(annotator=AnnotatorConfig(url=f"http://127.0.0.1:{port}"))
    captions = CaptionTable(event_size=1)
    texts = [b"door %d" % i if i % 2 else b"box %d" % i for i in range(20)]
    for text in texts:
        captions.intern(text)

    def helpful() -> set[bytes]:
        captions.set_labels(session.poll())
        session.tend(captions, [])
        return {text for text in texts if captions.helpful[captions.intern(text)] == 1}

    run = rundir.create(tmp_path / "run", settings)
    with AnnotationSession(run, settings, make_reward_model(settings)) as session:
        session.begin(captions)
        with serving(tmp_path, port, scripted("door")):
            eventually(lambda: helpful() == set(texts[1::2]))
        with serving(tmp_path, port, scripted("box")):
            eventually(lambda: helpful() == set(texts[0::2]))
