"""ONI-ranking: a network learns from preferences between captions how much progress each of them tells of."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from llm_annotator.types import Comparison
from oni.captions import EMPTY_ID, CaptionTable
from oni.config import PreferenceConfig, RewardLearnerConfig
from oni.rewards.base import Needs
from oni.rewards.heldout import pair_figures
from oni.rewards.learned import LearnedReward
from oni.rewards.learning import MAX_HELD_OUT, Data, Examples
from oni.rewards.pairs import PairTable, draw_pairs

THRESHOLD = -0.5
"""Standard deviations from the mean at and below which a caption is paid nothing, as in the paper."""

MAX_GRAD_NORM = 10.0
"""Global norm to which gradients are clipped, as in the paper."""

SCALE_STEPS = 1_000_000
"""Steps that mean and variance of the values are over; earlier ones fade. The values of a model that learns drift, so
those of long ago say little."""

ASKED_AGAIN = 256
"""Pairs without an answer that are asked about once more after a resume: what was under way then is lost."""

_MIN_STD = 0.1
"""The least that is divided by, in log-odds: 0.1 is a preference of 52 to 48, which says nothing. Where a single
caption came up so far, or the network has hardly learned, the deviation is near 0 and would turn noise into thousands.
"""


class RunningMoments(NamedTuple):
    """Mean and variance of a stream. num: samples they are over."""

    num: float = 0.0
    mean: float = 0.0
    var: float = 0.0

    def add(
        self, values: Float[np.ndarray, " N"], count: Int[np.ndarray, " N"], *, limit: int | float
    ) -> "RunningMoments":
        """Adds `count` samples of each value:

            mean' = mean + d * s        (d: mean of the new n samples - mean, s = n / (num + n))
            var'  = (1 - s) * var + s * var_n + d^2 * s * (1 - s)
            num'  = min(num + n, limit)

        Source: Chan et al. (1979). Because of the limit, samples older than that fade.
        """
        n = float(count.sum())
        if not n:
            return self
        values = values.astype(np.float64)
        mean = float((values * count).sum() / n)
        var = float((np.square(values - mean) * count).sum() / n)
        share, apart = n / (self.num + n), mean - self.mean
        return RunningMoments(
            num=min(self.num + n, limit),
            mean=self.mean + apart * share,
            var=(1.0 - share) * self.var + share * var + apart**2 * share * (1.0 - share),
        )

    def standardize(self, values: Float[np.ndarray, " N"], *, threshold: float) -> Float[np.ndarray, " N"]:
        """Returns (value - mean) / standard deviation (at least 0.1) where that is above the threshold, else 0."""
        z = (values - self.mean) / max(self.var**0.5, _MIN_STD)
        return np.where(z > threshold, z, 0.0).astype(np.float32)


class Ranking(LearnedReward):
    """Scores how much better a caption is than what the game usually says, in standard deviations.

    A network learns the model of Bradley & Terry from preferences: P(a better than b) = logistic(value_a - value_b).
    The mean and the variance of the values run over the steps that said something: after each update of the policy its
    steps are added, each with the value that its caption has at that moment; what was added before is not computed
    anew, but fades once `SCALE_STEPS` steps are exceeded. Before the first update is over, nothing is scored. At and
    below the threshold a score is 0, so that what is usual, or worse, costs nothing or little.

    Sources: Zheng et al. (arXiv 2410.23022), section 3; Klissarov et al. (arXiv 2310.00166).

    Args:
        threshold: in standard deviations; above it a caption is paid (or, below 0, charged) its score.
    """

    needs: Needs = "preferences"

    def __init__(
        self,
        config: RewardLearnerConfig | None = None,
        preferences: PreferenceConfig | None = None,
        *,
        threshold: float = THRESHOLD,
        seed: int = 0,
    ) -> None:
        config = config or RewardLearnerConfig()
        self._threshold = threshold
        self._preferences = preferences or PreferenceConfig()
        self._pairs = PairTable(soft=config.soft_labels, held_out=config.held_out)
        super().__init__(config, num_outputs=1, figures=pair_figures, max_grad_norm=MAX_GRAD_NORM, seed=seed)

    def _clear(self) -> None:
        super()._clear()
        self._pairs.clear()
        self._moments = RunningMoments()
        self._num_drawn = 0
        self._again: list[tuple[int, int]] = []

    def observe(self, captions: CaptionTable, changed: Sequence[int]) -> None:
        """Learns anew: all that a label can say here is that a caption was muted, or is no longer."""
        self._news(captions)

    def compare(self, captions: CaptionTable, comparisons: Sequence[Comparison]) -> None:
        """Learns from the pairs that now have both answers."""
        if self._pairs.answered(captions, comparisons):
            self._news(captions)

    def wanted(self, captions: CaptionTable, limit: int) -> list[tuple[bytes, bytes]]:
        """Lists pairs never listed before, each in both orders, one after the other.

        After a resume, those come first whose answers were still missing; and when no pair is left, they come again.
        """
        limit = min(limit // 2, self._preferences.pairs_per_update)
        if limit < 1:
            return []
        pairs, self._again = self._again[:limit], self._again[limit:]
        if len(pairs) < limit:
            rng = np.random.default_rng((self._seed, self._num_drawn))
            self._num_drawn += 1
            room = limit - len(pairs)
            pairs += draw_pairs(captions, self._pairs, config=self._preferences, limit=room, rng=rng)
        if not pairs:  # all were asked about: once more about those whose answers were none
            pairs = self._pairs.unanswered(limit)
        asked: list[tuple[bytes, bytes]] = []
        for pair in pairs:
            self._pairs.add(captions, pair)
            a, b = (captions.texts[i] for i in pair)
            asked += [(a, b), (b, a)]
        return asked

    def saw(self, captions: CaptionTable, count: Int[np.ndarray, " V"]) -> None:
        ids = np.flatnonzero(count)
        ids = ids[(ids != EMPTY_ID) & ~captions.muted[ids]]
        if self.is_ready and len(ids):
            values = self.values(captions, ids)
            self._moments = self._moments.add(values, count[ids], limit=SCALE_STEPS)
        super().saw(captions, count)

    def _collect(self, captions: CaptionTable, features: Shaped[np.ndarray, "V F"]) -> Data:
        pairs = self._pairs
        heard = ~captions.muted[pairs.ids[: pairs.size]].any(axis=1)
        joined, is_held_out = pairs.joined() & heard, pairs.is_held_out[: pairs.size]
        learned = np.flatnonzero(joined & ~is_held_out)
        measured = np.flatnonzero(pairs.consistent() & heard & is_held_out)[-MAX_HELD_OUT:]

        def examples(rows: np.ndarray, target: np.ndarray) -> Examples:
            weight = np.ones(len(rows), np.float32)
            return Examples(features=features, ids=pairs.ids[rows], target=target, weight=weight)

        return Data(
            learned=examples(learned, pairs.target[learned]),
            held_out=examples(measured, (pairs.answer[measured, 0] == 1).astype(np.float32)),
            num_labels=int(joined.sum()),
        )

    def _scale(self, values: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        if not self._moments.num:
            return np.zeros_like(values)
        return self._moments.standardize(values, threshold=self._threshold)

    def metrics(self) -> dict[str, float | int]:
        """Returns the figures of every model that learns, the share of ties, and the scale of the values."""
        joined = int(self._pairs.joined().sum())
        figures = super().metrics() | {
            "reward_model/pairs_asked": self._pairs.size,
            "reward_model/value_mean": self._moments.mean,
            "reward_model/value_std": self._moments.var**0.5,
        }
        if joined:
            figures["reward_model/ties"] = 1.0 - int(self._pairs.consistent().sum()) / joined
        return figures

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "pairs": self._pairs.state_dict(),
            "moments": list(self._moments),
            "num_drawn": self._num_drawn,
        }

    def load(self, arrays: Any, state: dict[str, Any]) -> None:
        super().load(arrays, state)
        self._pairs.load_state_dict(state["pairs"])
        self._moments = RunningMoments(*state["moments"])
        self._num_drawn = int(state["num_drawn"])
        self._again = self._pairs.unanswered(ASKED_AGAIN)
