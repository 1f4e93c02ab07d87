"""What a failure of an OpenAI-compatible server means, and what to do about it."""

import email.utils
import time
from collections.abc import Mapping

import openai

from llm_annotator.backends.answers import as_mapping
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

_BUSY = frozenset({408, 409, 425, 429})
_NO_GATEWAY = frozenset({502, 504})


class Failures:
    """Turns the SDK's exceptions into ours. `server` is how messages call the server; no message holds the key."""

    def __init__(self, config: BackendConfig, *, url: str, key: str | None) -> None:
        self.server = f"the server at {url}"
        self._config = config
        self._key = key

    def timed_out(self) -> BackendError:
        """Returns the error of a request that took too long."""
        return BackendOverloaded(
            f"{self.server} did not answer within {self._config.timeout_s:g} s: raise annotator.backend.timeout_s or "
            f"lower annotator.backend.max_concurrent (now {self._config.max_concurrent})"
        )

    def not_json(self) -> BackendError:
        """Returns the error of an answer that is no JSON object."""
        return BackendAnswerInvalid(
            f"{self.server} answered something that is not the JSON of this API: check that annotator.backend.base_url "
            "is the API's address (it mostly ends in /v1)"
        )

    def translate(self, error: openai.OpenAIError) -> BackendError:
        """Returns our error for one of the SDK's."""
        if isinstance(error, openai.APIStatusError):
            return self._status(error)
        if isinstance(error, openai.APIConnectionError):
            cause = self._scrub(str(error.__cause__ or error) or type(error.__cause__).__name__)
            return BackendUnreachable(
                f"nothing answers at {self.server.removeprefix('the server at ')} ({cause}): start the server there, "
                "or correct annotator.backend.base_url"
            )
        return BackendAnswerInvalid(f"{self.server}: {self._scrub(str(error))}")

    def _status(self, error: openai.APIStatusError) -> BackendError:
        code, said = error.status_code, self._said(error)
        if code in (401, 403):
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
        if code == 429 and error.code == "insufficient_quota":
            return BackendRejected(f"{self.server} answered 429: the account has no credit left.{said}")
        if code in _NO_GATEWAY:
            return BackendUnreachable(f"{self.server} answered {code}: no model server answers behind it.{said}")
        if code in _BUSY or code >= 500:
            message = f"{self.server} answered {code}: it is busy or failed; asked again later.{said}"
            return BackendOverloaded(message, retry_after_s=retry_after_s(error.response.headers))
        return BackendRejected(
            f"{self.server} answered {code}: it refuses the request; a server that does not know a field may want "
            f"other annotator.backend.options (top_logprobs, max_tokens_field, temperature).{said}"
        )

    def _said(self, error: openai.APIStatusError) -> str:
        message = as_mapping(error.body).get("message") or as_mapping(error.body).get("detail") or error.response.text
        text = " ".join(self._scrub(str(message)).split())[:MAX_DETAIL_CHARS]
        return f" It says: {text}" if text else ""

    def _scrub(self, text: str) -> str:
        return text.replace(self._key, "[API key]") if self._key else text


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
