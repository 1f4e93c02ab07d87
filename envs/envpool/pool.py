"""Many environments of EnvPool at once, played by its own threads, with our way to reset.

EnvPool begins the next episode one step after an episode ended, and that step's action is lost. Here rows that ended
are reset by a call of their own before `recv` returns: a step that ends no episode costs nothing more.
"""

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np

from envs.envpool.vector import EnvPoolVector
from envs.errors import EnvError
from envs.host.history import NEW_EPISODES
from envs.host.types import HostTimeStep

SCHEMA = 1
"""Layout of a snapshot."""


class EnvPoolGames:
    """Plays B environments in groups, each a vector of EnvPool; to be used as a context manager.

    It looks like an `envs.host.pool.GamePool`, but for two things. There are no processes, so none can die. And EnvPool
    neither saves an environment nor takes a seed for an episode, so running episodes cannot be brought back: a snapshot
    only sees to it that those that follow are new ones, and a resumed run begins with these.

    Args:
        env: an `envs.envpool.adapter.EnvPoolEnv`.
        num_envs: environments (B), a multiple of `num_groups`.
        seed: seeds every row. What is played depends on it, on `num_groups` and on the actions only.
        num_threads: of each group, default one for each usable core.

    Raises:
        EnvError: an argument is out of range.
    """

    deaths = 0
    repeats = "never"

    def __init__(
        self, env: Any, num_envs: int, *, seed: int, num_groups: int = 2, num_threads: int | None = None
    ) -> None:
        if num_groups < 1 or num_envs < 1 or num_envs % num_groups:
            raise EnvError(
                f"{num_envs} games cannot be dealt out to {num_groups} groups: take a multiple (env.num_envs)"
            )
        if seed < 0 or (num_threads is not None and num_threads < 1):
            raise EnvError(f"seed must not be negative ({seed}), and there must be a thread at least ({num_threads})")
        self.env = env
        self.num_envs = num_envs
        self.seed = seed
        self._num_groups = num_groups
        self._num_threads = num_threads or len(os.sched_getaffinity(0))
        self._starts = 0
        self._groups: tuple[EnvPoolVector, ...] = ()

    @property
    def groups(self) -> tuple[EnvPoolVector, ...]:
        """The groups, each a `HostVectorEnv`: group g of G has the rows from `g * B / G` on."""
        if not self._groups:
            raise EnvError("this pool of games is not open: use `with env.open_pool(...) as pool:`")
        return self._groups

    def __enter__(self) -> "EnvPoolGames":  # noqa: PYI034 - the checks of annotations in tests do not know Self
        """Makes the environments.

        Raises:
            EnvError: EnvPool cannot make them.
        """
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        self.close()
        size = self.num_envs // self._num_groups
        self._groups = tuple(
            EnvPoolVector(self.env, size, seed=self._seed_of(group), num_threads=self._num_threads)
            for group in range(self._num_groups)
        )

    def _seed_of(self, group: int) -> int:
        """A seed of 31 bits, room for one more for each row, that differs between groups and starts."""
        words = np.random.SeedSequence(self.seed, spawn_key=(group, self._starts)).generate_state(1, np.uint32)
        return int(words[0]) >> 2

    def close(self) -> None:
        """Ends the threads."""
        for group in self._groups:
            group.close()
        self._groups = ()

    def snapshot(self) -> dict[str, Any]:
        """Returns what `restore` needs, as JSON values."""
        return {"schema": SCHEMA, "env": self.env.spec.id, "num_envs": self.num_envs, "starts": self._starts + 1}

    def restore(self, snapshot: Mapping[str, Any], *, replay: bool = True) -> tuple[HostTimeStep, ...]:
        """Begins new episodes after those of a snapshot; `truncated` marks every row.

        Raises:
            EnvError: running episodes are asked for, or the snapshot is not of such games.
        """
        if replay:
            raise EnvError(f"EnvPool cannot bring running episodes back: start new ones with {NEW_EPISODES}")
        if snapshot.get("schema") != SCHEMA or snapshot.get("env") != self.env.spec.id:
            raise EnvError(f"these are not saved games of {self.env.spec.id}: start a new run")
        self._starts = int(snapshot["starts"])
        self._open()
        everywhere = np.ones(self.num_envs // self._num_groups, np.bool_)
        return tuple(group.reset()._replace(truncated=everywhere) for group in self._groups)
