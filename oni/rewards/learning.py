"""How a reward model learns: pure gradient steps, rounds of them, and when they are due.

Both models that learn are one: the value of a caption is a number. A label says that its logistic is the probability of
helpful, a preference that the logistic of a difference of two values is the probability that the first is better.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Shaped

from oni.config import RewardLearnerConfig
from oni.rewards.heldout import logistic
from oni.rewards.text import TextEncoder

MEASURE_EVERY_STEPS = 32
"""Gradient steps between two measurements on what was held out."""

MAX_HELD_OUT = 512
"""Held-out labels or pairs that a measurement looks at, so that it costs about as much as one gradient step."""

MIN_ROWS, MAX_ROWS = 64, 512
"""Captions are scored in groups whose size is a power of two between these: jit compiles one program for each."""

Params = Any


class LearnerState(NamedTuple):
    """What a checkpoint holds. step: gradient steps done."""

    params: Params
    opt_state: optax.OptState
    step: Int[Array, ""]


class Examples(NamedTuple):
    """What is learned from: N labels of one caption each (A = 1), or preferences between two (A = 2).

    features: rows of all captions. ids: the captions of each example. target: probability of helpful, or that the first
    caption is better. weight: mean 1.
    """

    features: Shaped[np.ndarray, "V F"]
    ids: Int[np.ndarray, "N A"]
    target: Float[np.ndarray, " N"]
    weight: Float[np.ndarray, " N"]

    def __len__(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Number of examples."""
        return len(self.target)


class Data(NamedTuple):
    """All that is known at one moment, split in what is learned from and what measures the model.

    held_out: their targets are 0 or 1. num_labels: of both.
    """

    learned: Examples
    held_out: Examples
    num_labels: int


def logits_of(value: Float[Any, "N A"]) -> Float[Any, " N"]:
    """Returns the log-odds that the model gives: the value of a caption, or the first's minus the second's."""
    return value[:, 0] if value.shape[1] == 1 else value[:, 0] - value[:, 1]


def loss_of(value: Float[Array, "N A"], target: Float[Array, " N"], weight: Float[Array, " N"]) -> Float[Array, ""]:
    """Returns the cross-entropy, in nats, of labels (A = 1) or preferences (A = 2):

        - mean of weight * (target * log p + (1 - target) * log(1 - p)),   p = logistic(value_1 [- value_2])

    For two logits whose difference is the value this is their softmax cross-entropy; for pairs it is the model of
    Bradley & Terry (1952), where a tie is the target 1/2.
    """
    return (weight * optax.sigmoid_binary_cross_entropy(logits_of(value), target)).mean()


class Learning(NamedTuple):
    """Pure functions of a model.

    init: key -> state. step: (state, features, target, weight, key) -> (state, loss). values: (params, features) ->
    value of each row.
    """

    init: Callable[[Array], LearnerState]
    step: Callable[
        [LearnerState, Shaped[Any, "N A F"], Float[Any, " N"], Float[Any, " N"], Array],
        tuple[LearnerState, Float[Array, ""]],
    ]
    values: Callable[[Params, Shaped[Any, "N F"]], Float[Array, " N"]]


def make_learning(encoder: TextEncoder, *, learning_rate: float, max_grad_norm: float | None = None) -> Learning:
    """Returns the jitted functions of a model that Adam trains.

    Args:
        max_grad_norm: global norm to which gradients are clipped; not at all by default.
    """
    adam = optax.adam(learning_rate)
    optimizer = adam if max_grad_norm is None else optax.chain(optax.clip_by_global_norm(max_grad_norm), adam)
    module = encoder.module

    def init(key: Array) -> LearnerState:
        params = module.init(key, jnp.zeros((1, encoder.row[0]), encoder.row[1]), learning=False)["params"]
        return LearnerState(params=params, opt_state=optimizer.init(params), step=jnp.zeros((), jnp.int32))

    def step(
        state: LearnerState, features: Array, target: Array, weight: Array, key: Array
    ) -> tuple[LearnerState, Array]:
        def loss_fn(params: Params) -> Array:
            flat = features.reshape(-1, features.shape[-1])
            rngs = {"dropout": jax.random.fold_in(key, state.step)}
            value: Any = module.apply({"params": params}, flat, learning=True, rngs=rngs)
            return loss_of(value.reshape(features.shape[:2]), target, weight)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return LearnerState(params=params, opt_state=opt_state, step=state.step + 1), loss

    def values(params: Params, features: Array) -> Array:
        return module.apply({"params": params}, features, learning=False)  # pyright: ignore[reportReturnType]

    return Learning(init=jax.jit(init), step=jax.jit(step), values=jax.jit(values))


