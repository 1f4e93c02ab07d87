"""The client's background thread: an event loop that talks to the service.

It keeps its promises through everything that can happen to a service. Subjects (captions, or pairs of them) without
an answer are kept here; whenever a connection is made anew they are offered again, and the service knows which of them
it is already asking. The cursor counts changes of the store, so no label that was committed while the service was away
is missed.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from llm_annotator import wire
from llm_annotator.client_http import Trouble, exchange
from llm_annotator.ledger import Ledger, cut
from llm_annotator.mailbox import ClientHealth, Mailbox
from llm_annotator.outbox import Sendings
from llm_annotator.question import Question
from llm_annotator.types import LabelStatus, Occurrence

_log = logging.getLogger(__name__)

MAX_UNREAD = 100_000
"""Labels that wait for `poll`; beyond it no more are fetched until the trainer has taken some."""

POLL_PAUSE_S = 0.2
"""Pause between two polls, in which labels gather, unless someone waits for them. Training makes an update in about
that time, and each request costs it about a millisecond of Python."""

BUSY_WAIT_S = 0.5
IDLE_WAIT_S = 20.0
"""How long a poll waits for news: while captions are unanswered (the status is news, too), and otherwise."""

OCCURRENCES_PAUSE_S = 2.0
"""Pause between two reports of occurrences."""

MAX_OCCURRENCES = 100_000
"""Captions whose totals wait to be sent; beyond it the oldest are left out. They come again when the caption does."""

SENDINGS_PAUSE_S = 0.5
"""Pause between two requests with moments or scores, so that they do not hold up what the run waits for."""

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
"""Pauses between attempts to reach a service that is away: doubling, with jitter."""

LEAVE_TIMEOUT_S = 1.0
"""Time that saying goodbye may take."""


class Worker:
    """Talks to the service. All methods run on its own event loop."""

    def __init__(
        self, url: str, registration: Mapping[str, Any], question: Question, token: str | None, mailbox: Mailbox
    ) -> None:
        self._url = url.rstrip("/")
        self._registration = {"protocol": wire.PROTOCOL, **registration}
        self._token = token
        self._mailbox = mailbox
        self._question = question
        self._ledger = Ledger(question)
        self._occurrences: dict[bytes, Occurrence] = {}
        self._lost_occurrences = 0
        self._sendings = Sendings()
        self._something_to_send = asyncio.Event()
        self._something_to_offer = asyncio.Event()
        self._something_seen = asyncio.Event()
        self._hurry = asyncio.Event()
        self._progress = asyncio.Event()
        self._waiting = 0
        self._awaited = asyncio.Event()  # set while `_waiting` is not 0
        self._labeler_id = ""
        self._instance = ""
        self._cursor: int | None = None
        self._status = wire.LabelerStatus()
        self._connected = False
        self._trouble = "The annotator has not answered yet."
        self._failures = 0
        self._task: asyncio.Task[Any] | None = None

    async def run(self) -> None:
        """Talks until `stop`."""
        self._task = asyncio.current_task()
        host = urlsplit(self._url).hostname or ""
        headers = {"content-type": wire.CONTENT_TYPE}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        # A proxy from the environment has no business between a run and an annotator on its own machine.
        trust_env = host not in ("127.0.0.1", "localhost", "::1")
        async with httpx.AsyncClient(base_url=self._url, headers=headers, trust_env=trust_env) as http:
            with contextlib.suppress(asyncio.CancelledError):
                while True:
                    await self._session(http)
            await self._leave(http)

    def stop(self) -> None:
        """Ends `run`."""
        if self._task is not None:
            self._task.cancel()

    def take(self) -> None:
        """Takes what the trainer has left in the mailbox."""
        batches = self._mailbox.batches
        now = time.monotonic()
        while batches:
            for item in batches.popleft():
                if not isinstance(item, Occurrence):
                    self._ledger.want(item, now)
                    continue
                try:
                    wire.check_occurrence(item)
                except (TypeError, ValueError, OverflowError) as error:
                    self._lose_occurrences(1, str(error))
                else:
                    self._occurrences[item.caption] = item
                    if len(self._occurrences) > MAX_OCCURRENCES:
                        del self._occurrences[next(iter(self._occurrences))]
                        self._lose_occurrences(1, "the annotator is away for too long")
        while self._mailbox.records:
            self._sendings.add(self._mailbox.records.popleft())
        self._flag_offers()
        if self._occurrences:
            self._something_seen.set()
        if self._sendings:
            self._something_to_send.set()
        self._publish()

    async def drained(self) -> None:
        """Returns once every subject submitted so far is answered. Meanwhile labels are fetched without a pause."""
        self.take()
        self._waiting += 1
        self._awaited.set()
        try:
            while self._ledger.pending:
                await self._next_progress()
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._awaited.clear()

    async def flushed(self) -> None:
        """Returns once all that was recorded so far is stored, or dropped."""
        self.take()
        while self._occurrences or self._sendings:
            self._hurry.set()
            await self._next_progress()

    async def _session(self, http: httpx.AsyncClient) -> None:
        """Registers and talks until there is trouble; then pauses."""
        try:
            try:
                await self._register(http)
                async with asyncio.TaskGroup() as group:
                    for loop in (self._offer_loop, self._poll_loop, self._occurrence_loop, self._sending_loop):
                        group.create_task(loop(http))
            except ExceptionGroup as group:
                troubles, others = group.split(Trouble)
                if troubles is None or others is not None:
                    raise
                raise troubles.exceptions[0] from None
        except Trouble as trouble:
            forgotten = trouble.error == wire.UNREGISTERED
            self._connected = trouble.answered
            self._trouble = "" if forgotten else str(trouble)
            self._publish()
            self._failures += 1
            if forgotten and self._failures == 1:
                return
            pause_s = min(FIRST_PAUSE_S * 2.0 ** min(self._failures, 20), LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.0))  # noqa: S311 - jitter is no secret

    async def _register(self, http: httpx.AsyncClient) -> None:
        answer = await self._exchange(http, "/v1/runs", self._registration)
        cursor: int = answer["cursor"]
        # Another labeler: the service was started with another model. A smaller cursor: with another store.
        if answer["labeler_id"] != self._labeler_id or self._cursor is None or cursor < self._cursor:
            if self._labeler_id not in ("", answer["labeler_id"]):
                self._ledger.start_over()
            self._labeler_id = answer["labeler_id"]
            self._cursor = cursor
        self._instance = answer["instance"]
        self._status = wire.LabelerStatus()
        self._ledger.some_lost()
        self._ledger.connected()
        self._learn(answer, "standing", {})

    async def _leave(self, http: httpx.AsyncClient) -> None:
        """Says that this run needs no more answers, so that a shared service asks nothing for nobody."""
        if not (self._connected and self._ledger.pending):
            return
        body = {"run_id": self._registration["run_id"], "labeler_id": self._labeler_id}
        with contextlib.suppress(httpx.HTTPError, TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await http.post("/v1/leave", content=wire.pack(body))

    async def _offer_loop(self, http: httpx.AsyncClient) -> None:
        while True:
            await self._something_to_offer.wait()
            older = not self._ledger.has_fresh
            batch = self._ledger.next_backlog(self._status.room) if older else self._ledger.next_fresh()
            body = {"run_id": self._registration["run_id"], "labeler_id": self._labeler_id}
            try:
                answer = await self._exchange(http, "/v1/captions", body | {"captions": batch, "older": older})
            except Trouble as trouble:
                if not trouble.batch_refused:
                    raise
                self._ledger.give_up(batch, f"the annotator refuses them: {trouble}")
                self._flag_offers()
                self._tell_progress()
                continue
            self._ledger.offered(batch)
            if answer["dropped"]:
                self._ledger.some_lost()
            self._learn(answer, "known", answer["status"])

    async def _poll_loop(self, http: httpx.AsyncClient) -> None:
        while True:
            wait_s = BUSY_WAIT_S if self._ledger.pending else IDLE_WAIT_S
            body = {"run_id": self._registration["run_id"], "labeler_id": self._labeler_id}
            body |= {"after": self._cursor, "wait_s": wait_s}
            answer = await self._exchange(http, "/v1/labels", body, wait_s=wait_s)
            self._cursor = answer["cursor"]
            self._learn(answer, "updates", answer["status"])
            if len(answer["updates"]) < wire.MAX_UPDATES:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._awaited.wait(), POLL_PAUSE_S)
            while len(self._mailbox.updates) > MAX_UNREAD:  # noqa: ASYNC110 - `poll` must not pay for telling us
                await asyncio.sleep(POLL_PAUSE_S)

    async def _occurrence_loop(self, http: httpx.AsyncClient) -> None:
        while True:
            await self._something_seen.wait()
            self._hurry.clear()
            items = cut(self._occurrences.values(), lambda item: len(item.caption))
            rows = [wire.occurrence_to_wire(item) for item in items]
            body = {"run_id": self._registration["run_id"], "occurrences": rows}
            try:
                await self._exchange(http, "/v1/occurrences", body)
            except Trouble as trouble:
                if not trouble.batch_refused:
                    raise
                self._lose_occurrences(len(items), f"the annotator refuses them: {trouble}")
            for item in items:
                if self._occurrences.get(item.caption) is item:  # no newer totals came meanwhile
                    del self._occurrences[item.caption]
            if not self._occurrences:
                self._something_seen.clear()
            self._tell_progress()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), OCCURRENCES_PAUSE_S)

    async def _sending_loop(self, http: httpx.AsyncClient) -> None:
        while True:
            await self._something_to_send.wait()
            parcel = self._sendings.next()
            if parcel is None:
                self._something_to_send.clear()
                continue
            refused = False
            try:
                body = {"run_id": self._registration["run_id"], parcel.field: parcel.rows}
                await self._exchange(http, parcel.path, body)
            except Trouble as trouble:
                if not trouble.batch_refused:
                    raise
                _log.warning("%d %s are not stored: %s", len(parcel.items), parcel.field, trouble)
                refused = True
            self._sendings.done(parcel, refused=refused)
            self._tell_progress()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), SENDINGS_PAUSE_S)

    def _lose_occurrences(self, number: int, why: str) -> None:
        if not self._lost_occurrences:
            _log.warning("%d totals of captions are not stored: %s. Others like it are left out unsaid.", number, why)
        self._lost_occurrences += number

    async def _exchange(
        self, http: httpx.AsyncClient, path: str, body: Mapping[str, Any], *, wait_s: float = 0.0
    ) -> dict[str, Any]:
        answer = await exchange(http, self._url, path, body, wait_s=wait_s)
        if path != "/v1/runs":
            if answer["instance"] != self._instance:
                raise Trouble("The annotator was restarted.", answered=True, error=wire.UNREGISTERED)
            self._failures = 0
            self._connected, self._trouble = True, ""
        return answer

    def _learn(self, answer: Mapping[str, Any], field: str, status: Mapping[str, Any]) -> None:
        ledger = self._ledger
        news = map(self._question.from_row, answer.get(field, []))
        # Beside the rows: a service of before does not tell the changes, a client of before does not look.
        self._mailbox.updates.extend(ledger.learn(news, time.monotonic(), answer.get("changes", [])))
        before, self._status = self._status, wire.LabelerStatus.from_wire(status)
        if self._status.dropped > before.dropped:
            ledger.some_lost()
        self._flag_offers()
        self._tell_progress()

    def _flag_offers(self) -> None:
        if self._ledger.has_fresh or (self._ledger.has_backlog and self._status.room):
            self._something_to_offer.set()
        else:
            self._something_to_offer.clear()

    def _publish(self) -> None:
        status = self._status
        self._mailbox.health = ClientHealth(
            connected=self._connected,
            message=self._trouble or status.problem,
            labeler=self._labeler_id,
            queued=self._ledger.pending,
            in_flight=status.in_flight if self._connected else 0,
            labelled=self._ledger.answered(LabelStatus.LABELLED),
            failed=self._ledger.answered(LabelStatus.FAILED),
            unparsed=self._ledger.answered(LabelStatus.UNPARSED),
            dropped=status.dropped + self._ledger.dropped + self._mailbox.dropped_captions,
            requests=status.requests,
            labels_per_s=status.labels_per_s if self._connected else 0.0,
            records_dropped=self._sendings.dropped + self._mailbox.dropped_records,
            service=status,
        )

    def _tell_progress(self) -> None:
        self._publish()
        self._progress.set()
        self._progress = asyncio.Event()

    async def _next_progress(self) -> None:
        await self._progress.wait()
