"""What waits to be asked: a line for each run, served in turn, the newest first, and nothing for ever."""

import heapq
import itertools
from collections import Counter, OrderedDict

from llm_annotator.jobs import Job, JobKey

AGED_EVERY = 8
"""Every so many-th question of a run is about what waited longest instead of what came last."""

SECONDS_PER_EPISODE = 60.0
"""How much longer a caption is taken to have waited for each episode in which it came up. It bounds what frequent
captions can do to rare ones: those that come up in n episodes pass at most those that came n minutes before."""

MAX_BYTES = 64 * 2**20
"""Bytes of captions that wait, at most, however few they are."""


class _Line:
    """What waits for one run."""

    def __init__(self) -> None:
        self.jobs: OrderedDict[JobKey, Job] = OrderedDict()  # newest last
        self.taken = 0
        self._aged: list[tuple[float, int, JobKey]] = []  # a heap; what has left the line, or came twice, is skipped
        self._ties = itertools.count()

    def put(self, job: Job, *, newest: bool) -> None:
        self.jobs[job.key] = job
        if not newest:
            self.jobs.move_to_end(job.key, last=False)
        self.age(job)

    def age(self, job: Job) -> None:
        """Gives a job its place among those that waited long."""
        if len(self._aged) > 2 * len(self.jobs) + 64:
            self._aged = [(waited_since(each), next(self._ties), key) for key, each in self.jobs.items()]
            heapq.heapify(self._aged)
        heapq.heappush(self._aged, (waited_since(job), next(self._ties), job.key))

    def choose(self) -> Job:
        """Returns the job to be asked about next; there must be one."""
        self.taken += 1
        if self.taken % AGED_EVERY == 0:
            while self._aged:
                key = heapq.heappop(self._aged)[2]
                if key in self.jobs:
                    return self.jobs[key]
        return next(reversed(self.jobs.values()))


def waited_since(job: Job) -> float:
    """Returns the time since which a job is taken to wait."""
    return job.since - SECONDS_PER_EPISODE * job.episodes


class Waiting:
    """Jobs that wait, by the runs that want them. One that several runs want stands in the line of each.

    Runs take turns, whatever the length of their lines; what is too much leaves the longest one. Within a line the
    newest is first, but for every `AGED_EVERY`-th.

    max_jobs: how many may wait, over all lines.
    """

    def __init__(self, max_jobs: int) -> None:
        self.dropped: Counter[str] = Counter()
        """How many jobs fell out of a line that was too long, or found no room, by run."""
        self._max_jobs = max_jobs
        self._lines: OrderedDict[str, _Line] = OrderedDict()  # the run whose turn it is first; no line is empty
        self._places = 0
        self._bytes = 0

    def __len__(self) -> int:
        """Returns the places that are taken in all lines together."""
        return self._places

    def free(self, run_id: str) -> int:
        """Returns for how many more jobs of a run there is a place that is its own: the runs that wait share all."""
        line = self._lines.get(run_id)
        share = self._max_jobs // (len(self._lines) + (line is None))
        free = min(share - (len(line.jobs) if line else 0), self._max_jobs - self._places)
        return max(0, free) if self._bytes < MAX_BYTES else 0

    def room(self, run_id: str) -> int:
        """Returns how many jobs of a run that were dropped may come again: none until half of its share is free."""
        share = self._max_jobs // (len(self._lines) + (run_id not in self._lines))
        free = self.free(run_id)
        return free if free * 2 >= share and self._bytes * 2 <= MAX_BYTES else 0

    def put(self, job: Job, run_id: str, *, newest: bool) -> None:
        """Adds a job to the line of a run, or moves it there to the front if it is newer than all others."""
        line = self._lines.setdefault(run_id, _Line())
        if job.key in line.jobs:
            if newest:
                line.jobs.move_to_end(job.key)
            return
        line.put(job, newest=newest)
        self._places += 1
        self._bytes += job.size

    def holds(self, job: Job) -> bool:
        """Returns whether a job stands in any line."""
        return any(job.key in line.jobs for run_id in job.runs if (line := self._lines.get(run_id)) is not None)

    def take(self) -> Job | None:
        """Returns the job to be asked about next, which no longer waits; None if there is none."""
        if not self._lines:
            return None
        run_id, line = next(iter(self._lines.items()))
        job = line.choose()
        self.remove(job)
        if run_id in self._lines:
            self._lines.move_to_end(run_id)
        return job

    def remove(self, job: Job) -> None:
        """Takes a job out of every line."""
        for run_id in job.runs:
            self._remove_from(run_id, job)

    def _remove_from(self, run_id: str, job: Job) -> None:
        line = self._lines.get(run_id)
        if line is None or line.jobs.pop(job.key, None) is None:
            return
        self._places -= 1
        self._bytes -= job.size
        if not line.jobs:
            del self._lines[run_id]

    def drop_excess(self) -> list[tuple[str, Job]]:
        """Takes the oldest out of the longest line until there are not too many; returns them, each with its run."""
        gone: list[tuple[str, Job]] = []
        while self._places > self._max_jobs or (self._bytes > MAX_BYTES and self._places > 1):
            run_id, line = max(self._lines.items(), key=lambda item: len(item[1].jobs))
            job = next(iter(line.jobs.values()))
            self._remove_from(run_id, job)
            self.dropped[run_id] += 1
            del job.runs[run_id]
            gone.append((run_id, job))
        return gone

    def leave(self, run_id: str) -> list[Job]:
        """Forgets a run; returns the jobs that stood in its line."""
        line = self._lines.get(run_id)
        jobs = list(line.jobs.values()) if line is not None else []
        for job in jobs:
            self._remove_from(run_id, job)
        self.dropped.pop(run_id, None)
        return jobs

    def came_up(self, job: Job, episodes: int) -> None:
        """Notes in how many episodes the caption of a waiting job came up."""
        if episodes <= job.episodes:
            return
        job.episodes = episodes
        for run_id in job.runs:
            line = self._lines.get(run_id)
            if line is not None and job.key in line.jobs:
                line.age(job)
