"""Which moments are kept of each caption: a few, any of them with the same probability."""

from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from oni.captions import EMPTY_ID

Room = Literal["plenty", "little", "none"]
"""How much may still be kept: anything, one moment of each caption, or only what takes the place of another."""


class Pick(NamedTuple):
    """One moment to be kept: step and game of a rollout, and the place among the moments of its caption.

    is_new: it takes no other one's place.
    """

    caption_id: int
    step: int
    row: int
    slot: int
    is_new: bool


class Reservoir:
    """Keeps `size` moments of each caption.

    A rollout that is looked at offers one moment of each caption that came up in it, drawn from the steps that said it.
    The n-th offer of a caption is kept with probability min(1, size / n), in place of one drawn from those that are
    kept (algorithm R of Vitter, 1985). So each offer so far is among the kept ones with the same probability, and early
    ones stay as well as late ones. A rollout that is not looked at, or of which no more may be taken, offers nothing.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self._size = size
        self._rng = rng
        self.offers: Int[np.ndarray, " V"] = np.zeros(0, np.int64)
        """Offers so far, by caption id."""

    @property
    def num_kept(self) -> int:
        """Moments that are kept of all captions together."""
        return int(np.minimum(self.offers, self._size).sum())

    def choose(self, caption_id: Int[np.ndarray, "T B"], *, limit: int, room: Room = "plenty") -> list[Pick]:
        """Takes in a rollout and returns what to keep of it, at most `limit` moments.

        Captions with the fewest moments are looked at first. Those that the limit leaves no room for are not offered:
        whether they are does not depend on whether they would be kept.
        """
        flat = caption_id.reshape(-1)
        count = np.bincount(flat)
        ids = np.flatnonzero(count)
        ids = ids[ids != EMPTY_ID]
        self._grow(len(count))
        offers = self.offers[ids]
        if room != "plenty":
            full = offers >= self._size
            may = full | (offers == 0) if room == "little" else full
            ids, offers = ids[may], offers[may]
        if not len(ids) or limit < 1:
            return []
        order = np.lexsort((self._rng.random(len(ids)), np.minimum(offers, self._size)))
        accepted = self._rng.random(len(ids)) * (offers[order] + 1) < self._size
        enough = np.cumsum(accepted) >= limit
        order = order[: int(enough.argmax()) + 1 if enough.any() else len(order)]
        self.offers[ids[order]] += 1
        kept = order[accepted[: len(order)]]
        return [self._pick(int(ids[i]), int(offers[i]), flat, caption_id.shape[1]) for i in kept]

    def _pick(self, caption_id: int, offers: int, flat: Int[np.ndarray, " N"], num_rows: int) -> Pick:
        is_new = offers < self._size
        slot = offers if is_new else int(self._rng.integers(self._size))
        places = np.flatnonzero(flat == caption_id)
        step, row = divmod(int(places[self._rng.integers(len(places))]), num_rows)
        return Pick(caption_id=caption_id, step=step, row=row, slot=slot, is_new=is_new)

    def _grow(self, size: int) -> None:
        if size > len(self.offers):
            grown = np.zeros(2 * size, np.int64)
            grown[: len(self.offers)] = self.offers
            self.offers = grown

    def state_dict(self) -> dict[str, Any]:
        """Returns how far it is, as JSON values. Of its randomness nothing is kept: no draw need come again."""
        return {"size": self._size, "offers": np.trim_zeros(self.offers, "b").tolist()}

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` returned. With another size the moments of before are taken for new ones."""
        offers = np.array(state.get("offers", []), np.int64)
        if state.get("size") != self._size:
            offers = np.minimum(offers, self._size)
        self.offers = offers
