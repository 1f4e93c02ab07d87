"""The embedding model: its formulas by hand, with an encoder whose vectors are drawn on paper, and the real encoder."""

import importlib.util
import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest

from llm_annotator.evaluate import auc, read_cases
from oni.captions import CaptionTable
from oni.errors import ConfigError
from oni.rewards.embedding import Embedding, cosine, make_embedding, regularized, unit, wordllama_encoder

DATA = Path(__file__).parents[1] / "data"

VECTORS = {
    "win the game": [2.0, 0.0],
    "nothing happens": [0.0, 3.0],
    "you win": [1.0, 0.0],
    "you win a little": [3.0, 4.0],
    "you stand still": [0.0, 1.0],
    "you lose": [-5.0, 0.0],
    "gibberish": [0.0, 0.0],
}
CAPTIONS = list(VECTORS)[2:]


class PaperEncoder:
    """Gives the vectors above, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked.extend(texts)
        return np.array([VECTORS[text] for text in texts], np.float32)


def table(texts):
    captions = CaptionTable(1)
    for text in texts:
        captions.intern(text.encode())
    return captions


def scores(model, texts=CAPTIONS):
    captions = table(texts)
    return model.score(captions, np.arange(len(captions)))[1:].tolist()


def test_unit_vectors_by_hand():
    np.testing.assert_allclose(unit(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)), [[0.6, 0.8], [0.0, 0.0]])


def test_cosine_by_hand():
    # goal (1, 0): the first coordinate of each unit vector
    assert scores(Embedding("win the game", PaperEncoder())) == pytest.approx([1.0, 0.6, 0.0, -1.0, 0.0])


@pytest.mark.parametrize(
    ("strength", "expected"),
    [
        # g = (1, 0), b = (0, 1), d = g - b = (1, -1), s = (0.6, 0.8): s - g = (-0.4, 0.8), d . (s - g) = -1.2
        (0.0, 0.6),  # 1 - (0.16 + 0.64) / 2, the cosine
        (1.0, 0.64),  # proj(s) - g = -0.6 d, 1 - (0.36 + 0.36) / 2
        (0.5, 0.63),  # (-0.6 + -0.4, 0.6 + 0.8) / 2 = (-0.5, 0.7), 1 - (0.25 + 0.49) / 2
    ],
)
def test_regularized_by_hand(strength, expected):
    text, goal, baseline = np.float32([[0.6, 0.8]]), np.float32([1.0, 0.0]), np.float32([0.0, 1.0])
    assert regularized(text, goal, baseline, strength=strength)[0] == pytest.approx(expected)
    model = Embedding("win the game", PaperEncoder(), baseline="nothing happens", strength=strength)
    assert scores(model, ["you win a little", "gibberish"]) == pytest.approx([expected, 0.0])


def test_regularized_leaves_out_what_neither_goal_nor_baseline_has():
    rng = np.random.default_rng(0)
    goal, baseline, *text = unit(rng.normal(size=(8, 6)).astype(np.float32))
    text = np.stack(text)
    by_formula = regularized(text, goal, baseline, strength=1.0)
    line = (goal - baseline) / np.linalg.norm(goal - baseline)
    along = text @ line  # the only thing that may count
    order = np.argsort(by_formula)
    nearness = -np.abs(along - goal @ line)
    np.testing.assert_array_equal(order, np.argsort(nearness))
    np.testing.assert_allclose(regularized(text, goal, baseline, strength=0.0), cosine(text, goal), atol=1e-6)
    for strength in (0.0, 0.3, 1.0):
        ends = regularized(np.stack([goal, baseline]), goal, baseline, strength=strength)
        np.testing.assert_allclose(ends, [1.0, baseline @ goal], atol=1e-6)


def test_scores_that_are_not_above_the_threshold_become_0():
    model = Embedding("win the game", PaperEncoder(), threshold=0.6000001)
    assert scores(model) == pytest.approx([1.0, 0.0, 0.0, 0.0, 0.0])
    negative = Embedding("win the game", PaperEncoder(), threshold=-0.5)
    assert scores(negative) == pytest.approx([1.0, 0.6, 0.0, 0.0, 0.0])


def test_each_caption_is_encoded_once_and_the_empty_one_never():
    encoder = PaperEncoder()
    model = Embedding("win the game", encoder)
    captions = table(CAPTIONS)
    assert encoder.asked == [], "nothing is loaded before there is a caption"
    assert model.score(captions, np.array([0, 0])).tolist() == [0.0, 0.0]
    first = model.score(captions, np.array([2, 1, 2]))
    asked = list(encoder.asked)
    np.testing.assert_array_equal(first, model.score(captions, np.array([2, 1, 2])))
    assert encoder.asked == asked
    assert "" not in asked
    assert asked.count("you win a little") == 1
    # ids belong to a table, what is known to the text
    assert model.score(table(CAPTIONS[::-1]), np.array([4])).tolist() == pytest.approx([0.6])
    assert encoder.asked == asked


def test_texts_that_say_nothing_are_refused():
    with pytest.raises(ConfigError, match="must say something"):
        Embedding(" ", PaperEncoder())
    with pytest.raises(ConfigError, match="must say something"):
        Embedding("win the game", PaperEncoder(), baseline="")
    with pytest.raises(ConfigError, match="the goal itself"):
        Embedding("win the game", PaperEncoder(), baseline="win  the game ")
    with pytest.raises(ConfigError, match="knows no word of 'gibberish'"):
        scores(Embedding("gibberish", PaperEncoder()))
    with pytest.raises(ConfigError, match="cannot tell 'win the game' from the baseline 'you win'"):
        scores(Embedding("win the game", PaperEncoder(), baseline="you win"))


def test_the_goal_is_that_of_the_annotator_unless_another_is_given():
    with pytest.raises(ConfigError, match="minigird.*did you mean 'minigrid'"):
        make_embedding(goal="minigird")
    make_embedding(goal="no-such-goal", goal_text="pick up the key")


def test_without_the_package_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(ConfigError, match=r"pip install 'oni-jax\[embedding\]'"):
        make_embedding(goal="minigrid")


real = pytest.mark.skipif(importlib.util.find_spec("wordllama") is None, reason="needs the extra `embedding`")


@real
@pytest.mark.slow
def test_the_real_encoder_tells_progress_in_minigrid_from_chatter():
    root = logging.getLogger()
    before = list(root.handlers), root.level
    model = make_embedding(goal="minigrid")
    cases = read_cases(DATA / "minigrid_captions.jsonl")
    captions = CaptionTable(1)
    ids = np.array([captions.intern(case.caption) for case in cases])
    score = model.score(captions, ids)
    assert (list(root.handlers), root.level) == before
    assert auc(score.tolist(), [case.helpful for case in cases]) > 0.95
    assert np.abs(score).max() <= 1.0
    with_baseline = make_embedding(goal="minigrid", baseline_text="Something is said in the room.")
    assert auc(with_baseline.score(captions, ids).tolist(), [case.helpful for case in cases]) > 0.95


@real
@pytest.mark.slow
def test_hostile_captions_get_a_finite_score():
    captions = CaptionTable(1)
    texts = [b"\xff\xfe", b"\x00", b"x" * 100_000, "\u202e\u2028".encode(), b"\xf0\x9f\x97\x9d" * 300, b"<|im_end|>"]
    ids = np.array([captions.intern(text) for text in texts])
    score = make_embedding(goal="minigrid").score(captions, ids)
    assert np.isfinite(score).all()
    assert (np.abs(score) <= 1.0 + 1e-6).all()


@real
@pytest.mark.slow
def test_a_text_is_encoded_alike_alone_and_in_a_batch():
    encode = wordllama_encoder()
    texts = [json.dumps({"n": n}) * (n + 1) for n in range(5)] + [""]
    together = encode(texts)
    assert together.shape == (6, 256)
    assert not together[5].any()
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_allclose(encode([text])[0], vector, atol=1e-6)
