"""How captions are read."""

import jax
import numpy as np
import pytest

from oni.captions import CaptionTable
from oni.config import RewardLearnerConfig
from oni.errors import ConfigError
from oni.rewards.text import (
    MAX_PIECES,
    FeatureTable,
    byte_features,
    make_text_encoder,
    ngram_features,
)


def pieces_of(text, num_buckets=4096):
    return set(ngram_features([text], max_bytes=256, num_buckets=num_buckets)[0].tolist()) - {0}


def num_params(encoder):
    length, dtype = encoder.row
    rows = jax.ShapeDtypeStruct((1, length), dtype)
    shapes = jax.eval_shape(lambda x: encoder.module.init(jax.random.key(0), x, learning=False), rows)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_the_reference_network_has_its_size():
    dense = 320 * 128 + 128 + 128 * 512 + 512 + 512 * 512 + 512  # 256 bytes leave 5 positions of 64 channels
    convolutions = 7 * 32 * 64 + 7 * 64 * 64 + 4 * 3 * 64 * 64 + 6 * 64
    head = 512 * 2 + 2
    assert num_params(make_text_encoder(RewardLearnerConfig(encoder="cnn"), num_outputs=2)) == (
        256 * 32 + convolutions + dense + head
    )
    assert 465_000 < 256 * 32 + convolutions + dense + head < 475_000


def test_a_score_needs_one_output():
    config = RewardLearnerConfig(encoder="cnn")
    two, one = (num_params(make_text_encoder(config, num_outputs=n)) for n in (2, 1))
    assert two - one == 513


def test_the_convolutions_need_a_long_text():
    with pytest.raises(ConfigError, match="at least 123"):
        make_text_encoder(RewardLearnerConfig(encoder="cnn", max_caption_bytes=122), num_outputs=2)
    config = RewardLearnerConfig(encoder="cnn", max_caption_bytes=123)
    assert num_params(make_text_encoder(config, num_outputs=2)) < 470_000


def test_bytes_are_cut_and_filled():
    rows = byte_features([b"abc", b"\xff\x00defgh"], max_bytes=4)
    assert rows.tolist() == [[97, 98, 99, 0], [255, 0, 100, 101]]


def test_pieces_are_letters_words_and_pairs_of_words():
    # " ab": " ab" and "ab " ; the word ab; the pairs "< ab" and "ab >"
    assert len(pieces_of(b"ab", num_buckets=2**20)) == 5
    # the second word brings "b a", "ab " is known, the pair "ab ab"
    assert len(pieces_of(b"ab ab", num_buckets=2**20)) == 5 + 2
    assert pieces_of(b"AB") == pieces_of(b"ab")
    assert pieces_of(b"you kill the newt!") != pieces_of(b"the newt kill you!")


def test_captions_of_one_form_share_most_pieces():
    one, other = pieces_of(b"You kill the grid bug!"), pieces_of(b"You kill the jackal!")
    assert len(one & other) > len(one) // 2


def test_long_captions_keep_a_sample():
    text = bytes(range(97, 123)) * 9
    rows = ngram_features([text], max_bytes=256, num_buckets=4096)
    assert rows.shape == (1, MAX_PIECES)
    assert (np.diff(rows[0][rows[0] > 0]) > 0).all()
    many = b" ".join(b"w%d" % i for i in range(60))
    assert len(pieces_of(many)) == MAX_PIECES


def test_every_number_is_a_bucket():
    assert pieces_of(b"You kill the newt!", num_buckets=2) == {1}
    assert max(pieces_of(b"You kill the newt!", num_buckets=16)) <= 15


def test_features_are_computed_once_and_survive_growth():
    encoder = make_text_encoder(RewardLearnerConfig(), num_outputs=2)
    asked = []

    def features(texts):
        asked.extend(texts)
        return encoder.features(texts)

    table, captions = FeatureTable(encoder._replace(features=features)), CaptionTable(1)
    captions.intern(b"first")
    before = table.rows(captions)[1].copy()
    for i in range(1100):
        captions.intern(b"caption %d" % i)
    rows = table.rows(captions)
    table.rows(captions)
    assert asked == captions.texts
    assert len(rows) >= len(captions)
    np.testing.assert_array_equal(rows[1], before)
    other = CaptionTable(1)
    other.intern(b"second")
    np.testing.assert_array_equal(table.rows(other)[1], encoder.features([b"second"])[0])
