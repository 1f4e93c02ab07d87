"""Actions of MiniHack's tasks: names for NetHack's keys, and what waits for an answer."""

from collections.abc import Sequence

from envs.nethack.actions import ASKING, COMPASS_KEYS, EAT, FAR_KEYS, KICK, MORE, PICK_UP, PRAY, QUAFF, Action

APPLY, OPEN, CLOSE, ZAP = ord("a"), ord("o"), ord("c"), ord("z")
WEAR, WIELD, PUT_ON, READ = ord("W"), ord("w"), ord("P"), ord("r")
FIRE, THROW, FORCE, REMOVE, TAKE_OFF = ord("f"), ord("t"), 0x80 | ord("f"), ord("R"), ord("T")
YES = COMPASS_KEYS[-1]  # y, the key of northwest

ASKING_HERE = ASKING | {APPLY, OPEN, CLOSE, ZAP, WEAR, WIELD, PUT_ON, READ, FIRE, THROW, FORCE, REMOVE, TAKE_OFF}
"""Commands whose questions are left to the agent: those of `envs.nethack` and what the skill tasks teach."""

_COMPASS = ("north", "east", "south", "west", "northeast", "southeast", "southwest", "northwest")
_NAMES = {
    **dict(zip(COMPASS_KEYS, _COMPASS, strict=True)),
    **dict(zip(FAR_KEYS, (f"far {name}" for name in _COMPASS), strict=True)),
    MORE: "more",
    ord("."): "wait",
    ord("s"): "search",
    ord("<"): "up",
    ord(">"): "down",
    APPLY: "apply",
    CLOSE: "close",
    EAT: "eat",
    FIRE: "fire",
    FORCE: "force",
    KICK: "kick",
    OPEN: "open",
    PICK_UP: "pick up",
    PRAY: "pray",
    PUT_ON: "put on",
    QUAFF: "quaff",
    READ: "read",
    REMOVE: "remove",
    TAKE_OFF: "take off",
    THROW: "throw",
    WEAR: "wear",
    WIELD: "wield",
    ZAP: "zap",
}

SKILLS: tuple[int, ...] = (
    MORE,
    *COMPASS_KEYS,
    ord("s"),
    APPLY,
    EAT,
    FORCE,
    KICK,
    OPEN,
    PICK_UP,
    PRAY,
    PUT_ON,
    QUAFF,
    READ,
    REMOVE,
    TAKE_OFF,
    THROW,
    WEAR,
    WIELD,
    ZAP,
)
"""Keys of the tasks that the library gives all 80 or so of NetHack: those that its levels can be solved with."""


def actions_of(keys: Sequence[int]) -> tuple[Action, ...]:
    """Names the keys of a task, `SKILLS` if there are none."""
    return tuple(Action(_NAMES.get(key, f"key {key}"), key) for key in keys or SKILLS)
