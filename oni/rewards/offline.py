"""A reward model distilled beforehand from stored annotations, frozen: Motif's way."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from pydantic import TypeAdapter

from oni.captions import CaptionTable
from oni.config import RewardLearnerConfig
from oni.errors import CheckpointError, ConfigError
from oni.rewards import classification, ranking
from oni.rewards.base import CaptionReward
from oni.rewards.learning import make_learning, values_of
from oni.rewards.modelfile import RewardFile, read_model
from oni.rewards.text import make_text_encoder

Values = Float[np.ndarray, " N"]
Read = Callable[[Sequence[bytes]], Values]
"""From texts to what the network says: log-odds of helpful for classification, a score without scale for ranking."""

_TOLERANCE = 1e-2
"""How far the answers to the samples may be off: other machines and versions of JAX round otherwise."""


Pay = Callable[[Values], Values]


def _classification(_: RewardFile, threshold: float | None, use_probability: bool) -> Pay:
    level = classification.THRESHOLD if threshold is None else threshold

    return lambda value: classification.pay(value, threshold=level, use_probability=use_probability)


def _ranking(model: RewardFile, threshold: float | None, _: bool) -> Pay:
    moments = ranking.RunningMoments(num=1.0, mean=model.mean, var=model.std**2)
    level = ranking.THRESHOLD if threshold is None else threshold
    return lambda value: moments.standardize(value, threshold=level)


PAYS: dict[str, Callable[[RewardFile, float | None, bool], Pay]] = {
    "classification": _classification,
    "ranking": _ranking,
}

NUM_OUTPUTS = {"classification": 2, "ranking": 1}
"""Outputs of the network of each kind."""


def load_network(path: Path, model: RewardFile) -> Read:
    """Returns the network of a file, as a function.

    Raises:
        ConfigError: the parameters do not fit the settings, or captions are read otherwise than when it was written.
    """
    again = "make it with `oni distill` once more"
    try:
        settings = TypeAdapter(RewardLearnerConfig).validate_python(model.settings)
        encoder = make_text_encoder(settings, num_outputs=NUM_OUTPUTS[model.kind])
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{path} is damaged, or of another version of oni-jax ({error}): {again}") from error
    learning = make_learning(encoder, learning_rate=settings.learning_rate)
    if _layout(jax.eval_shape(learning.init, jax.random.key(0)).params) != _layout(model.params):
        raise ConfigError(f"{path} is damaged: its parameters do not fit its settings; {again}")
    params = jax.tree.map(jnp.asarray, model.params)

    def read(texts: Sequence[bytes]) -> Values:
        return values_of(learning, params, encoder.features(texts))

    if model.samples:
        texts, expected = zip(*model.samples, strict=True)
        if not np.allclose(read(texts), expected, rtol=_TOLERANCE, atol=_TOLERANCE):
            raise ConfigError(f"{path} was written by a version of oni-jax that reads captions otherwise: {again}")
    return read


def _layout(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.shape(leaf) for path, leaf in leaves}


class Offline(CaptionReward):
    """Scores every caption by a model out of a file, the same throughout the run. Asks for nothing.

    Source: Klissarov et al. (arXiv 2310.00166), who learn the reward before the policy, from preferences.

    Args:
        path: file of `oni distill`.
        threshold: what pays is above it: the probability of helpful, or the standardised score. None: 0.5 and -0.5.
        use_probability: pays the probability instead of 1 (a file of kind classification).

    Raises:
        ConfigError: the file cannot be used.
    """

    def __init__(
        self, path: Path | str | None, *, threshold: float | None = None, use_probability: bool = False
    ) -> None:
        if path is None:
            raise ConfigError("reward.kind offline needs reward.path, a file made with `oni distill`")
        self._path = Path(path)
        self.model, self._digest = read_model(self._path)
        if self.model.kind not in PAYS:
            raise ConfigError(f"{path} holds a model of kind {self.model.kind!r}; this version knows {', '.join(PAYS)}")
        self._read = load_network(self._path, self.model)
        self._pay = PAYS[self.model.kind](self.model, threshold, use_probability)
        self._known: dict[bytes, float] = {b"": 0.0}

    def score(self, captions: CaptionTable, ids: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        """Returns what the model pays for each caption; each is read once."""
        texts = [captions.texts[i] for i in ids]
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= zip(new, self._pay(self._read(new)).tolist(), strict=True)
        return np.array([self._known[text] for text in texts], np.float32)

    def state_dict(self) -> dict[str, Any]:
        """Returns which file it is, by its content."""
        return {"sha256": self._digest, "path": str(self._path)}

    def load(self, arrays: Any, state: dict[str, Any]) -> None:
        """Checks that the run was begun with this model.

        Raises:
            CheckpointError: it was another one.
        """
        if state.get("sha256") != self._digest:
            raise CheckpointError(
                f"the run was begun with another reward model ({state.get('path')}, SHA-256 "
                f"{str(state.get('sha256'))[:12]}...) than {self._path} ({self._digest[:12]}...): give that file as "
                "reward.path, wherever it is now, or start a new run"
            )
