"""From Gymnasium's observation spaces to arrays by name, and from observations to these arrays.

| space | becomes |
|---|---|
| `Box` of `uint8` | as it is |
| other `Box` | `float32` |
| `Discrete(n)` | one category of n, counted from 0 |
| `MultiDiscrete`, `MultiBinary` | one-hot `float32`, flat |
| `Dict`, `Tuple` | their parts, named by key or place; of parts of parts `outer/inner` |
| `Text` | left out: what is said is for the captioner |
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from envs.errors import EnvError
from envs.spec import ObsSpec

WHOLE = "obs"
"""Name of an observation that has no parts."""

_FLOAT32, _INT32, _UINT8 = np.dtype(np.float32), np.dtype(np.int32), np.dtype(np.uint8)

Path = tuple[str | int, ...]


class Part(NamedTuple):
    """One array of an observation: where it is found, what it looks like, and how it is read."""

    path: Path
    spec: ObsSpec
    read: Callable[[Any], Any]

    @property
    def name(self) -> str:
        """What the learner calls it."""
        return "/".join(map(str, self.path)) or WHOLE


def parts_of(space: Any, path: Path = ()) -> list[Part]:
    """Lists the arrays of an observation space.

    Raises:
        EnvError: there is a space in it that has no fixed shape.
    """
    from gymnasium import spaces
    from gymnasium.spaces.utils import flatdim, flatten

    match space:
        case spaces.Dict():
            return [part for key, inner in space.spaces.items() for part in parts_of(inner, (*path, key))]
        case spaces.Tuple():
            return [part for i, inner in enumerate(space.spaces) for part in parts_of(inner, (*path, i))]
        case spaces.Text():
            return []
        case spaces.Box():
            dtype = _UINT8 if space.dtype == _UINT8 else _FLOAT32
            shape = space.shape or (1,)
            return [Part(path, ObsSpec(shape, dtype), lambda value: np.asarray(value, dtype).reshape(shape))]
        case spaces.Discrete():
            start = int(space.start)
            return [Part(path, ObsSpec((1,), _INT32, (int(space.n),)), lambda value: int(value) - start)]
        case spaces.MultiDiscrete() | spaces.MultiBinary():
            size = flatdim(space)
            return [Part(path, ObsSpec((size,), _FLOAT32), lambda value: flatten(space, value))]
        case _:
            name = "/".join(map(str, path)) or WHOLE
            raise EnvError(
                f"the observation {name!r} is a {type(space).__name__}, which cannot be given to a network: only Box, "
                "Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of them can"
            )


def write(parts: list[Part], obs: Any, raw: Mapping[str, np.ndarray]) -> None:
    """Writes an observation into its arrays."""
    for part in parts:
        value = obs
        for key in part.path:
            value = value[key]
        raw[part.name][...] = part.read(value)
