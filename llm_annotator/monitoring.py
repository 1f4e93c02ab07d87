"""What Prometheus reads at /metrics: the figures that the engine keeps anyway, taken when they are asked for."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from llm_annotator.annotator import Annotator
from llm_annotator.engine import Engine

CONTENT_TYPE = CONTENT_TYPE_LATEST

PREFIX = "oni_annotator_"

_STATES = {"closed": 0, "half-open": 1, "open": 2}


class Monitor:
    """Turns an annotator's figures into text."""

    def __init__(self, annotator: Annotator) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Figures(annotator))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Returns all figures in the text format of Prometheus."""
        return generate_latest(self._registry)


class _Figures(Collector):
    def __init__(self, annotator: Annotator) -> None:
        self._annotator = annotator

    def describe(self) -> list[Metric]:
        return []  # names need not be known before the engine is

    def collect(self) -> Iterator[Metric]:
        engine = self._annotator.engine
        yield _gauge("up", "1 while questions can be asked, 0 while the LLM is not open.", float(engine is not None))
        yield _gauge("healthy", "1 if nothing is wrong.", float(not self._annotator.problem))
        if engine is not None:
            yield from _outcomes(engine)
            yield from _queue(engine)
            yield from _costs(engine)
            yield from _servers(engine)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _outcomes(engine: Engine) -> Iterator[Metric]:
    answers = CounterMetricFamily(PREFIX + "answers", "Captions by what came of them.", labels=["labeler", "status"])
    failures = CounterMetricFamily(PREFIX + "failures", "Failed requests by kind.", labels=["labeler", "kind"])
    saved = CounterMetricFamily(
        PREFIX + "saved_questions", "Captions that were offered and had a label already.", labels=["labeler", "by"]
    )
    # It falls, too: what captions are made of costs questions at first.
    parts = GaugeMetricFamily(
        PREFIX + "saved_by_parts", "Questions that asking by parts saved, less those it cost.", labels=["labeler"]
    )
    dropped = CounterMetricFamily(PREFIX + "dropped", "Captions that fell out of the full queue.", labels=["labeler"])
    for labeler, counts in engine.tally.by_labeler().items():
        for status in ("labelled", "unparsed", "failed"):
            answers.add_metric([labeler, status], getattr(counts, status))
        for kind, number in counts.failures.items():
            failures.add_metric([labeler, kind], number)
        saved.add_metric([labeler, "cache"], counts.saved_by_cache)
        parts.add_metric([labeler], counts.saved_by_parts)
        dropped.add_metric([labeler], counts.dropped)
    yield from (answers, failures, saved, parts, dropped)
    yield _gauge("labels_per_second", "Labels a second over the last ten seconds.", engine.tally.labels_per_s())


def _queue(engine: Engine) -> Iterator[Metric]:
    counts = engine.tally.by_labeler().values()
    yield _gauge("queue_length", "Captions that wait.", sum(each.queued for each in counts))
    yield _gauge("in_flight", "Captions that are being asked about.", sum(each.in_flight for each in counts))
    yield _gauge("queue_oldest_seconds", "For how long the oldest open caption has waited.", engine.oldest_s)
    wait_s = engine.tally.waits.median_s()
    yield _gauge("queue_wait_median_seconds", "Median time from offer to answer, of the last 256.", wait_s)


def _costs(engine: Engine) -> Iterator[Metric]:
    tokens = CounterMetricFamily(
        PREFIX + "tokens", "Tokens since the service started.", labels=["labeler", "direction"]
    )
    for labeler, counts in engine.tally.by_labeler().items():
        tokens.add_metric([labeler, "in"], counts.tokens_in)
        tokens.add_metric([labeler, "out"], counts.tokens_out)
    yield tokens
    spent = engine.budget.ended  # a counter never falls: what is under way may be taken back
    store = CounterMetricFamily(
        PREFIX + "spent", "What this store has cost, earlier services included.", labels=["unit"]
    )
    store.add_metric(["requests"], spent.requests)
    store.add_metric(["tokens"], spent.tokens_in + spent.tokens_out)
    if engine.budget.priced:
        store.add_metric(["money"], spent.cost)
    yield store
    left = GaugeMetricFamily(PREFIX + "budget_left", "What is left of each budget.", labels=["unit"])
    for unit, value in engine.budget.left.items():
        left.add_metric([unit], value)
    yield left


def _servers(engine: Engine) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        PREFIX + "requests", "Requests by server and outcome.", labels=["endpoint", "outcome"]
    )
    latency = HistogramMetricFamily(PREFIX + "request_seconds", "Duration of answered requests.", labels=["endpoint"])
    limit = GaugeMetricFamily(PREFIX + "concurrency_limit", "Requests it may have at once now.", labels=["endpoint"])
    busy = GaugeMetricFamily(PREFIX + "endpoint_in_flight", "Requests that it has now.", labels=["endpoint"])
    state = GaugeMetricFamily(
        PREFIX + "endpoint_state", "Circuit breaker: 0 closed (asked), 1 half-open, 2 open.", labels=["endpoint"]
    )
    for endpoint in engine.pool.endpoints:
        name = [endpoint.name]
        for outcome, number in endpoint.outcomes.items():
            requests.add_metric([endpoint.name, outcome], number)
        latency.add_metric(name, endpoint.latency.buckets(), endpoint.latency.sum_s)
        limit.add_metric(name, endpoint.limit.limit if endpoint.backend else 0)
        busy.add_metric(name, endpoint.in_flight)
        state.add_metric(name, _STATES[endpoint.gate.state] if endpoint.backend else _STATES["open"])
    yield from (requests, latency, limit, busy, state)
