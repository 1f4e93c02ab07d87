"""What a labeler asks, without the model that answers: goal, prompt, examples, and how the answer is read."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self

from llm_annotator.captions import render_caption
from llm_annotator.errors import ConfigError
from llm_annotator.methods import CHOICE_MAX_TOKENS, METHODS, Method, MethodName
from llm_annotator.parts import PARTS_MODES, PartsMode
from llm_annotator.question import AnyExample, Question, QuestionName
from llm_annotator.questions import QUESTIONS
from llm_annotator.types import Message, Request, Subject

SPEC_SCHEMA = 1
"""Version of `LabelerSpec.to_wire`, and a part of every labeler's id."""

MAX_REPEATED_CHARS = 4000
"""How much of an answer is shown to the model that gave it; a server may not keep to its limit of tokens."""

_ADDED: dict[str, Any] = {"question": "label", "max_tokens": CHOICE_MAX_TOKENS, "again": "", "parts": "none"}
"""Fields that came later, with the value of before: a spec that has it is written without, so that labels keep their
labelers."""


class _Fixed(NamedTuple):
    """What all requests of a labeler share. text_question: template of the rest, from the first caption on."""

    text_prefix: str
    text_question: str
    turns: tuple[Message, ...]
    stop: tuple[str, ...]


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
    max_tokens: upper bound of an answer.
    again: what is said before the question is repeated, once, because the final field could not be read ("reasoned").
    parts: whether captions are asked about whole ("none"), or each of their "sentences" apart.
    """

    goal: str
    instruction: str
    example_goal: str
    examples: tuple[AnyExample, ...]
    text_header: str
    text_example: str
    text_question: str
    chat_system: str
    chat_question: str
    positive: str = "yes"
    negative: str = "no"
    method: MethodName = "choice"
    threshold: float = 0.0
    calibration: Literal["none", "content_free"] = "none"
    max_caption_chars: int = 400
    question: QuestionName = "label"
    max_tokens: int = CHOICE_MAX_TOKENS
    again: str = ""
    parts: PartsMode = "none"

    @property
    def asking(self) -> Question:
        """What belongs to the question that is asked."""
        return QUESTIONS[self.question]

    @property
    def answering(self) -> Method:
        """What belongs to the way in which it is answered."""
        return METHODS[self.method]

    def to_wire(self) -> dict[str, Any]:
        """Returns the spec as plain JSON types, for `from_wire`."""
        wire = asdict(self)
        wire["examples"] = [list(example) for example in self.examples]
        wire = {name: value for name, value in wire.items() if name not in _ADDED or value != _ADDED[name]}
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
        values: dict[str, Any] = _ADDED | {name: wire[name] for name in wire if name != "schema"}
        wrong = set(values) ^ {item.name for item in fields(cls)}
        if wrong:
            raise ConfigError(f"a labeler sent over the wire has missing or unknown fields: {', '.join(sorted(wrong))}")
        if values["question"] not in QUESTIONS:
            known = ", ".join(QUESTIONS)
            raise ConfigError(f"this version of oni-jax knows no question {values['question']!r}, only {known}")
        if values["method"] not in METHODS:
            known = ", ".join(METHODS)
            raise ConfigError(f"this version of oni-jax knows no answer method {values['method']!r}, only {known}")
        if values["parts"] not in PARTS_MODES:
            known = ", ".join(PARTS_MODES)
            raise ConfigError(f"this version of oni-jax knows no parts {values['parts']!r}, only {known}")
        example = METHODS[values["method"]].example(QUESTIONS[values["question"]])
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
        shown = self._shown(captions)
        fixed = self._fixed
        return Request(
            captions=captions,
            messages=(*fixed.turns, Message("user", self._fill(self.chat_question, **shown))),
            text_prefix=fixed.text_prefix,
            text_suffix=self._fill(fixed.text_question, **shown),
            choices=(self.positive, self.negative),
            max_tokens=self.max_tokens,
            reasoned=self.answering.reasoned,
            stop=fixed.stop,
        )

    def request_again(self, subject: Subject, answer: str) -> Request:
        """Returns the question repeated after an answer whose final field could not be read.

        Raises:
            TypeError: a subject of another question.
        """
        first = self.request(subject)
        answer = answer[:MAX_REPEATED_CHARS]
        shown = self._shown(first.captions)
        turns = (
            Message("assistant", answer),
            Message("user", f"{self.again}\n{self._fill(self.chat_question, **shown)}"),
        )
        return replace(
            first,
            messages=(*first.messages, *turns),
            text_suffix=f"{first.text_suffix}{answer}\n\n{self.again}\n{self._fill(self.text_question, **shown)}",
        )

    def _shown(self, captions: tuple[bytes, ...]) -> dict[str, str]:
        rendered = [render_caption(caption, max_chars=self.max_caption_chars) for caption in captions]
        return dict(zip(self.asking.placeholders, rendered, strict=True))

    def _stop(self) -> tuple[str, ...]:
        """Returns what a model that does not end by itself writes after its answer: the start of a next example."""
        if not self.answering.reasoned:
            return ()
        after = self.text_example.rpartition("{answer}")[2]
        start = (after + self.text_example[: self.text_example.index("{")]).rstrip()
        return (start,) if start else ()

    @cached_property
    def _fixed(self) -> _Fixed:
        # What stands before the captions is the same for all of them, whichever comes first.
        start = min(self.text_question.index(f"{{{name}}}") for name in self.asking.placeholders)
        examples = "".join(self._fill(self.text_example, **example._asdict()) for example in self.examples)
        turns = [Message("system", self._fill(self.chat_system))]
        for example in self.examples:
            question = self._fill(self.chat_question, goal=self.example_goal, **example._asdict())
            turns += [Message("user", question), Message("assistant", self.answering.turn(example))]
        return _Fixed(
            text_prefix=self._fill(self.text_header) + examples + self._fill(self.text_question[:start]),
            text_question=self.text_question[start:],
            turns=tuple(turns),
            stop=self._stop(),
        )

    def _fill(self, template: str, **more: str) -> str:
        # Plain replacement, not str.format: goals and captions may hold braces.
        values = {"instruction": self.instruction, "example_goal": self.example_goal, "goal": self.goal, **more}
        return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)
