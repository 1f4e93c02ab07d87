"""The engine against backends that behave as told, on a clock that the test moves."""

import itertools

import pytest
from told_engine import CONFIG, Bench, FakeClock, ToldBackend, play, run_with, settle

from llm_annotator.backends.replay import NotInStore
from llm_annotator.backends.scripted import ScriptedBackend, ScriptedOptions
from llm_annotator.config import EngineConfig
from llm_annotator.engine import CALM
from llm_annotator.errors import (
    BackendAnswerInvalid,
    BackendOverloaded,
    BackendRejected,
    BackendUnreachable,
    ConfigError,
)
from llm_annotator.gate import BackendGate, backoff_s
from llm_annotator.rates import RateMeter
from llm_annotator.tally import UNPARSED_ALARM
from llm_annotator.types import LabelStatus


def test_asks_the_newest_first_and_each_once() -> None:
    async def scene() -> None:
        backend = ToldBackend(lambda caption, _: "yes")
        bench = Bench(backend)
        assert bench.offer(b"a", b"b", b"c") == (3, 0)
        assert bench.offer(b"a") == (0, 0), "queued already, and now the newest"

        async def act() -> None:
            assert backend.asked == [b"a", b"c", b"b"]
            assert bench.counts.queued == bench.counts.in_flight == 0
            assert bench.counts.labelled == bench.counts.requests == 3

        await run_with(bench, act)

    play(scene)


def test_no_caption_is_in_flight_twice() -> None:
    async def scene() -> None:
        backend = ToldBackend(lambda caption, _: "no", max_concurrent=4)
        backend.hold.clear()
        bench = Bench(backend)
        bench.offer(b"a", b"b")

        async def act() -> None:
            assert bench.offer(b"a", b"b") == (0, 0)
            await settle()
            assert sorted(backend.asked) == [b"a", b"b"]
            assert bench.counts.in_flight == 2
            backend.hold.set()
            await settle()
            assert bench.outcomes() == {b"a": (LabelStatus.LABELLED, False), b"b": (LabelStatus.LABELLED, False)}
            assert bench.offer(b"a") == (1, 0), "whether a known label is asked for again is the store's matter"

        await run_with(bench, act)

    play(scene)


def test_keeps_to_the_backends_concurrency() -> None:
    async def scene() -> None:
        backend = ToldBackend(lambda caption, _: "yes", max_concurrent=3)
        backend.hold.clear()
        bench = Bench(backend)
        bench.offer(*(b"%d" % i for i in range(20)))

        async def act() -> None:
            assert backend.in_flight == 3
            backend.hold.set()
            await settle()
            await settle()
            assert len(bench.records) == 20
            assert backend.most_in_flight == 3

        await run_with(bench, act)

    play(scene)


def test_a_full_queue_drops_the_oldest_and_counts_them() -> None:
    async def scene() -> None:
        bench = Bench(ToldBackend(lambda caption, _: "yes"), config=EngineConfig(max_queue=3))
        assert bench.offer(b"1", b"2", b"3", b"4", b"5") == (5, 2)
        assert (bench.counts.queued, bench.counts.dropped, bench.engine.room("run")) == (3, 2, 0)

        async def act() -> None:
            assert sorted(bench.outcomes()) == [b"3", b"4", b"5"]
            assert bench.engine.room("run") == 3
            assert bench.offer(b"1") == (1, 0), "what was dropped may come again"

        await run_with(bench, act)

    play(scene)


def test_older_captions_come_last_and_push_nothing_out() -> None:
    async def scene() -> None:
        backend = ToldBackend(lambda caption, _: "yes")
        bench = Bench(backend, config=EngineConfig(max_queue=4))
        bench.offer(b"new 1", b"new 2")
        assert bench.offer(b"old 1", b"old 2", b"old 3", b"new 1", older=True) == (2, 1)
        assert (bench.counts.queued, bench.counts.dropped) == (4, 0)

        async def act() -> None:
            assert backend.asked == [b"new 2", b"new 1", b"old 3", b"old 2"]

        await run_with(bench, act)

    play(scene)


