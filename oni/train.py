"""The loop of a run: updates, labels, figures, checkpoints, until the steps are done or someone stops it."""

import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from oni.annotation import AnnotationSession
from oni.checkpoint import Checkpoints
from oni.config import TrainConfig
from oni.configfile import to_yaml
from oni.metrics import MetricsWriter, Speed, annotator_metrics, truncate_after
from oni.progress import Reporter, make_reporter
from oni.rundir import RunDir, RunLock, write_atomically
from oni.sampling.recording import Recording
from oni.stopping import StopRequest
from oni.trainer import Progress, Trainer

log = logging.getLogger(__name__)

TOP_EARNERS = 8
"""Captions named in the summary."""


@dataclass(frozen=True)
class Summary:
    """What a run came to.

    metrics: the last figures. top_earners: captions with their share of all intrinsic reward and their label.
    steps_per_s: over the whole run, without the first update, which compiles. duration_s: of the training itself.
    stopped_by: name of the signal that stopped it, None if it went to its end. saved: whether its end is in a
    checkpoint. warning: what is wrong with the annotator, if anything.
    """

    run: RunDir
    env_step: int
    metrics: Mapping[str, float | int | None]
    top_earners: list[tuple[str, float, bool | None]]
    steps_per_s: float | None
    duration_s: float
    stopped_by: str | None
    saved: bool
    warning: str


class _Loop:
    """One process of training in a run directory."""

    def __init__(
        self,
        config: TrainConfig,
        run: RunDir,
        trainer: Trainer,
        session: AnnotationSession | None,
        recording: Recording | None,
        checkpoints: Checkpoints,
        writer: MetricsWriter,
        reporter: Reporter,
        stop: StopRequest,
    ) -> None:
        self._config = config
        self._run = run
        self._trainer = trainer
        self._session = session
        self._recording = recording
        self._checkpoints = checkpoints
        self._writer = writer
        self._reporter = reporter
        self._stop = stop
        self._metrics: dict[str, float | int | None] = {"env_step": trainer.env_step}
        self._speed = Speed()
        self._saved_at = time.monotonic()
        self._saved = False
        self._logged_at = trainer.env_step
        self._begun = time.perf_counter()
        self._started = (self._begun, trainer.env_step)

    def run(self) -> Summary:
        stop = self._stop
        compiled = False
        while self._trainer.env_step < self._config.total_env_steps and not stop:
            left = self._config.total_env_steps - self._trainer.env_step
            self._step(last=left <= self._config.steps_per_update)
            if not compiled:
                self._trainer.wait()
                self._started = (time.perf_counter(), self._trainer.env_step)
                compiled = True
        elapsed = time.perf_counter() - self._started[0]
        steps = self._trainer.env_step - self._started[1]
        stopped_by = stop.reason  # Ctrl-C while the last answers are awaited ends that alone
        self._finish()
        return Summary(
            run=self._run,
            env_step=self._trainer.env_step,
            metrics=self._metrics,
            top_earners=self._trainer.top_earners(TOP_EARNERS),
            steps_per_s=steps / elapsed if steps else None,
            duration_s=time.perf_counter() - self._begun,
            stopped_by=stopped_by,
            saved=self._saved,
            warning=self._warning(),
        )

    def _warning(self) -> str:
        return "" if self._session is None else self._session.health.message

    def _step(self, *, last: bool) -> None:
        self._update(last=last)
        if self._trainer.updates_done % self._config.log.every_updates == 0:
            self._log()
        if time.monotonic() - self._saved_at > self._config.checkpoint.every_s:
            self._save()

    def _update(self, *, last: bool) -> None:
        trainer = self._trainer
        if self._session is not None:
            trainer.take_labels(self._session.poll())
        progress = trainer.update(last=last)
        if self._session is not None:
            self._session.ask(trainer.captions, progress.new)
            self._session.tend(trainer.captions, progress.seen)
            if self._recording is not None:
                self._recording.after_update()
            if self._config.annotator.deterministic:
                self._session.wait(stop=lambda: bool(self._stop))
        # figures of before stay where this update has none, which is so after a checkpoint
        self._metrics |= self._figures(progress)

    def _figures(self, progress: Progress) -> dict[str, float | int | None]:
        trainer = self._trainer
        figures: dict[str, float | int | None] = {"env_step": trainer.env_step, **progress.metrics}
        figures["devices"] = trainer.devices.count
        return figures | self._annotator_metrics()

    def _annotator_metrics(self) -> dict[str, float | int | None]:
        if self._session is None:
            return {}
        return annotator_metrics(self._session.health)

    def _log(self) -> None:
        env_step = self._trainer.env_step
        if env_step == self._logged_at:
            return
        self._logged_at = env_step
        self._metrics["steps_per_s"] = self._speed.read(env_step)
        self._metrics["wall_s"] = time.perf_counter() - self._begun
        self._writer.write(self._metrics)
        self._reporter.report(self._metrics, self._warning())

    def _settle(self) -> None:
        """Ends what is under way and takes in its figures, so that all state belongs to the same moment."""
        if self._trainer.is_ahead:
            self._update(last=True)
            if self._trainer.updates_done % self._config.log.every_updates == 0:
                self._log()
        progress = self._trainer.flush()
        if self._session is not None:
            self._session.tend(self._trainer.captions, progress.seen)
        self._metrics |= progress.metrics

    def _save(self) -> bool:
        self._settle()
        self._saved_at = time.monotonic()
        host = self._trainer.host_state() | {"labeler": None if self._session is None else self._session.labeler}
        trainer = self._trainer
        return self._checkpoints.save(trainer.updates_done, trainer.state, host, reward=trainer.reward_arrays())

    def _finish(self) -> None:
        self._settle()
        self._log()
        if self._recording is not None:
            self._recording.finish()
        if self._session is not None:
            self._session.finish(
                self._trainer.captions,
                take=self._trainer.take_labels,
                stop=lambda: bool(self._stop),
                say=self._reporter.say,
            )
            self._metrics |= self._trainer.caption_metrics() | self._annotator_metrics()
        self._saved = self._save()
        self._reporter.report(self._metrics, self._warning())


