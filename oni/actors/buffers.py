"""What a rollout of games in worker processes is written into, step by step and group by group."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from envs.host.types import HostTimeStep, HostVectorEnv
from envs.spec import EnvSpec
from oni.devices import ROLLOUT, Devices
from oni.types import ActorState, CoreState, Endings, Rollout

_FIELDS: Mapping[str, Any] = {
    "action": np.int32,
    "log_prob": np.float32,
    "reset": np.bool_,
    "reward": np.float32,
    "terminated": np.bool_,
    "truncated": np.bool_,
    "episode_return": np.float32,
    "episode_length": np.int32,
    "success": np.bool_,
    "lost": np.bool_,
}


def named_obs(spec: EnvSpec) -> dict[str, Any]:
    """Returns the observations of a host environment by name."""
    if not isinstance(spec.obs, Mapping):
        raise TypeError(f"{spec.id}: a host environment gives its observations by name")
    return dict(spec.obs)


class RolloutBuffers:
    """Arrays that one rollout is written into.

    They are new for every rollout: JAX on CPU reads NumPy arrays in place, so those of the rollout that the learner
    still works on must not be written again.

    Args:
        endings: whether the rollout keeps how episodes looked at their end.
    """

    def __init__(
        self,
        spec: EnvSpec,
        num_steps: int,
        num_envs: int,
        *,
        value_shape: tuple[int, ...] = (),
        endings: bool = False,
    ) -> None:
        shape = (num_steps, num_envs)
        self.obs = {name: np.empty(shape + obs.shape, obs.dtype) for name, obs in named_obs(spec).items()}
        self.fields: dict[str, Any] = {name: np.zeros(shape, dtype) for name, dtype in _FIELDS.items()}
        self.fields |= {name: np.zeros(shape + value_shape, np.float32) for name in ("value", "bootstrap_value")}
        self.stats = np.zeros((num_envs, len(spec.episode_stats)), np.float32)
        self.stat_names = spec.episode_stats
        self.last_value = np.zeros((num_envs, *value_shape), np.float32)
        self.captions = [[b""] * num_envs for _ in range(num_steps)]
        self.ending_step = np.full(num_envs, -1, np.int32)
        self.ending_obs: dict[str, np.ndarray] | None = None
        if endings:
            self.ending_obs = {
                name: np.zeros((num_envs, *obs.shape), obs.dtype) for name, obs in named_obs(spec).items()
            }

    def rollout(self, initial_core_state: CoreState, last_obs: Mapping[str, np.ndarray], devices: Devices) -> Rollout:
        """Returns what was written, laid out over the devices.

        Args:
            last_obs: what was observed after the last step.
        """
        endings = () if self.ending_obs is None else Endings(step=self.ending_step, obs=self.ending_obs)  # pyright: ignore[reportArgumentType]
        return devices.place(
            Rollout(
                obs=self.obs,
                **self.fields,
                stats=self.stats,  # pyright: ignore[reportArgumentType]
                initial_core_state=initial_core_state,
                last_value=self.last_value,  # pyright: ignore[reportArgumentType]
                last_obs=last_obs,
                endings=endings,
            ),
            ROLLOUT,
        )

    def write_endings(
        self, t: int, rows: slice, ended: Bool[np.ndarray, " R"], last_obs: Mapping[str, np.ndarray]
    ) -> None:
        """Keeps what was observed at the end of the episodes that step t ended, if that is kept."""
        if self.ending_obs is not None:
            games = rows.start + np.flatnonzero(ended)
            self.ending_step[games] = t
            for name, leaf in self.ending_obs.items():
                leaf[games] = last_obs[name][ended]


class Choice(NamedTuple):
    """What the policy chose for one group, on the device."""

    core_state: CoreState
    action: Array
    log_prob: Array
    value: Array


class GroupState:
    """One group of games in the middle of a rollout. Arrays are those of its rows."""

    def __init__(self, env: HostVectorEnv, rows: slice, state: ActorState) -> None:
        self.env = env
        self.rows = rows
        self.obs = {name: np.asarray(leaf)[rows] for name, leaf in state.obs.items()}
        self.core_state: CoreState = jax.tree.map(lambda leaf: leaf[rows], state.core_state)
        self.reset = np.asarray(state.reset)[rows]
        self.episode_return = np.array(state.episode_return)[rows]
        self.episode_length = np.array(state.episode_length)[rows]

    def write_step(self, buffers: RolloutBuffers, t: int, step: HostTimeStep, bootstrap_value: Any) -> None:
        """Writes what action t led to, and goes on to the next observation."""
        fields, rows = buffers.fields, self.rows
        ended = step.terminated | step.truncated
        self.episode_return += step.reward
        self.episode_length += 1
        fields["reward"][t, rows] = step.reward
        fields["terminated"][t, rows] = step.terminated
        fields["truncated"][t, rows] = step.truncated
        fields["bootstrap_value"][t, rows] = bootstrap_value
        fields["episode_return"][t, rows] = self.episode_return
        fields["episode_length"][t, rows] = self.episode_length
        if ended.any():
            fields["lost"][t, rows] = step.info["lost"]
            fields["success"][t, rows] = step.info["success"] & ended
            counts = ended & ~step.info["lost"]
            for i, name in enumerate(buffers.stat_names):
                buffers.stats[rows, i] += np.where(counts, step.info[name], 0.0)
            buffers.write_endings(t, rows, counts, step.final_obs)
        buffers.captions[t][rows] = step.caption
        self.episode_return[ended] = 0.0
        self.episode_length[ended] = 0
        self.obs, self.reset = step.obs, ended

    def write_obs(self, buffers: RolloutBuffers, t: int) -> None:
        """Writes what the policy sees at t; the next `send` may overwrite it."""
        for name, leaf in self.obs.items():
            buffers.obs[name][t, self.rows] = leaf
        buffers.fields["reset"][t, self.rows] = self.reset

    def write_action(self, buffers: RolloutBuffers, t: int, choice: Choice, action: np.ndarray) -> None:
        """Writes what the policy did at t."""
        fields, rows = buffers.fields, self.rows
        fields["action"][t, rows] = action
        fields["log_prob"][t, rows] = choice.log_prob
        fields["value"][t, rows] = choice.value
        self.core_state = choice.core_state


def stack_obs(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Joins the observations of all groups."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def actor_state(groups: Sequence[GroupState]) -> ActorState:
    """Joins where the groups stand, after the last step of a rollout."""

    def rows(name: str) -> Any:
        return np.concatenate([getattr(group, name) for group in groups])

    return ActorState(
        env_state=(),
        obs=stack_obs([group.obs for group in groups]),
        core_state=jax.tree.map(lambda *leaf: jnp.concatenate(leaf), *[group.core_state for group in groups]),
        reset=rows("reset"),
        episode_return=rows("episode_return"),
        episode_length=rows("episode_length"),
    )
