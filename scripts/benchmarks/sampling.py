"""What it costs to keep moments and scores for people: steps/s of training with sampling over without.

Both run in turn in one process, each with an annotator of its own (scripted), so that they meet the same machine;
ratios are medians over rounds. Without: `sampling.moments 0` and no scores, so that games show nothing either. Beside
the speed stands the CPU time of the trainer's process for a step, which other programs on the machine disturb less.
The clock by which moments are taken stands still while the other one has its turn, so that there are as many a second
as in a run of its own.
"""

import argparse
import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from llm_annotator.config import BackendConfig
from oni.annotation import AnnotationSession
from oni.config import TrainConfig
from oni.configfile import load_config
from oni.rundir import create
from oni.sampling.recording import Recording
from oni.trainer import Trainer

ROOT = Path(__file__).parents[2]
CONFIGS = ("quickstart", "nethack_score")


class TurnClock:
    """Seconds of the turns alone."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._since: float | None = None

    def __call__(self) -> float:
        return self._sum + (0.0 if self._since is None else time.perf_counter() - self._since)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Lets it go on meanwhile."""
        self._since = time.perf_counter()
        try:
            yield
        finally:
            self._sum, self._since = self(), None


Run = Callable[[float], tuple[float, float]]
"""From seconds to steps a second of time, and of CPU time of this process."""


@contextlib.contextmanager
def training(config: TrainConfig, *, sampled: bool) -> Iterator[tuple[Run, Recording | None]]:
    """The real loop, with sampling or without."""
    if not sampled:
        config = dataclasses.replace(config, sampling=dataclasses.replace(config.sampling, moments=0))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        trainer = stack.enter_context(Trainer(config))
        run_dir = create(Path(folder) / "run", config)
        session = stack.enter_context(AnnotationSession(run_dir, config, trainer.reward_model))
        recording: Recording | None = None
        clock = TurnClock()
        if sampled:
            recording = stack.enter_context(Recording(config.sampling, trainer, session.recorder, seed=0, clock=clock))

        def update() -> None:
            trainer.take_labels(session.poll())
            progress = trainer.update()
            session.ask(trainer.captions, progress.new)
            session.tend(trainer.captions, progress.seen)
            if recording is not None:
                recording.after_update()

        def run(seconds: float) -> tuple[float, float]:
            updates, begun, used = 0, time.perf_counter(), time.process_time()
            with clock.turn():
                while time.perf_counter() - begun < seconds:
                    update()
                    updates += 1
                trainer.wait()
            steps = updates * config.steps_per_update
            return steps / (time.perf_counter() - begun), steps / (time.process_time() - used)

        with clock.turn():
            for _ in range(3):  # compiles
                update()
            trainer.wait()
        yield run, recording


def main() -> None:
    """Prints steps/s of both and their ratio, for each config."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configs", nargs="+", default=list(CONFIGS), help="names of files in configs/")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds of each in a round")
    arguments = parser.parse_args()
    for name in arguments.configs:
        config = load_config(ROOT / "configs" / f"{name}.yaml")
        backend = BackendConfig(kind="scripted")
        config = dataclasses.replace(config, annotator=dataclasses.replace(config.annotator, backend=backend))
        speeds: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
        with contextlib.ExitStack() as stack:
            with_sampling, recording = stack.enter_context(training(config, sampled=True))
            without, _ = stack.enter_context(training(config, sampled=False))
            for number in range(arguments.rounds):
                for sampled in (True, False) if number % 2 else (False, True):
                    speeds[sampled].append((with_sampling if sampled else without)(arguments.seconds))
            assert recording is not None
            taken, failed = recording.counts
        print(f"{config.env.id}, {config.env.num_envs} games, {jax.devices()[0].device_kind}", flush=True)
        for sampled, values in speeds.items():
            median = statistics.median(speed for speed, _ in values)
            print(f"  {'with' if sampled else 'without':<8} {median:>9,.0f} steps/s")
        for place, what in enumerate(("steps/s", "steps a second of CPU time")):
            ratios = [a[place] / b[place] for a, b in zip(speeds[True], speeds[False], strict=True)]
            low, middle, high = statistics.quantiles(ratios * 2 if len(ratios) == 1 else ratios, n=4)
            print(
                f"  with over without, {what}: {middle:.3f} (quartiles {low:.3f} to {high:.3f}, {len(ratios)} rounds)"
            )
        seconds = arguments.rounds * arguments.seconds
        print(f"  moments: {taken} in about {seconds:.0f} s, {failed} failed", flush=True)


if __name__ == "__main__":
    main()
