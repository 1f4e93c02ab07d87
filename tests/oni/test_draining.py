"""The end of a run, with a client that answers as told, on a clock that the test moves."""

import argparse
from dataclasses import replace

import pytest

from llm_annotator import ClientHealth
from llm_annotator.wire import LabelerStatus
from oni.cli._durations import seconds
from oni.cli.train import parse
from oni.configfile import load_config
from oni.draining import LOOK_S, SAY_EVERY_S, drain


class ToldClient:
    """Answers so many captions a second; `fails`: does not wait, as one whose thread has died."""

    def __init__(self, queued: int, per_s: float = 0.0, *, message: str = "", fails: bool = False) -> None:
        self.now = 0.0
        self.slept_s = 0.0
        self._queued = queued
        self._per_s = per_s
        self._health = ClientHealth(connected=True, message=message)
        self._fails = fails

    @property
    def health(self) -> ClientHealth:
        left = max(0, round(self._queued - self._per_s * self.now))
        return replace(self._health, queued=left)

    def exhaust(self) -> None:
        self._health = replace(self._health, service=LabelerStatus(exhausted=True))

    def drain(self, timeout_s: float) -> bool:
        if not self._fails:
            self.now += timeout_s
        return not self._fails and self.health.queued == 0

    def sleep(self, pause_s: float) -> None:
        self.now += pause_s
        self.slept_s += pause_s


def run(client: ToldClient, limit_s: float, *, stop_at: float = float("inf")) -> tuple[bool, list[str]]:
    said: list[str] = []
    done = drain(
        client,
        limit_s,
        stop=lambda: client.now >= stop_at,
        say=said.append,
        clock=lambda: client.now,
        sleep=client.sleep,
    )
    return done, said


def test_waits_until_everything_is_answered_and_says_so() -> None:
    client = ToldClient(100, per_s=5.0)
    done, said = run(client, 60.0)
    assert done
    assert client.now == pytest.approx(20.0, abs=LOOK_S)
    assert said[0].startswith("Waiting for the answers about 99 captions, 60 s at most")
    assert len(said) == 2 + 20.0 // SAY_EVERY_S - 1, "and every ten seconds in between"
    assert said[-1] == "Every caption is answered."


def test_what_is_answered_at_once_is_not_worth_a_word() -> None:
    assert run(ToldClient(0), 60.0) == (True, [])


def test_after_the_time_it_says_how_many_are_open_and_what_is_wrong() -> None:
    client = ToldClient(7, message="The LLM cannot be reached.")
    done, said = run(client, 3.0)
    assert not done
    assert client.now == pytest.approx(3.0)
    assert said[-1] == "7 captions still open: `--resume` asks about them again. The LLM cannot be reached."


def test_ctrl_c_ends_the_waiting_at_once_and_lets_it_not_begin() -> None:
    client = ToldClient(7)
    done, said = run(client, 600.0, stop_at=1.0)
    assert not done
    assert client.now == pytest.approx(1.0)
    assert "7 captions still open" in said[-1]
    stopped = ToldClient(1)
    assert run(stopped, 600.0, stop_at=0.0) == (False, ["1 caption still open: `--resume` asks about them again."])
    assert stopped.now == 0.0


def test_nothing_is_waited_for_when_the_budget_is_used_up() -> None:
    client = ToldClient(7)
    client.exhaust()
    assert not run(client, 600.0)[0]
    assert client.now == LOOK_S


def test_a_client_that_has_failed_is_no_busy_loop() -> None:
    client = ToldClient(7, fails=True)
    assert not run(client, 5.0)[0]
    assert client.slept_s == pytest.approx(5.0)


def test_the_command_line_takes_a_duration() -> None:
    known, overrides = parse(["--resume", "--drain", "2m", "--seed", "3"])
    assert known.resume
    assert load_config(None, overrides).annotator.drain_s == 120.0
    assert load_config(None, parse(["--drain=0.5s"])[1]).annotator.drain_s == 0.5
    assert load_config(None, parse([])[1]).annotator.drain_s == 0.0
    with pytest.raises(SystemExit) as end:
        parse(["--drain", "soon"])
    assert end.value.code == 2


def test_durations() -> None:
    assert [seconds(text) for text in ("30", "30s", " 2m", "1.5h", "0")] == [30.0, 30.0, 120.0, 5400.0, 0.0]
    for wrong in ("", "-1", "30 s s", "2d", "nan", "1e3"):
        with pytest.raises(argparse.ArgumentTypeError, match="30s"):
            seconds(wrong)
