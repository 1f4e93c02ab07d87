"""ONI-classification: a network learns from the labels which captions are helpful."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped

from oni.captions import EMPTY_ID, CaptionTable
from oni.config import RewardLearnerConfig
from oni.rewards.base import Needs
from oni.rewards.heldout import is_held_out, label_figures, logistic
from oni.rewards.learned import LearnedReward
from oni.rewards.learning import MAX_HELD_OUT, Data, Examples

THRESHOLD = 0.5
"""Probability above which a caption is paid, as in the paper; higher values make rewards sparser."""


def class_weights(target: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Returns weights of mean 1 with which helpful and unhelpful matter the same in sum.

    An example counts for helpful with its target t, for unhelpful with 1 - t:

        weight = t * N / (2 * sum of t) + (1 - t) * N / (2 * sum of 1 - t)

    All 1 where one of the sums is 0. What a model learns so is no longer the probability of helpful: the classes are
    taken to be equally frequent.
    """
    helpful, unhelpful = target.sum(), (1.0 - target).sum()
    if not helpful or not unhelpful:
        return np.ones_like(target)
    half = len(target) / 2.0
    return (target * half / helpful + (1.0 - target) * half / unhelpful).astype(target.dtype)


def pay(value: Float[np.ndarray, " N"], *, threshold: float, use_probability: bool) -> Float[np.ndarray, " N"]:
    """Returns 1, or the probability p = logistic(value) itself, where p is above the threshold, else 0."""
    probability = logistic(value)
    return np.where(probability > threshold, probability if use_probability else 1.0, 0.0).astype(np.float32)


class Classification(LearnedReward):
    """Scores 1 for a caption whose probability of helpful is above the threshold, else 0.

    A caption that nobody labelled is scored like any other. Source: Zheng et al. (arXiv 2410.23022), section 3.

    Args:
        threshold: probability above which a caption is paid, in [0, 1].
        use_probability: scores the probability itself where it is above the threshold.
    """

    needs: Needs = "labels"

    def __init__(
        self,
        config: RewardLearnerConfig | None = None,
        *,
        threshold: float = THRESHOLD,
        use_probability: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(
            config or RewardLearnerConfig(), num_outputs=2, figures=label_figures, max_grad_norm=None, seed=seed
        )
        self._threshold = threshold
        self._use_probability = use_probability
        self._captions: CaptionTable | None = None
        self._is_held_out = np.zeros(0, bool)

    def observe(self, captions: CaptionTable, changed: Sequence[int]) -> None:
        """Learns from the labels."""
        self._news(captions)

    def _held_out(self, captions: CaptionTable) -> Shaped[np.ndarray, " V"]:
        """Returns whether each caption is kept from learning; the texts are hashed once."""
        if captions is not self._captions:
            self._captions, self._is_held_out = captions, np.zeros(0, bool)
        new = captions.texts[len(self._is_held_out) :]
        if new:
            share = self.config.held_out
            more = np.array([is_held_out(text, share=share) for text in new])
            self._is_held_out = np.concatenate([self._is_held_out, more])
        return self._is_held_out

    def _collect(self, captions: CaptionTable, features: Shaped[np.ndarray, "V F"]) -> Data:
        labelled = captions.known[: len(captions)].copy()
        labelled[EMPTY_ID] = False
        labelled &= ~captions.muted[: len(captions)]
        held_out = self._held_out(captions)
        learned = np.flatnonzero(labelled & ~held_out)
        measured = np.flatnonzero(labelled & held_out)[-MAX_HELD_OUT:]
        label = (captions.helpful == 1).astype(np.float32)
        target = label[learned]
        if self.config.soft_labels:
            probability = captions.p_helpful[learned]
            target = np.where(np.isnan(probability), target, probability)
        weight = class_weights(target) if self.config.class_balance else np.ones_like(target)
        return Data(
            learned=Examples(features=features, ids=learned[:, None], target=target, weight=weight),
            held_out=Examples(
                features=features,
                ids=measured[:, None],
                target=label[measured],
                weight=np.ones(len(measured), np.float32),
            ),
            num_labels=int(labelled.sum()),
        )

    def _scale(self, values: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        return pay(values, threshold=self._threshold, use_probability=self._use_probability)
