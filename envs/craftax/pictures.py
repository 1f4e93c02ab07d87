"""What a player of Craftax sees, as a picture for people: blocks, things and creatures by letter and colour."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from envs.craftax.drawing import BLOCK_COLORS, ITEM_COLORS, creature_color
from envs.craftax.words import BLOCK_NAMES
from envs.pictures import Cell, Picture, cells_picture, hex_color, ink_on

_BLOCK_LETTERS = "  .~#Tw_cidtf:!,%W mASRC&;'`YIEeNgggN"
"""By the library's number of the block."""

_ITEMS = (("", ""), ("*", "torch"), (">", "ladder down"), ("<", "ladder up"), ("]", "ladder down, closed"))
_PLAIN = frozenset({0, 1, 2, 18})
"""Blocks that need no words: nothing, the edge of the world, grass, darkness."""

_LOOKS = ("left", "right", "up", "down")

_LITTLE = 1e-3
"""Numbers below it are nothing."""

_ALWAYS = ("health", "food", "drink", "energy")
"""What is told even of nothing."""

_LEVELS = {"books": 2.0, "pickaxe": 4.0, "sword": 4.0, "helmet": 2.0, "chestplate": 2.0, "leggings": 2.0, "boots": 2.0}
_AS_IT_IS = (" enchantment", "bow", "light", "asleep", "resting", "knows ", "way down", "boss ")
_TENTHS = ("health", "food", "drink", "energy", "mana", "xp", "dexterity", "strength", "intelligence", "floor")


def creature_letters(names: Sequence[str]) -> tuple[str, ...]:
    """Returns two letters for each creature, all different: an upper-case one and one out of what follows it."""
    taken: dict[str, str] = {"": ""}
    for name in names:
        if name in taken:
            continue
        head, *rest = name.replace("of yours", "").split()
        wanted = [word[0] for word in rest] + list(head[1:]) + list("".join(rest)) + list("0123456789")
        taken[name] = next(text for letter in wanted if (text := head[0].upper() + letter) not in taken.values())
    return tuple(taken[name] for name in names)


def make_cell_of(num_items: int, mob_names: Sequence[str]) -> Callable[[int], Cell]:
    """Returns how a place is shown, from its code: `(block * num_items + item) * (1 + creatures) + creature`."""
    letters = creature_letters(mob_names)

    @lru_cache(maxsize=4096)
    def cell_of(code: int) -> Cell:
        rest, creature = divmod(code, 1 + len(mob_names))
        block, item = divmod(rest, num_items)
        ground = hex_color(BLOCK_COLORS[block])
        if creature:
            front = hex_color(creature_color(creature))
            return Cell(letters[creature - 1], ink_on(front), front, mob_names[creature - 1])
        if item:
            text, words = _ITEMS[item]
            return Cell(text, hex_color(ITEM_COLORS[item]), ground, words)
        words = "" if block in _PLAIN else BLOCK_NAMES[block].removeprefix("a ").removeprefix("an ")
        return Cell(_BLOCK_LETTERS[block], ink_on(ground), ground, words)

    return cell_of


def make_picture(
    *, num_items: int, mob_names: Sequence[str], status_names: Sequence[str]
) -> Callable[[Mapping[str, np.ndarray]], Picture]:
    """Returns the function from an observation to a picture.

    Args:
        status_names: of the numbers in `status`.
    """
    cell_of = make_cell_of(num_items, mob_names)
    roots = num_items > 1  # Craftax observes square roots of how many things there are, Craftax-Classic the numbers

    def picture(obs: Mapping[str, np.ndarray]) -> Picture:
        seen = obs["map"].astype(np.int32)
        item = seen[..., 1] if seen.shape[-1] > 2 else 0
        codes = (seen[..., 0] * num_items + item) * (1 + len(mob_names)) + seen[..., -1]
        status = dict(zip(status_names, obs["status"].tolist(), strict=True))
        looks = next((look for look in _LOOKS if status[f"facing {look}"] > 0), "")
        mark = (codes.shape[0] // 2, codes.shape[1] // 2, looks)
        return cells_picture(codes, cell_of, mark=mark, note=note(status, roots=roots))

    return picture


def note(status: Mapping[str, float], *, roots: bool) -> str:
    """Returns what the player has and how the player is, in words, from the numbers that are observed."""
    amounts = {name: _amount(name, value, roots=roots) for name, value in status.items() if "facing" not in name}
    return ", ".join(
        f"{name.replace('_', ' ')} {amount:.3g}"
        for name, amount in amounts.items()
        if name in _ALWAYS or abs(amount) > _LITTLE
    )


def _amount(name: str, value: float, *, roots: bool) -> float:
    """Turns an observed number into the game's own."""
    if name in _TENTHS:
        return value * 10.0
    if roots and name in _LEVELS:
        return value * _LEVELS[name]
    if any(part in name for part in _AS_IT_IS):
        return value
    return (value * 10.0) ** 2 if roots else value * 10.0
