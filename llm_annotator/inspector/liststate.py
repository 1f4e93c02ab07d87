"""The state of a list of captions, as it stands in its address: what a link or a form leads to."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, get_args
from urllib.parse import urlencode

from llm_annotator.inspector.scope import Scope
from llm_annotator.store.listing import CaptionFilter, LabelFilter, Sort

PAGE_SIZE = 50
MAX_PAGE = 1_000_000

_ASCENDING_FIRST: frozenset[str] = frozenset({"first"})
"""Orders in which the low values are asked for more often."""


@dataclass(frozen=True, kw_only=True)
class ListState:
    """Parameters of the address, by their names there; empty for what is not given.

    q: text searched for. label: as in `CaptionFilter`. by: "human" for those overruled. muted: "1" for those muted.
    min: least count. earned: least reward. differs: id of another labeler, or "model". sort, way: order, "asc" or
    "desc". page: from 1.
    """

    q: str = ""
    label: str = ""
    by: str = ""
    muted: str = ""
    min: str = ""
    earned: str = ""
    differs: str = ""
    sort: str = "reward"
    way: str = "desc"
    page: str = "1"
    run: str = ""
    labeler: str = ""

    def url(self, **changes: str) -> str:
        """Returns the address of the same list with changes, from "?" on; defaults are left out."""
        return f"?{urlencode(replace(self, **changes).given())}"

    def given(self) -> dict[str, str]:
        """Returns the parameters that say something other than the default."""
        return {
            item.name: value for item in fields(self) if (value := getattr(self, item.name)) not in ("", item.default)
        }

    def sorted_by(self, sort: str) -> str:
        """Returns the address of the first page sorted by a column: the other way round if it is sorted by it now."""
        if sort == self.sort:
            return self.url(way="asc" if self.way == "desc" else "desc", page="1")
        return self.url(sort=sort, way="asc" if sort in _ASCENDING_FIRST else "desc", page="1")

    @property
    def number(self) -> int:
        """Page, from 1."""
        return min(max(int(self.page), 1), MAX_PAGE) if self.page.isdecimal() and len(self.page) < 9 else 1

    @property
    def is_filtered(self) -> bool:
        """Whether anything but run and labeler keeps captions out."""
        return any((self.q, self.label, self.by, self.muted, self.min, self.earned, self.differs))


def read_state(parameters: Mapping[str, str]) -> tuple[ListState, list[str]]:
    """Returns the state that an address holds, and what is wrong with it, in words; what is wrong is left out."""
    names = {item.name for item in fields(ListState)}
    given: dict[str, Any] = {name: value for name, value in parameters.items() if name in names and value}
    problems: list[str] = []

    def drop(name: str, why: str) -> None:
        problems.append(f"{why}: {given.pop(name)!r} was left out.")

    if "label" in given and given["label"] not in get_args(LabelFilter):
        drop("label", f"A label is one of {', '.join(get_args(LabelFilter))}")
    if "sort" in given and given["sort"] not in get_args(Sort):
        drop("sort", f"Captions are sorted by {', '.join(get_args(Sort))}")
    if "way" in given and given["way"] not in ("asc", "desc"):
        drop("way", "The order is asc or desc")
    if "min" in given and not (given["min"].isdecimal() and len(given["min"]) < 16):
        drop("min", "The least count is a whole number")
    if "earned" in given and _number(given["earned"]) is None:
        drop("earned", "The least reward is a number")
    return ListState(**given), problems


def caption_filter(state: ListState, scope: Scope) -> CaptionFilter:
    """Returns what the store is asked for. The state must be one that `read_state` returned."""
    return CaptionFilter(
        run_id=scope.run_id,
        labeler_id=scope.labeler_id,
        text=state.q,
        label=state.label or None,  # pyright: ignore[reportArgumentType] - checked by read_state
        overruled=state.by == "human",
        muted=bool(state.muted),
        min_count=int(state.min or 0),
        min_reward=_number(state.earned),
        differs=state.differs or None,
        score_run=scope.score_run,
        sort=state.sort,  # pyright: ignore[reportArgumentType] - likewise
        descending=state.way == "desc",
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None
