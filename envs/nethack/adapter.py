"""NetHack 3.6.7 through the NetHack Learning Environment (`nle` 1.3): tasks for agents that read its messages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from envs.errors import EnvError
from envs.host.types import Arrays
from envs.nethack.actions import action_set
from envs.nethack.engine import check_character
from envs.nethack.game import RAW, STATS
from envs.nethack.observe import make_observer, obs_spec
from envs.nethack.pictures import SCENE, SHOWN, picture
from envs.nethack.tasks import TASKS
from envs.pictures import Picture
from envs.spec import EnvSpec, ObsSpec

MAX_EPISODE_STEPS = 5_000  # of NLE's tasks
OBSERVATIONS = ("crop", "full")

_REWARDS = {
    "score": "change of the in-game score",
    "oracle": "50 beside the Oracle",
    "staircase": "50 for stairs down to depth 2",
    "staircase-3": "50 for stairs down to depth 3",
    "staircase-4": "50 for stairs down to depth 4",
    "gold": "gold gained",
    "eat": "nutrition gained",
    "scout": "1 a square newly seen",
}


def names() -> list[str]:
    """Lists the tasks."""
    import nle  # noqa: F401 - says by its absence that there are none

    return list(TASKS)


class NetHackEnv:
    """What is fixed about a NetHack task; `envs.nethack.game.NetHackGame` plays it in a worker.

    Observation, by name:
        crop: uint8[crop, crop, 2], character and colour of each square around the hero; 0 beyond the edge of the map.
        status: float32[S], hit points, hunger, depth, whether the game waits for an answer, ..., as
            `envs.nethack.observe.STATUS` names them, scaled to about [-1, 1].
        map: uint8[21, 79, 2], likewise the whole map; only with `observation="full"`.
        message: uint8[256, 1], the beginning of the caption, zeros after it; only with `observation="full"`.

    Action: one of NLE's 23 task actions, or those and five more; questions of the game are answered by the same
    actions, see `envs.nethack.prompts`.

    Reward and end: `envs.nethack.tasks`. Every episode ends when the hero dies. Only oracle and the staircases have a
    goal and can succeed; success of the other tasks is always False, their return says how well they went.

    Captions: all that the game says in a step, see `NetHackGame`.
    """

    factory = "envs.nethack.game:make_game"
    scene = SCENE
    shown = SHOWN

    def __init__(self, spec: EnvSpec, options: Mapping[str, Any], *, full: bool, crop: int) -> None:
        self.spec = spec
        self.options = options
        self._observe = make_observer(full=full, crop=crop)
        self._arrays = obs_spec(full=full, crop=crop)

    @property
    def raw(self) -> Mapping[str, ObsSpec]:
        return {name: ObsSpec(shape, np.dtype(dtype)) for name, (shape, dtype) in RAW.items()}

    def depict_scene(self, shown: Arrays) -> Picture:
        """Returns the terminal."""
        return picture(shown)

    def observe(self, raw: Arrays) -> dict[str, np.ndarray]:
        rows = len(raw["misc"])
        obs = {name: np.empty((rows, *array.shape), array.dtype) for name, array in self._arrays.items()}
        self._observe(raw, obs)
        return obs


def make(
    name: str,
    *,
    actions: str = "task",
    observation: str = "crop",
    crop: int = 9,
    max_episode_steps: int = MAX_EPISODE_STEPS,
    character: str = "mon-hum-neu-mal",
    record_dir: str | None = None,
) -> NetHackEnv:
    """Creates a NetHack task.

    Args:
        name: one of `names()`.
        actions: `task` (NLE's 23) or `extended` (28: also cast, quaff, pray, pick up, pay).
        observation: `crop` (around the hero, and status) or `full` (also the whole map and the message).
        crop: side of the crop in squares, odd.
        max_episode_steps: steps after which an episode is cut off.
        character: role, race, alignment and gender, or `@` for one that the seed chooses.
        record_dir: folder that every episode is recorded in, one file each, `TASK/SEED.ttyrec2.bz2`, which
            `nle-ttyplay2` plays. It is complete when the next episode has begun or the game is closed.

    Raises:
        EnvError: an option has a value that cannot be used.
    """
    if name not in TASKS:
        raise EnvError(f"no NetHack task {name!r}, expected one of: {', '.join(TASKS)}")
    if observation not in OBSERVATIONS:
        raise EnvError(f"observation is {observation!r}, expected one of: {', '.join(OBSERVATIONS)}")
    if crop < 1 or crop % 2 == 0:
        raise EnvError(f"crop is {crop}, expected an odd number of squares, so that the hero is in the middle")
    if max_episode_steps < 1:
        raise EnvError(f"max_episode_steps is {max_episode_steps}, expected 1 or more")
    full = observation == "full"
    spec = EnvSpec(
        id=f"nethack:{name}",
        obs=obs_spec(full=full, crop=crop),
        action_names=tuple(action.name for action in action_set(actions)),
        max_episode_steps=max_episode_steps,
        says_text=True,
        episode_stats=STATS,
        reward=_REWARDS[name],
    )
    options: dict[str, Any] = {"task": name, "actions": actions, "character": check_character(character)}
    if record_dir is not None:
        options["record_dir"] = str(Path(record_dir).resolve())
    return NetHackEnv(spec, options, full=full, crop=crop)
