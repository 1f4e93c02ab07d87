"""The environments of EnvPool (`envpool` 1.2): MiniGrid and BabyAI with captions, the others without."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.envpool import pictures
from envs.envpool.captions import ACTION_NAMES, Narrator
from envs.envpool.game import paid_by_limit
from envs.envpool.library import describe, make_envs
from envs.envpool.listing import MINIGRID, Listed, listed, pays
from envs.envpool.observe import MiniGridObserver, Observer
from envs.envpool.pool import EnvPoolGames
from envs.errors import EnvError
from envs.host.types import Arrays
from envs.pictures import Picture, plain_picture
from envs.spec import EnvSpec, ObsSpec

takes_any_name = True
"""Ids of EnvPool beyond those of `names` are tried as well."""

MAX_EPISODE_STEPS = 1_000  # where neither the list nor the library has a limit
_LONGEST = 1_000_000  # a limit above it is none


def names() -> list[str]:
    """Lists the environments of MiniGrid, BabyAI, Atari, Procgen, Box2D and Gym's classics with discrete actions."""
    return list(listed())


class EnvPoolEnv:
    """What is fixed about an environment of EnvPool.

    Observation, by name, of MiniGrid and BabyAI:
        image: uint8[7, 7, 3], object, colour and state of the squares in view, by column and row.
        direction: int32[1], where the agent looks, of 4.
        mission: uint8[32, 1], the words of the mission, places in `envs.envpool.observe.WORDS`.
    Of the others, the arrays of their space (see `envs.gymnasium.spaces`), channels of pictures last.

    Action, reward and end: the environment's own; of MiniGrid, `1 - 0.9 * steps / limit` on success, which terminates.

    Captions: of MiniGrid and BabyAI, see `envs.envpool.captions`. Success of these: terminated with a positive
    reward; of the others always False, their return says how well they went.

    The vector of the library plays many at once, see `open_pool`. In worker processes of ours, each environment is made
    anew for the seed of its episode.
    """

    factory = "envs.envpool.game:make_game"

    def __init__(
        self, spec: EnvSpec, options: Mapping[str, Any], observer: Observer, narrator: Narrator | None
    ) -> None:
        self.spec = spec
        self.options = options
        self.observer = observer
        self.narrator = narrator
        self.raw: Mapping[str, ObsSpec] = observer.raw

    def depict(self, obs: Arrays) -> Picture:
        """Returns what the agent sees: a grid of cells for MiniGrid and BabyAI, else pixels or numbers."""
        return plain_picture(obs) if self.narrator is None else pictures.picture(obs)

    def observe(self, raw: Arrays) -> dict[str, np.ndarray]:
        return self.observer.observe(raw)

    def open_pool(
        self, num_envs: int, *, seed: int, num_groups: int = 2, num_workers: int | None = None
    ) -> EnvPoolGames:
        """Returns environments that EnvPool's own threads play, in groups, in place of an `envs.host.pool.GamePool`.

        Args:
            num_workers: threads of each group, default one for each usable core.

        Raises:
            EnvError: an argument is out of range, or EnvPool cannot make them.
        """
        return EnvPoolGames(self, num_envs, seed=seed, num_groups=num_groups, num_threads=num_workers)

    def paid(self, reward: np.ndarray, length: np.ndarray) -> np.ndarray:
        """Returns the rewards of steps, of which each is the `length`-th of its episode, from what the library says."""
        return reward if self.narrator is None else paid_by_limit(reward, length, self.spec.max_episode_steps)

    def make_vector(self, num_envs: int, *, seed: int, num_threads: int) -> Any:
        """Makes EnvPool's own vector, with its own reset one step late."""
        return make_envs(**self.options, num_envs=num_envs, seed=seed, num_threads=num_threads)


def make(
    name: str,
    *,
    with_mission: bool = True,
    facing: bool = True,
    max_episode_steps: int | None = None,
    kwargs: dict[str, Any] | None = None,
) -> EnvPoolEnv:
    """Creates an environment.

    Args:
        name: id of EnvPool, such as `BabyAI-GoToLocal-v0` or `Pong-v5`.
        with_mission: captions of MiniGrid and BabyAI begin with the mission, so that they can be judged alone.
        facing: they also say what the agent comes to stand before.
        max_episode_steps: steps after which an episode is cut off, default that of the library.
        kwargs: further settings of EnvPool, such as `frame_skip` of Atari; JSON values.

    Raises:
        UnknownEnv: there is no such environment.
        EnvError: it cannot be made, or what it observes or does cannot be learned here.
    """
    if max_episode_steps is not None and max_episode_steps < 1:
        raise EnvError(f"max_episode_steps is {max_episode_steps}, expected 1 or more")
    if "max_episode_steps" in (kwargs or {}):
        raise EnvError("max_episode_steps is an option of its own: put it beside kwargs, not into them")
    known = describe(name, kwargs or {})
    captioned = known.library == MINIGRID
    observer = (MiniGridObserver if captioned else Observer)(known.observation_space)
    limit = max_episode_steps or listed().get(name, Listed("", 0, None)).limit or known.max_episode_steps
    fixed = _spec(name, known.library, observer, _num_actions(known.action_space, name), limit)
    limit = fixed.max_episode_steps
    options = {
        "name": name,
        # One step more than is played, so that what ends by itself on the last step is told from what is cut off.
        "kwargs": {**(kwargs or {}), "max_episode_steps": limit + 1},
        "captions": {"with_mission": with_mission, "facing": facing} if captioned else None,
    }
    narrator = Narrator(with_mission=with_mission, facing=facing) if captioned else None
    return EnvPoolEnv(fixed, options, observer, narrator)


def spec_of(name: str) -> EnvSpec:
    """Returns `make(name).spec`, at once for those listed: Atari's games differ in their actions and limits only.

    Raises:
        UnknownEnv: there is no such environment. EnvError: it cannot be made.
    """
    known = listed().get(name)
    if known is None or known.num_actions is None:
        return make(name).spec
    return _spec(name, known.library, _atari_observer(), known.num_actions, known.limit)


@functools.cache
def _atari_observer() -> Observer:
    return Observer(describe("Pong-v5", {}).observation_space)


def _spec(name: str, library: str, observer: Observer, num_actions: int, limit: int) -> EnvSpec:
    captioned = library == MINIGRID
    named = captioned and num_actions == len(ACTION_NAMES)
    return EnvSpec(
        id=f"envpool:{name}",
        obs=observer.spec,
        action_names=ACTION_NAMES if named else tuple(f"action {i}" for i in range(num_actions)),
        max_episode_steps=limit if 0 < limit < _LONGEST else MAX_EPISODE_STEPS,
        says_text=captioned,
        reward=pays(name, library),
    )


def _num_actions(space: Any, name: str) -> int:
    from gymnasium import spaces

    if not isinstance(space, spaces.Discrete) or int(space.start) != 0:
        raise EnvError(f"envpool:{name} is played by actions of {space}, and the policy here chooses one of several")
    return int(space.n)
