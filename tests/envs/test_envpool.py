"""EnvPool: captions of hand-played MiniGrid, our reset in place of its late one, and what is refused."""

import json
from importlib import util

import numpy as np
import pytest

import envs
from envs.envpool.adapter import make, names
from envs.envpool.captions import (
    DROP,
    FORWARD,
    LEFT,
    PICK_UP,
    RIGHT,
    TOGGLE,
    Narrator,
    Sight,
    describe,
    ending,
    mission_text,
)
from envs.envpool.game import make_game
from envs.envpool.library import make_envs
from envs.envpool.observe import WORDS, mission_words
from envs.errors import EnvError
from envs.host.types import HostVectorEnv
from envs.testing import check_env
from oni.config import EnvConfig, NetworkConfig, PPOConfig, RewardConfig, TrainConfig
from oni.trainer import Trainer

with_library = pytest.mark.skipif(util.find_spec("envpool") is None, reason="envpool is not installed")

FLOOR, WALL, RED_BALL, GREY_KEY = [1, 0, 0], [2, 5, 0], [6, 0, 0], [5, 5, 0]
LOCKED, CLOSED, OPENED = [4, 4, 2], [4, 4, 1], [4, 4, 0]
BOX, GOAL, LAVA = [7, 3, 0], [8, 1, 0], [9, 0, 0]


@pytest.mark.parametrize(
    ("before", "after", "action", "caption"),
    [
        ((RED_BALL, FLOOR), (FLOOR, RED_BALL), PICK_UP, "You pick up the red ball."),
        ((RED_BALL, GREY_KEY), (RED_BALL, GREY_KEY), PICK_UP, ""),
        ((FLOOR, GREY_KEY), (GREY_KEY, FLOOR), DROP, "You put down the grey key."),
        ((WALL, GREY_KEY), (WALL, GREY_KEY), DROP, ""),
        ((LOCKED, GREY_KEY), (LOCKED, GREY_KEY), TOGGLE, ""),
        ((LOCKED, GREY_KEY), (OPENED, GREY_KEY), TOGGLE, "You unlock the yellow door."),
        ((CLOSED, FLOOR), (OPENED, FLOOR), TOGGLE, "You open the yellow door."),
        ((OPENED, FLOOR), (CLOSED, FLOOR), TOGGLE, "You close the yellow door."),
        ((BOX, FLOOR), (FLOOR, FLOOR), TOGGLE, "You open the purple box, which is empty."),
        ((BOX, FLOOR), (GREY_KEY, FLOOR), TOGGLE, "You open the purple box and find the grey key in it."),
        ((WALL, FLOOR), (RED_BALL, FLOOR), LEFT, "You stand before the red ball."),
        ((FLOOR, FLOOR), (LOCKED, FLOOR), FORWARD, "You stand before the locked yellow door."),
        ((RED_BALL, FLOOR), (RED_BALL, FLOOR), FORWARD, ""),
        ((FLOOR, FLOOR), (WALL, FLOOR), RIGHT, ""),
    ],
)
def test_captions_of_what_an_action_did(before, after, action, caption):
    assert describe(Sight(*before), Sight(*after), action, facing=True) == caption
    if "stand before" in caption:
        assert describe(Sight(*before), Sight(*after), action, facing=False) == ""


@pytest.mark.parametrize(
    ("front", "action", "won", "caption"),
    [
        (GOAL, FORWARD, True, "You reach the green goal."),
        (FLOOR, LEFT, True, "You complete the mission."),
        (LAVA, FORWARD, False, "You walk into the lava."),
        (RED_BALL, FORWARD, False, "You run into the red ball."),
        (RED_BALL, PICK_UP, False, "You fail the mission."),
        (FLOOR, FORWARD, False, "You fail the mission."),
    ],
)
def test_captions_of_the_end(front, action, won, caption):
    assert ending(Sight(front, FLOOR), action, won=won) == caption


