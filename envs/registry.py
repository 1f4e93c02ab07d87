"""Finds environments by id.

An id is `family:name` for what ships here, or `package.module:factory` for a user's own: the factory is called with
the options of the config and returns a `JaxEnv` or a `HostEnv`.
"""

import difflib
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from envs.errors import EnvError, EnvUnavailable, UnknownEnv
from envs.host.types import HostEnv
from envs.options import check_options
from envs.spec import EnvSpec
from envs.types import JaxEnv


class Family(NamedTuple):
    """A library of environments behind one adapter, imported when first used.

    module: has `make(name, **options) -> JaxEnv | HostEnv` and `names() -> list[str]`, `takes_any_name` if there may be
        more than these, and `spec_of(name) -> EnvSpec` where making one only to see its spec takes long.
    requires: package that must be installed, None for those written here. install: what pip is asked for it, where
        that is not the package itself.
    """

    module: str
    requires: str | None
    summary: str
    install: str = ""


FAMILIES: Mapping[str, Family] = {
    "xminigrid": Family("envs.minigrid.adapter", "xminigrid", "tasks of XLand-MiniGrid, jitted, captioned"),
    "gymnax": Family(
        "envs.gymnax.adapter",
        "gymnax",
        "MinAtar, bsuite, mazes and classic control of gymnax, jitted, some captioned",
        install="'oni-jax[gymnax]'",
    ),
    "craftax": Family(
        "envs.craftax.adapter",
        "craftax",
        "Craftax and Craftax-Classic by symbols, jitted, captioned",
        install="'oni-jax[craftax]'",
    ),
    "nethack": Family(
        "envs.nethack.adapter",
        "nle",
        "tasks of the NetHack Learning Environment, on the host, captioned",
        install="'oni-jax[nethack]'",
    ),
    "minihack": Family(
        "envs.minihack.adapter",
        "minihack",
        "navigation and skill tasks of MiniHack, on the host, captioned",
        install="'oni-jax[minihack]'",
    ),
    "envpool": Family(
        "envs.envpool.adapter",
        "envpool",
        "MiniGrid and BabyAI of EnvPool, on the host, captioned; Atari, Procgen and others without captions",
        install="'oni-jax[envpool]'",
    ),
    "gymnasium": Family(
        "envs.gymnasium.adapter",
        "gymnasium",
        "any environment of Gymnasium with discrete actions, on the host, captioned by a function of yours",
        install="'oni-jax[gymnasium]'",
    ),
    "probe": Family("envs.probes", None, "tiny environments that each isolate one fault of a learner"),
    "hostprobe": Family("envs.host.probes", None, "some of these probes as games in worker processes"),
}


def _load(family: str) -> Any:
    entry = FAMILIES[family]
    if entry.requires is not None and importlib.util.find_spec(entry.requires) is None:
        raise EnvUnavailable(
            f"environments {family}:... need the package {entry.requires!r}, which is not installed "
            f"(pip install {entry.install or entry.requires})"
        )
    return importlib.import_module(entry.module)


def list_envs(only: str | None = None) -> list[str]:
    """Lists the ids of one family, or of all whose library is installed.

    Raises:
        UnknownEnv: no such family. EnvUnavailable: its library is not installed.
    """
    if only is not None:
        if only not in FAMILIES:
            raise UnknownEnv(f"no family of environments {only!r}: there are {', '.join(FAMILIES)}")
        return [f"{only}:{name}" for name in _load(only).names()]
    ids: list[str] = []
    for family in FAMILIES:
        try:
            ids += [f"{family}:{name}" for name in _load(family).names()]
        except EnvUnavailable:
            continue
    return ids


class Listed(NamedTuple):
    """One id of a family. spec: None where it cannot be made on this machine; `missing` then says what it needs."""

    id: str
    spec: EnvSpec | None
    missing: str


def list_specs(family: str) -> Iterator[Listed]:
    """Yields what is fixed about every environment of a family, with its own settings.

    Raises:
        UnknownEnv: no such family. EnvUnavailable: its library is not installed.
    """
    ids = list_envs(family)
    module = _load(family)
    for env_id in ids:
        name = env_id.partition(":")[2]
        try:
            spec = module.spec_of(name) if hasattr(module, "spec_of") else module.make(name).spec
        except EnvError as error:
            yield Listed(env_id, None, str(error))
        else:
            yield Listed(env_id, spec, "")


def _custom_factory(module_name: str, attribute: str, env_id: str) -> Callable[..., JaxEnv[Any] | HostEnv]:
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        known = ", ".join(f"{family}:..." for family in FAMILIES)
        raise UnknownEnv(
            f"no environment {env_id!r}: {module_name!r} is neither a family ({known}) nor a module that can be "
            f"imported ({error}). List the ids with: oni envs"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise UnknownEnv(f"no environment {env_id!r}: module {module_name!r} has no {attribute!r}") from None


def make(env_id: str, **options: Any) -> JaxEnv[Any] | HostEnv:
    """Creates an environment.

    Raises:
        UnknownEnv: no such id; the message names the nearest ones.
        EnvUnavailable: the library is not installed.
        EnvError: an option is not known or has a value that cannot be used.
    """
    family, separator, name = env_id.partition(":")
    if not separator:
        near = difflib.get_close_matches(env_id, [known.partition(":")[2] for known in list_envs()], n=1)
        hint = [known for known in list_envs() if near and known.endswith(":" + near[0])]
        raise UnknownEnv(f"{env_id!r} names no family: write family:name{', for example ' + hint[0] if hint else ''}")
    if family not in FAMILIES:
        factory = _custom_factory(family, name, env_id)
        check_options(factory, options, env_id)
        return factory(**options)
    module = _load(family)
    names = module.names()
    if name not in names and not getattr(module, "takes_any_name", False):
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(f'{family}:{n}' for n in near)}?" if near else ""
        raise UnknownEnv(f"no environment {env_id!r}{hint} List them with: oni envs")
    check_options(module.make, options, env_id)
    return module.make(name, **options)
