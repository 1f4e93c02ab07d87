"""Which runs a service knows, and which of them are still there."""

from collections.abc import Callable

ABSENT_S = 120.0
"""A run that was not heard of for so long has ended, however that came. One that lives asks for news every half minute
at the latest; if it comes back after all, it registers again."""


class Presence:
    """The runs that are registered."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._labelers: dict[str, str] = {}
        self._heard_at: dict[str, float] = {}

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._labelers

    def names(self) -> list[str]:
        """Returns the ids of the runs, sorted."""
        return sorted(self._labelers)

    def labeler(self, run_id: str) -> str | None:
        """Returns the id of a run's labeler, None for a run that is not registered."""
        return self._labelers.get(run_id)

    def add(self, run_id: str, labeler_id: str) -> None:
        """Registers a run, or another labeler of one that is."""
        self._labelers[run_id] = labeler_id
        self.heard(run_id)

    def heard(self, run_id: str) -> None:
        """Notes that a run that is registered has sent something."""
        if run_id in self._labelers:
            self._heard_at[run_id] = self._clock()

    def absent(self) -> list[str]:
        """Returns the runs that were not heard of for `ABSENT_S`."""
        now = self._clock()
        return [run_id for run_id, heard_at in self._heard_at.items() if now - heard_at >= ABSENT_S]

    def remove(self, run_id: str) -> None:
        """Forgets a run."""
        self._labelers.pop(run_id, None)
        self._heard_at.pop(run_id, None)
