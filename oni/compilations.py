"""Counts and times what JAX compiles, by function: the parts of an update are to be compiled once in a run."""

from collections import defaultdict
from types import TracebackType
from typing import Self

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"
_STAGES = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration", _COMPILED)

ROLLOUT = "collect"
"""Name of the function that plays in jit (Anakin)."""

UPDATE = "_learn_and_sum"
"""Name of the function that learns from a rollout."""


class Compilations:
    """Listens to JAX while it is open.

    Counts each call of the compiler, also one that is answered from a persistent cache.
    """

    def __init__(self) -> None:
        self._count: dict[str, int] = defaultdict(int)
        self._seconds: dict[str, float] = defaultdict(float)

    def _hear(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event in _STAGES:
            name = str(kwargs.get("fun_name", "")).removeprefix("jit(").removesuffix(")")
            self._count[name] += event == _COMPILED
            self._seconds[name] += duration_secs

    def __enter__(self) -> Self:
        jax.monitoring.register_event_duration_secs_listener(self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        jax.monitoring.unregister_event_duration_listener(self._hear)

    def count(self, name: str) -> int:
        """Returns how often a function of that name was compiled."""
        return self._count[name]

    def seconds(self, name: str) -> float:
        """Returns how long tracing, lowering and compiling it took in all."""
        return self._seconds[name]
