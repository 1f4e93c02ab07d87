"""Environments in one shape, with captions. Libraries are imported when an environment of theirs is first made."""

from envs.errors import EnvContractError, EnvError, EnvUnavailable, UnknownEnv
from envs.registry import list_envs, make
from envs.types import EnvSpec, JaxEnv, ObsSpec, Renders, TimeStep
from envs.vector import VectorEnv

__all__ = [
    "EnvContractError",
    "EnvError",
    "EnvSpec",
    "EnvUnavailable",
    "JaxEnv",
    "ObsSpec",
    "Renders",
    "TimeStep",
    "UnknownEnv",
    "VectorEnv",
    "list_envs",
    "make",
]
