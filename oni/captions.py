"""Captions by number: text is interned once, on the host; the device sees `caption_id` only.

A JAX environment says what happened by a small event code. `lookup` finds the caption of each code on the device, and
only codes never seen before go to the host to be described.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8, UInt32

from llm_annotator.types import LabelStatus, LabelUpdate

EMPTY_ID = 0
"""The caption of a step that says nothing."""

UNKNOWN_ID = -1
"""What `lookup` returns for an event that has not been described yet."""

_MIN_CAPACITY = 1024
_NEIGHBOURS = 4
"""Entries with the same first hash that a look-up can tell apart."""

_RECENT_DECAY = 0.99
"""What an episode counts for after each later rollout, in `CaptionTable.recent`."""

_HASH_SEED = 20_241_022


def _hash_weights(size: int) -> UInt32[np.ndarray, "2 size"]:
    return np.random.default_rng(_HASH_SEED).integers(1, 2**32, (2, size), dtype=np.uint32) | np.uint32(1)


def _hash(event: Any, *, xp: Any) -> tuple[Any, Any]:
    """Returns two independent 32-bit multilinear hashes of event codes `uint8[..., E]`.

    Two codes share both with a probability of about 2^-62.
    """
    weights = _hash_weights(event.shape[-1])
    words = event.astype(xp.uint32)
    axes = (1,) * (words.ndim - 1)
    first, second = ((words * w.reshape(*axes, -1)).sum(-1, dtype=xp.uint32) for w in weights)
    return first ^ (first >> 15), second


class EventIndex(NamedTuple):
    """Event codes known so far, sorted by their first hash and padded with its highest value."""

    first: UInt32[Array, " M"]
    second: UInt32[Array, " M"]
    caption_id: Int[Array, " M"]


def lookup(index: EventIndex, event: UInt8[Array, "T B event_size"]) -> tuple[Int[Array, "T B"], Int[Array, ""]]:
    """Returns the caption of each event, `UNKNOWN_ID` where it has none yet, and how many have none."""
    flat = event.reshape(-1, event.shape[-1])
    first, second = _hash(flat, xp=jnp)
    position = jnp.searchsorted(index.first, first)
    caption_id = jnp.full(position.shape, UNKNOWN_ID, jnp.int32)
    for offset in range(_NEIGHBOURS):
        at = jnp.minimum(position + offset, index.first.shape[0] - 1)
        found = (index.first[at] == first) & (index.second[at] == second)
        caption_id = jnp.where(found, index.caption_id[at], caption_id)
    caption_id = jnp.where(flat.any(-1), caption_id, EMPTY_ID).reshape(event.shape[:-1])
    return caption_id, (caption_id == UNKNOWN_ID).sum()


class CaptionStats(NamedTuple):
    """What one rollout did with each caption (arrays over caption ids).

    num_steps: steps that showed it. num_episodes: episodes in which it came up for the first time; less than there were
    where another caption of the same episode has its slot of `reward.count_slots`. reward_sum: intrinsic reward earned.
    """

    num_steps: Int[Array, " V"]
    num_episodes: Int[Array, " V"]
    reward_sum: Float[Array, " V"]


def _encode(text: str) -> bytes:
    """Returns UTF-8; bytes that came in as surrogates become themselves again, other surrogates are spelled out."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


def _capacity_for(size: int) -> int:
    return max(_MIN_CAPACITY, 1 << (size - 1).bit_length())


