"""Asks about a list of captions, or of pairs of them, in the foreground.

That is for the command line, where somebody waits for the answer.

A run uses the engine instead, which never stops at an error.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from llm_annotator.backends.base import Backend
from llm_annotator.config import EngineConfig
from llm_annotator.errors import BackendError
from llm_annotator.labeler import Labeler
from llm_annotator.types import Completion, Judgement, LabelStatus, Subject

AnySubject = TypeVar("AnySubject", bound=Subject)


@dataclass(frozen=True)
class Answer(Generic[AnySubject]):
    """What became of one subject. `completion` is None if no answer came."""

    subject: AnySubject
    judgement: Judgement
    completion: Completion | None


async def ask_all(
    labeler: Labeler, backend: Backend, subjects: Iterable[AnySubject], config: EngineConfig
) -> AsyncIterator[Answer[AnySubject]]:
    """Yields the answers in the order of the subjects, each as soon as it and those before it are there.

    Failures that pass are asked again up to `config.max_attempts` times.

    Raises:
        BackendError: the very first question got no answer, so that the others will not either.
        ConfigError: the labeler cannot be calibrated with this backend.
    """
    await labeler.prepare(backend)
    waiting: deque[asyncio.Task[Answer[AnySubject]]] = deque()
    proven = False
    try:
        for subject in subjects:
            if waiting and (not proven or len(waiting) >= backend.max_concurrent):
                yield await waiting.popleft()
                proven = True
            waiting.append(asyncio.create_task(_ask(labeler, backend, subject, config, must_answer=not proven)))
        while waiting:
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _ask(
    labeler: Labeler, backend: Backend, subject: AnySubject, config: EngineConfig, *, must_answer: bool
) -> Answer[AnySubject]:
    pause_s = config.backoff_s
    for attempt in range(1, config.max_attempts + 1):
        try:
            completion = await backend.complete(labeler.request(subject))
        except BackendError as error:
            if error.retryable and attempt < config.max_attempts:
                await asyncio.sleep(min(error.retry_after_s or pause_s, config.max_backoff_s))
                pause_s *= 2
                continue
            if must_answer:
                raise
            return Answer(subject, _failed(error), None)
        return Answer(subject, labeler.judge(completion), completion)
    raise AssertionError("max_attempts is at least 1")


def _failed(error: BackendError) -> Judgement:
    return Judgement(status=LabelStatus.FAILED, helpful=None, p_helpful=None, score=None, detail=str(error))
