"""Reads settings: defaults, then a YAML file, then the command line; each value is checked before anything starts."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from oni.config import TrainConfig
from oni.errors import ConfigError

ConfigT = TypeVar("ConfigT")


def _known_keys(cls: type[Any], prefix: str = "") -> dict[str, type[Any] | None]:
    """Returns every dotted key below a config class, with the class of those that are sections."""
    keys: dict[str, type[Any] | None] = {}
    for name, hint in get_type_hints(cls).items():
        section = hint if dataclasses.is_dataclass(hint) else None
        keys[prefix + name] = section
        if section is not None:
            keys |= _known_keys(section, f"{prefix}{name}.")
    return keys


def _check_keys(data: Any, cls: type[Any], known: Sequence[str], prefix: str, source: str) -> None:
    if not isinstance(data, Mapping):
        where = prefix.rstrip(".") or "the file"
        raise ConfigError(f"{source}: {where} must hold `key: value` lines, not {data!r}")
    hints = get_type_hints(cls)
    for name, value in data.items():
        if name not in hints:
            raise ConfigError(f"{source}: unknown key {prefix}{name}{_nearest(f'{prefix}{name}', known)}")
        if dataclasses.is_dataclass(hints[name]):
            _check_keys(value, hints[name], known, f"{prefix}{name}.", source)


def _nearest(key: str, known: Sequence[str]) -> str:
    """Names the key that was probably meant: the most alike as a whole, or by its last part."""
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    if not close:
        last = key.rpartition(".")[2]
        by_last = {k.rpartition(".")[2]: k for k in known}
        close = [by_last[name] for name in difflib.get_close_matches(last, by_last, n=1)]
    return f"; did you mean {close[0]}?" if close else ""


def validate(data: Mapping[str, Any], cls: type[ConfigT], *, source: str) -> ConfigT:
    """Builds a config from plain data and checks types, ranges and unknown keys.

    Raises:
        ConfigError: naming the key, the value and the rule; for an unknown key, the nearest one.
    """
    _check_keys(data, cls, list(_known_keys(cls)), "", source)
    try:
        return TypeAdapter(cls).validate_python(dict(data))
    except ValidationError as error:
        lines: list[str] = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"])
            lines.append(f"{key}: {problem['msg']}, not {problem['input']!r}")
        raise ConfigError(f"{source}: " + "; ".join(lines)) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file into plain data.

    Raises:
        ConfigError: it cannot be read or is not YAML.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    return {} if data is None else data


def check_together(config: TrainConfig) -> TrainConfig:
    """Checks rules between settings.

    Raises:
        ConfigError: naming both settings.
    """
    if config.env.num_envs % config.ppo.num_minibatches:
        raise ConfigError(
            f"ppo.num_minibatches ({config.ppo.num_minibatches}) must divide env.num_envs ({config.env.num_envs})"
        )
    return config


def load_config(
    path: Path | None, overrides: Sequence[str] = (), *, cls: type[ConfigT] = TrainConfig, prog: str = "oni train"
) -> ConfigT:
    """Reads the settings of a run.

    Args:
        path: YAML file; None for the defaults.
        overrides: command line such as `["--ppo.learning-rate", "3e-4"]`; a usage error ends the process with
            status 2, as does `--help` with 0.

    Raises:
        ConfigError: a file that cannot be read, an unknown key, a wrong type, a value out of range.
    """
    import tyro

    config = validate({} if path is None else read_yaml(path), cls, source=str(path or "defaults"))
    if overrides:
        config = tyro.cli(cls, default=config, args=list(overrides), prog=prog)
        config = validate(dataclasses.asdict(config), cls, source="command line")  # pyright: ignore[reportArgumentType]
    return check_together(config) if isinstance(config, TrainConfig) else config


def to_yaml(config: Any) -> str:
    """Writes a config as YAML that `load_config` reads back."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)
