"""Tiny environments that each isolate one thing a learner must do, solved in seconds if it does.

The idea is from Andy Jones, "Debugging reinforcement learning systems" (2021); the set is ours. Each episode draws a
cue of +1 or -1 and lasts a fixed number of steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from envs.types import EnvSpec, JaxEnv, ObsSpec, TimeStep


class ProbeState(NamedTuple):
    """cue: +1 or -1. step: steps played in this episode."""

    cue: Float[Array, ""]
    step: Int[Array, ""]


Rule = Callable[[Array, Array, Array], Array]
"""From cue, step (before the action, from 0) and action to a number."""


@dataclass(frozen=True)
class Probe:
    """What one probe does.

    obs: from cue and step to the two observed numbers. reward: extrinsic reward of an action.
    success: whether the action on the last step was the right one.
    event: which of `captions` an action causes; 0 for none.
    truncates: the episode ends by time limit instead of by itself.
    """

    summary: str
    length: int = 1
    num_actions: int = 2
    obs: Callable[[Array, Array], tuple[Any, Any]] = lambda cue, step: (0.0, 0.0)
    reward: Rule = lambda cue, step, action: jnp.zeros(())
    success: Rule = lambda cue, step, action: jnp.ones((), bool)
    event: Rule = lambda cue, step, action: jnp.zeros((), jnp.uint8)
    captions: tuple[str, ...] = ("",)
    truncates: bool = False


def _matches(cue: Array, action: Array) -> Array:
    return (action == 1) == (cue > 0)


PROBES = {
    "value": Probe(
        "one action, reward 1: the value head", num_actions=1, reward=lambda cue, step, action: jnp.ones(())
    ),
    "obs-value": Probe(
        "reward is the number observed: the value depends on the observation",
        num_actions=1,
        obs=lambda cue, step: (cue, 0.0),
        reward=lambda cue, step, action: cue,
    ),
    "discount": Probe(
        "reward 1 after the second of two steps: discounting",
        length=2,
        num_actions=1,
        obs=lambda cue, step: (0.0, step),
        reward=lambda cue, step, action: (step == 1).astype(jnp.float32),
    ),
    "time-limit": Probe(
        "reward 1 a step, cut off after 5: bootstrapping through the time limit",
        length=5,
        num_actions=1,
        reward=lambda cue, step, action: jnp.ones(()),
        truncates=True,
    ),
    "policy": Probe(
        "action 1 is right: the policy",
        reward=lambda cue, step, action: 2.0 * action - 1.0,
        success=lambda cue, step, action: action == 1,
    ),
    "obs-policy": Probe(
        "the right action is the one that is shown: a policy that looks",
        obs=lambda cue, step: (cue, 0.0),
        reward=lambda cue, step, action: jnp.where(_matches(cue, action), 1.0, -1.0),
        success=lambda cue, step, action: _matches(cue, action),
    ),
    "memory": Probe(
        "the right action at the end was shown at the start only: memory",
        length=4,
        obs=lambda cue, step: (jnp.where(step == 0, cue, 0.0), step / 4.0),
        reward=lambda cue, step, action: jnp.where(step == 3, jnp.where(_matches(cue, action), 1.0, -1.0), 0.0),
        success=lambda cue, step, action: _matches(cue, action),
    ),
    "intrinsic": Probe(
        "no extrinsic reward at all; the shown action says 'You find a coin.', the other 'You hear the wind.'",
        length=2,
        obs=lambda cue, step: (cue, 0.0),
        success=lambda cue, step, action: _matches(cue, action),
        event=lambda cue, step, action: jnp.where(_matches(cue, action), 1, 2).astype(jnp.uint8),
        captions=("", "You find a coin.", "You hear the wind."),
    ),
    "last-caption": Probe(
        "no extrinsic reward; only the action on the last of three steps says something",
        length=3,
        obs=lambda cue, step: (cue, step / 3.0),
        success=lambda cue, step, action: _matches(cue, action),
        event=lambda cue, step, action: jnp.where(step == 2, jnp.where(_matches(cue, action), 1, 2), 0).astype(
            jnp.uint8
        ),
        captions=("", "You reach the exit.", "You fall asleep."),
    ),
}


class ProbeEnv:
    """A probe as `JaxEnv`: two numbers observed, a caption where the probe has one."""

    def __init__(self, name: str) -> None:
        self._probe = PROBES[name]
        self.spec = EnvSpec(
            id=f"probe:{name}",
            obs=ObsSpec((2,), np.dtype(np.float32)),
            action_names=tuple(f"action {i}" for i in range(self._probe.num_actions)),
            max_episode_steps=self._probe.length,
            event_size=1 if len(self._probe.captions) > 1 else 0,
            reward=self._probe.summary.partition(":")[0].partition(";")[0],
        )

    def _observe(self, state: ProbeState) -> Float[Array, "2"]:
        return jnp.stack([jnp.asarray(x, jnp.float32) for x in self._probe.obs(state.cue, state.step)])

    def reset(self, key: PRNGKeyArray) -> tuple[ProbeState, TimeStep]:
        """Draws a cue."""
        cue = jnp.where(jax.random.bernoulli(key), jnp.float32(1), jnp.float32(-1))
        state = ProbeState(cue=cue, step=jnp.int32(0))
        return state, TimeStep(
            obs=self._observe(state),
            reward=jnp.float32(0),
            terminated=jnp.bool_(False),
            truncated=jnp.bool_(False),
            event=jnp.zeros(self.spec.event_size, jnp.uint8),
            info={"success": jnp.bool_(False)},
        )

    def step(self, key: PRNGKeyArray, state: ProbeState, action: Array) -> tuple[ProbeState, TimeStep]:
        """Plays one action."""
        del key
        probe, cue, step = self._probe, state.cue, state.step
        new_state = ProbeState(cue=cue, step=step + 1)
        ended = new_state.step >= probe.length
        event = probe.event(cue, step, action).astype(jnp.uint8)
        return new_state, TimeStep(
            obs=self._observe(new_state),
            reward=jnp.asarray(probe.reward(cue, step, action), jnp.float32),
            terminated=ended & (not probe.truncates),
            truncated=ended & probe.truncates,
            event=event[None][: self.spec.event_size],
            info={"success": ended & jnp.asarray(probe.success(cue, step, action))},
        )

    def describe(self, event: np.ndarray) -> str:
        """Returns the caption of an event."""
        return self._probe.captions[int(event[0])]


def names() -> list[str]:
    """Lists the probes: the part of the id after `probe:`."""
    return list(PROBES)


def make(name: str) -> JaxEnv[ProbeState]:
    """Creates a probe."""
    return ProbeEnv(name)
