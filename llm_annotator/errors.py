"""Errors of the annotator.

AnnotatorError
├── ConfigError             a goal, prompt or setting cannot be used
├── StoreError              the SQLite store cannot be used
│   ├── StoreNewerSchema    written by a later version of oni-jax
│   ├── StoreCorrupt        not a store, or damaged
│   └── StoreFull           the disk is full or the file is read-only
├── BudgetUsedUp            what a store may cost is spent
├── ServiceError            the annotator service cannot be started or reached
│   └── PortInUse
└── BackendError            one request to an LLM did not give an answer
    ├── BackendUnreachable  nothing answers at the address, or the connection broke (retried)
    ├── BackendOverloaded   429 or 503, or a time-out (retried, after `retry_after_s`)
    ├── BackendRejected     the server refused: wrong key, unknown model, bad request (not retried soon)
    └── BackendAnswerInvalid  the answer is not what the API promises: truncated or garbled (retried)
        └── NotInStore      the backend `replay` has no answer to this question (not retried)
"""


class AnnotatorError(Exception):
    """Base of every error that this package raises on purpose. The message says what to do."""


class ConfigError(AnnotatorError):
    """A goal, a prompt or a setting cannot be used."""


class StoreError(AnnotatorError):
    """The store cannot be used."""


class StoreNewerSchema(StoreError):
    """The store was written by a later version of oni-jax."""


class StoreCorrupt(StoreError):
    """The file is not a store, or is damaged."""


class StoreFull(StoreError):
    """The store cannot be written: the disk is full or the file is read-only."""


class BudgetUsedUp(AnnotatorError):
    """What the questions of a store may cost is spent, so that nothing more is asked."""


class ServiceError(AnnotatorError):
    """The annotator service cannot be started or reached."""


class PortInUse(ServiceError):
    """Another process listens at the address that the service was told to use."""


class BackendError(AnnotatorError):
    """One request to an LLM did not give an answer.

    The backend says what kind of failure it was; the engine alone decides whether to ask again.
    """

    retryable = True
    may_cost = True
    """Whether the server may have worked on the question, so that it counts against the budgets. Not by default for
    the classes that say that nobody took it up; a backend sets it where it knows better."""
    status: int | None = None
    """HTTP status that the server answered, None if it was no matter of that."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BackendUnreachable(BackendError):
    """Nothing answers at the address, or the connection broke."""

    may_cost = False


class BackendOverloaded(BackendError):
    """The server said that it is busy (429, 503) or did not answer in time."""

    may_cost = False


class BackendRejected(BackendError):
    """The server refused the request: wrong key, unknown model, malformed request."""

    retryable = False
    may_cost = False


class BackendAnswerInvalid(BackendError):
    """The answer is not what the API promises: truncated, garbled, empty."""
