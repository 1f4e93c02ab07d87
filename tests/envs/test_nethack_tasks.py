"""Rewards and ends of the tasks, in real games; NLE's own tasks are the reference where ours follow them."""

import warnings

import numpy as np
import pytest
from nethack_play import INDEX, Player, random_play

from envs.nethack.actions import PRAY, TASK_ACTIONS
from envs.nethack.adapter import make, names
from envs.nethack.tasks import TASKS, Eat, Oracle, Scout, Views
from envs.testing import check_env

TO_DEPTH_2, TO_DEPTH_3 = "jbhjjjjjjjbhbb>", "nnjllkkkkkulllllln>"  # of seed 260


def test_staircase_ends_on_the_first_descent():
    with Player("staircase").reset(260) as player:
        *walk, last = player.path(TO_DEPTH_2)
        assert {(step.reward, step.terminated) for step in walk} == {(0.0, False)}
        assert last == (50.0, True, b"You descend the stairs.", True, False)
        assert player.game.ending() == "reached the goal"
        assert player.game.stats()["depth"] == 2.0


def test_staircase_3_ends_on_the_second():
    with Player("staircase-3").reset(260) as player:
        *walk, last = player.path(TO_DEPTH_2 + TO_DEPTH_3)
        assert {(step.reward, step.terminated) for step in walk} == {(0.0, False)}
        assert last[:2] == (50.0, True)
        assert player.depth == 3


def test_staircase_4_takes_more():
    with Player("staircase-4").reset(260) as player:
        assert {(step.reward, step.terminated) for step in player.path(TO_DEPTH_2 + TO_DEPTH_3)} == {(0.0, False)}


def test_jumping_into_a_trap_door_does_not_count():
    with Player("staircase", wizard=True).reset(0) as player:
        player.do("west")
        player.press("\x17trap door\r\x05")  # wishes for one, and finds it
        (fell,) = player.do("down")
        assert player.depth == 2
        assert fell[:2] == (0.0, False)


def test_descending_pays_50_in_game_points():
    with Player("score").reset(260) as player:
        *_, last = player.path(TO_DEPTH_2)
        assert last.reward == 50.0
        assert not last.terminated


def to_delphi(player, hallucinating):
    """Goes to the Oracle's level of seed 7 in wizard mode, and next to her, without a step of the task."""
    if hallucinating:
        player.press("\x17blessed potion of hallucination\r")
        player.do("quaff", "north")
    player.press("\x167\r\x06")  # to level 7; map it
    y, x = np.argwhere(player.raw["chars"] == ord("{")).mean(0).astype(int)  # the four fountains around her
    hero_x, hero_y = player.raw["blstats"][:2]
    right, down = int(x - 1 - hero_x), int(y - 1 - hero_y)
    player.press("\x14" + ("l" if right > 0 else "h") * abs(right) + ("j" if down > 0 else "k") * abs(down) + ".")


def test_oracle_pays_next_to_her():
    with Player("oracle", wizard=True).reset(7) as player:
        assert player.do("search")[0][:2] == (0.0, False)
        to_delphi(player, hallucinating=False)
        (found,) = player.do("search")
        assert (found.reward, found.terminated, found.success) == (50.0, True, True)


def test_oracle_does_not_pay_who_hallucinates():
    with Player("oracle", wizard=True).reset(7) as player:
        to_delphi(player, hallucinating=True)
        assert {(step.reward, step.terminated) for step in player.do(*["search"] * 20)} == {(0.0, False)}


def test_what_looks_like_the_oracle_is_not_her_elsewhere():
    blstats, internal, glyphs = np.zeros(27, np.int64), np.zeros(9, np.int32), np.zeros((21, 79), np.int16)
    task = Oracle()
    task.start(Views(blstats.data, internal.data, glyphs.data, glyphs))
    blstats[[0, 1, 12]] = 0, 20, 6  # in a corner of level 6
    assert task.step(0) == (0.0, False)
    glyphs[19, 1] = task._glyph
    assert task.step(0) == (50.0, True)
    for place, value in ((25, 512), (23, 2), (12, 4)):  # hallucinating; another dungeon; too high up
        kept = int(blstats[place])
        blstats[place] = value
        assert task.step(0) == (0.0, False)
        blstats[place] = kept
    glyphs[19, 1], glyphs[18, 0] = 0, task._glyph
    assert task.step(0) == (0.0, False)


