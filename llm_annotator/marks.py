"""A small number for each of very many things, in about 16 bytes each."""

from array import array
from collections.abc import Hashable

HIGHEST = 3
"""Marks are 1 to 3."""

_SHARDS = 64
"""Tables that grow one at a time, so that none of them takes long."""

_FIRST_SLOTS = 64
_KEY_MASK = 2**62 - 1


class Marks:
    """Marks of things, of which only hashes are kept: a dictionary of a million captions would take half a gigabyte.

    Two things with the same 62 bits of hash are taken for one. Of a million, that happens to two with a probability of
    one in ten million.
    """

    def __init__(self) -> None:
        self.clear()

    def __len__(self) -> int:
        return sum(self._used)

    def get(self, thing: Hashable) -> int:
        """Returns the mark of a thing, 0 if it has none."""
        key = hash(thing) & _KEY_MASK
        shard = self._shards[key % _SHARDS]
        return shard[_find(shard, key)] & HIGHEST

    def set(self, thing: Hashable, mark: int) -> None:
        """Gives a thing a mark, from 1 to `HIGHEST`."""
        key = hash(thing) & _KEY_MASK
        number = key % _SHARDS
        shard = self._shards[number]
        place = _find(shard, key)
        if not shard[place]:
            self._used[number] += 1
        shard[place] = key << 2 | mark
        if self._used[number] * 3 > len(shard) * 2:
            self._shards[number] = _grown(shard)

    def clear(self) -> None:
        """Takes all marks away."""
        self._shards = [array("Q", bytes(8 * _FIRST_SLOTS)) for _ in range(_SHARDS)]
        self._used = [0] * _SHARDS


def _find(shard: "array[int]", key: int) -> int:
    """Returns the place of a key, or the empty one where it belongs."""
    last = len(shard) - 1
    place = key // _SHARDS & last
    while shard[place] and shard[place] >> 2 != key:
        place = place + 1 & last
    return place


def _grown(shard: "array[int]") -> "array[int]":
    larger = array("Q", bytes(8 * 2 * len(shard)))
    for entry in shard:
        if entry:
            larger[_find(larger, entry >> 2)] = entry
    return larger
