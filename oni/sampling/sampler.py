"""Takes moments out of rollouts: chosen on the host, gathered on the device, drawn and packed in a thread."""

import contextlib
import logging
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from envs.host.types import HostEnv
from envs.types import JaxEnv
from llm_annotator.moments import MAX_PACKED_BYTES, pack_moment
from llm_annotator.types import SampledTransition
from oni.actors.scenes import Scenes, ScenesOfGame
from oni.config import SamplingConfig
from oni.devices import Devices
from oni.sampling.rendering import Cut, Renderer, Source
from oni.sampling.reservoir import Pick, Reservoir, Room
from oni.sampling.windows import PICKS, Window, make_gather, span_of
from oni.types import Rollout

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.1
"""Seconds between two looks at a rollout, at least."""

BURST_S = 10.0
"""Seconds whose moments may be taken at once: at the start of a run, where everything is new, and after quiet ones."""

MAX_JOBS = 2
"""Rollouts whose moments wait to be drawn; each keeps some hundred kilobytes."""

MAX_DONE = 256
"""Moments that wait to be taken, the newest."""

LITTLE_ROOM = 0.75
"""Share of the room from which on only captions without a moment get one, and others only in place of an older one."""

NICENESS = 10
"""Of the thread, where threads can have one: drawing yields to training."""


class Look(NamedTuple):
    """One rollout that was rewarded. scenes: what its games showed beside what the policy saw. env_step: before it."""

    rollout: Rollout
    intrinsic: Float[Array, "T B"]
    caption_id: Int[Array, "T B"]
    texts: Sequence[bytes]
    scenes: Scenes | None
    env_step: int


class _Job(NamedTuple):
    """Moments that are to be drawn. window: of all picks, on the device until it is asked for."""

    picks: list[Pick]
    window: Window
    scenes: list[ScenesOfGame | None]
    source: Source


class _Done(NamedTuple):
    """One moment that was drawn. is_new: it takes no other one's place."""

    moment: SampledTransition
    is_new: bool


