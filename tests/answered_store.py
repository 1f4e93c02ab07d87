"""Stores with answers in them, made by the real parts: a backend answers, a labeler judges, the store keeps it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from llm_annotator.backends import create_backend
from llm_annotator.config import BackendConfig, LabelerConfig
from llm_annotator.jobs import Job
from llm_annotator.labeler import Labeler, LabelerSpec, resolve_labeler
from llm_annotator.store import AnnotationRecord, Store
from llm_annotator.types import Completion, Judgement, LabelStatus, Subject


def answer_into(
    path: Path,
    subjects: Sequence[Subject],
    backend: BackendConfig | None = None,
    spec: LabelerSpec | None = None,
) -> list[Completion]:
    """Asks the backend (default: scripted) about captions or pairs, adds its answers to the store, and returns them."""
    config, spec = backend or BackendConfig(kind="scripted"), spec or resolve_labeler(LabelerConfig())

    async def go() -> list[Completion]:
        async with create_backend(config) as backend:
            labeler = Labeler(spec, backend.model)
            completions = [await backend.complete(labeler.request(subject)) for subject in subjects]
            with Store(path) as store:
                store.add_labeler(labeler.id, spec.to_wire(), labeler.model)
                jobs = [
                    Job(labeler=labeler, subject_id=subject_id, subject=subject, requests=1)
                    for subject_id, subject in zip(labeler.question.intern(store, subjects), subjects, strict=True)
                ]
                store.add_annotations(
                    job.record(labeler.judge(completion), completion, backend=config.kind, created_at=1.0)
                    for job, completion in zip(jobs, completions, strict=True)
                )
            return completions

    return asyncio.run(go())


def fail_into(path: Path, captions: Sequence[bytes], model: str) -> None:
    """Adds to the store that the captions got no answer."""
    labeler = Labeler(resolve_labeler(LabelerConfig()), model)
    nothing = Judgement(status=LabelStatus.FAILED, helpful=None, p_helpful=None, score=None, detail="no answer")
    with Store(path) as store:
        store.add_labeler(labeler.id, labeler.spec.to_wire(), model)
        records: list[AnnotationRecord] = [
            Job(labeler=labeler, subject_id=caption_id, subject=caption).record(
                nothing, None, backend="scripted", created_at=2.0
            )
            for caption_id, caption in zip(store.intern(captions), captions, strict=True)
        ]
        store.add_annotations(records)
