"""How texts, numbers and times are shown on pages. Whatever a game or a model wrote is shown and never obeyed."""

import math
import unicodedata
from datetime import datetime

from markupsafe import Markup, escape

from llm_annotator.captions import decode_caption, is_printable, printable
from llm_annotator.types import LabelStatus

MAX_CAPTION_CHARS = 240
"""Characters of a caption in a table; its own page gives it whole."""

MAX_NAMED_CHARS = 0x2FFFF
"""Characters beyond it have no names worth looking for."""


def visible(text: str, *, keep_lines: bool = True) -> Markup:
    """Returns text as HTML: escaped, with every character that does not print written out and marked.

    keep_lines: leave line ends as they are.
    """
    if text.isprintable():
        return escape(text)
    parts: list[Markup] = []
    plain: list[str] = []
    for char in text:
        if (keep_lines and char == "\n") or is_printable(char):
            plain.append(char)
            continue
        parts += [escape("".join(plain)), _marked(char)]
        plain.clear()
    return Markup("").join([*parts, escape("".join(plain))])


def _marked(char: str) -> Markup:
    name = unicodedata.name(char, "") if ord(char) <= MAX_NAMED_CHARS else ""
    title = f"U+{ord(char):04X} {name}".strip()
    return Markup('<span class="ctl" title="{}">{}</span>').format(title, printable(char))


def caption_html(caption: bytes, *, whole: bool = False) -> Markup:
    """Returns a caption as HTML that keeps its direction of writing to itself, cut if it is long.

    whole: never cut, and with its line ends.
    """
    text = decode_caption(caption)
    if not whole and len(text) > MAX_CAPTION_CHARS:
        text = text[: MAX_CAPTION_CHARS - 1] + "…"
    return Markup("<bdi>{}</bdi>").format(visible(text, keep_lines=whole))


def caption_line(caption: bytes) -> str:
    """Returns a caption as one line of plain text that prints, for titles and names; cut if it is long."""
    return plain(decode_caption(caption))


def plain(text: str) -> str:
    """Returns text as one line of characters that print, where no element can stand: in titles, options, attributes."""
    line = printable(text)
    return line if len(line) <= MAX_CAPTION_CHARS else line[: MAX_CAPTION_CHARS - 1] + "…"


def label_word(status: LabelStatus | None, helpful: bool | None) -> str:
    """Returns what became of a caption in one word: helpful, unhelpful, unparsed, failed or unlabelled."""
    if status is None:
        return "unlabelled"
    if helpful is None:
        return str(status.value)
    return "helpful" if helpful else "unhelpful"


def count(number: float | None) -> str:
    """Returns a count with its thousands apart; "-" for None."""
    return "-" if number is None else f"{number:,.0f}"


def short(number: float | None) -> str:
    """Returns a number in a few characters: 950, 12.3k, 4.56M, 0.013; "-" for None."""
    if number is None:
        return "-"
    size = abs(number)
    for limit, unit, name in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if size >= limit:
            return f"{number / unit:.3g}{name}"
    if size >= 1000 or (float(number).is_integer() and size < 1000):
        return f"{number:.0f}"
    return f"{number:.3g}"


def reward(number: float | None) -> str:
    """Returns a reward with about three digits, so that those of one size stand below each other."""
    if number is None:
        return "-"
    if number == 0:
        return "0"
    return f"{number:,.1f}" if abs(number) >= 100 else f"{number:#.3g}"


def percent(share: float | None) -> str:
    """Returns a share in percent; never 0% or 100% for what is merely near."""
    if share is None:
        return "-"
    if 0 < share < 0.0005:
        return "<0.1%"
    if 0.9995 < share < 1:
        return ">99.9%"
    return f"{share:.1%}"


def percent_tick(share: float) -> str:
    """Returns a round share in percent, as an axis has it."""
    return f"{100 * share:.3g}%"


def probability(value: float | None) -> str:
    """Returns a probability with two digits."""
    return "-" if value is None else f"{value:.2f}"


def fine_probability(value: float) -> str:
    """Returns a probability with four digits; never 0 for what is merely near."""
    return "<0.0001" if 0 < value < 0.00005 else f"{value:.4f}"


def seconds(value: float | None) -> str:
    """Returns a duration: 85 ms, 3.2 s, 4 min, 2.5 h, 3 days."""
    if value is None:
        return "-"
    for limit, unit, name in ((1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if value < limit:
            number = value / unit
            return f"{number:.1f} {name}" if name in ("s", "h") and number < 10 else f"{number:.0f} {name}"
    return f"{value / 86_400:.0f} days"


def when(moment: float | None) -> str:
    """Returns a moment, given in seconds since 1970, in local time."""
    if moment is None or not math.isfinite(moment):
        return "-"
    return datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def iso(moment: float) -> str:
    """Returns a moment as programs read it."""
    return datetime.fromtimestamp(moment).astimezone().isoformat(timespec="seconds")


def plural(number: int, one: str, many: str | None = None) -> str:
    """Returns a number with its noun: 1 caption, 2 captions."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
