r"""Captions made of several sentences, taken apart, and the labels of their parts put together again. Pure functions.

"You kill the newt!  It's a wall." says two things, and each of them comes up in many other captions. A labeler with
`parts: sentences` is asked about each sentence once, and a caption is worth what its best sentence is worth.

A labeler's id holds the name of its mode, so a change of these rules that changes what is asked needs a new name.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from llm_annotator.types import LabelStatus

PartsMode = Literal["none", "sentences"]

Split = Callable[[Any], tuple[Any, ...]]
"""Returns what is asked about instead of a caption: at least one part; the caption alone if it is asked whole, as every
other subject is."""

MAX_PARTS = 16
"""A caption of more sentences than this is asked whole. NetHack's longest captions, of 1,024 bytes, have about 20."""

# What ends a sentence, with what closes behind it, and NetHack's choices: "Continue eating? [yn] (n)".
_END = rb"""[.!?]["')\]]*(?: \[[^\[\]]*\](?: \([^()]*\))?)?"""
_GAP = rb"(?:\s{2}|\s*[\r\n])"
_WIDE = re.compile(_END + rb"(?=" + _GAP + rb")")
_NARROW = re.compile(_END + rb"(?= [\"'(]?[A-Z])")
_HAS_GAP = re.compile(_GAP)
# A full stop that ends no sentence, where one space follows.
_ABBREVIATION = re.compile(rb"(?:\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|St|Jr|Sr|Prof|Capt|Lt|vs|etc|e\.g|i\.e)\.|\.\.)[\"')\]]*$")
_LONGEST_END = 24
"""Bytes before a boundary that are searched for an abbreviation."""

# "Mission: open the door. You stand before a key." The second sentence means little without the first.
_HEADING = re.compile(rb"\s*[A-Z][a-z]+: ")
# A list of what lies there ends without a full stop; what follows begins with a capital letter.
_LIST = re.compile(rb"((?:Other t|T)hings that are here:.*?)\s\s(?=[\"A-Z])", re.DOTALL)

_ITEM = rb"(?:^|(?<=\s\s)|(?<=\n))"
# What varies without meaning, and what it is replaced by. Zero, one and the sign of a number stay: those do mean
# something, and so do levels, names, and what an item looks like. The values were chosen from a few for scores of the
# default LLM in the middle of those for the others (with the goal `nethack`, "a - 7 darts." and "k - 7 darts." are 0.6
# nats apart).
_VARYING: tuple[tuple[re.Pattern[bytes], bytes], ...] = (
    # the letter of an item in the inventory or a menu: "k - a dagger."; gold is always "$ - "
    (re.compile(_ITEM + rb"[a-zA-Z] - "), b"d - "),
    # the letters to choose from: "What do you want to eat? [hi or ?*]"
    (re.compile(rb"\[[^\[\]]* or \?\*\]"), b"[fgh or ?*]"),
    (re.compile(rb"(?<![\w.+-])(?:[2-9]|[1-9]\d+) gold pieces\b"), b"60 gold pieces"),
    (re.compile(rb"(?<![\w.+-])(?:[2-9]|[1-9]\d+) zorkmids\b"), b"100 zorkmids"),
    (re.compile(rb"\b(?:[2-9]|[1-9]\d+) ((?:points of )?damage)\b"), rb"5 \1"),
    # how many of an item: in the inventory, in a list, on the floor, in total
    (re.compile(rb"(?<=d - )(?:[2-9]|[1-9]\d+) (?=[a-z])"), b"12 "),
    (re.compile(rb"(?<=  )(?:[2-9]|[1-9]\d+) (?=[a-z])"), b"12 "),
    (re.compile(rb"\b((?:You|you) (?:see|feel) here |picks up )(?:[2-9]|[1-9]\d+) (?=[a-z])"), rb"\g<1>12 "),
    (re.compile(rb"\b(There are )(?:[2-9]|[1-9]\d+) (?=[a-z][^.!?]{0,99} here\b)"), rb"\g<1>12 "),
    (re.compile(rb"\((?:[2-9]|[1-9]\d+) in total\)"), b"(12 in total)"),
    # how often a wand was recharged, and its charges: "(1:12)"
    (re.compile(rb"\(\d+:[1-9]\d*\)"), b"(0:4)"),
)


class PartLabel(NamedTuple):
    """The label in force of one part; the fields are those of `Judgement`.

    by_person: a person gave it; there is no probability then.
    """

    status: LabelStatus
    helpful: bool | None
    p_helpful: float | None
    score: float | None
    by_person: bool = False


class Combined(NamedTuple):
    """What the labels of its parts come to for a caption.

    position: the part that decided, counted from 0; without a label, the first part that has none.
    """

    status: LabelStatus
    helpful: bool | None
    p_helpful: float | None
    score: float | None
    position: int


