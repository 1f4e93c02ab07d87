"""How near a caption is in meaning to the goal, by a text encoder out of a package: no LLM, no labels, no network."""

import importlib.util
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from llm_annotator.captions import render_caption
from llm_annotator.errors import ConfigError as AnnotatorConfigError
from llm_annotator.promptfiles import load_goal
from oni.captions import CaptionTable
from oni.errors import ConfigError
from oni.rewards.base import CaptionReward

Encoder = Callable[[Sequence[str]], Float[np.ndarray, "N D"]]
"""From texts to vectors of any length; a text that says nothing to the encoder is 0."""

MAX_CHARS = 400
"""Characters of a caption that are looked at, as many as an LLM is shown by default. The encoder pads a batch to its
longest text, so a single one of thousands would cost hundreds of megabytes."""

BASELINE_STRENGTH = 0.5
"""How much of what has nothing to do with goal or baseline is left out, by default. On 191 captions of MiniGrid the AUC
moved by 0.04 at most between 0 and 1, and no value was best for each of five baselines."""


def unit(vector: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Returns vectors of length 1; one that is 0 stays 0."""
    length = np.linalg.norm(vector, axis=1, keepdims=True)
    return (vector / np.where(length > 0, length, 1.0)).astype(np.float32)


def cosine(text: Float[np.ndarray, "N D"], goal: Float[np.ndarray, " D"]) -> Float[np.ndarray, " N"]:
    """Returns the cosine between each text and the goal, all of length 1 or 0."""
    return text @ goal


def regularized(
    text: Float[np.ndarray, "N D"],
    goal: Float[np.ndarray, " D"],
    baseline: Float[np.ndarray, " D"],
    *,
    strength: float,
) -> Float[np.ndarray, " N"]:
    """Returns 1 - |strength * proj(s) + (1 - strength) * s - g|^2 / 2 for each text s, all of length 1.

    proj(s) = g + d (d . (s - g)) / |d|^2 with d = g - b is the point nearest to s on the line through goal g and
    baseline b. With strength 0 this is the cosine; with 1 only the part of s along that line counts, which is what
    tells the goal from the ordinary. At most 1, and b . g at the baseline, whatever the strength.

    Source: goal-baseline regularisation, Rocamonde et al. (arXiv 2310.12921), definition 1.
    """
    away, line = text - goal, goal - baseline
    along = np.outer(away @ line, line) / (line @ line)
    return 1.0 - np.square(strength * along + (1.0 - strength) * away).sum(1) / 2.0


class Embedding(CaptionReward):
    """Scores a caption by the cosine between its vector and that of the goal, `regularized` where there is a baseline.

    Scores are kept by caption (not vectors, which are a thousand times as large), so each is encoded once. What the
    encoder needs is loaded with the first caption.

    Args:
        goal: what is wished for, in plain words.
        encode: the encoder.
        baseline: the ordinary state of things, in plain words.
        strength: of the regularisation, from 0 (none) to 1.
        threshold: scores that are not above it become 0; by default none do, and they can be negative.

    Raises:
        ConfigError: goal or baseline is empty, or both are the same. `score` raises it where that only shows in the
            vectors.
    """

    def __init__(
        self,
        goal: str,
        encode: Encoder,
        *,
        baseline: str | None = None,
        strength: float = BASELINE_STRENGTH,
        threshold: float | None = None,
    ) -> None:
        self._texts = [goal] if baseline is None else [goal, baseline]
        self._encode = encode
        self._strength = strength
        self._threshold = threshold
        self._anchors: Float[np.ndarray, "K D"] | None = None
        self._known: dict[bytes, float] = {b"": 0.0}
        if not all(text.strip() for text in self._texts):
            raise ConfigError("reward.goal_text and reward.baseline_text must say something, or be left out")
        if baseline is not None and baseline.split() == goal.split():
            raise ConfigError(f"reward.baseline_text is the goal itself ({goal!r}): give another, or leave it out")

    def score(self, captions: CaptionTable, ids: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        """Returns how near each caption is to the goal: 1 for the goal itself; 0 where the encoder knows no word."""
        texts = [captions.texts[i] for i in ids]
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            shown = [render_caption(text, max_chars=MAX_CHARS) for text in new]
            self._known |= zip(new, self._score_texts(shown).tolist(), strict=True)
        return np.array([self._known[text] for text in texts], np.float32)

    def _score_texts(self, texts: Sequence[str]) -> Float[np.ndarray, " N"]:
        goal, *baseline = self._load_anchors()
        vector = unit(self._encode(texts))
        score = regularized(vector, goal, baseline[0], strength=self._strength) if baseline else cosine(vector, goal)
        says = vector.any(1)
        if self._threshold is not None:
            says &= score > self._threshold
        return np.where(says, score, 0.0)

    def _load_anchors(self) -> Float[np.ndarray, "K D"]:
        if self._anchors is None:
            anchors = unit(self._encode(self._texts))
            for text, vector in zip(self._texts, anchors, strict=True):
                if not vector.any():
                    raise ConfigError(f"the encoder knows no word of {text!r}: say it in other words")
            if len(anchors) > 1 and np.allclose(anchors[0], anchors[1], atol=1e-4):
                raise ConfigError(f"the encoder cannot tell {self._texts[0]!r} from the baseline {self._texts[1]!r}")
            self._anchors = anchors
        return self._anchors


def wordllama_encoder() -> Encoder:
    """Returns the encoder of the package `wordllama`: the mean of one vector of 256 numbers a token, 16 MB of weights.

    They come with the package, and are loaded at the first call, which takes a second or less; nothing is downloaded.

    Raises:
        ConfigError: the package is not there.
    """
    spec = importlib.util.find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise ConfigError("reward.kind embedding needs the extra `embedding`: pip install 'oni-jax[embedding]'")
    package = Path(spec.origin).parent
    model: list[Any] = []

    def encode(texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        if not model:
            model.append(_load_wordllama(package))
        return model[0].embed(list(texts))

    return encode


def _load_wordllama(package: Path) -> Any:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    from wordllama import WordLlama  # which configures the logging of the whole program

    root.handlers[:] = handlers
    root.setLevel(level)
    # Its own search for the tokenizer misses the folder that the package has, unless that is named as the cache.
    return WordLlama.load(cache_dir=package, disable_download=True)


def make_embedding(
    *,
    goal: str,
    goal_text: str | None = None,
    baseline_text: str | None = None,
    baseline_strength: float = BASELINE_STRENGTH,
    threshold: float | None = None,
) -> Embedding:
    """Creates the model from settings.

    Args:
        goal: name or path of the annotator's goal file, or a sentence: what counts unless `goal_text` is given.

    Raises:
        ConfigError: no such goal, no text, or the package of the encoder is missing.
    """
    if goal_text is None:
        try:
            goal_text = load_goal(goal).text
        except AnnotatorConfigError as error:
            raise ConfigError(str(error)) from error
    return Embedding(
        goal_text, wordllama_encoder(), baseline=baseline_text, strength=baseline_strength, threshold=threshold
    )
