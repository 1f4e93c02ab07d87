"""How many requests a server gets, on simulated servers: no clock but theirs, no chance but that of a seed."""

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from llm_annotator.limits import FIRST, ConcurrencyLimit

SERVICE_S = 0.1


@dataclass
class Seen:
    """What a simulation came to in its second half: answers a second, refusals, limits in force."""

    per_s: float = 0.0
    refused: int = 0
    limits: list[int] = field(default_factory=list)

    @property
    def limit(self) -> float:
        return sum(self.limits) / len(self.limits)


def fixed(_: random.Random) -> float:
    return SERVICE_S


Request = tuple[float, int]
"""When a request went out, and what the limit said then."""


@dataclass(kw_only=True)
class Simulation:
    """A limit that finds its way with a server of so many slots at a time.

    refuse: what finds no slot is refused, and rests for a quarter second, or all pause for `pause_s`; else it waits.
    fails: share of requests that are refused for no reason. wanted: how many requests there is a use for at a time.
    """

    slots: Callable[[float], int]
    service: Callable[[random.Random], float] = fixed
    refuse: bool = False
    pause_s: float = 0.0
    fails: float = 0.0
    most: int = 256
    wanted: Callable[[float], int] = lambda _: 10**9

    def __post_init__(self) -> None:
        self.now = self.paused_until = 0.0
        self.in_flight = self.busy = 0
        self.chance = random.Random(1)
        self.limit = ConcurrencyLimit(self.most, clock=lambda: self.now)
        self.queue: deque[Request] = deque()
        self.events: list[tuple[float, int, str, Request]] = []
        self._ties = itertools.count()

    def run(self, horizon_s: float) -> Seen:
        seen = Seen()
        self._send_all()
        while self.now < horizon_s:
            self.now, _, what, request = heapq.heappop(self.events)
            if what != "paused":
                self.in_flight -= 1
            if what == "served":
                self._served(request)
            if self.now > horizon_s / 2:
                seen.limits.append(self.limit.limit)
                seen.per_s += (what == "served") / (horizon_s / 2)
                seen.refused += what == "refused"
            self._send_all()
        return seen

    def _after(self, seconds: float, what: str, request: Request = (0.0, 0)) -> None:
        heapq.heappush(self.events, (self.now + seconds, next(self._ties), what, request))

    def _send_all(self) -> None:
        while self.now >= self.paused_until and self.in_flight < min(self.limit.limit, self.wanted(self.now)):
            self.in_flight += 1
            self.queue.append((self.now, self.limit.began()))
            self._serve_all()
            if self.refuse and self.queue:
                self._refused(self.queue.pop())
        if self.now >= self.paused_until and self.in_flight < self.wanted(self.now):
            self.limit.held_back()

    def _serve_all(self) -> None:
        while self.queue and self.busy < self.slots(self.now):
            self.busy += 1
            self._after(self.service(self.chance), "served", self.queue.popleft())

    def _served(self, request: Request) -> None:
        self.busy -= 1
        self._serve_all()
        is_refused = self.chance.random() < self.fails
        self.limit.ended(request[1], self.now - request[0], refused=is_refused)

    def _refused(self, request: Request) -> None:
        """Tells the limit at once, as `Endpoint` does, how long the place will stay empty."""
        rest_s = 0.0 if self.pause_s else 0.25
        if self.pause_s:
            self.paused_until = self.now + self.pause_s
            self._after(self.pause_s, "paused")
        self.limit.ended(request[1], rest_s, refused=True, pause_s=self.pause_s)
        self._after(rest_s, "refused", request)


def simulate(slots: Callable[[float], int], *, horizon_s: float = 60.0, **more: Any) -> Seen:
    return Simulation(slots=slots, **more).run(horizon_s)


@pytest.mark.parametrize("slots", [1, 2, 5, 8, 20, 64, 100])
def test_a_server_with_a_queue_is_kept_busy_and_little_waits_there(slots: int) -> None:
    seen = simulate(lambda _: slots)
    assert seen.per_s >= 0.97 * slots / SERVICE_S
    assert seen.limit <= max(FIRST + 1, 1.15 * slots), "what is more than the slots only waits there"


@pytest.mark.parametrize("slots", [8, 20, 64])
@pytest.mark.parametrize("pause_s", [0.0, 1.0])
def test_a_server_that_refuses_what_is_too_much_is_kept_busy_and_rarely_refuses(slots: int, pause_s: float) -> None:
    seen = simulate(lambda _: slots, refuse=True, pause_s=pause_s)
    assert seen.per_s >= 0.95 * slots / SERVICE_S
    assert seen.refused <= 0.05 * seen.per_s * 30


@pytest.mark.parametrize("slots", [8, 20, 64])
def test_service_times_may_vary(slots: int) -> None:
    assert simulate(lambda _: slots, service=lambda chance: chance.uniform(0.05, 0.15)).per_s >= 0.95 * slots / 0.1
    seen = simulate(lambda _: slots, service=lambda chance: chance.expovariate(10.0), horizon_s=300.0)
    assert seen.per_s >= 0.95 * slots / 0.1
    assert seen.limit <= 3 * slots


def test_a_limit_of_the_user_holds() -> None:
    seen = simulate(lambda _: 64, most=10)
    assert max(seen.limits) == 10
    assert seen.per_s == pytest.approx(10 / SERVICE_S, rel=0.01)
    assert set(simulate(lambda _: 64, most=2).limits) == {2}


def test_a_server_that_becomes_slower_or_faster_is_followed() -> None:
    assert simulate(lambda now: 20 if now < 20 else 60, horizon_s=80.0).per_s >= 0.95 * 60 / SERVICE_S
    seen = simulate(lambda now: 60 if now < 20 else 20, horizon_s=120.0)
    assert seen.per_s >= 0.95 * 20 / SERVICE_S
    assert seen.limits[-1] <= 30


def test_a_server_that_batches_gets_more_as_long_as_that_pays() -> None:
    """Latency grows with every request, which a limit by latency alone would take for a queue."""
    limit = ConcurrencyLimit(1024, clock=lambda: now)
    now = 0.0
    for _ in range(40_000):
        level = limit.began()
        limit.held_back()
        seconds = 0.5 + 0.01 * limit.limit
        now += seconds / limit.limit
        limit.ended(level, seconds)
    at_limit = limit.limit / (0.5 + 0.01 * limit.limit)
    assert at_limit >= 0.7 * 100, "of the 100 a second that endless requests would bring"


def test_failures_that_have_nothing_to_do_with_load_do_not_strangle() -> None:
    seen = simulate(lambda _: 20, fails=0.3, horizon_s=300.0)
    assert seen.per_s >= 0.5 * 20 / SERVICE_S


def test_what_is_not_used_is_not_judged() -> None:
    seen = simulate(lambda _: 64, wanted=lambda _: 3)
    assert set(seen.limits) == {FIRST}, "three at a time say nothing about four"
    then_many = simulate(lambda _: 64, wanted=lambda now: 3 if now < 20 else 10**9, horizon_s=80.0)
    assert then_many.per_s >= 0.95 * 64 / SERVICE_S


def test_a_server_that_answers_at_once_does_no_harm() -> None:
    limit = ConcurrencyLimit(256, clock=lambda: 0.0)
    for _ in range(2_000):
        level = limit.began()
        limit.held_back()
        limit.ended(level, 0.0)
    assert FIRST <= limit.limit <= 256
    assert math.isfinite(limit.limit)
