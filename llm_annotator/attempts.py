"""One attempt: a server is asked about one subject, and what came of it.

Three rules decide what a failure means:
- A fault of the server (unreachable, overloaded, refused) is not the caption's fault. The caption goes back into the
  queue, the server's gate or limit slows down, and labels resume when the server does.
- Unless the server answered other captions meanwhile: then a refusal or a broken connection counts against the
  caption, so that one caption that a server chokes on cannot be asked for ever. Overload never counts.
- An answer that is no answer (garbled, truncated) counts against the caption. After `max_attempts` it is FAILED; at
  once if the backend says that asking again is of no use (`retryable`).
Neither FAILED nor UNPARSED is ever a label.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple, cast

from llm_annotator.backends.base import Backend
from llm_annotator.budget import Budget, Pace
from llm_annotator.config import EngineConfig
from llm_annotator.endpoints import Endpoint, Visit
from llm_annotator.errors import BackendAnswerInvalid, BackendError, BackendOverloaded, BackendRejected, ConfigError
from llm_annotator.gate import asked_pause_s, backoff_s
from llm_annotator.jobs import Job
from llm_annotator.labeler import Answered
from llm_annotator.tally import Tally
from llm_annotator.types import Completion, Judgement, LabelStatus, Request


class Done(NamedTuple):
    """The outcome is to be kept. completion: None if no answer came."""

    judgement: Judgement
    completion: Completion | None


class Again(NamedTuple):
    """The subject is to be asked about again.

    pause_s: after so many seconds; None: when everything else that waits has been, so that another subject shows
        whether the server is up.
    rest_s: for so long the place that the request had at the server stays empty.
    """

    pause_s: float | None
    rest_s: float = 0.0


class Attempts:
    """Asks, counts what that costs, and judges failures. redact: applied to every error text that is kept."""

    def __init__(
        self,
        config: EngineConfig,
        tally: Tally,
        budget: Budget,
        pace: Pace,
        *,
        draw: Callable[[], float],
        redact: Callable[[str], str],
    ) -> None:
        self._config = config
        self._tally = tally
        self._budget = budget
        self._pace = pace
        self._draw = draw
        self._redact = redact

    async def make(self, job: Job, endpoint: Endpoint, visit: Visit) -> Done | Again:
        """Asks about a subject. One request was paid for before."""
        failures = self._tally.counts(job.labeler.id).failures
        try:
            completion, judgement = await self._ask(job, endpoint)
        except BackendAnswerInvalid as error:
            failures[type(error).__name__] += 1
            endpoint.answered(visit, invalid=True)
            return self.failed(job, error, ask_again=error.retryable)
        except BackendError as error:
            failures[type(error).__name__] += 1
            return self._faulted(job, endpoint, visit, error)
        endpoint.answered(visit)
        return Done(judgement, completion)

    def failed(self, job: Job, error: Exception, *, ask_again: bool = True) -> Done | Again:
        """Counts a failure against a subject."""
        job.attempts += 1
        if ask_again and job.attempts < self._config.max_attempts:
            return Again(max(backoff_s(job.attempts, self._config, self._draw), asked_pause_s(error)))
        detail = f"no usable answer after {job.requests} requests; the last: {self._redact(str(error))}"
        return Done(Judgement(status=LabelStatus.FAILED, helpful=None, p_helpful=None, score=None, detail=detail), None)

    def _faulted(self, job: Job, endpoint: Endpoint, visit: Visit, error: BackendError) -> Done | Again:
        rest_s = endpoint.faulted(visit, error)
        before = job.answers_at_fault.get(endpoint.name)
        job.answers_at_fault[endpoint.name] = endpoint.answers
        answered_others = before is not None and endpoint.answers > before
        if answered_others and not isinstance(error, BackendOverloaded):
            return self.failed(job, error)
        return Again(None, rest_s)

    async def _ask(self, job: Job, endpoint: Endpoint) -> Answered:
        backend = endpoint.backend
        assert backend is not None

        is_paid = True

        async def complete(request: Request) -> Completion:
            nonlocal is_paid
            if not is_paid:
                self.pay()
            is_paid = False
            return await self._complete(job, backend, request)

        # Questions of a calibration cost as much as others.
        counted = SimpleNamespace(name=backend.name, model=backend.model, complete=complete)
        try:
            await job.labeler.prepare(cast("Backend", counted))
            return await job.labeler.ask(complete, job.subject)
        except ConfigError as error:
            # Labeler and backend do not fit each other: no fault of the caption. Wait, and say so.
            raise BackendRejected(str(error)) from error
        finally:
            if is_paid:
                self._budget.give_up()

    def pay(self) -> None:
        """Counts a request that is about to go out: `make` takes the first one as paid."""
        self._budget.begin()
        self._pace.charge(requests=1)

    async def _complete(self, job: Job, backend: Backend, request: Request) -> Completion:
        counts = self._tally.counts(job.labeler.id)
        counts.requests += 1
        job.requests += 1
        try:
            completion = await backend.complete(request)
        except BackendError as error:
            self._budget.fail(request, error)
            raise
        except BaseException:
            self._budget.end(request, None)
            raise
        spent = self._budget.end(request, completion)
        counts.tokens_in += spent.tokens_in
        counts.tokens_out += spent.tokens_out
        counts.cost += spent.cost
        self._pace.charge(tokens=spent.tokens_in + spent.tokens_out)
        return completion