def test_garbled_answers_are_asked_again_with_growing_pauses_and_then_failed() -> None:
    async def scene() -> None:
        backend = ToldBackend(lambda caption, _: BackendAnswerInvalid("half a line, key sk-secret"))
        bench = Bench(backend)
        bench.offer(b"a")

        async def act() -> None:
            assert len(backend.asked) == 1
            assert bench.counts.queued == 1
            await bench.clock.advance(0.75)
            assert len(backend.asked) == 1
            await bench.clock.advance(0.25)
            assert len(backend.asked) == 2, "after backoff_s"
            await bench.clock.advance(1.75)
            assert len(backend.asked) == 2
            await bench.clock.advance(0.25)
            assert len(backend.asked) == 3, "after twice backoff_s"
            (record,) = bench.records
            assert (record.status, record.helpful, record.answer) == (LabelStatus.FAILED, None, None)
            assert record.attempts == 3
            assert "half a line, key ***" in record.detail
            assert b"a".decode() in record.prompt_suffix
            assert bench.counts.failures == {"BackendAnswerInvalid": 3}
            assert (bench.counts.failed, bench.counts.queued) == (1, 0)

        await run_with(bench, act)

    play(scene)


def test_what_will_never_be_answered_fails_at_once_and_holds_nothing_up() -> None:
    async def scene() -> None:
        backend = ToldBackend(lambda caption, _: NotInStore("not there") if caption == b"new" else " yes")
        bench = Bench(backend)
        bench.offer(b"a", b"new")

        async def act() -> None:
            assert backend.asked == [b"new", b"a"]
            assert bench.outcomes() == {b"new": (LabelStatus.FAILED, None), b"a": (LabelStatus.LABELLED, True)}
            assert bench.counts.queued == 0
            assert bench.engine.problem == ""

        await run_with(bench, act)

    play(scene)


def test_an_answer_without_a_label_is_kept_as_such() -> None:
    async def scene() -> None:
        bench = Bench(ToldBackend(lambda caption, _: "perhaps"))
        bench.offer(b"a")

        async def act() -> None:
            (record,) = bench.records
            assert (record.status, record.helpful, record.answer) == (LabelStatus.UNPARSED, None, "perhaps")
            assert bench.counts.unparsed == 1
            assert bench.engine.problem == ""
            bench.offer(*(b"%d" % i for i in range(UNPARSED_ALARM)))
            await settle()
            assert "held no label" in bench.engine.problem

        await run_with(bench, act)

    play(scene)


@pytest.mark.parametrize("error", [BackendUnreachable, BackendOverloaded, BackendRejected, ConfigError])
def test_a_backend_that_is_down_costs_no_caption_and_is_probed_at_a_bounded_pace(error: type[Exception]) -> None:
    async def scene() -> None:
        down = True
        backend = ToldBackend(lambda caption, _: error("connection refused") if down else "yes", max_concurrent=4)
        bench = Bench(backend)
        captions = [b"%d" % i for i in range(10)]
        bench.offer(*captions)

        async def act() -> None:
            nonlocal down
            await bench.clock.advance(600)
            assert bench.records == [], "no caption may fail for the backend's sake"
            assert bench.counts.queued == 10
            assert "connection refused" in bench.engine.problem
            # 4 at once, then single probes after 1, 2, 4, 8, 8, 8, ... seconds.
            assert len(backend.asked) <= 4 + 3 + 600 / CONFIG.max_backoff_s + 1
            assert backend.most_in_flight <= 4
            assert set(backend.asked) == set(captions), "one bad caption must not be the only probe"
            down = False
            await bench.clock.advance(CONFIG.max_backoff_s)
            assert set(bench.outcomes().values()) == {(LabelStatus.LABELLED, True)}
            assert len(bench.records) == 10
            assert bench.engine.problem == ""

        await run_with(bench, act)

    play(scene)


