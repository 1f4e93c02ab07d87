"""ONI-retrieval: a caption is worth its own label."""

import numpy as np
from jaxtyping import Float, Int

from oni.captions import EMPTY_ID, CaptionTable
from oni.rewards.base import CaptionReward, Needs


class Retrieval(CaptionReward):
    """Scores 1 for a caption labelled helpful, 0 for one labelled unhelpful or not labelled (yet).

    Source: Zheng et al. (arXiv 2410.23022), section 3.

    Args:
        use_probability: scores the probability of helpful instead, where the label came with one. Without one (an
            annotator that gives none, a person's override) the score stays 1 or 0.
    """

    needs: Needs = "labels"

    def __init__(self, *, use_probability: bool = False) -> None:
        self._use_probability = use_probability

    def score(self, captions: CaptionTable, ids: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        """Returns 1 where the label is helpful, else 0; or the probability of that."""
        score = (captions.helpful[ids] == 1).astype(np.float32)
        if self._use_probability:
            probability = captions.p_helpful[ids]
            score = np.where(captions.known[ids] & ~np.isnan(probability), probability, score)
        score[ids == EMPTY_ID] = 0.0
        return score
