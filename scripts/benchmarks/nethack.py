"""Speed of NetHack: the games alone beside two references, and training with and without labels.

Everything is measured in turn in one run, so that it meets the same machine; ratios are medians over rounds.

games, alone: `GamePool` in lock step, random actions. AsyncVectorEnv: Gymnasium's, over NLE's own environment with the
same actions and step limit. free-running: the same games in as many processes, none of which waits for any other.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

import envs
from envs.host.pool import GamePool
from envs.host.types import HostEnv
from llm_annotator.config import BackendConfig
from oni.annotation import AnnotationSession
from oni.config import TrainConfig
from oni.configfile import load_config
from oni.rundir import create
from oni.trainer import Trainer

ROOT = Path(__file__).parents[2]

Run = Callable[[float], float]
"""From seconds to steps a second."""

FREE_RUNNING = """
import importlib, json, sys, time
import numpy as np
config = json.loads(sys.argv[1])
module, _, name = config["factory"].partition(":")
games = []
rng = np.random.default_rng(config["seed"])
for number in range(config["games"]):
    game = getattr(importlib.import_module(module), name)(**config["options"])
    game.attach({n: np.zeros(shape, dtype) for n, (shape, dtype) in config["raw"].items()})
    game.reset(config["seed"] * 1000 + number)
    games.append([game, 0, config["seed"] * 1000 + number])
print("ready", flush=True)
for line in sys.stdin:
    end, steps = time.perf_counter() + float(line), 0
    while time.perf_counter() < end:
        for entry, action in zip(games, rng.integers(0, config["actions"], len(games)).tolist()):
            entry[1] += 1
            if entry[0].step(action).terminated or entry[1] >= config["limit"]:
                entry[2] += 7919
                entry[1] = 0
                entry[0].reset(entry[2])
        steps += len(games)
    print(steps, flush=True)
"""


@contextlib.contextmanager
def pooled(env: HostEnv, num_envs: int, workers: int) -> Iterator[Run]:
    """The games as training plays them, with random actions."""
    rng = np.random.default_rng(0)
    with GamePool(env, num_envs, seed=0, num_workers=workers) as pool:
        groups = pool.groups
        for group in groups:
            group.reset()

        def run(seconds: float) -> float:
            def act() -> np.ndarray:
                return rng.integers(0, env.spec.num_actions, groups[0].num_envs)

            steps, begun = 0, time.perf_counter()
            for group in groups:
                group.send(act())
            while time.perf_counter() - begun < seconds:
                for group in groups:
                    group.recv()
                    group.send(act())
                    steps += group.num_envs
            for group in groups:
                group.recv()
                steps += group.num_envs
            return steps / (time.perf_counter() - begun)

        yield run


@contextlib.contextmanager
def free_running(env: HostEnv, num_envs: int, workers: int) -> Iterator[Run]:
    """The same games, each process on its own."""
    raw = {name: (spec.shape, np.dtype(spec.dtype).name) for name, spec in env.raw.items()}
    config: dict[str, Any] = {"factory": env.factory, "options": dict(env.options), "raw": raw}
    config |= {"actions": env.spec.num_actions, "limit": env.spec.max_episode_steps, "games": num_envs // workers}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FREE_RUNNING, json.dumps(config | {"seed": i})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(workers)
    ]

    def said(process: "subprocess.Popen[str]") -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def run(seconds: float) -> float:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
        return sum(int(said(process)) for process in processes) / seconds

    try:
        for process in processes:
            said(process)
        yield run
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _gymnasium_game() -> Any:
    from nle.env.tasks import NetHackScore

    keys = ("chars", "colors", "blstats", "message")
    return NetHackScore(observation_keys=keys, max_episode_steps=5000)


@contextlib.contextmanager
def gymnasium_vector(num_envs: int) -> Iterator[Run]:
    """Gymnasium's AsyncVectorEnv over NLE's environment."""
    from gymnasium.vector import AsyncVectorEnv

    vector = AsyncVectorEnv([_gymnasium_game] * num_envs)
    rng = np.random.default_rng(0)
    vector.reset()
    num_actions = vector.single_action_space.n  # pyright: ignore[reportAttributeAccessIssue]

    def run(seconds: float) -> float:
        steps, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            vector.step(rng.integers(0, num_actions, num_envs))
            steps += num_envs
        return steps / (time.perf_counter() - begun)

    try:
        yield run
    finally:
        vector.close()


@contextlib.contextmanager
def training(config: TrainConfig) -> Iterator[Run]:
    """The real loop."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        trainer = stack.enter_context(Trainer(config))
        session: AnnotationSession | None = None
        if trainer.reward_model.needs_labels:
            session = stack.enter_context(AnnotationSession(create(Path(folder) / "run", config), config))

        def update() -> None:
            if session is not None:
                trainer.take_labels(session.poll())
            progress = trainer.update()
            if session is not None:
                session.submit(progress.new)
                session.tend(trainer.captions, progress.seen)

        for _ in range(3):  # compiles
            update()

        def run(seconds: float) -> float:
            updates, begun = 0, time.perf_counter()
            while time.perf_counter() - begun < seconds:
                update()
                updates += 1
            trainer.wait()
            return updates * config.steps_per_update / (time.perf_counter() - begun)

        yield run


