"""A vector of EnvPool as `envs.host.types.HostVectorEnv`."""

from typing import Any

import numpy as np
from jaxtyping import Int

from envs.errors import EnvError
from envs.host.types import HostTimeStep
from envs.spec import EnvSpec


class EnvPoolVector:
    """B environments that EnvPool's threads step, with same-step auto-reset.

    The arrays that it gives out are the reader's own, for good. Steps are counted here: some environments of the
    library know no limit (CliffWalking), and where an episode ends by itself on the last step of a limit, the library
    says that it was cut off.

    Args:
        env: an `envs.envpool.adapter.EnvPoolEnv`.
        seed: row i has `seed + i`, which decides all its episodes.
    """

    def __init__(self, env: Any, num_envs: int, *, seed: int, num_threads: int) -> None:
        self._env = env
        self._spec: EnvSpec = env.spec
        self._num_envs = num_envs
        self._pool: Any = env.make_vector(num_envs, seed=seed, num_threads=num_threads)
        self._length = np.zeros(num_envs, np.int64)
        self._raw: dict[str, np.ndarray] | None = None
        self._action: np.ndarray | None = None

    @property
    def spec(self) -> EnvSpec:
        """What is fixed about a single environment."""
        return self._spec

    @property
    def num_envs(self) -> int:
        """Environments in this vector."""
        return self._num_envs

    def reset(self) -> HostTimeStep:
        """Starts an episode in every row.

        Raises:
            EnvError: a step is under way.
        """
        if self._action is not None:
            raise EnvError("a step is under way: call recv before reset")
        self._raw = self._env.observer.read(self._pool.reset()[0])
        self._length[:] = 0
        obs = self._env.observe(self._raw)
        nothing = np.zeros(self._num_envs, np.bool_)
        return HostTimeStep(
            obs=obs,
            reward=np.zeros(self._num_envs, np.float32),
            terminated=nothing,
            truncated=nothing.copy(),
            caption=[b""] * self._num_envs,
            info={"success": nothing.copy(), "lost": nothing.copy()},
            ending=[""] * self._num_envs,
            final_obs=obs,
        )

    def send(self, action: Int[np.ndarray, " B"]) -> None:
        """Begins a step and returns at once.

        Raises:
            EnvError: out of turn, or the actions are not one for each environment, in range.
        """
        if self._raw is None or self._action is not None:
            raise EnvError("send is for after reset or recv" + (": call recv first" if self._raw is not None else ""))
        if action.shape != (self._num_envs,) or action.dtype.kind not in "iu":
            raise EnvError(f"actions are {action.dtype}{list(action.shape)}, expected integers[{self._num_envs}]")
        if action.min() < 0 or action.max() >= self._spec.num_actions:
            raise EnvError(f"an action is out of range: {action.tolist()}, there are {self._spec.num_actions} actions")
        self._action = action.astype(np.int32)
        self._pool.send(self._action)

    def recv(self) -> HostTimeStep:
        """Waits for the step that `send` began.

        Raises:
            EnvError: out of turn.
        """
        if self._raw is None or self._action is None:
            raise EnvError("recv is for after send")
        obs, reward, terminated, truncated, _ = self._pool.recv()
        action, before, last = self._action, self._raw, self._env.observer.read(obs)
        self._action = None
        self._length += 1
        reward = self._env.paid(np.asarray(reward, np.float32), self._length)
        terminated = np.asarray(terminated, np.bool_)
        truncated = (np.asarray(truncated, np.bool_) | (self._length >= self._spec.max_episode_steps)) & ~terminated
        narrator = self._env.narrator
        said = [b""] * self._num_envs
        success = np.zeros(self._num_envs, np.bool_)
        if narrator is not None:
            said = narrator.say(before, last, action, reward, terminated)
            success = terminated & (reward > 0)
        ended = terminated | truncated
        self._raw = self._begin(np.flatnonzero(ended), last)
        seen = self._env.observe(self._raw)
        return HostTimeStep(
            obs=seen,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            caption=said,
            info={"success": success, "lost": np.zeros(self._num_envs, np.bool_)},
            ending=_endings(terminated, truncated, success) if ended.any() else [""] * self._num_envs,
            final_obs=self._env.observe(last) if ended.any() else seen,
        )

    def _begin(self, rows: np.ndarray, last: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Resets the rows that ended; returns what is seen with their first observations in place."""
        if not rows.size:
            return last
        self._length[rows] = 0
        first = self._env.observer.read(self._pool.reset(rows.astype(np.int32))[0])
        now = {name: array.copy() for name, array in last.items()}
        for name, array in now.items():
            array[rows] = first[name]
        return now

    def close(self) -> None:
        """Ends the threads."""
        self._pool.close()


def _endings(terminated: np.ndarray, truncated: np.ndarray, success: np.ndarray) -> list[str]:
    return [
        "it was a success" if won else "terminated" if over else "truncated" if cut else ""
        for over, cut, won in zip(terminated.tolist(), truncated.tolist(), success.tolist(), strict=True)
    ]
