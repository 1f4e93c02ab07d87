"""Who is asked next: runs in turn, the newest of each first, and nothing waits for ever."""

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from told_engine import Bench, ToldBackend, play, run_with, settle

from llm_annotator import waiting as module
from llm_annotator.config import EngineConfig, LabelerConfig
from llm_annotator.jobs import Job
from llm_annotator.labeler import Labeler, resolve_labeler
from llm_annotator.waiting import AGED_EVERY, SECONDS_PER_EPISODE, Waiting

LABELER = Labeler(resolve_labeler(LabelerConfig()), "model")


def job(number: int, *runs: str, since: float | None = None, size: int = 1) -> Job:
    return Job(
        labeler=LABELER,
        subject_id=number,
        subject=b"x" * size,
        since=float(number) if since is None else since,
        runs=dict.fromkeys(runs or ("run",)),
    )


def put(waiting: Waiting, jobs: Iterable[Job]) -> None:
    for each in jobs:
        for run_id in each.runs:
            waiting.put(each, run_id, newest=True)


def take(waiting: Waiting, times: int) -> list[int]:
    return [taken.subject_id for _ in range(times) if (taken := waiting.take()) is not None]  # type: ignore[misc]


def test_the_newest_comes_first_and_every_eighth_is_what_waited_longest() -> None:
    waiting = Waiting(1000)
    put(waiting, [job(i) for i in range(100)])
    taken = take(waiting, 24)
    assert taken == [99, 98, 97, 96, 95, 94, 93, 0, 92, 91, 90, 89, 88, 87, 86, 1, 85, 84, 83, 82, 81, 80, 79, 2]
    assert len(waiting) == 76


def test_an_old_caption_is_asked_though_new_ones_never_end() -> None:
    waiting = Waiting(1000)
    put(waiting, [job(0)])
    asked: list[int] = []
    for number in range(1, 200):
        put(waiting, [job(2 * number), job(2 * number + 1)])
        asked += take(waiting, 1)
    assert asked.index(0) < AGED_EVERY
    old = [number for number in asked if number % 2 == 0 and number < 2 * len(asked) / 3]
    assert len(old) >= 10, "and so are those of later that were passed over"


def test_of_the_old_ones_those_that_come_up_often_go_first() -> None:
    waiting = Waiting(1000)
    jobs = [job(i) for i in range(50)]
    put(waiting, jobs)
    waiting.came_up(jobs[30], 40)
    waiting.came_up(jobs[20], 7)
    waiting.came_up(jobs[20], 3)  # fewer than were told before
    taken = take(waiting, 4 * AGED_EVERY)
    aged = taken[AGED_EVERY - 1 :: AGED_EVERY]
    assert aged == [30, 20, 0, 1]


def test_frequent_captions_pass_a_rare_one_for_a_bounded_time() -> None:
    waiting = Waiting(10_000)
    put(waiting, [job(0)])
    episodes = 10
    for minute in range(1, 60):
        frequent = job(minute, since=60.0 * minute)
        put(waiting, [frequent, *(job(1000 * minute + i, since=60.0 * minute) for i in range(AGED_EVERY))])
        waiting.came_up(frequent, episodes)
        if 0 in take(waiting, AGED_EVERY):
            break
    assert minute <= episodes * SECONDS_PER_EPISODE / 60 + 1


def test_runs_take_turns_whatever_the_length_of_their_lines() -> None:
    waiting = Waiting(10_000)
    put(waiting, [job(i, "flood") for i in range(5000)])
    put(waiting, [job(5000 + i, "other") for i in range(3)])
    put(waiting, [job(6000, "third")])
    assert take(waiting, 7) == [4999, 5002, 6000, 4998, 5001, 4997, 5000]
    assert take(waiting, 2) == [4996, 4995], "then the flood has the server for itself"


def test_what_two_runs_want_is_taken_once() -> None:
    waiting = Waiting(100)
    put(waiting, [job(1, "a", "b"), job(2, "a"), job(3, "b")])
    assert len(waiting) == 4
    assert sorted(take(waiting, 10)) == [1, 2, 3]
    assert len(waiting) == 0


