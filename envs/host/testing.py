"""Checks that a `HostEnv` and its games keep the contract of `envs.host.types`."""

import itertools
import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from envs.errors import EnvContractError, EnvError
from envs.host.arena import CAPTION_BYTES
from envs.host.history import checksums
from envs.host.pool import GamePool
from envs.host.seeding import episode_seed
from envs.host.testing_pools import check_array, check_library_pool, require
from envs.host.types import Arrays, Game, GameStep, HostEnv, HostTimeStep, OpensPool
from envs.host.worker import load_factory

_WARM_UP_STEPS = 20
"""Actions of an episode that games play before they are tried again, so that what they keep from it shows."""

_GARBAGE = 0xA5
"""What the arrays hold, byte by byte, before games are tried again."""

Signature = list[Any]
"""What a step showed, so that two plays can be compared: numbers that change when any byte does, row by row."""


class Play(NamedTuple):
    """What came up when games were played. steps: of each step, `Signature` by name. first: as games begin."""

    first: dict[str, Signature]
    steps: list[dict[str, Signature]]
    captions: set[bytes]


def check_host_env(env: HostEnv, *, seed: int, num_envs: int, num_steps: int | None) -> int:
    """Does what `envs.testing.check_env` says for games on the host: here, and in worker processes.

    Returns:
        How many distinct captions came up.

    Raises:
        EnvContractError: a rule is broken; the message says which, and with what value.
    """
    _check_fixed(env)
    steps = num_steps or min(env.spec.max_episode_steps + 1, 2_000)
    num_envs += num_envs % 2  # for two groups
    actions = np.random.default_rng(seed).integers(0, env.spec.num_actions, (steps, num_envs), np.int32)
    play = _Table(env, seed, num_envs).play(actions)
    again = _Table(env, seed, num_envs, used=True).play(actions)
    repeats = env.spec.repeats != "never"
    if repeats:
        _compare(play, again, "games that had played before, into arrays that held something else, gave other")
    in_workers = _play_in_workers(env, seed, actions)
    if repeats:
        _compare(play, in_workers, "worker processes gave other")
    if isinstance(env, OpensPool):
        check_library_pool(env, actions, seed=seed)
    return len(play.captions - {b""})


def _check_fixed(env: HostEnv) -> None:
    spec = env.spec
    require(isinstance(spec.obs, Mapping) and bool(spec.obs), "spec.obs must name its arrays, at least one")
    require(bool(env.raw), "raw must name at least one array")
    require(spec.num_actions > 0, "spec.action_names is empty")
    require(spec.max_episode_steps > 0, f"spec.max_episode_steps is {spec.max_episode_steps}, expected at least 1")
    require(spec.event_size == 0, f"spec.event_size is {spec.event_size}: games on the host give captions, not events")
    try:
        same = json.loads(json.dumps(dict(env.options))) == dict(env.options)
    except (TypeError, ValueError):
        same = False
    require(same, f"options must be JSON values, which {dict(env.options)} are not")
    try:
        found = callable(load_factory(env.factory))
    except (ImportError, AttributeError, ValueError):
        found = False
    require(found, f"factory {env.factory!r} must be a function that can be imported, written package.module:function")


