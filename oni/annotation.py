"""The annotator as the trainer sees it: a service of its own or a shared one, talked to without ever waiting.

Except where a run is to be reproduced: `AnnotationSession.wait`.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from llm_annotator import (
    AnnotatorClient,
    AnnotatorError,
    ClientHealth,
    Comparison,
    LabelerSpec,
    News,
    Occurrence,
    ServiceProcess,
    Subject,
    check_settings,
    resolve_labeler,
)
from llm_annotator import ConfigError as AnnotatorConfigError
from oni.asking import make_asking
from oni.captions import CaptionTable
from oni.config import TrainConfig
from oni.draining import drain
from oni.errors import ConfigError, OniError
from oni.rewards import Needs, RewardModel
from oni.rundir import RunDir

RECORD_EVERY_S = 5.0
"""Seconds between two reports of what captions occurred and earned, at least."""

RECORDED_PER_S = 100
"""Captions reported a second, at most on average: with the thousands of NetHack, reports every five seconds cost a
tenth of the speed of training on two cores."""

STALL_S = 60.0
"""Longest that `wait` goes on without a single answer."""

_FLUSH_S = 5.0

_LOOK_S = 0.25
"""How often `wait` looks whether it shall go on."""

_GLANCE_S = 0.01
"""How long `wait` waits after it was given up once, until the annotator has caught up."""

_log = logging.getLogger(__name__)


_QUESTIONS: dict[Needs, Literal["label", "preference"]] = {"labels": "label", "preferences": "preference"}


def _never() -> bool:
    return False


def check_annotator(config: TrainConfig, needs: Needs) -> LabelerSpec:
    """Reads goal and prompt, and sees that there is such a backend.

    Args:
        needs: what the reward model needs to be asked for.

    Raises:
        ConfigError: one of them cannot be used.
    """
    try:
        if config.annotator.url is None:
            check_settings(config.annotator)
        return resolve_labeler(config.annotator.labeler, question=_QUESTIONS[needs])
    except AnnotatorConfigError as error:
        raise ConfigError(str(error)) from error


class AnnotationSession:
    """Starts or joins the annotator of a run, asks what the reward model needs to know, reports totals."""

    def __init__(self, run: RunDir, config: TrainConfig, model: RewardModel) -> None:
        self._run = run
        self._config = config
        self._labeler = check_annotator(config, model.needs)
        self._asking = make_asking(config, model)
        self._stack = ExitStack()
        self._service: ServiceProcess | None = None
        self._dirty: set[int] = set()
        self._answering = ""  # id of the labeler that answers
        self._awaits_answers = False
        self._stalled = False
        self._recorded_at = time.monotonic()

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

    @property
    def recorder(self) -> AnnotatorClient:
        """Takes what is sampled for people to look at."""
        return self._client

    def submit(self, subjects: Sequence[Subject]) -> None:
        """Asks about these, the last one first."""
        if subjects:
            self._awaits_answers = True
            self._client.submit(subjects)

    def begin(self, captions: CaptionTable) -> None:
        """Asks what is to be known from the start, and reports the totals of before."""
        self.tend(captions, range(1, len(captions)))
        self.submit(self._asking.begin(captions))

    def ask(self, captions: CaptionTable, new: Sequence[bytes]) -> None:
        """Asks what an update gives reason to ask.

        Args:
            new: captions that came up in it for the first time.
        """
        self.submit(self._asking.after_update(captions, new, queued=self._client.health.queued))

    def poll(self) -> list[News]:
        """Returns the news since the last call; if `annotator.deterministic`, in an order that no timing decides."""
        updates = self._client.poll()
        if self._config.annotator.deterministic:
            updates.sort(key=_subject)  # stable: of one subject the newest stays last
        return updates

    def wait(self, *, stop: Callable[[], object] = _never, stall_s: float = STALL_S) -> bool:
        """Waits until every caption submitted so far is labelled or given up on; `poll` then returns what is new.

        Without a single answer for `stall_s` seconds it logs a warning and gives up. From then on it returns almost at
        once, so that a dead LLM stops no run, until the annotator has caught up.

        Args:
            stop: looked at several times a second; a true value ends the waiting.

        Returns:
            False if some captions are still without an answer.
        """
        if not self._awaits_answers:
            return True
        if self._drained(stop, stall_s):
            self._awaits_answers = False
            if self._stalled:
                _log.warning("The annotator has caught up; updates wait for their labels again.")
            self._stalled = False
        return not self._awaits_answers

    def _drained(self, stop: Callable[[], object], stall_s: float) -> bool:
        if self._stalled:
            return self._client.drain(_GLANCE_S)
        fewest: int | None = None
        looked_at = answered_at = time.monotonic()
        while not self._client.drain(_LOOK_S):
            # A client that has failed does not wait: it says so at once, and here is no place for a busy loop.
            time.sleep(max(0.0, looked_at + _LOOK_S - time.monotonic()))
            looked_at, left = time.monotonic(), self._client.health.queued
            if fewest is None or left < fewest:
                fewest, answered_at = left, looked_at
            if stop():
                return False
            if looked_at - answered_at >= stall_s or self._given_up or self._client.health.service.exhausted:
                self._stalled = True
                _log.warning(
                    "No answer for %.0f s about %d captions: updates no longer wait for their labels, so the same seed "
                    "need not give these metrics again. %s",
                    looked_at - answered_at,
                    left,
                    self.health.message,
                )
                return False
        return True

    def drain(self, timeout_s: float) -> bool:
        """Waits until everything is answered; returns False if that takes longer."""
        return self._client.drain(timeout_s)

    @property
    def _given_up(self) -> bool:
        return self._service is not None and bool(self._service.health.given_up)

    def tend(self, captions: CaptionTable, seen: Iterable[int]) -> None:
        """Does what is due now and then: asks once more or sooner, reports totals.

        Args:
            seen: ids that came up since the last call.
        """
        self._dirty.update(int(i) for i in seen)
        self._ask_another_labeler(captions)
        self.submit(self._asking.now_and_then(captions, queued=self.health.queued))
        now = time.monotonic()
        if now - self._recorded_at > max(RECORD_EVERY_S, len(self._dirty) / RECORDED_PER_S):
            self._recorded_at = now
            self._record(captions)

    def _ask_another_labeler(self, captions: CaptionTable) -> None:
        """Asks about everything once more if a shared annotator was started again with another model."""
        labeler = self._client.health.labeler
        if not labeler or labeler == self._answering:
            return
        if self._answering:
            self.submit(self._asking.begin(captions))
        self._answering = labeler

    def _record(self, captions: CaptionTable) -> None:
        self._client.record([_occurrence(captions, i) for i in sorted(self._dirty)])
        self._dirty.clear()

    def finish(
        self,
        captions: CaptionTable,
        *,
        take: Callable[[list[News]], Any],
        stop: Callable[[], object] = _never,
        say: Callable[[str], None] = _log.info,
    ) -> None:
        """Waits up to `annotator.drain_s` for labels still under way, and until the last totals are stored.

        Args:
            take: gets the answers that came in.
            stop: a true value ends the waiting for labels at once; a run that was stopped does not begin it.
            say: gets what the user should read.
        """
        if self._config.annotator.drain_s > 0:
            drain(self, self._config.annotator.drain_s, stop=lambda: stop() or self._given_up, say=say)
        take(self.poll())
        self._record(captions)
        self._client.flush(_FLUSH_S)


def _subject(news: News) -> tuple[bytes, ...]:
    return (news.first, news.second) if isinstance(news, Comparison) else (news.caption,)


def _occurrence(captions: CaptionTable, caption_id: int) -> Occurrence:
    return Occurrence(
        caption=captions.texts[caption_id],
        count=int(captions.count[caption_id]),
        first_step=int(captions.first_step[caption_id]),
        last_step=int(captions.last_step[caption_id]),
        reward_sum=float(np.float64(captions.reward_sum[caption_id])),
        episode_count=int(captions.episode_count[caption_id]),
    )