def test_retry_after_is_obeyed() -> None:
    async def scene() -> None:
        backend = ToldBackend(lambda _, times: BackendOverloaded("429", retry_after_s=60.0) if times == 1 else "yes")
        bench = Bench(backend)
        bench.offer(b"a")

        async def act() -> None:
            await bench.clock.advance(59)
            assert len(backend.asked) == 1
            await bench.clock.advance(1)
            assert bench.outcomes() == {b"a": (LabelStatus.LABELLED, True)}

        await run_with(bench, act)

    play(scene)


def test_one_caption_that_the_server_refuses_fails_alone() -> None:
    async def scene() -> None:
        backend = ToldBackend(lambda caption, _: BackendRejected("400: bad") if caption == b"poison" else "yes")
        bench = Bench(backend)
        bench.offer(b"poison")

        async def act() -> None:
            for turn in range(12):
                bench.offer(b"fine %d" % turn)
                await bench.clock.advance(10)
            outcomes = bench.outcomes()
            assert outcomes.pop(b"poison") == (LabelStatus.FAILED, None)
            assert len(outcomes) == 12
            assert set(outcomes.values()) == {(LabelStatus.LABELLED, True)}
            times = backend.asked.count(b"poison")
            bench.offer(b"fine again")
            await bench.clock.advance(100)
            assert backend.asked.count(b"poison") == times, "failed is failed until it is offered again"

        await run_with(bench, act)

    play(scene)


def test_rate_limits_never_fail_a_caption() -> None:
    async def scene() -> None:
        turn = itertools.count()
        backend = ToldBackend(lambda *_: BackendOverloaded("429") if next(turn) % 2 else "yes", max_concurrent=2)
        bench = Bench(backend)
        bench.offer(*(b"%d" % i for i in range(40)))

        async def act() -> None:
            await bench.clock.advance(400)
            assert len(bench.records) == 40
            assert {record.status for record in bench.records} == {LabelStatus.LABELLED}

        await run_with(bench, act)

    play(scene)


def test_a_fault_inside_stops_nothing_and_is_told() -> None:
    async def scene() -> None:
        bench = Bench(ToldBackend(lambda caption, _: ZeroDivisionError("oops") if caption == b"bad" else "yes"))
        bench.offer(b"bad")

        async def act() -> None:
            await bench.clock.advance(10)
            bench.offer(b"good")
            await settle()
            assert bench.outcomes() == {b"bad": (LabelStatus.FAILED, None), b"good": (LabelStatus.LABELLED, True)}
            assert "ZeroDivisionError: oops" in bench.engine.problem

        await run_with(bench, act)

    play(scene)


def test_a_fault_of_our_own_is_over_when_it_does_not_come_again() -> None:
    async def scene() -> None:
        bench = Bench(ToldBackend(lambda caption, _: ZeroDivisionError("oops") if caption == b"bad" else "yes"))
        good = [b"good %d" % i for i in range(2 * CALM)]

        async def act() -> None:
            bench.offer(*good[: CALM - 1], b"bad")
            await bench.clock.advance(60)
            assert bench.counts.failed == 1
            assert len(bench.records) == CALM
            assert "ZeroDivisionError: oops" in bench.engine.problem, "what was answered before says nothing"
            bench.offer(*good[CALM - 1 :])
            await settle()
            assert bench.engine.problem == ""

        await run_with(bench, act)

    play(scene)


def test_what_cannot_be_kept_may_be_offered_again() -> None:
    async def scene() -> None:
        bench = Bench(ToldBackend(lambda caption, _: "yes"))
        bench.sink_error = TypeError("no JSON")
        bench.offer(b"a")

        async def act() -> None:
            await bench.clock.advance(30)
            assert bench.counts.queued == bench.counts.in_flight == 0
            bench.sink_error = None
            assert bench.offer(b"a") == (1, 0)
            await settle()
            assert bench.outcomes() == {b"a": (LabelStatus.LABELLED, True)}

        await run_with(bench, act)

    play(scene)


