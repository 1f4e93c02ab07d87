"""What every backend is."""

from types import TracebackType
from typing import Protocol, Self

from llm_annotator.types import Completion, Request


class Backend(Protocol):
    """A way to ask one model. Opened and closed by `async with`; `complete` is safe to call concurrently.

    name: registry name of the kind of backend, for example "openai".
    model: identity of the model; a part of the labeler's id, so the same weights must give the same string.
    max_concurrent: how many requests the engine may have in flight.

    One that knows what its server can do tells it by `capabilities` and `look` (`ShowsCapabilities`).
    """

    name: str
    model: str
    max_concurrent: int

    async def complete(self, request: Request) -> Completion:
        """Asks once, without retrying.

        Raises:
            BackendError: a subclass that says what kind of failure it was.
        """
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