def values_of(learning: Learning, params: Params, features: Shaped[np.ndarray, "N F"]) -> Float[np.ndarray, " N"]:
    """Returns the value of each row, computed in groups of few different sizes."""
    parts: list[np.ndarray] = []
    for start in range(0, len(features), MAX_ROWS):
        rows = features[start : start + MAX_ROWS]
        size = max(MIN_ROWS, 1 << (len(rows) - 1).bit_length())
        padded = np.concatenate([rows, np.zeros((size - len(rows), rows.shape[1]), rows.dtype)])
        parts.append(np.asarray(learning.values(params, padded))[: len(rows)])
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def draw_batch(num_examples: int, *, size: int, seed: int, step: int) -> Int[np.ndarray, " size"]:
    """Returns the examples of one gradient step, drawn with replacement; seed and step alone decide which."""
    return np.random.default_rng((seed, step)).integers(0, num_examples, size)


class Round(NamedTuple):
    """What some gradient steps in a row came to.

    loss: of the last step, None if there was none. figures: on what was held out, None if not measured this time.
    """

    state: LearnerState
    loss: float | None
    figures: dict[str, float] | None


Figures = Callable[[Float[np.ndarray, " N"], Bool[np.ndarray, " N"]], dict[str, float]]
"""(probabilities, labels) -> figures by name."""


def measure(learning: Learning, params: Params, examples: Examples, figures: Figures) -> dict[str, float]:
    """Returns the figures of a model on examples whose targets are 0 or 1."""
    value = values_of(learning, params, examples.features[examples.ids.reshape(-1)]).reshape(examples.ids.shape)
    return figures(logistic(np.asarray(logits_of(value))), examples.target > 0.5)


def run_round(
    learning: Learning,
    state: LearnerState,
    data: Data,
    *,
    steps: int,
    batch_size: int,
    seed: int,
    figures: Figures,
    stop: Callable[[], bool] = lambda: False,
) -> Round:
    """Takes `steps` gradient steps, and measures the model each time that `MEASURE_EVERY_STEPS` of them are done.

    Args:
        stop: looked at before each step; a true value ends the round early.
    """
    learned, key, loss = data.learned, jax.random.key(seed), None
    first = done = int(state.step)
    while done < first + steps and len(learned) and not stop():
        rows = draw_batch(len(learned), size=batch_size, seed=seed, step=done)
        state, loss = learning.step(
            state, learned.features[learned.ids[rows]], learned.target[rows], learned.weight[rows], key
        )
        done += 1
    measured = None
    if done // MEASURE_EVERY_STEPS > first // MEASURE_EVERY_STEPS:
        measured = measure(learning, state.params, data.held_out, figures)
    return Round(state=state, loss=None if loss is None else float(loss), figures=measured)


def steps_due(config: RewardLearnerConfig, *, arrived: bool, updated: bool, num_labels: int) -> int:
    """Returns how many gradient steps news of labels and an update of the policy bring.

    `steps_per_arrival` for news below `early_labels`, and `steps_per_update` for each update. The paper takes the
    latter only from `early_labels` on; a game that says few different things has told all of them within seconds, long
    before a model has learned them, so here they come at once. Several arrivals since the last round count as one, so
    that work never piles up.
    """
    early = num_labels < config.early_labels
    return (config.steps_per_arrival if arrived and early else 0) + (config.steps_per_update if updated else 0)
