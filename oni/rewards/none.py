"""No intrinsic reward from captions: plain PPO on what the game pays."""

import numpy as np
from jaxtyping import Float, Int

from oni.captions import CaptionTable
from oni.rewards.base import CaptionReward


class NoReward(CaptionReward):
    """Scores nothing."""

    active = False

    def score(self, captions: CaptionTable, ids: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        """Returns zeros."""
        return np.zeros(len(ids), np.float32)
