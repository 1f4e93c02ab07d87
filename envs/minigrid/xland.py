"""The tasks of XLand-MiniGrid: rooms in which things become other things by rules that the agent must find out."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray, UInt8
from xminigrid.core.actions import take_action
from xminigrid.core.goals import MAX_GOAL_ENCODING_LEN, check_goal
from xminigrid.environment import Environment, EnvParams
from xminigrid.types import RuleSet, State

from envs.minigrid import captions, words
from envs.minigrid.adapter import MiniGrid
from envs.minigrid.rules import apply_rules, pack_rules

_RULE = 4
"""Bytes of a rule in an event: kind and three packed tiles."""

EVENT_SIZE = captions.EVENT_SIZE + 2 * _RULE + MAX_GOAL_ENCODING_LEN
"""What the action did, the first and the last rule that it made fire, and the goal that it reached."""


def _fired_rules(packed_rules: Int[Array, "R 4"], fired: Bool[Array, " R"]) -> UInt8[Array, "8"]:
    """Returns the first and the last rule that fired, zeros where there is none or no second."""
    first, last = jnp.argmax(fired), fired.shape[0] - 1 - jnp.argmax(fired[::-1])
    pair = packed_rules[jnp.stack([first, last])] * jnp.stack([fired.any(), fired.any() & (first != last)])[:, None]
    return pair.reshape(-1).astype(jnp.uint8)


class XLand(MiniGrid):
    """One layout of rooms with one rule set, or with one drawn anew from several in each episode.

    obs, action, reward, end: as in `MiniGrid`; goal and rules are not observed.
    captions: as in `MiniGrid`, then what the rules did ("The red ball and the blue key become a green square."), then
    the goal ("You reach the goal: you hold the green square.").
    """

    def __init__(self, env_id: str, env: Environment[Any, Any], params: EnvParams, rulesets: RuleSet) -> None:
        super().__init__(env_id, env, params)
        self._rulesets = rulesets
        self.spec = self.spec._replace(event_size=EVENT_SIZE)

    def ruleset(self, number: int = 0) -> tuple[str, tuple[str, ...]]:
        """Returns goal and rules of the given one of this task's rule sets in plain words."""
        goal = words.goal(np.asarray(self._rulesets.goal[number]))
        sentences = (words.rule(encoding) for encoding in np.asarray(self._rulesets.rules[number]))
        return f"Make it so that {goal}.", tuple(sentence for sentence in sentences if sentence)

    def _new_state(self, key: PRNGKeyArray) -> State[Any]:
        world_key, ruleset_key = jax.random.split(key)
        number = jax.random.randint(ruleset_key, (), 0, len(self._rulesets.goal))
        ruleset = jax.tree.map(lambda leaf: leaf[number], self._rulesets)
        return self._env.reset(self._params.replace(ruleset=ruleset), world_key).state  # pyright: ignore[reportAttributeAccessIssue]

    def _play(self, state: State[Any], action: Array) -> tuple[State[Any], Array, Array, Array]:
        grid, agent, changed = take_action(state.grid, state.agent, action)
        acted = state.replace(grid=grid, agent=agent, step_num=state.step_num + 1)
        packed_rules = pack_rules(state.rule_encoding)
        grid, agent, fired = apply_rules(packed_rules, grid, agent, action)
        new_state = acted.replace(grid=grid, agent=agent)
        terminated = check_goal(state.goal_encoding, grid, agent, action, changed)
        parts = (
            captions.event(state, acted, self._front(state), jnp.bool_(False)),
            _fired_rules(packed_rules, fired),
            jnp.where(terminated, state.goal_encoding, jnp.uint8(0)),
        )
        return new_state, terminated, self._reward(new_state, terminated), jnp.concatenate(parts)

    def describe(self, event: np.ndarray) -> str:
        """Returns the caption of an event."""
        action, first, last, goal = np.split(event, np.cumsum([captions.EVENT_SIZE, _RULE, _RULE]))
        sentences = [captions.describe(action), words.fired(first), words.fired(last)]
        if goal.any():
            sentences.append(f"You reach the goal: {words.goal(goal)}.")
        return " ".join(sentence for sentence in sentences if sentence)
