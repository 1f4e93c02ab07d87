"""Preferences between two captions: what was asked, what was answered, and which pairs to ask about next."""

import base64
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from llm_annotator.types import Comparison, LabelStatus
from oni.captions import EMPTY_ID, CaptionTable
from oni.config import PreferenceConfig
from oni.rewards.heldout import is_held_out

MAX_PAIRS = 100_000
"""Pairs kept; the oldest go first. Their checkpoint takes 2 MB."""

TIE = 0.5
"""Target of a pair whose two answers contradict each other."""

_LEAST_P = 1e-6
"""Probabilities are kept this far from 0 and 1, whose log-odds are infinite."""

_MIN_PAIRS = 1024


def join_answers(first: bool, second: bool) -> float:
    """Returns the target of a pair (a, b), whether a is better: 1, 0, or 0.5 if the answers contradict each other.

    Args:
        first: the answer about (a, b), whether its first, a, is better.
        second: the answer about (b, a), whether its first, b, is better.
    """
    return TIE if first == second else float(first)


def join_probabilities(first: float, second: float) -> float:
    """Returns the probability that a is better than b, out of both orders:

        logistic((log-odds(first) - log-odds(second)) / 2)

    A model that favours a place adds the same to both log-odds, and the difference takes it away.

    Args:
        first: P(a is better) asked as (a, b).
        second: P(b is better) asked as (b, a).
    """
    p, q = (min(max(x, _LEAST_P), 1.0 - _LEAST_P) for x in (first, second))
    odds = np.sqrt(p / (1.0 - p) * (1.0 - q) / q)
    return float(odds / (1.0 + odds))


