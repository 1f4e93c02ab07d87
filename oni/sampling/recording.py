"""Sends what a run samples for people to its annotator's store."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol, Self

from llm_annotator.types import SampledTransition
from oni.config import SamplingConfig
from oni.sampling.sampler import Sampler
from oni.sampling.scores import ScoreLog
from oni.trainer import Trainer

_FINISH_S = 5.0
"""Longest that the end of a run waits for moments that are still to be drawn."""


class Recorder(Protocol):
    """Where moments and scores go; `AnnotatorClient` is one. Both calls return at once."""

    def record_transitions(self, moments: list[SampledTransition]) -> None:
        """Keeps moments."""
        ...

    def record_scores(self, env_step: int, scores: list[tuple[bytes, float]]) -> None:
        """Keeps scores of captions."""
        ...


class Recording:
    """Samples moments and scores of a run while it trains; to be used as a context manager.

    Args:
        seed: of the randomness by which moments are chosen.
        clock: seconds of any steady clock.
    """

    def __init__(
        self,
        config: SamplingConfig,
        trainer: Trainer,
        recorder: Recorder,
        *,
        seed: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trainer = trainer
        self._recorder = recorder
        self._scores = ScoreLog(config.scores_every_s, clock)
        self._sampler: Sampler | None = None
        if config.moments:
            self._sampler = Sampler(config, trainer.env, trainer.devices, seed=seed, clock=clock)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if self._sampler is not None:
            self._stack.enter_context(self._sampler)
            self._trainer.sample_with(self._sampler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def counts(self) -> tuple[int, int]:
        """How many moments were drawn, and how many could not be."""
        return (0, 0) if self._sampler is None else (self._sampler.taken, self._sampler.failed)

    def after_update(self) -> None:
        """Sends what there is to send."""
        if self._sampler is not None:
            self._recorder.record_transitions(self._sampler.take())
        self._send_scores()

    def finish(self) -> None:
        """Sends what is left at the end of a run; of very many scores that changed, `MAX_AT_THE_END`."""
        if self._sampler is not None:
            self._recorder.record_transitions(self._sampler.finish(_FINISH_S))
        self._send_scores(last=True)

    def _send_scores(self, *, last: bool = False) -> None:
        trainer = self._trainer
        scores = self._scores.due(trainer.captions.texts, trainer.rewarding.latest_scores, last=last)
        self._recorder.record_scores(trainer.env_step, scores)