def view(front, held, mission="go to the red ball"):
    image = np.ones((1, 7, 7, 3), np.uint8)
    image[0, 3, 5], image[0, 3, 6] = front, held
    text = np.zeros((1, 512), np.uint8)
    text[0, : len(mission)] = np.frombuffer(mission.encode(), np.uint8)
    return {"image": image, "mission": text}


@pytest.mark.parametrize("with_mission", [True, False])
def test_the_last_caption_says_what_was_done_and_how_it_ended(with_mission):
    narrator = Narrator(with_mission=with_mission, facing=True)
    mission = "pick up the red ball"
    args = (view(RED_BALL, FLOOR, mission), view(FLOOR, RED_BALL, mission), np.array([PICK_UP]), np.array([0.9]))
    said = "You pick up the red ball. You complete the mission."
    assert narrator.say(*args, np.array([True])) == [(f"Mission: {mission}. " * with_mission + said).encode()]
    same = view(WALL, FLOOR)
    assert narrator.say(same, same, np.array([FORWARD]), np.array([0.0]), np.array([False])) == [b""]


def test_words_of_a_mission():
    places = mission_words(b"go to the red ball, then xyzzy the box")[:, 0]
    words = ["go", "to", "the", "red", "ball", ",", "then", None, "the", "box"]
    assert places[:10].tolist() == [1 if word is None else WORDS.index(word) + 2 for word in words]
    assert not places[10:].any()
    assert len(set(WORDS)) == len(WORDS) == 55


@with_library
@pytest.mark.slow
def test_the_list_of_names_is_of_the_library():
    import envpool

    have = set(envpool.list_all_envs())
    assert set(names()) <= have
    missing = {name for name in have if name.startswith(("MiniGrid-", "BabyAI-"))} - set(names())
    assert missing == {"BabyAI-SynthS5R2-v0"}  # whose levels the library never finishes


@with_library
@pytest.mark.slow
@pytest.mark.parametrize("name", ["BabyAI-BossLevel-v0", "BabyAI-PutNextLocal-v0", "MiniGrid-ObstructedMaze-2Q-v1"])
def test_every_word_of_the_missions_is_known(name):
    env = make(name)
    vector = env.make_vector(64, seed=0, num_threads=1)
    raw = env.observer.read(vector.reset()[0])
    vector.close()
    assert not (env.observe(raw)["mission"] == 1).any()
    assert len({mission_text(row) for row in raw["mission"]}) > (1 if name.startswith("BabyAI") else 0)


def play(vector, actions):
    vector.reset()
    steps = []
    for action in actions:
        vector.send(action)
        steps.append(vector.recv())
    return steps


@with_library
@pytest.mark.slow
def test_episodes_are_those_of_the_library_without_its_late_reset():
    env = make("MiniGrid-LavaGapS5-v0", max_episode_steps=12)
    actions = np.random.default_rng(0).integers(0, 3, (300, 1))
    with env.open_pool(1, seed=4, num_groups=1) as pool:
        (group,) = pool.groups
        assert isinstance(group, HostVectorEnv)
        steps = play(group, actions)
        limit = {"max_episode_steps": 12}
        library = make_envs(name=env.options["name"], kwargs=limit, num_envs=1, seed=pool._seed_of(0), num_threads=1)
    obs, _ = library.reset()
    ends = {"terminated": 0, "truncated": 0, "won on the last step": 0, "burnt on the last step": 0}
    for action, step in zip(actions, steps, strict=True):
        obs, reward, terminated, truncated, _ = library.step(action.astype(np.int32))
        won, burnt = reward > 0, b"lava" in step.caption[0]
        # which the library calls truncated
        ends["won on the last step"] += int((won & truncated)[0])
        ends["burnt on the last step"] += int((burnt & truncated)[0])
        assert step.reward == pytest.approx(reward, abs=1e-6)
        assert (step.terminated, step.truncated) == (terminated | won | burnt, truncated & ~won & ~burnt)
        assert (step.final_obs["image"] == obs["image"]).all()
        assert (step.info["success"] == won).all()
        assert won[0] == (b"You reach the green goal." in step.caption[0])
        if terminated | truncated:
            ends["terminated" if terminated else "truncated"] += 1
            obs, reward, *_ = library.step(np.zeros(1, np.int32))  # the step that the library spends on its reset
            assert reward == 0
        assert (step.obs["image"] == obs["image"]).all()
        assert (step.obs["direction"][:, 0] == obs["direction"]).all()
    library.close()
    assert min(ends["terminated"], ends["truncated"]) > 3
    assert ends["won on the last step"] > 0
    assert ends["burnt on the last step"] > 0


