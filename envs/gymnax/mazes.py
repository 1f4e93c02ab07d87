"""What the mazes and the small memory and credit tasks (bsuite, arXiv 1908.03568) say, and Pong."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from envs.gymnax.drawing import lake, maze, planes
from envs.gymnax.sentences import Game, Happened, Step, rewarded, terminated

COMPASS = ("up", "right", "down", "left")


_ROOM_NAMES = ("north-west", "north-east", "south-west", "south-east")
_DOORWAY = 0


def _rooms() -> Int[np.ndarray, "13 13"]:
    """Number of the room of each cell, from 1; doorways and walls are 0. The rooms to the east meet a row lower."""
    rooms = np.zeros((13, 13), np.int32)
    rooms[1:6, 1:6], rooms[1:7, 7:12], rooms[7:12, 1:6], rooms[8:12, 7:12] = 1, 2, 3, 4
    return rooms


_ROOM_OF = _rooms()


def _room(position: Array) -> Array:
    return jnp.asarray(_ROOM_OF)[position[0], position[1]]


def _stood(step: Step) -> Array:
    return (step.before.pos == step.after.pos).all()


def _enters(number: int) -> Happened:
    return lambda s: (_room(s.after.pos) == number) & (_room(s.before.pos) != number)


FOUR_ROOMS = Game(
    {
        "You bump into a wall.": _stood,
        "You step into a doorway.": lambda s: (_room(s.after.pos) == _DOORWAY) & ~_stood(s),
        **{f"You enter the {name} room.": _enters(number) for number, name in enumerate(_ROOM_NAMES, start=1)},
        "You reach the goal.": terminated,
    },
    won=terminated,
    actions=COMPASS,
    draw=maze,
)


def _ahead(step: Step) -> Array:
    return step.before.pos + step.env.directions[step.action]


def _free(step: Step) -> Array:
    cell = _ahead(step)
    return step.env.env_map[cell[0], cell[1]]


def _found(step: Step) -> Array:
    """The goal was reached; the library moves the agent elsewhere in the same step."""
    return (jnp.where(_free(step), _ahead(step), step.before.pos) == step.before.goal).all()


META_MAZE = Game(
    {
        "You bump into a wall.": lambda s: ~_free(s),
        "You reach the goal.": _found,
    },
    actions=COMPASS,
    draw=maze,
)


def _on(tile: str) -> Happened:
    def check(step: Step) -> Array:
        from gymnax.environments.misc import frozen_lake

        return step.env.desc.reshape(-1)[step.after.position] == getattr(frozen_lake, tile)

    return check


FROZEN_LAKE = Game(
    {"You fall into a hole.": _on("HOLE"), "You reach the goal.": _on("GOAL")},
    won=_on("GOAL"),
    actions=("left", "down", "right", "up"),
    draw=lake,
)


def _distance(state: Any) -> Array:
    return jnp.abs(state.paddle_x - state.ball_x)


CATCH = Game(
    {
        "You move closer to the ball.": lambda s: _distance(s.after) < _distance(s.before),
        "You move away from the ball.": lambda s: _distance(s.after) > _distance(s.before),
        "You catch the ball.": lambda s: s.terminated & rewarded(s),
        "You miss the ball.": lambda s: s.terminated & ~rewarded(s),
    },
    won=rewarded,
    actions=("left", "stay", "right"),
    draw=planes,
)


def _treasure(step: Step) -> Array:
    return step.after.denoised_return > step.before.denoised_return


DEEP_SEA = Game(
    {
        "You swim to the right.": lambda s: s.after.column > s.before.column,
        "You swim to the left.": lambda s: s.after.column < s.before.column,
        "You find the treasure.": _treasure,
        "You reach the bottom without the treasure.": lambda s: s.terminated & ~_treasure(s),
    },
    won=_treasure,
    draw=planes,
)

MEMORY_CHAIN = Game(
    {
        "You recall what you were shown.": lambda s: s.terminated & rewarded(s),
        "You do not recall what you were shown.": lambda s: s.terminated & ~rewarded(s),
    },
    won=rewarded,
)


def _weather(*, rain: bool, umbrella: bool) -> Happened:
    return lambda s: s.terminated & (s.after.need_umbrella == rain) & (s.after.has_umbrella == umbrella)


UMBRELLA_CHAIN = Game(
    {
        "You take the umbrella.": lambda s: (s.before.time == 0) & (s.after.has_umbrella == 1),
        "You leave the umbrella at home.": lambda s: (s.before.time == 0) & (s.after.has_umbrella == 0),
        "It rains and you have your umbrella.": _weather(rain=True, umbrella=True),
        "It rains and you have no umbrella.": _weather(rain=True, umbrella=False),
        "The sun shines and you carry an umbrella.": _weather(rain=False, umbrella=True),
        "The sun shines and you carry no umbrella.": _weather(rain=False, umbrella=False),
    },
    won=lambda s: s.after.need_umbrella == s.after.has_umbrella,
    actions=("leave the umbrella", "take the umbrella"),
)


def _turned(step: Step, *, to_right: bool) -> Array:
    before, after = step.before.ball_velocity[1], step.after.ball_velocity[1]
    return (before < 0) & (after > 0) if to_right else (before > 0) & (after < 0)


def _missed(step: Step) -> Array:
    """The ball left on the agent's side, which is the left one."""
    return step.terminated & (step.after.ball_position[1] < 0)


PONG = Game(
    {
        "You return the ball.": lambda s: _turned(s, to_right=True),
        "The opponent returns the ball.": lambda s: _turned(s, to_right=False),
        "You miss the ball.": _missed,
        "The opponent misses the ball.": lambda s: s.terminated & ~_missed(s),
    },
    won=lambda s: s.terminated & ~_missed(s),
    actions=("nothing", "up", "down"),
    draw=planes,
)
