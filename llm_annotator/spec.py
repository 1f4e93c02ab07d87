"""What a labeler asks, without the model that answers: goal, prompt, examples, and how the answer is read."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from llm_annotator.captions import render_caption
from llm_annotator.errors import ConfigError
from llm_annotator.questions import QUESTIONS, Example, PairExample, Question, QuestionName
from llm_annotator.types import Message, Request, Subject

SPEC_SCHEMA = 1
"""Version of `LabelerSpec.to_wire`, and a part of every labeler's id."""

CHOICE_MAX_TOKENS = 3
"""Tokens asked for by `choice`. Only the first one counts; the others help servers without log-probabilities, some
of which begin an answer with a line end."""


@dataclass(frozen=True, kw_only=True)
class LabelerSpec:
    """All that is asked and how the answer is read, without the model.

    Templates may hold `{instruction}`, `{example_goal}`, `{goal}`, and those of a question `{caption}`, exactly once;
    if two captions are compared, `{first}` and `{second}` instead, each exactly once and in any order.

    goal: what the agent is to achieve, in plain words.
    positive, negative: the two answer words; of two captions the positive word says that the first is better.
    threshold: the answer is the positive word if its score is above this, in nats.
    question: what is asked: "label" (is this caption helpful?) or "preference" (which of two is better?).
    max_caption_chars: longer captions are cut in the prompt (the store keeps them whole).
    """

    goal: str
    instruction: str
    example_goal: str
    examples: tuple[Example, ...] | tuple[PairExample, ...]
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
    question: QuestionName = "label"

    @property
    def asking(self) -> Question:
        """What belongs to the question that is asked."""
        return QUESTIONS[self.question]

    def to_wire(self) -> dict[str, Any]:
        """Returns the spec as plain JSON types, for `from_wire`."""
        wire = asdict(self)
        wire["examples"] = [list(example) for example in self.examples]
        if self.question == "label":
            del wire["question"]  # as before there was another: labels keep their labelers
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
        values: dict[str, Any] = {"question": "label"} | {name: wire[name] for name in wire if name != "schema"}
        wrong = set(values) ^ {item.name for item in fields(cls)}
        if wrong:
            raise ConfigError(f"a labeler sent over the wire has missing or unknown fields: {', '.join(sorted(wrong))}")
        if values["question"] not in QUESTIONS:
            known = ", ".join(QUESTIONS)
            raise ConfigError(f"this version of oni-jax knows no question {values['question']!r}, only {known}")
        example = QUESTIONS[values["question"]].example
        try:
            values["examples"] = tuple(example(*fields) for fields in values["examples"])
        except TypeError as error:
            raise ConfigError(f"a labeler sent over the wire has examples of another question: {error}") from error
        return cls(**values)

    def request(self, subject: Subject) -> Request:
        """Returns the question about one caption, or one ordered pair of captions, as chat and as plain text.

        Raises:
            TypeError: a subject of another question.
        """
        captions = self.asking.captions(subject)
        rendered = [render_caption(caption, max_chars=self.max_caption_chars) for caption in captions]
        shown = dict(zip(self.asking.placeholders, rendered, strict=True))
        # What stands before the captions is the same for all of them, whichever comes first.
        start = min(self.text_question.index(f"{{{name}}}") for name in shown)
        examples = "".join(self._fill(self.text_example, **example._asdict()) for example in self.examples)
        return Request(
            captions=captions,
            messages=self._messages(shown),
            text_prefix=self._fill(self.text_header) + examples + self._fill(self.text_question[:start]),
            text_suffix=self._fill(self.text_question[start:], **shown),
            choices=(self.positive, self.negative),
            max_tokens=CHOICE_MAX_TOKENS,
        )

    def _messages(self, shown: Mapping[str, str]) -> tuple[Message, ...]:
        turns = [Message("system", self._fill(self.chat_system))]
        for example in self.examples:
            question = self._fill(self.chat_question, goal=self.example_goal, **example._asdict())
            turns += [Message("user", question), Message("assistant", example.answer)]
        return (*turns, Message("user", self._fill(self.chat_question, **shown)))

    def _fill(self, template: str, **more: str) -> str:
        # Plain replacement, not str.format: goals and captions may hold braces.
        values = {"instruction": self.instruction, "example_goal": self.example_goal, "goal": self.goal, **more}
        return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)
