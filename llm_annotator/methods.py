"""The two ways in which a labeler is answered, and all in which they differ: prompt, bound, and how it is read.

`METHODS` is the one place that knows both. Everything else holds a `Method` and does not ask which one it is.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from llm_annotator import forms
from llm_annotator.question import AnyExample, Question
from llm_annotator.types import Completion, Judgement, LabelStatus

if TYPE_CHECKING:
    from llm_annotator.spec import LabelerSpec

MethodName = Literal["choice", "reasoned"]

LOG_PROBABILITIES, CONSTRAINED, PARSING = "log-probabilities", "constrained output", "parsing"
"""What an answer is read from, the best first."""

CHOICE_MAX_TOKENS = 3
"""Tokens asked for by `choice`. Only the first one counts; the others help servers without log-probabilities, some
of which begin an answer with a line end."""

_MARKERS = " \t\r\n\u2581\u0120\u010a"
"""White space, and how SentencePiece and byte-level BPE vocabularies write it at the start of a token."""


class Score(NamedTuple):
    """log P(positive word) - log P(negative word) in nats, None with the reason why there is none."""

    value: float | None
    problem: str = ""


class Method(Protocol):
    """How a labeler is answered.

    reasoned: whether the model thinks before it answers.
    extra_keys: what a prompt file of this method holds beside the others.
    """

    name: MethodName
    reasoned: bool
    extra_keys: tuple[str, ...]

    def example(self, question: Question) -> type[AnyExample]:
        """Returns what a worked example is."""
        ...

    def default_prompt(self, question: Question, goal_prompt: str) -> str:
        """Returns the prompt that is taken if the settings name none; `goal_prompt` is the one that the goal names."""
        ...

    def turn(self, example: AnyExample) -> str:
        """Returns the answer of a worked example, as the model is to write it in a chat."""
        ...

    def judge(self, completion: Completion, spec: "LabelerSpec", offset: float) -> Judgement:
        """Returns the label that the answer holds, or UNPARSED with the reason; `offset` is subtracted from a score."""
        ...


class Choice:
    """One of two words at once, by their log-probabilities where the server gives them."""

    name: MethodName = "choice"
    reasoned = False
    extra_keys: tuple[str, ...] = ()

    def example(self, question: Question) -> type[AnyExample]:
        """Returns captions with an answer."""
        return question.example

    def default_prompt(self, question: Question, goal_prompt: str) -> str:
        """Returns the prompt of the question, else that of the goal."""
        return question.default_prompt or goal_prompt

    def turn(self, example: AnyExample) -> str:
        """Returns the word."""
        return example.answer

    def judge(self, completion: Completion, spec: "LabelerSpec", offset: float) -> Judgement:
        """Returns the label by the score.

        The score is log P(positive) - log P(negative), each summed over the ways to write the word (" yes", "Yes").
        A word that is not among the alternatives has at most the probability that they leave over; the label stands
        only if that bound decides it, and the score is then that bound, the one nearest to the threshold. Without
        log-probabilities the answer's first word must be one of the two words.
        """
        if not completion.logprobs:
            word = forms.read_choice(completion.text, (spec.positive, spec.negative))
            words = f"{spec.positive!r} or {spec.negative!r}"
            return _by_word(completion, spec, word, f"the answer began {completion.text[:40]!r}, not with {words}")
        score = choice_score(completion, spec, offset=offset)
        if score.value is None:
            return Judgement(
                status=LabelStatus.UNPARSED,
                helpful=None,
                p_helpful=None,
                score=None,
                detail=score.problem,
                read_from=LOG_PROBABILITIES,
            )
        return Judgement(
            status=LabelStatus.LABELLED,
            helpful=score.value > spec.threshold,
            p_helpful=_logistic(score.value),
            score=score.value,
            read_from=LOG_PROBABILITIES,
        )


class Reasoned:
    """Thoughts, then one of two words in a final field: the way of the paper (arXiv 2410.23022)."""

    name: MethodName = "reasoned"
    reasoned = True
    extra_keys: tuple[str, ...] = ("again",)

    def example(self, question: Question) -> type[AnyExample]:
        """Returns captions with thoughts and an answer."""
        return question.reasoned_example

    def default_prompt(self, question: Question, goal_prompt: str) -> str:
        """Returns the prompt of the question that lets the model think; what a goal names does not."""
        return question.reasoned_prompt

    def turn(self, example: AnyExample) -> str:
        """Returns the thoughts and the final field."""
        return f"{example[-2]}\n{forms.final_line(example.answer)}"

    def judge(self, completion: Completion, spec: "LabelerSpec", offset: float) -> Judgement:
        """Returns the label that the final field says; there is no score."""
        word = None if completion.cut else forms.read_final(completion.text, (spec.positive, spec.negative))
        fields = f"{forms.final_line(spec.positive)!r} or {forms.final_line(spec.negative)!r}"
        ended = repr(completion.text.rstrip().rpartition("\n")[2][-40:])
        if completion.cut:
            ended = f"at {spec.max_tokens} tokens with {ended}"
        return _by_word(completion, spec, word, f"the answer ended {ended}, not with {fields}")


METHODS: dict[MethodName, Method] = {"choice": Choice(), "reasoned": Reasoned()}


def choice_score(completion: Completion, spec: "LabelerSpec", *, offset: float = 0.0) -> Score:
    """Returns the score of an answer of the form `choice`, as `Choice.judge` describes it."""
    logprobs = completion.logprobs or {}
    yes, no = _log_mass(logprobs, spec.positive), _log_mass(logprobs, spec.negative)
    if yes is not None and no is not None:
        return Score(yes - no - offset)
    words = f"{spec.positive!r} and {spec.negative!r}"
    if yes is None and no is None:
        return Score(None, f"neither {words} is among {_count(logprobs)}; the answer began {completion.text[:40]!r}")
    left = math.log1p(-min(math.fsum(math.exp(value) for value in logprobs.values()), 1.0 - 1e-9))
    bound = (yes - left if yes is not None else left - (no or 0.0)) - offset
    if (bound > spec.threshold) == (yes is not None):
        return Score(bound)
    missing = spec.positive if yes is None else spec.negative
    return Score(None, f"{missing!r} is not among {_count(logprobs)}, and those leave too much over to tell")


def _by_word(completion: Completion, spec: "LabelerSpec", word: str | None, problem: str) -> Judgement:
    """Returns the label of the word that was read; `problem` says why there is none."""
    means = completion.constraint
    return Judgement(
        status=LabelStatus.UNPARSED if word is None else LabelStatus.LABELLED,
        helpful=None if word is None else word == spec.positive,
        p_helpful=None,
        score=None,
        detail=problem if word is None else "",
        read_from=f"{CONSTRAINED} ({means})" if means else PARSING,
    )


def _count(logprobs: Mapping[str, float]) -> str:
    return f"the {len(logprobs)} alternatives that the server gave for the first token"


def _log_mass(logprobs: Mapping[str, float], word: str) -> float | None:
    """Returns the log of the summed probability of every way to write `word`, None if there is none."""
    found = [value for token, value in logprobs.items() if token.strip(_MARKERS).casefold() == word.casefold()]
    if not found or max(found) == -math.inf:
        return None
    top = max(found)
    return top + math.log(math.fsum(math.exp(value - top) for value in found))


def _logistic(score: float) -> float:
    if score >= 0:
        return 1.0 / (1.0 + math.exp(-score))
    return math.exp(score) / (1.0 + math.exp(score))
