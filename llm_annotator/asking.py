"""Asks about a list of captions, or of pairs of them, in the foreground.

That is for the command line, where somebody waits for the answer.

A run uses the engine instead, which never stops at an error.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from llm_annotator.backends.base import Backend
from llm_annotator.config import EngineConfig
from llm_annotator.errors import BackendError, BackendOverloaded
from llm_annotator.gate import asked_pause_s, backoff_s
from llm_annotator.labeler import Labeler
from llm_annotator.limits import ConcurrencyLimit
from llm_annotator.types import Completion, Judgement, LabelStatus, Subject

AnySubject = TypeVar("AnySubject", bound=Subject)


@dataclass(frozen=True)
class Answer(Generic[AnySubject]):
    """What became of one subject. `completion` is None if no answer came. requests: attempts that it took."""

    subject: AnySubject
    judgement: Judgement
    completion: Completion | None
    requests: int = 1


async def ask_all(
    labeler: Labeler, backend: Backend, subjects: Iterable[AnySubject], config: EngineConfig
) -> AsyncIterator[Answer[AnySubject]]:
    """Yields the answers in the order of the subjects, each as soon as it and those before it are there.

    As many are asked at once as bring more answers (`ConcurrencyLimit`), `backend.max_concurrent` at most.
    Failures that pass are asked again up to `config.max_attempts` times.

    Raises:
        BackendError: the very first question got no answer, so that the others will not either.
        ConfigError: the labeler cannot be calibrated with this backend.
    """
    await labeler.prepare(backend)
    limit = ConcurrencyLimit(backend.max_concurrent, clock=time.monotonic)
    waiting: deque[asyncio.Task[Answer[AnySubject]]] = deque()
    proven = False
    try:
        for subject in subjects:
            while waiting and (not proven or waiting[0].done()):
                yield await waiting.popleft()
                proven = True
            while len(running := [task for task in waiting if not task.done()]) >= limit.limit:
                limit.held_back()
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            asking = _ask(labeler, backend, subject, config, limit, must_answer=not proven)
            waiting.append(asyncio.create_task(asking))
        while waiting:
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _ask(
    labeler: Labeler,
    backend: Backend,
    subject: AnySubject,
    config: EngineConfig,
    limit: ConcurrencyLimit,
    *,
    must_answer: bool,
) -> Answer[AnySubject]:
    for attempt in range(1, config.max_attempts + 1):
        level, began_at = limit.began(), time.monotonic()
        try:
            completion, judgement = await labeler.ask(backend.complete, subject)
        except BackendError as error:
            if isinstance(error, BackendOverloaded):
                limit.ended(level, time.monotonic() - began_at, refused=True)
            if error.retryable and attempt < config.max_attempts:
                await asyncio.sleep(max(backoff_s(attempt, config), asked_pause_s(error)))
                continue
            if must_answer:
                raise
            return Answer(subject, _failed(error), None, attempt)
        limit.ended(level, time.monotonic() - began_at)
        return Answer(subject, judgement, completion, attempt)
    raise AssertionError("max_attempts is at least 1")


def _failed(error: BackendError) -> Judgement:
    return Judgement(status=LabelStatus.FAILED, helpful=None, p_helpful=None, score=None, detail=str(error))
