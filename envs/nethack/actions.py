"""Actions of the NetHack tasks: which key each one presses and what it is called.

`task` are the 23 actions of NLE's tasks (`nle.env.tasks.TASK_ACTIONS`), in its order; `extended` adds five commands
that mostly ask something before they act. The keys are NetHack's own (`nle.nethack.actions`), written out so
that nothing has to be imported to know the action space.
"""

from typing import NamedTuple

from envs.errors import EnvError

ESC = 27
SPACE = ord(" ")
RETURN = ord("\r")
MORE = RETURN
WAIT = ord(".")
DOWN = ord(">")
KICK = 0x1F & ord("d")
EAT = ord("e")
CAST = ord("Z")
QUAFF = ord("q")
PRAY = 0x80 | ord("p")
PICK_UP = ord(",")
PAY = ord("p")

_COMPASS = ("north", "east", "south", "west", "northeast", "southeast", "southwest", "northwest")
COMPASS_KEYS = tuple(map(ord, "kljhunby"))
FAR_KEYS = tuple(map(ord, "KLJHUNBY"))
VERTICAL_KEYS = (ord("<"), DOWN, WAIT)

# Commands that ask something before they act. What they ask is left to the agent, other questions are declined.
ASKING = frozenset({KICK, EAT, CAST, QUAFF, PRAY, PICK_UP, PAY})


class Action(NamedTuple):
    """One action of the agent and the key it presses."""

    name: str
    key: int


TASK_ACTIONS: tuple[Action, ...] = (
    Action("more", MORE),
    *(Action(name, key) for name, key in zip(_COMPASS, COMPASS_KEYS, strict=True)),
    *(Action(f"far {name}", key) for name, key in zip(_COMPASS, FAR_KEYS, strict=True)),
    Action("up", ord("<")),
    Action("down", DOWN),
    Action("wait", WAIT),
    Action("kick", KICK),
    Action("eat", EAT),
    Action("search", ord("s")),
)

EXTENDED_ACTIONS: tuple[Action, ...] = (
    *TASK_ACTIONS,
    Action("cast", CAST),
    Action("quaff", QUAFF),
    Action("pray", PRAY),
    Action("pick up", PICK_UP),
    Action("pay", PAY),
)

ACTION_SETS: dict[str, tuple[Action, ...]] = {"task": TASK_ACTIONS, "extended": EXTENDED_ACTIONS}


def action_set(name: str) -> tuple[Action, ...]:
    """Looks up a set of actions.

    Raises:
        EnvError: there is no such set.
    """
    if name not in ACTION_SETS:
        raise EnvError(f"actions is {name!r}, expected one of: {', '.join(ACTION_SETS)}")
    return ACTION_SETS[name]
