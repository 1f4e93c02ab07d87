"""How well a labeler agrees with labels made by people."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from llm_annotator.asking import Answer
from llm_annotator.asking_parts import ask_captions
from llm_annotator.backends.base import Backend
from llm_annotator.captions import decode_caption
from llm_annotator.config import EngineConfig
from llm_annotator.errors import ConfigError
from llm_annotator.labeler import Labeler
from llm_annotator.parts import splitter
from llm_annotator.types import LabelStatus

_LABELS = {"helpful": True, "unhelpful": False}


@dataclass(frozen=True)
class LabelledCaption:
    """A caption and what a person said about it."""

    caption: bytes
    helpful: bool


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A labeler measured against people. Figures that cannot be had (no scores, no labels) are None.

    captions, labelled, unparsed, failed: how many captions were asked, and what became of them.
    questions: different captions, or parts of captions, that it took.
    accuracy: share of the labelled ones whose label is right.
    precision: share of those labelled helpful that are. recall: share of the helpful ones among the labelled that are
        labelled so.
    auc: probability that a helpful caption scores above an unhelpful one. best_threshold, best_accuracy: the
        threshold that separates these captions best, and how well; tuned on the very captions it is measured on.
    log_loss: nats per caption, of p_helpful.
    lowest_helpful, highest_unhelpful: scores in nats of the captions nearest to the wrong side.
    labels_per_s: answers per second of wall time, starting the model included.
    mistakes: captions labelled wrongly, with their score.
    """

    labeler: str
    model: str
    threshold: float
    captions: int
    labelled: int
    unparsed: int
    failed: int
    questions: int
    accuracy: float | None
    precision: float | None
    recall: float | None
    auc: float | None
    best_threshold: float | None
    best_accuracy: float | None
    log_loss: float | None
    lowest_helpful: float | None
    highest_unhelpful: float | None
    labels_per_s: float
    mistakes: tuple[tuple[str, float | None], ...]


async def evaluate(
    labeler: Labeler, backend: Backend, cases: Sequence[LabelledCaption], config: EngineConfig
) -> Evaluation:
    """Asks about every caption and compares the answers with the labels of people.

    Raises:
        BackendError: the very first caption got no answer.
    """
    started = time.perf_counter()
    answers = [item async for item in ask_captions(labeler, backend, [case.caption for case in cases], config)]
    return summarise(labeler, cases, answers, seconds=time.perf_counter() - started)


def summarise(
    labeler: Labeler, cases: Sequence[LabelledCaption], answers: Sequence[Answer[bytes]], *, seconds: float
) -> Evaluation:
    """Returns the figures of answers that are there already, in the order of `cases`."""
    judged = [
        (case, answer.judgement)
        for case, answer in zip(cases, answers, strict=True)
        if answer.judgement.status is LabelStatus.LABELLED
    ]
    found = sum(case.helpful and judgement.helpful is True for case, judgement in judged)
    wrong = [(case, judgement) for case, judgement in judged if judgement.helpful != case.helpful]
    scored = [(judgement.score, case.helpful) for case, judgement in judged if judgement.score is not None]
    scores, truth = [score for score, _ in scored], [helpful for _, helpful in scored]
    best = best_threshold(scores, truth)
    statuses = [answer.judgement.status for answer in answers]
    return Evaluation(
        labeler=labeler.id,
        model=labeler.model,
        threshold=labeler.spec.threshold,
        captions=len(cases),
        labelled=len(judged),
        unparsed=statuses.count(LabelStatus.UNPARSED),
        failed=statuses.count(LabelStatus.FAILED),
        questions=_questions(labeler, cases),
        accuracy=1.0 - len(wrong) / len(judged) if judged else None,
        precision=_share(found, sum(judgement.helpful is True for _, judgement in judged)),
        recall=_share(found, sum(case.helpful for case, _ in judged)),
        auc=auc(scores, truth),
        best_threshold=best,
        best_accuracy=accuracy(scores, truth, threshold=best) if best is not None else None,
        log_loss=log_loss(scores, truth),
        lowest_helpful=min((score for score, helpful in scored if helpful), default=None),
        highest_unhelpful=max((score for score, helpful in scored if not helpful), default=None),
        labels_per_s=len(answers) / seconds if seconds > 0 else 0.0,
        mistakes=tuple((decode_caption(case.caption), judgement.score) for case, judgement in wrong),
    )


