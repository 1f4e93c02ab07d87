"""What a store knows of subjects already, and what is left to ask: about whole captions, or about their parts."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from llm_annotator.labeler import Labeler
from llm_annotator.parts import splitter
from llm_annotator.question import SubjectId
from llm_annotator.store.records import StoredComparison, StoredLabel
from llm_annotator.store.writer import Store
from llm_annotator.types import LabelStatus, Subject

Stored = StoredLabel | StoredComparison


class LookUp(NamedTuple):
    """What is known, and what is to be asked about.

    known: answers in force that stand for now, of those subjects that have one.
    to_ask: ids and subjects, or parts of subjects, each once, those of the last subject last.
    cached: how many had a label before.
    saved: questions that asking by parts saved here, at least; less than 0 if it took more.
    """

    known: list[Stored]
    to_ask: list[tuple[SubjectId, Subject]]
    cached: int
    saved: int


def look_up(
    store: Store, labeler: Labeler, subjects: Sequence[Subject], may_ask_again: Callable[[Stored], bool]
) -> LookUp:
    """Returns what is known of subjects; keeps them, and of which parts they consist.

    may_ask_again: whether a subject, or a part, with this answer is to be asked about (a label never is).

    Raises:
        StoreError
    """
    question, split = labeler.question, splitter(labeler.spec.parts)

    def answers(ids: Sequence[SubjectId]) -> dict[SubjectId, Stored | None]:
        return dict(zip(ids, question.stored(store, labeler.id, ids), strict=True))

    def is_open(answer: Stored | None) -> bool:
        return answer is None or may_ask_again(answer)

    ids = question.intern(store, subjects)
    found = answers(ids)
    known = [answer for answer in found.values() if answer is not None and not is_open(answer)]
    cached = sum(answer.status is LabelStatus.LABELLED for answer in known)
    open_ones = {key: subject for key, subject in zip(ids, subjects, strict=True) if is_open(found[key])}
    wholes = {
        cast("int", key): cast("tuple[bytes, ...]", parts)
        for key, subject in open_ones.items()
        if (parts := split(subject)) != (subject,)
    }
    if not wholes:
        return LookUp(known, list(open_ones.items()), cached, 0)

    kept, saved = store.add_parts(labeler.id, wholes)
    found = answers(list(wholes))
    labels = answers(list({part_id for parts in kept.values() for part_id, _ in parts}))
    to_ask: dict[SubjectId, Subject] = {}
    for key, subject in open_ones.items():
        answer = found.get(key)
        wanted: list[tuple[SubjectId, Subject]] = [(key, subject)]
        if key in wholes:
            # The last one is asked first, so the first sentence comes last.
            wanted = [part for part in reversed(kept[key]) if is_open(answer) and is_open(labels[part[0]])]
            if answer is not None and not wanted:
                known.append(answer)
        for part_id, part in wanted:
            to_ask.pop(part_id, None)
            to_ask[part_id] = part
    return LookUp(known, list(to_ask.items()), cached, saved)
