"""What is known of EnvPool's environments without opening them, which for Atari takes a tenth of a second each."""

import functools
from collections.abc import Mapping
from importlib import resources
from typing import NamedTuple

ATARI, MINIGRID = "atari", "minigrid"

_REWARDS = {
    ATARI: "change of the game's score",
    MINIGRID: "1 - 0.9 * steps / limit on success",
    "procgen": "points of the game",
    "LunarLander": "100 or -100 at the end; nearness, speed, fuel",
    "CartPole": "1 a step until it falls",
    "MountainCar": "-1 a step until it is up",
    "Acrobot": "-1 a step until it swings up",
    "Catch": "1 for catching, -1 for missing",
    "FrozenLake": "1 at the goal",
    "FrozenLake8x8": "1 at the goal",
    "Taxi": "20 for the passenger delivered, -1 a step, -10 a wrong pick-up or drop-off",
    "NChain": "10 at the end of the chain, 2 for going back",
    "CliffWalking": "-1 a step, -100 off the cliff",
    "CliffWalkingSlippery": "-1 a step, -100 off the cliff",
    "Blackjack": "1 for a win, -1 for a loss",
}
"""By library, or by the name of the environment without its version."""


class Listed(NamedTuple):
    """A line of `envs/data/envpool.txt`.

    limit: steps of an episode; where MiniGrid or BabyAI make it depend on the mission, the largest of 32 missions; 0 is
    that of the library. num_actions: of Atari, else None.
    """

    library: str
    limit: int
    num_actions: int | None


@functools.cache
def listed() -> Mapping[str, Listed]:
    """Returns the environments that `oni envs` lists, by id.

    BabyAI-SynthS5R2 is left out: the library never comes to the end of making its levels.
    """
    found: dict[str, Listed] = {}
    for line in resources.files("envs").joinpath("data", "envpool.txt").read_text("ascii").splitlines():
        name, library, limit, *actions = line.split()
        found[name] = Listed(library, int(limit), int(actions[0]) if actions else None)
    return found


def pays(name: str, library: str) -> str:
    """Says in a few words what an environment pays."""
    words = _REWARDS.get(library) or _REWARDS.get(name.rpartition("-v")[0], "its own")
    return f"{words}, -1 for running into a ball" if name.startswith("MiniGrid-Dynamic-Obstacles") else words
