"""Asks another labeler about captions of a store, in the foreground and beside a service that may be writing to it.

The answers are those of the other labeler, so no run notices. Each is stored as it comes, so a relabelling that was
stopped goes on where it was.
"""

import time
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from llm_annotator.asking import ask_all
from llm_annotator.backends.base import Backend
from llm_annotator.config import EngineConfig
from llm_annotator.jobs import Job
from llm_annotator.labeler import Labeler
from llm_annotator.lookup import Stored, look_up
from llm_annotator.store.writer import Store
from llm_annotator.types import LabelStatus


class Progress(NamedTuple):
    """How far a relabelling is, in questions: about captions, or about parts of them.

    asked: those answered, or given up, so far. left: those that are still to be asked. without_label: of `asked`.
    """

    asked: int
    left: int
    without_label: int


async def relabel(
    store: Store, labeler: Labeler, backend: Backend, captions: Sequence[bytes], config: EngineConfig
) -> AsyncIterator[Progress]:
    """Asks about captions in their order, those left out that have a label; yields after each answer, and before any.

    Raises:
        BackendError: the very first question got no answer, so that the others will not either.
        ConfigError: the labeler cannot be calibrated with this backend.
        StoreError
    """
    store.add_labeler(labeler.id, labeler.spec.to_wire(), labeler.model)
    found = look_up(store, labeler, captions[::-1], _has_no_label)
    ids = {subject: subject_id for subject_id, subject in reversed(found.to_ask)}  # what is to be asked last came first
    progress = Progress(0, len(ids), 0)
    yield progress
    async for answer in ask_all(labeler, backend, list(ids), config):
        job = Job(labeler=labeler, subject_id=ids[answer.subject], subject=answer.subject, requests=answer.requests)
        judgement = answer.judgement
        record = job.record(judgement, answer.completion, backend=backend.name, created_at=time.time())
        store.add_annotations([record])
        missing = judgement.status is not LabelStatus.LABELLED
        progress = Progress(progress.asked + 1, progress.left - 1, progress.without_label + missing)
        yield progress


def _has_no_label(answer: Stored) -> bool:
    return answer.status is not LabelStatus.LABELLED