class PairTable:
    """All pairs asked about with their answers, in the order in which they came; the oldest are dropped.

    Arrays over rows, of which `size` are used:

    ids: the two captions, the lower id first. answer: whether the first is better, of the pair as it stands and turned
    round, -1 if unknown. p: the probabilities that go with the answers, NaN if unknown. target: what both answers come
    to, NaN before. is_held_out: whether the pair is kept from learning.

    Args:
        soft: joins probabilities where both answers have one.
        held_out: share of pairs that is kept from learning.
        limit: pairs kept.
    """

    def __init__(self, *, soft: bool, held_out: float, limit: int = MAX_PAIRS) -> None:
        self._soft = soft
        self._limit = limit
        self._share = held_out
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self._num_added = 0
        self._row: dict[tuple[int, int], int] = {}
        self._allocate(min(_MIN_PAIRS, self._limit))

    def _allocate(self, capacity: int) -> None:
        self.ids: Int[np.ndarray, "M 2"] = np.zeros((capacity, 2), np.int32)
        self.answer: Int8[np.ndarray, "M 2"] = np.full((capacity, 2), -1, np.int8)
        self.p: Float[np.ndarray, "M 2"] = np.full((capacity, 2), np.nan, np.float32)
        self.target: Float[np.ndarray, " M"] = np.full(capacity, np.nan, np.float32)
        self.is_held_out: Bool[np.ndarray, " M"] = np.zeros(capacity, bool)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            "ids": self.ids,
            "answer": self.answer,
            "p": self.p,
            "target": self.target,
            "is_held_out": self.is_held_out,
        }

    @property
    def size(self) -> int:
        """Number of pairs kept, those without an answer included."""
        return min(self._num_added, self._limit)

    def __contains__(self, pair: tuple[int, int]) -> bool:
        """Tells whether a pair of ids, in either order, was asked about."""
        return (min(pair), max(pair)) in self._row

    def add(self, captions: CaptionTable, pair: tuple[int, int]) -> int:
        """Takes in a pair of different ids; returns its row."""
        key = (min(pair), max(pair))
        known = self._row.get(key)
        if known is not None:
            return known
        row = self._num_added % self._limit
        if row >= len(self.target):
            self._grow()
        if self._num_added >= self._limit:
            del self._row[int(self.ids[row, 0]), int(self.ids[row, 1])]
        self._row[key] = row
        self._num_added += 1
        self.ids[row], self.answer[row], self.p[row], self.target[row] = key, -1, np.nan, np.nan
        self.is_held_out[row] = is_held_out(*(captions.texts[i] for i in key), share=self._share)
        return row

    def _grow(self) -> None:
        old = self._arrays()
        self._allocate(min(2 * len(self.target), self._limit))
        for name, array in old.items():
            getattr(self, name)[: len(array)] = array

    def answered(self, captions: CaptionTable, comparisons: Iterable[Comparison]) -> int:
        """Takes in answers; returns how many pairs have a new target.

        Passed over: answers that are no label, those about captions of other runs, and those about a caption and itself
        or the empty one.
        """
        changed = 0
        for one in comparisons:
            first, second = captions.id_of(one.first), captions.id_of(one.second)
            if one.status is not LabelStatus.LABELLED or one.first_better is None:
                continue
            if first is None or second is None or first == second or EMPTY_ID in (first, second):
                continue
            row = self.add(captions, (first, second))
            turned = int(first > second)
            self.answer[row, turned] = one.first_better
            self.p[row, turned] = np.nan if one.p_first is None else one.p_first
            changed += self._join(row)
        return changed

    def _join(self, row: int) -> bool:
        first, second = self.answer[row].tolist()
        if first < 0 or second < 0:
            return False
        p = self.p[row].tolist()
        if self._soft and not np.isnan(p).any():
            self.target[row] = join_probabilities(*p)
        else:
            self.target[row] = join_answers(bool(first), bool(second))
        return True

    def joined(self) -> Bool[np.ndarray, " N"]:
        """Returns which of the pairs kept have both answers."""
        return ~np.isnan(self.target[: self.size])

    def consistent(self) -> Bool[np.ndarray, " N"]:
        """Returns which of the pairs kept have two answers that agree."""
        answer = self.answer[: self.size]
        return self.joined() & (answer[:, 0] != answer[:, 1])

    def unanswered(self, limit: int) -> list[tuple[int, int]]:
        """Lists the last `limit` pairs added that miss an answer."""
        order = np.argsort((np.arange(self.size) - self._num_added) % max(self.size, 1), kind="stable")
        rows = order[~self.joined()[order]][-limit:]
        return [(int(a), int(b)) for a, b in self.ids[rows]]

    def state_dict(self) -> dict[str, Any]:
        """Returns everything as JSON values: the bytes of the arrays in base 64, which keeps 100,000 pairs small."""
        arrays = {name: array[: self.size] for name, array in self._arrays().items()}
        return {"num_added": self._num_added} | {
            name: base64.b64encode(array.tobytes()).decode("ascii") for name, array in arrays.items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.clear()
        self._num_added = int(state["num_added"])
        self._allocate(min(max(_MIN_PAIRS, 1 << (max(self.size, 1) - 1).bit_length()), self._limit))
        for name, array in self._arrays().items():
            flat = np.frombuffer(base64.b64decode(state[name]), array.dtype)
            array[: self.size] = flat.reshape(self.size, *array.shape[1:])
        self._row = {(int(a), int(b)): row for row, (a, b) in enumerate(self.ids[: self.size])}


def recent_captions(captions: CaptionTable, limit: int) -> Int[np.ndarray, " N"]:
    """Returns the ids of the `limit` captions that came up last, in rising order; of equals, the newer captions.

    Those that a person muted are left out.
    """
    last_step = captions.last_step[: len(captions)]
    ids = np.flatnonzero((last_step >= 0) & ~captions.muted[: len(captions)])
    ids = ids[ids != EMPTY_ID]
    if len(ids) > limit:
        order = last_step[ids] * len(captions) + ids  # one number for both, all different: no full sort is needed
        ids = np.sort(ids[np.argpartition(order, -limit)[-limit:]])
    return ids


def draw_pairs(
    captions: CaptionTable, asked: PairTable, *, config: PreferenceConfig, limit: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Draws at most `limit` different pairs of different ids that were never asked about.

    With few captions most pairs have been asked about, and fewer than `limit` may be found, or none.
    """
    ids = recent_captions(captions, config.reservoir)
    if len(ids) < 2 or limit < 1:
        return []
    count = np.maximum(captions.count[ids], 1).astype(np.float64)
    share = count / count.sum() if config.sampling == "frequency" else None
    drawn: dict[tuple[int, int], None] = {}
    for first, second in rng.choice(ids, size=(4 * limit + 16, 2), p=share).tolist():
        pair = (min(first, second), max(first, second))
        if first != second and pair not in asked and pair not in drawn:
            drawn[pair] = None
        if len(drawn) == limit:
            break
    return list(drawn)
