"""What an action did in MiniGrid, told from what the agent sees before and after it.

The agent stands at the bottom centre of its view and sees there what it carries; it looks up. All that an action can
do, it does to the square in front and to what is carried, both of which are always in view.
"""

from typing import NamedTuple

import numpy as np

LEFT, RIGHT, FORWARD, PICK_UP, DROP, TOGGLE, DONE = range(7)
ACTION_NAMES = ("turn left", "turn right", "forward", "pick up", "drop", "toggle", "done")

# As minigrid.core.constants has them: places in the first, second and third channel.
OBJECTS = ("unseen", "empty", "wall", "floor", "door", "key", "ball", "box", "goal", "lava", "agent")
COLORS = ("red", "green", "blue", "purple", "yellow", "grey")
STATES = ("open", "closed", "locked")
_EMPTY, _DOOR, _KEY, _BALL, _BOX, _GOAL, _LAVA = 1, 4, 5, 6, 7, 8, 9
_THINGS = (_KEY, _BALL, _BOX)
_OPEN, _CLOSED, _LOCKED = range(3)

Cell = list[int]
"""Object, colour and state of a square."""


class Sight(NamedTuple):
    """What matters of a view: the square in front, and the agent's own, where what it carries is seen."""

    front: Cell
    held: Cell


def sights(image: np.ndarray) -> list[Sight]:
    """Returns what each of N agents has before it, from `uint8[N, view, view, 3]` (column, row, channel)."""
    middle, bottom = image.shape[1] // 2, image.shape[2] - 1
    front, held = image[:, middle, bottom - 1].tolist(), image[:, middle, bottom].tolist()
    return [Sight(*pair) for pair in zip(front, held, strict=True)]


def _name(cell: Cell) -> str:
    return f"{COLORS[cell[1]]} {OBJECTS[cell[0]]}"


def _is_thing(cell: Cell) -> bool:
    return cell[0] in _THINGS


def describe(before: Sight, after: Sight, action: int, *, facing: bool) -> str:
    """Says what an action did that did not end the episode for good, "" for nothing worth saying.

    Args:
        facing: also say what the agent comes to stand before.
    """
    if action == PICK_UP:
        return f"You pick up the {_name(after.held)}." if _is_thing(after.held) and before.held != after.held else ""
    if action == DROP:
        return f"You put down the {_name(before.held)}." if _is_thing(before.held) and before.held != after.held else ""
    if action == TOGGLE:
        return _toggled(before.front, after.front)
    if facing and after.front != before.front and (_is_thing(after.front) or after.front[0] == _DOOR):
        return f"You stand before the {_with_state(after.front)}."
    return ""


def _with_state(cell: Cell) -> str:
    return f"{STATES[cell[2]]} {_name(cell)}" if cell[0] == _DOOR else _name(cell)


def _toggled(before: Cell, after: Cell) -> str:
    if before == after:
        return ""
    if before[0] == _BOX:
        found = f" and find the {_name(after)} in it" if _is_thing(after) else ", which is empty"
        return f"You open the {_name(before)}{found}."
    if before[0] == _DOOR and after[0] == _DOOR:
        if after[2] != _OPEN:
            return f"You close the {_name(after)}."
        return f"You {'unlock' if before[2] == _LOCKED else 'open'} the {_name(after)}."
    return ""


def ending(before: Sight, action: int, *, won: bool) -> str:
    """Says how an episode ended for good."""
    if won:
        return (
            f"You reach the {_name(before.front)}." if _enters(before, action, _GOAL) else "You complete the mission."
        )
    if _enters(before, action, _LAVA):
        return "You walk into the lava."
    if action == FORWARD and before.front[0] != _EMPTY and before.front[0] != _GOAL:
        return f"You run into the {_name(before.front)}."
    return "You fail the mission."


def _enters(before: Sight, action: int, what: int) -> bool:
    return action == FORWARD and before.front[0] == what


class Narrator:
    """Captions for MiniGrid: what was done, after the mission, without which it cannot be judged.

    with_mission: each caption begins with "Mission: ..."; every mission then has captions of its own.
    facing: as in `describe`.
    """

    def __init__(self, *, with_mission: bool, facing: bool) -> None:
        self._with_mission = with_mission
        self._facing = facing

    def say(
        self,
        before: dict[str, np.ndarray],
        after: dict[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
    ) -> list[bytes]:
        """Returns the captions of N agents, from raw observations `[N, ...]` before and after their actions."""
        captions: list[bytes] = []
        rows = zip(
            sights(before["image"]),
            sights(after["image"]),
            action.tolist(),
            reward.tolist(),
            terminated.tolist(),
            strict=True,
        )
        for row, (seen, sees, did, paid, over) in enumerate(rows):
            said = describe(seen, sees, did, facing=self._facing and not over)
            if over:
                said = f"{said} {ending(seen, did, won=paid > 0)}".strip()
            captions.append(self._with(before["mission"][row], said) if said else b"")
        return captions

    def _with(self, mission: np.ndarray, said: str) -> bytes:
        text = said.encode()
        return b"Mission: " + mission_text(mission) + b". " + text if self._with_mission else text


def mission_text(mission: np.ndarray) -> bytes:
    """Returns the bytes of a mission without the zeros after it."""
    return mission.tobytes().partition(b"\0")[0]
