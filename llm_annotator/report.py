"""How an engine fares, in figures: for clients, for people, and as one line."""

from typing import Any

from llm_annotator.backends.capabilities import shown_by
from llm_annotator.endpoints import Endpoint
from llm_annotator.engine import Engine
from llm_annotator.wire import LabelerStatus


def labeler_status(engine: Engine, labeler_id: str, run_id: str, problem: str) -> LabelerStatus:
    """Returns how things stand with one labeler, and what concerns one run alone."""
    counts = engine.tally.counts(labeler_id)
    endpoints = engine.pool.endpoints
    return LabelerStatus(
        queued=counts.queued,
        in_flight=counts.in_flight,
        labelled=counts.labelled,
        failed=counts.failed,
        unparsed=counts.unparsed,
        dropped=engine.dropped(run_id) if run_id else counts.dropped,
        requests=counts.requests,
        labels_per_s=engine.tally.labels_per_s(labeler_id),
        room=engine.room(run_id),
        failures=sum(counts.failures.values()),
        tokens_in=counts.tokens_in,
        tokens_out=counts.tokens_out,
        cost=counts.cost if engine.budget.priced else None,
        oldest_s=engine.oldest_s,
        wait_s=engine.tally.waits.median_s(),
        saved_by_cache=counts.saved_by_cache,
        saved_by_parts=counts.saved_by_parts,
        concurrency=engine.pool.limit,
        endpoints=len(endpoints),
        endpoints_up=sum(not endpoint.problem for endpoint in endpoints),
        budget_left=engine.budget.left_share,
        exhausted=bool(engine.exhausted),
        problem=problem,
    )


def endpoint_report(endpoint: Endpoint, redacted_problem: str) -> dict[str, Any]:
    """Returns how one server fares, as JSON types."""
    return {
        "name": endpoint.name,
        "state": endpoint.gate.state if endpoint.backend else "open",
        "in_flight": endpoint.in_flight,
        "limit": endpoint.limit.limit,
        "requests": dict(endpoint.outcomes),
        "capabilities": shown_by(endpoint.backend),
        "problem": redacted_problem,
    }


def status_line(engine: Engine) -> str:
    """Returns how things stand altogether, for a log."""
    counts = list(engine.tally.by_labeler().values())
    spent = engine.budget.spent
    waiting = sum(each.queued + each.in_flight for each in counts)
    failures = sum(sum(each.failures.values()) for each in counts)
    saved = sum(each.saved_by_cache for each in counts), sum(each.saved_by_parts for each in counts)
    parts = [
        f"{sum(each.labelled for each in counts):,} labels ({engine.tally.labels_per_s():.1f}/s)",
        f"{waiting:,} open" + (f", the oldest for {engine.oldest_s:.0f} s" if waiting else ""),
        f"{failures:,} failures",
        f"{spent.tokens_in + spent.tokens_out:,} tokens",
    ]
    if engine.budget.priced:
        parts.append(f"cost {spent.cost:.4g}")
    parts.append(f"saved {saved[0]:,} questions by the store, {saved[1]:,} by parts")
    return "; ".join(parts)