class _Table:
    """Games played in this process.

    used: they have played an episode already, and the arrays are full of garbage.
    """

    def __init__(self, env: HostEnv, seed: int, num_envs: int, *, used: bool = False) -> None:
        self._env, self._seed, self._used = env, seed, used
        self._raw = {n: np.zeros((num_envs, *s.shape), s.dtype) for n, s in env.raw.items()}
        self._games = [load_factory(env.factory)(**env.options) for _ in range(num_envs)]
        self._length, self._episode = [0] * num_envs, [0] * num_envs
        self._steps: list[dict[str, Signature]] = []
        self._captions: set[bytes] = set()
        self._begun: set[int] = set()
        self._between: set[int] = set()
        self._last: list[int] = []

    def play(self, actions: np.ndarray) -> Play:
        """Plays `actions[T, B]`."""
        for row, game in enumerate(self._games):
            require(isinstance(game, Game), f"the factory made a {type(game).__name__}, which lacks methods of a Game")
            game.attach({name: array[row, ...] for name, array in self._raw.items()})
        if self._used:
            self._use(actions)
        for row, game in enumerate(self._games):
            game.reset(episode_seed(self._seed, row, 0))
        first = self._seen()
        self._begun.update(first["raw observations"])
        for action in actions.tolist():
            self._steps.append(self._step(action))
        for game in self._games:
            game.close()
        self._check_ends()
        return Play(first, self._steps, self._captions)

    def _use(self, actions: np.ndarray) -> None:
        for row, game in enumerate(self._games):
            game.reset(episode_seed(self._seed + 1, row, 0))
            for action in actions[:_WARM_UP_STEPS, row].tolist():
                result = game.step(action)
                if result.terminated or result.truncated:
                    break
        for array in self._raw.values():
            array.reshape(-1).view(np.uint8)[:] = _GARBAGE if array.dtype != np.bool_ else 1

    def _step(self, actions: list[int]) -> dict[str, Signature]:
        results: list[GameStep] = []
        ends: list[str] = []
        for row, (game, action) in enumerate(zip(self._games, actions, strict=True)):
            self._length[row] += 1
            result = game.step(action)
            require(isinstance(result, GameStep), f"step returned {type(result).__name__}, expected GameStep")
            self._check_result(result, last=self._is_over(row, result))
            results.append(result)
        before = self._seen()
        for row, result in enumerate(results):
            over = self._is_over(row, result)
            ends.append(self._end(row, before["raw observations"][row], result) if over else "")
            if not over:
                self._between.add(before["raw observations"][row])
        self._captions.update(result.caption for result in results)
        after = self._seen()
        self._begun.update(s for s, end in zip(after["raw observations"], ends, strict=True) if end)
        final = [s if end else 0 for s, end in zip(before["observations"], ends, strict=True)]
        return after | {
            "rewards": [float(np.float32(result.reward)) for result in results],
            "captions": [result.caption for result in results],
            "ends": ends,
            "final observations": final,
        }

    def _is_over(self, row: int, result: GameStep) -> bool:
        cut = result.truncated or self._length[row] >= self._env.spec.max_episode_steps
        return bool(result.terminated or cut)

    def _check_result(self, result: GameStep, *, last: bool) -> None:
        reward, terminated, caption, success, truncated = result
        require(isinstance(reward, (float, int, np.floating)), f"reward is {reward!r}, expected a float")
        require(math.isfinite(reward), f"a reward is not finite: {reward}")
        require(isinstance(terminated, (bool, np.bool_)), f"terminated is {terminated!r}, expected a bool")
        require(isinstance(success, (bool, np.bool_)), f"success is {success!r}, expected a bool")
        require(isinstance(truncated, (bool, np.bool_)), f"truncated is {truncated!r}, expected a bool")
        require(not (terminated and truncated), "a step is both terminated and truncated")
        require(isinstance(caption, bytes), f"caption is {caption!r}, expected bytes")
        require(len(caption) <= CAPTION_BYTES, f"a caption has {len(caption)} bytes, at most {CAPTION_BYTES} are kept")
        require(self._env.spec.says_text or not caption, f"caption {caption!r}, but the spec says that there are none")
        require(not success or last, "success is true before the end of an episode")

    def _end(self, row: int, signature: int, result: GameStep) -> str:
        """Checks what is asked at the end, begins the next episode and returns all of it in words."""
        game, names = self._games[row], self._env.spec.episode_stats
        if result.terminated or result.truncated:
            self._last.append(signature)
        stats = game.stats()
        for name in names:
            value = stats.get(name)
            require(
                isinstance(value, (float, int, np.floating, np.integer)) and math.isfinite(value),
                f"stats gives {value!r} for {name!r} of spec.episode_stats, expected a finite number",
            )
        ending = game.ending()
        require(isinstance(ending, str), f"ending is {ending!r}, expected str")
        self._episode[row] += 1
        self._length[row] = 0
        game.reset(episode_seed(self._seed, row, self._episode[row]))
        figures = [float(np.float32(stats[name])) for name in names]
        return repr((bool(result.terminated), bool(result.success), figures))

    def _seen(self) -> dict[str, Signature]:
        obs = _check_observe(self._env, self._raw)
        return {"raw observations": checksums(self._raw), "observations": checksums(obs)}

    def _check_ends(self) -> None:
        """A game that resets by itself shows a first observation where its last one should be."""
        require(
            not self._last or not set(self._last) <= self._begun or self._between <= self._begun,
            "after the last step of every episode games showed what episodes begin with: they reset by themselves, "
            "and the true last observation is lost",
        )


