"""What `oni distill` reads out of a store, and what it says of stores and settings that it cannot use."""

import io
import json
import math
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from llm_annotator.config import LabelerConfig
from llm_annotator.importing import add_labeler
from llm_annotator.importing import read_labels as import_labels
from llm_annotator.labeler import resolve_labeler
from llm_annotator.store import AnnotationRecord, Store, StoreReader
from llm_annotator.store.records import OrderedAnswer
from llm_annotator.types import LabelStatus
from oni.cli.distill import _parser
from oni.cli.main import main
from oni.config import RewardLearnerConfig
from oni.distillation import DistillConfig, moments
from oni.stored import choose_labeler, joined_target, read_labels, read_preferences
from tests.answered_store import answer_into
from tests.compared_store import CAPTIONS, HELPFUL, KILLS, SILENT, UNHELPFUL, compare_into


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("labels") / "labels.sqlite"
    answer_into(path, CAPTIONS, KILLS)
    return path


@pytest.fixture
def cli(capsys):
    def run(*arguments):
        try:
            status = main(["distill", *map(str, arguments)])
        except SystemExit as end:  # argparse
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def overruled(store, tmp_path, caption, *, helpful):
    path = tmp_path / "overruled.sqlite"
    shutil.copy(store, path)
    with StoreReader(path) as reader:
        labeler = reader.labelers()[0].labeler_id
    with Store(path) as writer:
        writer.override(caption, labeler, helpful=helpful)
    return path, labeler


def test_what_a_person_says_counts_in_place_of_the_llm(store, tmp_path):
    path, labeler = overruled(store, tmp_path, HELPFUL[0], helpful=False)
    with StoreReader(path) as reader:
        hard = read_labels(reader, labeler, soft=False)
        soft = read_labels(reader, labeler, soft=True)
    place = hard.texts.index(HELPFUL[0])
    assert not hard.label[place]
    assert hard.counts == {"captions": 96, "helpful": 47, "unhelpful": 49, "by_hand": 1}
    assert hard.target.tolist() == hard.label.astype(float).tolist()
    # the scripted annotator is sure with log-probabilities -0.0513 and -3; a person is certain
    sure = 1 / (1 + math.exp(-3.0 + 0.0513))
    assert soft.target[place] == 0.0
    assert soft.target[soft.texts.index(HELPFUL[1])] == pytest.approx(sure)
    assert soft.target[soft.texts.index(UNHELPFUL[1])] == pytest.approx(1 - sure)


def answer(*, first_better, p=None):
    return OrderedAnswer(status=LabelStatus.LABELLED, first_better=first_better, p_first=p, score=None, detail="")


def test_the_answers_about_both_orders_make_one_target():
    yes, no = answer(first_better=True, p=0.8), answer(first_better=False, p=0.2)
    assert joined_target(yes, no, soft=False) == 1.0
    assert joined_target(no, yes, soft=False) == 0.0
    assert joined_target(yes, yes, soft=False) == 0.5
    # log-odds ln 4 and -ln 4: the logistic of (ln 4 + ln 4) / 2
    assert joined_target(yes, no, soft=True) == pytest.approx(0.8)
    assert joined_target(yes, yes, soft=True) == pytest.approx(0.5)
    assert joined_target(yes, answer(first_better=False), soft=True) == 1.0


def test_moments_over_steps_by_hand():
    # 1, 1, 1, 5: mean 2, variance (1 + 1 + 1 + 9) / 4
    mean, std = moments(np.array([1.0, 5.0, 100.0]), np.array([3, 1, 0]))
    assert (mean, std) == pytest.approx((2.0, math.sqrt(3.0)))
    # no step is told of: 1 and 5 count alike
    assert moments(np.array([1.0, 5.0]), np.array([0, 0])) == pytest.approx((3.0, 2.0))


def test_the_labeler_of_the_newest_run_is_taken_among_those_asked_the_same(tmp_path):
    path = tmp_path / "both.sqlite"
    compare_into(path, [(HELPFUL[0], UNHELPFUL[0])])
    answer_into(path, HELPFUL[:2], KILLS)
    answer_into(path, HELPFUL[:2], KILLS, resolve_labeler(LabelerConfig(goal="doorkey")))
    with StoreReader(path) as reader:
        by_goal = {row.spec["goal"]: row.labeler_id for row in reader.labelers() if row.labelled}
        preference = choose_labeler(reader, "preference")
        assert preference.labeler_id not in by_goal.values()
        assert choose_labeler(reader, "label").labeler_id in by_goal.values(), "no run used one: the newest"
        for labeler_id in by_goal.values():
            assert choose_labeler(reader, "label", labeler_id[:8]).labeler_id == labeler_id
    first = min(by_goal.values())
    with Store(path) as writer:
        writer.add_run("later", "later", {}, labeler_id=first, goal="x")
    with StoreReader(path) as reader:
        assert choose_labeler(reader, "label").labeler_id == first
        assert choose_labeler(reader, "preference") == preference


def test_help_imports_no_jax():
    code = "import sys, oni.cli.distill; sys.exit('jax' in sys.modules or 'flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_the_defaults_of_the_command_are_those_of_the_function():
    parser = _parser()
    config = DistillConfig(kind="classification", learner=RewardLearnerConfig())
    assert (parser.get_default("epochs"), parser.get_default("seed")) == (config.epochs, config.seed)


