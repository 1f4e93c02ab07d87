"""Reading `BackendConfig.options` into the settings of one kind of backend."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from llm_annotator.choices import unknown_name
from llm_annotator.errors import ConfigError

Settings = TypeVar("Settings")


def read_options(kind: str, options: Mapping[str, Any], settings: type[Settings]) -> Settings:
    """Returns the options as the dataclass `settings`, checked against its annotations.

    Raises:
        ConfigError: an unknown option (the nearest is named), a wrong type, a value out of range.
    """
    from pydantic import TypeAdapter, ValidationError

    names = [item.name for item in fields(settings)]  # pyright: ignore[reportArgumentType]
    for name in options:
        if name not in names:
            raise ConfigError(unknown_name(f"option of backend {kind!r} called", name, names))
    try:
        return TypeAdapter(settings).validate_python(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"option {where!r} of backend {kind!r}: {first['msg']}, not {first['input']!r}") from error
