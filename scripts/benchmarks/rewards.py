"""Measures what each reward model costs: training steps/s with it over training with none, in one run.

Every model begins anew, with a scripted annotator that answers at once, so the first rounds hold the time in which all
labels come in and the models that learn learn most. Rounds of all models take turns.
"""

import argparse
import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax

from llm_annotator.config import BackendConfig
from oni.annotation import AnnotationSession
from oni.config import TrainConfig
from oni.configfile import check_together, load_config
from oni.rundir import create
from oni.trainer import Trainer

KINDS = ("none", "retrieval", "classification", "ranking", "embedding", "rnd", "counts")
"""`offline` is left out: it scores like `classification`, and learns nothing."""


class Run:
    """The loop of a run without its checkpoints and metrics files."""

    def __init__(self, trainer: Trainer, session: AnnotationSession | None) -> None:
        self._trainer = trainer
        self._session = session
        self.captions = trainer.captions

    def play(self, updates: int) -> float:
        """Does some updates; returns the seconds that they took."""
        trainer, session = self._trainer, self._session
        begun = time.perf_counter()
        for _ in range(updates):
            if session is not None:
                trainer.take_labels(session.poll())
            progress = trainer.update()
            if session is not None:
                session.ask(trainer.captions, progress.new)
                session.tend(trainer.captions, progress.seen)
        trainer.wait()
        return time.perf_counter() - begun


@contextlib.contextmanager
def open_run(config: TrainConfig, folder: Path) -> Iterator[Run]:
    """Builds one run and its annotator, if it needs one."""
    with contextlib.ExitStack() as stack:
        trainer = stack.enter_context(Trainer(config))
        session: AnnotationSession | None = None
        if trainer.reward_model.needs != "nothing":
            session = stack.enter_context(
                AnnotationSession(create(folder / config.reward.kind, config), config, trainer.reward_model)
            )
        yield Run(trainer, session)


def variant(config: TrainConfig, kind: str, *, encoder: str) -> TrainConfig:
    """Returns the config with another kind of reward, whose labels come from rules."""
    learner = dataclasses.replace(config.reward.learner, encoder=encoder)  # pyright: ignore[reportArgumentType]
    return check_together(
        dataclasses.replace(
            config,
            reward=dataclasses.replace(config.reward, kind=kind, learner=learner),  # pyright: ignore[reportArgumentType]
            annotator=dataclasses.replace(config.annotator, backend=BackendConfig(kind="scripted")),
        )
    )


def main() -> None:
    """Runs the benchmark and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path(__file__).parents[2] / "configs" / "quickstart.yaml")
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--updates", type=int, default=5, help="updates in a row of one model")
    parser.add_argument("--encoder", choices=["ngrams", "cnn"], default="ngrams", help="of the models that learn")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    arguments = parser.parse_args()
    base = load_config(arguments.config)
    kinds = ["none", *(kind for kind in arguments.kinds if kind != "none")]
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        runs = {
            kind: stack.enter_context(open_run(variant(base, kind, encoder=arguments.encoder), Path(folder)))
            for kind in kinds
        }
        for run in runs.values():
            run.play(1)  # compiles
        for number in range(arguments.rounds):
            turn = number % len(kinds)
            for kind in kinds[turn:] + kinds[:turn]:
                seconds[kind].append(runs[kind].play(arguments.updates))
    steps = arguments.updates * base.steps_per_update
    print(f"{base.env.id}, {base.env.num_envs} games, {jax.devices()[0].device_kind}, {arguments.rounds} rounds")
    for kind, times in seconds.items():
        ratios = [none / own for own, none in zip(times, seconds["none"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        first = statistics.median(ratios[: max(1, len(ratios) // 4)])
        print(
            f"  {kind:<15}{steps / statistics.median(times):>9,.0f} steps/s, over none {middle:.3f} "
            f"(quartiles {low:.3f} to {high:.3f}; in the first quarter {first:.3f})"
        )


if __name__ == "__main__":
    main()
