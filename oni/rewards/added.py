"""The weighted sum of two rewards about captions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from llm_annotator.types import Comparison
from oni.captions import CaptionTable
from oni.errors import ConfigError
from oni.rewards.base import Needs, RewardModel


class Added:
    """Scores sum of weight * score over several models, each of which learns as it would alone.

    Args:
        parts: weights and models.

    Raises:
        ConfigError: one needs labels and another one preferences, which are two ways to ask the same LLM.
    """

    def __init__(self, parts: Sequence[tuple[float, RewardModel]]) -> None:
        self._parts = list(parts)
        needs: list[Needs] = [model.needs for _, model in self._parts if model.needs != "nothing"]
        if len(set(needs)) > 1:
            raise ConfigError(
                "reward.kind and reward.add: one needs labels and the other preferences, and a run asks for one of "
                "them. Distil one of the two beforehand (`oni distill`), and add it as `offline`"
            )
        self.needs: Needs = needs[0] if needs else "nothing"
        self.active = any(model.active for _, model in self._parts)
        self.moves = any(model.moves for _, model in self._parts)

    def observe(self, captions: CaptionTable, changed: Sequence[int]) -> None:
        for _, model in self._parts:
            model.observe(captions, changed)

    def compare(self, captions: CaptionTable, comparisons: Sequence[Comparison]) -> None:
        for _, model in self._parts:
            model.compare(captions, comparisons)

    def wanted(self, captions: CaptionTable, limit: int) -> list[tuple[bytes, bytes]]:
        """Lists what the one model wants that needs preferences."""
        return [pair for _, model in self._parts for pair in model.wanted(captions, limit)][:limit]

    def saw(self, captions: CaptionTable, count: Int[np.ndarray, " V"]) -> None:
        for _, model in self._parts:
            model.saw(captions, count)

    def score(self, captions: CaptionTable, ids: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        total = np.zeros(len(ids), np.float32)
        for weight, model in self._parts:
            if model.active:
                total += np.float32(weight) * model.score(captions, ids)
        return total

    def metrics(self) -> dict[str, float | int]:
        """Returns the figures of all; of two models of one kind those of the second."""
        return {name: value for _, model in self._parts for name, value in model.metrics().items()}

    def arrays(self) -> Any:
        return tuple(model.arrays() for _, model in self._parts)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [model.state_dict() for _, model in self._parts]}

    def load(self, arrays: Any, state: dict[str, Any]) -> None:
        for (_, model), array, part in zip(self._parts, arrays, state["parts"], strict=True):
            model.load(array, part)

    def forget(self) -> None:
        for _, model in self._parts:
            model.forget()

    def close(self) -> None:
        for _, model in self._parts:
            model.close()