def _questions(labeler: Labeler, cases: Sequence[LabelledCaption]) -> int:
    split = splitter(labeler.spec.parts)
    return len({part for case in cases for part in split(case.caption)})


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def auc(scores: Sequence[float], truth: Sequence[bool]) -> float | None:
    """Returns the area under the ROC curve: P(score of a helpful one > of an unhelpful one), ties counting half.

    None unless both kinds are there. Computed from ranks (Mann-Whitney U).
    """
    positives = sum(truth)
    negatives = len(truth) - positives
    if not positives or not negatives:
        return None
    order = sorted(range(len(scores)), key=scores.__getitem__)
    rank_sum, start = 0.0, 0
    while start < len(order):
        end = start
        while end < len(order) and scores[order[end]] == scores[order[start]]:
            end += 1
        mean_rank = (start + 1 + end) / 2  # ranks start at 1; equal scores share the mean of theirs
        rank_sum += mean_rank * sum(truth[index] for index in order[start:end])
        start = end
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def accuracy(scores: Sequence[float], truth: Sequence[bool], *, threshold: float) -> float | None:
    """Returns the share of scores on the right side of the threshold (helpful is above it); None without scores."""
    if not scores:
        return None
    return sum((score > threshold) == helpful for score, helpful in zip(scores, truth, strict=True)) / len(scores)


def best_threshold(scores: Sequence[float], truth: Sequence[bool]) -> float | None:
    """Returns the threshold of the highest accuracy; of several the one in the widest gap. None without scores.

    Only the middles between neighbouring scores, and a point one nat outside on each side, are looked at.
    """
    if not scores:
        return None
    levels = sorted(set(scores))
    # (threshold, width of its gap)
    gaps = [((low + high) / 2, high - low) for low, high in pairwise(levels)]
    candidates = [(levels[0] - 1.0, 0.0), *gaps, (levels[-1] + 1.0, 0.0)]
    return max(candidates, key=lambda item: (accuracy(scores, truth, threshold=item[0]) or 0.0, item[1]))[0]


def log_loss(scores: Sequence[float], truth: Sequence[bool]) -> float | None:
    """Returns the mean of -log P(the person's label), in nats, P being the logistic of the score."""
    if not scores:
        return None
    # log(1 + exp(-x)), with x the score toward the right label, without overflow.
    losses = (
        max(-x, 0.0) + math.log1p(math.exp(-abs(x)))
        for x in (score if helpful else -score for score, helpful in zip(scores, truth, strict=True))
    )
    return math.fsum(losses) / len(scores)


def read_cases(path: Path) -> list[LabelledCaption]:
    """Returns the labelled captions of a JSONL file: {"caption": "...", "label": "helpful" | "unhelpful"} a line.

    Raises:
        ConfigError: the file cannot be read or holds nothing, or a line is of another form; the message names it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    cases = [_case(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not cases:
        raise ConfigError(f"{path} holds no labelled caption")
    return cases


def _case(line: str, where: str) -> LabelledCaption:
    form = '{"caption": "...", "label": "helpful"} or "unhelpful"'
    try:
        item: object = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where}: not JSON ({error.msg}); expected {form}") from None
    match item:
        case {"caption": str(caption), "label": str(label)} if label in _LABELS:
            return LabelledCaption(caption.encode("utf-8", errors="surrogatepass"), _LABELS[label])
        case _:
            raise ConfigError(f"{where}: expected {form}, not {line.strip()[:80]}")
