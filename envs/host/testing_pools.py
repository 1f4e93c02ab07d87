"""Checks the vectors of a library that steps many games itself (`envs.host.types.OpensPool`)."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.errors import EnvContractError
from envs.host.arena import CAPTION_BYTES
from envs.host.history import checksums
from envs.host.types import Games, HostTimeStep, HostVectorEnv, OpensPool
from envs.spec import EnvSpec, ObsSpec


def require(condition: bool | np.bool_, rule: str) -> None:
    """Raises `EnvContractError` with the rule unless the condition holds."""
    if not condition:
        raise EnvContractError(rule)


def check_array(name: str, array: np.ndarray, rows: int, spec: ObsSpec) -> None:
    """Raises `EnvContractError` unless observations of some rows are what the spec promises."""
    require(
        array.shape == (rows, *spec.shape) and array.dtype == spec.dtype,
        f"obs {name!r} of {rows} rows is {array.dtype}{list(array.shape)}, "
        f"the spec promises {spec.dtype}{[rows, *spec.shape]}",
    )
    if spec.num_values is not None:
        highest = array.reshape(-1, spec.shape[-1]).max(axis=0)
        require(
            bool((highest < np.asarray(spec.num_values)).all()),
            f"obs {name!r} reaches {highest.tolist()}, the spec promises values below {spec.num_values}",
        )
    require(
        array.dtype.kind != "f" or bool(np.isfinite(array).all()), f"obs {name!r} holds numbers that are not finite"
    )


def check_library_pool(env: OpensPool, actions: np.ndarray, *, seed: int) -> None:
    """Plays `actions[T, B]` in two groups of the library's own vectors, twice, and checks every step.

    Raises:
        EnvContractError: a rule is broken; the message says which, and with what value.
    """
    first, again = (_Player(env, actions.shape[1], seed, threads).play(actions) for threads in (1, 2))
    for step, (one, other) in enumerate(zip(first, again, strict=True)):
        require(one == other, f"the library's own vectors, played twice with the same seed, differ at step {step}")


class _Player:
    """The games of one pool, and how far their episodes are."""

    def __init__(self, env: Any, num_envs: int, seed: int, threads: int) -> None:
        self._env = env
        self._spec: EnvSpec = env.spec
        self._pool: Games = env.open_pool(num_envs, seed=seed, num_groups=2, num_workers=threads)
        self._length = np.zeros((2, num_envs // 2), np.int64)

    def play(self, actions: np.ndarray) -> list[Any]:
        """Returns what each step showed, as numbers that change when any of it does."""
        shown: list[Any] = []
        with self._pool as pool:
            for group in pool.groups:
                require(isinstance(group, HostVectorEnv), f"a group of open_pool is a {type(group).__name__}")
                step = group.reset()
                self._check_obs(step.obs, group.num_envs)
                shown.append(checksums(step.obs))
            for action in actions:
                for i, (group, share) in enumerate(zip(pool.groups, np.split(action, 2), strict=True)):
                    group.send(share)
                    step = group.recv()
                    self._check(step, self._length[i])
                    rows = (step.reward, step.terminated, step.truncated, *step.info.values())
                    shown.append([checksums(step.obs), step.caption, *(row.tolist() for row in rows)])
            pool.restore(json.loads(json.dumps(pool.snapshot())), replay=pool.repeats != "never")
        return shown

    def _check(self, step: HostTimeStep, length: np.ndarray) -> None:
        length += 1
        rows, limit = len(length), self._spec.max_episode_steps
        ended = step.terminated | step.truncated
        require(not (step.terminated & step.truncated).any(), "a step is both terminated and truncated")
        require(bool(np.isfinite(step.reward).all()), "a reward is not finite")
        require(bool((ended | (length < limit)).all()), f"an episode goes on after the {limit} steps of the spec")
        require(not (step.info["success"] & ~ended).any(), "info['success'] is true before the end of an episode")
        for caption in step.caption:
            require(isinstance(caption, bytes) and len(caption) <= CAPTION_BYTES, f"a caption is {caption!r}")
            require(self._spec.says_text or not caption, f"caption {caption!r}, but the spec says that there are none")
        self._check_obs(step.obs, rows)
        self._check_obs(step.final_obs, rows)
        for name, last in step.final_obs.items():
            same = np.array_equal(last[~ended], step.obs[name][~ended])
            require(same, f"final_obs {name!r} differs from obs where no episode ended")
        length[ended] = 0

    def _check_obs(self, obs: Mapping[str, np.ndarray], rows: int) -> None:
        assert isinstance(self._spec.obs, Mapping)
        require(obs.keys() == self._spec.obs.keys(), f"obs has {sorted(obs)}, the spec says {sorted(self._spec.obs)}")
        for name, spec in self._spec.obs.items():
            check_array(name, obs[name], rows, spec)
