"""Backend `replay`: the answers that a store holds already, instead of a model.

A run can so be reproduced, or its reward model trained again, without an LLM. What is replayed is what the model said:
raw answer, log-probabilities and tokens, which the labeler reads anew. A person's overrides are not answers of the
model and stay behind in the old store.

The store is only read, and may be in use by another annotator: what that adds is found, too.
"""

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from llm_annotator.backends.options import read_options
from llm_annotator.config import BackendConfig
from llm_annotator.errors import (
    BackendAnswerInvalid,
    BackendRejected,
    BackendUnreachable,
    ConfigError,
    StoreError,
)
from llm_annotator.questions import QUESTIONS
from llm_annotator.store.answers import AnswerReader, StoredAnswer
from llm_annotator.types import Completion, Request

_log = logging.getLogger(__name__)

_SHOWN_BYTES = 80
"""How much of a caption stands in a message."""

_CONTENT_FREE = {question.captions(subject) for question in QUESTIONS.values() for subject in question.content_free}
"""Captions that are asked about to calibrate a labeler."""


@dataclass(frozen=True)
class ReplayOptions:
    """Options of the backend `replay` (`BackendConfig.options`)."""

    store: str = ""
    """Path of the store whose answers are given again, for example runs/NAME/annotations.sqlite."""


class NotInStore(BackendAnswerInvalid):
    """The store holds no answer to this question, and asking again will not change that.

    It counts against the caption, which ends as failed, and not against the backend, which answers other captions: a
    `BackendRejected` would hold those up.
    """

    retryable = False


class ReplayBackend:
    """Answers out of a store. `model` is the model that answered then, so that labelers have the ids of then."""

    name = "replay"

    def __init__(self, store: Path, model: str, *, max_concurrent: int = 4) -> None:
        self.model = model
        self.max_concurrent = max_concurrent
        self._store = store
        self._reader: AnswerReader | None = None
        self._told = False

    async def __aenter__(self) -> Self:
        self._reader = _open(self._store)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    async def complete(self, request: Request) -> Completion:
        """Returns the newest answer to exactly this question, one that held a label if there is any.

        Raises:
            NotInStore: there is none.
            BackendRejected: the question calibrates a labeler; the answers to those are in no store.
            BackendUnreachable: the store cannot be read at the moment.
        """
        if self._reader is None:
            raise RuntimeError("the backend is used outside of 'async with'")
        started = time.perf_counter()
        try:
            answers = self._reader.answers(request.captions, self.model)
        except StoreError as error:
            raise BackendUnreachable(f"the store to replay cannot be read: {error}") from error
        found = next((answer for answer in answers if _asked(request, answer)), None)
        if found is None:
            raise self._missing(request, asked_otherwise=bool(answers))
        return Completion(
            sent_prefix=found.prompt_prefix,
            sent_suffix=found.prompt_suffix,
            text=found.answer,
            logprobs=found.logprobs,
            model=found.model,
            tokens_in=found.tokens_in,
            tokens_out=found.tokens_out,
            latency_s=time.perf_counter() - started,
        )

    def _missing(self, request: Request, *, asked_otherwise: bool) -> BackendRejected | NotInStore:
        if request.captions in _CONTENT_FREE and not asked_otherwise:
            return BackendRejected(
                f"{self._store} does not hold the answers that calibrate a labeler, no store does: set "
                "annotator.labeler.calibration to 'none' to replay"
            )
        shown = " and ".join(_shown(caption) for caption in request.captions)
        if asked_otherwise:
            what = f"{self.model} was asked about {shown} with another goal or prompt only: replay with those of then"
        else:
            what = f"{self.model} never answered about {shown}: label it with another backend"
        message = f"{self._store} holds no answer to this question; {what} (annotator.labeler, annotator.backend)"
        if not self._told:
            self._told = True
            _log.warning("%s. Others like it fail unsaid.", message)
        return NotInStore(message)


def _shown(caption: bytes) -> str:
    return repr(caption[:_SHOWN_BYTES]) + ("..." if len(caption) > _SHOWN_BYTES else "")


def _asked(request: Request, answer: StoredAnswer) -> bool:
    """Returns whether the question is, to the letter, the one that was answered, as plain text or as chat."""
    if (answer.prompt_prefix, answer.prompt_suffix) == (_stored(request.text_prefix), _stored(request.text_suffix)):
        return True
    try:
        messages = json.loads(answer.prompt_prefix + answer.prompt_suffix)
    except ValueError:
        return False
    return messages == [message._asdict() for message in request.messages]


def _stored(text: str) -> str:
    """Returns a prompt as a store writes it: lone surrogates, which no UTF-8 column can hold, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _open(path: Path) -> AnswerReader:
    try:
        return AnswerReader(path)
    except StoreError as error:
        hint = "; it is a folder, name the .sqlite file in it" if path.is_dir() else ""
        raise ConfigError(f"backend 'replay' cannot use its option 'store': {error}{hint}") from error


def create(config: BackendConfig) -> ReplayBackend:
    """Returns the backend `replay`."""
    options = read_options("replay", config.options, ReplayOptions)
    if not options.store:
        raise ConfigError(
            "backend 'replay' needs the option 'store', the file whose answers it gives again "
            "(backend.options.store runs/NAME/annotations.sqlite)"
        )
    path = Path(options.store).expanduser()
    reader = _open(path)
    try:
        models = reader.models()
    except StoreError as error:
        raise ConfigError(f"backend 'replay' cannot use its option 'store': {error}") from error
    finally:
        reader.close()
    return ReplayBackend(path, _chosen(config.model, models, path), max_concurrent=config.max_concurrent)


def _chosen(wanted: str | None, models: list[str], path: Path) -> str:
    if not models:
        raise ConfigError(f"{path} holds no answer of a model yet: there is nothing to replay")
    listed = ", ".join(map(repr, models))
    if wanted is None:
        if len(models) > 1:
            raise ConfigError(f"{path} holds answers of several models: set backend.model to one of {listed}")
        return models[0]
    if wanted not in models:
        raise ConfigError(f"{path} holds no answer of the model {wanted!r}: set backend.model to one of {listed}")
    return wanted