def splitter(mode: PartsMode) -> Split:
    """Returns how captions are taken apart: not at all, or into sentences."""
    return _SPLITS[mode]


def sentences(caption: bytes) -> tuple[bytes, ...]:
    """Returns the sentences of a caption, each once, in their order and in canonical form.

    A sentence ends with ".", "!" or "?" before two spaces or a line end, as NetHack writes and as its pages are joined;
    where nothing in it has two spaces, one space before a capital letter is enough. Kept whole are quoted speech,
    abbreviations and initials, numbers, lists ("Things that are here:  a dart  2 rocks"), what a fortune cookie reads,
    and captions that begin with a heading ("Mission: ..."). When in doubt nothing is taken apart.

    The caption itself is returned alone if it has no sentence or more than `MAX_PARTS`. A part is a caption that is
    its own only part, so its label is the one that a caption of this sentence alone has. Any bytes will do.
    """
    parts = _step(caption)
    if len(parts) > MAX_PARTS:
        return (caption,)
    parts = tuple(dict.fromkeys(parts))
    # Only odd bytes fail this, such as a quotation mark among the letters to choose from.
    stable = all(_step(part) == (part,) for part in parts)
    return parts if parts and stable else (caption,)


def canonical(sentence: bytes) -> bytes:
    """Returns a sentence with what varies without meaning put to one value: letters of items, amounts, prices.

    Levels, names, "not", and whether a number is zero, one or negative are left as they are.
    """
    for pattern, replacement in _VARYING:
        sentence = pattern.sub(replacement, sentence)
    return sentence


def combine(parts: Sequence[PartLabel | None]) -> Combined | None:
    """Returns what the labels of all parts, None where there is none yet, come to; None while that is not decided.

    Helpful if any part is; without a label as long as none is helpful and one has none; else unhelpful. The caption
    gets the score and the probability of its best part. The maximum, and not the probability that at least one part is
    helpful were they independent (1 - prod(1 - p)): that one grows with every sentence about a wall, while a maximum
    stays above the labeler's threshold if and only if a part is helpful. A person's "helpful" beats every score, a
    person's "unhelpful" counts below every score; neither has one.
    """
    labelled = [
        (part, position) for position, part in enumerate(parts) if part is not None and part.helpful is not None
    ]
    best = max(labelled, key=lambda item: (*_worth(item[0]), -item[1]), default=None)
    if best is not None and (best[0].helpful or len(labelled) == len(parts)):
        part, position = best
        return Combined(LabelStatus.LABELLED, part.helpful, part.p_helpful, part.score, position)
    statuses = [part.status for part in parts if part is not None]
    if len(statuses) < len(parts):
        return None
    status = LabelStatus.FAILED if LabelStatus.FAILED in statuses else LabelStatus.UNPARSED
    missing = next(position for position, part in enumerate(parts) if part is not None and part.helpful is None)
    return Combined(status, None, None, None, missing)


def _worth(part: PartLabel) -> tuple[bool, bool, float]:
    score = float("-inf") if part.score is None else part.score
    return bool(part.helpful), part.by_person == part.helpful, score


def _whole(subject: Any) -> tuple[Any, ...]:
    return (subject,)


def _step(caption: bytes) -> tuple[bytes, ...]:
    return tuple(canonical(piece) for piece in _pieces(caption.strip()))


def _pieces(text: bytes) -> list[bytes]:
    """Returns what a text without white space around it consists of, nothing for an empty one."""
    if not text:
        return []
    if _HEADING.match(text):
        return [text]
    if not _HAS_GAP.search(text):
        return _cut(text, _NARROW)
    pieces = _cut(text, _WIDE)
    if len(pieces) == 1:
        listing = _LIST.match(text)
        return [listing[1].strip(), *_pieces(text[listing.end() :])] if listing else pieces
    return [sentence for piece in pieces for sentence in _pieces(piece)]


def _cut(text: bytes, boundary: re.Pattern[bytes]) -> list[bytes]:
    """Returns the text cut at boundaries outside of quotation marks, into little more than `MAX_PARTS` pieces."""
    pieces: list[bytes] = []
    start = looked = 0
    quoted = False
    for match in boundary.finditer(text):
        end = match.end()
        quoted ^= text.count(b'"', looked, end) % 2 == 1
        looked = end
        ends_no_sentence = boundary is _NARROW and _ABBREVIATION.search(text[max(start, end - _LONGEST_END) : end])
        if quoted or ends_no_sentence:
            continue
        pieces.append(text[start:end].strip())
        start = end
        if len(pieces) > MAX_PARTS:
            break
    return [piece for piece in (*pieces, text[start:].strip()) if piece]


_SPLITS: dict[PartsMode, Split] = {"none": _whole, "sentences": sentences}

PARTS_MODES: tuple[PartsMode, ...] = tuple(_SPLITS)
"""What `annotator.labeler.parts` may be."""
