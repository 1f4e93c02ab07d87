"""What the two games have in common, so that captions and observations are written once for both."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int, Num, UInt8

NUM_LOOT = 12
"""Kinds of things that a chest of Craftax can hold."""


class Mobs(NamedTuple):
    """Creatures on the player's floor. code: 1 + place in `Game.mob_names`. blow: damage that hitting it would do."""

    position: Int[Array, "M 2"]
    alive: Bool[Array, " M"]
    code: Int[Array, " M"]
    health: Num[Array, " M"]
    cooldown: Int[Array, " M"]
    blow: Num[Array, " M"]


class Missiles(NamedTuple):
    """What flies on the player's floor: codes as those of `Mobs`."""

    position: Int[Array, "P 2"]
    flying: Bool[Array, " P"]
    code: Int[Array, " P"]


class View(NamedTuple):
    """A state in the words of both games.

    block, item, lit: of every cell of the player's floor. owned: numbers of things and attributes by name.
    food, drink, energy and health as the game counts them. recover: the game's clock of healing and starving.
    killed: monsters killed on this floor. way_down: whether the ladder down is open. hostile: missiles that can hit
    the player; own: those of the player. potion_effect: what each colour of potion does in this game.
    """

    floor: Int[Array, ""]
    block: Int[Array, "H W"]
    item: Int[Array, "H W"]
    lit: Bool[Array, "H W"]
    position: Int[Array, "2"]
    direction: Int[Array, ""]
    owned: Mapping[str, Num[Array, ""]]
    health: Num[Array, ""]
    food: Int[Array, ""]
    drink: Int[Array, ""]
    energy: Int[Array, ""]
    recover: Float[Array, ""]
    asleep: Bool[Array, ""]
    resting: Bool[Array, ""]
    light: Float[Array, ""]
    mobs: Mobs
    hostile: Missiles
    own: Missiles
    killed: Int[Array, ""]
    way_down: Bool[Array, ""]
    boss_hits: Int[Array, ""]
    potion_effect: Int[Array, "6"]


class Game(NamedTuple):
    """One of the two games: the library's rules, and what is in its states.

    generate: from a key to a state; never called in a step. step: key, state, action to state and reward.
    over, dead, won: of a state; only Craftax is over when it is won.
    view: a state in the words of both games. status: the numbers that are observed, named by `status_names`.
    view_size: rows and columns that are seen. num_blocks, num_items: kinds of them.
    mob_names: of creatures and missiles, first the `num_melee` that hit the player with their hands.
    max_episode_steps: the library's step limit. loot: what a chest gave, from the views before and after.
    achievements: of a state, which of `achievement_names` the player has so far. pays: the reward, in a few words.
    """

    generate: Callable[[Array], Any]
    step: Callable[[Array, Any, Array], tuple[Any, Array]]
    over: Callable[[Any], Array]
    dead: Callable[[Any], Array]
    won: Callable[[Any], Array]
    view: Callable[[Any], View]
    status: Callable[[Any], Array]
    status_names: tuple[str, ...]
    view_size: tuple[int, int]
    num_blocks: int
    num_items: int
    mob_names: tuple[str, ...]
    num_melee: int
    action_names: tuple[str, ...]
    max_episode_steps: int
    loot: Callable[[View, View], UInt8[Array, "2"]]
    achievements: Callable[[Any], Bool[Array, " A"]]
    achievement_names: tuple[str, ...]
    pays: str