def labelled(path, labels):
    with Store(path) as writer:
        writer.add_labeler("judge-1", {"goal": "open the box"}, "tiny")
        ids = writer.intern([text.encode() for text in labels])
        writer.add_annotations(
            AnnotationRecord(
                labeler_id="judge-1",
                caption_id=caption_id,
                status=LabelStatus.UNPARSED if helpful is None else LabelStatus.LABELLED,
                helpful=helpful,
                p_helpful=None,
                score=None,
                prompt_prefix="",
                prompt_suffix="",
                answer="",
                logprobs=None,
                model="tiny",
                backend="scripted",
                tokens_in=1,
                tokens_out=1,
                latency_s=0.0,
                attempts=1,
                detail="",
                created_at=1.0,
            )
            for caption_id, helpful in zip(ids, labels.values(), strict=True)
        )
    return path


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ({"odd": None}, (), "judge-1 in .* has labelled no caption yet"),
        (
            {"good": True, "fine": True, "odd": None},
            (),
            "all 2 labels of labeler judge-1 in .* are helpful.*needs both",
        ),
        ({"bad": False}, (), "all 1 labels .* are unhelpful"),
        (
            {"good": True, "bad": False},
            ("--labeler", "nobody"),
            r"no labeler 'nobody'.*judge-1 \(tiny, 'open the box'\)",
        ),
        ({"good": True, "bad": False}, ("--kind", "ranking"), "no labeler that was asked for a preference"),
        (
            {"good": True, "bad": False},
            ("--kind", "ranking", "--labeler", "judge-1"),
            "no labeler 'judge-1' that was asked for a preference; there is none",
        ),
    ],
)
def test_a_store_that_nothing_can_be_learned_from(cli, tmp_path, labels, options, message):
    path = tmp_path / "reward.oni"
    status, out, err = cli(labelled(tmp_path / "labels.sqlite", labels), "--out", path, *options)
    assert (status, out) == (1, "")
    assert err.startswith("oni distill: ")
    assert re.search(message, err)
    assert not path.exists()


def test_ties_alone_and_half_answers_teach_nothing(cli, tmp_path):
    store, path = tmp_path / "pairs.sqlite", tmp_path / "reward.oni"
    compare_into(store, [(HELPFUL[0], UNHELPFUL[0])])
    status, _, err = cli(store, "--out", path, "--kind", "ranking")
    assert status == 1
    assert "has compared no two captions in both orders yet" in err
    compare_into(store, [(HELPFUL[0], HELPFUL[1]), (HELPFUL[1], HELPFUL[0])], SILENT)
    status, _, err = cli(store, "--out", path, "--kind", "ranking")
    assert status == 1
    assert "all 1 pairs of" in err


@pytest.mark.parametrize(
    "options",
    [
        ("--held-out", 0.9),
        ("--steps", 0),
        ("--steps", 5, "--epochs", 5),
        ("--epochs", "nan"),
        ("--seed", -1),
        ("--encoder", "runes"),
        ("--seed", "x"),
    ],
)
def test_settings_that_cannot_be_used_are_usage_errors(cli, store, tmp_path, options):
    status, out, err = cli(store, "--out", tmp_path / "reward.oni", *options)
    assert (status, out) == (2, "")
    assert options[0].strip("-").replace("-", "_") in err.replace("-", "_")


def test_no_store(cli, tmp_path):
    status, _, err = cli(tmp_path / "nowhere", "--out", tmp_path / "reward.oni")
    assert status == 1
    assert "nowhere" in err


def test_what_a_person_muted_teaches_nothing(store, tmp_path):
    path = tmp_path / "muted.sqlite"
    shutil.copy(store, path)
    with StoreReader(path) as reader:
        labeler = reader.labelers()[0].labeler_id
    with Store(path) as writer:
        writer.override(HELPFUL[0], labeler, helpful=False, muted=True)
        writer.override(UNHELPFUL[0], labeler, helpful=False)
    with StoreReader(path) as reader:
        found = read_labels(reader, labeler, soft=False)
    assert HELPFUL[0] not in found.texts
    assert found.counts == {"captions": 95, "helpful": 47, "unhelpful": 48, "by_hand": 1}


def test_pairs_with_a_muted_caption_teach_nothing(tmp_path):
    path = tmp_path / "pairs.sqlite"
    pairs = [(a, b) for a, b in zip(HELPFUL[:3], UNHELPFUL[:3], strict=True)]
    labeler = compare_into(path, [*pairs, *((b, a) for a, b in pairs)])
    with Store(path) as writer:
        writer.override(UNHELPFUL[1], labeler, helpful=False, muted=True)
    with StoreReader(path) as reader:
        found = read_preferences(reader, labeler, soft=False)
    assert sorted(found.texts) == sorted([HELPFUL[0], UNHELPFUL[0], HELPFUL[2], UNHELPFUL[2]])


def test_labels_that_were_imported_can_be_learned_from(store, tmp_path):
    path = tmp_path / "imported.sqlite"
    shutil.copy(store, path)
    lines = [json.dumps({"caption": text.decode(), "helpful": text in HELPFUL[:5]}) for text in CAPTIONS[:20]]
    labels = import_labels(io.BytesIO("\n".join(lines).encode()), "jsonl")
    add_labeler(path, labels, "kim", goal="Win.", note="")
    with StoreReader(path) as reader:
        chosen = choose_labeler(reader, "label", "imported:kim")
        assert read_labels(reader, chosen.labeler_id, soft=True).counts["captions"] == 20
