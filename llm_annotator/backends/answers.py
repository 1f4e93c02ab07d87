"""What backends share when they read what a server sent."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast


def merge_logprobs(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Returns the log-probability of each token text; texts that come twice (two tokens, one text) are added up."""
    merged: dict[str, float] = {}
    for token, logprob in pairs:
        if token in merged:
            high, low = max(merged[token], logprob), min(merged[token], logprob)
            merged[token] = high + math.log1p(math.exp(low - high))
        elif logprob > -math.inf:
            merged[token] = logprob
    return merged


def as_mapping(value: object) -> Mapping[str, Any]:
    """Returns `value` if it is a JSON object, else an empty one."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def as_list(value: object) -> list[Any]:
    """Returns `value` if it is a JSON array, else an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def as_count(value: object) -> int | None:
    """Returns `value` if it is a whole number, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def first_token(logprobs: Mapping[str, Any]) -> dict[str, float] | None:
    """Returns the alternatives of the first token, in either of the two forms that servers use.

    None if there are fewer than two: the token that was drawn alone says nothing of the other word.
    """
    content = as_list(logprobs.get("content"))
    if content:  # chat, and the completions of newer llama.cpp
        tops = [as_mapping(item) for item in as_list(as_mapping(content[0]).get("top_logprobs"))]
        pairs = [(item.get("token"), item.get("logprob")) for item in tops]
    else:
        legacy = as_list(logprobs.get("top_logprobs"))
        pairs = list(as_mapping(legacy[0]).items()) if legacy else []
    read = [
        (token, float(value)) for token, value in pairs if isinstance(token, str) and isinstance(value, int | float)
    ]
    return merge_logprobs(read) if len(read) > 1 else None
