"""Several servers in the foreground: `oni label`, `oni relabel` and `--evaluate` use all of `backend.endpoints`."""

import asyncio
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Self, cast

import pytest

from llm_annotator.asking import ask_all
from llm_annotator.backends import create_servers
from llm_annotator.backends.base import Backend
from llm_annotator.backends.several import SHUNNED_S, SeveralServers
from llm_annotator.config import BackendConfig, EngineConfig, LabelerConfig
from llm_annotator.errors import BackendAnswerInvalid, BackendOverloaded, BackendUnreachable, ConfigError
from llm_annotator.labeler import Labeler, resolve_labeler
from llm_annotator.types import Completion, LabelStatus, Request
from oni.cli import label
from tests.able_openai_server import AbleServer

SPEC = resolve_labeler(LabelerConfig(goal="open the box", threshold=0.0))
REQUEST = SPEC.request(b"You open the box.")
COMPLETION = Completion(sent_prefix="", sent_suffix="", text="yes", model="m", latency_s=0.0)


class Server:
    """A server that fails with `error`, if it is set; `opening`: with which it cannot be opened."""

    name = "probe"

    def __init__(self, model: str = "m", *, places: int = 2, opening: Exception | None = None) -> None:
        self.model = model
        self.max_concurrent = places
        self.error: Exception | None = None
        self.opening = opening
        self.is_open = False
        self.asked = self.busy = self.most = 0

    async def complete(self, request: Request) -> Completion:
        self.asked += 1
        self.busy += 1
        self.most = max(self.most, self.busy)
        await asyncio.sleep(0)
        self.busy -= 1
        if self.error is not None:
            raise self.error
        return COMPLETION

    async def __aenter__(self) -> Self:
        if self.opening is not None:
            raise self.opening
        self.is_open = True
        return self

    async def __aexit__(self, *error: object) -> None:
        self.is_open = False


class Clock:
    """A clock that stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def several(*servers: Server, clock: Clock | None = None) -> SeveralServers:
    named = {f"server {number}": cast("Backend", server) for number, server in enumerate(servers)}
    return SeveralServers(named, clock=clock or Clock())


def test_questions_are_spread_by_what_each_takes() -> None:
    small, large = Server(places=1), Server(places=3)

    async def go() -> None:
        async with several(small, large) as backend:
            assert (backend.name, backend.model, backend.max_concurrent) == ("probe", "m", 4)
            await asyncio.gather(*(backend.complete(REQUEST) for _ in range(4)))

    asyncio.run(go())
    assert (small.most, large.most) == (1, 3)
    assert not small.is_open
    assert not large.is_open


def test_one_that_is_down_is_named_once_shunned_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    first, second, clock = Server(), Server(), Clock()
    first.error = BackendUnreachable("nothing answers")

    async def go() -> None:
        async with several(first, second, clock=clock) as backend:
            for _ in range(5):
                assert await backend.complete(REQUEST) == COMPLETION
            assert (first.asked, second.asked) == (1, 5)
            assert [record.getMessage() for record in caplog.records] == ["server 0: nothing answers"]
            first.error, clock.now = None, SHUNNED_S
            await backend.complete(REQUEST)
            assert first.asked == 2, "its time is over"

    asyncio.run(go())


def test_if_all_fail_the_caller_hears_of_it_and_a_shunned_one_is_asked_too() -> None:
    first, second = Server(), Server()
    first.error = BackendUnreachable("nothing answers")
    second.error = BackendOverloaded("busy", retry_after_s=3.0)

    async def go() -> None:
        async with several(first, second) as backend:
            for number in (1, 2):
                with pytest.raises((BackendUnreachable, BackendOverloaded)):
                    await backend.complete(REQUEST)
                assert (first.asked, second.asked) == (number, number)

    asyncio.run(go())


def test_an_answer_that_is_none_is_not_asked_for_elsewhere() -> None:
    first, second = Server(), Server()
    first.error = BackendAnswerInvalid("garbled")

    async def go() -> None:
        async with several(first, second) as backend:
            with pytest.raises(BackendAnswerInvalid):
                await backend.complete(REQUEST)

    asyncio.run(go())
    assert second.asked == 0


def test_one_that_cannot_be_opened_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    shut, good = Server(opening=BackendUnreachable("no model there")), Server()

    async def go() -> None:
        async with several(shut, good) as backend:
            assert backend.max_concurrent == 2
            await backend.complete(REQUEST)

    asyncio.run(go())
    assert good.asked == 1
    assert "server 0 is left out: no model there" in caplog.text


def test_none_that_can_be_opened_other_models_and_wrong_settings_are_errors() -> None:
    async def opened(backend: SeveralServers) -> None:
        async with backend:
            pytest.fail("it must not open")

    shut = [Server(opening=BackendUnreachable("a")), Server(opening=BackendUnreachable("b"))]
    with pytest.raises(BackendUnreachable):
        asyncio.run(opened(several(*shut)))
    with pytest.raises(ConfigError, match=r"different models \(m, other\)"):
        several(Server(), Server("other"))
    good = Server()
    with pytest.raises(ConfigError, match="no such file"):
        asyncio.run(opened(several(good, Server(opening=ConfigError("no such file")))))
    assert not good.is_open


def test_one_address_is_the_backend_itself() -> None:
    config = BackendConfig(kind="scripted", base_url="http://one/v1")
    assert not isinstance(create_servers(config), SeveralServers)


def test_a_list_is_labelled_though_a_server_goes_down_halfway() -> None:
    first, second = Server(), Server()

    async def go() -> Counter[LabelStatus]:
        async with several(first, second) as backend:
            labeler, config = Labeler(SPEC, backend.model), EngineConfig(backoff_s=0.001)
            statuses: Counter[LabelStatus] = Counter()
            async for answer in ask_all(labeler, backend, [b"%d" % i for i in range(60)], config):
                statuses[answer.judgement.status] += 1
                if statuses.total() == 30:
                    first.error = BackendUnreachable("gone")
            return statuses

    assert asyncio.run(go()) == {LabelStatus.LABELLED: 60}
    assert first.asked > 10
    assert second.asked > 30


def test_a_user_labels_with_all_addresses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "captions"
    file.write_text("".join(f"You open box {number}.\n" for number in range(40)))
    with AbleServer() as one, AbleServer() as two:
        options = ["--annotator.backend.kind", "completions", "--annotator.backend.model", "m"]
        addresses = ["--annotator.backend.endpoints", one.base_url, two.base_url]
        assert label.main([str(file), "--json", *options, *addresses]) == 0
        asked = [len(server.requests) for server in (one, two)]
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["caption"] for row in rows] == [f"You open box {number}." for number in range(40)]
    assert min(asked) >= 5, f"both were asked: {asked}"
