"""Asks another labeler about captions of a store, in the foreground and beside a service that may be writing to it.

The answers are those of the other labeler, so no run notices. Each is stored as it comes, so a relabelling that was
stopped goes on where it was. What it costs is added to the account of the store, whose budgets it obeys.
"""

import time
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from llm_annotator.asking import Answer, ask_all
from llm_annotator.backends.base import Backend
from llm_annotator.budget import Budget
from llm_annotator.config import AnnotatorConfig
from llm_annotator.errors import BudgetUsedUp
from llm_annotator.jobs import Job
from llm_annotator.labeler import Labeler
from llm_annotator.lookup import LookUp, Stored, look_up
from llm_annotator.paid import PaidBackend
from llm_annotator.question import SubjectId
from llm_annotator.store.records import AnnotationRecord, ComparisonRecord
from llm_annotator.store.spending import Spent
from llm_annotator.store.writer import Store
from llm_annotator.storethread import StoreThread
from llm_annotator.types import LabelStatus, Subject


class Progress(NamedTuple):
    """How far a relabelling is, in questions: about captions, or about parts of them.

    asked: those answered, or given up, so far. left: those that are still to be asked. without_label: of `asked`.
    """

    asked: int
    left: int
    without_label: int


async def relabel(
    store: StoreThread,
    labeler: Labeler,
    backend: Backend,
    captions: Sequence[bytes],
    config: AnnotatorConfig,
    *,
    again: bool = False,
) -> AsyncIterator[Progress]:
    """Asks about captions in their order, those left out that have a label; yields after each answer, and before any.

    again: also those that have one; the new one then counts.

    Raises:
        BackendError: the very first question got no answer, so that the others will not either.
        BudgetUsedUp: not all could be asked; what was answered is stored, also of captions by parts.
        ConfigError: the labeler cannot be calibrated with this backend, or there is a budget of money and no prices.
        StoreError
    """

    def prepare(store: Store) -> tuple[LookUp, Spent]:
        store.add_labeler(labeler.id, labeler.spec.to_wire(), labeler.model)
        return look_up(store, labeler, captions[::-1], _always if again else _has_no_label), store.spent()

    found, spent = await store.call(prepare)
    ids = {subject: subject_id for subject_id, subject in reversed(found.to_ask)}  # what is to be asked last came first
    progress = Progress(0, len(ids), 0)
    yield progress
    budget = Budget(config.engine, config.backend, spent)
    try:
        async for answer in ask_all(labeler, PaidBackend(backend, budget), list(ids), config.engine):
            record = _record(labeler, ids[answer.subject], answer, backend)
            await _keep(store, [record], budget, labeler.model)
            missing = answer.judgement.status is not LabelStatus.LABELLED
            progress = Progress(progress.asked + 1, progress.left - 1, progress.without_label + missing)
            yield progress
    except BudgetUsedUp:
        await store.call(Store.recombine_all)
        raise
    finally:
        await _keep(store, [], budget, labeler.model)
    await store.call(Store.recombine_all)


def _record(
    labeler: Labeler, subject_id: SubjectId, answer: Answer[Subject], backend: Backend
) -> AnnotationRecord | ComparisonRecord:
    job = Job(labeler=labeler, subject_id=subject_id, subject=answer.subject, requests=answer.requests)
    return job.record(answer.judgement, answer.completion, backend=backend.name, created_at=time.time())


async def _keep(
    store: StoreThread, records: Sequence[AnnotationRecord | ComparisonRecord], budget: Budget, model: str
) -> None:
    """Stores answers, and what was spent since the last time."""
    spent = budget.take_unsaved()

    def write(store: Store) -> None:
        if records:
            store.add_annotations(records)
        if any(spent):
            store.add_spent(model, spent)

    await store.call(write)


def _always(_: Stored) -> bool:
    return True


def _has_no_label(answer: Stored) -> bool:
    return answer.status is not LabelStatus.LABELLED
