"""Backend `scripted`: rules instead of a model.

It answers like a server with log-probabilities, or with thoughts and a final field where those are asked for. It can be
slow, fail, answer nonsense and contradict itself, always in the same way: each decision is a hash of the seed and the
captions (and, for failures and nonsense, of how often this backend was asked about them, so that a retry can succeed).

Asked to compare two captions, it prefers the helpful one. Of two helpful or two unhelpful ones each is the better one
with probability 0.5; in text alone it says that it is the second one, so that the answers about both orders cancel.
"""

import asyncio
import hashlib
import math
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Annotated, Literal, Self

from annotated_types import Ge, Le

from llm_annotator.backends.capabilities import Capabilities
from llm_annotator.backends.options import read_options
from llm_annotator.config import BackendConfig
from llm_annotator.errors import (
    BackendAnswerInvalid,
    BackendError,
    BackendOverloaded,
    BackendRejected,
    BackendUnreachable,
    ConfigError,
)
from llm_annotator.forms import final_line
from llm_annotator.types import Completion, Request

Rate = Annotated[float, Ge(0), Le(1)]

PROGRESS_PATTERN = r"(?i)\byou (pick up|unlock|open|reach)\b"
"""What counts as progress by default: the captions of MiniGrid that mean it."""

_SURE, _OTHER, _REST = -0.0513, -3.0, -9.0
"""Log-probabilities of the answer (P = 0.95), of the other word (0.05), and of an unrelated token."""
_EVEN = math.log(0.5)
"""Log-probability of either word if neither is the answer."""

_ERRORS: dict[str, type[BackendError]] = {
    "unreachable": BackendUnreachable,
    "overloaded": BackendOverloaded,
    "rejected": BackendRejected,
    "invalid": BackendAnswerInvalid,
}


@dataclass(frozen=True)
class ScriptedOptions:
    """Options of the backend `scripted` (`BackendConfig.options`)."""

    helpful_pattern: str = PROGRESS_PATTERN
    """Captions in which this regular expression is found are helpful."""
    latency_s: Annotated[float, Ge(0)] = 0.0
    """Seconds that every answer takes."""
    fail_rate: Rate = 0.0
    """Share of requests that fail."""
    fail_first: Annotated[int, Ge(0)] = 0
    """So many first requests about each caption or ordered pair fail, whatever `fail_rate` says."""
    fail_with: Literal["unreachable", "overloaded", "rejected", "invalid"] = "unreachable"
    """Kind of the failures."""
    retry_after_s: Annotated[float, Ge(0)] | None = None
    """Pause that a failure asks for."""
    garble_rate: Rate = 0.0
    """Share of requests answered with nonsense."""
    flip_rate: Rate = 0.0
    """Share of captions, or of ordered pairs, whose answer is the wrong one, for good."""
    logprobs: bool = True
    """False answers in text alone, as servers without log-probabilities do."""
    seed: int = 0
    """Changes which captions fail, are garbled and are flipped."""


class ScriptedBackend:
    """Answers by rule."""

    name = "scripted"

    def __init__(self, options: ScriptedOptions, *, max_concurrent: int = 4) -> None:
        try:
            self._pattern = re.compile(options.helpful_pattern)
        except re.error as error:
            raise ConfigError(
                f"helpful_pattern {options.helpful_pattern!r} is no regular expression: {error}"
            ) from None
        self._options = options
        self._asked: Counter[tuple[bytes, ...]] = Counter()
        self.max_concurrent = max_concurrent
        rules = {key: asdict(options)[key] for key in ("helpful_pattern", "flip_rate", "logprobs", "seed")}
        self.model = f"scripted-{hashlib.sha256(repr(rules).encode()).hexdigest()[:8]}"

    @property
    def capabilities(self) -> Capabilities:
        """What the options say."""
        return Capabilities(log_probabilities=self._options.logprobs, choice="", final="")

    async def look(self) -> Capabilities:
        """Returns the same."""
        return self.capabilities

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def complete(self, request: Request) -> Completion:
        """Answers by rule after `latency_s`, or fails as the options say."""
        options, captions = self._options, request.captions
        started = time.perf_counter()
        attempt = self._count(captions)
        await asyncio.sleep(options.latency_s)
        if attempt <= options.fail_first or self._draw("fail", captions, attempt) < options.fail_rate:
            message = f"scripted failure ({options.fail_with}) of attempt {attempt}"
            raise _ERRORS[options.fail_with](message, retry_after_s=options.retry_after_s)
        text, logprobs = self._answer(request, attempt)
        if request.reasoned:
            text, logprobs = f" It says what it says.\n{final_line(text.strip())}", None
        return Completion(
            sent_prefix=request.text_prefix,
            sent_suffix=request.text_suffix,
            text=text,
            logprobs=logprobs if options.logprobs else None,
            model=self.model,
            tokens_in=(len(request.text_prefix) + len(request.text_suffix)) // 4,
            tokens_out=len(text) // 4 if request.reasoned else 1,
            latency_s=time.perf_counter() - started,
        )

    def _count(self, captions: tuple[bytes, ...]) -> int:
        """Returns how often this was asked, if that changes anything; it would fill the memory for nothing."""
        options = self._options
        if not (options.fail_first or options.fail_rate or options.garble_rate):
            return 1
        self._asked[captions] += 1
        return self._asked[captions]

    def _answer(self, request: Request, attempt: int) -> tuple[str, dict[str, float]]:
        if self._draw("garble", request.captions, attempt) < self._options.garble_rate:
            return " \ufffd%", {" \ufffd%": _SURE, " lorem": _OTHER}
        lean = _lean([self._pattern.search(caption.decode("latin-1")) is not None for caption in request.captions])
        if self._draw("flip", request.captions, 0) < self._options.flip_rate:
            lean = -lean
        positive, negative = request.choices or ("yes", "no")
        word, other = (positive, negative) if lean > 0 else (negative, positive)
        if lean == 0:
            return f" {word}", {f" {word}": _EVEN, f" {other}": _EVEN}
        return f" {word}", {f" {word}": _SURE, f" {other}": _OTHER, " the": _REST}

    def _draw(self, purpose: str, captions: Sequence[bytes], attempt: int) -> float:
        """Returns a number in [0, 1) that depends on nothing but the seed and the arguments."""
        # The length of the first keeps (b"a", b"bc") and (b"ab", b"c") apart, and is left out where nothing follows.
        lengths = "".join(f"{len(caption)}/" for caption in captions[:-1])
        content = f"{self._options.seed}/{purpose}/{attempt}/{lengths}".encode() + b"".join(captions)
        return int.from_bytes(hashlib.sha256(content).digest()[:8]) / 2**64


def _lean(helpful: Sequence[bool]) -> int:
    """Returns 1 for the positive answer, -1 for the negative one, 0 if one is as good as the other."""
    first, *rest = helpful
    second = rest[0] if rest else not first
    return first - second


def create(config: BackendConfig) -> ScriptedBackend:
    """Returns the backend `scripted`."""
    options = read_options("scripted", config.options, ScriptedOptions)
    return ScriptedBackend(options, max_concurrent=config.max_concurrent)