class CaptionTable:
    """All captions of a run with their labels and totals.

    Arrays over caption ids have length `capacity`, a power of two that doubles as needed.

    helpful: label, -1 where there is none. p_helpful: probability that goes with it, NaN where there is none.
    by_hand: whether a person gave the label. muted: whether a person wants it to earn nothing, and no reward model to
    learn from it; its label is unhelpful meanwhile.
    failed: whether the last answer about it was no label. count, episode_count, reward_sum, first_step, last_step:
    totals of this run. recent: episodes that it came up in, where those of long ago count less.
    """

    def __init__(self, event_size: int) -> None:
        self.event_size = event_size
        self.texts: list[bytes] = [b""]
        self._id_by_text: dict[bytes, int] = {b"": EMPTY_ID}
        self._id_by_event: dict[bytes, int] = {}
        self._muted_unseen: set[bytes] = set()  # what a person muted before it came up in this run
        self._allocate(_MIN_CAPACITY)
        self.index = self._build_index()

    def __len__(self) -> int:
        """Number of captions, the empty one included."""
        return len(self.texts)

    @property
    def capacity(self) -> int:
        """Length of the arrays over caption ids."""
        return self.helpful.shape[0]

    def _allocate(self, capacity: int) -> None:
        self.helpful = np.full(capacity, -1, np.int8)
        self.p_helpful = np.full(capacity, np.nan, np.float32)
        self.failed = np.zeros(capacity, bool)
        self.by_hand = np.zeros(capacity, bool)
        self.muted = np.zeros(capacity, bool)
        self.count = np.zeros(capacity, np.int64)
        self.episode_count = np.zeros(capacity, np.int64)
        self.reward_sum = np.zeros(capacity, np.float64)
        self.first_step = np.full(capacity, -1, np.int64)
        self.last_step = np.full(capacity, -1, np.int64)
        self.recent = np.zeros(capacity, np.float32)

    def _arrays(self) -> dict[str, np.ndarray]:
        names = "helpful p_helpful failed by_hand muted count episode_count reward_sum first_step last_step".split()  # noqa: SIM905
        return {name: getattr(self, name) for name in names}

    def _grow(self, size: int) -> None:
        if size <= self.capacity:
            return
        old = self._arrays() | {"recent": self.recent}
        self._allocate(_capacity_for(size))
        for name, array in old.items():
            getattr(self, name)[: len(array)] = array

    def intern(self, text: bytes) -> int:
        """Returns the id of a caption, a new one if it was never seen."""
        caption_id = self._id_by_text.get(text)
        if caption_id is None:
            caption_id = len(self.texts)
            self._grow(caption_id + 1)
            self.texts.append(text)
            self._id_by_text[text] = caption_id
            self.muted[caption_id] = text in self._muted_unseen
        return caption_id

    def id_of(self, text: bytes) -> int | None:
        """Returns the id of a caption, None if it was never seen."""
        return self._id_by_text.get(text)

    def intern_events(
        self, event: UInt8[np.ndarray, "N event_size"], describe: Callable[[np.ndarray], str]
    ) -> list[int]:
        """Describes event codes not seen before; returns the ids of captions that are new."""
        known = len(self.texts)
        for code in np.unique(event, axis=0):
            if code.tobytes() not in self._id_by_event:
                self._id_by_event[code.tobytes()] = self.intern(_encode(describe(code)).strip())
        self.index = self._build_index()
        return list(range(known, len(self.texts)))

    def _build_index(self) -> EventIndex:
        size = len(self._id_by_event)
        codes = np.frombuffer(b"".join(self._id_by_event), np.uint8).reshape(size, self.event_size)
        first, second = _hash(codes, xp=np)
        order = np.argsort(first, kind="stable")
        capacity = _capacity_for(size + 1)

        def padded(values: np.ndarray, fill: int, dtype: Any) -> Array:
            array = np.full(capacity, fill, dtype)
            array[:size] = values[order]
            return jnp.asarray(array)

        ids = np.fromiter(self._id_by_event.values(), np.int32, size)
        return EventIndex(
            first=padded(first, 2**32 - 1, np.uint32),
            second=padded(second, 0, np.uint32),
            caption_id=padded(ids, UNKNOWN_ID, np.int32),
        )

    def set_labels(self, updates: Iterable[LabelUpdate]) -> list[int]:
        """Takes in news from the annotator; returns the ids whose label changed. Captions of other runs are ignored."""
        changed: list[int] = []
        for update in updates:
            caption_id = self._id_by_text.get(update.caption)
            if caption_id is None:
                (self._muted_unseen.add if update.muted else self._muted_unseen.discard)(update.caption)
                continue
            if caption_id == EMPTY_ID:
                continue
            labelled = update.status is LabelStatus.LABELLED and update.helpful is not None
            self.failed[caption_id] = not labelled
            helpful = int(bool(update.helpful)) if labelled else -1
            human = update.source == "human"  # who is certain: a probability would be that of the LLM overruled
            probability = np.nan if update.p_helpful is None or human or not labelled else update.p_helpful
            before = self._label(caption_id)
            self.muted[caption_id] = update.muted
            # what a person took back is gone, but no answer takes a label of the LLM away
            if labelled or human or self.by_hand[caption_id]:
                self.helpful[caption_id], self.p_helpful[caption_id] = helpful, probability
                self.by_hand[caption_id] = human
            # after a resume the annotator says again what it said before, which is no reason to learn it again
            if before != self._label(caption_id):
                changed.append(caption_id)
        return changed

    def _label(self, caption_id: int) -> tuple[int, bytes, bool]:
        """Returns what is known of one caption's worth, comparable: as bytes, NaN is like NaN."""
        return int(self.helpful[caption_id]), self.p_helpful[caption_id].tobytes(), bool(self.muted[caption_id])

    def forget_labels(self) -> None:
        """Takes every label back."""
        self.helpful[:], self.p_helpful[:] = -1, np.nan
        for flags in (self.failed, self.by_hand, self.muted):
            flags[:] = False
        self._muted_unseen.clear()

    @property
    def known(self) -> np.ndarray:
        """Whether each id has a label, `bool[capacity]`."""
        return self.helpful >= 0

    def unanswered(self) -> np.ndarray:
        """Returns the ids that have no label yet, the newest caption last; not those whose last answer was no label."""
        ids = np.flatnonzero(~self.known[: len(self)] & ~self.failed[: len(self)])
        return ids[ids != EMPTY_ID]

    def wanted(self, limit: int) -> list[int]:
        """Lists the captions whose labels would be worth most, the most wanted first.

        Three of four are those that came up in most episodes lately: in an episode, a caption earns most when it comes
        up first. Every fourth is one of the newest: a policy that gets somewhere new says so by a caption that it had
        never met.
        """
        ids = self.unanswered()
        newest = ids[::-1][: limit // 4]
        others = ids[: len(ids) - len(newest)][::-1]  # of equals the newer one comes first
        frequent = others[np.argsort(-self.recent[others], kind="stable")][: limit - len(newest)]
        new, rest = iter(newest.tolist()), iter(frequent.tolist())
        ordered = [i for turn in range(limit) if (i := next(new if turn % 4 == 3 else rest, None)) is not None]
        return [*ordered, *rest, *new]

    def add(self, stats: CaptionStats, *, env_step: int) -> np.ndarray:
        """Adds what one rollout did, which ended at `env_step`; returns the ids that came up in it."""
        count = np.asarray(stats.num_steps)
        size = len(count)
        seen = np.flatnonzero(count)
        seen = seen[seen != EMPTY_ID]
        self.count[:size] += count
        self.episode_count[:size] += np.asarray(stats.num_episodes)
        self.recent *= _RECENT_DECAY
        self.recent[:size] += np.asarray(stats.num_episodes)
        self.reward_sum[:size] += np.asarray(stats.reward_sum, np.float64)
        self.first_step[seen] = np.where(self.first_step[seen] < 0, env_step, self.first_step[seen])
        self.last_step[seen] = env_step
        return seen

    def state_dict(self) -> dict[str, Any]:
        """Returns everything as JSON values; bytes become text by latin-1, which keeps each byte."""
        size = len(self)
        p_helpful = [None if np.isnan(p) else float(p) for p in self.p_helpful[:size]]
        return {
            "event_size": self.event_size,
            "texts": [text.decode("latin-1") for text in self.texts],
            "events": [[code.hex(), caption_id] for code, caption_id in self._id_by_event.items()],
            **{name: array[:size].tolist() for name, array in self._arrays().items()},
            "p_helpful": p_helpful,
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "CaptionTable":
        """Restores what `state_dict` returned."""
        table = cls(state["event_size"])
        table._grow(len(state["texts"]))
        table.texts = [text.encode("latin-1") for text in state["texts"]]
        table._id_by_text = {text: i for i, text in enumerate(table.texts)}
        table._id_by_event = {bytes.fromhex(code): caption_id for code, caption_id in state["events"]}
        for name, array in table._arrays().items():
            if name not in state:  # the checkpoint is of before there was such a thing
                continue
            values = [np.nan if value is None else value for value in state[name]]
            array[: len(values)] = values
        table.recent[:] = table.episode_count
        table.index = table._build_index()
        return table
