"""The service is killed at random moments, again and again: no label that was told is lost, none is paid for twice."""

import itertools
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_annotator import client_worker, supervisor
from llm_annotator.client import AnnotatorClient
from llm_annotator.config import AnnotatorConfig, BackendConfig, LabelerConfig
from llm_annotator.labeler import resolve_labeler
from llm_annotator.supervisor import ServiceProcess
from llm_annotator.types import LabelUpdate

CAPTIONS_A_KILL = 40
"""New captions before each kill, so that there is always something to ask."""


def eventually(condition: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


def labels(path: Path) -> dict[bytes, bool]:
    """Returns the labels in force, as anyone sees them who opens the file now."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30.0)
    query = "SELECT text, helpful FROM labels JOIN captions ON captions.id = caption_id WHERE status = 'labelled'"
    rows = {text: bool(helpful) for text, helpful in connection.execute(query)}
    connection.close()
    return rows


def answers(path: Path) -> dict[bytes, int]:
    """Returns how many labels were stored for each caption."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    query = """SELECT text, count(*) FROM annotations JOIN captions ON captions.id = caption_id
        WHERE helpful IS NOT NULL GROUP BY caption_id"""
    rows = dict(connection.execute(query))
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    return rows


class Killer:
    """Kills a service at random moments: while it works, and while it starts."""

    def __init__(self, service: ServiceProcess, client: AnnotatorClient, seed: int) -> None:
        self._service, self._client = service, client
        self._random = random.Random(seed)
        self._numbers = itertools.count()
        self.submitted: list[bytes] = []
        self.told: dict[bytes, bool | None] = {}

    def kill_once(self) -> None:
        numbers = list(itertools.islice(self._numbers, CAPTIONS_A_KILL))
        batch = [b"you %s box %d" % (b"open" if n % 3 else b"see", n) for n in numbers]
        self.submitted += batch
        self._client.submit(batch)
        eventually(lambda: self._service.pid is not None)
        if self._random.random() < 0.25:
            time.sleep(self._random.uniform(0.0, 0.8))  # mostly while it starts
        else:
            enough = len(self.told) + self._random.randrange(1, CAPTIONS_A_KILL)
            eventually(lambda: self._take() >= min(enough, len(self.submitted)))
            time.sleep(self._random.uniform(0.0, 0.02))
        pid = self._service.pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        self._take()
        kept = labels(self._service.store)
        assert self.told.items() <= kept.items(), "what was told is in the store"

    def _take(self) -> int:
        for update in self._client.poll():
            assert isinstance(update, LabelUpdate)
            assert update.caption not in self.told, "told twice"
            self.told[update.caption] = update.helpful
        return len(self.told)

    def finish(self) -> None:
        """Lets the service finish its work."""
        eventually(lambda: self._take() == len(self.submitted))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "seed"),
    [(10, 0), *(pytest.param(50, seed, marks=pytest.mark.timeout(600)) for seed in range(1, 5))],
)
def test_no_kill_loses_a_label_or_buys_it_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int, seed: int
) -> None:
    # So that 200 kills take minutes. A service that keeps dying is otherwise started at longer and longer intervals.
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE_S", 0.2)
    monkeypatch.setattr(client_worker, "LONGEST_PAUSE_S", 0.4)
    options: dict[str, str | int | float | bool] = {"helpful_pattern": "open", "latency_s": 0.01}
    config = AnnotatorConfig(backend=BackendConfig(kind="scripted", max_concurrent=2, options=options))
    spec = resolve_labeler(LabelerConfig(goal="open the box"))
    path = tmp_path / "annotations.sqlite"
    with (
        ServiceProcess(path, config, tmp_path / "log") as service,
        AnnotatorClient(service.url, "run", "run", {}, spec, service.token) as client,
    ):
        killer = Killer(service, client, seed)
        for _ in range(kills):
            killer.kill_once()
        killer.finish()
        eventually(lambda: client.health.connected and client.health.queued == 0)
        # A kill can meet a service that has not said that it is ready; that one was no restart.
        assert service.health.restarts >= kills // 2
    assert killer.told == {caption: b"open" in caption for caption in killer.submitted}
    assert answers(path) == dict.fromkeys(killer.submitted, 1), "each was labelled once"
