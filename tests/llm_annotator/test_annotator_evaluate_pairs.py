"""Agreement of comparisons with people: figures worked out by hand, pairs that are drawn, whole evaluations by rule."""

import asyncio
import json
from pathlib import Path

import pytest

from llm_annotator.asking import Answer
from llm_annotator.backends.scripted import ScriptedBackend, ScriptedOptions
from llm_annotator.config import EngineConfig, LabelerConfig
from llm_annotator.errors import ConfigError
from llm_annotator.evaluate import LabelledCaption
from llm_annotator.evaluate_pairs import Pair, PairEvaluation, draw_pairs, evaluate_pairs, summarise_pairs
from llm_annotator.labeler import Labeler, resolve_labeler
from llm_annotator.types import Judgement, LabelStatus
from oni.cli import label

FAST = EngineConfig(backoff_s=0.001, max_backoff_s=0.002, max_attempts=3)
SPEC = resolve_labeler(LabelerConfig(threshold=0.0), question="preference")
CASES = [
    LabelledCaption(b"You open the door.", True),
    LabelledCaption(b"You unlock the door.", True),
    LabelledCaption(b"It rains.", False),
    LabelledCaption(b"You open your mouth.", False),
]


def answers(*scores: tuple[float, float] | None) -> tuple[list[Pair], list[Answer[Pair]]]:
    """Returns pairs and the answers about both orders, with these scores; None: no label in the second order."""
    pairs = [(b"good %d" % number, b"bad %d" % number) for number in range(len(scores))]
    found: list[Answer[Pair]] = []
    for (first, second), both in zip(pairs, scores, strict=True):
        forward, backward = both or (1.0, None)
        found += [Answer((first, second), judgement(forward), None), Answer((second, first), judgement(backward), None)]
    return pairs, found


def judgement(score: float | None) -> Judgement:
    if score is None:
        return Judgement(status=LabelStatus.UNPARSED, helpful=None, p_helpful=None, score=None)
    return Judgement(status=LabelStatus.LABELLED, helpful=score > 0, p_helpful=0.5, score=score)


def summary(*scores: tuple[float, float] | None) -> PairEvaluation:
    return summarise_pairs(Labeler(SPEC, "m"), *answers(*scores), seconds=2.0)


def test_figures_by_hand() -> None:
    # right; tie that leans right (1.5 - 0.5); tie that leans nowhere; wrong; wrong; one without a label.
    found = summary((2.0, -1.0), (1.5, 0.5), (-1.0, -1.0), (-2.0, 3.0), (-0.5, 0.5), None)
    assert (found.pairs, found.answered) == (6, 5)
    assert (found.right, found.tie, found.wrong) == pytest.approx((0.2, 0.4, 0.4))
    assert found.accuracy == pytest.approx((1 + 1 + 0.5) / 5)
    assert found.place_bias == pytest.approx((0.5 + 1.0 - 1.0 + 0.5 + 0.0) / 5)
    assert found.mistakes == (("good 3", "bad 3", -2.5), ("good 4", "bad 4", -0.5))
    assert found.questions_per_s == 6.0


def test_the_best_threshold_takes_off_the_liking_for_a_place() -> None:
    # Right at thresholds in [-3, -1), [-4, -2) and [-9, -8): two are right in [-3, -2).
    found = summary((-1.0, -3.0), (-2.0, -4.0), (-8.0, -9.0))
    assert (found.right, found.tie, found.accuracy) == (0.0, 1.0, 1.0)
    assert (found.best_threshold, found.best_right) == (-2.5, pytest.approx(2 / 3))
    assert summary((1.0, 1.0)).best_threshold == 1.0


def test_without_any_answer_there_are_no_figures() -> None:
    found = summary(None, None)
    assert (found.pairs, found.answered) == (2, 0)
    assert found.right is found.tie is found.wrong is found.accuracy is found.place_bias is found.best_threshold is None


