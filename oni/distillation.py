"""Learns a reward model from the annotations of a store, before any training: what `oni distill` does."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from llm_annotator.store.reader import StoreReader
from llm_annotator.store.records import LabelerRow
from oni.config import RewardLearnerConfig
from oni.rewards.classification import class_weights
from oni.rewards.heldout import is_held_out, label_figures, pair_figures
from oni.rewards.learning import Data, Examples, Figures, Learning, make_learning, measure, run_round, values_of
from oni.rewards.modelfile import RewardFile
from oni.rewards.offline import NUM_OUTPUTS
from oni.rewards.ranking import MAX_GRAD_NORM, RunningMoments
from oni.rewards.text import make_text_encoder
from oni.stored import Annotations, choose_labeler, read_labels, read_preferences

_NUM_SAMPLES = 8
"""Captions whose answers the file keeps, for a later program to check itself by."""

EPOCHS = 10.0
"""Chosen by what was held out, encoder ngrams: with more, probabilities become too sure of themselves, and labels are
hardly better. 2,803 messages of NetHack labelled by SmolLM2-135M, a share of 0.3 held out; 5, 10, 20, 40 epochs:
log-loss 0.26, 0.33, 0.44, 0.56 nats, accuracy 0.898, 0.894, 0.907, 0.894, AUC 0.92, 0.93, 0.94, 0.93."""

MIN_STEPS = 100
"""Gradient steps at least, unless their number is given: a few dozen labels would not be learned in fewer. Enough for
the 389 messages labelled by hand in tests/data (accuracy 0.92, AUC 0.97, log-loss 0.25 in four folds)."""


class _Kind(NamedTuple):
    """question: what a labeler must have been asked. read: its answers. max_grad_norm: as in the model that learns."""

    question: str
    read: Callable[..., Annotations]
    figures: Figures
    max_grad_norm: float | None


KINDS: dict[str, _Kind] = {
    "classification": _Kind("label", read_labels, label_figures, None),
    "ranking": _Kind("preference", read_preferences, pair_figures, MAX_GRAD_NORM),
}


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """What is learned and how long.

    epochs: how often each label or pair is drawn on average (or more: there are `MIN_STEPS`). steps: gradient steps,
        whatever the epochs.
    """

    kind: str
    learner: RewardLearnerConfig
    labeler_id: str | None = None
    epochs: float = EPOCHS
    steps: int | None = None
    seed: int = 0


def distill(reader: StoreReader, config: DistillConfig) -> RewardFile:
    """Returns a reward model learned from the store. The same store and settings give the same model.

    Raises:
        StoreError: the store holds nothing to learn from; the message says what is missing.
    """
    kind, learner = KINDS[config.kind], config.learner
    with reader.snapshot():
        labeler = choose_labeler(reader, kind.question, config.labeler_id)
        annotations = kind.read(reader, labeler.labeler_id, soft=learner.soft_labels)
    encoder = make_text_encoder(learner, num_outputs=NUM_OUTPUTS[config.kind])
    features = encoder.features(annotations.texts)
    data = _split(annotations, features, learner)
    steps = config.steps
    if steps is None:
        steps = max(MIN_STEPS, math.ceil(config.epochs * len(data.learned) / learner.batch_size))
    learning = make_learning(encoder, learning_rate=learner.learning_rate, max_grad_norm=kind.max_grad_norm)
    params = _learn(learning, data, kind, config, steps=steps)
    values = values_of(learning, params, features).astype(np.float64)
    mean, std = moments(values, annotations.seen)
    return RewardFile(
        kind=config.kind,
        settings=asdict(learner),
        params=jax.tree.map(np.asarray, params),
        mean=mean,
        std=std,
        samples=list(zip(annotations.texts, values.tolist(), strict=True))[:_NUM_SAMPLES],
        provenance=_provenance(reader, labeler)
        | annotations.counts
        | {"learned_from": len(data.learned), "steps": steps, "seed": config.seed},
        held_out={"count": len(data.held_out), **measure(learning, params, data.held_out, kind.figures)},
    )


def _learn(learning: Learning, data: Data, kind: _Kind, config: DistillConfig, *, steps: int) -> Any:
    state = learning.init(jax.random.key(config.seed))
    size = config.learner.batch_size
    done = run_round(learning, state, data, steps=steps, batch_size=size, seed=config.seed, figures=kind.figures)
    return done.state.params


def _provenance(reader: StoreReader, labeler: LabelerRow) -> dict[str, Any]:
    return {
        "store": str(reader.path),
        "labeler": labeler.labeler_id,
        "goal": str(labeler.spec.get("goal", "")),
        "model": labeler.model,
        "oni_jax": version("oni-jax"),
    }


def _split(annotations: Annotations, features: Any, learner: RewardLearnerConfig) -> Data:
    """Keeps a share of captions or pairs from learning, which their texts decide; ties measure nothing."""
    ids, texts = annotations.ids, annotations.texts
    out = np.array([is_held_out(*(texts[i] for i in row), share=learner.held_out) for row in ids], bool)
    weight = np.ones(len(ids), np.float32)
    if learner.class_balance:
        weight[~out] = class_weights(annotations.target[~out])
    learned = Examples(features, ids[~out], annotations.target[~out], weight[~out])
    measured = out & annotations.decided
    held_out = Examples(features, ids[measured], annotations.label[measured].astype(np.float32), weight[measured])
    return Data(learned=learned, held_out=held_out, num_labels=len(ids))


def moments(value: Float[np.ndarray, " V"], seen: Int[np.ndarray, " V"]) -> tuple[float, float]:
    """Returns mean and standard deviation over the steps that showed the captions, or over captions if no step did."""
    weight = seen if seen.any() else np.ones_like(seen)
    found = RunningMoments().add(value, weight, limit=math.inf)
    return found.mean, math.sqrt(found.var)
