"""From the bytes of a caption to one number: what reads captions in the reward models that learn."""

import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped, UInt8

from oni.captions import CaptionTable
from oni.config import RewardLearnerConfig
from oni.errors import ConfigError

CNN_MIN_BYTES = 123
"""The shortest text that leaves a position after the last pooling of `CaptionCNN`."""

NGRAM_LETTERS = 3

MAX_PIECES = 96
"""Pieces kept of a caption; nine of ten messages of NetHack have fewer than 120."""

_WORD = re.compile(rb"[a-z]+|[^a-z\s]")

_MIN_ROWS = 1024


class CaptionCNN(nn.Module):
    """Convolutions over bytes, with about 470,000 parameters.

    Embedding of 32; six convolutions of 64 channels with kernels 7, 7, 3, 3, 3, 3, max-pooling by 3 after the first,
    second and sixth; dense layers of 128, 512 and 512 with dropout 0.1.

    Source: Zheng et al. (arXiv 2410.23022), after Zhang et al. (arXiv 1509.01626).

    num_outputs: 2 for classification (the value is the difference of the logits), 1 for a score.
    """

    num_outputs: int

    @nn.compact
    def __call__(self, text: UInt8[Array, "N L"], *, learning: bool) -> Float[Array, " N"]:
        """Returns a value for each text; in [-inf, inf], the log-odds of helpful for classification."""
        x = nn.Embed(256, 32)(text.astype(jnp.int32))
        for i, kernel in enumerate((7, 7, 3, 3, 3, 3)):
            x = nn.relu(nn.Conv(64, (kernel,), padding="VALID")(x))
            if i in (0, 1, 5):
                x = nn.max_pool(x, (3,), strides=(3,))
        x = x.reshape(x.shape[0], -1)
        for size in (128, 512, 512):
            x = nn.Dropout(0.1, deterministic=not learning)(nn.relu(nn.Dense(size)(x)))
        return _value(x, self.num_outputs)


class NGramMLP(nn.Module):
    """A bag of embedded pieces of text and a hidden layer.

    The embeddings of the pieces are summed and divided by the root of their number, so that a caption's features are of
    the same size however long it is.

    num_outputs: as in `CaptionCNN`. num_buckets: numbers of pieces; 0 stands for none. size: features.
    """

    num_outputs: int
    num_buckets: int
    size: int

    @nn.compact
    def __call__(self, pieces: Int[Array, "N K"], *, learning: bool) -> Float[Array, " N"]:
        """Returns a value for each text; in [-inf, inf], the log-odds of helpful for classification."""
        table = self.param("embedding", nn.initializers.normal(0.1), (self.num_buckets, self.size))
        present = pieces > 0
        summed = jnp.where(present[..., None], table[pieces.astype(jnp.int32)], 0.0).sum(1)
        x = nn.relu(summed / jnp.sqrt(jnp.maximum(present.sum(1), 1))[:, None])
        return _value(nn.relu(nn.Dense(self.size)(x)), self.num_outputs)


def _value(x: Array, num_outputs: int) -> Array:
    """Returns one number a row, 0 before anything is learned: whoever knows nothing prefers nothing."""
    out = nn.Dense(num_outputs, kernel_init=nn.initializers.zeros)(x)
    return out[:, 0] if num_outputs == 1 else out[:, 1] - out[:, 0]


def byte_features(texts: Iterable[bytes], *, max_bytes: int) -> UInt8[np.ndarray, "N max_bytes"]:
    """Returns the bytes of each text, cut off or filled up with 0."""
    return np.frombuffer(b"".join(t[:max_bytes].ljust(max_bytes, b"\0") for t in texts), np.uint8).reshape(
        -1, max_bytes
    )


def _pieces(text: bytes) -> set[bytes]:
    words = _WORD.findall(text)
    padded = b" %b " % text
    pairs = (b"%b %b" % pair for pair in zip([b"<", *words], [*words, b">"], strict=True))
    return {*words, *pairs, *(padded[i : i + NGRAM_LETTERS] for i in range(len(padded) - NGRAM_LETTERS + 1))}


