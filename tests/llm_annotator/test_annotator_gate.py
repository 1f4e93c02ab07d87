"""The circuit breaker of a server: whatever happened, one that answers again is asked again."""

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from told_engine import CONFIG, FakeClock, ToldBackend

from llm_annotator.endpoints import Endpoint
from llm_annotator.errors import BackendError, BackendOverloaded, BackendRejected, BackendUnreachable
from llm_annotator.gate import MAX_RETRY_AFTER_S, BackendGate

LONGEST_S = MAX_RETRY_AFTER_S + CONFIG.max_backoff_s

pauses = st.sampled_from([None, 0.0, 0.2, 20.0, 1e9, math.inf, math.nan])
faults = st.builds(
    lambda kind, pause_s: kind("at fault", retry_after_s=pause_s),
    st.sampled_from([BackendUnreachable, BackendOverloaded, BackendRejected]),
    pauses,
)


class GateMachine(RuleBasedStateMachine):
    """Requests go out and end in every way and order, as `Endpoint` tells a gate of them."""

    under_way = Bundle("under_way")

    @initialize()
    def begin_with_nothing(self) -> None:
        self.now = 0.0
        self.gate = BackendGate(CONFIG, clock=lambda: self.now, draw=lambda: 1.0)
        self.probes = 0

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0, LONGEST_S]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=under_way)
    def ask(self) -> tuple[int, bool] | None:
        if self.gate.delay_s() != 0:
            return None
        is_probe = self.gate.state == "half-open"
        self.probes += is_probe
        return self.gate.begin(), is_probe

    @rule(visit=consumes(under_way), fault=faults, answers_others=st.booleans())
    def break_off(self, visit: tuple[int, bool] | None, fault: BackendError, answers_others: bool) -> None:
        if visit is not None:
            (self.gate.paused if answers_others else self.gate.faulted)(visit[0], fault)
            self._end(visit)

    @rule(visit=consumes(under_way))
    def answer(self, visit: tuple[int, bool] | None) -> None:
        if visit is not None:
            self.gate.answered(visit[0])
            self._end(visit)

    @rule(visit=consumes(under_way))
    def cancel(self, visit: tuple[int, bool] | None) -> None:
        if visit is not None:
            self._end(visit)

    def _end(self, visit: tuple[int, bool]) -> None:
        self.gate.abandoned(visit[0])
        self.probes -= visit[1]

    @invariant()
    def only_a_probe_keeps_others_waiting(self) -> None:
        if hasattr(self, "gate"):
            assert (self.gate.delay_s() is None) == (self.probes > 0)
            assert self.probes <= 1

    def teardown(self) -> None:
        """The server is healthy, and time passes; older requests may hang on for ever."""
        if not hasattr(self, "gate") or self.probes:
            return
        self.now += LONGEST_S
        for _ in range(2):  # what is left of a fault: one goes through to see, then all do
            assert self.gate.delay_s() == 0
            ticket = self.gate.begin()
            self.gate.answered(ticket)
            self.gate.abandoned(ticket)
            assert (self.gate.state, self.gate.problem) == ("closed", "")


TestGate = GateMachine.TestCase
TestGate.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_a_probe_that_is_refused_beside_a_slow_request_does_not_keep_the_gate_shut() -> None:
    clock = FakeClock()
    server = Endpoint("server", CONFIG, clock=clock, draw=lambda: 1.0, backend=ToldBackend(lambda *_: "yes"))
    server.open(ToldBackend(lambda *_: "yes", max_concurrent=8))
    slow, broken = server.begin(), server.begin()
    server.faulted(broken, BackendUnreachable("reset"))
    server.left(broken)
    clock.now = 2.0
    assert server.delay_s() == 0.0
    probe = server.begin()
    assert server.delay_s() is None
    server.faulted(probe, BackendOverloaded("503 loading", retry_after_s=2.0))
    server.left(probe)
    assert server.delay_s() == 2.0
    server.answered(slow)
    server.left(slow)
    clock.now = 10.0
    assert server.delay_s() == 0.0
