"""The goals for NetHack and the messages that they are measured on."""

import hashlib
import json
from pathlib import Path

import pytest

from llm_annotator.captions import render_caption
from llm_annotator.config import LabelerConfig
from llm_annotator.evaluate import read_cases
from llm_annotator.labeler import resolve_labeler
from llm_annotator.promptfiles import names

DATA = Path(__file__).parents[1] / "data"
TUNING, HELD_OUT = DATA / "nethack_captions.jsonl", DATA / "nethack_captions_heldout.jsonl"
GOALS = [goal for goal in names("goals") if goal.startswith("nethack")]
CHECKS = ("combat", "descend", "gold")


def normal(caption: bytes | str) -> str:
    raw = caption if isinstance(caption, bytes) else caption.encode()
    return render_caption(raw, max_chars=10_000).casefold()


def test_captions_are_distinct_across_the_split() -> None:
    captions = [normal(case.caption) for path in (TUNING, HELD_OUT) for case in read_cases(path)]
    assert len(captions) == len(set(captions)) == 389


@pytest.mark.parametrize("path", [TUNING, HELD_OUT], ids=lambda path: path.stem)
def test_both_labels_have_a_sensible_share(path: Path) -> None:
    cases = read_cases(path)
    assert 0.2 < sum(case.helpful for case in cases) / len(cases) < 0.5


def test_chance_alone_held_captions_out() -> None:
    def held_out(caption: bytes) -> bool:
        return int.from_bytes(hashlib.sha256(caption).digest()[:8], "big") % 3 == 0

    assert all(held_out(case.caption) for case in read_cases(HELD_OUT))
    assert not any(held_out(case.caption) for case in read_cases(TUNING))


def test_every_caption_was_seen_in_play() -> None:
    rows = [json.loads(line) for path in (TUNING, HELD_OUT) for line in path.read_text().splitlines()]
    assert all(row["seen"] >= 1 and set(row) == {"caption", "label", "seen"} for row in rows)


@pytest.mark.parametrize("name", CHECKS)
def test_small_checks_hold_both_labels_and_no_caption_twice(name: str) -> None:
    cases = read_cases(DATA / f"nethack_captions_{name}.jsonl")
    helpful = [case for case in cases if case.helpful]
    assert len({case.caption for case in cases}) == len(cases)
    assert len(helpful) >= 10
    assert len(cases) - len(helpful) >= 10


@pytest.mark.parametrize("goal", GOALS)
def test_no_example_is_among_the_captions(goal: str) -> None:
    examples = {normal(example.caption) for example in resolve_labeler(LabelerConfig(goal=goal)).examples}
    files = [TUNING, HELD_OUT, *(DATA / f"nethack_captions_{name}.jsonl" for name in CHECKS)]
    assert not examples & {normal(case.caption) for path in files for case in read_cases(path)}


@pytest.mark.parametrize("goal", GOALS)
def test_goals_have_balanced_examples_of_their_own(goal: str) -> None:
    spec = resolve_labeler(LabelerConfig(goal=goal))
    assert spec.example_goal == spec.goal
    assert len({example.caption for example in spec.examples}) == len(spec.examples) >= 32
    assert [example.answer for example in spec.examples].count("success") * 2 == len(spec.examples)


def test_there_is_a_goal_for_each_check_and_the_general_one() -> None:
    assert sorted(GOALS) == sorted(["nethack", *(f"nethack-{name}" for name in CHECKS)])
