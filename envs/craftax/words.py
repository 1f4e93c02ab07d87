"""The sentences of both games. Numbers of blocks are the library's, of which Craftax-Classic has the first 17."""

from collections.abc import Mapping

BLOCK_NAMES = (
    *("nothing", "the edge of the world", "grass", "water", "stone", "a tree", "wood", "a path", "coal", "iron"),
    *("a diamond", "a crafting table", "a furnace", "sand", "lava", "a sapling", "a ripe plant", "a wall", "darkness"),
    *("a mossy wall", "a stalagmite", "a sapphire", "a ruby", "a chest", "a fountain", "burnt grass", "icy grass"),
    *("gravel", "a burning tree", "an icy shrub", "an enchantment table of fire", "an enchantment table of ice"),
    *("the necromancer", "a grave", "a grave", "a grave", "the necromancer"),
)

OUT_OF_BOUNDS, GRASS, WATER, LAVA, CHEST, FOUNTAIN, NECROMANCER = 1, 2, 3, 14, 23, 24, 32

TAKE: Mapping[int, str] = {
    GRASS: "You collect a sapling.",
    WATER: "You drink water.",
    4: "You collect stone.",
    5: "You collect wood.",
    8: "You collect coal.",
    9: "You collect iron.",
    10: "You collect a diamond.",
    11: "You take down the crafting table.",
    12: "You take down the furnace.",
    16: "You eat a ripe plant.",
    20: "You collect stone.",
    21: "You collect a sapphire.",
    22: "You collect a ruby.",
    CHEST: "You open a chest",
    FOUNTAIN: "You drink from a fountain.",
    28: "You collect wood.",
    29: "You collect wood.",
    NECROMANCER: "You wound the necromancer.",
}
"""What the action `do` does to a block in front of the player."""

LOOT = (
    *("torches", "coal", "iron", "a diamond", "a sapphire", "a ruby", "arrows", "a pickaxe", "a sword", "a bow"),
    *("a book", "a potion"),
)
"""What a chest can hold, in the order of the bits of `Game.loot`."""

EATEN = ("cow", "bat", "snail")

FLOORS = (
    *("the overworld", "the dungeon", "the gnomish mines", "the sewers", "the vaults", "the troll mines"),
    *("the fire realm", "the ice realm", "the graveyard"),
)

DEEDS: Mapping[str, tuple[str, str]] = {
    "place stone": ("stone", "You place a stone."),
    "place table": ("wood", "You place a crafting table."),
    "place furnace": ("stone", "You place a furnace."),
    "place plant": ("sapling", "You plant a sapling."),
    "make wood pickaxe": ("wood", "You make a wooden pickaxe."),
    "make stone pickaxe": ("wood", "You make a stone pickaxe."),
    "make iron pickaxe": ("wood", "You make an iron pickaxe."),
    "make wood sword": ("wood", "You make a wooden sword."),
    "make stone sword": ("wood", "You make a stone sword."),
    "make iron sword": ("wood", "You make an iron sword."),
    "make diamond pickaxe": ("diamond", "You make a diamond pickaxe."),
    "make diamond sword": ("diamond", "You make a diamond sword."),
    "make iron armour": ("iron", "You make a piece of iron armour."),
    "make diamond armour": ("diamond", "You make a piece of diamond armour."),
    "make arrow": ("wood", "You make arrows."),
    "make torch": ("wood", "You make torches."),
    "place torch": ("torches", "You place a torch."),
    "shoot arrow": ("arrows", "You shoot an arrow."),
    "cast fireball": ("mana", "You cast a fireball."),
    "cast iceball": ("mana", "You cast an iceball."),
    "read book": ("books", "You read a book"),
    "enchant sword": ("mana", "You enchant your sword."),
    "enchant armour": ("mana", "You enchant your armour."),
    "enchant bow": ("mana", "You enchant your bow."),
    "level up dexterity": ("xp", "You become more dexterous."),
    "level up strength": ("xp", "You become stronger."),
    "level up intelligence": ("xp", "You become more intelligent."),
    **{
        f"drink potion {color}": (f"{color} potion", f"You drink the {color} potion")
        for color in ("red", "green", "blue", "pink", "cyan", "yellow")
    },
}
"""For an action: what it uses up, which tells that it worked, and what is said then."""

POTION_EFFECTS = (
    *(" and feel much healthier.", " and feel sick.", " and feel full of magic.", " and feel drained of magic."),
    *(" and feel wide awake.", " and feel drowsy."),
)
"""In the order of the library's effects."""

SPELLS = (" and learn to cast fireballs.", " and learn to cast iceballs.")

LOW = 3
"""Points of food, drink, energy or health (of 9 at the start) from which on the player complains."""

VITALS = (
    ("You are hungry.", "You are starving."),
    ("You are thirsty.", "You are dying of thirst."),
    ("You are tired.", "You are exhausted."),
)
"""Of food, drink and energy: said when the value falls to `LOW` or less, and when it falls to 0."""


def article(name: str) -> str:
    """Returns "a zombie" or "an orc mage"."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