def train(config: TrainConfig, run: RunDir, *, resume: bool) -> Summary:
    """Trains until `total_env_steps`, Ctrl-C or SIGTERM; saves in each case.

    Raises:
        OniError: the settings cannot be used, the run directory or its checkpoint cannot, or the annotator cannot
            start. Nothing that the annotator meets later ends a run.
    """
    with ExitStack() as stack:
        stack.enter_context(RunLock(run))
        reporter = stack.enter_context(make_reporter(config.total_env_steps))
        stop = stack.enter_context(StopRequest())
        trainer = stack.enter_context(Trainer(config))
        checkpoints = stack.enter_context(Checkpoints(run.checkpoints, keep=config.checkpoint.keep))
        labeler = _restore(trainer, checkpoints, run, reporter) if resume else None
        session: AnnotationSession | None = None
        recording: Recording | None = None
        if trainer.reward_model.needs != "nothing":
            session = stack.enter_context(AnnotationSession(run, config, trainer.reward_model))
            if labeler not in (None, session.labeler):
                trainer.forget_labels()
                reporter.say("Goal or prompt changed: every caption is asked about anew.")
            session.begin(trainer.captions)
            recording = stack.enter_context(
                Recording(config.sampling, trainer, session.recorder, seed=config.seed + trainer.env_step)
            )
            if config.annotator.deterministic:
                session.wait(stop=lambda: bool(stop))
        writer = stack.enter_context(MetricsWriter(run.metrics_file, tensorboard=config.log.tensorboard))
        reporter.say(
            f"Training {config.env.id} on {trainer.devices} in {run.path}; the first update compiles for some seconds."
        )
        return _Loop(config, run, trainer, session, recording, checkpoints, writer, reporter, stop).run()


def _restore(trainer: Trainer, checkpoints: Checkpoints, run: RunDir, reporter: Reporter) -> str | None:
    """Goes on from the newest checkpoint, or from the start if there is none yet; returns the labeler of before."""
    labeler: str | None = None
    if checkpoints.latest is None:
        reporter.say("There is no checkpoint yet: the run begins anew.")
    else:
        restored: Any = checkpoints.restore(like=trainer.state, reward=trainer.reward_arrays())
        trainer.load(restored.device, restored.host, restored.reward)
        labeler = restored.host.get("labeler")
        if trainer.env_step >= trainer.config.total_env_steps:
            reporter.say(f"All {trainer.env_step:,} steps are done already: raise --total-env-steps to go on.")
        else:
            reporter.say(f"Going on after {trainer.env_step:,} steps.")
    truncate_after(run.metrics_file, trainer.env_step)
    write_atomically(run.config_file, to_yaml(trainer.config))
    return labeler