@with_library
@pytest.mark.slow
def test_what_goes_wrong_on_the_last_step_was_not_cut_off():
    env = make("MiniGrid-Dynamic-Obstacles-5x5-v0", max_episode_steps=3)
    actions = np.random.default_rng(0).choice([0, 1, FORWARD, FORWARD], (200, 16))
    length, collided = np.zeros(16, int), np.zeros(4, int)
    with env.open_pool(16, seed=0, num_groups=1) as pool:
        for step in play(pool.groups[0], actions):
            length += 1
            hit = step.reward < 0
            assert step.terminated[hit].all()
            assert all(b"You run into" in step.caption[row] for row in np.flatnonzero(hit))
            collided += np.bincount(length[hit], minlength=4)
            length[step.terminated | step.truncated] = 0
    assert collided[3] > 3


@with_library
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "limit", "ends"),
    [
        ("Catch-v0", 9, {"terminated"}),  # the ball is down after nine steps, which is no cut
        ("Catch-v0", 5, {"truncated"}),
        ("CliffWalking-v0", 6, {"truncated"}),  # has no limit in the library
        ("FrozenLake-v1", 4, {"terminated", "truncated"}),
    ],
)
def test_only_what_is_cut_off_is_truncated(name, limit, ends):
    env = make(name, max_episode_steps=limit)
    actions = np.random.default_rng(2).integers(0, env.spec.num_actions, (60, 4))
    game = make_game(**env.options)
    with env.open_pool(4, seed=1, num_groups=1) as pool:
        steps = play(pool.groups[0], actions)
    seen, length = set(), np.zeros(4, int)
    for step in steps:
        length += 1
        ended = step.terminated | step.truncated
        assert (step.truncated <= (length == limit)).all()
        assert ended[length == limit].all()
        seen |= {step.ending[row] for row in np.flatnonzero(ended)}
        assert [ending != "" for ending in step.ending] == ended.tolist()
        length[ended] = 0
    assert seen == ends
    game.attach({n: np.zeros(spec.shape, spec.dtype) for n, spec in env.raw.items()})
    game.reset(1)
    assert not any(game.step(0).truncated for _ in range(limit)), "in a worker process the pool counts"
    game.close()


@with_library
@pytest.mark.slow
def test_rows_do_not_depend_on_threads_and_end_one_by_one():
    env = make("BabyAI-GoToLocalS5N2-v0")
    actions = np.random.default_rng(1).integers(0, 7, (150, 8))

    def rollout(num_threads):
        with env.open_pool(8, seed=3, num_groups=1, num_workers=num_threads) as pool:
            return play(pool.groups[0], actions)

    first, again = rollout(1), rollout(3)
    for one, other in zip(first, again, strict=True):
        assert list(one.caption) == list(other.caption)
        assert all((one.obs[name] == other.obs[name]).all() for name in one.obs)
        ended = one.terminated | one.truncated
        for name, last in one.final_obs.items():
            assert (last[~ended] == one.obs[name][~ended]).all()
    lone = [step for step in first if 0 < (step.terminated | step.truncated).sum() < 8]
    assert len(lone) > 3
    won = [step.caption[row].decode() for step in first for row in np.flatnonzero(step.info["success"])]
    assert won
    assert all(caption.endswith("You complete the mission.") for caption in won)
    assert all(
        caption.startswith("Mission: go to ")
        for step in first
        for caption in map(bytes.decode, step.caption)
        if caption
    )


