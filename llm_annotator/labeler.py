"""Labelers: goal + prompt + answer method + model, and how an answer is read.

A `LabelerSpec` is what travels from a run to the annotator; a `Labeler` is a spec together with the model that
answers. Labels belong to a labeler: its `id` is a hash of everything that can change an answer or its reading.
"""

import asyncio
import hashlib
import json
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple

from llm_annotator import forms
from llm_annotator.backends.base import Backend
from llm_annotator.errors import BackendAnswerInvalid, BackendRejected, ConfigError
from llm_annotator.methods import choice_score
from llm_annotator.promptfiles import resolve_labeler
from llm_annotator.question import Example, PairExample, Question
from llm_annotator.spec import LabelerSpec
from llm_annotator.types import Completion, Judgement, LabelStatus, Request, Subject

__all__ = ["Answered", "Example", "Labeler", "LabelerSpec", "PairExample", "resolve_labeler"]

Complete = Callable[[Request], Awaitable[Completion]]
"""Asks a backend once, as `Backend.complete`."""


class Answered(NamedTuple):
    """An answer and what was read out of it."""

    completion: Completion
    judgement: Judgement


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
                score = choice_score(await backend.complete(self.request(subject)), self.spec).value
                if score is None:
                    raise ConfigError(
                        f"calibration 'content_free' needs the log-probabilities of {self.spec.positive!r} and "
                        f"{self.spec.negative!r}, which {backend.name} ({backend.model}) did not give: "
                        "set labeler.calibration to 'none'"
                    )
                scores.append(score)
            self.offset = math.fsum(scores) / len(scores)

    def judge(self, completion: Completion) -> Judgement:
        """Returns the label that the answer holds, or UNPARSED with the reason."""
        if self.offset is None:
            raise RuntimeError("Labeler.judge before Labeler.prepare: this labeler is calibrated")
        return self.spec.answering.judge(completion, self.spec, self.offset)

    async def ask(self, complete: Complete, subject: Subject) -> Answered:
        """Returns the answer about one subject and its label.

        Where the model thinks first and the final field cannot be read, it is asked once more, the question repeated;
        the completion then holds both raw answers, and the tokens and seconds of both.

        complete: `Backend.complete`, or what stands before it to count requests; called once or twice.

        Raises:
            BackendError: no answer. A refusal of the second question is none: the first answer stands, without a label.
            TypeError: as `request`.
        """
        first = await complete(self.request(subject))
        judgement = self.judge(first)
        done = judgement.status is not LabelStatus.UNPARSED or forms.ASKED_AGAIN in first.text
        if done or not self.spec.again:
            return Answered(first, judgement)
        again = self.spec.request_again(subject, first.text)
        try:
            second = await complete(again)
        except (BackendRejected, BackendAnswerInvalid):
            detail = f"{judgement.detail}; asked once more, there was no answer at all"
            return Answered(_marked(first), replace(judgement, detail=detail))
        both = _joined(first, again, second)
        return Answered(both, self.judge(both))


def _joined(first: Completion, again: Request, second: Completion) -> Completion:
    """Returns one completion out of two; the form of its text is that of `forms`, which reads what stands last."""
    question = again.messages[-1].content
    return replace(
        second,
        sent_prefix=first.sent_prefix,
        sent_suffix=first.sent_suffix,
        text=f"{_marked(first).text}\n{forms.ASKED_AGAIN}\n{question}\n{forms.ANSWERED}\n{_marked(second).text}",
        tokens_in=_sum(first.tokens_in, second.tokens_in),
        tokens_out=_sum(first.tokens_out, second.tokens_out),
        latency_s=first.latency_s + second.latency_s,
    )


def _marked(completion: Completion) -> Completion:
    """Returns the completion with a mark at its end if it was cut, which the store would otherwise forget."""
    return replace(completion, text=f"{completion.text}\n{forms.CUT}") if completion.cut else completion


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second
