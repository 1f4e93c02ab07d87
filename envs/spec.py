"""What is fixed about an environment, without any array library but NumPy: worker processes of games read it too."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np


class ObsSpec(NamedTuple):
    """Shape and content of one observation (no batch axes).

    num_values: for categorical observations, how many values each entry of the last axis can take, so that an
        encoder can embed them; None for plain numbers.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    num_values: tuple[int, ...] | None = None


class EnvSpec(NamedTuple):
    """What is fixed about an environment.

    obs: one array, or several by name.
    max_episode_steps: steps after which an episode is truncated.
    event_size: bytes of `TimeStep.event` of a `JaxEnv`; 0 if it says nothing, and for every host environment.
    says_text: whether a host environment gives captions.
    episode_stats: figures of an episode beside return, length and success, known when it ends. A name with a slash is
        one of many of a kind (`achievement/collect_wood`): it is written down, but left out where there is little room.
    reward: what pays, in a few words for `oni envs list`.
    repeats: whether the same seed and actions give the same episode, so that a resumed run can bring running episodes
        of games on the host back: `always`, `unknown` (it is tried), or `never` (new ones begin).
    """

    id: str
    obs: ObsSpec | Mapping[str, ObsSpec]
    action_names: tuple[str, ...]
    max_episode_steps: int
    event_size: int = 0
    says_text: bool = False
    episode_stats: tuple[str, ...] = ()
    reward: str = "unknown"
    repeats: Literal["always", "unknown", "never"] = "always"

    @property
    def num_actions(self) -> int:
        """Number of discrete actions."""
        return len(self.action_names)

    @property
    def captioned(self) -> bool:
        """Whether there is anything to label."""
        return self.event_size > 0 or self.says_text
