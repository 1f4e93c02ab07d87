"""Labels out of a file: a person's words, which count at once; or another labeler's answers, to be compared."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from llm_annotator.store.exported import BATCH
from llm_annotator.store.figures import labelers
from llm_annotator.store.overruling import Verdict
from llm_annotator.store.reader import StoreReader
from llm_annotator.store.reading import Reading
from llm_annotator.store.records import AnnotationRecord
from llm_annotator.store.writer import Store
from llm_annotator.tables import Format, TableError, caption_of, decode
from llm_annotator.types import LabelStatus
from llm_annotator.wire import MAX_CAPTION_BYTES

IMPORTED = "imported:"
"""How the id of a labeler begins whose answers came out of a file."""

MAX_NAME_CHARS = 60
MAX_NOTE_CHARS = 2000

_WORDS: Mapping[str, tuple[bool, bool] | None] = {
    **dict.fromkeys(("helpful", "yes", "true", "1"), (True, False)),
    **dict.fromkeys(("unhelpful", "no", "false", "0"), (False, False)),
    **dict.fromkeys(("muted", "mute"), (False, True)),
    **dict.fromkeys(("", "unlabelled", "unparsed", "failed"), None),
}
"""What stands for a label: helpful or not, muted or not; None is no label."""


class ImportedLabel(NamedTuple):
    """One label of a file. p_helpful: in [0, 1], None if the file gives none."""

    place: str
    caption: bytes
    helpful: bool
    muted: bool
    note: str
    p_helpful: float | None


class Labels(NamedTuple):
    """What a file holds. skipped: captions in it without a label."""

    labels: Sequence[ImportedLabel]
    skipped: int


class Report(NamedTuple):
    """What became of a file.

    changed: labels that count from now on. same: captions whose label in force is that of the file, which were left as
    they are. skipped: captions without a label in the file. unseen: captions that the store had not seen before.
    """

    labeler_id: str
    changed: int
    same: int
    skipped: int
    unseen: int


def read_labels(file: IO[bytes], form: Format) -> Labels:
    """Returns the labels of a file: its column `label`, or else `helpful`, of each `caption`.

    Raises:
        TableError: something in it cannot be read; the message says where. ConfigError: Parquet without pyarrow.
    """
    found: dict[bytes, ImportedLabel] = {}
    skipped = 0
    for place, row in decode(file, form):
        try:
            label = _label(place, row)
        except ValueError as error:
            raise TableError(f"{place}: {error}") from None
        if label is None:
            skipped += 1
            continue
        before = found.setdefault(label.caption, label)
        if (before.helpful, before.muted) != (label.helpful, label.muted):
            raise TableError(
                f"{place}: the same caption has another label at {before.place}; a file for import holds the labels of "
                "one labeler, each caption once"
            )
    return Labels(list(found.values()), skipped)


def overrule(store: Path, labels: Labels, labeler_id: str, *, author: str, note: str) -> Report:
    """Lets the labels of a file count instead of those of a labeler, as if a person had said each; runs hear of it.

    What a label in force says already is left alone, so a file that was exported, changed here and there and imported
    changes just that. A run may go on meanwhile. What was stopped in the middle is finished by doing it again.

    note: for labels that have none in the file.

    Raises:
        ValueError: the labeler compares captions, of which a person can only say that they are muted.
        StoreError: no such labeler, or the store cannot be written.
    """
    _check_question(store, labels, labeler_id)
    unseen, changed = _unseen(store, labels), 0
    with Store(store) as writer:
        for part in _parts(labels.labels):
            verdicts = [
                Verdict(label.caption, label.helpful, label.muted, label.note or note, author) for label in part
            ]
            changed += sum(writer.overrule(labeler_id, verdicts))
    return Report(labeler_id, changed, len(labels.labels) - changed, labels.skipped, unseen)


def add_labeler(store: Path, labels: Labels, name: str, *, goal: str, note: str) -> Report:
    """Keeps the labels of a file as the answers of a labeler `imported:NAME`; no run hears of them.

    goal: what the labels were given for.

    Raises:
        ValueError: the name cannot be used, or a label is a mute, which no labeler can say.
        StoreError: the store cannot be written.
    """
    if not name.isprintable() or not name.strip() or len(name) > MAX_NAME_CHARS:
        raise ValueError(f"{name!r} is no name for a labeler: give 1 to {MAX_NAME_CHARS} characters that print")
    for label in labels.labels:
        if label.muted:
            raise ValueError(
                f"{label.place}: a mute is a person's word, and no labeler's answer: import it without a name"
            )
    labeler_id = IMPORTED + name
    unseen, changed = _unseen(store, labels), 0
    with Store(store) as writer:
        writer.add_labeler(labeler_id, {"goal": goal, "imported": name}, labeler_id)
        for part in _parts(labels.labels):
            ids = writer.intern([label.caption for label in part])
            known = writer.labels_of(labeler_id, ids)
            news = [
                _record(labeler_id, key, label, note)
                for key, label, before in zip(ids, part, known, strict=True)
                if before is None or before.helpful != label.helpful
            ]
            writer.add_annotations(news)
            changed += len(news)
    return Report(labeler_id, changed, len(labels.labels) - changed, labels.skipped, unseen)


def _parts(labels: Sequence[ImportedLabel]) -> Iterator[Sequence[ImportedLabel]]:
    """Yields as many labels as one transaction takes, so that a service that writes too never waits for long."""
    for first in range(0, len(labels), BATCH):
        yield labels[first : first + BATCH]


def _check_question(store: Path, labels: Labels, labeler_id: str) -> None:
    with Reading(store) as reading:
        compares = any(one.labeler_id == labeler_id and one.question != "label" for one in labelers(reading))
    for label in labels.labels if compares else ():
        if not label.muted:
            raise ValueError(
                f"{label.place}: labeler {labeler_id} compares captions and calls none helpful: a caption can only be "
                "muted; give a name, and the labels are kept as those of another labeler"
            )


def _unseen(store: Path, labels: Labels) -> int:
    with StoreReader(store) as reader:
        return sum(reader.find(label.caption) is None for label in labels.labels)


def _label(place: str, row: Mapping[str, Any]) -> ImportedLabel | None:
    """Returns the label of a row, None if it has none.

    Raises:
        ValueError: it cannot be read.
    """
    caption = caption_of(row)
    if len(caption) > MAX_CAPTION_BYTES:
        raise ValueError(f"the caption has {len(caption)} bytes, {MAX_CAPTION_BYTES} at most are kept")
    name = "label" if "label" in row else "helpful"
    if name not in row:
        raise ValueError(f"it has neither `label` nor `helpful`; there are: {', '.join(map(str, row))}")
    value = row[name]
    word = "" if value is None else str(value).strip().lower()
    if word not in _WORDS:
        raise ValueError(f"{name} is {value!r}: give helpful, unhelpful or muted, or nothing")
    meaning = _WORDS[word]
    if meaning is None:
        return None
    note = row.get("note") or ""
    if not isinstance(note, str) or len(note) > MAX_NOTE_CHARS:
        raise ValueError(f"note is a text of at most {MAX_NOTE_CHARS} characters")
    return ImportedLabel(place, caption, *meaning, note, _probability(row.get("p_helpful")))


def _probability(value: object) -> float | None:
    if value in (None, ""):
        return None
    try:
        found = float(str(value))
    except ValueError:
        found = math.nan
    if not 0.0 <= found <= 1.0:
        raise ValueError(f"p_helpful is {value!r}, no number from 0 to 1")
    return found


def _record(labeler_id: str, caption_id: int, label: ImportedLabel, note: str) -> AnnotationRecord:
    p_helpful = label.p_helpful
    if p_helpful is not None and (p_helpful > 0.5) != label.helpful:
        p_helpful = None  # that of the LLM, whose label was changed in the file
    return AnnotationRecord(
        labeler_id=labeler_id,
        caption_id=caption_id,
        status=LabelStatus.LABELLED,
        helpful=label.helpful,
        p_helpful=p_helpful,
        score=None,
        prompt_prefix="",
        prompt_suffix="",
        answer=None,
        logprobs=None,
        model=labeler_id,
        backend="imported",
        tokens_in=None,
        tokens_out=None,
        latency_s=None,
        attempts=0,
        detail=label.note or note,
        created_at=time.time(),
    )
