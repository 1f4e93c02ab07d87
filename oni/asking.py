"""What a run asks its annotator for, and in which order."""

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from llm_annotator import Subject
from oni.captions import CaptionTable
from oni.config import TrainConfig
from oni.rewards import RewardModel

OFFER_AGAIN_S = 20.0
"""Seconds between two offers of the captions whose answer was no label, or that fell out of a full queue."""

HURRIED = 32
"""Captions that are asked about before all others while more than that wait."""

HURRY_EVERY_S = 0.25
"""Seconds between two choices of them: a slow LLM answers few captions until others are wanted more."""


class Asking(Protocol):
    """Chooses what to ask. What it returns is asked last one first."""

    def begin(self, captions: CaptionTable) -> Sequence[Subject]:
        """Returns what to ask when a run begins or goes on."""
        ...

    def after_update(self, captions: CaptionTable, new: Sequence[bytes], *, queued: int) -> Sequence[Subject]:
        """Returns what to ask after an update.

        Args:
            new: captions never seen before.
            queued: questions that are not answered yet.
        """
        ...

    def now_and_then(self, captions: CaptionTable, *, queued: int) -> Sequence[Subject]:
        """Returns what to ask once more, or sooner."""
        ...


class AskLabels:
    """Every caption, newest first, and before those the ones whose labels would be worth most."""

    def __init__(self) -> None:
        self._offered_at = self._hurried_at = time.monotonic()

    def begin(self, captions: CaptionTable) -> Sequence[Subject]:
        """Returns all captions, labelled ones too: a person may have overruled a label, or the goal be another one.

        What the store knows is answered from there.
        """
        return captions.texts[:0:-1]

    def after_update(self, captions: CaptionTable, new: Sequence[bytes], *, queued: int) -> Sequence[Subject]:
        """Returns the new ones."""
        return new

    def now_and_then(self, captions: CaptionTable, *, queued: int) -> Sequence[Subject]:
        """Returns those without an answer every 20 s, and four times a second the most wanted if many wait."""
        now = time.monotonic()
        asked: list[Subject] = []
        if now - self._offered_at > OFFER_AGAIN_S:
            self._offered_at = now
            again = captions.failed & ~captions.known
            if queued <= HURRIED:  # what fell out of a full queue comes back when there is room
                again[captions.unanswered()] = True
            asked += [captions.texts[i] for i in np.flatnonzero(again)]
        if now - self._hurried_at > HURRY_EVERY_S and queued > HURRIED:
            self._hurried_at = now
            # the most wanted last: the annotator asks about the last one first
            asked += [captions.texts[i] for i in reversed(captions.wanted(HURRIED))]
        return asked


class AskPreferences:
    """Pairs that the reward model wants compared, a few ahead of the annotator.

    Args:
        per_update: pairs drawn after an update at most.
    """

    def __init__(self, model: RewardModel, *, per_update: int) -> None:
        self._model = model
        self._per_update = per_update

    def begin(self, captions: CaptionTable) -> Sequence[Subject]:
        """Returns nothing: what was answered before is in the checkpoint, and what was not is drawn anew."""
        return []

    def after_update(self, captions: CaptionTable, new: Sequence[bytes], *, queued: int) -> Sequence[Subject]:
        """Returns new pairs, each in both orders, unless the annotator has as many to do already."""
        if queued >= 2 * self._per_update:
            return []
        return self._model.wanted(captions, 2 * self._per_update)

    def now_and_then(self, captions: CaptionTable, *, queued: int) -> Sequence[Subject]:
        """Returns nothing: a pair without an answer is as good as another one."""
        return []


def make_asking(config: TrainConfig, model: RewardModel) -> Asking:
    """Returns what the reward model needs to be asked for. There must be something."""
    if model.needs == "preferences":
        return AskPreferences(model, per_update=config.reward.preferences.pairs_per_update)
    return AskLabels()
