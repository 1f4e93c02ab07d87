"""What a store holds to learn a reward model from."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from llm_annotator.errors import StoreError
from llm_annotator.store.reader import StoreReader
from llm_annotator.store.records import CaptionRow, LabelerRow, OrderedAnswer, PairRow
from llm_annotator.types import LabelStatus
from oni.rewards.pairs import TIE, join_answers, join_probabilities

_ALL = -1
"""What the store takes for "no limit"."""


class Annotations(NamedTuple):
    """What one labeler said: N answers, about one caption each (A = 1) or about two (A = 2).

    texts, seen: the captions, and how many steps of all runs showed each. ids: places in `texts`.
    target: probability of helpful, or that the first of two is better; 1/2 for a tie.
    label: the same as yes or no. decided: whether it is one; a tie is not.
    counts: what there is, by name.
    """

    texts: list[bytes]
    seen: Int[np.ndarray, " V"]
    ids: Int[np.ndarray, "N A"]
    target: Float[np.ndarray, " N"]
    label: Bool[np.ndarray, " N"]
    decided: Bool[np.ndarray, " N"]
    counts: dict[str, int]


def choose_labeler(reader: StoreReader, question: str, wanted: str | None = None) -> LabelerRow:
    """Returns the labeler whose answers are taken: the one asked for, else the one that the newest run used last.

    Args:
        question: "label" or "preference": what it must have been asked.
        wanted: its id, or how exactly one of them begins.

    Raises:
        StoreError: there is none, or several could be meant; the message lists those that there are.
    """
    labelers = {row.labeler_id: row for row in reader.labelers() if row.spec.get("question", "label") == question}
    listed = "; ".join(f"{key} ({row.model}, {row.spec.get('goal', '')!r})" for key, row in labelers.items())
    there_are = f"there are: {listed}" if labelers else "there is none"
    if wanted is None:
        used = [run.labeler_id for run in reversed(reader.runs()) if run.labeler_id in labelers]
        for key in [*used, *reversed(labelers)]:
            return labelers[key or ""]
        raise StoreError(f"{reader.path} holds no labeler that was asked for a {question}")
    found = [key for key in labelers if key == wanted] or [key for key in labelers if key.startswith(wanted)]
    if len(found) != 1:
        problem = "no labeler" if not found else "more than one labeler"
        raise StoreError(f"{reader.path} holds {problem} {wanted!r} that was asked for a {question}; {there_are}")
    return labelers[found[0]]


def read_labels(reader: StoreReader, labeler_id: str, *, soft: bool) -> Annotations:
    """Returns the labels in force: those of people, else those of the LLM. Captions that a person muted are left out.

    Args:
        soft: takes the probability that came with a label as target, where there is one. A person is certain.

    Raises:
        StoreError: there are none, or all of them say the same.
    """
    rows = reader.captions(labeler_id=labeler_id, status="labelled", order_by="newest", limit=_ALL)
    rows = [row for row in reversed(rows) if row.text.strip() and not row.muted]
    label = np.array([bool(row.helpful) for row in rows], bool)
    counts = {
        "captions": len(rows),
        "helpful": int(label.sum()),
        "unhelpful": int((~label).sum()),
        "by_hand": sum(row.source == "human" for row in rows),
    }
    where = f"labeler {labeler_id} in {reader.path}"
    if not rows:
        raise StoreError(f"{where} has labelled no caption yet: nothing can be learned from it")
    if label.all() or not label.any():
        kind = "helpful" if label[0] else "unhelpful"
        raise StoreError(f"all {len(rows)} labels of {where} are {kind}: a model that tells the two apart needs both")
    return Annotations(
        texts=[row.text for row in rows],
        seen=np.array([row.count for row in rows], np.int64),
        ids=np.arange(len(rows))[:, None],
        target=np.array([_target(row, soft=soft) for row in rows], np.float32),
        label=label,
        decided=np.ones(len(rows), bool),
        counts=counts,
    )


def _target(row: CaptionRow, *, soft: bool) -> float:
    if soft and row.p_helpful is not None:
        return row.p_helpful
    return float(bool(row.helpful))


def read_preferences(reader: StoreReader, labeler_id: str, *, soft: bool) -> Annotations:
    """Returns the pairs that were asked in both orders; answers that contradict each other are a tie.

    Pairs with a caption that a person muted are left out.

    Args:
        soft: takes the probability as target, see `joined_target`.

    Raises:
        StoreError: there are none, or every one is a tie.
    """
    rows = reader.captions(labeler_id=labeler_id, order_by="newest", limit=_ALL)
    counts, muted = {row.text: row.count for row in rows}, {row.text for row in rows if row.muted}
    pairs = [pair for pair in reversed(reader.pairs(labeler_id=labeler_id, limit=_ALL)) if _is_whole(pair)]
    pairs = [pair for pair in pairs if pair.a not in muted and pair.b not in muted]
    texts = list(dict.fromkeys(text for pair in pairs for text in (pair.a, pair.b)))
    place = {text: i for i, text in enumerate(texts)}
    hard = np.array([joined_target(pair.forward, pair.backward, soft=False) for pair in pairs], np.float32)
    where = f"labeler {labeler_id} in {reader.path}"
    if not pairs:
        raise StoreError(f"{where} has compared no two captions in both orders yet: nothing can be learned from it")
    if (hard == TIE).all():
        raise StoreError(
            f"all {len(pairs)} pairs of {where} are ties, its answers depend on the order alone: use another"
        )
    return Annotations(
        texts=texts,
        seen=np.array([counts.get(text, 0) for text in texts], np.int64),
        ids=np.array([[place[pair.a], place[pair.b]] for pair in pairs]),
        target=np.array([joined_target(pair.forward, pair.backward, soft=soft) for pair in pairs], np.float32),
        label=hard > TIE,
        decided=hard != TIE,
        counts={"captions": len(texts), "pairs": len(pairs), "ties": int((hard == TIE).sum())},
    )


def _is_whole(pair: PairRow) -> bool:
    return pair.a != pair.b and all(
        answer is not None and answer.status is LabelStatus.LABELLED for answer in (pair.forward, pair.backward)
    )


def joined_target(forward: OrderedAnswer | None, backward: OrderedAnswer | None, *, soft: bool) -> float:
    """Returns whether a is better than b (1, 0, or 1/2 for a tie), from the answers about (a, b) and (b, a).

    Args:
        soft: returns how probable that is, where both answers have a probability.
    """
    assert forward is not None
    assert backward is not None
    if soft and forward.p_first is not None and backward.p_first is not None:
        return join_probabilities(forward.p_first, backward.p_first)
    return join_answers(bool(forward.first_better), bool(backward.first_better))
