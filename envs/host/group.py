"""The games of a pool that step at once."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from envs.errors import EnvError
from envs.host.arena import Arena, SharedRows
from envs.host.crew import Crew
from envs.host.history import History
from envs.host.types import Arrays, HostEnv, HostTimeStep, ShowsScenes
from envs.host.wire import Episode
from envs.spec import EnvSpec

LOST_ENDING = "the process of this game died"

_NO_ACTIONS = np.zeros(0, np.int32)


class _Open(NamedTuple):
    """The shared memory of a group.

    shared: of observations only what the policy's are made of. shown, last_shown: what pictures are made of, now and
    at the end of an episode. memory: all bytes.
    """

    shared: SharedRows
    shown: Arrays
    last_shown: Arrays
    memory: np.ndarray

    @classmethod
    def of(cls, env: HostEnv, arena: Arena, rows: slice) -> "_Open":
        """Returns the part of an arena that belongs to some rows."""
        shared = arena.rows(rows.start, rows.stop)
        names = env.shown if isinstance(env, ShowsScenes) and all(name in shared.raw for name in env.shown) else ()
        return cls(
            shared=shared._replace(
                raw={name: shared.raw[name] for name in env.raw}, final={name: shared.final[name] for name in env.raw}
            ),
            shown={name: shared.raw[name] for name in names},
            last_shown={name: shared.final[name] for name in names},
            memory=arena.memory,
        )


class Group:
    """Some rows of a pool as a `HostVectorEnv`.

    Every array that it gives out is the reader's own, for good. `info["lost"]` marks rows whose worker died: their
    episodes count as truncated, with reward 0, no caption, no figures, and the last observation that the agent saw.
    """

    def __init__(self, env: HostEnv, crew: Crew, arena: Arena, first_row: int, num_envs: int) -> None:
        self.first_row = first_row
        self._env, self._crew, self._spec = env, crew, env.spec
        self._num_envs = num_envs
        self._index = first_row // num_envs
        self._open: _Open | None = _Open.of(env, arena, self.rows)
        self._lost = np.zeros(num_envs, np.bool_)
        # What `info` says of figures where no episode ended: zeros that nobody can write to, so that they can be lent.
        nothing = np.zeros(num_envs, np.float32)
        nothing.flags.writeable = False
        self._no_stats = dict.fromkeys(self._spec.episode_stats, nothing)
        self._obs: Arrays | None = None
        self._busy = False
        self.history = History(
            num_envs, num_actions=self._spec.num_actions, max_episode_steps=self._spec.max_episode_steps
        )

    @property
    def spec(self) -> EnvSpec:
        """What is fixed about a single game."""
        return self._spec

    @property
    def num_envs(self) -> int:
        """Games in this group."""
        return self._num_envs

    @property
    def idle(self) -> bool:
        """Whether episodes run and no step is under way."""
        return self._obs is not None and not self._busy

    @property
    def fresh(self) -> bool:
        """Whether no episode runs."""
        return self._obs is None

    @property
    def rows(self) -> slice:
        """Rows of the pool that are in this group."""
        return slice(self.first_row, self.first_row + self._num_envs)

    @property
    def _shared(self) -> SharedRows:
        if self._open is None:
            raise EnvError("the pool of these games is closed")
        return self._open.shared

    def close(self) -> None:
        """Lets go of the shared memory; nothing more can be played."""
        self._open = None
        self.leave()

    def reset(self) -> HostTimeStep:
        """Starts an episode in every row.

        Raises:
            EnvError: a step is under way, or workers die whatever they are given.
        """
        if self._busy:
            raise EnvError("a step is under way: call recv before reset")
        _ = self._shared  # raises if there is none
        self.leave()
        self.history.begin(slice(None))
        self._crew.start(self._index, self.episodes(range(self._num_envs)))
        return self.enter()

    def leave(self) -> None:
        """Says that the episodes that run now are of no interest any more."""
        self._obs, self._busy = None, False

    def enter(self, new: np.ndarray | None = None) -> HostTimeStep:
        """Takes up the episodes that the workers have started; those of `new` count as following a truncated one."""
        self._lost[:] = False
        self._obs = self._observe(self._shared.raw)
        truncated = np.zeros(self._num_envs, np.bool_) if new is None else new
        nowhere = np.zeros(0, np.int64)
        return HostTimeStep(
            obs=self._obs,
            reward=np.zeros(self._num_envs, np.float32),
            terminated=np.zeros(self._num_envs, np.bool_),
            truncated=truncated,
            caption=[b""] * self._num_envs,
            info=self._info(np.zeros(self._num_envs, np.bool_), truncated.copy(), nowhere),
            ending=[""] * self._num_envs,
            final_obs=self._obs,
        )

    def send(self, action: Int[np.ndarray, " B"]) -> None:
        """Begins a step and returns at once.

        Raises:
            EnvError: out of turn, or the actions are not one for each game, in range.
        """
        if not self.idle:
            raise EnvError("send is for after reset or recv" + (": call recv first" if self._busy else ""))
        if action.shape != (self._num_envs,) or action.dtype.kind not in "iu":
            raise EnvError(f"actions are {action.dtype}{list(action.shape)}, expected integers[{self._num_envs}]")
        if action.min() < 0 or action.max() >= self._spec.num_actions:
            raise EnvError(f"an action is out of range: {action.tolist()}, there are {self._spec.num_actions} actions")
        self._shared.action[:] = action
        self.history.add(action)
        self._busy = True
        self._crew.begin_step(self._index)

    def recv(self) -> HostTimeStep:
        """Waits for the step that `send` began.

        Raises:
            EnvError: out of turn, or a worker and all its replacements died.
        """
        if not self._busy:
            raise EnvError("recv is for after send")
        self._crew.finish_step(self._index)
        self._busy = False
        shared, lost = self._shared, self._lost.copy()
        any_lost = True in lost.tolist()
        if any_lost:
            self._blank(lost)
        terminated, truncated = shared.terminated.copy(), shared.truncated.copy()
        (ended,) = (terminated | truncated).nonzero()
        if ended.size:
            self.history.begin(ended)
        obs = self._observe(shared.raw)
        step = HostTimeStep(
            obs=obs,
            reward=shared.reward.copy(),
            terminated=terminated,
            truncated=truncated | lost if any_lost else truncated,
            caption=[
                bytes(caption[:length]) if length else b""
                for caption, length in zip(shared.caption, shared.caption_length.tolist(), strict=True)
            ],
            info=self._info(shared.success.copy(), lost, ended),
            ending=self._ending(ended, lost) if ended.size or any_lost else [""] * self._num_envs,
            final_obs=self._final_obs(obs, ended, lost) if ended.size or any_lost else obs,
        )
        self._obs = obs
        return step

    def _blank(self, lost: np.ndarray) -> None:
        """Wipes out what a worker may have written before it died, and the actions that nobody played."""
        shared = self._shared
        for array in (shared.reward, shared.terminated, shared.truncated, shared.success, shared.caption_length):
            array[lost] = 0
        self.history.restart(lost)
        self._lost[:] = False

    def _info(self, success: np.ndarray, lost: np.ndarray, ended: np.ndarray) -> dict[str, np.ndarray]:
        info = {"success": success, "lost": lost}
        if not ended.size:
            return info | self._no_stats
        stats = np.zeros_like(self._shared.stats)
        stats[ended] = self._shared.stats[ended]
        return info | {n: stats[:, i] for i, n in enumerate(self._spec.episode_stats)}

    def _ending(self, ended: np.ndarray, lost: np.ndarray) -> list[str]:
        shared = self._shared
        ending = [LOST_ENDING if row_lost else "" for row_lost in lost.tolist()]
        for row in ended.tolist():
            ending[row] = bytes(shared.ending[row][: shared.ending_length[row]]).decode()
        return ending

    def _final_obs(self, obs: Arrays, ended: np.ndarray, lost: np.ndarray) -> Arrays:
        assert self._obs is not None
        final = {name: array.copy() for name, array in obs.items()}
        seen = (
            self._env.observe({name: array[ended] for name, array in self._shared.final.items()}) if ended.size else {}
        )
        for name, array in final.items():
            array[lost] = self._obs[name][lost]
            if ended.size:
                array[ended] = seen[name]
        return final

    def _observe(self, raw: Arrays) -> dict[str, np.ndarray]:
        """Returns observations that share nothing with the memory that workers write to."""
        assert self._open is not None
        memory = self._open.memory
        obs = self._env.observe(raw)
        return {n: a.copy() if np.may_share_memory(a, memory) else a for n, a in obs.items()}

    def lose(self, first: int, last: int) -> list[Episode]:
        """Gives up the episodes of rows of the pool and returns those that take their place."""
        if self.history.episode[0] < 0:
            return []
        rows = np.arange(first, last) - self.first_row
        self._lost[rows] = True
        self.history.begin(rows)
        return self.episodes(rows.tolist())

    def episodes(self, rows: Iterable[int]) -> list[Episode]:
        """Returns the running episodes of rows of this group, from their start."""
        return [Episode(self.first_row + row, int(self.history.episode[row]), _NO_ACTIONS) for row in rows]

    def scenes(self) -> tuple[Arrays, Arrays]:
        """Returns what is shown now and, where the last step ended an episode, what was shown at its end.

        They are the shared memory itself: read them before the next `send`. Empty for games that show nothing.
        """
        _ = self._shared  # raises if there is none
        assert self._open is not None
        return self._open.shown, self._open.last_shown

    @property
    def raw(self) -> Arrays:
        """What the games wrote last, in the shared memory."""
        return self._shared.raw

    @property
    def lost(self) -> np.ndarray:
        """Local rows whose worker died and was replaced, which nobody has been told yet."""
        return np.flatnonzero(self._lost)