def measure(runs: dict[str, Run], *, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Lets each run in turn, `rounds` times."""
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        names = list(runs)
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            speeds[name].append(runs[name](seconds))
    for name, values in speeds.items():
        print(f"  {name:<22} {statistics.median(values):>9,.0f} steps/s", flush=True)
    return speeds


def say_ratio(speeds: dict[str, list[float]], ours: str, theirs: str) -> None:
    """Prints the median ratio and its quartiles."""
    ratios = [a / b for a, b in zip(speeds[ours], speeds[theirs], strict=True)]
    low, middle, high = statistics.quantiles(ratios * 2 if len(ratios) == 1 else ratios, n=4)
    print(f"  {ours} over {theirs}: {middle:.3f} (quartiles {low:.3f} to {high:.3f}, {len(ratios)} rounds)", flush=True)


def main() -> None:
    """Prints steps/s of each and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "nethack_score.yaml")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=8.0, help="seconds of each in a round")
    parser.add_argument("--num-envs", type=int, default=None, help="games, default those of the config")
    parser.add_argument("--actions", choices=["task", "extended"], default="task")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    num_envs = arguments.num_envs or config.env.num_envs
    options = config.env.options | {"actions": arguments.actions}
    config = dataclasses.replace(config, env=dataclasses.replace(config.env, num_envs=num_envs, options=options))
    env = envs.make(config.env.id, **config.env.options)
    assert isinstance(env, HostEnv)
    workers = len(os.sched_getaffinity(0))
    rounds, seconds = arguments.rounds, arguments.seconds
    print(f"{config.env.id}, {num_envs} games, {workers} workers, {jax.devices()[0].device_kind}", flush=True)

    with contextlib.ExitStack() as stack:
        runs = {
            "games alone": stack.enter_context(pooled(env, num_envs, workers)),
            "free-running": stack.enter_context(free_running(env, num_envs, workers)),
            "AsyncVectorEnv": stack.enter_context(gymnasium_vector(num_envs)),
        }
        speeds = measure(runs, rounds=rounds, seconds=seconds)
    say_ratio(speeds, "games alone", "AsyncVectorEnv")
    say_ratio(speeds, "games alone", "free-running")

    none = dataclasses.replace(config, reward=dataclasses.replace(config.reward, kind="none"))
    backend = BackendConfig(kind="scripted", options={"helpful_pattern": "(?i)you (kill|destroy|find|see here)"})
    retrieval = dataclasses.replace(
        config,
        reward=dataclasses.replace(config.reward, kind="retrieval"),
        annotator=dataclasses.replace(config.annotator, backend=backend),
    )
    with contextlib.ExitStack() as stack:
        runs = {
            "training, none": stack.enter_context(training(none)),
            "training, retrieval": stack.enter_context(training(retrieval)),
        }
        speeds = measure(runs, rounds=rounds, seconds=seconds)
    say_ratio(speeds, "training, retrieval", "training, none")


if __name__ == "__main__":
    main()
