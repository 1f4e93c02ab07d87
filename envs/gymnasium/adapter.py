"""Environments of Gymnasium by their ids: those that come with it, and a user's own that are registered with it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.errors import EnvError
from envs.gymnasium.game import load_captioner, make_env
from envs.gymnasium.spaces import Part, parts_of
from envs.host.types import Arrays
from envs.spec import EnvSpec, ObsSpec

MAX_EPISODE_STEPS = 1_000  # of an environment that is registered without a limit

takes_any_name = True
"""Ids beyond those of `names` are tried as well: Gymnasium knows what a user has registered."""


_REWARDS = {
    "Acrobot-v1": "-1 a step until it swings up",
    "Blackjack-v1": "1 for a win, -1 for a loss",
    "CartPole-v1": "1 a step until it falls",
    "CliffWalking-v1": "-1 a step, -100 off the cliff",
    "FrozenLake-v1": "1 at the goal",
    "FrozenLake8x8-v1": "1 at the goal",
    "MountainCar-v0": "-1 a step until it is up",
    "Taxi-v3": "20 for the passenger delivered, -1 a step, -10 a wrong pick-up or drop-off",
}


def names() -> list[str]:
    """Lists the environments with discrete actions that Gymnasium brings and that need no other package.

    Of the form `module:ID` are those that a module of the user's registers when it is imported.
    """
    return list(_REWARDS)


class GymnasiumEnv:
    """What is fixed about an environment; `envs.gymnasium.game.GymnasiumGame` plays it in a worker.

    Observation: the arrays of the space, as `envs.gymnasium.spaces` lists them.

    Action, reward, end: the environment's own; what it truncates itself, before the step limit, is truncated. Success
    is what it says as `is_success` or `success` in `info` of the last step, else False.

    Captions: what the captioner says, none without one.
    """

    factory = "envs.gymnasium.game:make_game"

    def __init__(self, spec: EnvSpec, options: Mapping[str, Any], parts: list[Part]) -> None:
        self.spec = spec
        self.options = options
        self.raw: Mapping[str, ObsSpec] = {part.name: part.spec for part in parts}

    def observe(self, raw: Arrays) -> dict[str, np.ndarray]:
        return {name: array.copy() for name, array in raw.items()}


def make(
    name: str,
    *,
    captioner: str | None = None,
    max_episode_steps: int | None = None,
    kwargs: dict[str, Any] | None = None,
) -> GymnasiumEnv:
    """Creates an environment.

    Args:
        name: id of Gymnasium, such as `CartPole-v1`, or `my_module:MyGame-v0`, for which the module is imported.
        captioner: `package.module:function` that says what an action did: an
            `envs.gymnasium.game.Transition` -> `str` or `bytes`. It is called in the worker processes.
        max_episode_steps: steps after which an episode is cut off, default what the environment is registered with, or
            1,000 where that says nothing.
        kwargs: handed to the constructor of the environment; JSON values.

    Raises:
        UnknownEnv: there is no such environment.
        EnvError: it cannot be made, or what it observes or does cannot be learned here.
    """
    import gymnasium

    env_id = f"gymnasium:{name}"
    if captioner is not None:
        load_captioner(captioner)
    if max_episode_steps is not None and max_episode_steps < 1:
        raise EnvError(f"max_episode_steps is {max_episode_steps}, expected 1 or more")
    env = make_env(name, kwargs or {})
    try:
        actions = _action_names(env, env_id)
        parts = parts_of(env.observation_space)
        registered = gymnasium.spec(env.spec.id)  # with its version, also where the name has none
        limit = max_episode_steps or registered.max_episode_steps or MAX_EPISODE_STEPS
    finally:
        env.close()
    if not parts:
        raise EnvError(f"{env_id} observes nothing but text, which no network here reads")
    spec = EnvSpec(
        id=env_id,
        obs={part.name: part.spec for part in parts},
        action_names=actions,
        max_episode_steps=limit,
        says_text=captioner is not None,
        reward=_REWARDS.get(name, "its own"),
        # Gymnasium's own have been tried; of others it is known only where they say that they do not repeat
        repeats="never" if registered.nondeterministic else "always" if name in _REWARDS else "unknown",
    )
    options: dict[str, Any] = {"env_id": name, "kwargs": kwargs or {}, "max_episode_steps": limit}
    return GymnasiumEnv(spec, options if captioner is None else {**options, "captioner": captioner}, parts)


def _action_names(env: Any, env_id: str) -> tuple[str, ...]:
    from gymnasium import spaces

    space = env.action_space
    if not isinstance(space, spaces.Discrete):
        raise EnvError(
            f"{env_id} is played by actions of {type(space).__name__}, and the policy here chooses one of several: "
            "wrap it so that its action space is Discrete"
        )
    meanings = getattr(env.unwrapped, "get_action_meanings", None)
    if meanings is not None and len(found := list(meanings())) == space.n:
        return tuple(str(word).lower() for word in found)
    return tuple(f"action {i}" for i in range(int(space.n)))