def test_pairs_are_drawn_once_each_and_by_the_seed() -> None:
    pairs = draw_pairs(CASES, 3, seed=1)
    assert len(set(pairs)) == 3
    assert draw_pairs(CASES[::-1], 3, seed=1) == pairs
    assert any(draw_pairs(CASES, 3, seed=seed) != pairs for seed in range(2, 9))
    everything = draw_pairs(CASES * 2, 100, seed=0)
    assert len(everything) == len(set(everything)) == 4
    labels = {case.caption: case.helpful for case in CASES}
    assert all(labels[good] and not labels[bad] for good, bad in everything)
    for one_kind in (CASES[:2], CASES[2:], []):
        with pytest.raises(ConfigError, match="a helpful and an unhelpful caption"):
            draw_pairs(one_kind, 3, seed=0)


def run(options: ScriptedOptions) -> PairEvaluation:
    backend = ScriptedBackend(options)
    pairs = draw_pairs(CASES, 100, seed=0)
    return asyncio.run(evaluate_pairs(Labeler(SPEC, backend.model), backend, pairs, FAST))


def test_evaluation_of_a_rule() -> None:
    found = run(ScriptedOptions())  # two helpful ones beside rain: right; beside "You open your mouth.": equal
    assert (found.right, found.tie, found.wrong, found.accuracy) == (0.5, 0.5, 0.0, 0.75)
    assert found.place_bias == pytest.approx(0.0)
    assert found.mistakes == ()
    flipped = run(ScriptedOptions(flip_rate=1.0))
    assert (flipped.right, flipped.tie, flipped.wrong, flipped.accuracy) == (0.0, 0.5, 0.5, 0.25)
    assert len(flipped.mistakes) == 2


def test_answers_in_text_alone_have_shares_but_no_difference() -> None:
    found = run(ScriptedOptions(logprobs=False))
    assert (found.answered, found.right, found.tie) == (4, 0.5, 0.5)
    assert found.accuracy is found.place_bias is found.best_threshold is None
    assert run(ScriptedOptions(garble_rate=1.0)).answered == 0


@pytest.fixture
def cases(tmp_path: Path) -> str:
    path = tmp_path / "cases.jsonl"
    rows = [{"caption": c.caption.decode(), "label": "helpful" if c.helpful else "unhelpful"} for c in CASES]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


SCRIPTED = ["--annotator.backend.kind", "scripted", "--annotator.labeler.threshold", "0"]


def test_the_command_prints_the_figures(cases: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert label.main(["--evaluate", cases, "--preferences", *SCRIPTED]) == 0
    lines = {line[:34].strip(): line[35:] for line in capsys.readouterr().out.splitlines()}
    assert lines["pairs"] == "4 (0 without a label in both orders)"
    assert lines["both orders right at 0"] == "0.500"
    assert lines["each order says something else"] == "0.500"
    assert lines["accuracy of the difference"] == "0.750"
    flip = ["--annotator.backend.options.flip_rate", "1.0"]
    assert label.main(["--evaluate", cases, "--preferences", *SCRIPTED, *flip]) == 0
    assert "wrong: -2.949 You open the door. < It rains." in capsys.readouterr().out


def test_the_command_prints_json_of_the_pairs_it_drew(cases: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--evaluate", cases, "--preferences", "--pairs", "3", "--seed", "5", "--json", *SCRIPTED]
    assert label.main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["pairs"], result["answered"], result["threshold"]) == (3, 3, 0.0)
    assert label.main([*arguments, "--annotator.backend.options.garble_rate", "1.0"]) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["x", "--preferences"], "give --evaluate FILE too"),
        (["--evaluate", "CASES", "--preferences", "--pairs", "0"], "'0' is no number of pairs"),
        (["--evaluate", "CASES", "--preferences", "--annotator.labeler.prompt", "outcome"], "asks for a label"),
    ],
)
def test_usage_errors_end_in_2_and_say_why(
    cases: str, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert label.main([cases if argument == "CASES" else argument for argument in arguments] + SCRIPTED) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert shown.out == ""
