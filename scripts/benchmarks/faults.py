"""What faults of the LLM's server cost training: steps/s while answers fail over steps/s while none does.

One run with its annotator, whose server (`tests/faulty_openai_server.py`, a process of its own) is told to fail or not,
in turn; ratios are medians over rounds, and that of "none, again" shows what the machine itself makes of them. The run
comes up with new captions at every update, so that there is always something to ask, and what was left unanswered is
answered between two measurements. CPU: processor time of the training process, over that without faults.
"""

import argparse
import dataclasses
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jax

from llm_annotator.config import AnnotatorConfig, BackendConfig
from oni.annotation import AnnotationSession
from oni.config import RewardConfig, TrainConfig
from oni.configfile import load_config
from oni.rundir import create
from oni.trainer import Trainer

ROOT = Path(__file__).parents[2]

_WARM_UPDATES = 5
_SETTLE_S = 5.0
"""Longest that is waited between two measurements for what is still unanswered: some wait for a pause to end."""


@contextmanager
def faulty_server(options: argparse.Namespace) -> Generator[str]:
    """Runs the server, without faults at first; yields its address."""
    arguments = ["--rate", "0", "--service", str(options.service), "--seed", str(options.seed)]
    command = [sys.executable, "-m", "tests.faulty_openai_server", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["base_url"]
    finally:
        process.kill()
        process.communicate()


def set_rate(base_url: str, rate: float) -> dict[str, Any]:
    """Tells the server which share of its answers shall fail; returns what it saw so far."""
    return httpx.post(f"{base_url.removesuffix('/v1')}/faults", json={"rate": rate}).json()


class Training:
    """A run that goes on, with more to ask at every update."""

    def __init__(self, trainer: Trainer, session: AnnotationSession, captions_per_update: int) -> None:
        self._trainer, self._session = trainer, session
        self._number = captions_per_update
        self._captions: Iterator[bytes] = (b"You see key number %d." % i for i in itertools.count())

    def run(self, updates: int) -> tuple[float, float]:
        """Does some updates, as `oni train` does them; returns their seconds, and the processor time they took here."""
        trainer, session = self._trainer, self._session
        begun, cpu = time.perf_counter(), time.process_time()
        for _ in range(updates):
            trainer.take_labels(session.poll())
            progress = trainer.update()
            session.ask(trainer.captions, progress.new)
            session.submit(list(itertools.islice(self._captions, self._number)))
            session.tend(trainer.captions, progress.seen)
        trainer.wait()
        return time.perf_counter() - begun, time.process_time() - cpu

    def settle(self) -> None:
        """Waits until what was asked is answered, so that no measurement works off what another one left."""
        self._session.recorder.drain(_SETTLE_S)
        self._session.poll()

    @property
    def labelled(self) -> int:
        """Captions that have a label by now."""
        return self._session.health.labelled


def config_for(options: argparse.Namespace, base_url: str) -> TrainConfig:
    """Returns the settings of the run."""
    config = load_config(options.config)
    backend = BackendConfig(kind=options.backend, model="faulty", base_url=base_url, timeout_s=options.timeout)
    annotator = dataclasses.replace(config.annotator, backend=backend, engine=AnnotatorConfig().engine)
    return dataclasses.replace(config, annotator=annotator, reward=RewardConfig(kind="retrieval"))


def main() -> None:
    """Prints steps/s and labels of each condition, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    parser.add_argument("--backend", default="completions", choices=["completions", "openai"])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.3, 1.0], help="shares of answers that are faults")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--updates", type=int, default=4, help="updates of each in a round")
    parser.add_argument("--captions", type=int, default=20, help="new captions at every update")
    parser.add_argument("--service", type=float, default=0.05, metavar="S", help="time that a good answer takes")
    parser.add_argument("--timeout", type=float, default=5.0, metavar="S", help="backend.timeout_s")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rates = {"none": 0.0, "none, again": 0.0} | {f"{rate:.0%}": rate for rate in options.rates}
    names = list(rates)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    cpu_s: dict[str, list[float]] = {name: [] for name in names}
    labels = dict.fromkeys(names, 0)
    seen: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, faulty_server(options) as base_url:
        config = config_for(options, base_url)
        trainer = Trainer(config)
        run = create(Path(folder) / "run", config)
        with AnnotationSession(run, config, trainer.reward_model) as session:
            training = Training(trainer, session, options.captions)
            training.run(_WARM_UPDATES)
            for number in range(options.rounds):
                at = number % len(names)
                for name in names[at:] + names[:at]:
                    training.settle()
                    before = training.labelled
                    set_rate(base_url, rates[name])
                    for times, took in zip((seconds[name], cpu_s[name]), training.run(options.updates), strict=True):
                        times.append(took)
                    labels[name] += training.labelled - before
                    seen = set_rate(base_url, 0.0)
    steps = options.updates * config.steps_per_update
    print(f"{config.env.id}, {config.env.num_envs} games, {options.captions} new captions an update, {options.backend}")
    print(f"  {'answers that fail':<18} {'steps/s':>9}  {'labels':>7}  {'CPU':>5}  speed over none")
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(seconds["none"], times, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        cpu = statistics.median(b / a for a, b in zip(cpu_s["none"], cpu_s[name], strict=True))
        spread = f"{middle:.3f} (quartiles {low:.3f} to {high:.3f}, {len(ratios)} rounds)" if name != "none" else ""
        print(f"  {name:<18} {steps / statistics.median(times):>9,.0f}  {labels[name]:>7}  {cpu:>5.3f}  {spread}")
    print(f"  the server met {sum(seen['faults'].values())} faults of {len(seen['faults'])} kinds")
    print(f"  on {jax.devices()[0].device_kind}")


if __name__ == "__main__":
    main()
