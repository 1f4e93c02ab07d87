"""Labelers: goal + prompt + answer method + model, and how an answer is read.

A `LabelerSpec` is what travels from a run to the annotator; a `Labeler` is a spec together with the model that
answers. Labels belong to a labeler: its `id` is a hash of everything that can change an answer or its reading.
"""

import asyncio
import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from llm_annotator.backends.base import Backend
from llm_annotator.errors import ConfigError
from llm_annotator.promptfiles import resolve_labeler
from llm_annotator.questions import Example, PairExample, Question
from llm_annotator.spec import LabelerSpec
from llm_annotator.types import Completion, Judgement, LabelStatus, Request, Subject

__all__ = ["Example", "Labeler", "LabelerSpec", "PairExample", "resolve_labeler"]

_MARKERS = " \t\r\n\u2581\u0120\u010a"
"""White space, and how SentencePiece and byte-level BPE vocabularies write it at the start of a token."""


class Labeler:
    """A spec and the model that answers it.

    `judge` needs no model; with calibration "content_free", `prepare` must have run before it.
    """

    def __init__(self, spec: LabelerSpec, model: str) -> None:
        self.spec = spec
        self.model = model
        self.offset: float | None = 0.0 if spec.calibration == "none" else None
        """Nats that are subtracted from every score; None until `prepare` has measured it."""
        canonical = json.dumps({"model": model, "spec": spec.to_wire()}, sort_keys=True, ensure_ascii=True)
        self.id = hashlib.sha256(canonical.encode()).hexdigest()[:16]
        """Short name of this labeler, the same on every machine."""
        self._preparing = asyncio.Lock()  # guards the one measurement of `offset`

    @property
    def question(self) -> Question:
        """What is asked: about captions, or about pairs of them."""
        return self.spec.asking

    def request(self, subject: Subject) -> Request:
        """Returns the question about one subject.

        Raises:
            TypeError: a pair for a labeler that judges single captions, or the other way round.
        """
        return self.spec.request(subject)

    async def prepare(self, backend: Backend) -> None:
        """Measures the score of subjects that say nothing, where the spec asks for it; once, later calls return.

        Raises:
            BackendError: the backend did not answer; call again later.
            ConfigError: the backend gives no log-probabilities, so that nothing can be calibrated.
        """
        async with self._preparing:
            if self.offset is not None:
                return
            scores: list[float] = []
            for subject in self.question.content_free:
                score = _score(await backend.complete(self.request(subject)), self.spec).score
                if score is None:
                    raise ConfigError(
                        f"calibration 'content_free' needs the log-probabilities of {self.spec.positive!r} and "
                        f"{self.spec.negative!r}, which {backend.name} ({backend.model}) did not give: "
                        "set labeler.calibration to 'none'"
                    )
                scores.append(score)
            self.offset = math.fsum(scores) / len(scores)

    def judge(self, completion: Completion) -> Judgement:
        """Returns the label that the answer holds, or UNPARSED with the reason.

        The score is log P(positive) - log P(negative), each summed over the ways to write the word (" yes", "Yes").
        A word that is not among the alternatives has at most the probability that they leave over; the label stands
        only if that bound decides it, and the score is then that bound, the one nearest to the threshold. Without
        log-probabilities the answer's first word must be one of the two words.
        """
        if self.offset is None:
            raise RuntimeError("Labeler.judge before Labeler.prepare: this labeler is calibrated")
        if not completion.logprobs:
            return _read_first_word(completion.text, self.spec)
        reading = _score(completion, self.spec, offset=self.offset)
        if reading.score is None:
            return Judgement(
                status=LabelStatus.UNPARSED, helpful=None, p_helpful=None, score=None, detail=reading.problem
            )
        return Judgement(
            status=LabelStatus.LABELLED,
            helpful=reading.score > self.spec.threshold,
            p_helpful=_logistic(reading.score),
            score=reading.score,
        )


class _Reading(NamedTuple):
    score: float | None
    problem: str = ""


def _score(completion: Completion, spec: LabelerSpec, *, offset: float = 0.0) -> _Reading:
    logprobs = completion.logprobs or {}
    yes, no = _log_mass(logprobs, spec.positive), _log_mass(logprobs, spec.negative)
    if yes is not None and no is not None:
        return _Reading(yes - no - offset)
    words = f"{spec.positive!r} and {spec.negative!r}"
    if yes is None and no is None:
        return _Reading(None, f"neither {words} is among {_count(logprobs)}; the answer began {completion.text[:40]!r}")
    left = math.log1p(-min(math.fsum(math.exp(value) for value in logprobs.values()), 1.0 - 1e-9))
    bound = (yes - left if yes is not None else left - (no or 0.0)) - offset
    if (bound > spec.threshold) == (yes is not None):
        return _Reading(bound)
    missing = spec.positive if yes is None else spec.negative
    return _Reading(None, f"{missing!r} is not among {_count(logprobs)}, and those leave too much over to tell")


def _count(logprobs: Mapping[str, float]) -> str:
    return f"the {len(logprobs)} alternatives that the server gave for the first token"


def _log_mass(logprobs: Mapping[str, float], word: str) -> float | None:
    """Returns the log of the summed probability of every way to write `word`, None if there is none."""
    found = [value for token, value in logprobs.items() if token.strip(_MARKERS).casefold() == word.casefold()]
    if not found or max(found) == -math.inf:
        return None
    top = max(found)
    return top + math.log(math.fsum(math.exp(value - top) for value in found))


def _read_first_word(text: str, spec: LabelerSpec) -> Judgement:
    match = re.match(r"[^\w]*(\w+)", text)
    word = match[1].casefold() if match else ""
    if word in (spec.positive.casefold(), spec.negative.casefold()):
        helpful = word == spec.positive.casefold()
        return Judgement(status=LabelStatus.LABELLED, helpful=helpful, p_helpful=None, score=None)
    detail = f"the answer began {text[:40]!r}, not with {spec.positive!r} or {spec.negative!r}"
    return Judgement(status=LabelStatus.UNPARSED, helpful=None, p_helpful=None, score=None, detail=detail)


def _logistic(score: float) -> float:
    if score >= 0:
        return 1.0 / (1.0 + math.exp(-score))
    return math.exp(score) / (1.0 + math.exp(score))
