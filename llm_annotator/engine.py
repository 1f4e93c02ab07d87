"""The engine: asks the servers of an LLM about captions or pairs of them, and hands every outcome on to be kept.

`Waiting` says what is asked next, `Pool` who is asked, `Budget` whether it may cost anything, `Attempts` what a failure
means.
"""

import asyncio
import heapq
import itertools
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from llm_annotator.attempts import Again, Attempts, Done
from llm_annotator.budget import Budget, Pace
from llm_annotator.config import EngineConfig
from llm_annotator.endpoints import Endpoint, Visit
from llm_annotator.jobs import Job, JobKey, Offer
from llm_annotator.labeler import Labeler
from llm_annotator.pool import Pool
from llm_annotator.question import SubjectId
from llm_annotator.store.records import AnnotationRecord, ComparisonRecord
from llm_annotator.tally import Tally
from llm_annotator.types import LabelStatus, Subject
from llm_annotator.waiting import Waiting

_log = logging.getLogger(__name__)

UNSAVED = 8
"""Answers that may wait to be kept, beside as many as are asked for at once."""

CALM = 10
"""Outcomes kept in a row, after a fault of our own, after which all is taken to be well again; the log remembers."""

Sink = Callable[[AnnotationRecord | ComparisonRecord], Awaitable[None]]
"""Keeps one outcome; returns when it is kept for good."""


