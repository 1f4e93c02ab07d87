"""`oni distill` and `reward.kind offline`: from a store that the scripted annotator filled to the scores of a run.

And every file and store that cannot be used.
"""

import json
import shutil

import jax
import msgpack
import numpy as np
import pytest

from llm_annotator.store import Store, StoreReader
from llm_annotator.types import Occurrence
from oni.captions import CaptionTable
from oni.cli.main import main
from oni.config import RewardLearnerConfig
from oni.distillation import DistillConfig, distill
from oni.errors import CheckpointError, ConfigError
from oni.rewards.learning import make_learning, values_of
from oni.rewards.modelfile import RewardFile, read_model, write_model
from oni.rewards.offline import Offline
from oni.rewards.text import make_text_encoder
from oni.stored import read_preferences
from tests.answered_store import answer_into
from tests.compared_store import CAPTIONS, HELPFUL, KILLS, UNHELPFUL, compare_into

pytestmark = pytest.mark.slow  # what learns is compiled first

SMALL = RewardLearnerConfig(ngram_buckets=512, ngram_size=16, held_out=0.25)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("labels") / "labels.sqlite"
    answer_into(path, CAPTIONS, KILLS)
    return path


@pytest.fixture(scope="module")
def model(store):
    with StoreReader(store) as reader:
        return distill(reader, DistillConfig(kind="classification", learner=SMALL, steps=150))


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "reward.oni"
    write_model(path, model)
    return path


def table(texts):
    captions = CaptionTable(1)
    for text in texts:
        captions.intern(text)
    return captions


def score(reward, texts):
    captions = table(texts)
    return reward.score(captions, np.array([captions.intern(text) for text in texts]))


def test_what_is_distilled_tells_captions_apart_that_it_never_saw(model, file):
    assert model.held_out["accuracy"] >= 0.98
    assert model.held_out["auc"] >= 0.98
    assert 0.0 < model.held_out["log_loss"] < 0.3
    assert model.held_out["count"] + model.provenance["learned_from"] == len(CAPTIONS)
    unseen = [
        b"You kill the zombie!",
        b"The zombie bites you.",
        b"You destroy the giant beetle!",
        b"You miss the xorn.",
    ]
    assert score(Offline(file), unseen).tolist() == [1.0, 0.0, 1.0, 0.0]


def test_a_run_scores_as_the_distilled_model_does(model, file):
    encoder = make_text_encoder(SMALL, num_outputs=2)
    learning = make_learning(encoder, learning_rate=1e-3)
    texts = [*CAPTIONS, b"\xff\x00", b"x" * 5000, b"You kill", b"!"]
    log_odds = values_of(learning, model.params, encoder.features(texts))
    p = 1 / (1 + np.exp(-log_odds.astype(np.float64)))
    np.testing.assert_allclose(score(Offline(file, use_probability=True, threshold=-1.0), texts), p, atol=1e-6)
    np.testing.assert_array_equal(score(Offline(file), texts), p > 0.5)
    np.testing.assert_array_equal(score(Offline(file, threshold=0.9), texts), p > 0.9)
    some = score(Offline(file, threshold=0.9, use_probability=True), texts)
    np.testing.assert_allclose(some, np.where(p > 0.9, p, 0.0), atol=1e-6)


def test_a_frozen_model_asks_for_nothing_and_the_empty_caption_is_worth_nothing(file):
    reward = Offline(file, use_probability=True, threshold=0.0)
    assert (reward.needs, reward.active, reward.moves) == ("nothing", True, False)
    captions = table(CAPTIONS[:6])
    before = reward.score(captions, np.arange(7))
    assert before[0] == 0.0
    assert (before[1:] > 0.0).all()
    assert before.dtype == np.float32
    reward.observe(captions, [1, 2])
    reward.saw(captions, np.ones(captions.capacity, np.int64))
    np.testing.assert_array_equal(reward.score(captions, np.arange(7)[::-1]), before[::-1])
    assert reward.score(captions, np.zeros(0, np.int64)).shape == (0,)


