"""`oni train`."""

import argparse
import logging
import operator
import sys
from pathlib import Path

from oni.cli._durations import seconds
from oni.config import TrainConfig
from oni.configfile import load_config
from oni.errors import ConfigError
from oni.rundir import RunDir, create, default_path

_PIPE_COLUMNS = 140


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="oni train", add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--drain", type=seconds)
    return parser


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Returns the options of the command itself, and those that are settings."""
    known, overrides = _options().parse_known_args(argv)
    if known.drain is not None:
        overrides += ["--annotator.drain-s", str(known.drain)]
    return known, overrides


HELP = """usage: oni train [--config FILE] [--run-dir DIR] [--resume] [--drain TIME] [--section.field VALUE ...]

  --config FILE   settings in YAML; the options below override them
  --run-dir DIR   where the run is kept (default: runs/NAME-DATE-TIME)
  --resume        go on with the run in --run-dir, with its own settings (options still override them)
  --drain TIME    at the end, wait so long (30s, 2m) for captions that are still to be labelled; Ctrl-C ends it
"""


def main(argv: list[str]) -> int:
    """Trains; see HELP."""
    if "-h" in argv or "--help" in argv:
        print(HELP)
    known, overrides = parse(argv)
    if known.resume and known.config is not None:
        raise ConfigError("--resume goes on with the settings of the run: leave --config out")
    if known.resume and known.run_dir is None:
        raise ConfigError("--resume needs --run-dir: the run to go on with")
    if known.resume:
        run = RunDir(known.run_dir)
        config = run.config(tuple(overrides))
        _check_same_games(run.config(), config)
    else:
        config = load_config(known.config, overrides)
        run = _new_run(config, known.run_dir)

    from rich.console import Console

    from oni.summary import print_summary
    from oni.train import train

    # Orbax says at length, by way of these, what a failed checkpoint says in a line of ours
    for noisy in ("absl", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    summary = train(config, run, resume=known.resume)
    # a pipe has no width: do not fold captions into it
    print_summary(summary, Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS))
    return 0 if summary.saved else 1


def _check_same_games(before: TrainConfig, now: TrainConfig) -> None:
    """Refuses to go on with other games or another network: a checkpoint holds the state of these.

    Raises:
        ConfigError: naming the setting.
    """
    for key in ("env.id", "env.num_envs", "env.options", "network", "ppo.num_steps"):
        old, new = (operator.attrgetter(key)(config) for config in (before, now))
        if old != new:
            raise ConfigError(f"{key} cannot change on --resume (from {old!r} to {new!r}): start a new run for that")


def _new_run(config: TrainConfig, path: Path | None) -> RunDir:
    from oni.actors import make_env
    from oni.annotation import check_annotator
    from oni.devices import choose_devices
    from oni.networks import make_network
    from oni.rewards import make_reward_model

    # settings that cannot be used must not leave a run directory behind
    make_network(config.network, make_env(config).spec)
    choose_devices(config.devices, num_envs=config.env.num_envs, num_minibatches=config.ppo.num_minibatches)
    needs = make_reward_model(config).needs
    if needs != "nothing":
        check_annotator(config, needs)
    return create(path or default_path(config.name), config)
