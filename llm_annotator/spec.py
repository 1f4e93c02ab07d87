"""What a labeler asks, without the model that answers: goal, prompt, examples, and how the answer is read."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple, Self

from llm_annotator.captions import render_caption
from llm_annotator.errors import ConfigError
from llm_annotator.types import Message, Request

SPEC_SCHEMA = 1
"""Version of `LabelerSpec.to_wire`, and a part of every labeler's id."""

CHOICE_MAX_TOKENS = 3
"""Tokens asked for by `choice`. Only the first one counts; the others help servers without log-probabilities, some
of which begin an answer with a line end."""


class Example(NamedTuple):
    """One worked example of a prompt: a caption and the right answer word."""

    caption: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class LabelerSpec:
    """All that is asked and how the answer is read, without the model.

    Templates may hold `{instruction}`, `{example_goal}`, `{goal}`, and those of a question `{caption}`, exactly once.

    goal: what the agent is to achieve, in plain words.
    positive, negative: the two answer words.
    threshold: a caption is helpful if its score is above this, in nats.
    max_caption_chars: longer captions are cut in the prompt (the store keeps them whole).
    """

    goal: str
    instruction: str
    example_goal: str
    examples: tuple[Example, ...]
    text_header: str
    text_example: str
    text_question: str
    chat_system: str
    chat_question: str
    positive: str = "yes"
    negative: str = "no"
    method: Literal["choice"] = "choice"
    threshold: float = 0.0
    calibration: Literal["none", "content_free"] = "none"
    max_caption_chars: int = 400

    def to_wire(self) -> dict[str, Any]:
        """Returns the spec as plain JSON types, for `from_wire`."""
        wire = asdict(self)
        wire["examples"] = [list(example) for example in self.examples]
        return {"schema": SPEC_SCHEMA, **wire}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        """Returns the spec that `to_wire` wrote.

        Raises:
            ConfigError: another schema, a missing or an unknown field.
        """
        if wire.get("schema") != SPEC_SCHEMA:
            raise ConfigError(
                f"this labeler has schema {wire.get('schema')!r}, this version of oni-jax reads schema {SPEC_SCHEMA}: "
                "use the same version for the run and for the annotator"
            )
        values = {name: value for name, value in wire.items() if name != "schema"}
        wrong = set(values) ^ {item.name for item in fields(cls)}
        if wrong:
            raise ConfigError(f"a labeler sent over the wire has missing or unknown fields: {', '.join(sorted(wrong))}")
        values["examples"] = tuple(Example(*pair) for pair in values["examples"])
        return cls(**values)

    def request(self, caption: bytes) -> Request:
        """Returns the question about one caption, as chat and as plain text."""
        shown = render_caption(caption, max_chars=self.max_caption_chars)
        before, after = (self._fill(part) for part in self.text_question.split("{caption}"))
        examples = "".join(self._fill(self.text_example, answer=e.answer, caption=e.caption) for e in self.examples)
        return Request(
            caption=caption,
            messages=self._messages(shown),
            text_prefix=self._fill(self.text_header) + examples + before,
            text_suffix=shown + after,
            choices=(self.positive, self.negative),
            max_tokens=CHOICE_MAX_TOKENS,
        )

    def _messages(self, shown: str) -> tuple[Message, ...]:
        turns = [Message("system", self._fill(self.chat_system))]
        for caption, answer in self.examples:
            question = self._fill(self.chat_question, goal=self.example_goal, caption=caption)
            turns += [Message("user", question), Message("assistant", answer)]
        return (*turns, Message("user", self._fill(self.chat_question, caption=shown)))

    def _fill(self, template: str, **more: str) -> str:
        # Plain replacement, not str.format: goals and captions may hold braces.
        values = {"instruction": self.instruction, "example_goal": self.example_goal, "goal": self.goal, **more}
        return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)
