"""Labels a list of captions in the foreground: for the command line, where somebody waits for the answer.

A run uses the engine instead, which never stops at an error.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from llm_annotator.backends.base import Backend
from llm_annotator.config import EngineConfig
from llm_annotator.errors import BackendError
from llm_annotator.labeler import Labeler
from llm_annotator.types import Completion, Judgement, LabelStatus


@dataclass(frozen=True)
class Answer:
    """What became of one caption. `completion` is None if no answer came."""

    caption: bytes
    judgement: Judgement
    completion: Completion | None


async def label_captions(
    labeler: Labeler, backend: Backend, captions: Iterable[bytes], config: EngineConfig
) -> AsyncIterator[Answer]:
    """Yields the answers in the order of the captions, each as soon as it and those before it are there.

    Failures that pass are asked again up to `config.max_attempts` times.

    Raises:
        BackendError: the very first caption got no answer, so that the others will not either.
        ConfigError: the labeler cannot be calibrated with this backend.
    """
    await labeler.prepare(backend)
    waiting: deque[asyncio.Task[Answer]] = deque()
    proven = False
    try:
        for caption in captions:
            if waiting and (not proven or len(waiting) >= backend.max_concurrent):
                yield await waiting.popleft()
                proven = True
            waiting.append(asyncio.create_task(_ask(labeler, backend, caption, config, must_answer=not proven)))
        while waiting:
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _ask(
    labeler: Labeler, backend: Backend, caption: bytes, config: EngineConfig, *, must_answer: bool
) -> Answer:
    pause_s = config.backoff_s
    for attempt in range(1, config.max_attempts + 1):
        try:
            completion = await backend.complete(labeler.request(caption))
        except BackendError as error:
            if error.retryable and attempt < config.max_attempts:
                await asyncio.sleep(min(error.retry_after_s or pause_s, config.max_backoff_s))
                pause_s *= 2
                continue
            if must_answer:
                raise
            return Answer(caption, _failed(error), None)
        return Answer(caption, labeler.judge(completion), completion)
    raise AssertionError("max_attempts is at least 1")


def _failed(error: BackendError) -> Judgement:
    return Judgement(status=LabelStatus.FAILED, helpful=None, p_helpful=None, score=None, detail=str(error))
