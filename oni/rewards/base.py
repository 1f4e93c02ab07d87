"""What every reward model is."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from llm_annotator.types import Comparison
from oni.captions import CaptionTable

Needs = Literal["nothing", "labels", "preferences"]
"""What an annotator must be asked for, beside the training."""


@runtime_checkable
class RewardModel(Protocol):
    """Gives captions a score. Scores are computed for distinct captions and gathered to steps on the device.

    needs: what an annotator must be asked for. active: whether scores can differ from 0 at all; if not, the trainer
        leaves captions alone. moves: whether scores can change without news from the annotator, as those of a model
        that learns do; if not, a score is asked for once and again when there is news.
    """

    needs: Needs
    active: bool
    moves: bool

    def observe(self, captions: CaptionTable, changed: Sequence[int]) -> None:
        """Takes in that the labels of some captions changed."""
        ...

    def compare(self, captions: CaptionTable, comparisons: Sequence[Comparison]) -> None:
        """Takes in answers about ordered pairs of captions."""
        ...

    def wanted(self, captions: CaptionTable, limit: int) -> list[tuple[bytes, bytes]]:
        """Lists at most `limit` ordered pairs whose comparison is worth asking for next."""
        ...

    def saw(self, captions: CaptionTable, count: Int[np.ndarray, " V"]) -> None:
        """Takes in that one policy update is over, in which each caption was said at `count` steps."""
        ...

    def score(self, captions: CaptionTable, ids: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        """Returns the score of each of these captions.

        It is 0 for captions about which nothing is known, and for the empty one. Pure: it depends on what was taken in
        alone.
        """
        ...

    def metrics(self) -> dict[str, float | int]:
        """Returns figures of the model itself, by metric name."""
        ...

    def arrays(self) -> Any:
        """Returns what a checkpoint must hold beside the captions and their labels, as a tree of arrays."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Returns what else a checkpoint must hold, as JSON values."""
        ...

    def load(self, arrays: Any, state: dict[str, Any]) -> None:
        """Restores what `arrays` and `state_dict` returned.

        Raises:
            CheckpointError: it belongs to another model.
        """
        ...

    def forget(self) -> None:
        """Takes back all that was learned from answers: they belong to another goal."""
        ...

    def close(self) -> None:
        """Ends what runs beside the trainer."""
        ...


class CaptionReward:
    """What a model is that asks for nothing, keeps nothing and does not move: the others say where they differ."""

    needs: Needs = "nothing"
    active = True
    moves = False

    def observe(self, captions: CaptionTable, changed: Sequence[int]) -> None:
        """Needs nothing beside the labels, which the captions hold."""

    def compare(self, captions: CaptionTable, comparisons: Sequence[Comparison]) -> None:
        """Asks for no comparisons, and ignores those of others."""

    def wanted(self, captions: CaptionTable, limit: int) -> list[tuple[bytes, bytes]]:
        """Wants none."""
        return []

    def saw(self, captions: CaptionTable, count: Int[np.ndarray, " V"]) -> None:
        """Does not depend on how often a caption comes up."""

    def metrics(self) -> dict[str, float | int]:
        """Returns nothing: the figures about captions say all."""
        return {}

    def arrays(self) -> Any:
        """Returns nothing."""
        return ()

    def state_dict(self) -> dict[str, Any]:
        """Returns nothing: the captions hold the labels."""
        return {}

    def load(self, arrays: Any, state: dict[str, Any]) -> None:
        """Takes nothing."""

    def forget(self) -> None:
        """Has nothing to forget."""

    def close(self) -> None:
        """Does nothing."""