def test_scout_pays_each_square_once_and_no_monsters():
    from nle import nethack

    blstats, internal = np.zeros(27, np.int64), np.zeros(9, np.int32)
    glyphs = np.full((21, 79), nethack.GLYPH_CMAP_OFF, np.int16)
    floor, boulder, dog = nethack.GLYPH_CMAP_OFF + 19, nethack.GLYPH_OBJ_OFF + 400, nethack.GLYPH_PET_OFF + 16
    blstats[[23, 24]] = 0, 1
    glyphs[5, 5] = floor
    task = Scout()
    task.start(Views(blstats.data, internal.data, glyphs.data, glyphs))

    def pay():
        blstats[20] += 1
        return task.step(0)[0]

    assert pay() == 0.0  # what the first look showed is no merit
    glyphs[5, 6:9] = floor, boulder, dog
    assert pay() == 2.0
    glyphs[5, 8] = floor  # the dog has gone
    assert pay() == 1.0
    seen = glyphs.copy()
    glyphs[...] = nethack.GLYPH_CMAP_OFF  # all is forgotten
    assert pay() == 0.0
    glyphs[...] = seen
    assert pay() == 0.0
    blstats[24] = 2  # another level
    assert pay() == 4.0
    assert task.step(0)[0] == -0.01  # the clock stood still


def test_scout_pays_what_a_naive_count_finds():
    from nle import nethack

    with Player("scout") as player:
        player.reset(3)
        glyphs, seen, paid = player.game._views.glyph_array, set(), 0.0
        first = None
        for action in np.random.default_rng(0).integers(1, 17, 150):
            before = int(player.raw["blstats"][20])
            if first is None:
                first = lasting(nethack, glyphs)
                seen |= first
            step = player.game.step(int(action))
            seen |= lasting(nethack, glyphs)
            paid += step.reward + (0.01 if player.raw["blstats"][20] == before else 0.0)
        assert player.depth == 1
        assert round(paid) == len(seen) - len(first) > 20


def lasting(nethack, glyphs):
    def stays(glyph):
        dungeon = nethack.glyph_is_cmap(glyph) and glyph != nethack.GLYPH_CMAP_OFF
        return dungeon or nethack.glyph_is_object(glyph)

    return {(y, x) for y, row in enumerate(glyphs.tolist()) for x, glyph in enumerate(row) if stays(glyph)}


def test_a_prayer_is_no_meal():
    blstats, internal, glyphs = np.zeros(27, np.int64), np.zeros(9, np.int32), np.zeros((21, 79), np.int16)
    internal[7] = 40
    task = Eat()
    task.start(Views(blstats.data, internal.data, glyphs.data, glyphs))

    def pay(key, nutrition):
        blstats[20] += 1
        internal[7] = nutrition
        return task.step(key)[0]

    assert pay(PRAY, 40) == 0.0  # are you sure?
    assert pay(ord("y"), 900) == 0.0
    assert pay(ord("s"), 899) == 0.0
    assert pay(ord("f"), 949) == 50.0


@pytest.mark.slow
@pytest.mark.parametrize("task", ["score", "gold", "eat"])
def test_rewards_are_those_of_nle(task):
    from nle.env import tasks

    reference = {"score": tasks.NetHackScore, "gold": tasks.NetHackGold, "eat": tasks.NetHackEat}[task]
    # Not its default observations: to describe the screen, NLE draws from the game's random numbers.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gymnasium's, about itself
        env = reference(
            character="mon-hum-neu-mal", observation_keys=("chars", "colors", "blstats"), fix_moon_phase=True
        )
    # What NLE declines or passes on otherwise is left out.
    actions = [INDEX[action.name] for action in TASK_ACTIONS if action.name not in ("more", "eat", "kick")]
    seed = 1
    core, display = (int(word) >> 1 for word in np.random.SeedSequence(seed).generate_state(2, np.uint64))
    env.seed(core, display, reseed=False)
    env.reset()
    with Player(task, actions="task").reset(seed) as player:
        for action in np.random.default_rng(seed).choice(actions, 1_200).tolist():
            observed, reward, terminated, *_ = env.step(action)
            step = player.game.step(action)
            assert step.reward == pytest.approx(reward)
            assert step.terminated == terminated
            assert terminated or (observed["chars"] == player.raw["chars"]).all()
            if terminated:
                break
    env.close()


@pytest.mark.parametrize("task", TASKS)
def test_only_goals_succeed(task):
    with Player(task) as player:
        history = random_play(player, 5, 150)
    assert not any(step.success for step, _ in history)
    assert any(step.reward for step, _ in history) == (
        task not in ("oracle", "staircase", "staircase-3", "staircase-4")
    )


@pytest.mark.slow
@pytest.mark.parametrize("task", names())
def test_every_task_keeps_the_contract(task):
    env = make(task, actions="extended", observation="full", max_episode_steps=120)
    assert check_env(env, num_envs=4, num_steps=150) > 20
