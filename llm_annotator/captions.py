"""How a caption, which may be any bytes, is shown to a model."""

import re
import unicodedata

# CSI sequences (colours, cursor moves), OSC sequences (window titles, links), and two-byte escapes.
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_SPACES = re.compile(r"[\s\u2028\u2029]+")
# Chat templates mark turns with <|...|> and with the words below; model servers read those as control tokens wherever
# they stand in a prompt. Whole runs of brackets go, so that what is left cannot make up a token again.
_CONTROL_BRACKETS = re.compile(r"<+(?=[|\uff5c])|(?<=[|\uff5c])>+")
_CONTROL_WORD = re.compile(
    r"<(?=/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn)>)"  # Llama 2, Mistral, Gemma
    r"|<(?=</?SYS>>)"  # Llama 2
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])"  # Llama 2, Mistral
)
# Unicode categories that do not print, or that reorder what is printed around them.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
# The same, and those that end a line.
_UNPRINTABLE = _INVISIBLE | {"Zl", "Zp"}


def decode_caption(caption: bytes) -> str:
    """Returns the caption as text: UTF-8 where it is that, else latin-1, which never fails."""
    try:
        return caption.decode("utf-8")
    except UnicodeDecodeError:
        return caption.decode("latin-1")


def is_printable(char: str) -> bool:
    """Returns whether a character shows itself, ends no line and leaves those around it in their order."""
    return unicodedata.category(char) not in _UNPRINTABLE


def printable(text: str, *, keep_lines: bool = False) -> str:
    r"""Returns `text` with every character that does not print written as an escape: `\x1b`, `\u202e`, `\n`.

    keep_lines: leave line ends as they are.
    """
    return "".join(
        char if (keep_lines and char == "\n") or is_printable(char) else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def render_caption(caption: bytes, *, max_chars: int) -> str:
    r"""Returns the caption as one printable line of at most `max_chars` characters, fit to stand inside a prompt.

    ANSI sequences are dropped, white space (line ends too) becomes single spaces, other characters that do not print
    are written out as `\x07` or `\u202e`, chat control tokens such as `<|im_end|>` lose their brackets, and those such
    as `</s>` or `[INST]` get a space inside, so that no caption can end its line or its turn. What is too long ends
    in "...".
    """
    text = _ANSI.sub("", decode_caption(caption))
    text = _SPACES.sub(" ", text).strip()
    text = _CONTROL_BRACKETS.sub("", text)
    text = _CONTROL_WORD.sub(r"\g<0> ", text)
    text = "".join(_escape(char) if unicodedata.category(char) in _INVISIBLE else char for char in text)
    return text if len(text) <= max_chars else text[: max_chars - 3] + "..."


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
