"""How well a labeler that compares captions agrees with labels made by people."""

import itertools
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from llm_annotator.asking import Answer, ask_all
from llm_annotator.backends.base import Backend
from llm_annotator.captions import decode_caption
from llm_annotator.config import EngineConfig
from llm_annotator.errors import ConfigError
from llm_annotator.evaluate import LabelledCaption
from llm_annotator.labeler import Labeler
from llm_annotator.types import Judgement

Pair = tuple[bytes, bytes]


@dataclass(frozen=True, kw_only=True)
class PairEvaluation:
    """A labeler that compares, measured against people. Figures that cannot be had are None.

    Each pair is a helpful caption, which ought to be preferred, and an unhelpful one. It is asked about in both orders.

    pairs: how many. answered: those with a label in both orders; the shares are shares of these.
    right, wrong: both orders prefer the helpful one, or the other one. tie: each order says something else.
    accuracy: share in which half the difference of the two scores, in which a liking for a place cancels, prefers the
        helpful one, equal scores counting half.
    place_bias: mean over the pairs of the mean of the two scores, in nats: how much the model favours the first place,
        whatever stands there. best_threshold, best_right: the threshold that makes most pairs right, and their share;
        tuned on the very pairs it is measured on.
    questions_per_s: answers per second of wall time, starting the model included.
    mistakes: the pairs, helpful one first, that the accuracy counts as wrong, and half the difference of their scores.
    """

    labeler: str
    model: str
    threshold: float
    pairs: int
    answered: int
    right: float | None
    tie: float | None
    wrong: float | None
    accuracy: float | None
    place_bias: float | None
    best_threshold: float | None
    best_right: float | None
    questions_per_s: float
    mistakes: tuple[tuple[str, str, float], ...]


async def evaluate_pairs(
    labeler: Labeler, backend: Backend, pairs: Sequence[Pair], config: EngineConfig
) -> PairEvaluation:
    """Asks about each pair, helpful caption first, in both orders, and compares the answers with what people said.

    Raises:
        BackendError: the very first question got no answer.
    """
    started = time.perf_counter()
    orders = [order for first, second in pairs for order in ((first, second), (second, first))]
    answers = [item async for item in ask_all(labeler, backend, orders, config)]
    return summarise_pairs(labeler, pairs, answers, seconds=time.perf_counter() - started)


def draw_pairs(cases: Sequence[LabelledCaption], number: int, *, seed: int) -> list[Pair]:
    """Returns pairs of a helpful and an unhelpful caption, drawn without drawing any pair twice; all if fewer exist.

    Raises:
        ConfigError: the captions are all helpful or all unhelpful.
    """
    helpful = sorted({case.caption for case in cases if case.helpful})
    unhelpful = sorted({case.caption for case in cases if not case.helpful})
    if not helpful or not unhelpful:
        raise ConfigError("pairs need a helpful and an unhelpful caption, and these are all of one kind")
    everything = len(helpful) * len(unhelpful)
    drawn = random.Random(seed).sample(range(everything), min(number, everything))  # noqa: S311 - not for secrets
    return [(helpful[index // len(unhelpful)], unhelpful[index % len(unhelpful)]) for index in drawn]


def summarise_pairs(
    labeler: Labeler, pairs: Sequence[Pair], answers: Sequence[Answer[Pair]], *, seconds: float
) -> PairEvaluation:
    """Returns the figures of answers that are there already: of each pair, about (a, b) and then about (b, a)."""
    judgements = [answer.judgement for answer in answers]
    both = list(zip(pairs, judgements[::2], judgements[1::2], strict=True))
    answered = [item for item in both if item[1].helpful is not None and item[2].helpful is not None]
    verdicts = [(forward.helpful, backward.helpful) for _, forward, backward in answered]
    scored = [(pair, scores) for pair, forward, backward in answered if (scores := _scores(forward, backward))]
    leans = [(pair, (forward - backward) / 2) for pair, (forward, backward) in scored]
    best = _best_threshold([scores for _, scores in scored])
    return PairEvaluation(
        labeler=labeler.id,
        model=labeler.model,
        threshold=labeler.spec.threshold,
        pairs=len(pairs),
        answered=len(answered),
        right=_share([verdict == (True, False) for verdict in verdicts]),
        tie=_share([forward == backward for forward, backward in verdicts]),
        wrong=_share([verdict == (False, True) for verdict in verdicts]),
        accuracy=_share([0.5 if lean == 0 else lean > 0 for _, lean in leans]),
        place_bias=_share([(forward + backward) / 2 for _, (forward, backward) in scored]),
        best_threshold=best,
        best_right=None if best is None else _share([forward > best >= backward for _, (forward, backward) in scored]),
        questions_per_s=len(answers) / seconds if seconds > 0 else 0.0,
        mistakes=tuple((decode_caption(a), decode_caption(b), lean) for (a, b), lean in leans if lean < 0),
    )


def _scores(forward: Judgement, backward: Judgement) -> tuple[float, float] | None:
    return None if forward.score is None or backward.score is None else (forward.score, backward.score)


def _best_threshold(scores: Sequence[tuple[float, float]]) -> float | None:
    """Returns the middle of the widest stretch of thresholds at which most pairs are right; None without scores.

    A pair (x, y) is right at every threshold from y up to, but not at, x.
    """
    if not scores:
        return None
    levels = sorted({score for pair in scores for score in pair})
    counted = [
        (sum(forward > low >= backward for forward, backward in scores), high - low, (low + high) / 2)
        for low, high in itertools.pairwise(levels)
    ]
    return max(counted, default=(0, 0.0, levels[0]))[2]


def _share(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
