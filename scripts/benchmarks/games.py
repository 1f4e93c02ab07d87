"""Speed of games alone: environment steps/s under random actions, of one or two environments of each family.

Games inside jit are stepped as training steps them, in one compiled loop with observations, captions' events and the
begin of new episodes; what it gives is kept. Games on the host are played as training plays them, in two groups. Each
environment is measured `--rounds` times; the table has the median, the lowest and the highest.
"""

import argparse
import contextlib
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import envs
from envs.errors import EnvError
from envs.host.types import HostEnv
from envs.types import JaxEnv, TimeStep
from envs.vector import VectorEnv
from oni.actors.games import open_games

ENVS: Mapping[str, int] = {
    "xminigrid:MiniGrid-DoorKey-8x8": 256,
    "xminigrid:XLand-MiniGrid-R1-9x9": 256,
    "gymnax:CartPole-v1": 256,
    "gymnax:Breakout-MinAtar": 256,
    "craftax:Craftax-Classic": 64,
    "nethack:score": 64,
    "minihack:KeyRoom-S5": 64,
    "envpool:BabyAI-GoToLocal-v0": 256,
    "envpool:MiniGrid-DoorKey-8x8-v0": 256,
    "envpool:Breakout-v5": 64,
    "gymnasium:CartPole-v1": 64,
    "envs.examples.tower:Tower": 256,
    "envs.examples.machine:MachineEnv": 64,
    "craftax:Craftax": 64,  # compiles for minutes
}
"""What is measured by default, and how many games at once."""

_OTHER_GAMES = 64  # of an environment that is not in that list
_STEPS = 32  # of each game in one call of the compiled loop

Run = Callable[[float], float]
"""From seconds to steps a second."""


class Measured(NamedTuple):
    """steps_per_s: of all games together. compile_s, state_bytes: of games inside jit; bytes are those of one game."""

    id: str
    num_envs: int
    steps_per_s: list[float]
    compile_s: float | None
    state_bytes: int | None
    captions: bool


class Jitted:
    """Games inside jit."""

    def __init__(self, env: JaxEnv[Any], num_envs: int) -> None:
        vector = VectorEnv(env, num_envs)
        num_actions = env.spec.num_actions

        def body(state: Any, key: jax.Array) -> tuple[Any, TimeStep]:
            action_key, env_key = jax.random.split(key)
            action = jax.random.randint(action_key, (num_envs,), 0, num_actions)
            state, timestep = vector.step(env_key, state, action)
            return state, timestep._replace(final_obs=None)

        def play(state: Any, key: jax.Array) -> tuple[Any, TimeStep]:
            return jax.lax.scan(body, state, jax.random.split(key, _STEPS))

        self._keys = map(jax.random.key, itertools.count())
        self._state = jax.jit(lambda key: vector.reset(key)[0])(next(self._keys))
        self.state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self._state)) // num_envs
        begun = time.perf_counter()
        self._play = jax.jit(play, donate_argnums=0).lower(self._state, next(self._keys)).compile()
        self.compile_s = time.perf_counter() - begun
        self._steps = num_envs * _STEPS

    def run(self, seconds: float) -> float:
        steps, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            self._state, shown = self._play(self._state, next(self._keys))
            jax.block_until_ready(shown)
            steps += self._steps
        return steps / (time.perf_counter() - begun)


@contextlib.contextmanager
def on_the_host(env: HostEnv, num_envs: int) -> Iterator[Run]:
    """Games of a library's own vectors, or in worker processes."""
    workers = len(os.sched_getaffinity(0))
    rng = np.random.default_rng(0)
    with open_games(env, num_envs, seed=0, num_workers=workers) as pool:
        for group in pool.groups:
            group.reset()

        def run(seconds: float) -> float:
            steps, begun = 0, time.perf_counter()
            for group in pool.groups:
                group.send(rng.integers(0, env.spec.num_actions, group.num_envs))
            while time.perf_counter() - begun < seconds:
                for group in pool.groups:
                    group.recv()
                    group.send(rng.integers(0, env.spec.num_actions, group.num_envs))
                    steps += group.num_envs
            for group in pool.groups:
                group.recv()
                steps += group.num_envs
            return steps / (time.perf_counter() - begun)

        yield run


def measure(env_id: str, num_envs: int, *, rounds: int, seconds: float) -> Measured:
    """Measures one environment.

    Raises:
        EnvError: there is none of that name, or it cannot be made here.
    """
    env = envs.make(env_id)
    found = Measured(env_id, num_envs, [], None, None, env.spec.captioned)
    with contextlib.ExitStack() as stack:
        if isinstance(env, HostEnv):
            run = stack.enter_context(on_the_host(env, num_envs))
        else:
            games = Jitted(env, num_envs)
            run, found = games.run, found._replace(compile_s=games.compile_s, state_bytes=games.state_bytes)
        run(min(seconds, 1.0))  # the first steps warm up, and games that began together come apart
        found.steps_per_s.extend(run(seconds) for _ in range(rounds))
    return found


def print_table(results: list[Measured]) -> None:
    """Prints a row for each environment."""
    head = ("environment", "games", "steps/s", "lowest to highest", "compiles in", "state of a game", "captions")
    table = Table(*head, box=None, padding=(0, 1))
    for one in results:
        speeds = one.steps_per_s
        table.add_row(
            one.id,
            str(one.num_envs),
            f"{statistics.median(speeds):,.0f}",
            f"{min(speeds):,.0f} to {max(speeds):,.0f}",
            "" if one.compile_s is None else f"{one.compile_s:.1f} s",
            "" if one.state_bytes is None else f"{one.state_bytes:,} bytes",
            "yes" if one.captions else "no",
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table, soft_wrap=True, highlight=False)


def main() -> int:
    """Prints what was measured, and returns 1 if a named environment could not be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ids", nargs="*", metavar="ID", help="environments, by default one or two of each family")
    parser.add_argument("--num-envs", type=int, help="games at once, by default 256, or 64 of those that are large")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one round")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    results: list[Measured] = []
    for env_id in arguments.ids or ENVS:
        num_envs = arguments.num_envs or ENVS.get(env_id, _OTHER_GAMES)
        try:
            one = measure(env_id, num_envs, rounds=arguments.rounds, seconds=arguments.seconds)
        except EnvError as error:
            print(f"{env_id} is left out: {error}", file=sys.stderr, flush=True)
            continue
        results.append(one)
        print(f"{env_id}: {statistics.median(one.steps_per_s):,.0f} steps/s", file=sys.stderr, flush=True)
    device = jax.devices()[0].device_kind
    if arguments.json:
        print(json.dumps({"device": device, "envs": [one._asdict() for one in results]}))
    else:
        print(f"{device}, {len(os.sched_getaffinity(0))} cores, {arguments.rounds} rounds of {arguments.seconds:g} s")
        print_table(results)
    return int(len(results) < len(arguments.ids))


if __name__ == "__main__":
    sys.exit(main())
