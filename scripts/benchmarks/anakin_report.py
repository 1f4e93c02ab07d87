"""What `anakin` reports: figures of one environment, as text, and what would make them worthless."""

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

PLAIN, NONE, RETRIEVAL = "plain loop", "none", "retrieval"
WANTED = {(RETRIEVAL, NONE): 0.97, (NONE, PLAIN): 1.0}
"""Least ratio that we want of steps/s, of the first over the second."""


class Result(NamedTuple):
    """What one environment came to.

    ratios: quartiles over rounds. first_s: of each loop. compile_s: tracing and compiling the parts of a training.
    labelled: captions with a label at the end. state_bytes: of one game. compiled: how often each part was, for each
    training. load: of the machine, at the end.
    """

    env: str
    num_envs: int
    num_steps: int
    device: str
    steps_per_s: dict[str, float]
    ratios: dict[str, tuple[float, float, float]]
    first_s: dict[str, float]
    labelled: int | None
    compile_s: dict[str, float]
    state_bytes: int
    compiled: dict[str, float]
    updates: int
    load: float


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the three quartiles; for a single value that one."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4)
    return low, middle, high


def ratios_of(seconds: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, float, float]]:
    """Returns the quartiles of the ratios of speed within each round."""
    return {
        f"{ours} over {theirs}": quartiles([b / a for a, b in zip(seconds[ours], seconds[theirs], strict=True)])
        for ours, theirs in WANTED
        if ours in seconds
    }


def text(result: Result, rounds: int) -> str:
    """Returns the figures of one environment for people."""
    lines = [
        f"{result.env}: {result.num_envs} games x {result.num_steps} steps on {result.device}",
        f"  {rounds} rounds of {result.updates} updates each, load average {result.load:.1f}",
    ]
    for name in (PLAIN, NONE, RETRIEVAL):
        if name in result.steps_per_s:
            speed, first = result.steps_per_s[name], result.first_s[name]
            lines.append(f"  {name:<11} {speed:>11,.0f} steps/s   first update after {first:5.1f} s")
    for (ours, theirs), least in WANTED.items():
        if f"{ours} over {theirs}" in result.ratios:
            low, middle, high = result.ratios[f"{ours} over {theirs}"]
            verdict = "" if middle >= least else f", wanted {least}"
            lines.append(f"  {ours} over {theirs}: {middle:.3f} (quartiles {low:.3f} to {high:.3f}{verdict})")
    parts = ", ".join(f"{name.strip('_')} {seconds:.1f} s" for name, seconds in result.compile_s.items())
    lines.append(f"  tracing and compiling: {parts}; state {result.state_bytes:,} bytes a game")
    return "\n".join(lines)


def complaint(result: Result) -> str:
    """Returns what makes the figures of an environment worthless, or nothing."""
    again = [f"{name} {count:g} times" for name, count in result.compiled.items() if count != 1]
    if again:
        return f"{result.env}: in one run compiled {' and '.join(again)}, expected once each"
    return f"{result.env}: nothing was labelled, the annotator failed" if result.labelled == 0 else ""
