"""What the game asks and how an agent with some two dozen actions answers it.

The rule, the same for every command:

| the game asks | answered by |
|---|---|
| for a direction | the eight compass actions, `up`, `down`, `wait` (here, or oneself) |
| for an item, or a line of a menu | the n-th one offered: `north` is the first, then in the order of the actions up to `northwest`, the eighth; `far north` is the ninth, and so on; `more` is the first too |
| yes or no | `northwest` (its key is y) is yes, `southeast` (its key is n) is no |
| for a place on the map | the compass moves the cursor, far by eight squares, `wait` chooses it |

Every other action declines. Only what one of the commands that ask (`actions.ASKING`) brought up waits for an answer, and
whether to attack a peaceful monster, as in NLE; the rest is declined at once. So are requests for a line of text.
"""  # noqa: E501 - a table

import re
from enum import Enum
from typing import NamedTuple

from envs.nethack.actions import COMPASS_KEYS, ESC, FAR_KEYS, MORE, VERTICAL_KEYS, WAIT

_ITEMS = re.compile(rb"\[([^\]]*?) or \?\*\]")
_YES_NO = re.compile(rb"\[y[a-z#]*\]")
_RANGE = re.compile(rb"([a-zA-Z])-([a-zA-Z])")
_OPTION = re.compile(rb"([a-zA-Z$]) - ")
_MARKER = re.compile(rb"\(end\)|\(\d+ of \d+\)|--More--")

# How NetHack's getpos() begins; nothing in NLE's flags tells that the game waits for a place.
PLACE_HINT = b"(For instructions type a '?')"


class Kind(Enum):
    """What sort of answer is wanted."""

    DIRECTION = "direction"
    CHOICE = "choice"
    YES_NO = "yes or no"
    PLACE = "place"


class Prompt(NamedTuple):
    """A question that waits for the agent. choices: keys of what is offered, in order."""

    kind: Kind
    text: bytes
    choices: bytes = b""


def read_question(text: bytes) -> Prompt | None:
    """Understands a question that wants one key, None if the actions cannot answer it."""
    if b"direction?" in text:
        return Prompt(Kind.DIRECTION, text)
    if items := _ITEMS.search(text):
        return Prompt(Kind.CHOICE, text, _spell_out(items[1]))
    if _YES_NO.search(text):
        return Prompt(Kind.YES_NO, text)
    return None


def _spell_out(letters: bytes) -> bytes:
    """Letters of a prompt such as `$a-cf`, ranges written out; the dash of bare hands is dropped."""
    full = _RANGE.sub(lambda match: bytes(range(match[1][0], match[2][0] + 1)), letters)
    return bytes(key for key in full if key not in b" -")


def read_menu(lines: list[bytes]) -> bytes:
    """Keys of the lines that can be chosen in a window, empty if it is only text."""
    return b"".join(match[1] for line in lines if (match := _OPTION.match(line)))


_NTH = {key: n for n, key in enumerate((*COMPASS_KEYS, *FAR_KEYS))} | {MORE: 0}
_DIRECTION_KEYS = frozenset((*COMPASS_KEYS, *VERTICAL_KEYS))
_PLACE_KEYS = frozenset((*COMPASS_KEYS, *FAR_KEYS, *VERTICAL_KEYS))


def answer(prompt: Prompt, key: int) -> int:
    """Translates the key of an action into the key that answers a prompt; ESC declines."""
    if prompt.kind is Kind.CHOICE:
        nth = _NTH.get(key, len(prompt.choices))
        return prompt.choices[nth] if nth < len(prompt.choices) else ESC
    if prompt.kind is Kind.YES_NO:
        return key if key in b"yn" else ESC
    allowed = _DIRECTION_KEYS if prompt.kind is Kind.DIRECTION else _PLACE_KEYS
    return key if key in allowed else ESC


def still_open(prompt: Prompt, key: int) -> bool:
    """Whether a prompt goes on after an answer although no flag says so: the cursor is still being moved."""
    return prompt.kind is Kind.PLACE and key not in (WAIT, ESC)


def window_lines(screen: list[bytes], cursor_row: int) -> list[bytes]:
    """Reads the text window that ends at the cursor off the terminal.

    NetHack draws it over the right part of the screen, or all of it, and closes it with `(end)`, `(1 of 2)` or
    `--More--` in the column where its lines begin.

    Returns:
        Its lines without blanks around and inside, empty if there is no window.
    """
    markers = list(_MARKER.finditer(screen[cursor_row]))
    if not markers:
        return []
    left = markers[-1].start() if markers[-1].start() > 1 else 0
    lines = (b" ".join(row[left:].split()) for row in screen[:cursor_row])
    return [line for line in lines if line]
