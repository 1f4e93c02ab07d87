"""What backends share when they read what a server sent."""

import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any, SupportsIndex, cast

_SUM_TOLERANCE = 0.05
"""By how much the probabilities of one token may add up to more than 1: servers round."""


MOST_TOKENS = 2**40
"""Largest number of tokens that is believed. Sums of such numbers still fit into a column of the store."""


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
    is_object = isinstance(value, dict) or isinstance(value, Mapping)  # noqa: SIM101 - the first one is ten times as fast
    return cast("Mapping[str, Any]", value) if is_object else {}


def as_list(value: object) -> list[Any]:
    """Returns `value` if it is a JSON array, else an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def as_count(value: object) -> int | None:
    """Returns `value` as an int if it is a whole number, NumPy's too, from 0 to `MOST_TOKENS`, else None."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return None
    try:
        number = operator.index(cast("SupportsIndex", value))
    except TypeError:  # an array has the method, too
        return None
    return number if 0 <= number <= MOST_TOKENS else None


def first_token(logprobs: Mapping[str, Any]) -> dict[str, float] | None:
    """Returns the alternatives of the first token, in either of the two forms that servers use.

    None if there are fewer than two: the token that was drawn alone says nothing of the other word.

    Raises:
        ValueError: they cannot be log-probabilities, so nothing is to be read from them; the message says why.
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
    if any(math.isnan(value) or value == math.inf for _, value in read):
        raise ValueError("log-probabilities that are no numbers")
    total = math.fsum(math.exp(min(value, 1.0)) for _, value in read)  # the bound keeps what is far off finite
    if total > 1.0 + _SUM_TOLERANCE:
        raise ValueError(f"probabilities that add up to at least {total:.3g}")
    return merge_logprobs(read) if len(read) > 1 else None
