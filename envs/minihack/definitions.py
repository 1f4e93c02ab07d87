"""What the package `minihack` says of its tasks, read without starting a game.

A task of it is a class that builds a level, then calls the constructor of `MiniHack` with all that is particular to it.
Here that constructor is one that only writes down what it was given.
"""

import importlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from envs.errors import EnvError

_FOUND_ONLY_BY_POSITION = ("altar", "sink")


class Event(NamedTuple):
    """Something that a task pays for.

    messages: any of these texts in the caption is the event; empty for an action at a place. place, command: what the
        hero must stand on, and the key of the command there that is confirmed with yes.
    reward: of the event, once unless `repeats`. needed: the episode goes on until it has happened. enough: the episode
        ends with it.
    """

    reward: float
    repeats: bool
    needed: bool
    enough: bool
    messages: list[str]
    place: str = ""
    command: int = 0


class Definition(NamedTuple):
    """One task; JSON values throughout, since worker processes are told it.

    description: text of the des-file. keys: NetHack's key of each action, empty where the library gives all there are.
    events: empty where the goal is to stand on the stairs down, which ends every task. stairs_reward: of those.
    unlocks: `apply` uses a key on a door beside the hero, all in one action.
    """

    description: str
    keys: list[int]
    character: str
    max_episode_steps: int
    autopickup: bool
    events: list[Event]
    stairs_reward: float
    unlocks: bool


def library() -> Any:
    """Imports MiniHack.

    Raises:
        EnvError: it is not installed, or lacks what it needs.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pkg_resources, and of gymnasium about its own registry
            import minihack
    except ImportError as error:
        raise EnvError(f"MiniHack cannot be imported ({error}): pip install 'oni-jax[minihack]'") from error
    return minihack


def entry_points() -> dict[str, str]:
    """Returns `package.module:class` of every task that the library registers, without `MiniHack-` and version."""
    library()
    from gymnasium.envs.registration import registry

    prefix = "MiniHack-"
    return {
        env_id.removeprefix(prefix).rpartition("-v")[0]: str(spec.entry_point)
        for env_id, spec in registry.items()
        if env_id.startswith(prefix)
    }


def read_definition(name: str) -> Definition:
    """Asks the class of a task what the task is.

    Raises:
        EnvError: there is no such task, or it is one that is not only a level and events.
    """
    points = entry_points()
    if name not in points:
        raise EnvError(f"MiniHack has no task {name!r}")
    module, _, attribute = points[name].partition(":")
    task: Any = getattr(importlib.import_module(module), attribute)
    try:
        given = _what_it_gives(task)
    except ModuleNotFoundError as error:
        raise EnvError(f"the task {name!r} of MiniHack needs more than the package: {error}") from error
    except TypeError as error:
        raise EnvError(f"the task {name!r} of MiniHack is for levels of one's own: {error}") from error
    if given.get("des_file") is None:
        raise EnvError(f"the task {name!r} of MiniHack is for levels of one's own")
    unlocks = "key_in_inventory" in _names_used(task, "step")
    if not unlocks and any(_names_used(task, method) for method in ("step", "_is_episode_end", "_reward_fn")):
        raise EnvError(f"the task {name!r} of MiniHack has rules of its own, which are not supported here")
    manager = given.get("reward_manager")
    custom = [] if manager is None else [function.__name__ for function in manager.custom_reward_functions]
    if custom not in ([], ["stairs_reward_function"]):
        raise EnvError(f"the task {name!r} of MiniHack is paid by {custom}, which is not supported here")
    return Definition(
        description=_description(given["des_file"]),
        keys=[int(key) for key in given.get("actions") or ()],
        character=given["character"],
        max_episode_steps=given["max_episode_steps"],
        autopickup=given.get("autopickup", True),
        events=[] if manager is None else [_event(event) for event in manager.events],
        stairs_reward=1.0 if manager is None or custom else 0.0,
        unlocks=unlocks,
    )


def _what_it_gives(task: Any) -> Mapping[str, Any]:
    from minihack.base import MiniHack

    class Listener(MiniHack):
        """Stands right before `MiniHack` in the order that constructors are called in."""

        def __init__(self, *args: Any, **given: Any) -> None:
            self.given = given

    return type(task.__name__, (task, Listener), {})().given


def _names_used(task: Any, method: str) -> tuple[str, ...]:
    """Names in the code of a method, if a class of the tasks (not the library's base) has its own."""
    for ancestor in task.__mro__:
        if ancestor.__module__.startswith("minihack.envs.") and method in vars(ancestor):
            return vars(ancestor)[method].__code__.co_names
    return ()


def _description(des_file: str) -> str:
    if not des_file.endswith(".des"):
        return des_file
    from minihack.base import PATH_DAT_DIR

    return (Path(PATH_DAT_DIR) / des_file).read_text()


def _event(event: Any) -> Event:
    fixed = (
        float(event.reward),
        bool(event.repeatable),
        bool(event.terminal_required),
        bool(event.terminal_sufficient),
    )
    if hasattr(event, "messages"):
        return Event(*fixed, messages=list(event.messages))
    if getattr(event, "loc", None) in _FOUND_ONLY_BY_POSITION and hasattr(event, "action"):
        return Event(*fixed, messages=[], place=event.loc, command=int(event.action))
    raise EnvError(f"MiniHack's event {type(event).__name__} is not supported here")