def ngram_features(texts: Sequence[bytes], *, max_bytes: int, num_buckets: int) -> Int[np.ndarray, "N K"]:
    """Returns the numbers of the pieces of each text, in rising order, after as many 0 as it takes.

    Pieces are three letters in a row, words, and two words in a row; a digit or a sign is a word. Upper and lower case
    are the same, and a piece counts once. Letters alone read 389 messages of NetHack less well (90% of those held out
    right, against 92%): `You kill the X!` is told from `X kills you!` by the pairs. Of more than `MAX_PIECES`, those
    with the lowest hashes are kept, which is a fair sample and the same piece in every caption.
    """
    rows = np.zeros((len(texts), MAX_PIECES), np.int32)
    for row, text in zip(rows, texts, strict=True):
        pieces = _pieces(text[:max_bytes].lower())
        numbers = sorted({zlib.crc32(piece) % (num_buckets - 1) + 1 for piece in pieces})[:MAX_PIECES]
        row[MAX_PIECES - len(numbers) :] = numbers
    return rows


class TextEncoder(NamedTuple):
    """How captions are read.

    features: texts -> what `module` takes, a row a text. module: rows -> values. row: shape and type of a row.
    """

    features: Callable[[Sequence[bytes]], np.ndarray]
    module: nn.Module
    row: tuple[int, Any]


def make_text_encoder(config: RewardLearnerConfig, *, num_outputs: int) -> TextEncoder:
    """Creates the encoder named by `config.encoder`.

    Raises:
        ConfigError: the text is too short for the convolutions.
    """
    return _ENCODERS[config.encoder](config, num_outputs)


def _cnn(config: RewardLearnerConfig, num_outputs: int) -> TextEncoder:
    size = config.max_caption_bytes
    if size < CNN_MIN_BYTES:
        raise ConfigError(
            f"reward.learner.max_caption_bytes {size} is too short for encoder cnn: give at least {CNN_MIN_BYTES}, or "
            "use encoder ngrams"
        )
    return TextEncoder(
        features=lambda texts: byte_features(texts, max_bytes=size),
        module=CaptionCNN(num_outputs=num_outputs),
        row=(size, np.uint8),
    )


def _ngrams(config: RewardLearnerConfig, num_outputs: int) -> TextEncoder:
    return TextEncoder(
        features=lambda texts: ngram_features(
            texts, max_bytes=config.max_caption_bytes, num_buckets=config.ngram_buckets
        ),
        module=NGramMLP(num_outputs=num_outputs, num_buckets=config.ngram_buckets, size=config.ngram_size),
        row=(MAX_PIECES, np.int32),
    )


_ENCODERS: dict[str, Callable[[RewardLearnerConfig, int], TextEncoder]] = {"cnn": _cnn, "ngrams": _ngrams}


class FeatureTable:
    """The features of all captions by id, each computed once."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._captions: CaptionTable | None = None
        self._size = 0
        self._rows = self._empty(_MIN_ROWS)

    def _empty(self, capacity: int) -> np.ndarray:
        length, dtype = self._encoder.row
        return np.zeros((capacity, length), dtype)

    def rows(self, captions: CaptionTable) -> Shaped[np.ndarray, "V F"]:
        """Returns the features of every caption, a row an id.

        Rows of captions that were there before are never written again, so a thread may read them meanwhile.
        """
        if captions is not self._captions:
            self._captions, self._size = captions, 0
            self._rows = self._empty(_MIN_ROWS)
        size = len(captions)
        if size > len(self._rows):
            old, self._rows = self._rows, self._empty(1 << (size - 1).bit_length())
            self._rows[: self._size] = old[: self._size]
        if size > self._size:
            self._rows[self._size : size] = self._encoder.features(captions.texts[self._size : size])
            self._size = size
        return self._rows
