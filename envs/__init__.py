"""Environments in one shape, with captions.

Libraries are imported when an environment of theirs is first made, and JAX when something that needs it is first asked
for: the worker processes of games import parts of this package and do without.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envs.errors import EnvContractError, EnvError, EnvUnavailable, UnknownEnv
    from envs.host.pool import GamePool
    from envs.host.types import Arrays, Game, GameStep, HostEnv, HostTimeStep, HostVectorEnv
    from envs.pictures import Depicts
    from envs.registry import list_envs, make
    from envs.spec import EnvSpec, ObsSpec
    from envs.types import JaxEnv, Renders, TimeStep
    from envs.vector import VectorEnv

__all__ = [
    "Arrays",
    "Depicts",
    "EnvContractError",
    "EnvError",
    "EnvSpec",
    "EnvUnavailable",
    "Game",
    "GamePool",
    "GameStep",
    "HostEnv",
    "HostTimeStep",
    "HostVectorEnv",
    "JaxEnv",
    "ObsSpec",
    "Renders",
    "TimeStep",
    "UnknownEnv",
    "VectorEnv",
    "list_envs",
    "make",
]

_HOMES = {
    "envs.errors": ("EnvContractError", "EnvError", "EnvUnavailable", "UnknownEnv"),
    "envs.host.pool": ("GamePool",),
    "envs.host.types": ("Arrays", "Game", "GameStep", "HostEnv", "HostTimeStep", "HostVectorEnv"),
    "envs.pictures": ("Depicts",),
    "envs.registry": ("list_envs", "make"),
    "envs.spec": ("EnvSpec", "ObsSpec"),
    "envs.types": ("JaxEnv", "Renders", "TimeStep"),
    "envs.vector": ("VectorEnv",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(home), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
