"""What the reward models that learn have in common: their state, what they learned from, the scores of captions."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, Shaped

from oni.captions import EMPTY_ID, CaptionTable
from oni.config import RewardLearnerConfig
from oni.errors import CheckpointError
from oni.rewards.base import CaptionReward
from oni.rewards.learning import (
    Data,
    Figures,
    LearnerState,
    Learning,
    Round,
    make_learning,
    run_round,
    steps_due,
    values_of,
)
from oni.rewards.text import FeatureTable, TextEncoder, make_text_encoder
from oni.rewards.worker import Worker


@lru_cache(maxsize=8)
def _programs(
    config: RewardLearnerConfig, num_outputs: int, max_grad_norm: float | None
) -> tuple[TextEncoder, Learning]:
    """Returns the pure functions of a model; models with the same settings share what the compiler made of them."""
    encoder = make_text_encoder(config, num_outputs=num_outputs)
    return encoder, make_learning(encoder, learning_rate=config.learning_rate, max_grad_norm=max_grad_norm)


class LearnedReward(CaptionReward, ABC):
    """A model that learns the value of a caption from its text, and so scores captions that nobody labelled.

    With `config.in_background` a thread learns and the trainer's thread goes on with the parameters of the last round
    that is done; otherwise `observe`, `compare` and `saw` learn before they return, and the same labels in the same
    order give the same scores, bit by bit.

    Args:
        num_outputs: of the network: 2 logits of a label, or 1 score.
        figures: what is told about the labels that were held out.
        max_grad_norm: global norm to which gradients are clipped; not at all if None.
        seed: of the initial parameters, the batches and the dropout.
    """

    moves = True

    def __init__(
        self,
        config: RewardLearnerConfig,
        *,
        num_outputs: int,
        figures: Figures,
        max_grad_norm: float | None,
        seed: int,
    ) -> None:
        self.config = config
        self._seed = seed
        self._figures = figures
        encoder, self._learning = _programs(config, num_outputs, max_grad_norm)
        self._table = FeatureTable(encoder)
        self._worker = Worker(in_background=config.in_background)
        self._initial: LearnerState | None = None
        self._clear()

    def _clear(self) -> None:
        """Goes back to where nothing is known."""
        self._worker.drop()
        self._state: LearnerState | None = None
        self._step = 0  # of the state, on the host
        self._data: Data | None = None
        self._num_labels = 0
        self._arrived = self._updated = False
        self._loss: float | None = None
        self._measured: dict[str, float] = {}
        self._forget_values()

    def _forget_values(self) -> None:
        self._values = np.zeros(0, np.float32)
        self._is_fresh = np.zeros(0, bool)
        self._values_of: CaptionTable | None = None

    @abstractmethod
    def _collect(self, captions: CaptionTable, features: Shaped[np.ndarray, "V F"]) -> Data:
        """Returns all that is known."""

    @property
    def _learner_state(self) -> LearnerState:
        """The state of the last round that is done; made when first asked for, since it takes the compiler a second."""
        if self._state is None:
            if self._initial is None:
                self._initial = self._learning.init(jax.random.key(self._seed))
            self._state = self._initial
        return self._state

    @property
    def is_ready(self) -> bool:
        """Whether captions are scored: `min_labels` came in, and something was learned."""
        return self._num_labels >= self.config.min_labels and self._step > 0

    def saw(self, captions: CaptionTable, count: Int[np.ndarray, " V"]) -> None:
        """Learns what an update of the policy brings."""
        self._updated = True
        self._advance(captions)

    def _news(self, captions: CaptionTable) -> None:
        """Takes in that what is known has changed."""
        self._data = None
        self._arrived = True
        self._advance(captions)

    def _known(self, captions: CaptionTable) -> Data:
        if self._data is None:
            self._data = self._collect(captions, self._table.rows(captions))
            self._num_labels = self._data.num_labels
        return self._data

    def _advance(self, captions: CaptionTable) -> None:
        """Takes over what the thread has learned, and begins the next round if one is due."""
        self._take(self._worker.take())
        data = self._known(captions)
        if self._worker.is_busy:
            return
        steps = steps_due(self.config, arrived=self._arrived, updated=self._updated, num_labels=data.num_labels)
        self._arrived = self._updated = False
        if steps and len(data.learned):
            self._take(self._worker.start(self._work(data, steps)))

    def _work(self, data: Data, steps: int) -> Callable[[Callable[[], bool]], Round]:
        """Returns a round that needs nothing of this object any more, so that a thread may do it."""
        learning, state, config = self._learning, self._learner_state, self.config
        seed, figures = self._seed, self._figures

        def work(stop: Callable[[], bool]) -> Round:
            return run_round(
                learning,
                state,
                data,
                steps=steps,
                batch_size=config.batch_size,
                seed=seed,
                figures=figures,
                stop=stop,
            )

        return work

    def _take(self, done: Round | None) -> None:
        if done is None:
            return
        self._state, self._step = done.state, int(done.state.step)
        self._is_fresh[:] = False
        if done.loss is not None:
            self._loss = done.loss
        if done.figures is not None:
            self._measured = done.figures

    def values(self, captions: CaptionTable, ids: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        """Returns what the network says of each of these captions; computed once for each state of the model."""
        rows = self._table.rows(captions)
        if captions is not self._values_of:
            self._forget_values()
            self._values_of = captions
        if len(self._values) < len(captions):
            grown = captions.capacity - len(self._values)
            self._values = np.concatenate([self._values, np.zeros(grown, np.float32)])
            self._is_fresh = np.concatenate([self._is_fresh, np.zeros(grown, bool)])
        missing = np.unique(ids[~self._is_fresh[ids]])
        self._values[missing] = values_of(self._learning, self._learner_state.params, rows[missing])
        self._is_fresh[missing] = True
        return self._values[ids]

    def score(self, captions: CaptionTable, ids: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        """Returns what each caption is worth, 0 for the empty one and until the model is ready."""
        score = np.zeros(len(ids), np.float32)
        said = ids != EMPTY_ID
        if self.is_ready and said.any():
            score[said] = self._scale(self.values(captions, ids[said]))
        return score

    @abstractmethod
    def _scale(self, values: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        """Turns values into scores."""

    def metrics(self) -> dict[str, float | int]:
        """Returns steps, labels, loss, rounds of learning that failed, and the figures on what was held out."""
        figures: dict[str, float | int] = {
            "reward_model/steps": self._step,
            "reward_model/labels": self._num_labels,
            "reward_model/errors": self._worker.errors,
        }
        if self._loss is not None:
            figures["reward_model/loss"] = self._loss
        return figures | {f"reward_model/heldout_{name}": value for name, value in self._measured.items()}

    def arrays(self) -> LearnerState:
        """Returns parameters, state of the optimizer and number of steps."""
        return self._learner_state

    def state_dict(self) -> dict[str, Any]:
        return {"labels": self._num_labels, "loss": self._loss, "heldout": self._measured}

    def load(self, arrays: Any, state: dict[str, Any]) -> None:
        here, there = (jax.tree.structure(tree) for tree in (self._learner_state, arrays))
        if here != there:
            raise CheckpointError("the checkpoint holds another reward model: resume with the run's own settings")
        self._clear()
        self._state, self._step = arrays, int(arrays.step)
        self._num_labels = int(state["labels"])
        self._loss, self._measured = state["loss"], dict(state["heldout"])

    def forget(self) -> None:
        self._clear()

    def close(self) -> None:
        self._worker.close()
