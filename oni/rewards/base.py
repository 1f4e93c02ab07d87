"""What every reward model is."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from oni.captions import CaptionTable


@runtime_checkable
class RewardModel(Protocol):
    """Gives every caption a score. Scores are computed for distinct captions and gathered to steps on the device.

    needs_labels: whether an annotator must run beside the training. active: whether scores can differ from 0 at all;
        if not, the trainer leaves captions alone.
    """

    needs_labels: bool
    active: bool

    def observe(self, captions: CaptionTable, changed: Sequence[int]) -> None:
        """Takes in that the labels of some captions changed."""
        ...

    def score(self, captions: CaptionTable) -> Float[np.ndarray, " capacity"]:
        """Returns the score of every caption.

        It is 0 for captions about which nothing is known, and for the empty one. Pure: it depends on what was observed
        alone.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint must hold beside the captions and their labels, as JSON values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        ...
