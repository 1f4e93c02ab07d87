"""The trainer's side of the annotator: captions (or pairs of them) in, labels (or comparisons) out, never waiting.

with AnnotatorClient(url, run_id, "quickstart", {}, labeler) as client:
    client.submit([b"You see a key."])
    ...
    for update in client.poll():
        print(update.caption, update.helpful)
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
import time
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from llm_annotator.mailbox import ClientHealth, Mailbox, Sampled
from llm_annotator.secret import clean_secret
from llm_annotator.types import CaptionScore, News, Occurrence, SampledTransition, Subject

if TYPE_CHECKING:
    from llm_annotator.client_worker import Worker
    from llm_annotator.labeler import LabelerSpec

_log = logging.getLogger(__name__)

MAX_BATCHES = 1024
"""Calls of `submit` or `record` that wait for the background thread; it needs microseconds for one."""

MAX_RECORDS = 8192
"""Moments and scores that wait for the background thread, likewise."""

JOIN_TIMEOUT_S = 5.0
"""Longest that closing waits for the background thread."""


class AnnotatorClient:
    """One run's connection to an annotator service.

    Inside the `with` block `submit`, `poll` and `record` return at once, and nothing that happens to the service makes
    them raise: a background thread does the talking, offers what is unanswered again after the service was away, and
    keeps `health`.

    Raises:
        ConfigError: a token that no header can carry.
    """

    def __init__(
        self,
        url: str,
        run_id: str,
        run_name: str,
        run_config: dict[str, Any],
        labeler: "LabelerSpec",
        token: str | None = None,
    ) -> None:
        registration = {"run_id": run_id, "name": run_name, "config": run_config, "labeler": labeler.to_wire()}
        token = clean_secret(token, "the annotator's token (annotator.token_env names its environment variable)")
        self._question = labeler.asking
        self._arguments = (url, registration, self._question, token)
        self._mailbox = Mailbox()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: Worker | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="annotator-client", daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def submit(self, subjects: Sequence[Subject]) -> None:
        """Asks about subjects, the last one first, before all that was submitted until now.

        Subjects are captions or, if the labeler compares, ordered pairs of captions. Known ones, the empty caption, and
        pairs with it or of twice the same cost nothing. One that still waits for its answer comes to the front.
        A subject that was answered without a label may be submitted again and again: it is asked once in a while.

        Raises:
            TypeError: a subject of the other kind.
        """
        for subject in subjects:
            self._question.captions(subject)
        if subjects:
            self._post(tuple(subjects))

    def record(self, occurrences: Sequence[Occurrence]) -> None:
        """Keeps the run's totals of captions; only the latest of each caption is sent, every few seconds."""
        if occurrences:
            self._post(tuple(occurrences))

    def record_transitions(self, moments: Sequence[SampledTransition]) -> None:
        """Sends moments of the run for people to look at; those that there is no room for are dropped and counted."""
        self._keep(moments)

    def record_scores(self, env_step: int, scores: Sequence[tuple[bytes, float]]) -> None:
        """Sends what the reward model makes of captions at `env_step`, for people to look at; as `record_transitions`.

        Args:
            scores: captions with their scores.
        """
        self._keep([CaptionScore(caption=caption, env_step=env_step, score=score) for caption, score in scores])

    def poll(self) -> list[News]:
        """Returns the news since the last call, about what this run submitted, oldest first.

        They are of type `LabelUpdate` or, if the labeler compares, `Comparison`.
        """
        updates = self._mailbox.updates
        return [updates.popleft() for _ in range(len(updates))]

    @property
    def health(self) -> ClientHealth:
        """How labelling fares, as of the last exchange with the service."""
        return self._mailbox.health

    def drain(self, timeout_s: float) -> bool:
        """Waits until every submitted subject is answered; returns False if that took longer than `timeout_s`."""
        return self._wait_for("drained", timeout_s)

    def flush(self, timeout_s: float) -> bool:
        """Waits until all that was recorded is stored or dropped; returns False if it took longer than `timeout_s`."""
        return self._wait_for("flushed", timeout_s)

    def close(self) -> None:
        """Ends the background thread. Labels that come later are in the store; occurrences need `flush` before."""
        if self._thread is None or self._closed:
            return
        self._closed = True
        self._call("stop")
        self._thread.join(JOIN_TIMEOUT_S)

    def _post(self, batch: tuple[Subject, ...] | tuple[Occurrence, ...]) -> None:
        mailbox = self._mailbox
        if len(mailbox.batches) >= MAX_BATCHES:
            # The background thread is stuck or dead. The newest are kept, as everywhere.
            with contextlib.suppress(IndexError):  # it has taken them all meanwhile
                lost = mailbox.batches.popleft()
                mailbox.dropped_captions += 0 if isinstance(lost[0], Occurrence) else len(lost)
        mailbox.batches.append(batch)
        self._call("take")

    def _keep(self, records: Sequence[Sampled]) -> None:
        mailbox = self._mailbox
        room = max(0, MAX_RECORDS - len(mailbox.records))
        mailbox.records.extend(records[:room])
        mailbox.dropped_records += len(records[room:])
        if records:
            self._call("take")

    def _call(self, method: Literal["take", "stop"]) -> None:
        self._check_opened()
        loop, worker = self._loop, self._worker
        if loop is None or worker is None:  # the thread failed before it had them; `health` says why
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: `health` says why, or the client was closed
            loop.call_soon_threadsafe(getattr(worker, method))

    def _check_opened(self) -> None:
        if self._thread is None:
            raise RuntimeError("AnnotatorClient is not open: use it in a `with` statement")

    def _wait_for(self, event: Literal["drained", "flushed"], timeout_s: float) -> bool:
        self._check_opened()
        if self._loop is None or self._worker is None:
            return False
        deadline = time.monotonic() + timeout_s
        waiting: Coroutine[Any, Any, None] = getattr(self._worker, event)()
        try:
            future = asyncio.run_coroutine_threadsafe(waiting, self._loop)
        except RuntimeError:  # the loop is closed
            waiting.close()
            return False
        try:
            future.result(max(0.0, deadline - time.monotonic()))
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            future.cancel()
            return False
        return True

    def _run(self, ready: threading.Event) -> None:
        try:
            from llm_annotator.client_worker import Worker

            async def work() -> None:
                self._loop = asyncio.get_running_loop()
                self._worker = Worker(*self._arguments, self._mailbox)
                ready.set()
                await self._worker.run()

            asyncio.run(work())
        except Exception as error:  # noqa: BLE001 - outermost frame of the thread
            _log.exception("the annotator's client has failed")
            what = f"{type(error).__name__}: {error}"
            self._mailbox.health = ClientHealth(message=f"The annotator's client has failed ({what}); see the log.")
        finally:
            ready.set()
