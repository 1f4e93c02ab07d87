"""The forms of an answer: how it is written, how a server is bound to it, and how it is read.

`choice`: one of two words. `reasoned`: thoughts, then the final field on its own line, `Answer: yes`. A server that
takes JSON schemas alone is bound to {"answer": "yes"} and {"thoughts": "...", "answer": "yes"}, which are read alike.
Only the final field counts: a word or a field inside the thoughts is never read.

A server that is bound writes its thoughts on one line: free to write more lines, a small model answers, thinks on, and
answers otherwise (SmolLM2-135M did so every time).
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

FIELD = "Answer"
"""Name of the final field; prompts ask for it."""

ASKED_AGAIN = "=== asked again ==="
"""Stands in a kept answer between the first one, which could not be read, and the second question."""
ANSWERED = "=== answered ==="
"""Stands before the second answer."""
CUT = "=== cut ==="
"""Ends a kept answer that reached the limit of tokens."""

_CHARS_PER_TOKEN = 3.5
"""English text; thoughts are bounded so that the final field fits into the tokens that are left."""
_FIELD_TOKENS = 8

_THINKING = re.compile(r".*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_OPEN_THINKING = re.compile(r"\s*<think(?:ing)?>", re.IGNORECASE)
_DECORATION = " \t\r*_`\"'>#.!"
"""What models put around a field: Markdown, quotes, a full stop."""
_ESCAPED_SPACE = "\\ "
_FIRST_WORD = re.compile(r"[^\w]*(\w+)\b(?![^\S\n]+\w)")
"""Not one that a sentence goes on from: "No idea" is no no."""


class Form(NamedTuple):
    """The form that one answer shall have, for servers that can be bound to it.

    lead: stands before the word of `choice`: a space where the answer goes on with a plain text, whose next token
        begins with one.
    """

    words: tuple[str, ...]
    reasoned: bool
    max_tokens: int
    lead: str = ""

    def choices(self) -> list[str]:
        """Returns all answers of the form `choice`."""
        return [self.lead + word for word in self.words]

    def regex(self) -> str:
        """Returns the form as a regular expression for the whole answer."""
        if not self.reasoned:
            return _either(self.choices())
        return rf"[^\n]{{1,{self._thought_chars()}}}\n{FIELD}: {_either(self.words)}"

    def grammar(self) -> str:
        """Returns the form in llama.cpp's grammar language (GBNF)."""
        if not self.reasoned:
            return f"root ::= {_quoted(self.choices())}"
        thoughts = rf"[^\n]{{1,{self._thought_chars()}}}"
        return f'root ::= {thoughts} "\\n{FIELD}: " word\nword ::= {_quoted(self.words)}'

    def json_schema(self) -> dict[str, Any]:
        """Returns the form as a JSON schema; strict, and without bounds of length, which not every server takes."""
        properties: dict[str, Any] = {"thoughts": {"type": "string"}} if self.reasoned else {}
        properties["answer"] = {"type": "string", "enum": list(self.words)}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def _thought_chars(self) -> int:
        return max(1, int((self.max_tokens - _FIELD_TOKENS) * _CHARS_PER_TOKEN))


def _either(texts: Sequence[str]) -> str:
    """Returns a regular expression for one of the texts; not every engine takes an escaped space."""
    return f"({'|'.join(re.escape(text).replace(_ESCAPED_SPACE, ' ') for text in texts)})"


def _quoted(texts: Sequence[str]) -> str:
    return " | ".join(json.dumps(text, ensure_ascii=False) for text in texts)


def final_line(word: str) -> str:
    """Returns the final field as a model is to write it."""
    return f"{FIELD}: {word}"


def after_thinking(text: str) -> str:
    """Returns what follows a model's thinking in <think> tags; nothing if the thinking does not end."""
    match = _THINKING.match(text)
    rest = text[match.end() :] if match else text
    return "" if _OPEN_THINKING.match(rest) else rest


def read_choice(text: str, words: Sequence[str]) -> str | None:
    """Returns the word that an answer of the form `choice` begins with, None if it is neither.

    What follows may be a line end or a mark ("No, because ..."), not another word ("No idea").
    """
    text = after_thinking(text)
    found = _json_answer(text)
    if found is None:
        match = _FIRST_WORD.match(text)
        found = match[1] if match else ""
    return _one_of(found, words)


def read_final(text: str, words: Sequence[str]) -> str | None:
    """Returns the word in the final field of an answer of the form `reasoned`, None if it cannot be read.

    The field is the last line that is not empty, or "answer" of a JSON object that is the whole answer. Of an answer
    that was asked for twice the second one counts.
    """
    text = after_thinking(text.rpartition(ANSWERED)[2]).rstrip()
    found = _json_answer(text)
    if found is None:
        name, _, value = text[text.rfind("\n") + 1 :].partition(":")
        found = value.strip(_DECORATION) if name.strip(_DECORATION).casefold() == FIELD.casefold() else ""
    return _one_of(found, words)


def is_exactly(text: str, words: Sequence[str]) -> bool:
    """Returns whether an answer of the form `choice` is one of the words and nothing else."""
    text = after_thinking(text).strip()
    found = _json_answer(text)
    return (text if found is None else found).casefold() in {word.casefold() for word in words}


def _json_answer(text: str) -> str | None:
    """Returns "answer" of the JSON object that the text is, None if it is none."""
    body = text.strip()
    if body.startswith("```") and body.endswith("```"):
        body = body.strip("`").removeprefix("json").strip()
    if not body.startswith("{"):
        return None
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    answer = cast("Mapping[str, object]", value).get("answer") if isinstance(value, Mapping) else None
    return answer.strip() if isinstance(answer, str) else None


def _one_of(found: str, words: Sequence[str]) -> str | None:
    return next((word for word in words if word.casefold() == found.casefold()), None)
