"""Agreement with people: figures worked out by hand, files that are wrong, and a whole evaluation by rule."""

import asyncio
import itertools
import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_annotator.asking import Answer, ask_all
from llm_annotator.backends.scripted import ScriptedBackend, ScriptedOptions
from llm_annotator.config import EngineConfig, LabelerConfig
from llm_annotator.errors import BackendRejected, BackendUnreachable, ConfigError
from llm_annotator.evaluate import (
    Evaluation,
    LabelledCaption,
    accuracy,
    auc,
    best_threshold,
    evaluate,
    log_loss,
    read_cases,
)
from llm_annotator.labeler import Labeler, resolve_labeler
from llm_annotator.types import LabelStatus

FAST = EngineConfig(backoff_s=0.001, max_backoff_s=0.002, max_attempts=3)


def test_auc_by_hand() -> None:
    # Helpful 3 and 1, unhelpful 2 and 0: of the four pairs, (3,2) (3,0) (1,0) are in order.
    assert auc([3.0, 1.0, 2.0, 0.0], [True, True, False, False]) == 0.75
    assert auc([1.0, 2.0], [False, True]) == 1.0
    assert auc([1.0, 2.0], [True, False]) == 0.0
    # Ties count half: (1,1) is half, (1,0) whole.
    assert auc([1.0, 1.0, 0.0], [True, False, False]) == 0.75
    assert auc([5.0, 5.0, 5.0], [True, False, True]) == 0.5


def test_auc_needs_both_kinds() -> None:
    assert auc([], []) is None
    assert auc([1.0, 2.0], [True, True]) is None


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=30))
def test_auc_counts_pairs(cases: list[tuple[int, bool]]) -> None:
    helpful = [score for score, label in cases if label]
    unhelpful = [score for score, label in cases if not label]
    pairs = [1.0 if high > low else 0.5 if high == low else 0.0 for high, low in itertools.product(helpful, unhelpful)]
    expected = sum(pairs) / len(pairs) if pairs else None
    found = auc([float(score) for score, _ in cases], [label for _, label in cases])
    assert found == pytest.approx(expected) if expected is not None else found is None


def test_accuracy_by_hand() -> None:
    scores, truth = [2.0, 0.5, 0.0, -1.0], [True, False, True, False]
    assert accuracy(scores, truth, threshold=0.0) == 0.5  # 2 and -1 are right; 0 is not above 0
    assert accuracy(scores, truth, threshold=1.0) == 0.75
    assert accuracy([], [], threshold=0.0) is None


def test_best_threshold_by_hand() -> None:
    assert best_threshold([1.0, 2.0, 4.0, 5.0], [False, False, True, True]) == 3.0
    # One mistake is unavoidable (3 unhelpful above 2 helpful): cutting at 1.5 or at 5 leaves one; the wider gap wins.
    assert best_threshold([1.0, 2.0, 3.0, 7.0], [False, True, False, True]) == 5.0
    assert best_threshold([1.0, 2.0], [True, True]) == 0.0  # below all
    assert best_threshold([1.0, 2.0], [False, False]) == 3.0  # above all
    assert best_threshold([], []) is None


@given(st.lists(st.tuples(st.integers(-9, 9), st.booleans()), min_size=1, max_size=20))
def test_no_threshold_beats_the_best(cases: list[tuple[int, bool]]) -> None:
    scores, truth = [float(score) for score, _ in cases], [label for _, label in cases]
    best = best_threshold(scores, truth)
    assert best is not None
    reached = accuracy(scores, truth, threshold=best)
    assert reached is not None
    assert all((accuracy(scores, truth, threshold=half / 2) or 0.0) <= reached for half in range(-24, 24))


def test_log_loss_by_hand() -> None:
    # p = 0.8 (score log 4) and right; p = 0.5 and whatever; p = 0.8 and wrong.
    assert log_loss([math.log(4)], [True]) == pytest.approx(-math.log(0.8))
    assert log_loss([0.0], [False]) == pytest.approx(math.log(2))
    assert log_loss([math.log(4)], [False]) == pytest.approx(-math.log(0.2))
    assert log_loss([math.log(4), 0.0], [True, False]) == pytest.approx((math.log(2) - math.log(0.8)) / 2)
    assert log_loss([1e4], [False]) == pytest.approx(1e4)
    assert log_loss([], []) is None


def run(cases: list[LabelledCaption], options: ScriptedOptions) -> Evaluation:
    backend = ScriptedBackend(options)
    labeler = Labeler(resolve_labeler(LabelerConfig()), backend.model)
    return asyncio.run(evaluate(labeler, backend, cases, FAST))


