"""Speed of NetHack: the games alone beside two references, and training with and without labels.

Everything is measured in turn in one run, so that it meets the same machine; ratios are medians over rounds.

games, alone: `GamePool` in lock step, random actions. AsyncVectorEnv: Gymnasium's, over NLE's own environment with the
same actions and step limit. free-running: the same games (seeds, actions, resets) in as many processes, none of which
waits for any other, and nobody is told what they gave: no observation is made, no caption kept, nothing handed over.
free-running, observed: those with the observations made, so that what is left is the price of lock step.
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
import json, sys, time
import numpy as np
import envs
from envs.host.seeding import episode_seed
from envs.host.worker import load_factory
config = json.loads(sys.argv[1])
rows, limit = config["rows"], config["limit"]
raw = {name: np.zeros((len(rows), *shape), dtype) for name, (shape, dtype) in config["raw"].items()}
observe = envs.make(config["id"], **config["env_options"]).observe
games = []
for i, row in enumerate(rows):
    game = load_factory(config["factory"])(**config["options"])
    game.attach({name: array[i] for name, array in raw.items()})
    game.reset(episode_seed(0, row, 0))
    games.append([game, row, 0, 0])
actions = np.load(config["actions"])[:, rows].tolist()
now = 0
print("ready", flush=True)
for line in sys.stdin:
    seconds, observed = json.loads(line)
    end, steps = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        for entry, action in zip(games, actions[now % len(actions)]):
            entry[3] += 1
            if entry[0].step(action).terminated or entry[3] >= limit:
                entry[2] += 1
                entry[3] = 0
                entry[0].reset(episode_seed(0, *entry[1:3]))
        if observed:
            observe(raw)
        now += 1
        steps += len(games)
    print(steps, flush=True)
"""


def random_actions(env: HostEnv, num_envs: int) -> np.ndarray:
    """Which action is taken in each row at each step, over and over."""
    return np.random.default_rng(0).integers(0, env.spec.num_actions, (4096, num_envs))


@contextlib.contextmanager
def pooled(env: HostEnv, num_envs: int, workers: int) -> Iterator[Run]:
    """The games as training plays them, with random actions."""
    actions = random_actions(env, num_envs)
    now = [0, 0]
    with GamePool(env, num_envs, seed=0, num_workers=workers) as pool:
        groups = pool.groups
        for group in groups:
            group.reset()

        def act(number: int) -> None:
            group = groups[number]
            group.send(actions[now[number] % len(actions), group.rows])
            now[number] += 1

        def run(seconds: float) -> float:
            steps, begun = 0, time.perf_counter()
            for number in range(len(groups)):
                act(number)
            while time.perf_counter() - begun < seconds:
                for number, group in enumerate(groups):
                    group.recv()
                    act(number)
                    steps += group.num_envs
            for group in groups:
                group.recv()
                steps += group.num_envs
            return steps / (time.perf_counter() - begun)

        yield run


@contextlib.contextmanager
def free_running(
    env: HostEnv, options: dict[str, Any], num_envs: int, workers: int
) -> Iterator[Callable[[float, bool], float]]:
    """The same games with the same seeds and actions, each process on its own; whether they are observed is asked."""
    config: dict[str, Any] = {"factory": env.factory, "options": dict(env.options), "limit": env.spec.max_episode_steps}
    config |= {"id": env.spec.id, "env_options": options}
    config["raw"] = {name: (spec.shape, np.dtype(spec.dtype).name) for name, spec in env.raw.items()}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        config["actions"] = f"{folder}/actions.npy"
        np.save(config["actions"], random_actions(env, num_envs))
        # Sessions of their own, as workers of a pool have: Linux may share out time by session.
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [
                        sys.executable,
                        "-c",
                        FREE_RUNNING,
                        json.dumps(config | {"rows": list(range(num_envs))[i::workers]}),
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=ROOT,
                    start_new_session=True,
                )
            )
            for i in range(workers)
        ]  # end when their standard input does

        def said(process: "subprocess.Popen[str]") -> str:
            assert process.stdout is not None
            return process.stdout.readline().strip()

        def run(seconds: float, observed: bool) -> float:
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(json.dumps([seconds, observed]) + "\n")
                process.stdin.flush()
            return sum(int(said(process)) for process in processes) / seconds

        for process in processes:
            said(process)
        yield run


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
        if trainer.reward_model.needs != "nothing":
            run_dir = create(Path(folder) / "run", config)
            session = stack.enter_context(AnnotationSession(run_dir, config, trainer.reward_model))

        def update() -> None:
            if session is not None:
                trainer.take_labels(session.poll())
            progress = trainer.update()
            if session is not None:
                session.ask(trainer.captions, progress.new)
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
        free = stack.enter_context(free_running(env, options, num_envs, workers))
        runs = {
            "games alone": stack.enter_context(pooled(env, num_envs, workers)),
            "free-running": lambda seconds: free(seconds, False),
            "free-running, observed": lambda seconds: free(seconds, True),
            "AsyncVectorEnv": stack.enter_context(gymnasium_vector(num_envs)),
        }
        speeds = measure(runs, rounds=rounds, seconds=seconds)
    say_ratio(speeds, "games alone", "AsyncVectorEnv")
    say_ratio(speeds, "games alone", "free-running")
    say_ratio(speeds, "games alone", "free-running, observed")

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