def _check_observe(env: HostEnv, raw: Arrays) -> dict[str, np.ndarray]:
    kept = {name: array.copy() for name, array in raw.items()}
    obs = env.observe(raw)
    rows = len(next(iter(raw.values())))
    assert isinstance(env.spec.obs, Mapping)
    require(set(obs) == set(env.spec.obs), f"observe returns {sorted(obs)}, the spec promises {sorted(env.spec.obs)}")
    for name, spec in env.spec.obs.items():
        check_array(name, obs[name], rows, spec)
    unchanged = all(np.array_equal(array, kept[n], equal_nan=array.dtype.kind == "f") for n, array in raw.items())
    require(unchanged, "observe changes the raw arrays that it is given")
    before = checksums(obs)
    single = env.observe({name: array[:1].copy() for name, array in raw.items()})
    require(checksums(obs) == before, "observe changes what it returned before: it must not give the same memory twice")
    require(checksums(single) == before[:1], "observe shows a row alone otherwise than among others")
    return obs


def _play_in_workers(env: HostEnv, seed: int, actions: np.ndarray) -> Play:
    """Plays `actions[T, B]` in a pool of two groups, and brings its games back at the end."""
    try:
        with GamePool(env, actions.shape[1], seed=seed, num_workers=1) as pool:
            first = _join([{"observations": checksums(group.reset().obs)} for group in pool.groups])
            steps: list[dict[str, Signature]] = []
            for action in actions:
                for group, share in zip(pool.groups, np.split(action, 2), strict=True):
                    group.send(share)
                steps.append(_join([_signatures(env, group.recv()) for group in pool.groups]))
            require(pool.deaths == 0, "worker processes of the games died; the log says how")
            pool.restore(json.loads(json.dumps(pool.snapshot())), replay=pool.repeats != "never")
    except EnvContractError:
        raise
    except EnvError as error:
        raise EnvContractError(f"in worker processes: {error}") from error
    return Play(first, steps, set())


def _join(groups: list[dict[str, Signature]]) -> dict[str, Signature]:
    return {name: list(itertools.chain(*(group[name] for group in groups))) for name in groups[0]}


def _signatures(env: HostEnv, step: HostTimeStep) -> dict[str, Signature]:
    ended = (step.terminated | step.truncated).tolist()
    figures = zip(*(step.info[name].tolist() for name in env.spec.episode_stats), strict=True)
    stats = [list(row) for row in figures] if env.spec.episode_stats else [[] for _ in ended]
    ends = zip(ended, step.terminated.tolist(), step.info["success"].tolist(), stats, strict=True)
    return {
        "observations": checksums(step.obs),
        "rewards": step.reward.tolist(),
        "captions": list(step.caption),
        "ends": [repr((terminated, success, row)) if over else "" for over, terminated, success, row in ends],
        "final observations": [s if over else 0 for s, over in zip(checksums(step.final_obs), ended, strict=True)],
    }


def _compare(play: Play, other: Play, words: str) -> None:
    for step, (seen, again) in enumerate(zip([play.first, *play.steps], [other.first, *other.steps], strict=True)):
        for name in again:
            rows = [row for row, (a, b) in enumerate(zip(seen[name], again[name], strict=True)) if a != b]
            require(
                not rows,
                f"the same seed and actions gave two different episodes: {words} {name} at step {step}, row {rows[:1]}",
            )
