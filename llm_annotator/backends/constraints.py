"""The ways in which servers let themselves be bound to a form of answer, by the fields that ask for it.

- `structured_outputs`: vLLM (docs.vllm.ai, "Structured Outputs").
- `guided_choice`, `guided_regex`: vLLM before 0.12, which removed them, and servers that copied them.
- `grammar`: llama.cpp's server (its tools/server/README.md), in GBNF.
- `regex`: SGLang (docs.sglang.io, "Structured Outputs").
- `response_format`: a JSON schema, as OpenAI, Ollama, SGLang, vLLM, llama.cpp and others take it.

Which one a server heeds shows in its answers (`capabilities`). None is told by a server's name: proxies hide it, and
versions differ.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from llm_annotator.forms import Form

_JSON_TOKENS = 24
"""Tokens that {"answer": "yes"} may need, with white space."""


class Constraint(NamedTuple):
    """One way. `fields` returns what is added to a request; `tokens` is the least that an answer needs."""

    name: str
    fields: Callable[[Form], dict[str, Any]]
    tokens: int = 0


def _structured_outputs(form: Form) -> dict[str, Any]:
    return {"structured_outputs": {"regex": form.regex()} if form.reasoned else {"choice": form.choices()}}


def _guided(form: Form) -> dict[str, Any]:
    return {"guided_regex": form.regex()} if form.reasoned else {"guided_choice": form.choices()}


def _grammar(form: Form) -> dict[str, Any]:
    return {"grammar": form.grammar()}


def _regex(form: Form) -> dict[str, Any]:
    return {"regex": form.regex()}


def _response_format(form: Form) -> dict[str, Any]:
    schema = {"name": "answer", "strict": True, "schema": form.json_schema()}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


CONSTRAINTS = (
    Constraint("structured_outputs", _structured_outputs),
    Constraint("guided_choice", _guided),
    Constraint("grammar", _grammar),
    Constraint("regex", _regex),
    Constraint("response_format", _response_format, _JSON_TOKENS),
)
"""In the order in which they are tried: a form of plain text, which the prompt asks for, before JSON."""