@with_library
@pytest.mark.slow
def test_saved_games_go_on_with_new_episodes():
    env = make("BabyAI-GoToLocal-v0")
    with env.open_pool(4, seed=1) as pool:
        begun = [group.reset().obs["image"] for group in pool.groups]
        saved = pool.snapshot()
    with env.open_pool(4, seed=1) as pool:
        with pytest.raises(EnvError, match="no-resume-games"):
            pool.restore(saved)
        steps = pool.restore(saved, replay=False)
        assert all(step.truncated.all() for step in steps)
        assert not all((step.obs["image"] == old).all() for step, old in zip(steps, begun, strict=True))
        assert pool.snapshot()["starts"] == saved["starts"] + 1
        pool.groups[0].send(np.zeros(2, np.int64))
        with pytest.raises(EnvError, match="call recv first"):
            pool.groups[0].send(np.zeros(2, np.int64))
        pool.groups[0].recv()
        with pytest.raises(EnvError, match="out of range"):
            pool.groups[0].send(np.array([0, 7]))
    with pytest.raises(EnvError, match="take a multiple"):
        env.open_pool(3, seed=1)


@with_library
@pytest.mark.slow
@pytest.mark.parametrize("name", ["BabyAI-PickupLoc-v0", "CartPole-v1"])
def test_environments_keep_the_contract(name):
    said = check_env(make(name, max_episode_steps=50), num_envs=4, num_steps=120)
    assert (said > 5) == (name != "CartPole-v1")


@with_library
@pytest.mark.slow
def test_a_fallen_pole_is_no_success():
    env = make("CartPole-v1")
    with env.open_pool(2, seed=0, num_groups=1) as pool:
        steps = play(pool.groups[0], np.zeros((40, 2), np.int32))
    assert sum(step.terminated.sum() for step in steps) >= 6
    assert not any(step.info["success"].any() for step in steps)


@with_library
@pytest.mark.slow
def test_frames_of_atari_come_last():
    env = make("Pong-v5")
    assert env.spec.obs["obs"].shape == (84, 84, 4)
    raw = {"obs": np.arange(2 * 4 * 84 * 84, dtype=np.uint32).astype(np.uint8).reshape(2, 4, 84, 84)}
    assert (env.observe(raw)["obs"][1, :, :, 3] == raw["obs"][1, 3]).all()
    assert not env.spec.captioned


@with_library
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("BabyAI-GoTo", {}, "no environment"),
        ("Pendulum-v1", {}, "chooses one of several"),
        ("CartPole-v1", {"max_episode_steps": 0}, "max_episode_steps"),
        ("CartPole-v1", {"kwargs": {"max_episode_steps": 50}}, "put it beside kwargs"),
        ("CartPole-v1", {"kwargs": {"gravity": 3}}, "cannot make"),
    ],
)
def test_what_cannot_be_played_is_said(name, options, message):
    with pytest.raises(EnvError, match=message):
        envs.make(f"envpool:{name}", **options)


@with_library
@pytest.mark.slow
def test_a_short_training_goes_on_with_new_episodes_when_it_is_resumed(caplog):
    config = TrainConfig(
        env=EnvConfig(id="envpool:BabyAI-GoToLocalS5N2-v0", num_envs=8, num_workers=1),
        network=NetworkConfig(hidden_size=16, core="none", embed_size=4),
        ppo=PPOConfig(num_steps=8, num_minibatches=2, num_epochs=1),
        reward=RewardConfig(kind="none"),
    )
    with Trainer(config) as trainer:
        for _ in range(3):
            trainer.update()
        assert np.isfinite(trainer.flush().metrics["loss/value"])
        state, host = trainer.state, json.loads(json.dumps(trainer.host_state()))
        assert not state.actor.reset.all()
    with Trainer(config) as resumed:
        resumed.load(state, host)
        (line,) = caplog.messages
        assert line == (
            "envpool:BabyAI-GoToLocalS5N2-v0: running episodes cannot be brought back, new ones begin instead "
            "(its games never repeat)"
        )
        assert resumed.state.actor.reset.all()
        assert not np.asarray(resumed.state.actor.episode_length).any()
        resumed.update()
        assert np.isfinite(resumed.flush().metrics["loss/value"])