def test_a_run_goes_on_with_the_same_file_wherever_it_is(file, model, tmp_path):
    state = json.loads(json.dumps(Offline(file).state_dict()))
    moved = tmp_path / "elsewhere.oni"
    shutil.copy(file, moved)
    Offline(moved).load((), state)
    other = tmp_path / "other.oni"
    write_model(other, RewardFile(**{**vars(model), "mean": model.mean + 1.0}))
    with pytest.raises(CheckpointError, match=f"another reward model .*{file}.* than {other}"):
        Offline(other).load((), state)
    with pytest.raises(CheckpointError, match="another reward model"):
        Offline(other).load((), {})


def test_the_file_holds_the_model_whole_and_the_same_model_gives_the_same_bytes(model, file, tmp_path):
    read, digest = read_model(file)
    assert digest == write_model(tmp_path / "again.oni", model)
    assert read.provenance == model.provenance
    assert read.held_out == model.held_out
    assert read.samples == model.samples
    assert jax.tree.structure(read.params) == jax.tree.structure(dict(model.params))
    for ours, theirs in zip(jax.tree.leaves(read.params), jax.tree.leaves(model.params), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [path.name for path in tmp_path.iterdir()] == ["again.oni"], "nothing partial is left"


def test_the_same_store_and_seed_give_the_same_model(store, model):
    with StoreReader(store) as reader:
        again = distill(reader, DistillConfig(kind="classification", learner=SMALL, steps=150))
    assert again.samples == model.samples
    assert again.held_out == model.held_out


def changed(file, path, **values):
    """Writes a copy of a file in which some fields differ."""
    content = msgpack.unpackb(file.read_bytes())
    path.write_bytes(msgpack.packb(content | values))
    return path


def test_files_that_cannot_be_used_are_refused_in_words(file, model, tmp_path):
    path = tmp_path / "bad.oni"
    with pytest.raises(ConfigError, match=r"needs reward\.path"):
        Offline(None)
    with pytest.raises(ConfigError, match="No such file"):
        Offline(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        Offline(tmp_path)
    for content in (b"", b"\xc1", b"hello", file.read_bytes()[:-100], msgpack.packb({"format": "other"}), b"\x90"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="no reward model: make it with `oni distill`"):
            Offline(path)
    with pytest.raises(ConfigError, match=r"later version of oni-jax \(schema 2\)"):
        Offline(changed(file, path, schema=2))
    with pytest.raises(ConfigError, match="kind 'guessing'; this version knows classification, ranking"):
        Offline(changed(file, path, kind="guessing"))
    for values in ({"params": b"\xc1"}, {"params": None}, {"mean": "x"}, {"settings": 3}, {"samples": [[1]]}):
        with pytest.raises(ConfigError, match="is damaged"):
            Offline(changed(file, path, **values))
    with pytest.raises(ConfigError, match="do not fit its settings"):
        Offline(changed(file, path, settings=model.settings | {"ngram_size": 17}))
    with pytest.raises(ConfigError, match="of another version"):
        Offline(changed(file, path, settings=model.settings | {"encoder": "runes"}))
    with pytest.raises(ConfigError, match="reads captions otherwise"):
        Offline(changed(file, path, samples=[[text, value + 1.0] for text, value in model.samples]))
    Offline(changed(file, path, settings=model.settings | {"of_a_later_version": 1}, more=2))


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A store in which helpful captions are compared with unhelpful ones, and two helpful ones with each other."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.sqlite"
    rng = np.random.default_rng(0)
    pairs = [(HELPFUL[i], UNHELPFUL[j]) for i, j in rng.integers(0, len(HELPFUL), (150, 2))]
    pairs += [(HELPFUL[0], HELPFUL[1])]
    labeler = compare_into(path, [*pairs, *(pair[::-1] for pair in pairs), (HELPFUL[2], HELPFUL[3])])
    with Store(path) as writer:
        writer.add_run("run", "run", {}, labeler_id=labeler, goal="kill")
        seen = {HELPFUL[0]: 1, UNHELPFUL[0]: 9}
        writer.add_occurrences(
            "run",
            [
                Occurrence(caption=text, count=count, first_step=1, last_step=2, reward_sum=0.0)
                for text, count in seen.items()
            ],
        )
    return path


def test_preferences_are_distilled_into_a_standardised_score(compared, tmp_path):
    with StoreReader(compared) as reader:
        annotations = read_preferences(reader, reader.labelers()[0].labeler_id, soft=False)
        model = distill(reader, DistillConfig(kind="ranking", learner=SMALL, steps=150))
    assert annotations.counts["pairs"] == len(annotations.target)
    assert annotations.counts["ties"] == int((annotations.target == 0.5).sum()) == 1
    assert annotations.decided.sum() == len(annotations.target) - 1
    assert annotations.seen.sum() == 10
    assert model.held_out["accuracy"] >= 0.98
    assert "auc" not in model.held_out
    path = tmp_path / "ranking.oni"
    write_model(path, model)
    encoder = make_text_encoder(SMALL, num_outputs=1)
    value = values_of(make_learning(encoder, learning_rate=1e-3), model.params, encoder.features(CAPTIONS))
    good, bad = value[CAPTIONS.index(HELPFUL[0])], value[CAPTIONS.index(UNHELPFUL[0])]
    # one step in ten said the good caption, nine the bad one
    assert (model.mean, model.std) == pytest.approx((0.1 * good + 0.9 * bad, 0.3 * (good - bad)), rel=1e-4)
    z = (value - model.mean) / model.std
    np.testing.assert_allclose(score(Offline(path), CAPTIONS), np.where(z > -0.5, z, 0.0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(score(Offline(path, threshold=1.0), CAPTIONS), np.where(z > 1, z, 0.0), rtol=1e-4)
    assert score(Offline(path), [HELPFUL[0], UNHELPFUL[0]]) == pytest.approx([3.0, -1 / 3], rel=1e-3)


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


def test_the_command_writes_a_file_and_tells_how_good_it_is(cli, store, tmp_path):
    path = tmp_path / "models" / "reward.oni"
    options = ("--held-out", 0.25, "--seed", 3, "--soft-labels", "--class-balance")
    status, out, err = cli(store, "--out", path, "--json", *options)
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert told["schema"] == 1
    assert told["kind"] == "classification"
    assert told["provenance"]["seed"] == 3
    assert told["provenance"]["steps"] == 100
    assert told["provenance"]["captions"] == 96
    assert told["provenance"]["model"]
    assert told["held_out"]["accuracy"] > 0.9
    assert told["settings"]["soft_labels"] is told["settings"]["class_balance"] is True
    model, digest = read_model(path)
    assert told["sha256"] == digest
    assert model.held_out == told["held_out"]
    assert score(Offline(path), [b"You kill the zombie!", b"The zombie bites you."]).tolist() == [1.0, 0.0]

    status, out, err = cli(store, "--out", path)
    assert (status, out) == (2, "")
    assert f"{path} is there already" in err
    assert read_model(path).digest == digest

    status, out, err = cli(store, "--out", path, "--overwrite", "--steps", 1, "--held-out", 0)
    assert (status, err) == (0, "")
    assert "96 captions, 48 helpful, 48 unhelpful, 0 by hand" in out
    assert "nothing could be measured: 0 held out" in out
    assert read_model(path).digest != digest


def test_a_run_stands_for_its_store(cli, store, tmp_path, file):
    from oni.config import TrainConfig
    from oni.rundir import create

    run = create(tmp_path / "run", TrainConfig())
    status, _, err = cli(run.path, "--out", tmp_path / "reward.oni")
    assert status == 1
    assert "has no annotation store yet" in err
    shutil.copy(store, run.store)
    status, out, _ = cli(run.path, "--out", tmp_path / "reward.oni", "--steps", 1)
    assert status == 0
    assert "measured on" in out
