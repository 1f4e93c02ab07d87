"""Asks an LLM once more about one caption, for a person who looks at it: with another goal, or by another model.

The answer is kept like any other. Where neither goal nor model is another one, it counts from then on for the labeler
that was asked, and runs that use it hear of it; else it is the answer of another labeler, beside the first.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from llm_annotator.backends import create_backend
from llm_annotator.config import AnnotatorConfig
from llm_annotator.errors import AnnotatorError, BackendError, ConfigError, StoreError
from llm_annotator.importing import IMPORTED
from llm_annotator.labeler import Labeler
from llm_annotator.relabel import relabel
from llm_annotator.secret import backend_secrets, redactor
from llm_annotator.spec import LabelerSpec
from llm_annotator.store.reader import StoreReader
from llm_annotator.storethread import StoreThread

PATIENCE_S = 120.0
"""How long a person waits for an answer; an embedded model has to be loaded first."""


class AskAgain:
    """Asks by a connection of its own, beside whatever else asks.

    settings: returns how the LLM is reached; called each time. May raise ConfigError.
    """

    def __init__(self, store: Path, settings: Callable[[], AnnotatorConfig]) -> None:
        self._store = store
        self._settings = settings
        self._turn = asyncio.Lock()  # one question at a time: each may load a model

    async def ask(self, caption_id: int, labeler_id: str, *, goal: str = "", model: str = "") -> str:
        """Returns the id of the labeler that has answered.

        goal, model: instead of those of the labeler; empty leaves them. The model is a name at the same server.

        Raises:
            ConfigError: this cannot be asked, or the LLM is not to be reached with these settings.
            BackendError: no answer. BudgetUsedUp: what this store may cost is spent.
            StoreError: no such caption or labeler, or the store cannot be written.
        """
        spec, caption = await asyncio.to_thread(self._look_up, caption_id, labeler_id)
        config = await asyncio.to_thread(self._settings)
        if goal:
            spec = replace(spec, goal=goal)
        backend_config = replace(config.backend, model=model) if model else config.backend
        try:
            async with self._turn, asyncio.timeout(PATIENCE_S), create_backend(backend_config) as backend:
                labeler = Labeler(spec, backend.model)
                async with StoreThread(self._store) as store:
                    async for _ in relabel(store, labeler, backend, [caption], config, again=True):
                        pass
        except TimeoutError:
            raise BackendError(f"no answer came within {PATIENCE_S:.0f} seconds") from None
        except AnnotatorError as error:  # servers like to repeat a key that they refuse
            raise type(error)(redactor(backend_secrets(backend_config))(str(error))) from None
        return labeler.id

    def _look_up(self, caption_id: int, labeler_id: str) -> tuple[LabelerSpec, bytes]:
        with StoreReader(self._store) as reader:
            caption = reader.history(caption_id).text
            wires = [row.spec for row in reader.labelers() if row.labeler_id == labeler_id]
        if not wires:
            raise StoreError(f"{self._store} knows no labeler {labeler_id!r}")
        if labeler_id.startswith(IMPORTED):
            raise ConfigError("these labels came out of a file, no LLM gave them: choose the labels of another labeler")
        spec = LabelerSpec.from_wire(wires[0])
        if spec.question != "label":
            raise ConfigError("this labeler compares captions two by two, and is never asked about one alone")
        return spec, caption