def test_a_flood_pushes_out_its_own_captions_alone() -> None:
    waiting = Waiting(10)
    put(waiting, [job(i, "quiet") for i in range(3)])
    put(waiting, [job(10 + i, "flood") for i in range(20)])
    dropped = waiting.drop_excess()
    assert {run_id for run_id, _ in dropped} == {"flood"}
    assert [each.subject_id for _, each in dropped] == list(range(10, 23)), "its oldest"
    assert (waiting.dropped["flood"], waiting.dropped["quiet"]) == (13, 0)
    assert waiting.room("flood") == 0
    assert waiting.free("quiet") == 0, "there is no place, but for new ones others leave"
    put(waiting, [job(100, "quiet")])
    assert [run_id for run_id, _ in waiting.drop_excess()] == ["flood"]


def test_room_is_told_when_half_of_a_runs_share_is_free() -> None:
    waiting = Waiting(20)
    put(waiting, [job(i, "a") for i in range(11)])
    assert waiting.room("a") == 0
    assert waiting.room("b") == 9, "of the ten that are its share"
    take(waiting, 1)
    assert waiting.room("a") == 10
    put(waiting, [job(100, "b")])
    assert waiting.room("a") == 0, "with two runs its share is ten"


def test_long_captions_are_bounded_by_their_bytes(monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    waiting = Waiting(100)
    put(waiting, [job(i, size=300) for i in range(5)])
    assert [each.subject_id for _, each in waiting.drop_excess()] == [0, 1]
    assert waiting.room("run") == 0
    put(waiting, [job(9, size=5000)])
    waiting.drop_excess()
    assert take(waiting, 5) == [9], "one always fits"


def test_a_run_that_leaves_takes_along_what_only_it_wants() -> None:
    async def scene() -> None:
        backend = ToldBackend(lambda caption, _: "yes", max_concurrent=1)
        backend.hold.clear()
        bench = Bench(backend)
        bench.offer(b"in flight", run_id="gone")

        async def act() -> None:
            assert bench.offer(b"only its own", b"shared", run_id="gone") == (2, 0)
            assert bench.offer(b"shared", b"new", run_id="stays") == (1, 0), "shared is asked once"
            bench.engine.leave("gone")
            assert bench.counts.queued == 2
            backend.hold.set()
            await settle()
            assert set(bench.outcomes()) == {b"in flight", b"shared", b"new"}
            assert bench.counts.queued == bench.counts.in_flight == 0
            assert bench.offer(b"only its own", run_id="gone") == (1, 0), "it may come back"

        await run_with(bench, act)

    play(scene)


def test_a_run_that_floods_does_not_starve_another() -> None:
    async def scene() -> None:
        backend = ToldBackend(lambda caption, _: "yes", max_concurrent=2)
        backend.hold.clear()
        bench = Bench(backend, config=EngineConfig(max_queue=10_000))
        bench.offer(*(b"flood %d" % i for i in range(5000)), run_id="flood")

        async def act() -> None:
            bench.offer(*(b"quiet %d" % i for i in range(20)), run_id="quiet")
            backend.hold.set()
            await settle()
            first = backend.asked[:44]
            assert sum(caption.startswith(b"quiet") for caption in first) == 20

        await run_with(bench, act)

    play(scene)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "older", "take", "came_up", "leave", "drop"]), st.integers(0, 30), st.integers(0, 2)
        ),
        max_size=120,
    )
)
def test_its_books_stay_in_order(steps: list[tuple[str, int, int]]) -> None:
    """Whatever happens, each job stands in the lines of its runs, once, and the sums are right."""
    waiting = Waiting(12)
    jobs = {number: job(number) for number in range(31)}
    for each in jobs.values():
        each.runs.clear()
    for what, number, run in steps:
        run_id, each = f"run {run}", jobs[number]
        if what in ("put", "older"):
            each.runs[run_id] = None
            waiting.put(each, run_id, newest=what == "put")
        elif what == "take" and (taken := waiting.take()) is not None:
            assert not waiting.holds(taken)
            taken.runs.clear()
        elif what == "came_up":
            waiting.came_up(each, number)
        elif what == "leave":
            for left in waiting.leave(run_id):
                del left.runs[run_id]
        elif what == "drop":
            waiting.drop_excess()
            assert len(waiting) <= 12
        places = sum(len(one.runs) for one in jobs.values() if waiting.holds(one))
        assert len(waiting) == places
    while waiting.take() is not None:
        pass
    assert len(waiting) == 0
