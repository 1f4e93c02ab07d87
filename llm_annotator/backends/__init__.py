"""Backends: ways to ask a model. What is imported here is light; a backend's libraries load when it is created.

Another package adds a backend with an entry point in the group `oni.backends`: its name is the `kind` of
`BackendConfig`, its value a function `(BackendConfig) -> Backend` whose docstring's first line describes it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec

from llm_annotator.addresses import endpoint_configs
from llm_annotator.backends.base import Backend
from llm_annotator.choices import unknown_name
from llm_annotator.config import BackendConfig
from llm_annotator.errors import AnnotatorError, ConfigError
from llm_annotator.secret import backend_secrets, redactor

ENTRY_POINT_GROUP = "oni.backends"


@dataclass(frozen=True)
class BackendInfo:
    """One row of `oni backends`. `reason` says why the backend cannot be used here, empty if it can."""

    name: str
    description: str
    available: bool
    reason: str = ""


@dataclass(frozen=True)
class _Builtin:
    factory: str
    """"module:function"."""
    description: str
    requires: str | None = None
    """Module that must be installed."""
    install: str = ""


_BUILTINS = {
    "completions": _Builtin(
        "llm_annotator.backends.completions:create",
        "any OpenAI-compatible server (vLLM, llama.cpp, Ollama, SGLang, OpenAI), chat or completions, by plain HTTP",
    ),
    "llama-cpp": _Builtin(
        "llm_annotator.backends.llama_cpp:create",
        "a model on this machine: starts llama.cpp's server on a GGUF file (default SmolLM2-135M-Instruct)",
        requires="xllamacpp",
        install="pip install xllamacpp",
    ),
    "openai": _Builtin(
        "llm_annotator.backends.openai:create",
        "as `completions`, but through the openai SDK, which takes about five times the processor time",
        requires="openai",
        install="pip install openai",
    ),
    "replay": _Builtin(
        "llm_annotator.backends.replay:create",
        "the answers in an existing store (option `store`) instead of a model, to reproduce a run without an LLM",
    ),
    "scripted": _Builtin(
        "llm_annotator.backends.scripted:create",
        "rules instead of a model; can be slow, fail and answer nonsense, for tests and controls",
    ),
}


def create_backend(config: BackendConfig) -> Backend:
    """Returns the backend that `config.kind` names; nothing is started or asked before `async with`.

    Of several addresses (`config.endpoints`) it is that of the first; a backend never sees more than one.

    Raises:
        ConfigError: no backend of that name, a library that it needs is missing, or a setting that it cannot use.
    """
    config = next(iter(endpoint_configs(config).values()))
    builtin = _BUILTINS.get(config.kind)
    if builtin is not None:
        if reason := _missing(builtin):
            raise ConfigError(f"backend {config.kind!r} cannot be used: {reason}")
        module, _, function = builtin.factory.partition(":")
        return getattr(import_module(module), function)(config)
    plugins = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if config.kind not in plugins:
        raise ConfigError(unknown_name("backend", config.kind, [*_BUILTINS, *plugins]))
    return _adopted(plugins[config.kind], config)


def create_servers(config: BackendConfig) -> Backend:
    """Returns one backend for all addresses of the settings: a question that one server fails on goes to another.

    For the foreground. A service takes `create_backend` for each address, and paces each by itself.

    Raises:
        ConfigError: as `create_backend`; or servers of different models.
    """
    configs = endpoint_configs(config)
    if len(configs) == 1:
        return create_backend(config)
    from llm_annotator.backends.several import SeveralServers

    return SeveralServers({name: create_backend(each) for name, each in configs.items()})


def available_backends() -> list[BackendInfo]:
    """Returns every backend by name, those that cannot be used here included, with the reason."""
    infos = [
        BackendInfo(name, builtin.description, not _missing(builtin), _missing(builtin))
        for name, builtin in _BUILTINS.items()
    ]
    plugins = entry_points(group=ENTRY_POINT_GROUP)
    infos.extend(_describe(entry) for entry in plugins if entry.name not in _BUILTINS)
    return sorted(infos, key=lambda info: info.name)


def _missing(builtin: _Builtin) -> str:
    if builtin.requires is None or find_spec(builtin.requires) is not None:
        return ""
    return f"the Python package {builtin.requires!r} is not installed ({builtin.install})"


def _load(entry: EntryPoint) -> Callable[[BackendConfig], Backend]:
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"backend {entry.name!r} ({entry.value}) cannot be loaded: {error}") from error


def _adopted(entry: EntryPoint, config: BackendConfig) -> Backend:
    from llm_annotator.backends.foreign import adopt

    redact = redactor(backend_secrets(config))
    make = _load(entry)
    try:
        backend = make(config)
    except AnnotatorError as error:
        raise type(error)(redact(str(error))) from None
    except Exception as error:  # noqa: BLE001 - not our code: said in words
        said = redact(f"{type(error).__name__}: {error}")
        raise ConfigError(f"backend {entry.name!r} ({entry.value}) cannot be made: {said}") from None
    return adopt(backend, entry.name, redact)


def _describe(entry: EntryPoint) -> BackendInfo:
    try:
        lines = (_load(entry).__doc__ or entry.value).strip().splitlines()
    except ConfigError as error:
        return BackendInfo(entry.name, entry.value, False, str(error))
    return BackendInfo(entry.name, lines[0], True)