class Engine:
    """Asks about subjects (captions, or pairs of them) until it is stopped.

    Everything runs on one event loop, so nothing is locked.

    sink: called with each outcome; a caption counts as in flight until it returns, so a store that cannot write
        stops the asking instead of losing answers.
    redact: applied to every error text before it is shown or kept.
    """

    def __init__(
        self,
        pool: Pool,
        config: EngineConfig,
        sink: Sink,
        *,
        budget: Budget,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
        redact: Callable[[str], str] = str,
    ) -> None:
        self.pool = pool
        self.budget = budget
        self.tally = Tally(clock)
        self._sink = sink
        self._clock = clock
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._redact = redact
        self._pace = Pace(config.requests_per_minute, config.tokens_per_minute, clock=clock)
        self._attempts = Attempts(config, self.tally, budget, self._pace, draw=draw, redact=redact)
        self._waiting = Waiting(config.max_queue)
        self._most_delayed = config.max_queue
        self._delayed: list[tuple[float, int, Job]] = []  # a heap by due time
        self._ties = itertools.count()
        self._open: OrderedDict[JobKey, Job] = OrderedDict()  # all that wait, are delayed or in flight, oldest first
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._stopping = False
        self._internal_error = ""
        self._kept_since = 0  # outcomes since that error

    def room(self, run_id: str = "") -> int:
        """Returns how many captions of a run that were dropped may be offered again."""
        return self._waiting.room(run_id)

    def dropped(self, run_id: str) -> int:
        """Returns how many captions of a run fell out of the full queue."""
        return self._waiting.dropped[run_id]

    @property
    def oldest_s(self) -> float:
        """For how many seconds the caption that was offered first has been without an answer; 0 if there is none."""
        return self._clock() - next(iter(self._open.values())).since if self._open else 0.0

    @property
    def exhausted(self) -> str:
        """Why nothing is asked any more, in words; empty while a budget lasts."""
        budget = self.budget.exhausted
        return f"Nothing is asked any more: {budget} is used up. Raise it to go on." if budget else ""

    @property
    def problem(self) -> str:
        """What is wrong and what to do, in words; empty if all is well."""
        if self.exhausted:
            return self.exhausted
        if self.pool.problem:
            return self._redact(self.pool.problem)
        if self.tally.problem:
            return self.tally.problem
        if self._internal_error:
            return f"The annotator itself failed on a caption ({self._redact(self._internal_error)}): see its log."
        return ""

    def offer(
        self,
        labeler: Labeler,
        subjects: Sequence[tuple[SubjectId, Subject]],
        *,
        run_id: str = "",
        older: bool = False,
    ) -> Offer:
        """Queues subjects with their ids for a run, the last one to be asked first.

        One that is queued already becomes the newest; one that is being asked or waits for its next attempt stays.
        older: they were offered before. They are asked after everything that is queued, and drop nothing: those for
            which there is no room, the first of them, are not taken.
        """
        accepted = refused = 0
        for subject_id, subject in reversed(subjects) if older else subjects:
            job = self._open.get((labeler.id, subject_id))
            if job is not None and run_id in job.runs:
                if not older and self._waiting.holds(job):
                    self._waiting.put(job, run_id, newest=True)
            elif older and self._waiting.free(run_id) == 0:
                refused += 1
            else:
                accepted += self._take(job, labeler, subject_id, subject, run_id=run_id, newest=not older)
        dropped = self._waiting.drop_excess()
        for _, job in dropped:
            self.tally.counts(job.labeler.id).dropped += 1
            self._close_if_unwanted(job)
        self._wake.set()
        return Offer(accepted, refused + sum(each == run_id for each, _ in dropped))

    def _take(
        self, job: Job | None, labeler: Labeler, subject_id: SubjectId, subject: Subject, *, run_id: str, newest: bool
    ) -> bool:
        """Notes that a run wants an answer; returns whether nobody did before."""
        is_new = job is None
        if job is None:
            job = Job(labeler=labeler, subject_id=subject_id, subject=subject, since=self._clock())
            self._open[job.key] = job
            self.tally.counts(labeler.id).queued += 1
        waits = is_new or self._waiting.holds(job)
        job.runs[run_id] = None
        if waits:
            self._waiting.put(job, run_id, newest=newest)
        return is_new

    def came_up(self, labeler_id: str, episodes: Sequence[tuple[SubjectId, int]]) -> None:
        """Notes in how many episodes captions came up: of those that wait for long the frequent ones go first."""
        for subject_id, count in episodes:
            job = self._open.get((labeler_id, subject_id))
            if job is not None:
                self._waiting.came_up(job, count)

    def leave(self, run_id: str) -> None:
        """Forgets a run: what only it waits for is not asked."""
        left = self._waiting.leave(run_id)
        for job in self._open.values():
            job.runs.pop(run_id, None)
        for job in left:
            self._close_if_unwanted(job)

    def _close_if_unwanted(self, job: Job) -> None:
        if not job.runs:
            del self._open[job.key]
            self.tally.counts(job.labeler.id).queued -= 1

    def wake(self) -> None:
        """Notes that a server may be asked now that could not before."""
        self._wake.set()

    def stop(self) -> None:
        """Lets `run` end when what is in flight has ended; nothing more is asked."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Asks until stopped; if cancelled, requests in flight are given up."""
        try:
            while self._tasks or not self._stopping:
                self._wake.clear()
                await self._wait(self._start_all())
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start_all(self) -> float | None:
        """Starts every request that may start now; returns seconds until another may, None if only news can tell."""
        while True:
            self._take_due()
            if self._stopping or len(self._tasks) >= 2 * self.pool.limit + UNSAVED:
                return None
            # Those that failed are asked again before others fail, too: a server that garbles all fills no memory.
            if not len(self._waiting) or len(self._delayed) >= self._most_delayed:
                return max(0.0, self._delayed[0][0] - self._clock()) if self._delayed else None
            pause_s = self._pace.delay_s()
            if pause_s > 0:
                return pause_s
            if not self.budget.is_open:
                return None
            endpoint = self.pool.free()
            if endpoint is None:
                return self.pool.delay_s()
            self._start(endpoint)

    def _start(self, endpoint: Endpoint) -> None:
        job = self._waiting.take()
        assert job is not None
        counts = self.tally.counts(job.labeler.id)
        counts.queued -= 1
        counts.in_flight += 1
        # Here, not in the task, which begins later: what was paid decides whether another one may start.
        self._attempts.pay()
        self._keep(self._attend(job, endpoint, endpoint.begin()))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wait(self, delay_s: float | None) -> None:
        if delay_s is None:
            await self._wake.wait()
            return
        waiters = {asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(self._sleep(delay_s))}
        try:
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()

    async def _attend(self, job: Job, endpoint: Endpoint, visit: Visit) -> None:
        counts = self.tally.counts(job.labeler.id)
        try:
            await self._settle(job, await self._attempt(job, endpoint, visit))
        except Exception as error:  # noqa: BLE001 - outermost frame of the task: a fault of ours must not stop the other captions
            _log.exception("asking about a caption failed inside the annotator")
            self._internal_error, self._kept_since = f"{type(error).__name__}: {error}", 0
            await self._count_internal_failure(job, error)
        finally:
            counts.in_flight -= 1
            # Not in the done callback, which runs later: `run` must find the place free when it wakes.
            self._tasks.discard(asyncio.current_task())  # type: ignore[arg-type]
            self._wake.set()

    async def _attempt(self, job: Job, endpoint: Endpoint, visit: Visit) -> Done | Again:
        rest_s = 0.0
        try:
            outcome = await self._attempts.make(job, endpoint, visit)
            rest_s = outcome.rest_s if isinstance(outcome, Again) else 0.0
            return outcome
        finally:
            # The server can take another question while this answer is being kept.
            if rest_s:
                self._keep(self._rest(endpoint, visit, rest_s))
            else:
                endpoint.left(visit)
                self._wake.set()

    async def _rest(self, endpoint: Endpoint, visit: Visit, rest_s: float) -> None:
        try:
            await self._sleep(rest_s)
        finally:
            endpoint.left(visit, rested=True)
            self._wake.set()

    async def _settle(self, job: Job, outcome: Done | Again) -> None:
        if isinstance(outcome, Done):
            await self._finish(job, outcome)
        elif outcome.pause_s is None:
            self._enqueue(job, newest=False)
        else:
            heapq.heappush(self._delayed, (self._clock() + outcome.pause_s, next(self._ties), job))
            self.tally.counts(job.labeler.id).queued += 1

    async def _count_internal_failure(self, job: Job, error: Exception) -> None:
        try:
            await self._settle(job, self._attempts.failed(job, error))
        except Exception:  # noqa: BLE001 - as above; nothing about it can be kept, either
            _log.exception("%r is given up", job.subject)

    async def _finish(self, job: Job, done: Done) -> None:
        judgement, completion = done
        try:
            name = self.pool.name
            await self._sink(job.record(judgement, completion, backend=name, created_at=self._wall_clock()))
        except Exception:
            if judgement.status is LabelStatus.FAILED:
                del self._open[job.key]  # given up, though not even that could be kept: it may be offered again
            raise
        del self._open[job.key]
        self.tally.finished(job.labeler.id, judgement, self._clock() - job.since)
        self._kept_since += judgement.status is not LabelStatus.FAILED
        if self._kept_since >= CALM:
            self._internal_error = ""

    def _enqueue(self, job: Job, *, newest: bool) -> None:
        self.tally.counts(job.labeler.id).queued += 1
        for run_id in job.runs:
            self._waiting.put(job, run_id, newest=newest)
        self._close_if_unwanted(job)

    def _take_due(self) -> None:
        while self._delayed and self._delayed[0][0] <= self._clock():
            job = heapq.heappop(self._delayed)[2]
            self.tally.counts(job.labeler.id).queued -= 1
            self._enqueue(job, newest=True)
