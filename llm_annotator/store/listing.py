"""Lists of captions for people: filtered, sorted, a page at a time, quick with 100k captions.

A page takes two queries. The first looks at every caption that may fit, but only at what the filter and the order need;
the second fetches the rest of the few that are shown.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from llm_annotator.store.reading import Reading
from llm_annotator.store.records import CaptionRow
from llm_annotator.store.rows import caption_row

LabelFilter = Literal["helpful", "unhelpful", "unparsed", "failed", "unlabelled"]
Sort = Literal["reward", "count", "episodes", "first", "last", "label", "probability", "model", "newest"]

MODEL = "model"
"""Stands for the reward model where the name of a labeler can stand, too."""

# The likelihoods have SQLite read the table by its key, which holds the score, instead of by the index of captions.
_NEWEST_SCORE = """(SELECT score FROM model_scores
    WHERE likelihood(run_id = :score_run, 0.01) AND likelihood(caption_id = {id}, 0.9)
    ORDER BY env_step DESC LIMIT 1)"""

_UNLABELLED = "NOT EXISTS (SELECT 1 FROM labels n WHERE n.labeler_id = :labeler AND n.caption_id = {id})"

_KEYS: dict[Sort, tuple[str, str]] = {
    "reward": ("o.reward_sum", "NULL"),
    "count": ("o.count", "NULL"),
    "episodes": ("o.episode_count", "NULL"),
    "first": ("o.first_step", "NULL"),
    "last": ("o.last_step", "NULL"),
    "label": ("l.helpful", "l.score"),
    "probability": ("l.p_helpful", "NULL"),
    "model": (_NEWEST_SCORE, "NULL"),
    "newest": ("{id}", "NULL"),
}

_MATCHING = """WITH matching AS MATERIALIZED (
        SELECT {id} AS id, {first_key} AS first_key, {second_key} AS second_key
        FROM {source} {joins} WHERE {conditions})
    SELECT (SELECT count(*) FROM matching), id FROM matching
    ORDER BY first_key {way} NULLS LAST, second_key {way} NULLS LAST, id LIMIT :limit OFFSET :offset"""

_SHOWN = """SELECT c.id, c.text, c.first_seen_at, coalesce(o.count, 0), o.episode_count, o.first_step, o.last_step,
    coalesce(o.reward_sum, 0.0), l.status, l.helpful, l.p_helpful, l.score, l.source, l.updated_at,
    coalesce(l.muted, 0), {score}, d.helpful
    FROM json_each(:ids) p JOIN captions c ON c.id = p.value
    LEFT JOIN {source} o ON o.caption_id = c.id {of_run}
    LEFT JOIN labels l ON l.labeler_id = :labeler AND l.caption_id = c.id
    LEFT JOIN labels d ON d.labeler_id = :other AND d.caption_id = c.id
    ORDER BY p.key"""


@dataclass(frozen=True, kw_only=True)
class CaptionFilter:
    """Which captions, and in which order. What is None, empty, 0 or False does not filter.

    run_id: only captions that came up in this run, with its totals; None: all captions, totals of all runs.
    labeler_id: whose labels.
    text: only captions that hold this, upper and lower case of ASCII letters alike.
    overruled, muted: only those that a person labelled, or muted.
    min_count, min_reward: that came up, or earned, at least so much.
    differs: only captions that another labeler (its id) labels otherwise; or, `MODEL`, that the reward model pays
        though they are unhelpful, or does not pay though they are helpful, by its newest score in `score_run`.
    descending: the highest value first. Captions without one come last either way.
    """

    run_id: str | None = None
    labeler_id: str | None = None
    text: str = ""
    label: LabelFilter | None = None
    overruled: bool = False
    muted: bool = False
    min_count: int = 0
    min_reward: float | None = None
    differs: str | None = None
    score_run: str | None = None
    sort: Sort = "reward"
    descending: bool = True


class ListedCaption(NamedTuple):
    """A caption in a list.

    model_score: newest score of the reward model, None if none was kept.
    other_helpful: label of the other labeler that the filter names.
    """

    row: CaptionRow
    muted: bool
    model_score: float | None
    other_helpful: bool | None


class Listing(NamedTuple):
    """One page of captions; `matching` is how many fit altogether."""

    captions: list[ListedCaption]
    matching: int


def list_captions(reading: Reading, wanted: CaptionFilter, *, limit: int, offset: int = 0) -> Listing:
    """Returns a page of the captions that fit.

    Raises:
        StoreError: the store cannot be read.
    """
    values = _values(wanted) | {"limit": limit, "offset": offset}
    found = reading.rows(_matching_query(wanted), values)
    if not found:
        return Listing([], 0 if offset == 0 else list_captions(reading, wanted, limit=1).matching)
    ids = [row[1] for row in found]
    query = _SHOWN.format(
        source="caption_totals" if wanted.run_id is None else "occurrences",
        of_run="" if wanted.run_id is None else "AND o.run_id = :run",
        score=_NEWEST_SCORE.format(id="c.id"),
    )
    shown = reading.rows(query, values | {"ids": json.dumps(ids)})
    return Listing([_listed(row, wanted.labeler_id) for row in shown], found[0][0])


def _listed(row: tuple[Any, ...], labeler_id: str | None) -> ListedCaption:
    *caption, model_score, other = row
    found = caption_row(tuple(caption), labeler_id)
    return ListedCaption(found, found.muted, model_score, None if other is None else bool(other))


def _values(wanted: CaptionFilter) -> dict[str, Any]:
    return {
        "run": wanted.run_id,
        "labeler": wanted.labeler_id,
        "other": wanted.differs,
        "score_run": wanted.score_run,
        "text": wanted.text.encode("utf-8", "surrogateescape").lower(),
        "latin": _latin(wanted.text),
        "status": wanted.label,
        "min_count": wanted.min_count,
        "min_reward": wanted.min_reward,
    }


def _latin(text: str) -> bytes | None:
    """Returns text as a game that writes latin-1 has it; None if that has no such text, or has it like all others."""
    try:
        return None if text.isascii() else text.encode("latin-1").lower()
    except UnicodeEncodeError:
        return None


def _matching_query(wanted: CaptionFilter) -> str:
    one_run = wanted.run_id is not None
    key = "o.caption_id" if one_run else "c.id"
    # NOT INDEXED: in the order of ids, as all that is joined stands, instead of that of the index of texts. It halves
    # the time.
    all_runs = "captions c NOT INDEXED LEFT JOIN caption_totals o ON o.caption_id = c.id"
    source = "occurrences o" if one_run else all_runs
    conditions = ["o.run_id = :run"] if one_run else ["1"]
    joins: list[str] = []
    if wanted.text:
        if one_run:
            joins.append("JOIN captions c ON c.id = o.caption_id")
        # Compared as bytes: a caption need not be text, and may hold a NUL.
        # A game that writes latin-1 is found by the letters that it shows.
        conditions.append(
            "(instr(CAST(lower(c.text) AS BLOB), :text) > 0 OR instr(CAST(lower(c.text) AS BLOB), :latin) > 0)"
            if _latin(wanted.text) is not None
            else "instr(CAST(lower(c.text) AS BLOB), :text) > 0"
        )
    if wanted.min_count:
        conditions.append("o.count >= :min_count")
    if wanted.min_reward is not None:
        conditions.append("o.reward_sum >= :min_reward")
    conditions += _label_conditions(wanted, key)
    if wanted.label not in (None, "unlabelled") or wanted.overruled or wanted.muted or wanted.differs is not None:
        joins.append(f"JOIN labels l ON l.labeler_id = :labeler AND l.caption_id = {key}")
    elif wanted.sort in ("label", "probability"):
        joins.append(f"LEFT JOIN labels l ON l.labeler_id = :labeler AND l.caption_id = {key}")
    if wanted.differs not in (None, MODEL):
        joins.append(f"JOIN labels d ON d.labeler_id = :other AND d.caption_id = {key}")
    first, second = (part.format(id=key) for part in _KEYS[wanted.sort])
    return _MATCHING.format(
        id=key,
        first_key=first,
        second_key=second,
        source=source,
        joins=" ".join(joins),
        conditions=" AND ".join(conditions),
        way="DESC" if wanted.descending else "ASC",
    )


def _label_conditions(wanted: CaptionFilter, key: str) -> list[str]:
    conditions: list[str] = []
    match wanted.label:
        case None:
            pass
        case "helpful" | "unhelpful":
            conditions.append(f"l.helpful = {int(wanted.label == 'helpful')}")
        case "unlabelled":
            conditions.append(_UNLABELLED.format(id=key))
        case "unparsed" | "failed":
            conditions.append("l.status = :status")
    if wanted.overruled:
        conditions.append("l.source = 'human'")
    if wanted.muted:
        conditions.append("l.muted = 1")
    if wanted.differs == MODEL:
        conditions.append(f"l.helpful <> ({_NEWEST_SCORE.format(id=key)} > 0)")
    elif wanted.differs is not None:
        conditions.append("l.helpful <> d.helpful")
    return conditions
