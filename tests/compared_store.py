"""Captions of a little war game, and stores in which they are compared by the real parts."""

import asyncio

from llm_annotator.backends import create_backend
from llm_annotator.config import BackendConfig, LabelerConfig
from llm_annotator.jobs import Job
from llm_annotator.labeler import Labeler, resolve_labeler
from llm_annotator.store import Store

FOES = [
    *("ant", "bat", "cat", "dog", "elf", "fox", "gnu", "hen", "imp", "jay", "kid", "lynx"),
    *("mole", "newt", "orc", "pig", "quail", "rat", "slug", "toad", "urchin", "viper", "wasp", "yak"),
]
HELPFUL = [f"You kill the {foe}!".encode() for foe in FOES] + [f"You destroy the big {foe}!".encode() for foe in FOES]
UNHELPFUL = [f"The {foe} bites you.".encode() for foe in FOES] + [f"You miss the {foe}.".encode() for foe in FOES]
CAPTIONS = [caption for both in zip(HELPFUL, UNHELPFUL, strict=True) for caption in both]
KILLS = BackendConfig(kind="scripted", options={"helpful_pattern": "You (kill|destroy)"})
SILENT = BackendConfig(kind="scripted", options={"helpful_pattern": "You (kill|destroy)", "logprobs": False})


def compare_into(path, pairs, backend=KILLS):
    """Asks the scripted backend about ordered pairs, and adds its answers to the store; returns the labeler's id."""
    spec = resolve_labeler(LabelerConfig(), question="preference")

    async def go():
        async with create_backend(backend) as judge:
            labeler = Labeler(spec, judge.model)
            with Store(path) as store:
                store.add_labeler(labeler.id, spec.to_wire(), labeler.model)
                for pair in pairs:
                    completion = await judge.complete(labeler.request(pair))
                    first, second = store.intern(pair)
                    job = Job(labeler=labeler, subject_id=(first, second), subject=pair, requests=1)
                    judgement = labeler.judge(completion)
                    store.add_annotations([job.record(judgement, completion, backend="scripted", created_at=1.0)])
            return labeler.id

    return asyncio.run(go())
