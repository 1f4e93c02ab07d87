"""Asks about a list of captions in the foreground as their labeler wants it: whole, or each of their parts once."""

from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

from llm_annotator.asking import Answer, ask_all
from llm_annotator.backends.base import Backend
from llm_annotator.config import EngineConfig
from llm_annotator.labeler import Labeler
from llm_annotator.parts import PartLabel, combine, splitter
from llm_annotator.types import Judgement, LabelStatus


async def ask_captions(
    labeler: Labeler, backend: Backend, captions: Iterable[bytes], config: EngineConfig
) -> AsyncIterator[Answer[bytes]]:
    """Yields the answers in the order of the captions, each as soon as it and those before it are there.

    What comes up again is not asked again. With parts, an answer is combined from those of the parts and has no
    completion of its own.

    Raises:
        BackendError: the very first question got no answer, so that the others will not either.
        ConfigError: the labeler cannot be calibrated with this backend.
    """
    split = splitter(labeler.spec.parts)
    waiting: deque[tuple[bytes, tuple[bytes, ...]]] = deque()
    answers: dict[bytes, Answer[bytes]] = {}

    def questions() -> Iterator[bytes]:
        seen: set[bytes] = set()
        for caption in captions:
            parts = split(caption)
            waiting.append((caption, parts))
            yield from (part for part in parts if part not in seen)
            seen.update(parts)

    def ready() -> Iterator[Answer[bytes]]:
        while waiting and all(part in answers for part in waiting[0][1]):
            caption, parts = waiting.popleft()
            yield _combined(caption, parts, [answers[part] for part in parts])

    async for answer in ask_all(labeler, backend, questions(), config):
        answers[answer.subject] = answer
        for whole in ready():
            yield whole
    for whole in ready():
        yield whole


def _combined(caption: bytes, parts: tuple[bytes, ...], answers: Sequence[Answer[bytes]]) -> Answer[bytes]:
    if parts == (caption,):
        return answers[0]
    judged = [answer.judgement for answer in answers]
    result = combine([PartLabel(item.status, item.helpful, item.p_helpful, item.score) for item in judged])
    assert result is not None, "every part was asked about"
    detail = judged[result.position].detail
    if result.status is not LabelStatus.LABELLED and len(parts) > 1:
        detail = f"no part is helpful, and {parts[result.position]!r} has no label: {detail}"
    return Answer(
        caption,
        Judgement(
            status=result.status,
            helpful=result.helpful,
            p_helpful=result.p_helpful,
            score=result.score,
            detail=detail,
        ),
        None,
    )
