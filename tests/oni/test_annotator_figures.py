"""What a run writes down and says about its annotator."""

from dataclasses import replace

from rich.console import Console

from llm_annotator import ClientHealth
from llm_annotator.wire import LabelerStatus
from oni.metrics import METRICS, annotator_metrics
from oni.progress import PlainReporter, trouble_figures

SERVICE = LabelerStatus(
    failures=3,
    tokens_in=1000,
    tokens_out=10,
    cost=0.25,
    oldest_s=12.5,
    wait_s=0.5,
    saved_by_cache=40,
    saved_by_parts=7,
    concurrency=64,
    endpoints=2,
    endpoints_up=1,
    budget_left=0.5,
)


def test_every_figure_has_a_meaning_and_every_meaning_a_figure() -> None:
    figures = annotator_metrics(ClientHealth(service=SERVICE))
    assert set(figures) == {name for name in METRICS if name.startswith("annotator/")}
    assert figures["annotator/cost"] == 0.25
    assert figures["annotator/endpoints_up"] == 1
    assert figures["annotator/saved_by_cache"] == 40
    assert figures["annotator/budget_left"] == 0.5


def test_what_is_not_known_is_null_rather_than_nothing() -> None:
    figures = annotator_metrics(ClientHealth())
    assert figures["annotator/cost"] is None
    assert figures["annotator/budget_left"] is None


def test_how_bad_it_is_is_said_while_something_is_wrong(capsys) -> None:
    health = ClientHealth(connected=True, queued=5, service=SERVICE)
    metrics = {"env_step": 100} | annotator_metrics(health)
    assert trouble_figures(metrics) == {
        "failures": "3",
        "oldest": "12 s",
        "servers up": "1",
        "budget left": "50%",
    }
    no_budget = annotator_metrics(replace(health, service=replace(SERVICE, budget_left=None)))
    assert "budget left" not in trouble_figures(no_budget)
    assert trouble_figures({"env_step": 100}) == {}
    reporter = PlainReporter(Console(stderr=True, width=300), 1000)
    reporter.report(metrics, "Labels come from the other servers of the LLM, but not from http://b/v1.")
    said = capsys.readouterr().err
    assert "annotator: Labels come from the other servers" in said
    assert "oldest 12 s" in said
    reporter = PlainReporter(Console(stderr=True, width=300), 1000)
    reporter.report(metrics, "")
    assert "oldest" not in capsys.readouterr().err, "all is well: a line has room for little"