class Sampler:
    """Keeps moments in which captions were said; to be used as a context manager.

    `look` is for the thread that trains. It chooses, starts the gathering on the device and returns; a thread of low
    priority does all else, and `take` returns what it has done.

    Args:
        seed: of its own randomness.
        clock: seconds of any steady clock.
    """

    def __init__(
        self,
        config: SamplingConfig,
        env: JaxEnv[Any] | HostEnv,
        devices: Devices,
        *,
        seed: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._clock = clock
        self._gather = make_gather(devices, before=config.before, after=config.after)
        self._renderer = Renderer(env, before=config.before, breathe=lambda: time.sleep(0))
        self._reservoir = Reservoir(config.moments, np.random.default_rng(seed))
        self._jobs: queue.Queue[_Job | None] = queue.Queue(MAX_JOBS)
        self._done: deque[_Done] = deque(maxlen=MAX_DONE)
        self._most_allowed = max(1.0, BURST_S * config.per_s)
        self._allowance = self._most_allowed
        self._looked_at: float | None = None
        self._bytes = 0.0
        self._thread: threading.Thread | None = None
        self.taken = 0
        """Moments that were drawn."""
        self.failed = 0
        """Moments that could not be drawn; the log says why."""

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._work, name="sampling", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self, timeout_s: float = 5.0) -> None:
        """Ends the thread, after the moments that it still has to draw; gives up on it after `timeout_s`."""
        if self._thread is not None:
            with contextlib.suppress(queue.Full):
                self._jobs.put(None, timeout=timeout_s)
            self._thread.join(timeout_s)
            self._thread = None

    def look(self, look: Look) -> None:
        """Takes moments out of a rollout, if it is time for some."""
        now = self._clock()
        elapsed_s = LOOK_EVERY_S if self._looked_at is None else now - self._looked_at
        if elapsed_s < LOOK_EVERY_S or self._thread is None or self._jobs.full():
            return
        self._looked_at = now
        self._allowance = min(self._most_allowed, self._allowance + elapsed_s * self._config.per_s)
        if self._allowance < 1.0:
            return
        ids = np.asarray(look.caption_id)
        watched = ids if look.scenes is None else ids[:, : look.scenes.num_rows]
        picks = self._reservoir.choose(watched, limit=min(PICKS, int(self._allowance)), room=self._room)
        if picks:
            self._allowance -= len(picks)
            self._jobs.put_nowait(self._job(look, picks, num_envs=ids.shape[1]))

    @property
    def _room(self) -> Room:
        share = self._bytes / (self._config.max_mb * 1e6)
        return "plenty" if share < LITTLE_ROOM else "little" if share < 1.0 else "none"

    def _job(self, look: Look, picks: list[Pick], *, num_envs: int) -> _Job:
        config, scenes = self._config, look.scenes
        rollout = look.rollout
        if scenes is not None:  # what is drawn is with the scenes
            rollout = rollout._replace(obs=(), last_obs=())
        where = np.zeros((PICKS, 2), np.int32)
        where[: len(picks)] = [(pick.step, pick.row) for pick in picks]
        return _Job(
            picks=picks,
            window=self._gather(rollout, look.intrinsic, look.caption_id, where),
            scenes=[
                scenes and scenes.cut(pick.row, pick.step - config.before, pick.step + config.after) for pick in picks
            ],
            source=Source(
                env_step=look.env_step,
                num_envs=num_envs,
                num_steps=look.caption_id.shape[0],
                caption_of=look.texts.__getitem__,
            ),
        )

    def take(self) -> list[SampledTransition]:
        """Returns the moments drawn since the last call."""
        done = [self._done.popleft() for _ in range(len(self._done))]
        num_kept = self._reservoir.num_kept
        for one in done:  # of the one whose place it takes only the mean size is known
            self._bytes += len(one.moment.frames) - (0.0 if one.is_new else self._bytes / max(num_kept, 1))
        return [one.moment for one in done]

    def finish(self, timeout_s: float) -> list[SampledTransition]:
        """Returns what is left once all is drawn, or after `timeout_s`; looks at nothing more."""
        self.close(timeout_s)
        return self.take()

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint must hold, as JSON values."""
        return {"reservoir": self._reservoir.state_dict(), "bytes": self._bytes}

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` returned; from nothing, as of a checkpoint without it, anew."""
        self._reservoir.load(state.get("reservoir", {}))
        self._bytes = float(state.get("bytes", 0.0))

    def _work(self) -> None:
        _be_nice()
        while (job := self._jobs.get()) is not None:
            try:
                self._draw(job)
            except Exception:  # noqa: BLE001 - outermost frame of the thread
                if not self.failed:
                    _log.exception("moments could not be drawn; the training goes on, others like it are only counted")
                self.failed += len(job.picks)

    def _draw(self, job: _Job) -> None:
        config = self._config
        host: Window = jax.device_get(job.window)
        for number, (pick, scenes) in enumerate(zip(job.picks, job.scenes, strict=True)):
            window: Window = jax.tree.map(lambda leaf, number=number: leaf[number], host)
            span = span_of(
                pick.step,
                reset=np.asarray(window.reset),
                ended=np.asarray(window.terminated | window.truncated),
                before=config.before,
                after=config.after,
                num_steps=job.source.num_steps,
            )
            moment = self._renderer.moment(Cut(pick, window, span, scenes), job.source)
            frames = pack_moment(moment)
            if len(frames) > MAX_PACKED_BYTES:
                self.failed += 1
                continue
            centre = moment.frames[moment.centre]
            sampled = SampledTransition(caption=centre.caption, env_step=centre.env_step, slot=pick.slot, frames=frames)
            self._done.append(_Done(sampled, is_new=pick.is_new))
            self.taken += 1


def _be_nice() -> None:
    """Lowers the priority of the calling thread; only Linux knows one for a thread."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
