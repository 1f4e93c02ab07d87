"""`oni train`."""

import argparse
import sys
from pathlib import Path

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
    return parser


HELP = """usage: oni train [--config FILE] [--run-dir DIR] [--resume] [--section.field VALUE ...]

  --config FILE   settings in YAML; the options below override them
  --run-dir DIR   where the run is kept (default: runs/NAME-DATE-TIME)
  --resume        go on with the run in --run-dir, with its own settings (options still override them)
"""


def main(argv: list[str]) -> int:
    """Trains; see HELP."""
    if "-h" in argv or "--help" in argv:
        print(HELP)
    known, overrides = _options().parse_known_args(argv)
    if known.resume and known.config is not None:
        raise ConfigError("--resume goes on with the settings of the run: leave --config out")
    if known.resume and known.run_dir is None:
        raise ConfigError("--resume needs --run-dir: the run to go on with")
    if known.resume:
        run = RunDir(known.run_dir)
        config = run.config(tuple(overrides))
    else:
        config = load_config(known.config, overrides)
        run = _new_run(config, known.run_dir)

    from rich.console import Console

    from oni.summary import print_summary
    from oni.train import train

    summary = train(config, run, resume=known.resume)
    # a pipe has no width: do not fold captions into it
    print_summary(summary, Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS))
    return 0 if summary.saved else 1


def _new_run(config: TrainConfig, path: Path | None) -> RunDir:
    from oni.trainer import make_env

    make_env(config)  # an environment that cannot be made must not leave a run directory behind
    return create(path or default_path(config.name), config)
