"""The worker processes of a pool: sharing out what is to be played, and replacing those that die."""

import json
import logging
from collections.abc import Callable, Iterable, Sequence

from envs.errors import EnvError
from envs.host.process import WorkerDied, WorkerProcess
from envs.host.wire import NO_GROUP, START, STEP, Episode, Frame, pack, pack_episodes

_log = logging.getLogger(__name__)

DEATHS_IN_A_ROW = 5
"""Replacements of one worker that may die without having played a step before the pool gives up."""

CLOSE_TIMEOUT_S = 2.0
"""Time that workers have to free their games before they are killed."""


class Crew:
    """The workers of a pool.

    Args:
        memory: descriptor of the shared memory.
        lose: told a group and its rows (first, last + 1) whose games are gone, returns the episodes to play instead.
    """

    def __init__(
        self,
        workers: Sequence[WorkerProcess],
        memory: int,
        num_groups: int,
        lose: Callable[[int, int, int], list[Episode]],
    ) -> None:
        self.deaths = 0
        self._workers: Sequence[WorkerProcess] = workers
        self._memory = memory
        self._lose = lose
        self._failures = [0] * len(workers)
        self._requests = [pack(Frame(STEP, group)) for group in range(num_groups)]
        # Workers whose answer to a step is still to be read, and those that sit out the next step since their games
        # are others than those that the actions were chosen for.
        self._pending: list[list[int]] = [[] for _ in range(num_groups)]
        self._skip: list[set[int]] = [set() for _ in range(num_groups)]
        self._under_way = [False] * num_groups  # whether each group is between `begin_step` and the end of it

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def launch(self) -> None:
        """Starts all workers.

        Raises:
            EnvError: the games cannot be made, or no worker survives the attempt.
        """
        for worker in self._workers:
            worker.spawn(self._memory)
        for index, worker in enumerate(self._workers):
            try:
                refusal = worker.await_ready()
            except WorkerDied as death:
                self._replace(index, death)
                continue
            if refusal:
                raise EnvError(f"the games cannot be made: {refusal}")

    def close(self) -> None:
        """Ends all workers, by force if they do not end by themselves."""
        for worker in self._workers:
            worker.hang_up()
        for worker in self._workers:
            worker.end(CLOSE_TIMEOUT_S)
        self._workers = ()

    def begin_step(self, group: int) -> None:
        """Asks for a step of a group and returns at once."""
        skip = self._skip[group]
        self._under_way[group] = True
        for index, worker in enumerate(self._workers):
            if index not in skip:
                worker.send(self._requests[group])
                self._pending[group].append(index)
        skip.clear()

    def finish_step(self, group: int) -> None:
        """Waits for the step of a group.

        Raises:
            EnvError: a worker and all its replacements died.
        """
        pending = self._pending[group]
        while pending:
            index = pending[-1]
            try:
                self._workers[index].wait(group)
            except WorkerDied as death:
                self._replace(index, death)
            else:
                self._failures[index] = 0
                pending.pop()
        self._under_way[group] = False

    def start(self, group: int, episodes: Sequence[Episode]) -> None:
        """Starts episodes of a group; a worker that dies of one is replaced.

        Raises:
            EnvError: a worker and all its replacements died.
        """
        self._ask_to_start(episodes)
        for index, worker in enumerate(self._workers):
            try:
                worker.wait(NO_GROUP)
            except WorkerDied as death:
                self._replace(index, death)
        self._skip[group].clear()

    def replay(self, episodes: Sequence[Episode]) -> list[str]:
        """Brings episodes back to where their actions led; returns in words what went wrong.

        Games that went wrong are in no state to go on, but every worker can start others.
        """
        for pending, skip in zip(self._pending, self._skip, strict=True):
            assert not pending
            skip.clear()
        self._ask_to_start(episodes)
        problems: list[str] = []
        for worker in self._workers:
            try:
                if answer := worker.wait(NO_GROUP):
                    problems.append("row {row}: {problem}".format(**json.loads(answer)))
            except WorkerDied as death:
                problems.append(str(death))
                worker.end(0.0)
                worker.spawn(self._memory)
                if refusal := worker.await_ready():
                    raise EnvError(f"the games cannot be made: {refusal}") from None
        return problems

    def _ask_to_start(self, episodes: Iterable[Episode]) -> None:
        shares: list[list[Episode]] = [[] for _ in self._workers]
        owner = {
            row: index
            for index, worker in enumerate(self._workers)
            for first, last in worker.rows
            for row in range(first, last)
        }
        for episode in episodes:
            shares[owner[episode.row]].append(episode)
        for worker, share in zip(self._workers, shares, strict=True):
            worker.send(pack(Frame(START, NO_GROUP, pack_episodes(share))))

    def _replace(self, index: int, death: WorkerDied) -> None:
        worker = self._workers[index]
        while True:
            self._note(index, death)
            worker.end(0.0)
            worker.spawn(self._memory)
            try:
                if refusal := worker.await_ready():
                    raise WorkerDied(f"the replacement of the worker process cannot make its games: {refusal}")
                worker.send(pack(Frame(START, NO_GROUP, pack_episodes(self._replace_games(index)))))
                worker.wait(NO_GROUP)
            except WorkerDied as again:
                death = again
            else:
                return

    def _replace_games(self, index: int) -> list[Episode]:
        episodes: list[Episode] = []
        for group, (first, last) in enumerate(self._workers[index].rows):
            if index in self._pending[group]:
                self._pending[group].remove(index)
            elif not self._under_way[group]:  # else the step under way was lost with an earlier one, or with this one
                self._skip[group].add(index)
            episodes += self._lose(group, first, last)
        return episodes

    def _note(self, index: int, death: WorkerDied) -> None:
        """Says that a worker died.

        Raises:
            EnvError: it has happened too often.
        """
        self.deaths += 1
        self._failures[index] += 1
        if self._failures[index] > DEATHS_IN_A_ROW:
            tail = self._workers[index].tail()
            raise EnvError(
                f"{death}; {DEATHS_IN_A_ROW} replacements died before they had played a step"
                + (f". The last words of the last one:\n{tail}" if tail else "")
            )
        # As a string: who keeps records of a log would keep the error, and its frames the shared memory.
        _log.warning("%s; starting another one, whose games count as cut off", str(death))
