"""The captions that the goals of XLand, BabyAI and Craftax are measured on."""

import hashlib
import json
from pathlib import Path

import pytest

from llm_annotator.config import LabelerConfig
from llm_annotator.evaluate import read_cases
from llm_annotator.labeler import Example, resolve_labeler

DATA = Path(__file__).parents[1] / "data"
GOALS = {"xland": "xland", "babyai": "babyai", "craftax_classic": "craftax-classic", "craftax": "craftax"}
"""Goal by the beginning of the names of its files."""

MAX_LINES = 150

with_each = pytest.mark.parametrize("family", GOALS)


def files(family: str) -> tuple[Path, Path]:
    """Returns the captions that a goal was tuned on, and those that it was not."""
    return DATA / f"{family}_captions.jsonl", DATA / f"{family}_captions_heldout.jsonl"


@with_each
def test_chance_alone_held_captions_out(family: str) -> None:
    def held_out(caption: bytes) -> bool:
        return int.from_bytes(hashlib.sha256(caption).digest()[:8], "big") % 3 == 0

    tuning, kept = files(family)
    assert all(held_out(case.caption) for case in read_cases(kept))
    assert not any(held_out(case.caption) for case in read_cases(tuning))


@with_each
def test_captions_are_distinct_and_of_both_labels(family: str) -> None:
    for path in files(family):
        cases = read_cases(path)
        assert len({case.caption for case in cases}) == len(cases) <= MAX_LINES
        assert 0.2 < sum(case.helpful for case in cases) / len(cases) < 0.85


@with_each
def test_every_caption_was_seen_in_play(family: str) -> None:
    rows = [json.loads(line) for path in files(family) for line in path.read_text().splitlines()]
    assert all(row["seen"] >= 1 and set(row) == {"caption", "label", "seen"} for row in rows)


@with_each
def test_no_example_of_a_goal_is_among_its_captions(family: str) -> None:
    spec = resolve_labeler(LabelerConfig(goal=GOALS[family]))
    examples = {example.caption.casefold() for example in spec.examples if isinstance(example, Example)}
    captions = {case.caption.decode().casefold() for path in files(family) for case in read_cases(path)}
    assert examples
    assert not examples & captions
