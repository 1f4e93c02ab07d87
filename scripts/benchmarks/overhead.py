"""What our machinery costs: steps/s of training with labels over none, and of none over a plain loop.

All three are stepped in turn in one process, so that they meet the same machine; ratios are medians over rounds.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
from plain_loop import make_plain_update

from llm_annotator.config import BackendConfig
from oni.annotation import AnnotationSession
from oni.config import RewardConfig, TrainConfig
from oni.configfile import load_config
from oni.rundir import create
from oni.trainer import Trainer

ROOT = Path(__file__).parents[2]


def trainer_step(trainer: Trainer, session: AnnotationSession | None) -> Callable[[int], None]:
    """Returns what does some updates of the real loop and waits for the last one."""

    def run(updates: int) -> None:
        for _ in range(updates):
            if session is not None:
                trainer.take_labels(session.poll())
            progress = trainer.update()
            if session is not None:
                session.ask(trainer.captions, progress.new)
                session.tend(trainer.captions, progress.seen)
        trainer.wait()

    return run


def plain_step(config: TrainConfig, trainer: Trainer) -> Callable[[int], None]:
    """Returns what does some updates of the plain loop."""
    carry, update = make_plain_update(config, trainer.network, trainer.spec)
    state = [carry]

    def run(updates: int) -> None:
        for _ in range(updates):
            state[0] = update(state[0])
        jax.block_until_ready(state[0])

    return run


def main() -> None:
    """Prints steps/s of each and the two ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--updates", type=int, default=12, help="updates of each in a round, some seconds")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    none = dataclasses.replace(config, reward=RewardConfig(kind="none"))
    backend = BackendConfig(kind="scripted")
    labelled = dataclasses.replace(config, annotator=dataclasses.replace(config.annotator, backend=backend))

    with tempfile.TemporaryDirectory() as folder:
        run_dir = create(Path(folder) / "run", labelled)
        retrieval = Trainer(labelled)
        with AnnotationSession(run_dir, labelled, retrieval.reward_model) as session:
            trainer = Trainer(none)
            loops = {
                "plain loop": plain_step(none, trainer),
                "none": trainer_step(trainer, None),
                "retrieval": trainer_step(retrieval, session),
            }
            for run in loops.values():
                run(3)  # compiles
            seconds: dict[str, list[float]] = {name: [] for name in loops}
            for number in range(arguments.rounds):
                names = list(loops)
                for name in names[number % 3 :] + names[: number % 3]:
                    begun = time.perf_counter()
                    loops[name](arguments.updates)
                    seconds[name].append(time.perf_counter() - begun)

    steps = arguments.updates * config.steps_per_update
    print(
        f"{config.env.id}, {config.env.num_envs} games x {config.ppo.num_steps} steps, {jax.devices()[0].device_kind}"
    )
    for name, times in seconds.items():
        print(f"  {name:<11} {steps / statistics.median(times):>9,.0f} steps/s")
    for ours, theirs in (("retrieval", "none"), ("none", "plain loop")):
        ratios = [b / a for a, b in zip(seconds[ours], seconds[theirs], strict=True)]
        low, middle, high = (statistics.quantiles(ratios, n=4)[i] for i in range(3))
        print(f"  {ours} over {theirs}: {middle:.3f} (quartiles {low:.3f} to {high:.3f}, {len(ratios)} rounds)")


if __name__ == "__main__":
    main()
