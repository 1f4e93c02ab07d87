"""gymnax plays the library's own games, keeps the contract and says what happened."""

import functools
import gzip
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.gymnax.games import GAMES
from envs.testing import check_env
from envs.types import Renders
from envs.vector import VectorEnv

gymnax = pytest.importorskip("gymnax", reason="the extra gymnax is not installed")

ONE_OF_A_KIND = ("Breakout-MinAtar", "MountainCar-v0", "Reacher-misc", "DeepSea-bsuite", "FrozenLake-misc")


@pytest.mark.slow
def test_every_registered_environment_is_listed():
    assert list(GAMES) == gymnax.registered_envs
    assert {f"gymnax:{name}" for name in GAMES} <= set(envs.list_envs())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in GAMES if name != "MNISTBandit-bsuite"])
def test_every_environment_keeps_shapes_and_types(name):
    """What a rollout is compiled for; `check_env` plays it, which takes longer."""
    env = envs.make(f"gymnax:{name}")
    key = jax.random.key(0)
    state, first = jax.eval_shape(env.reset, key)
    after, timestep = jax.eval_shape(env.step, key, state, jax.ShapeDtypeStruct((), jnp.int32))
    leaves = [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves((state, first))]
    assert leaves == [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves((after, timestep))]
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, first)))
    assert (first.obs.shape, first.obs.dtype) == (env.spec.obs.shape, env.spec.obs.dtype)
    assert first.event.shape == (len(GAMES[name].sentences),)
    assert len(set(env.spec.action_names)) == env.spec.num_actions
    assert isinstance(env, Renders) == (GAMES[name].draw is not None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_contract(name):
    check_env(envs.make(f"gymnax:{name}"), num_envs=4, num_steps=220)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Breakout-MinAtar", "UmbrellaChain-bsuite"])
def test_steps_equal_those_of_the_library(name):
    """Up to the last step of an episode and with it, where the library has gone on to the next."""
    ours = envs.make(f"gymnax:{name}")
    theirs, params = gymnax.make(name)

    def body(carry, key):
        our_state, their_state = carry
        action = jax.random.randint(jax.random.fold_in(key, 1), (), 0, ours.spec.num_actions)
        _, new_state, reward, terminated, truncated, info = theirs.step(key, their_state, action, params)
        our_state, timestep = ours.step(jax.random.split(key)[0], our_state, action)
        same = (
            (info["final_observation"] == timestep.obs).all()
            & (reward == timestep.reward)
            & (terminated == timestep.terminated)
            & ((truncated & ~terminated) == timestep.truncated)
        )
        ended = timestep.terminated | timestep.truncated
        fresh = jax.tree.map(lambda leaf, like: jnp.asarray(leaf, like.dtype), new_state, our_state)
        return (jax.tree.map(lambda a, b: jnp.where(ended, a, b), fresh, our_state), new_state), (same, ended)

    @jax.jit
    @jax.vmap
    def play(key):
        our_state, _ = ours.reset(key)
        their_state = jax.tree.map(
            lambda leaf, like: jnp.asarray(leaf, like.dtype), theirs.reset(key, params)[1], our_state
        )

        def cast(carry, key):
            (ours_, theirs_), out = body(carry, key)
            return (ours_, jax.tree.map(lambda leaf, like: jnp.asarray(leaf, like.dtype), theirs_, ours_)), out

        return jax.lax.scan(cast, (our_state, their_state), jax.random.split(key, 210))[1]

    same, ended = play(jax.random.split(jax.random.key(0), 16))
    assert same.all()
    assert ended.sum() >= 16


@functools.cache
def compiled(name, **options):
    env = envs.make(f"gymnax:{name}", **options)
    return env, jax.jit(env.reset), jax.jit(env.step)


class Player:
    """One game played by hand; `at` puts it into a state."""

    def __init__(self, name, **options):
        self.env, reset, self.step = compiled(name, **options)
        self.state, _ = reset(jax.random.key(0))

    def at(self, **fields):
        like = {key: getattr(self.state, key) for key in fields}
        self.state = self.state.replace(**{key: jnp.asarray(value, like[key].dtype) for key, value in fields.items()})
        return self

    def play(self, action):
        number = self.env.spec.action_names.index(action)
        self.state, self.last = self.step(jax.random.key(1), self.state, jnp.int32(number))
        return self.env.describe(np.asarray(self.last.event))


def one_brick(row, column):
    return np.zeros((10, 10)) + (np.indices((10, 10)) == np.array([row, column])[:, None, None]).all(0)


@pytest.mark.slow
def test_breakout():
    game = Player("Breakout-MinAtar")
    game.at(ball_y=4, ball_x=5, ball_dir=1, last_y=5, last_x=4, brick_map=one_brick(3, 6) + one_brick(1, 1))
    assert game.play("nothing") == "You break a brick."
    assert game.last.reward == 1
    game.at(ball_y=4, ball_x=5, ball_dir=1, last_y=5, last_x=4, strike=False, brick_map=one_brick(3, 6))
    assert game.play("nothing") == "You break a brick. The wall is gone."
    game.at(ball_y=8, ball_x=4, ball_dir=2, pos=5, strike=False)
    assert game.play("nothing") == "You hit the ball with the paddle. A new wall appears."
    game.at(ball_y=8, ball_x=4, ball_dir=2, pos=0)
    assert game.play("nothing") == "You lose the ball."
    assert game.last.terminated
    assert not game.last.info["success"]


@pytest.mark.slow
def test_freeway():
    far = [[9, lane, 3, 5] for lane in range(1, 9)]  # cars far from the player's column, which is 4
    game = Player("Freeway-MinAtar").at(pos=5, move_timer=0, cars=far)
    assert game.play("up") == "You get closer to the other side."
    assert game.play("up") == ""  # the player moves every third frame
    assert game.at(move_timer=0).play("down") == "You step back."
    assert game.at(pos=1, move_timer=0).play("up") == "You cross the road."
    assert game.last.reward == 1
    near = [[4, lane, 3, 5] for lane in range(1, 9)]
    assert game.at(pos=5, move_timer=0, cars=near).play("nothing") == "A car hits you and you start over."
    assert game.state.pos == 9
    assert game.at(time=2499, cars=far).play("nothing") == ""
    assert game.last.truncated


@pytest.mark.slow
def test_asterix():
    gold, enemy = [5, 4, 1, 1, 1], [5, 4, 1, 0, 1]
    empty = [[0] * 5] * 7
    game = Player("Asterix-MinAtar").at(entities=[gold, *empty])
    assert game.play("up") == "You collect gold."
    assert game.at(ramp_timer=-1).play("nothing") == "The game gets faster."
    assert game.at(entities=[enemy, *empty]).play("nothing") == "An enemy catches you."
    assert game.last.terminated


@pytest.mark.slow
def test_space_invaders():
    game = Player("SpaceInvaders-MinAtar")
    game.at(alien_map=one_brick(3, 5) + one_brick(0, 0), f_bullet_map=one_brick(4, 5))
    assert game.play("nothing") == "You shoot an alien."
    game.at(alien_map=one_brick(3, 5), f_bullet_map=one_brick(4, 5))
    assert game.play("nothing") == "You shoot an alien. You clear the wave of aliens."
    game.at(alien_map=one_brick(3, 0), alien_dir=-1, alien_move_timer=0)
    assert game.play("nothing") == "The aliens come a row closer."
    game.at(alien_map=one_brick(8, 0), alien_dir=-1, alien_move_timer=0, pos=0)
    assert game.play("nothing") == "The aliens come a row closer. The aliens overrun you."
    game = Player("SpaceInvaders-MinAtar").at(e_bullet_map=one_brick(8, 5))
    assert game.play("nothing") == "A bullet hits you."
    assert game.last.terminated


def rows(*filled, width):
    table = np.zeros((100, width), np.int32)
    table[: len(filled)] = filled
    return table


@pytest.mark.slow
def test_seaquest():
    game = Player("Seaquest-MinAtar").at(sub_y=4, surface=False)
    game.at(divers=rows([5, 4, 1, 5], width=4), divers_count=1)
    assert game.play("nothing") == "You pick up a diver."
    game.at(f_bullets=rows([3, 4, 0], width=3), f_bullet_count=1, e_fish=rows([2, 4, 1, 5], width=4), e_fish_count=1)
    assert game.play("nothing") == "You shoot an enemy."
    assert game.at(oxygen=41).play("nothing") == "Your oxygen runs low."
    assert game.at(sub_y=1).play("up") == "You surface for air with divers on board."
    game.at(sub_y=1, surface=False, diver_count=6, oxygen=100)
    assert game.play("up") == "You bring six divers to the surface."
    assert game.last.reward == 5
    assert game.at(sub_y=1, surface=False, diver_count=0).play("up") == "You surface without a diver and lose."
    assert game.last.terminated
    game = Player("Seaquest-MinAtar").at(sub_y=4, surface=False, oxygen=0)
    assert game.play("nothing") == "You run out of oxygen."
    game = Player("Seaquest-MinAtar").at(sub_y=4, surface=False, e_fish=rows([5, 4, 1, 5], width=4), e_fish_count=1)
    assert game.play("nothing") == "An enemy destroys your submarine."
    assert game.last.terminated


@pytest.mark.slow
def test_four_rooms_through_a_door_to_the_goal():
    game = Player("FourRooms-misc", fail_prob=0.0)
    assert game.play("left") == "You bump into a wall."
    said = [game.play(action) for action in ("up", *["right"] * 6)]  # from (4, 1) to the doorway at (3, 6)
    assert said == [*[""] * 5, "You step into a doorway.", "You enter the north-east room."]
    assert game.at(pos=[8, 8]).play("right") == "You reach the goal."
    assert game.last.terminated
    assert game.last.info["success"]


@pytest.mark.slow
def test_meta_maze():
    game = Player("MetaMaze-misc").at(pos=[1, 1], goal=[1, 3])
    assert game.play("up") == "You bump into a wall."
    assert game.play("right") == ""
    assert game.play("right") == "You reach the goal."
    assert game.last.reward == 10


@pytest.mark.slow
def test_frozen_lake():
    game = Player("FrozenLake-misc", is_slippery=False)
    assert [game.play(action) for action in ("right", "down")] == ["", "You fall into a hole."]
    assert game.last.terminated
    assert not game.last.info["success"]
    assert game.at(position=14).play("right") == "You reach the goal."
    assert game.last.info["success"]


@pytest.mark.slow
def test_catch():
    game = Player("Catch-bsuite").at(ball_x=4, ball_y=7, paddle_x=2)
    assert game.play("right") == "You move closer to the ball."
    assert game.play("right") == "You move closer to the ball. You catch the ball."
    assert game.last.info["success"]
    game.at(ball_x=0, ball_y=8, paddle_x=2, prev_done=False)
    assert game.play("right") == "You move away from the ball. You miss the ball."
    assert game.last.terminated


@pytest.mark.slow
def test_deep_sea():
    game = Player("DeepSea-bsuite", size=3, randomize_actions=False)
    said = [game.play("action 1") for _ in range(3)]
    assert said == ["You swim to the right.", "You swim to the right.", "You find the treasure."]
    assert game.last.terminated
    assert game.last.info["success"]
    game = Player("DeepSea-bsuite", size=3, randomize_actions=False)
    said = [game.play(action) for action in ("action 1", "action 0", "action 0")]
    assert said == ["You swim to the right.", "You swim to the left.", "You reach the bottom without the treasure."]


@pytest.mark.slow
def test_umbrella_chain():
    game = Player("UmbrellaChain-bsuite", chain_length=2).at(need_umbrella=1)
    said = [game.play("take the umbrella"), game.play("leave the umbrella")]
    assert said == ["You take the umbrella.", "It rains and you have your umbrella."]
    assert game.last.info["success"]


@pytest.mark.slow
def test_memory_chain():
    game = Player("MemoryChain-bsuite", memory_length=1).at(context=[1])
    assert [game.play("action 0"), game.play("action 1")] == ["", "You recall what you were shown."]
    assert game.last.terminated


@pytest.mark.slow
def test_pong():
    game = Player("Pong-misc").at(ball_position=[15.0, 2.0], ball_velocity=[0, -1])
    assert game.play("nothing") == "You return the ball."
    game.at(ball_position=[15.0, 38.0], ball_velocity=[0, 1], paddle_centers=[15.0, 15.0])
    assert game.play("nothing") == "The opponent returns the ball."
    game.at(ball_position=[3.0, 0.0], ball_velocity=[0, -1], paddle_centers=[25.0, 15.0])
    assert game.play("nothing") == "You miss the ball."
    assert game.last.terminated


@pytest.mark.slow
def test_the_last_step_keeps_its_caption_through_auto_reset():
    env = envs.make("gymnax:FrozenLake-misc", is_slippery=False)
    vector = VectorEnv(env, 2)
    state, _ = vector.reset(jax.random.key(0))
    state = state.replace(position=jnp.array([14, 0]))
    state, timestep = vector.step(jax.random.key(1), state, jnp.array([2, 2]))
    assert timestep.terminated.tolist() == [True, False]
    assert env.describe(np.asarray(timestep.event[0])) == "You reach the goal."
    assert timestep.final_obs[:, 0].tolist() == [15, 1]
    assert timestep.obs[:, 0].tolist() == [0, 1]
    assert state.time.tolist() == [0, 1]


@pytest.mark.slow
def test_continuous_actions_become_a_choice():
    env = envs.make("gymnax:Pendulum-v1", levels=3)
    assert env.spec.action_names == ("-2", "0", "2")
    state, _ = env.reset(jax.random.key(0))
    theirs, params = gymnax.make("Pendulum-v1")
    for number, torque in enumerate((-2.0, 0.0, 2.0)):
        _, timestep = env.step(jax.random.key(1), state, jnp.int32(number))
        obs = theirs.step_env(jax.random.key(1), state, jnp.array([torque]), params)[0]
        np.testing.assert_allclose(timestep.obs, obs, rtol=1e-6)
    assert envs.make("gymnax:Reacher-misc").spec.num_actions == 25


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("CartPole-v1", {"levels": 3}, "discrete already"),
        ("Reacher-misc", {"levels": 40}, "1600 actions"),
        ("Pendulum-v1", {"levels": 1}, "at least 2"),
        ("DeepSea-bsuite", {"sise": 9}, "did you mean 'size'"),
        ("DeepSea-bsuite", {"size": "big"}, "expected int"),
        ("FrozenLake-misc", {"map_name": "9x9"}, "cannot be used"),
        ("CartPole-v1", {"max_steps": 0}, "max_steps"),
    ],
)
def test_bad_options_are_said(name, options, message):
    with pytest.raises(envs.EnvError, match=message):
        envs.make(f"gymnax:{name}", **options)


