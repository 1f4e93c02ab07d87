"""What the five MinAtar games (Young & Tian, arXiv 1903.03176) say.

Everything is told from the states before and after a step and the reward, as gymnax 1.0.1 defines them.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from envs.gymnax.drawing import planes
from envs.gymnax.sentences import Game, Step, rewarded, terminated

ACTIONS = ("nothing", "left", "up", "right", "down", "fire")
_UP, _DOWN = ACTIONS.index("up"), ACTIONS.index("down")


def _bricks(state: Any) -> Array:
    return state.brick_map.sum()


def _bounced(step: Step) -> Array:
    """The ball turned upward without a brick: only the paddle does that. Directions 2 and 3 lead down."""
    return (step.before.ball_dir >= 2) & (step.after.ball_dir < 2) & (step.reward == 0)


BREAKOUT = Game(
    {
        "You hit the ball with the paddle.": _bounced,
        "You break a brick.": rewarded,
        "The wall is gone.": lambda s: rewarded(s) & (_bricks(s.after) == 0),
        "A new wall appears.": lambda s: _bricks(s.after) > _bricks(s.before),
        "You lose the ball.": terminated,
    },
    actions=ACTIONS,
    draw=planes,
)


_START_ROW = 9


def _moved_to(step: Step) -> Array:
    """Row that the player's own move leads to, before any car."""
    move = step.env.action_set[step.action]
    ready = step.before.move_timer == 0
    change = jnp.where(move == _UP, -1, jnp.where(move == _DOWN, 1, 0))
    return jnp.clip(step.before.pos + jnp.where(ready, change, 0), 0, _START_ROW)


def _run_over(step: Step) -> Array:
    return ~rewarded(step) & (_moved_to(step) < _START_ROW) & (step.after.pos == _START_ROW)


def _stepped(step: Step) -> Array:
    """Rows moved and kept."""
    return jnp.where(rewarded(step) | _run_over(step), 0, _moved_to(step) - step.before.pos)


FREEWAY = Game(
    {
        "You get closer to the other side.": lambda s: _stepped(s) < 0,
        "You step back.": lambda s: _stepped(s) > 0,
        "You cross the road.": rewarded,
        "A car hits you and you start over.": _run_over,
    },
    actions=ACTIONS,
    draw=planes,
)


ASTERIX = Game(
    {
        "You collect gold.": rewarded,
        "The game gets faster.": lambda s: s.after.ramp_index > s.before.ramp_index,
        "An enemy catches you.": terminated,
    },
    actions=ACTIONS,
    draw=planes,
)


def _bullet_hits(step: Step) -> Array:
    """A bullet came down onto the cannon; aliens end the game otherwise."""
    return step.terminated & (step.before.e_bullet_map[8, step.after.pos] > 0)


SPACE_INVADERS = Game(
    {
        "You shoot an alien.": rewarded,
        "You clear the wave of aliens.": lambda s: rewarded(s) & (s.before.alien_map.sum() == s.reward),
        "The aliens come a row closer.": lambda s: s.before.alien_dir != s.after.alien_dir,
        "A bullet hits you.": _bullet_hits,
        "The aliens overrun you.": lambda s: s.terminated & ~_bullet_hits(s),
    },
    actions=ACTIONS,
    draw=planes,
)


_CREW = 6
"""Divers that must be on board for a reward at the surface."""

_LOW_OXYGEN = 0.2
"""Share of the tank at which there is a warning; ours."""


def _surfaced(step: Step) -> Array:
    return step.after.surface & ~step.before.surface


def _crew_saved(step: Step) -> Array:
    return _surfaced(step) & (step.before.diver_count == _CREW)


def _shots(step: Step) -> Array:
    """Enemies shot: the reward without what the surface pays for a full crew."""
    paid = jnp.where(_crew_saved(step), step.before.oxygen * 10 // step.params.max_oxygen, 0)
    return step.reward - paid


def _no_diver(step: Step) -> Array:
    return _surfaced(step) & (step.before.diver_count == 0)


def _suffocated(step: Step) -> Array:
    return step.terminated & (step.before.oxygen <= 0)


def _low(step: Step) -> Array:
    line = step.params.max_oxygen * _LOW_OXYGEN
    return (step.before.oxygen > line) & (step.after.oxygen <= line)


SEAQUEST = Game(
    {
        "You shoot an enemy.": lambda s: _shots(s) > 0,
        "You pick up a diver.": lambda s: s.after.diver_count > s.before.diver_count,
        "You surface for air with divers on board.": lambda s: (
            _surfaced(s) & (s.before.diver_count != 0) & ~_crew_saved(s)
        ),
        "You bring six divers to the surface.": _crew_saved,
        "Your oxygen runs low.": _low,
        "You run out of oxygen.": _suffocated,
        "You surface without a diver and lose.": _no_diver,
        "An enemy destroys your submarine.": lambda s: s.terminated & ~_suffocated(s) & ~_no_diver(s),
    },
    actions=ACTIONS,
    draw=planes,
)
