"""Reads settings: defaults, then a YAML file, then the command line; each value is checked before anything starts."""

import dataclasses
import difflib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from oni.config import GUARDS_WITH_LIMIT, RewardConfig, TrainConfig
from oni.errors import ConfigError

ConfigT = TypeVar("ConfigT")


def _known_keys(cls: type[Any], prefix: str = "") -> dict[str, Any]:
    """Returns every dotted key below a config class, with its type."""
    keys: dict[str, Any] = {}
    for name, hint in get_type_hints(cls).items():
        keys[prefix + name] = hint
        if dataclasses.is_dataclass(hint):
            keys |= _known_keys(typing.cast("type[Any]", hint), f"{prefix}{name}.")
    return keys


def _check_keys(data: object, cls: type[Any], known: Sequence[str], prefix: str, source: str) -> None:
    if not isinstance(data, Mapping):
        where = prefix.rstrip(".") or "the file"
        raise ConfigError(f"{source}: {where} must hold `key: value` lines, not {data!r}")
    hints = get_type_hints(cls)
    for name, value in typing.cast("Mapping[str, object]", data).items():
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


def _take_options(arguments: Sequence[str], cls: type[Any]) -> tuple[list[str], list[tuple[str, str, Any]]]:
    """Takes `--env.options.NAME VALUE` and the like out of a command line.

    The names of such settings are free, so a parser of known options cannot know them.

    Returns:
        The rest, and for each of them the setting, the name, and the value.
    """
    free = [key for key, hint in _known_keys(cls).items() if typing.get_origin(hint) is dict]
    rest: list[str] = []
    options: list[tuple[str, str, Any]] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        flag, equals, value = argument.partition("=")
        key = next((key for key in free if flag.replace("-", "_").startswith(f"__{key}.")), None)
        if key is None:
            rest.append(argument)
            continue
        if not equals:
            if not waiting:
                raise ConfigError(f"command line: {flag} needs a value")
            value = waiting.pop(0)
        name = flag[len(key) + len("--.") :].replace("-", "_")
        options.append((key, name, _scalar(value)))
    return rest, options


def _scalar(text: str) -> Any:
    """Reads a number or a truth value as YAML does; all else, such as a pattern in brackets, is the text itself."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _section(data: dict[str, Any], key: str) -> dict[str, Any]:
    for part in key.split("."):
        data = data[part]
    return data


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file into plain data.

    A file may begin with `base: FILE`, relative to itself: it then only says what differs from that one.

    Raises:
        ConfigError: it cannot be read, is not YAML, or its bases lead in a circle.
    """
    return _read_layers(path, ())


def _read_layers(path: Path, above: tuple[Path, ...]) -> Any:
    if path.resolve() in above:
        raise ConfigError(f"{above[-1]}: base leads back to {path}; a config cannot build on itself")
    content = _read_one(path)
    if not isinstance(content, dict):
        return content
    layer = typing.cast("dict[str, Any]", content)
    if "base" not in layer:
        return layer
    base = layer.pop("base")
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base must be the name of a file, not {base!r}")
    return _merge(_read_layers(path.parent / base, (*above, path.resolve())), layer)


def _merge(base: Any, change: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return change
    lower = typing.cast("dict[str, Any]", base)
    return lower | {key: _merge(lower.get(key), value) for key, value in typing.cast("dict[str, Any]", change).items()}


def _read_one(path: Path) -> Any:
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
    _check_reward(config.reward)
    return config


_ONLY_FOR: dict[str, tuple[str, ...]] = {
    "threshold": ("classification", "ranking", "embedding", "offline"),
    "path": ("offline",),
    "goal_text": ("embedding",),
    "baseline_text": ("embedding",),
}
"""Settings of the reward that mean nothing with another kind."""


def _check_kinds(config: RewardConfig) -> None:
    if config.add == config.kind:
        raise ConfigError(f"reward.add is {config.add}, as is reward.kind: leave it out, or change intrinsic_coef")
    if config.add is None and config.add_weight != 1.0:
        raise ConfigError(f"reward.add_weight ({config.add_weight}) means nothing without reward.add")
    for name, kinds in _ONLY_FOR.items():
        if getattr(config, name) is not None and not {config.kind, config.add}.intersection(kinds):
            raise ConfigError(
                f"reward.{name} ({getattr(config, name)!r}) means nothing with reward.kind {config.kind}: "
                f"leave it out, or choose {' or '.join(kinds)}"
            )


def _check_reward(config: RewardConfig) -> None:
    _check_kinds(config)
    needs_limit = config.guard in GUARDS_WITH_LIMIT
    if needs_limit and config.guard_limit is None:
        raise ConfigError(f"reward.guard {config.guard} needs reward.guard_limit")
    if not needs_limit and config.guard_limit is not None:
        raise ConfigError(
            f"reward.guard_limit ({config.guard_limit}) means nothing with reward.guard {config.guard}: leave it out, "
            f"or choose {' or '.join(GUARDS_WITH_LIMIT)}"
        )
    if config.intrinsic_schedule == "constant" and config.intrinsic_final_coef != 0.0:
        raise ConfigError(
            f"reward.intrinsic_final_coef ({config.intrinsic_final_coef}) means nothing with reward.intrinsic_schedule "
            "constant: choose linear, or leave it out"
        )


def override(config: ConfigT, arguments: Sequence[str], *, prog: str) -> ConfigT:
    """Returns a config with the changes of a command line such as `["--ppo.learning-rate", "3e-4"]`.

    A usage error ends the process with status 2, as does `--help` with 0.

    Raises:
        ConfigError: a value of the wrong type or out of range.
    """
    import tyro

    if not arguments:
        return config
    cls = type(config)
    rest, options = _take_options(arguments, cls)
    data = dataclasses.asdict(tyro.cli(cls, default=config, args=rest, prog=prog))  # pyright: ignore[reportArgumentType]
    for key, name, value in options:
        _section(data, key)[name] = value
    return validate(data, cls, source="command line")


def load_config(path: Path | None, overrides: Sequence[str] = (), *, prog: str = "oni train") -> TrainConfig:
    """Reads the settings of a run from a YAML file (None: the defaults) and a command line (see `override`).

    Raises:
        ConfigError: a file that cannot be read, an unknown key, a wrong type, a value out of range.
    """
    config = validate({} if path is None else read_yaml(path), TrainConfig, source=str(path or "defaults"))
    return check_together(override(config, overrides, prog=prog))


def to_yaml(config: Any) -> str:
    """Writes a config as YAML that `load_config` reads back."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)