def test_step_limit_truncates():
    game = Player("CartPole-v1", max_steps=1)
    assert game.play("push left") == ""
    assert game.last.truncated
    assert game.last.info["success"]  # it stood to the end


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, game in GAMES.items() if game.draw is not None])
def test_pictures(name):
    env = envs.make(f"gymnax:{name}")
    picture = env.render(env.reset(jax.random.key(0))[0])
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1


def test_digits_are_never_fetched_by_themselves(tmp_path, monkeypatch):
    from gymnax.utils import load_mnist

    monkeypatch.setattr(load_mnist.load_mnist, "__defaults__", (str(tmp_path),))
    with pytest.raises(envs.EnvUnavailable, match="fetch them once"):
        envs.make("gymnax:MNISTBandit-bsuite")
    for part in ("train", "t10k"):
        images, labels = np.full((3, 28, 28), 100, np.uint8), np.array([7, 7, 7], np.uint8)
        with gzip.open(tmp_path / f"{part}-images-idx3-ubyte.gz", "wb") as file:
            file.write(struct.pack(">IIII", 0, 3, 28, 28) + images.tobytes())
        with gzip.open(tmp_path / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(struct.pack(">II", 0, 3) + labels.tobytes())
    env = envs.make("gymnax:MNISTBandit-bsuite")
    state, first = env.reset(jax.random.key(0))
    assert first.obs.shape == (28, 28)
    _, right = env.step(jax.random.key(0), state, jnp.int32(7))
    assert (right.reward, right.terminated, right.info["success"]) == (1, True, True)
    _, wrong = env.step(jax.random.key(0), state, jnp.int32(6))
    assert not wrong.info["success"]
