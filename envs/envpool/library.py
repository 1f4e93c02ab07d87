"""The library itself: imported when first used, since that takes seconds, and its failures put in words."""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from envs.errors import EnvError, EnvUnavailable, UnknownEnv

_PREFIX = "envpool."


def _envpool() -> Any:
    try:
        import envpool
    except ImportError as error:
        raise EnvUnavailable(f"EnvPool cannot be imported ({error}): pip install 'oni-jax[envpool]'") from error
    return envpool


class Described(NamedTuple):
    """What EnvPool says of an environment.

    library: "minigrid", "atari", ... max_episode_steps: its default limit. Spaces are Gymnasium's.
    """

    library: str
    max_episode_steps: int
    observation_space: Any
    action_space: Any


def describe(name: str, kwargs: Mapping[str, Any]) -> Described:
    """Asks EnvPool about an environment.

    Raises:
        UnknownEnv: EnvPool does not have it.
        EnvError: EnvPool cannot make it.
    """
    envpool = _envpool()
    if name not in envpool.list_all_envs():
        raise UnknownEnv(f"EnvPool has no environment {name!r}")
    spec = _told(lambda: envpool.make_spec(name, **kwargs), name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium's, about the precision of bounds
        spaces = spec.gymnasium_observation_space, spec.gymnasium_action_space
    return Described(_library(name), int(spec.config.max_episode_steps), *spaces)


def make_envs(
    *, name: str, kwargs: Mapping[str, Any], num_envs: int, seed: int, num_threads: int, captions: object = None
) -> Any:
    """Makes a vector of environments; environment i has the seed `seed + i`.

    Raises:
        EnvError: EnvPool cannot make it.
    """
    del captions  # of ours
    envpool = _envpool()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        made = _told(
            lambda: envpool.make_gymnasium(name, num_envs=num_envs, seed=seed, num_threads=num_threads, **kwargs), name
        )
        _ = made.observation_space  # made, and warned of, when first asked for
    return made


def _library(name: str) -> str:
    from envpool.registration import registry

    return registry.specs[name][0].removeprefix(_PREFIX)


def _told(make: Any, name: str) -> Any:
    try:
        return make()
    except ImportError as error:  # Procgen needs Qt, which is no package of Python's
        raise EnvUnavailable(f"EnvPool's {_library(name)} cannot be used on this machine: {error}") from error
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise EnvError(f"EnvPool cannot make {name!r}: {error}") from error
