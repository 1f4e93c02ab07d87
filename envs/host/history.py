"""What it takes to bring running episodes back: their numbers, and the actions since their resets."""

import base64
import binascii
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from envs.errors import EnvError

SCHEMA = 1
"""Layout of a snapshot."""

NEW_EPISODES = "--env.no-resume-games"
"""The setting that resumes a run with new episodes."""


_NO_ACTIONS = np.zeros(0, np.uint8)


class History:
    """The actions of the running episodes of some rows, and the numbers of these episodes.

    Actions are kept in a ring as long as the longest episode, a line a step, so that a step costs one copy.
    """

    def __init__(self, num_rows: int, *, num_actions: int, max_episode_steps: int) -> None:
        self._log = np.zeros((max_episode_steps, num_rows), _action_dtype(num_actions))
        self._now = 0
        self._start = np.zeros(num_rows, np.int64)
        self.episode = np.full(num_rows, -1, np.int64)
        """Number of each row's running episode, -1 before the first."""

    def add(self, action: np.ndarray) -> None:
        """Takes in one action of each row."""
        self._log[self._now % len(self._log)] = action
        self._now += 1

    def begin(self, rows: np.ndarray | slice) -> None:
        """Says that the next episode has begun in these rows."""
        self.episode[rows] += 1
        self._start[rows] = self._now

    def restart(self, rows: np.ndarray) -> None:
        """Says that the episodes of these rows have only begun: what was added since went to no game."""
        self._start[rows] = self._now

    def actions(self, row: int) -> np.ndarray:
        """Returns the actions of a row's running episode."""
        return self._log[np.arange(self._start[row], self._now) % len(self._log), row]

    def load(self, episode: list[int], actions: list[np.ndarray]) -> None:
        """Goes on in the midst of episodes."""
        self._now = max((len(row_actions) for row_actions in actions), default=0)
        self.episode[:] = episode
        for row, row_actions in enumerate(actions):
            self._start[row] = self._now - len(row_actions)
            self._log[np.arange(self._start[row], self._now) % len(self._log), row] = row_actions


class Snapshot(NamedTuple):
    """Where a pool is, row by row.

    episode: number of the running episode. actions: of that episode so far. checksum: of the raw observation.
    lost: rows whose worker died, which the agent has not been told yet.
    """

    env: str
    seed: int
    episode: list[int]
    actions: list[np.ndarray]
    checksum: list[int]
    lost: list[int]

    def next_episodes(self) -> "Snapshot":
        """Returns the start of the episodes that follow."""
        rows = range(len(self.episode))
        return self._replace(
            episode=[number + 1 for number in self.episode], actions=[_NO_ACTIONS for _ in rows], lost=list(rows)
        )

    def to_json(self, num_actions: int) -> dict[str, Any]:
        """Returns JSON values, actions compressed."""
        dtype = _action_dtype(num_actions)
        packed = [base64.b64encode(zlib.compress(actions.astype(dtype).tobytes())).decode() for actions in self.actions]
        return {"schema": SCHEMA, "num_envs": len(self.episode), **self._asdict(), "actions": packed}


def read_snapshot(
    value: Mapping[str, Any], *, env: str, num_envs: int, num_actions: int, max_episode_steps: int
) -> Snapshot:
    """Reads what `Snapshot.to_json` gave.

    Raises:
        EnvError: it is damaged, or from other games.
    """
    if value.get("schema") != SCHEMA:
        raise EnvError(
            f"the saved games have layout {value.get('schema')!r}, this version reads {SCHEMA}; "
            f"start new episodes with {NEW_EPISODES}"
        )
    if value["num_envs"] != num_envs:
        raise EnvError(
            f"{value['num_envs']} games were saved, but there are {num_envs} now: resume with the same number of games "
            "(env.num_envs)"
        )
    if value["env"] != env:
        raise EnvError(f"games of {value['env']} were saved, but these are of {env}: resume with the same env.id")
    try:
        dtype = _action_dtype(num_actions)
        raw = [zlib.decompress(base64.b64decode(text, validate=True)) for text in value["actions"]]
        actions = [np.frombuffer(data, dtype) for data in raw]
        snapshot = Snapshot(
            env,
            value["seed"],
            [int(n) for n in value["episode"]],
            actions,
            list(value["checksum"]),
            list(value["lost"]),
        )
    except (KeyError, ValueError, TypeError, binascii.Error, zlib.error) as error:
        raise _damaged(f"{type(error).__name__}: {error}") from error
    if not all(len(column) == num_envs for column in (snapshot.episode, actions, snapshot.checksum)):
        raise _damaged("not every game has an entry")
    if min(snapshot.episode) < 0 or not set(snapshot.lost) <= set(range(num_envs)):
        raise _damaged("there are other games in it than these")
    if any(len(row) >= max_episode_steps or (row >= num_actions).any() for row in actions):
        raise _damaged("there are more actions, or other ones, than these games allow")
    return snapshot


def _damaged(what: str) -> EnvError:
    return EnvError(f"the saved games cannot be read ({what}); start new episodes with {NEW_EPISODES}")


def _action_dtype(num_actions: int) -> np.dtype[Any]:
    return np.dtype("<u1" if num_actions <= 1 << 8 else "<u2" if num_actions <= 1 << 16 else "<u4")


def checksums(raw: Mapping[str, np.ndarray]) -> list[int]:
    """Returns a number for each row that changes when any byte of its arrays does."""
    sums: list[int] = [0] * len(next(iter(raw.values())))
    for name in sorted(raw):
        sums = [zlib.crc32(row.tobytes(), value) for row, value in zip(raw[name], sums, strict=True)]
    return sums