def test_no_faulty_answer_of_the_scripted_backend_becomes_a_label() -> None:
    async def scene() -> None:
        options = ScriptedOptions(helpful_pattern="even", fail_rate=0.3, fail_with="invalid", garble_rate=0.3)
        bench = Bench(ScriptedBackend(options, max_concurrent=4))
        captions = [b"%d %s" % (i, b"even" if i % 2 == 0 else b"odd") for i in range(100)]
        bench.offer(*captions)

        async def act() -> None:
            for _ in range(40):
                await bench.clock.advance(1)
            outcomes = bench.outcomes()
            assert set(outcomes) == set(captions)
            assert {status for status, _ in outcomes.values()} == set(LabelStatus)
            for caption, (status, helpful) in outcomes.items():
                assert helpful == ((b"even" in caption) if status is LabelStatus.LABELLED else None)

        await run_with(bench, act)

    play(scene)


def test_backoff_doubles_up_to_its_bound_with_a_quarter_of_jitter() -> None:
    config = EngineConfig(backoff_s=0.5, max_backoff_s=3.0)
    assert [backoff_s(n, config, lambda: 1.0) for n in (1, 2, 3, 4, 500)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff_s(2, config, lambda: 0.0) == 0.75


def test_gate_counts_a_burst_of_faults_once_and_lets_one_probe_through() -> None:
    clock = FakeClock()
    gate = BackendGate(CONFIG, clock=clock, draw=lambda: 1.0)
    tickets = [gate.begin() for _ in range(4)]
    for ticket in tickets:
        gate.faulted(ticket, BackendUnreachable("down"))
    assert gate.delay_s() == 1.0, "four at once are one fault"
    clock.now = 1.0
    assert gate.delay_s() == 0.0
    probe = gate.begin()
    assert gate.delay_s() is None, "no second probe"
    gate.faulted(probe, BackendUnreachable("down"))
    assert gate.delay_s() == 2.0
    gate.answered(tickets[0])
    assert gate.problem, "an answer to a question older than the fault proves nothing"
    clock.now = 3.0
    gate.answered(gate.begin())
    assert (gate.delay_s(), gate.problem) == (0.0, "")


def test_a_late_429_does_not_close_a_gate_that_has_opened_again() -> None:
    clock = FakeClock()
    gate = BackendGate(CONFIG, clock=clock, draw=lambda: 1.0)
    late = gate.begin()
    gate.faulted(gate.begin(), BackendUnreachable("down"))
    clock.now = 1.0
    gate.answered(gate.begin())
    gate.faulted(late, BackendOverloaded("429", retry_after_s=60.0))
    assert (gate.delay_s(), gate.problem) == (0.0, "")


def test_a_pause_that_a_server_asks_for_has_a_bound() -> None:
    clock = FakeClock()
    gate = BackendGate(CONFIG, clock=clock, draw=lambda: 1.0)
    tickets = [gate.begin(), gate.begin()]
    gate.faulted(tickets[0], BackendOverloaded("429"))
    gate.faulted(tickets[1], BackendOverloaded("429", retry_after_s=86_400.0))
    assert gate.delay_s() == 300.0
    assert gate.problem


def test_a_probe_that_was_given_up_makes_way() -> None:
    clock = FakeClock()
    gate = BackendGate(CONFIG, clock=clock, draw=lambda: 1.0)
    gate.faulted(gate.begin(), BackendUnreachable("down"))
    clock.now = 1.0
    gate.abandoned(gate.begin())
    assert gate.delay_s() == 0.0


def test_rate_is_an_average_over_ten_seconds() -> None:
    clock = FakeClock()
    meter = RateMeter(clock)
    assert meter.per_s() == 0.0
    for second in range(20):
        clock.now = float(second)
        meter.add()
        meter.add()
    clock.now = 19.9
    assert meter.per_s() == pytest.approx(2.0, rel=0.15)
    clock.now = 60.0
    assert meter.per_s() == 0.0
