"""One request of a client to the service, and in words what can go wrong with it."""

from collections.abc import Mapping
from typing import Any

import httpx

from llm_annotator import wire

TIMEOUT_S = 10.0
"""Time that a request may take beyond what it is told to wait."""


class Trouble(Exception):
    """A request that was not answered as it should be; the message is for people.

    answered: somebody was there. error: the word that the service gave for it. batch_refused: what was sent will never
    be taken.
    """

    def __init__(self, message: str, *, answered: bool, error: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.answered = answered
        self.error = error
        self.batch_refused = status in wire.BATCH_REFUSED


async def exchange(
    http: httpx.AsyncClient, url: str, path: str, body: Mapping[str, Any], *, wait_s: float = 0.0
) -> dict[str, Any]:
    """Returns what the service answers to one message.

    url: address of the service, for messages. wait_s: how long the service may take of its own accord.

    Raises:
        Trouble: it does not answer, refuses, or is no annotator.
    """
    try:
        response = await http.post(path, content=wire.pack(body), timeout=TIMEOUT_S + wait_s)
    except httpx.TimeoutException as error:
        raise Trouble(f"The annotator at {url} does not answer in time; trying again.", answered=False) from error
    except httpx.HTTPError as error:
        raise Trouble(
            f"Nothing answers at {url} ({str(error) or type(error).__name__}). Captions wait; if the annotator does "
            "not come back by itself, start it (`oni serve`) or correct annotator.url.",
            answered=False,
        ) from error
    if not response.is_success:
        raise _refused(url, response)
    try:
        answer = wire.unpack(response.content)
        answer["instance"]
    except (ValueError, KeyError) as error:
        raise Trouble(f"What answers at {url} is no annotator: check annotator.url.", answered=True) from error
    return answer


def _refused(url: str, response: httpx.Response) -> Trouble:
    try:
        said: dict[str, Any] = response.json()
        return Trouble(said["message"], answered=True, error=said["error"], status=response.status_code)
    except (ValueError, KeyError, TypeError):
        message = f"{url} answers with HTTP status {response.status_code}: check annotator.url."
        return Trouble(message, answered=True)
