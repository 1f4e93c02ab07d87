"""One caption: what was asked and answered, what people said, what it earned, and the moments in which it was said."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from llm_annotator.inspector.charts import Series, line_chart, thin
from llm_annotator.inspector.replay import ReplayView, replay
from llm_annotator.inspector.scope import NotFound, Scope
from llm_annotator.inspector.words import reward
from llm_annotator.store import figures
from llm_annotator.store.moments import MomentReader, StoredMoment, StoredScore
from llm_annotator.store.onecaption import (
    ComparedWith,
    LabelInForce,
    Part,
    compared_with,
    holders,
    labels_in_force,
    parts,
)
from llm_annotator.store.reader import StoreReader
from llm_annotator.store.reading import Reading
from llm_annotator.store.records import CaptionHistory, StoredAnnotation, StoredOverride

SHOWN_ALTERNATIVES = 10
"""Alternatives of the first answer token that are listed."""


class Alternative(NamedTuple):
    """One alternative of the first answer token, with its probability."""

    token: str
    probability: float


class AnnotationView(NamedTuple):
    """A question with its answer. left: probability of all alternatives that the server did not give."""

    annotation: StoredAnnotation
    alternatives: Sequence[Alternative]
    left: float | None
    parts: Sequence[Part]


@dataclass(frozen=True, kw_only=True)
class LabelerView:
    """What one labeler, and people in its place, said; newest first. label: what counts now."""

    labeler_id: str
    name: str
    goal: str
    label: LabelInForce | None
    annotations: Sequence[AnnotationView]
    overrides: Sequence[StoredOverride]

    @property
    def standing(self) -> Sequence[StoredOverride]:
        """What people said and did not take back."""
        return [item for item in self.overrides if item.revoked_at is None]


@dataclass(frozen=True, kw_only=True)
class CaptionView:
    """All that the page shows.

    label: what counts for the labeler of the page. share: of all intrinsic reward of the scope. held_by: captions of
    which this one is a part. moments: what there is to choose from; replay: the chosen one. scores: the reward model's
    scores as a chart, None without any.
    """

    history: CaptionHistory
    count: int
    reward_sum: float
    share: float | None
    label: LabelInForce | None
    labelers: Sequence[LabelerView]
    comparisons: Sequence[ComparedWith]
    held_by: int
    moments: Sequence[StoredMoment]
    replay: ReplayView | None
    scores: Markup | None
    newest_score: float | None


def caption_view(reading: Reading, scope: Scope, caption_id: int, moment: str) -> CaptionView:
    """Returns what the page shows. moment: id of the one to replay, else the newest one is.

    Raises:
        NotFound: no such caption.
    """
    if reading.row("SELECT 1 FROM captions WHERE id = ?", (caption_id,)) is None:
        raise NotFound(f"This store holds no caption {caption_id}. Look for it by its text under Captions.")
    with StoreReader(reading.path) as reader:
        history = reader.history(caption_id)
    with MomentReader(reading.path) as reader:
        moments = reader.moments(caption_id, scope.run_id)
        scores = reader.scores(caption_id, scope.run_id)
    labels = {label.labeler_id: label for label in labels_in_force(reading, caption_id)}
    occurrences = [item for item in history.occurrences if scope.run_id in (None, item.run_id)]
    earned = math.fsum(item.reward_sum for item in occurrences)
    total = figures.earned(reading, scope.run_id)
    chosen = next((item for item in moments if str(item.moment_id) == moment), moments[-1] if moments else None)
    newest = [score.score for score in scores if score.run_id == scope.score_run]
    return CaptionView(
        history=history,
        count=sum(item.count for item in occurrences),
        reward_sum=earned,
        share=earned / total if total > 0 else None,
        label=labels.get(scope.labeler_id or ""),
        labelers=labeler_views(history, labels, parts(reading, caption_id), scope),
        comparisons=compared_with(reading, caption_id),
        held_by=holders(reading, caption_id),
        moments=moments,
        replay=None if chosen is None else replay(chosen),
        scores=score_chart(scores, scope),
        newest_score=newest[-1] if newest else None,
    )


def labeler_views(
    history: CaptionHistory, labels: Mapping[str, LabelInForce], parts_of: Mapping[int, Sequence[Part]], scope: Scope
) -> list[LabelerView]:
    """Returns what each labeler said, that of the page first."""
    said = [item.labeler_id for item in (*history.annotations, *history.overrides)]
    ids = dict.fromkeys([key for key in (scope.labeler_id,) if key in said or key in labels] + said + list(labels))
    goals = {item.labeler_id: item.goal for item in scope.labelers}
    return [
        LabelerView(
            labeler_id=key,
            name=scope.labeler_name(key),
            goal=goals.get(key, ""),
            label=labels.get(key),
            annotations=[
                annotation_view(item, parts_of.get(item.annotation_id, ()))
                for item in reversed(history.annotations)
                if item.labeler_id == key
            ],
            overrides=[item for item in reversed(history.overrides) if item.labeler_id == key],
        )
        for key in ids
        if key is not None
    ]


def annotation_view(annotation: StoredAnnotation, its_parts: Sequence[Part]) -> AnnotationView:
    """Returns a question with the probabilities of its answer, the likeliest first."""
    logprobs = {token: value for token, value in (annotation.logprobs or {}).items() if not math.isnan(value)}
    alternatives = [Alternative(token, math.exp(min(value, 0.0))) for token, value in logprobs.items()]
    alternatives.sort(key=lambda item: -item.probability)
    shown = alternatives[:SHOWN_ALTERNATIVES]
    left = max(0.0, 1.0 - math.fsum(item.probability for item in shown)) if shown else None
    return AnnotationView(annotation, shown, left, its_parts)


def score_chart(scores: Sequence[StoredScore], scope: Scope) -> Markup | None:
    """Returns the scores of a caption over training as a chart, a curve a run; None if there are none."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for score in scores:
        curves.setdefault(score.run_id, []).append((float(score.env_step), score.score))
    if not curves:
        return None
    series = [Series(scope.run_name(key), thin(points)) for key, points in curves.items()]
    words = ", ".join(f"{curve.name} {reward(curve.points[-1].y)}" for curve in series if curve.points)
    return line_chart(series, title="Score of the reward model", in_words=f"Newest: {words}")
