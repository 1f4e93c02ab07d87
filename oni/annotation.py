"""The annotator as the trainer sees it: a service of its own or a shared one, talked to without ever waiting."""

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np

from llm_annotator import (
    AnnotatorClient,
    AnnotatorError,
    ClientHealth,
    LabelerSpec,
    LabelUpdate,
    Occurrence,
    ServiceProcess,
    create_backend,
    resolve_labeler,
)
from llm_annotator import ConfigError as AnnotatorConfigError
from oni.captions import CaptionTable
from oni.config import TrainConfig
from oni.errors import ConfigError, OniError
from oni.rundir import RunDir

OFFER_AGAIN_S = 20.0
"""Seconds between two offers of the captions that still have no label: an answer may have failed, or a queue have
been full."""

RECORD_EVERY_S = 5.0
"""Seconds between two reports of what captions occurred and earned."""

_FLUSH_S = 5.0


def check_annotator(config: TrainConfig) -> LabelerSpec:
    """Reads goal and prompt, and sees that there is such a backend.

    Raises:
        ConfigError: one of them cannot be used.
    """
    try:
        if config.annotator.url is None:
            create_backend(config.annotator.backend)
        return resolve_labeler(config.annotator.labeler)
    except AnnotatorConfigError as error:
        raise ConfigError(str(error)) from error


class AnnotationSession:
    """Starts or joins the annotator of a run, offers captions, reports totals."""

    def __init__(self, run: RunDir, config: TrainConfig) -> None:
        self._run = run
        self._config = config
        self._labeler = check_annotator(config)
        self._stack = ExitStack()
        self._service: ServiceProcess | None = None
        self._dirty: set[int] = set()
        now = time.monotonic()
        self._offered_at, self._recorded_at = now, now

    @property
    def labeler(self) -> str:
        """What judges captions (goal, prompt, method), as text to compare."""
        return json.dumps(self._labeler.to_wire(), sort_keys=True)

    def __enter__(self) -> Self:
        annotator, labeler = self._config.annotator, self._labeler
        try:
            if annotator.url is None:
                self._service = self._stack.enter_context(
                    ServiceProcess(self._run.store, annotator, self._run.annotator_log)
                )
                url, token = self._service.url, self._service.token
            else:
                url, token = annotator.url, os.environ.get(annotator.token_env)
            self._client = self._stack.enter_context(
                AnnotatorClient(
                    url,
                    self._run.meta()["run_id"],
                    self._run.path.name,
                    {"env": self._config.env.id, "seed": self._config.seed, "reward": self._config.reward.kind},
                    labeler,
                    token=token,
                )
            )
        except AnnotatorConfigError as error:
            self._stack.close()
            raise ConfigError(str(error)) from error
        except AnnotatorError as error:
            self._stack.close()
            raise OniError(str(error)) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def health(self) -> ClientHealth:
        """How labelling fares; the message is empty if all is well."""
        health = self._client.health
        if self._service is not None:
            service = self._service.health
            if service.given_up:
                return replace(health, connected=False, message=service.given_up)
            if not service.running:
                return replace(health, connected=False, message=f"the annotator restarts: {service.last_exit}")
        return health

    def submit(self, captions: Sequence[bytes]) -> None:
        """Asks for labels."""
        self._client.submit(captions)

    def poll(self) -> list[LabelUpdate]:
        """Returns the news since the last call."""
        return self._client.poll()

    def tend(self, captions: CaptionTable, seen: Iterable[int]) -> None:
        """Does what is due now and then: offers unlabelled captions again, reports totals.

        Args:
            seen: ids that came up since the last call.
        """
        self._dirty.update(int(i) for i in seen)
        now = time.monotonic()
        if now - self._offered_at > OFFER_AGAIN_S:
            self._offered_at = now
            limit = self._config.annotator.engine.max_queue
            # newest last: the annotator asks about the last one first
            self.submit([captions.texts[i] for i in reversed(captions.unlabelled()[:limit])])
        if now - self._recorded_at > RECORD_EVERY_S:
            self._recorded_at = now
            self._record(captions)

    def _record(self, captions: CaptionTable) -> None:
        self._client.record([_occurrence(captions, i) for i in sorted(self._dirty)])
        self._dirty.clear()

    def finish(self, captions: CaptionTable, *, take: Callable[[list[LabelUpdate]], Any]) -> None:
        """Waits up to `annotator.drain_s` for labels still under way, and until the last totals are stored.

        Args:
            take: gets the labels that came in.
        """
        if self._config.annotator.drain_s > 0:
            self._client.drain(self._config.annotator.drain_s)
        take(self.poll())
        self._record(captions)
        self._client.flush(_FLUSH_S)


def _occurrence(captions: CaptionTable, caption_id: int) -> Occurrence:
    return Occurrence(
        caption=captions.texts[caption_id],
        count=int(captions.count[caption_id]),
        first_step=int(captions.first_step[caption_id]),
        last_step=int(captions.last_step[caption_id]),
        reward_sum=float(np.float64(captions.reward_sum[caption_id])),
        episode_count=int(captions.episode_count[caption_id]),
    )
