"""The options that `oni label`, `oni backends check` and `oni serve` share: a config file and `--annotator.*`."""

import argparse
import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from llm_annotator.config import AnnotatorConfig
from llm_annotator.errors import AnnotatorError
from llm_annotator.errors import ConfigError as AnnotatorConfigError
from oni.errors import ConfigError

FAILED, USAGE = 1, 2
"""Exit statuses."""

_PREFIX = "--annotator."
_HELP = "--annotator.help"


@dataclasses.dataclass(frozen=True)
class _Overrides:
    annotator: AnnotatorConfig = dataclasses.field(default_factory=AnnotatorConfig)


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--config`, and says where `--annotator.*` is described."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file whose section `annotator` is used")
    parser.epilog = (
        "Every setting of the annotator can be given too, for example --annotator.backend.kind scripted; "
        "--annotator.help lists them."
    )


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the arguments of the command itself, and those that are `--annotator.*` with their values.

    argparse cannot tell the value of an option that it does not know from a file name, so it never sees these.
    """
    own: list[str] = []
    overrides: list[str] = []
    rest = deque(argv)
    while rest:
        argument = rest.popleft()
        if not argument.startswith(_PREFIX):
            own.append(argument)
            continue
        overrides.append(argument)
        if argument == _HELP or "=" in argument:
            continue
        if rest and not rest[0].startswith("--"):
            overrides.append(rest.popleft())
        while rest and "://" in rest[0]:  # of several addresses the others
            overrides.append(rest.popleft())
    return own, overrides


def load_annotator_config(
    path: Path | None,
    overrides: Sequence[str],
    *,
    prog: str,
    change: Callable[[AnnotatorConfig], AnnotatorConfig] = lambda config: config,
) -> AnnotatorConfig:
    """Returns the settings: defaults, then the section `annotator` of the file, then `change`, then `--annotator.*`.

    A usage error in the overrides ends the process with status 2.

    Raises:
        ConfigError: a file that cannot be read, an unknown key, a wrong type, a value out of range.
    """
    from oni.configfile import override, read_yaml, validate

    section: Any = {}
    if path is not None:
        content: Any = read_yaml(path)
        if not isinstance(content, dict) or "annotator" not in content:
            raise ConfigError(f"{path} has no section `annotator`")
        section = cast("dict[str, Any]", content)["annotator"]
    config = validate({"annotator": section}, _Overrides, source=str(path or "defaults"))
    config = dataclasses.replace(config, annotator=change(config.annotator))
    arguments = ["--help"] if _HELP in overrides else list(overrides)
    return override(config, arguments, prog=prog).annotator


def report_errors(prog: str, command: Callable[[], int]) -> int:
    """Runs a command and turns its errors into one line on stderr and an exit status: 2 for usage, 1 for the rest."""
    try:
        return command()
    except (ConfigError, AnnotatorConfigError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return USAGE
    except AnnotatorError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:
        # The reader (`head`) has seen enough. Python would complain when it flushes stdout at exit.
        sys.stdout = None
        return FAILED
    except SystemExit as end:  # argparse and tyro
        return end.code if isinstance(end.code, int) else USAGE
