"""Settings of the annotator: frozen dataclasses whose annotations carry the allowed ranges.

`oni` checks them with pydantic when it reads a YAML file or the command line. API keys are never a setting: only
the *name* of the environment variable that holds one is.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

PositiveInt = Annotated[int, Gt(0)]
PositiveSeconds = Annotated[float, Gt(0)]
Positive = Annotated[float, Gt(0)]
Price = Annotated[float, Ge(0)]


@dataclass(frozen=True)
class BackendConfig:
    """Which model answers, and how it is reached."""

    kind: str = "llama-cpp"
    """Registry name: see `oni backends`."""
    model: str | None = None
    """Model name at the server; for llama-cpp the path of a GGUF file (default: SmolLM2-135M-Instruct); for replay
    whose answers are given again, needed only if several models answered."""
    base_url: str | None = None
    """Address of an OpenAI-compatible server, for example http://127.0.0.1:8000/v1 (completions, openai)."""
    endpoints: tuple[str, ...] = ()
    """Addresses of several servers of the same model, instead of base_url: questions go to those that answer."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the API key; unset means no key."""
    api: Literal["chat", "completions"] = "chat"
    """Which endpoint of an OpenAI-compatible server is asked (llama-cpp always uses completions)."""
    timeout_s: PositiveSeconds = 60.0
    """Seconds before a request counts as lost."""
    max_concurrent: PositiveInt = 256
    """Requests in flight at once at most, at each server. As many are as bring more answers, which is found by trying;
    an embedded model is asked for a few at once, whatever this says."""
    price_in: Price | None = None
    """What a million tokens of prompts cost, in any currency; needed for engine.max_cost."""
    price_out: Price | None = None
    """What a million tokens of answers cost."""
    nice: Annotated[int, Ge(0), Le(19)] = 10
    """Scheduling niceness of the embedded model, so that it yields to training (llama-cpp)."""
    threads: PositiveInt | None = None
    """CPU threads of the embedded model, default one per core (llama-cpp)."""
    options: dict[str, str | int | float | bool] = field(default_factory=dict)
    """Settings of one kind of backend alone, for example top_logprobs of `completions`, store of `replay`."""


@dataclass(frozen=True)
class LabelerConfig:
    """What is asked: a goal in plain words, a prompt, and how the answer is read."""

    goal: str = "minigrid"
    """Name of a goal file that ships with the package, a path to a YAML file, or the goal itself as a sentence."""
    prompt: str | None = None
    """Name of a prompt file that ships with the package, or a path to a YAML file; by default the one that the goal
    file names, else `progress`; where preferences are asked for, `compare`; with method `reasoned`, `reason` and
    `reason-compare`."""
    method: Literal["choice", "reasoned"] = "choice"
    """How is answered: `choice` compares the log-probabilities of the two answer words, one token; `reasoned` lets the
    model write down its thoughts first and reads the final line, some hundred tokens."""
    max_tokens: Annotated[int, Ge(16)] = 256
    """Tokens that an answer of method `reasoned` may have, thoughts included."""
    threshold: float | None = None
    """A caption is helpful, or the first of two is the better one, if the score (log-odds in nats) is above this; by
    default what the goal file measured with its own prompt or what the prompt file says, else 0."""
    calibration: Literal["none", "content_free"] = "none"
    """`content_free` subtracts the score of captions that say nothing (arXiv 2102.09690); measure before use."""
    parts: Literal["none", "sentences"] = "none"
    """`sentences` asks about each sentence of a caption once, amounts and letters of items left out of account, instead
    of about every mixture of them: fewer questions, more captions labelled in the same time. A caption is helpful if
    any sentence is. Measure what it does to the labels of your game; not for preferences."""


@dataclass(frozen=True)
class EngineConfig:
    """How captions wait and how failures are retried."""

    max_queue: PositiveInt = 10_000
    """Captions waiting at most; beyond it the oldest are dropped and counted, and the trainer offers them again."""
    max_attempts: PositiveInt = 5
    """Times that one caption is asked before it is stored as failed."""
    backoff_s: PositiveSeconds = 0.5
    """First pause after a failure; doubles each time, with jitter."""
    max_backoff_s: PositiveSeconds = 30.0
    """Longest pause between two attempts, unless the server asks for more; of that five minutes are granted."""
    retry_failed_s: PositiveSeconds = 300.0
    """Seconds after which a caption stored as failed or unparsed may be asked again when it is offered again."""
    max_requests: PositiveInt | None = None
    """Requests to the LLM that this store may cost in all, restarts included; then no more is asked, and what was
    answered before stays to be had. One that never reached the server, or that it refused (a busy server's 429 and 503,
    a wrong key), costs nothing and is not counted; one that broke off or timed out is."""
    max_tokens: PositiveInt | None = None
    """Likewise tokens, of prompts and answers together."""
    max_cost: Positive | None = None
    """Likewise money, in the currency of backend.price_in and backend.price_out."""
    requests_per_minute: Positive | None = None
    """Requests a minute at most, over all servers."""
    tokens_per_minute: Positive | None = None
    """Tokens a minute at most, of prompts and answers together, over all servers."""


@dataclass(frozen=True)
class AnnotatorConfig:
    """The annotator of a run."""

    url: str | None = None
    """Join the annotator that runs at this address (`oni serve`); by default the run starts its own."""
    token_env: str = "ONI_ANNOTATOR_TOKEN"  # noqa: S105 - the name of a variable, not a secret
    """Environment variable that holds the token of a shared annotator."""
    backend: BackendConfig = BackendConfig()
    labeler: LabelerConfig = LabelerConfig()
    engine: EngineConfig = EngineConfig()
    drain_s: Annotated[float, Ge(0)] = 0.0
    """Seconds to wait at the end of a run for captions that are still queued."""
    deterministic: bool = False
    """After each update, wait for the answers about its captions: the same seed gives the same metrics. For
    reproductions with fast backends (replay, scripted); a slow LLM stops the run while it answers."""
