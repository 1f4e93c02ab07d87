"""Many games at once, in worker processes that write into memory shared with the trainer."""

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np

from envs.errors import EnvError
from envs.host.arena import Arena, arena_fields, create_memory
from envs.host.crew import Crew
from envs.host.group import Group
from envs.host.history import NEW_EPISODES, Snapshot, checksums, read_snapshot
from envs.host.process import WorkerProcess
from envs.host.types import HostEnv, HostTimeStep, ShowsScenes
from envs.host.wire import MAX_GROUPS, Episode

_NO_ACTIONS = np.zeros(0, np.int32)


class GamePool:
    """Plays B games in worker processes, in groups that step by turns; to be used as a context manager.

    Each worker serves its rows of every group, in the order of the `send`s: while the policy acts for one group, the
    other steps. What is played depends on the seed and the actions only, not on the number of workers or groups.

    A worker that dies or hangs is replaced at once: its rows count as truncated, with reward 0 and without caption, in
    the next step of every group, and `info["lost"]` marks them.

    A pool may be driven from any thread, but from one at a time: nothing here is locked.

    Args:
        num_envs: games (B), a multiple of `num_groups`.
        seed: seeds every episode, together with its row and number.
        num_workers: processes, default one for each usable core; more than there are games in a group are not started.
        step_timeout_s: time a single step of a single game may take before its worker is taken for hung and killed.
        scenes: games that can (`ShowsScenes`) also write what a person would see; `Group.scenes` gives it.

    Raises:
        EnvError: an argument is out of range.
    """

    def __init__(
        self,
        env: HostEnv,
        num_envs: int,
        *,
        seed: int,
        num_groups: int = 2,
        num_workers: int | None = None,
        step_timeout_s: float = 60.0,
        scenes: bool = False,
    ) -> None:
        if not 1 <= num_groups <= MAX_GROUPS:
            raise EnvError(f"there must be 1 to {MAX_GROUPS} groups of games, not {num_groups}")
        if num_envs < 1 or num_envs % num_groups:
            raise EnvError(
                f"{num_envs} games cannot be dealt out to {num_groups} groups: take a multiple (env.num_envs)"
            )
        if num_workers is not None and num_workers < 1:
            raise EnvError(f"there must be at least one worker process, not {num_workers}")
        if seed < 0 or step_timeout_s <= 0:
            raise EnvError(f"seed must not be negative ({seed}), step_timeout_s must be positive ({step_timeout_s})")
        self.env = env
        self.num_envs = num_envs
        self.seed = seed
        self._group_size = num_envs // num_groups
        self._num_groups = num_groups
        self.num_workers = min(num_workers or len(os.sched_getaffinity(0)), self._group_size)
        self._step_timeout_s = step_timeout_s
        self._written = dict(env.raw)
        if scenes and isinstance(env, ShowsScenes):
            self._written |= env.scene
        self._memory = -1
        self._crew: Crew | None = None
        self._deaths = 0
        self._groups: tuple[Group, ...] = ()

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups, each a `HostVectorEnv`: group g of G has the rows from `g * B / G` on."""
        self._open_crew()
        return self._groups

    @property
    def deaths(self) -> int:
        """Workers that died, or hung and were killed, so far."""
        return self._deaths if self._crew is None else self._crew.deaths

    @property
    def repeats(self) -> str:
        """What the environment says of its games."""
        return self.env.spec.repeats

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return self._open_crew().pids

    def _open_crew(self) -> Crew:
        if self._crew is None:
            raise EnvError("this pool of games is not open: use `with GamePool(...) as pool:`")
        return self._crew

    def __enter__(self) -> "GamePool":  # noqa: PYI034 - the checks of annotations in tests do not know Self
        """Starts the workers and makes the games.

        Raises:
            EnvError: the games cannot be made; the message says why.
        """
        fields = arena_fields(
            self._written,
            num_envs=self.num_envs,
            num_stats=len(self.env.spec.episode_stats),
            num_workers=self.num_workers,
        )
        self._memory = create_memory(fields)
        try:
            arena = Arena(self._memory, fields)
            workers = [
                WorkerProcess(
                    [self._rows_of(index, group) for group in range(self._num_groups)],
                    self._worker_config(fields) | {"worker": index},
                    arena["beat"][index],
                )
                for index in range(self.num_workers)
            ]
            self._crew = Crew(workers, self._memory, self._num_groups, self._lose)
            self._groups = tuple(
                Group(self.env, self._crew, arena, first, self._group_size)
                for first in range(0, self.num_envs, self._group_size)
            )
            self._crew.launch()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers, by force if they do not end by themselves, and frees the memory."""
        if self._crew is not None:
            self._crew.close()
            self._deaths = self._crew.deaths
        for group in self._groups:
            group.close()
        self._crew, self._groups = None, ()
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def _worker_config(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        spec = self.env.spec
        return {
            "fields": fields,
            "factory": self.env.factory,
            "options": dict(self.env.options),
            "seed": self.seed,
            "max_episode_steps": spec.max_episode_steps,
            "episode_stats": list(spec.episode_stats),
            "step_timeout_s": self._step_timeout_s,
        }

    def _rows_of(self, worker: int, group: int) -> tuple[int, int]:
        ends = [self._group_size * (group * self.num_workers + k) // self.num_workers for k in (worker, worker + 1)]
        return ends[0], ends[1]

    def _lose(self, group: int, first: int, last: int) -> list[Episode]:
        return self._groups[group].lose(first, last)

    def snapshot(self) -> dict[str, Any]:
        """Returns what `restore` needs, as JSON values: the numbers of the running episodes, and their actions.

        Raises:
            EnvError: a step is under way in some group, or no episode runs.
        """
        if not all(group.idle for group in self.groups):
            raise EnvError("a snapshot of games is taken between recv and send of every group")
        rows = [(group, row) for group in self._groups for row in range(group.num_envs)]
        snapshot = Snapshot(
            env=self.env.spec.id,
            seed=self.seed,
            episode=[int(group.history.episode[row]) for group, row in rows],
            actions=[group.history.actions(row) for group, row in rows],
            checksum=[value for group in self._groups for value in checksums(group.raw)],
            lost=[group.first_row + row for group in self._groups for row in group.lost.tolist()],
        )
        return snapshot.to_json(self.env.spec.num_actions)

    def restore(self, snapshot: Mapping[str, Any], *, replay: bool = True) -> tuple[HostTimeStep, ...]:
        """Goes on where a snapshot was taken, in place of `reset`; returns what each group observes now.

        The seed must be that of the snapshot; the numbers of workers and groups need not be.

        Args:
            replay: bring the running episodes back by playing their actions again, otherwise start the episodes that
                would have followed. `truncated` marks rows whose running episode was not brought back.

        Raises:
            EnvError: the snapshot is not of such games, or its episodes cannot be brought back: the games do not repeat
                themselves, or they are of another version. The pool is still good for `restore` without `replay`.
        """
        spec = self.env.spec
        saved = read_snapshot(
            snapshot,
            env=spec.id,
            num_envs=self.num_envs,
            num_actions=spec.num_actions,
            max_episode_steps=spec.max_episode_steps,
        )
        if not all(group.idle or group.fresh for group in self.groups):
            raise EnvError("a step is under way: call recv before restore")
        if replay and saved.seed != self.seed:
            raise EnvError(
                f"the games were played with seed {saved.seed}, and this run has seed {self.seed}: "
                f"resume with the same seed, or start new episodes with {NEW_EPISODES}"
            )
        if not replay:
            saved = saved.next_episodes()
        self._bring_back(saved)
        if replay:
            self._compare(saved)
        new = np.zeros(self.num_envs, np.bool_)
        new[saved.lost] = True
        return tuple(group.enter(new[group.rows]) for group in self._groups)

    def _bring_back(self, saved: Snapshot) -> None:
        for group in self._groups:
            group.leave()
            group.history.load(saved.episode[group.rows], saved.actions[group.rows])
        episodes = [
            Episode(row, number, actions)
            for row, (number, actions) in enumerate(zip(saved.episode, saved.actions, strict=True))
        ]
        if problems := self._open_crew().replay(episodes):
            raise _not_brought_back(problems)

    def _compare(self, saved: Snapshot) -> None:
        found = [value for group in self._groups for value in checksums(group.raw)]
        other = [row for row in range(self.num_envs) if found[row] != saved.checksum[row]]
        if other:
            for group in self._groups:
                group.leave()
            raise _not_brought_back([f"what row {row} shows is not what it showed" for row in other])


def _not_brought_back(problems: list[str]) -> EnvError:
    shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
    return EnvError(
        f"the running games could not be brought back by playing their actions again: {shown}. "
        "Either these games do not repeat themselves, or they are of another version than when they were saved. "
        f"To resume with new episodes instead: {NEW_EPISODES}"
    )
