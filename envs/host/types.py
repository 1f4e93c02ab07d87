"""What an environment outside JAX is: games that run in worker processes, and vectors of them.

A user's own game is a `Game` (one episode after another, in a worker) and a `HostEnv` (what is fixed about it, in the
trainer). `envs.host.pool.GamePool` plays B of them; each of its groups is a `HostVectorEnv`.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int

from envs.spec import EnvSpec, ObsSpec

Arrays = Mapping[str, np.ndarray]


class GameStep(NamedTuple):
    """What one action led to; the observation is in the arrays the game was attached to.

    terminated: the episode ended for good. caption: what the game said, any bytes, empty for nothing; on the last step
    too. success: only on the last step. truncated: the game cut the episode off by a limit of its own, so what would
    have come still counts; the limit of the spec is none of its business.
    """

    reward: float
    terminated: bool
    caption: bytes
    success: bool = False
    truncated: bool = False


@runtime_checkable
class Game(Protocol):
    """One game in a worker process. Never resets by itself and need not know the step limit.

    The same seed and actions give the same observations, rewards and captions, byte for byte, in every process. Games
    that have nothing to say by the last three methods can inherit them.
    """

    def attach(self, raw: Arrays) -> None:
        """Takes the arrays (one row each, as `HostEnv.raw` promises) that observations are written to from now on."""
        ...

    def reset(self, seed: int) -> None:
        """Starts the episode of a seed in [0, 2^63) and writes its first observation."""
        ...

    def step(self, action: int) -> GameStep:
        """Plays one action and writes the observation it led to."""
        ...

    def stats(self) -> Mapping[str, float]:
        """Returns the `episode_stats` of the spec for the episode so far; asked when it ended or was cut off."""
        return {}

    def ending(self) -> str:
        """Says in words how the episode ended, empty if there is nothing to say."""
        return ""

    def close(self) -> None:
        """Frees what the game holds."""
        return


@runtime_checkable
class HostEnv(Protocol):
    """What is fixed about a game that runs in worker processes."""

    @property
    def spec(self) -> EnvSpec:
        """What the learner is told; `obs` is what `observe` returns, always by name."""
        ...

    @property
    def raw(self) -> Mapping[str, ObsSpec]:
        """Arrays that one game writes."""
        ...

    @property
    def factory(self) -> str:
        """`package.module:function` that makes a `Game` in a worker. That module should not import JAX."""
        ...

    @property
    def options(self) -> Mapping[str, Any]:
        """Keyword arguments of the factory, as JSON values."""
        ...

    def observe(self, raw: Arrays) -> dict[str, np.ndarray]:
        """From raw arrays `[N, ...]` to observations `[N, ...]`; never keeps or changes what it is given."""
        ...


@runtime_checkable
class ShowsScenes(Protocol):
    """A `HostEnv` whose games also write what a person at the game would see; optional, and asked for by `scenes`.

    `raw` and `scene` have no name in common. A game that is to write both gets the arrays of both by `attach`.
    """

    @property
    def scene(self) -> Mapping[str, ObsSpec]:
        """Arrays that one game writes for pictures alone."""
        ...

    @property
    def shown(self) -> Sequence[str]:
        """Names of the arrays, of `raw` and of `scene`, that a picture is made of."""
        ...

    def depict_scene(self, shown: Arrays) -> Mapping[str, Any]:
        """Returns the picture (see `envs.pictures`) of one game, from copies of the arrays that `shown` names."""
        ...


@runtime_checkable
class GivesScenes(Protocol):
    """A `HostVectorEnv` of games that write scenes."""

    def scenes(self) -> tuple[Arrays, Arrays]:
        """Returns what is shown now and, where the last step ended an episode, what was shown at its end.

        They are the memory that the games write to: read them before the next `send`.
        """
        ...


class HostTimeStep(NamedTuple):
    """What one step of B games led to. The arrays belong to the reader until the next `send` to the same vector.

    obs: what the agent sees next; the new episode's first observation where one just ended.
    terminated, truncated: never both. A game whose worker died counts as truncated.
    caption: of the action just taken, on the last step of an episode too.
    info: `success` (bool[B]) and each of `spec.episode_stats` (float32[B]), meaningful where an episode ended. `lost`
        (bool[B]) says where the worker of the game died: that episode was cut off by a fault, its figures are unknown.
    ending: in words, how the episode of a row ended; empty elsewhere.
    final_obs: the true last observation, meaningful only where an episode ended.
    """

    obs: Arrays
    reward: Float32[np.ndarray, " B"]
    terminated: Bool[np.ndarray, " B"]
    truncated: Bool[np.ndarray, " B"]
    caption: Sequence[bytes]
    info: Mapping[str, np.ndarray]
    ending: Sequence[str]
    final_obs: Arrays


@runtime_checkable
class HostVectorEnv(Protocol):
    """B games that step at once, with same-step auto-reset. Calls alternate: `reset`, then `send`, `recv`, `send`, ...

    Any thread may call, but one at a time.
    """

    @property
    def spec(self) -> EnvSpec:
        """What is fixed about a single game."""
        ...

    @property
    def num_envs(self) -> int:
        """Games in this vector."""
        ...

    def reset(self) -> HostTimeStep:
        """Starts an episode in every row."""
        ...

    def send(self, action: Int[np.ndarray, " B"]) -> None:
        """Begins a step and returns at once."""
        ...

    def recv(self) -> HostTimeStep:
        """Waits for the step that `send` began."""
        ...


@runtime_checkable
class Games(Protocol):
    """B games in groups, to be used as a context manager: `envs.host.pool.GamePool`, or a library's own vectors."""

    @property
    def groups(self) -> Sequence[HostVectorEnv]:
        """The groups: group g of G has the rows from `g * B / G` on."""
        ...

    @property
    def deaths(self) -> int:
        """Workers that died so far."""
        ...

    @property
    def repeats(self) -> str:
        """Whether `restore` can bring running episodes back: `always`, `unknown` or `never`, as `EnvSpec.repeats`."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """Returns what `restore` needs, as JSON values."""
        ...

    def restore(self, snapshot: Mapping[str, Any], *, replay: bool = True) -> tuple[HostTimeStep, ...]:
        """Goes back to a snapshot, or begins new episodes (`replay=False`), also after going back has failed."""
        ...

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class OpensPool(Protocol):
    """A `HostEnv` whose library steps many games itself, faster than worker processes of ours would."""

    def open_pool(self, num_envs: int, *, seed: int, num_groups: int = 2, num_workers: int | None = None) -> Games:
        """Returns the games, not begun yet."""
        ...
