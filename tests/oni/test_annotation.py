"""Waiting for labels, with a real service: what makes a run reproducible, and what must not stop one."""

import logging
import os
import signal
import sqlite3
import time
from contextlib import closing

import pytest

from llm_annotator.config import AnnotatorConfig, BackendConfig, EngineConfig
from llm_annotator.types import LabelStatus
from oni import rundir
from oni.annotation import AnnotationSession
from oni.config import TrainConfig
from oni.draining import drain
from oni.rewards import make_reward_model
from tests.answered_store import answer_into

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

TEN = [b"You open door %d." % number for number in range(10)]


@pytest.fixture
def session(tmp_path):
    """Returns a function that opens a session with a backend."""
    opened = []

    def start(kind="scripted", engine=None, **options):
        backend = BackendConfig(kind=kind, options=options)
        annotator = AnnotatorConfig(backend=backend, engine=engine or EngineConfig(), deterministic=True)
        settings = TrainConfig(annotator=annotator)
        run = rundir.create(tmp_path / f"run{len(opened)}", settings)
        opened.append(AnnotationSession(run, settings, make_reward_model(settings)).__enter__())
        return opened[-1]

    yield start
    for one in opened:
        one.__exit__(None, None, None)


def labels(session):
    return {update.caption: update.helpful for update in session.poll()}


def test_after_waiting_every_label_is_there(session):
    mine = session(latency_s=0.02)
    for number in range(5):
        captions = [b"%d: %s" % (number, caption) for caption in TEN]
        mine.submit(captions)
        mine.submit([])
        assert mine.wait()
        updates = mine.poll()
        assert [update.caption for update in updates] == sorted(captions), "in an order that no timing decides"
        assert all(update.helpful for update in updates)
        mine.submit(captions)  # known ones
        assert mine.wait()
        assert mine.poll() == []


def test_waiting_for_nothing_asks_nobody(session):
    mine = session()
    assert mine.wait()
    os.kill(mine._service.pid, signal.SIGSTOP)
    try:
        mine.submit([])
        assert mine.wait()
    finally:
        os.kill(mine._service.pid, signal.SIGCONT)


def test_a_killed_annotator_is_waited_for(session):
    mine = session(latency_s=0.05)
    mine.submit(TEN)
    os.kill(mine._service.pid, signal.SIGKILL)
    assert mine.wait()
    assert labels(mine) == dict.fromkeys(TEN, True)


def test_a_dead_llm_stops_the_run_once_and_is_told(session, caplog):
    mine = session(latency_s=3600.0)
    mine.submit(TEN)
    assert not mine.wait(stall_s=0.3)
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "about 10 captions: updates no longer wait" in warning.getMessage()
    mine.submit([b"one more"])
    assert not mine.wait(stall_s=3600.0)  # would outlast the test
    assert len(caplog.records) == 1
    assert mine.poll() == []


def test_a_slow_llm_is_waited_for_as_long_as_answers_come(session):
    mine = session(latency_s=1.0)
    mine.submit(TEN)
    assert mine.wait(stall_s=2.5)  # ten captions, four at once, take three seconds
    assert len(labels(mine)) == 10


def test_once_the_annotator_has_caught_up_it_is_waited_for_again(session, caplog):
    mine = session(latency_s=1.0)
    mine.submit(TEN[:1])
    assert not mine.wait(stall_s=0.0)
    deadline = time.monotonic() + 30
    while not mine.wait():
        assert time.monotonic() < deadline
    assert "caught up" in caplog.records[-1].getMessage()
    mine.submit(TEN[1:2])
    assert mine.wait()
    assert labels(mine) == dict.fromkeys(TEN[:2], True)


def test_a_request_to_stop_ends_the_waiting(session, caplog):
    mine = session(latency_s=3600.0)
    mine.submit(TEN)
    begun = time.monotonic()
    assert not mine.wait(stop=lambda: time.monotonic() - begun > 0.1, stall_s=3600.0)
    assert caplog.records == []


def test_a_drain_does_not_wait_for_an_annotator_that_was_given_up(session):
    mine = session(latency_s=3600.0)
    mine.submit(TEN)
    (store,) = mine._run.path.glob("*.sqlite")
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA user_version = 999")
    os.kill(mine._service.pid, signal.SIGKILL)
    said = []
    begun = time.monotonic()
    assert not drain(mine, 600.0, stop=lambda: mine._given_up, say=said.append)
    assert time.monotonic() - begun < 60.0
    assert "upgrade oni-jax" in said[-1]


def test_what_a_replayed_store_lacks_is_given_up_on(session, tmp_path):
    answer_into(tmp_path / "old.sqlite", TEN)
    mine = session("replay", EngineConfig(backoff_s=1000.0), store=str(tmp_path / "old.sqlite"))
    mine.submit([b"new", *TEN])
    assert mine.wait()
    updates = {update.caption: update for update in mine.poll()}
    assert updates.keys() == {b"new", *TEN}
    assert updates[b"new"].status is LabelStatus.FAILED
    assert updates[b"new"].helpful is None
    assert all(updates[caption].helpful for caption in TEN)
    assert mine.health.message == "", "it is no fault of the backend"
