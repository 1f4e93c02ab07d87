"""The annotator's memory: one SQLite file with every caption, label, prompt and answer.

`Store` writes (the service alone), `StoreReader` reads (people and scripts, also while a service writes).
"""

from llm_annotator.store.reader import StoreReader
from llm_annotator.store.records import (
    AnnotationRecord,
    CaptionHistory,
    CaptionRow,
    ComparisonRecord,
    LabelerRow,
    OrderedAnswer,
    PairRow,
    RunOccurrence,
    RunRow,
    StoredAnnotation,
    StoredComparison,
    StoredLabel,
    StoredOverride,
    Totals,
)
from llm_annotator.store.writer import Store

__all__ = [
    "AnnotationRecord",
    "CaptionHistory",
    "CaptionRow",
    "ComparisonRecord",
    "LabelerRow",
    "OrderedAnswer",
    "PairRow",
    "RunOccurrence",
    "RunRow",
    "Store",
    "StoreReader",
    "StoredAnnotation",
    "StoredComparison",
    "StoredLabel",
    "StoredOverride",
    "Totals",
]
