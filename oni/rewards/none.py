"""No intrinsic reward: plain PPO on what the game pays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from oni.captions import CaptionTable


class NoReward:
    """Scores nothing."""

    needs_labels = False
    active = False

    def observe(self, captions: CaptionTable, changed: Sequence[int]) -> None:
        """Ignores labels."""

    def score(self, captions: CaptionTable) -> Float[np.ndarray, " capacity"]:
        """Returns zeros."""
        return np.zeros(captions.capacity, np.float32)

    def state_dict(self) -> dict[str, Any]:
        """Returns nothing: there is no state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes nothing."""
