"""Training with games inside jit: steps/s with labels over none, and of none over a plain loop, on several games.

All three are stepped in turn in one process, so that they meet the same machine; ratios are medians over rounds. The
plain loop is PPO in one jitted function, over the same game and network, without captions, rewards, figures or anything
else of ours. Exits with 1 if the rollout or the update of a run was compiled more than once.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import yaml
from anakin_report import NONE, PLAIN, RETRIEVAL, Result, complaint, ratios_of, text
from plain_loop import make_plain_update

from envs.host.types import HostEnv
from envs.types import JaxEnv
from llm_annotator.config import BackendConfig
from oni.actors import make_env
from oni.annotation import AnnotationSession
from oni.compilations import ROLLOUT, UPDATE, Compilations
from oni.config import EnvConfig, RewardConfig, TrainConfig
from oni.configfile import check_together, load_config
from oni.errors import OniError
from oni.rundir import create
from oni.sampling.recording import Recording
from oni.trainer import Trainer

CONFIGS = Path(__file__).parents[2] / "configs"

ENVS: Mapping[str, str] = {
    "xminigrid:MiniGrid-BlockedUnlockPickUp": "quickstart.yaml",
    "xminigrid:XLand-MiniGrid-R1-9x9": "",
    "gymnax:Breakout-MinAtar": "",
    "craftax:Craftax-Classic": "craftax_classic.yaml",
}
"""What is measured by default, and the config that its settings come from: its own, or that of the quickstart."""

_WARM_UPDATES = 3
_BACKEND = BackendConfig(kind="scripted", options={"helpful_pattern": "(?i)you "})

Run = Callable[[int], None]
"""Does so many updates and waits for the last one."""


class Loop(NamedTuple):
    """first_s: seconds of the first update and of all before it, that is mostly of compiling."""

    run: Run
    first_s: float


def config_for(env_id: str, arguments: argparse.Namespace) -> TrainConfig:
    """Returns the settings to measure an environment with.

    Raises:
        ConfigError: they do not go together.
    """
    file = ENVS.get(env_id) or ""
    config = load_config(CONFIGS / (file or "quickstart.yaml"))
    options = config.env.options if file else {}
    options = options | dict(arguments.option)
    num_envs = arguments.num_envs or config.env.num_envs
    env = EnvConfig(id=env_id, num_envs=num_envs, options=options)
    ppo = dataclasses.replace(config.ppo, num_steps=arguments.num_steps or config.ppo.num_steps)
    annotator = dataclasses.replace(config.annotator, backend=_BACKEND)
    changed = dataclasses.replace(config, env=env, ppo=ppo, annotator=annotator, devices=arguments.devices)
    return check_together(changed)


def trainer_step(trainer: Trainer) -> Run:
    """Returns what does some updates without an annotator."""

    def run(updates: int) -> None:
        for _ in range(updates):
            trainer.update()
        trainer.wait()

    return run


def annotated_step(trainer: Trainer, session: AnnotationSession, recording: Recording) -> Run:
    """Returns what does some updates as `oni.train` does them beside an annotator, sampling for people included."""

    def run(updates: int) -> None:
        for _ in range(updates):
            trainer.take_labels(session.poll())
            progress = trainer.update()
            session.ask(trainer.captions, progress.new)
            session.tend(trainer.captions, progress.seen)
            recording.after_update()
        trainer.wait()

    return run


def jitted_env(config: TrainConfig) -> JaxEnv[Any]:
    """Returns the game to measure.

    Raises:
        OniError: it does not step inside jit.
    """
    env = make_env(config)
    if isinstance(env, HostEnv):
        raise OniError(f"{config.env.id} does not step inside jit: see scripts/bench nethack")
    return env


def plain_step(config: TrainConfig, trainer: Trainer) -> Run:
    """Returns what does some updates of the plain loop."""
    carry, update = make_plain_update(config, trainer.network, jitted_env(config))
    state = [carry]

    def run(updates: int) -> None:
        for _ in range(updates):
            state[0] = update(state[0])
        jax.block_until_ready(state[0])

    return run


def begun(make: Callable[[], Run]) -> Loop:
    """Makes a loop, does its first update, and warms up."""
    start = time.perf_counter()
    run = make()
    run(1)
    first_s = time.perf_counter() - start
    run(_WARM_UPDATES)
    return Loop(run, first_s)


def in_turn(loops: Mapping[str, Run], *, rounds: int, turn_s: float) -> tuple[int, dict[str, list[float]]]:
    """Runs all loops in turn, each first as often as the others; returns updates a turn, and seconds of each turn."""
    start = time.perf_counter()
    loops[NONE](2)
    updates = max(2, round(2 * turn_s / (time.perf_counter() - start)))
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    names = list(loops)
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            start = time.perf_counter()
            loops[name](updates)
            seconds[name].append(time.perf_counter() - start)
    return updates, seconds


class Contest:
    """The loops of one environment. Close what they hold by way of `stack`."""

    def __init__(self, config: TrainConfig, stack: ExitStack) -> None:
        self._config = config
        self._unlabelled = dataclasses.replace(config, reward=RewardConfig(kind="none"))
        self._stack = stack
        self.trainers: list[Trainer] = []

    def _trainer(self, config: TrainConfig) -> Trainer:
        self.trainers.append(self._stack.enter_context(Trainer(config)))
        return self.trainers[-1]

    def none(self) -> Run:
        """Training without labels."""
        return trainer_step(self._trainer(self._unlabelled))

    def plain(self) -> Run:
        """The plain loop, with the network of the training."""
        return plain_step(self._unlabelled, self.trainers[0])

    def retrieval(self) -> Run:
        """Training with labels, an annotator beside it."""
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        run_dir = create(Path(folder) / "run", self._config)
        trainer = self._trainer(self._config)
        session = self._stack.enter_context(AnnotationSession(run_dir, self._config, trainer.reward_model))
        recording = Recording(self._config.sampling, trainer, session.recorder, seed=0)
        return annotated_step(trainer, session, self._stack.enter_context(recording))


def measure(config: TrainConfig, *, rounds: int, turn_s: float) -> Result:
    """Measures one environment."""
    captioned = jitted_env(config).spec.captioned
    with ExitStack() as stack, Compilations() as heard:
        contest = Contest(config, stack)
        loops = {NONE: begun(contest.none)}
        compile_s = {name: heard.seconds(name) for name in (ROLLOUT, UPDATE)}
        loops[PLAIN] = begun(contest.plain)
        if captioned:
            loops[RETRIEVAL] = begun(contest.retrieval)
        updates, seconds = in_turn({name: loop.run for name, loop in loops.items()}, rounds=rounds, turn_s=turn_s)
        state = contest.trainers[0].state.actor.env_state
        labelled = contest.trainers[-1].caption_metrics().get("captions/labelled")
    steps = updates * config.steps_per_update
    return Result(
        env=config.env.id,
        num_envs=config.env.num_envs,
        num_steps=config.ppo.num_steps,
        device=f"{config.devices} x {jax.devices()[0].device_kind} ({os.cpu_count()} CPU cores)",
        steps_per_s={name: steps / statistics.median(times) for name, times in seconds.items()},
        ratios=ratios_of(seconds),
        first_s={name: loop.first_s for name, loop in loops.items()},
        labelled=None if labelled is None else int(labelled),
        compile_s=compile_s,
        state_bytes=sum(leaf.nbytes for leaf in jax.tree.leaves(state)) // config.env.num_envs,
        compiled={name: heard.count(name) / len(contest.trainers) for name in (ROLLOUT, UPDATE)},
        updates=updates,
        load=os.getloadavg()[0],
    )


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, yaml.safe_load(value)


def parsed() -> argparse.Namespace:
    """Returns the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", "--envs", nargs="+", default=list(ENVS), metavar="ID", help="default: %(default)s")
    parser.add_argument("--num-envs", type=int, help="games at once; default: as in the config")
    parser.add_argument("--num-steps", type=int, help="steps of each between two updates; default: as in the config")
    parser.add_argument(
        "--option", type=_option, action="append", default=[], metavar="NAME=VALUE", help="of all games"
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn, of which a round has three")
    parser.add_argument("--device", choices=("cpu", "gpu", "tpu"), help="default: what JAX chooses")
    parser.add_argument("--devices", type=int, default=1, help="that share a training; the plain loop always has one")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


def main() -> int:
    """Prints the figures of each environment; returns the exit status."""
    arguments = parsed()
    if arguments.device:
        jax.config.update("jax_platforms", {"gpu": "cuda"}.get(arguments.device, arguments.device))
    try:
        configs = [config_for(env_id, arguments) for env_id in arguments.env]
        results: list[Result] = []
        for config in configs:
            results.append(measure(config, rounds=arguments.rounds, turn_s=arguments.seconds))
            print(text(results[-1], arguments.rounds), flush=True)
    except OniError as error:
        print(f"anakin: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        arguments.json.write_text(json.dumps([result._asdict() for result in results], indent=1) + "\n")
    complaints = [line for result in results if (line := complaint(result))]
    for line in complaints:
        print(f"anakin: {line}", file=sys.stderr)
    return int(bool(complaints))


if __name__ == "__main__":
    sys.exit(main())
