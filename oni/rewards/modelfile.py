"""A reward model as one file: what `oni distill` writes and `reward.kind offline` reads."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
from flax import serialization
from pydantic import TypeAdapter

from oni.errors import ConfigError

FORMAT = "oni-jax reward model"
"""How a file says what it is."""

SCHEMA = 1
"""Layout of the file; raised when an older program could not read a newer file."""


@dataclass(frozen=True, kw_only=True)
class RewardFile:
    """A distilled reward model.

    kind: how scores are made of the network's answers. settings: what the network is built from. params: its
        parameters, a tree of dicts and arrays.
    mean, std: of the network's answer over all steps of the store that said something, to standardise it by.
    samples: some captions and the network's answer to each, which shows whether a later program still reads captions
        as the one did that wrote the file.
    provenance: where the labels are from. held_out: figures on captions that were not learned from.
    """

    kind: str
    settings: dict[str, Any]
    params: Mapping[str, Any]
    mean: float = 0.0
    std: float = 1.0
    samples: list[tuple[bytes, float]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    held_out: dict[str, float | int | None] = field(default_factory=dict)


class ReadFile(NamedTuple):
    """A model, and the SHA-256 of the file that it was read from."""

    model: RewardFile
    digest: str


def write_model(path: Path, model: RewardFile) -> str:
    """Writes a model, whole or not at all; returns the SHA-256 of the file.

    The same model gives the same bytes. The file holds numbers and text alone: reading it runs no code of its own.

    Raises:
        OSError: the file cannot be written.
    """
    values = {**asdict(model), "params": serialization.msgpack_serialize(serialization.to_state_dict(model.params))}
    content: Any = msgpack.packb({"format": FORMAT, "schema": SCHEMA, **values})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return hashlib.sha256(content).hexdigest()


def read_model(path: Path) -> ReadFile:
    """Reads a model.

    Raises:
        ConfigError: no such file, something else, or one of a later version. Whether the parameters fit the settings
            shows when the network is built.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the reward model {path} cannot be read: {error.strerror or error}") from None
    again = "make it with `oni distill`"
    try:
        values: Any = msgpack.unpackb(content)
    except (ValueError, msgpack.UnpackException):
        raise ConfigError(f"{path} is damaged or is no reward model: {again}") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ConfigError(f"{path} is no reward model: {again}")
    if values.get("schema") != SCHEMA:  # a later program reads the older ones
        raise ConfigError(
            f"{path} was written by a later version of oni-jax (schema {values.get('schema')}): update oni-jax"
        )
    try:
        params = serialization.msgpack_restore(values["params"])
        model = TypeAdapter(RewardFile).validate_python({**values, "params": params})
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise ConfigError(f"{path} is damaged: {again} once more ({error})") from error
    return ReadFile(model=model, digest=hashlib.sha256(content).hexdigest())
