"""What a failure of an OpenAI-compatible server means, and what to do about it, whichever library asked it."""

import email.utils
import json
import time
from collections.abc import Mapping

from llm_annotator.backends.answers import as_mapping
from llm_annotator.captions import printable
from llm_annotator.config import BackendConfig
from llm_annotator.errors import (
    BackendAnswerInvalid,
    BackendError,
    BackendOverloaded,
    BackendRejected,
    BackendUnreachable,
)

MAX_DETAIL_CHARS = 300
"""How much of a server's own message is passed on."""

OPTIONAL_FIELDS = ("top_logprobs", "logprobs", "max_completion_tokens", "max_tokens", "temperature")
"""Fields of a request that a server may refuse, and that can be left out or replaced."""

_LOGPROBS = ("top_logprobs", "logprobs")
_BUSY = frozenset({408, 409, 425, 429})
_NO_GATEWAY = frozenset({502, 504})
_NOT_IMPLEMENTED = 501
_NOT_TAKEN_UP = frozenset({501, 502, 503})
"""Of the errors of servers those that say that no model has worked on the request."""


class FieldRefused(BackendRejected):
    """The server does not take the request as it stands; `field` is the one to blame, empty if it does not say."""

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field

    def plain(self) -> BackendRejected:
        """Returns it as the error that backends raise."""
        error = BackendRejected(str(self))
        error.status = self.status
        return error


class Failures:
    """Makes our errors of a server's. `server` is how messages call the server; no message holds the key."""

    def __init__(self, config: BackendConfig, *, url: str, key: str | None) -> None:
        self.server = f"the server at {url}"
        self._config = config
        self._key = key

    def timed_out(self) -> BackendError:
        """Returns the error of a request that took too long."""
        error = BackendOverloaded(
            f"{self.server} did not answer within {self._config.timeout_s:g} s: raise annotator.backend.timeout_s or "
            f"lower annotator.backend.max_concurrent (now {self._config.max_concurrent})"
        )
        error.may_cost = True
        return error

    def not_json(self) -> BackendError:
        """Returns the error of an answer that is no JSON object."""
        return BackendAnswerInvalid(
            f"{self.server} answered something that is not the JSON of this API: check that annotator.backend.base_url "
            "is the API's address (it mostly ends in /v1)"
        )

    def unreachable(self, error: BaseException, *, connected: bool) -> BackendError:
        """Returns the error of a connection that was not made, or (connected) broke."""
        cause = self.scrub(str(error) or type(error).__name__)
        unreachable = BackendUnreachable(
            f"nothing answers at {self.server.removeprefix('the server at ')} ({cause}): start the server there, "
            "or correct annotator.backend.base_url"
        )
        unreachable.may_cost = connected
        return unreachable

    def status(self, code: int, headers: Mapping[str, str], text: str) -> BackendError:
        """Returns the error of an answer with a status that is none of success."""
        error = self._classified(code, headers, text)
        error.status = code
        error.may_cost = code >= 500 and code not in _NOT_TAKEN_UP
        return error

    def _classified(self, code: int, headers: Mapping[str, str], text: str) -> BackendError:
        body = _error_body(text)
        said, field = self._said(body, text), _blamed(body)
        if code in (401, 403) and not (code == 403 and field in _LOGPROBS):  # OpenAI forbids those of some models
            # The server's message is left out: some repeat parts of the key.
            state = "was refused" if self._key else "is needed, but not set"
            variable = self._config.api_key_env
            return BackendRejected(
                f"{self.server} answered {code}: the API key (environment variable {variable}) {state}"
            )
        if code == 404:
            return BackendRejected(
                f"{self.server} answered 404: it has no model {self._config.model!r}, or annotator.backend.base_url is "
                f"not the API's address (it mostly ends in /v1).{said}"
            )
        if code == 429 and body.get("code") == "insufficient_quota":
            return BackendRejected(f"{self.server} answered 429: the account has no credit left.{said}")
        if code in _NO_GATEWAY:
            return BackendUnreachable(f"{self.server} answered {code}: no model server answers behind it.{said}")
        if code in _BUSY or (code >= 500 and code != _NOT_IMPLEMENTED):
            message = f"{self.server} answered {code}: it is busy or failed; asked again later.{said}"
            return BackendOverloaded(message, retry_after_s=retry_after_s(headers))
        message = (
            f"{self.server} answered {code}: it refuses the request; a server that does not know a field may want "
            f"other annotator.backend.options (top_logprobs, max_tokens_field, temperature).{said}"
        )
        return FieldRefused(message, field=field)

    def _said(self, body: Mapping[str, object], text: str) -> str:
        message = body.get("message") or body.get("detail") or text
        shown = printable(" ".join(self.scrub(str(message)).split())[:MAX_DETAIL_CHARS])  # it goes to terminals
        return f" It says: {shown}" if shown else ""

    def scrub(self, text: str) -> str:
        """Returns a text of the server without the key, which some servers repeat."""
        return text.replace(self._key, "[API key]") if self._key else text


def _error_body(text: str) -> Mapping[str, object]:
    """Returns what a server says of an error: its fields, whether they stand under "error" or not."""
    try:
        body = as_mapping(json.loads(text))
    except (ValueError, RecursionError):
        return {}
    error = body.get("error")
    return {"message": error} if isinstance(error, str) else as_mapping(error) or body


def _blamed(body: Mapping[str, object]) -> str:
    """Returns the field that a server finds fault with, empty if it names none that can be done without."""
    param, message = body.get("param"), str(body.get("message")).lower()
    return next((name for name in OPTIONAL_FIELDS if param == name), "") or next(
        (name for name in OPTIONAL_FIELDS if name in message), ""
    )


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Returns the pause in seconds that `Retry-After` asks for, given as seconds or as a date; None if it does not."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(seconds, 0.0) if seconds < float("inf") else None
