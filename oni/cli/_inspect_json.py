"""What `oni inspect --json` prints. `SCHEMA` rises when a key is renamed, goes away or changes its meaning."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llm_annotator.store.onecaption import Part
from llm_annotator.store.records import CaptionHistory
from oni.cli._inspect_query import Overview, RankedCaption, label_word

SCHEMA = 1


def to_json(document: Mapping[str, Any]) -> str:
    """Returns the document as JSON of ASCII characters alone; numbers that JSON cannot write become null."""
    return json.dumps(_finite(document), indent=2, allow_nan=False)


def overview_document(found: Overview) -> dict[str, Any]:
    """Returns what the store holds, as plain data."""
    return {
        "schema": SCHEMA,
        "store": str(found.store),
        "run": None if found.run is None else found.run.run_id,
        "runs": [asdict(run) for run in found.runs],
        "labeler": None if found.labeler is None else found.labeler.labeler_id,
        "labelers": [asdict(labeler) for labeler in found.labelers],
        "totals": found.totals._asdict(),
        "cost": asdict(found.cost),
        "sort": found.query.sort,
        "matching": found.matching,
        "captions": [_caption(item) for item in found.captions],
    }


def history_document(
    history: CaptionHistory, parts: Mapping[int, Sequence[Part]], held_by: int, store: Path
) -> dict[str, Any]:
    """Returns all that is known of one caption, as plain data; parts and held_by as in `print_history`."""
    return {
        "schema": SCHEMA,
        "store": str(store),
        "caption_id": history.caption_id,
        **text_document(history.text),
        "first_seen_at": history.first_seen_at,
        "part_of_captions": held_by,
        "annotations": [
            asdict(item) | {"parts": [_part(part) for part in parts.get(item.annotation_id, ())]}
            for item in history.annotations
        ],
        "overrides": [asdict(item) for item in history.overrides],
        "occurrences": [asdict(item) for item in history.occurrences],
    }


def _part(part: Part) -> dict[str, Any]:
    row = part._asdict()
    return {"caption_id": row.pop("caption_id"), **text_document(row.pop("text")), **row}


def text_document(caption: bytes) -> dict[str, str | None]:
    """Returns the caption as text, and as base64 too where the text cannot hold it."""
    try:
        return {"caption": caption.decode("utf-8"), "caption_base64": None}
    except UnicodeDecodeError:
        encoded = base64.b64encode(caption).decode("ascii")
        return {"caption": caption.decode("utf-8", "replace"), "caption_base64": encoded}


def _caption(item: RankedCaption) -> dict[str, Any]:
    row = asdict(item.row)
    return {
        "caption_id": row.pop("caption_id"),
        **text_document(row.pop("text")),
        **row,
        "label": label_word(item.row),
        "reward_share": item.share,
        "reward_share_cumulative": item.cumulative_share,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value
