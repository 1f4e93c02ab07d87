"""ONI-retrieval: a caption is worth its own label."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from oni.captions import EMPTY_ID, CaptionTable


class Retrieval:
    """Scores 1 for a caption labelled helpful, 0 for one labelled unhelpful or not labelled (yet).

    Source: Zheng et al. (arXiv 2410.23022), section 3.

    Args:
        use_probability: scores the probability of helpful instead, where the label came with one. Without one (an
            annotator that gives none, a person's override) the score stays 1 or 0.
    """

    needs_labels = True
    active = True

    def __init__(self, *, use_probability: bool = False) -> None:
        self._use_probability = use_probability

    def observe(self, captions: CaptionTable, changed: Sequence[int]) -> None:
        """Needs nothing beside the labels, which the captions hold."""

    def score(self, captions: CaptionTable) -> Float[np.ndarray, " capacity"]:
        """Returns 1 where the label is helpful, else 0; or the probability of that."""
        score = (captions.helpful == 1).astype(np.float32)
        if self._use_probability:
            score = np.where(captions.known & ~np.isnan(captions.p_helpful), captions.p_helpful, score)
        score[EMPTY_ID] = 0.0
        return score

    def state_dict(self) -> dict[str, Any]:
        """Returns nothing: the captions hold the labels."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes nothing."""
