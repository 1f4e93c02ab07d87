"""What every kind of actors gives to the trainer."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Int

from oni.actors.scenes import Scenes
from oni.captions import CaptionTable
from oni.evaluation import Choose, Episodes
from oni.networks import Params
from oni.types import ActorState, Rollout

Said = Any
"""What the games said in a rollout, as `Actors.caption_ids` reads it."""


@runtime_checkable
class Actors(Protocol):
    """B games and the policy that plays them. Only one rollout is collected at a time."""

    def start(self, key: Array) -> ActorState:
        """Returns where the games stand before the first step."""
        ...

    def collect(self, params: Params, state: ActorState, key: Array) -> tuple[ActorState, Rollout, Said]:
        """Plays T steps in every game. May run in a thread beside the learner."""
        ...

    def caption_ids(self, said: Said, captions: CaptionTable) -> tuple[Int[Array, "T B"], list[bytes]]:
        """Finds the caption of every step, interning new ones; returns the ids and the texts that are new."""
        ...

    def watch(self) -> None:
        """Keeps, from now on, what people would see of the games beside what the policy sees, where there is more."""
        ...

    def take_scenes(self) -> Scenes | None:
        """Returns what was kept of the rollout that `collect` returned last; None where there is no more to see."""
        ...

    def play(self, params: Params, *, num_episodes: int, seed: int, choose: Choose) -> Episodes:
        """Plays episodes in games of their own."""
        ...

    def record(self, params: Params, folder: Path, *, num_episodes: int, seed: int, choose: Choose) -> list[str]:
        """Plays episodes and writes a recording of each; returns the files.

        Raises:
            OniError: these games cannot be recorded.
        """
        ...

    def figures(self) -> dict[str, float | int]:
        """Returns figures about the games themselves, by metric name."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """Returns what a checkpoint must hold beside `ActorState`, as JSON values."""
        ...

    def restore(self, state: ActorState, snapshot: dict[str, Any]) -> ActorState:
        """Brings the games to where a checkpoint left them and returns the state to go on from.

        Raises:
            CheckpointError: they cannot be brought there.
        """
        ...

    def close(self) -> None:
        """Ends what runs beside the trainer."""
        ...