CASES = [
    LabelledCaption(b"You open the door.", True),
    LabelledCaption(b"You open your mouth.", False),
    LabelledCaption(b"It rains.", False),
    LabelledCaption(b"It snows.", False),
]


def test_evaluation_of_a_rule() -> None:
    result = run(CASES, ScriptedOptions())
    assert (result.captions, result.labelled, result.unparsed, result.failed) == (4, 4, 0, 0)
    assert result.accuracy == 0.75
    assert result.auc == pytest.approx((0.5 + 1 + 1) / 3)
    assert result.mistakes == (("You open your mouth.", pytest.approx(3.0 - 0.0513)),)
    assert result.lowest_helpful == result.highest_unhelpful
    assert result.labels_per_s > 0


def test_answers_without_logprobs_have_accuracy_alone() -> None:
    result = run(CASES, ScriptedOptions(logprobs=False))
    assert result.accuracy == 0.75
    assert result.auc is result.best_threshold is result.log_loss is result.lowest_helpful is None


def test_no_answer_is_no_mistake() -> None:
    result = run(CASES, ScriptedOptions(garble_rate=1.0))
    assert (result.labelled, result.unparsed) == (0, 4)
    assert result.accuracy is None
    assert result.mistakes == ()


def label(captions: list[bytes], options: ScriptedOptions) -> list[Answer[bytes]]:
    async def go() -> list[Answer[bytes]]:
        backend = ScriptedBackend(options, max_concurrent=3)
        labeler = Labeler(resolve_labeler(LabelerConfig()), backend.model)
        return [answer async for answer in ask_all(labeler, backend, captions, FAST)]

    return asyncio.run(go())


def test_answers_come_in_the_order_of_the_captions() -> None:
    captions = [b"caption %d" % number for number in range(20)]
    random.Random(0).shuffle(captions)
    answers = label(captions, ScriptedOptions(latency_s=0.001))
    assert [answer.subject for answer in answers] == captions


def test_failures_that_pass_are_asked_again() -> None:
    answers = label([b"You open the door."] * 2, ScriptedOptions(fail_first=2))
    assert [answer.judgement.helpful for answer in answers] == [True, True]


def test_first_failure_ends_the_list() -> None:
    with pytest.raises(BackendUnreachable):
        label([b"a", b"b"], ScriptedOptions(fail_first=3))
    with pytest.raises(BackendRejected):
        label([b"a", b"b"], ScriptedOptions(fail_first=1, fail_with="rejected"))


def test_later_failure_is_an_answer_of_its_own() -> None:
    answers = label([b"ok %d" % number for number in range(40)], ScriptedOptions(fail_rate=0.3, seed=1))
    failed = [answer for answer in answers if answer.judgement.status is LabelStatus.FAILED]
    assert len(answers) == 40
    assert failed, "with this seed some caption fails three times"
    assert all(answer.judgement.helpful is None and "scripted failure" in answer.judgement.detail for answer in failed)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2: not JSON"),
        ('{"caption": "x"}', "line 2: expected"),
        ('{"caption": "x", "label": "good"}', 'line 2: .*"good"'),
        ('{"caption": 3, "label": "helpful"}', "line 2"),
        ("[]", "line 2"),
    ],
)
def test_wrong_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text('{"caption": "x", "label": "helpful"}\n' + line + "\n")
    with pytest.raises(ConfigError, match=says):
        read_cases(path)


def test_cases_are_read(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text('{"caption": "Gr\\u00fc\\u00dfe", "label": "helpful"}\n\n{"caption": "", "label": "unhelpful"}\n')
    assert read_cases(path) == [LabelledCaption("Grüße".encode(), True), LabelledCaption(b"", False)]


def test_file_without_cases_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_cases(path)
    path.write_text("\n")
    with pytest.raises(ConfigError, match="no labelled caption"):
        read_cases(path)


def test_shipped_cases_are_what_minigrid_says() -> None:
    cases = read_cases(Path(__file__).parents[1] / "data" / "minigrid_captions.jsonl")
    helpful = {case.caption.decode() for case in cases if case.helpful}
    unhelpful = {case.caption.decode() for case in cases if not case.helpful}
    chatter = (Path(__file__).parents[2] / "envs" / "data" / "chatter.txt").read_text().splitlines()
    assert len(chatter) == len(set(chatter)) == 64
    assert set(chatter) <= unhelpful
    assert (len(helpful), len(unhelpful)) == (36 + 6 + 6 + 1 + 36, 36 + 6 + 64)
