"""The MiniGrid adapter plays exactly the library's game, and says what happened."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xminigrid
from xminigrid.core.constants import TILES_REGISTRY, Colors, Tiles

import envs
from envs.minigrid import adapter, captions
from envs.vector import VectorEnv

FORWARD, RIGHT, LEFT, PICK, PUT, TOGGLE = range(6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MiniGrid-BlockedUnlockPickUp", "MiniGrid-LockedRoom", "MiniGrid-MemoryS8"])
def test_steps_equal_those_of_the_library(name):
    ours = adapter.make(name)
    theirs, params = xminigrid.make(name)

    def body(carry, key):
        state, timestep = carry
        action = jax.random.randint(key, (), 0, 6)
        timestep = theirs.step(params, timestep, action)
        new_state, ours_step = ours.step(key, state, action)
        ended = timestep.last()
        same = (
            (timestep.observation == ours_step.obs).all()
            & (timestep.state.grid == new_state.grid).all()
            & (timestep.state.agent.pocket == new_state.agent.pocket).all()
            & (timestep.reward == ours_step.reward)
            & (ended == (ours_step.terminated | ours_step.truncated))
        )
        fresh_key = jax.random.fold_in(key, 1)
        carry = jax.tree.map(
            lambda new, old: jnp.where(ended, new, old),
            (ours.reset(fresh_key)[0], theirs.reset(params, fresh_key)),
            (new_state, timestep),
        )
        return carry, (same, ended)

    @jax.jit
    @jax.vmap
    def play(key):
        carry = (ours.reset(key)[0], theirs.reset(params, key))
        return jax.lax.scan(body, carry, jax.random.split(key, 700))[1]

    same, ended = play(jax.random.split(jax.random.key(0), 64))
    assert same.all()
    assert ended.sum() >= 64  # so the comparison covers last steps


def world(env, front, *, pocket=(Tiles.EMPTY, Colors.EMPTY), goal=None):
    """A world in which the agent looks at a cell that holds `front`."""
    state, _ = env.reset(jax.random.key(0))
    grid = jnp.broadcast_to(TILES_REGISTRY[Tiles.FLOOR, Colors.BLACK], state.grid.shape).at[1, 2].set(jnp.uint8(front))
    agent = state.agent.replace(position=jnp.array([2, 2]), direction=jnp.array(0), pocket=jnp.uint8(pocket))
    state = state.replace(grid=grid, agent=agent)
    return state if goal is None else state.replace(goal_encoding=jnp.uint8(goal))


HELD_KEY = (Tiles.KEY, Colors.RED)
HOLD_A_BLUE_STAR = (1, Tiles.STAR, Colors.BLUE, 0, 0)
STAND_ON_GOAL = (2, Tiles.GOAL, Colors.GREEN, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("front", "pocket", "goal", "action", "caption"),
    [
        ((Tiles.BALL, Colors.GREEN), (0, 0), None, PICK, "You pick up the green ball."),
        ((Tiles.BALL, Colors.GREEN), HELD_KEY, None, PICK, ""),
        ((Tiles.FLOOR, Colors.BLACK), HELD_KEY, None, PUT, "You put down the red key."),
        ((Tiles.DOOR_LOCKED, Colors.RED), HELD_KEY, None, TOGGLE, "You unlock the red door."),
        ((Tiles.DOOR_LOCKED, Colors.BLUE), HELD_KEY, None, TOGGLE, ""),
        ((Tiles.DOOR_CLOSED, Colors.GREY), (0, 0), None, TOGGLE, "You open the grey door."),
        ((Tiles.DOOR_OPEN, Colors.GREY), (0, 0), None, TOGGLE, "You close the grey door."),
        ((Tiles.FLOOR, Colors.BLACK), (0, 0), None, FORWARD, ""),
        ((Tiles.FLOOR, Colors.BLACK), (0, 0), None, LEFT, ""),
        (
            (Tiles.STAR, Colors.BLUE),
            (0, 0),
            HOLD_A_BLUE_STAR,
            PICK,
            "You pick up the blue star, which is what you were looking for.",
        ),
        ((Tiles.GOAL, Colors.GREEN), (0, 0), STAND_ON_GOAL, FORWARD, "You reach the goal."),
    ],
)
def test_captions_say_what_the_action_did(front, pocket, goal, action, caption):
    env = adapter.make("MiniGrid-BlockedUnlockPickUp")
    _, timestep = env.step(jax.random.key(0), world(env, front, pocket=pocket, goal=goal), jnp.int32(action))
    assert env.describe(np.asarray(timestep.event)) == caption
    assert bool(timestep.terminated) == (goal is not None)


@pytest.mark.slow
def test_the_last_step_keeps_its_caption_through_auto_reset():
    env = adapter.make("MiniGrid-BlockedUnlockPickUp")
    vector = VectorEnv(env, 2)
    last = world(env, (Tiles.STAR, Colors.BLUE), goal=HOLD_A_BLUE_STAR)
    state = jax.tree.map(lambda a, b: jnp.stack([a, b]), last, env.reset(jax.random.key(3))[0])
    before = vector.env.step(jax.random.key(0), last, jnp.int32(PICK))[1].obs
    state, timestep = vector.step(jax.random.key(1), state, jnp.array([PICK, LEFT]))
    assert timestep.terminated.tolist() == [True, False]
    assert env.describe(np.asarray(timestep.event[0])).endswith("which is what you were looking for.")
    assert (timestep.final_obs[0] == before).all()
    assert not (timestep.obs[0] == timestep.final_obs[0]).all()
    assert (timestep.obs[1] == timestep.final_obs[1]).all()
    assert state.step_num.tolist() == [0, 1]


@pytest.mark.slow
def test_a_wall_talks_only_in_the_talkative_world():
    env = adapter.make("MiniGrid-BlockedUnlockPickUp", talkative=True)
    step = jax.jit(env.step)
    wall = world(env, (Tiles.WALL, Colors.GREY))
    lines = set()
    for seed in range(40):
        _, timestep = step(jax.random.key(seed), wall, jnp.int32(TOGGLE))
        lines.add(env.describe(np.asarray(timestep.event)))
    assert len(lines) > 20
    assert lines <= set(env.lines)
    _, timestep = step(jax.random.key(0), wall, jnp.int32(FORWARD))
    assert not timestep.event.any()
    ball = world(env, (Tiles.BALL, Colors.RED))
    _, timestep = step(jax.random.key(0), ball, jnp.int32(PICK))
    assert env.describe(np.asarray(timestep.event)) == "You pick up the red ball."


def test_chatter_is_64_lines_of_their_own():
    lines = envs.make("xminigrid:MiniGrid-Empty-5x5", talkative=True).lines
    assert len(set(lines)) == 64


def test_every_kind_has_a_sentence():
    for kind in captions.Kind:
        assert bool(captions.describe(np.array([kind, Tiles.KEY, Colors.RED], np.uint8))) == (kind != 0)


@pytest.mark.parametrize(
    "options",
    [
        {"view_size": 4},
        {"view_size": "big"},
        {"max_steps": 0},
        {"max_steps": 5.5},
        {"talkative": "false"},
        {"talk": True},
    ],
)
def test_bad_options_are_said(options):
    with pytest.raises(envs.EnvError, match=next(iter(options))):
        envs.make("xminigrid:MiniGrid-Empty-5x5", **options)


def test_step_limit_truncates():
    env = adapter.make("MiniGrid-Empty-5x5", max_steps=1)
    state, _ = env.reset(jax.random.key(0))
    _, timestep = env.step(jax.random.key(0), state, jnp.int32(LEFT))
    assert bool(timestep.truncated)
    assert not bool(timestep.terminated)


def test_picture_of_a_state():
    env = adapter.make("MiniGrid-Empty-5x5")
    picture = env.render(env.reset(jax.random.key(0))[0])
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
