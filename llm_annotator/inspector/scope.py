"""Which run and whose labels a page is about: two parameters of its address, kept from page to page."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from llm_annotator.store import figures
from llm_annotator.store.figures import LabelerName, Run
from llm_annotator.store.reading import Reading


class NotFound(Exception):
    """The address names something that is not there; the message says what, and what to do."""


class Scope(NamedTuple):
    """What there is, and what was chosen.

    run: None for all runs together. labeler: whose labels count on this page, None if the store holds none.
    explicit: the parameters that were given, to be kept in links.
    """

    runs: Sequence[Run]
    labelers: Sequence[LabelerName]
    run: Run | None
    labeler: LabelerName | None
    explicit: Mapping[str, str]

    @property
    def run_id(self) -> str | None:
        """Id of the chosen run, None for all."""
        return None if self.run is None else self.run.run_id

    @property
    def labeler_id(self) -> str | None:
        """Id of the chosen labeler, None if there is none."""
        return None if self.labeler is None else self.labeler.labeler_id

    @property
    def score_run(self) -> str | None:
        """Id of the run whose reward model is looked at: the chosen one, else the newest."""
        return self.run_id or (self.runs[-1].run_id if self.runs else None)

    @property
    def compares(self) -> bool:
        """Whether the labeler compares captions instead of labelling them."""
        return self.labeler is not None and self.labeler.question == "preference"

    def query(self) -> str:
        """Returns the end of an address that keeps run and labeler: "" or "?run=..."."""
        return f"?{urlencode(self.explicit)}" if self.explicit else ""

    def labeler_name(self, labeler_id: str) -> str:
        """Returns how a labeler is called: its model, and its id where several share that."""
        same = [item for item in self.labelers if item.labeler_id == labeler_id]
        return f"{same[0].model} · {labeler_id[:8]}" if same else labeler_id

    def run_name(self, run_id: str) -> str:
        """Returns how a run is called, and its id where several share that."""
        names = [run.name for run in self.runs]
        for run in self.runs:
            if run.run_id == run_id:
                return run.name if names.count(run.name) == 1 else f"{run.name} · {run_id[:8]}"
        return run_id


def find_scope(reading: Reading, parameters: Mapping[str, str]) -> Scope:
    """Returns what the parameters `run` and `labeler` choose; by default all runs, and the newest run's labeler.

    Raises:
        NotFound: no such run or labeler.
    """
    runs, labelers = figures.runs(reading), figures.labelers(reading)
    wanted_run, wanted_labeler = parameters.get("run"), parameters.get("labeler")
    run = next((item for item in runs if item.run_id == wanted_run), None)
    if wanted_run and run is None:
        raise NotFound(f"This store knows no run {wanted_run!r}. Choose one of those listed under Runs.")
    used = [item.labeler_id for item in ([run] if run else reversed(runs))]
    order = [wanted_labeler] if wanted_labeler else [*used, *(item.labeler_id for item in reversed(labelers))]
    known = {item.labeler_id: item for item in labelers}
    labeler = next((known[key] for key in order if key in known), None)
    if wanted_labeler and labeler is None:
        raise NotFound(f"This store knows no labeler {wanted_labeler!r}. Choose one of those listed under Labelers.")
    explicit = {name: value for name, value in (("run", wanted_run), ("labeler", wanted_labeler)) if value}
    return Scope(runs, labelers, run, labeler, explicit)
