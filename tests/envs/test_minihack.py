"""MiniHack: what its tasks pay for, when they end, and what is said on the way."""

import json

import numpy as np
import pytest

pytest.importorskip("nle")
pytest.importorskip("minihack")

import envs
from envs.errors import EnvError
from envs.minihack import definitions
from envs.minihack.adapter import make, names
from envs.minihack.definitions import Definition, Event
from envs.minihack.game import make_game
from envs.minihack.levels import compile_level
from envs.minihack.rules import Rules, cmap_offset
from envs.nethack.tasks import Views
from envs.testing import check_env
from oni.config import EnvConfig, NetworkConfig, PPOConfig, RewardConfig, TrainConfig
from oni.trainer import Trainer


class Player:
    """One level, played by names of actions."""

    def __init__(self, task, seed=0, **options):
        env = make(task, **options)
        self.spec = env.spec
        self.game = make_game(**json.loads(json.dumps(dict(env.options))))
        self.raw = {name: np.zeros(spec.shape, spec.dtype) for name, spec in env.raw.items()}
        self.game.attach(self.raw)
        self.game.reset(seed)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.game.close()

    def do(self, *actions):
        return [self.game.step(self.spec.action_names.index(action)) for action in actions]


TO_KEY = ("south", "southwest")  # of seed 0
TO_DOOR = ("northeast", "north", "northwest", "north")
TO_STAIRS = ("west", "west", "south")


def test_key_room_from_the_key_to_the_stairs():
    with Player("KeyRoom-S5") as player:
        *_, seen, taken = player.do(*TO_KEY, "pick up")
        assert seen.caption == b"You see here a key named The Master Key of Thievery."
        assert taken.caption.endswith(b"g - a key named The Master Key of Thievery.")
        *_, opened = player.do(*TO_DOOR, "apply")
        assert opened == (0.0, False, b"You succeed in unlocking the door.  The door opens.", False, False)
        assert player.raw["message"].tobytes().rstrip(b"\0") == opened.caption
        *_, last = player.do(*TO_STAIRS)
        assert last == (1.0, True, b"", True, False)
        assert player.game.ending() == "reached the goal"


def test_without_the_key_the_door_stays_locked():
    with Player("KeyRoom-S5") as player:
        *_, nothing, pushed = player.do("south", *TO_DOOR[1:], "apply", "west")
        assert nothing == (0.0, False, b"", False, False)
        assert pushed.caption == b"This door is locked."


def test_step_penalty_is_for_steps_in_which_no_time_passes():
    with Player("KeyRoom-S5", step_penalty=0.25) as player:
        assert [step.reward for step in player.do("east", "south", "apply")] == [-0.25, 0.0, -0.25]


def test_an_event_in_the_caption_ends_a_skill_task():
    with Player("WoD-Easy-Full") as player:
        which, where, killed = player.do("zap", "north", "east")
        assert which.caption == b"What do you want to zap? [f or ?*]"
        assert where.caption == b"In what direction?"
        assert killed == (1.0, True, b"You kill the minotaur!  Welcome to experience level 2.", True, False)


def test_a_prayer_counts_on_the_altar_only():
    with Player("Pray-Fixed") as player:
        assert {step[:2] for step in player.do("pray", "northwest", "northwest", "northwest")} == {(0.0, False)}
        asked, prayed = player.do("pray", "northwest")
        assert asked[:2] == (0.0, False)
        assert (prayed.reward, prayed.terminated, prayed.success) == (1.0, True, True)
        assert prayed.caption.startswith(b"You begin praying to Ishtar.")


def test_the_hand_of_a_ring_is_asked_for():
    with Player("Levitate-Ring-Fixed") as player:
        *_, which, hand, worn = player.do("northwest", "northwest", "pick up", "put on", "north", "north")
        assert which.caption.startswith(b"What do you want to put on? [f or ?*]")
        assert hand.caption == b"Which ring-finger, Right or Left? [rl]"
        assert (worn.reward, worn.terminated, worn.success) == (1.0, True, True)


def test_drowning_in_lava_pays_nothing():
    with Player("LavaCross-Full", seed=1) as player:
        for _ in range(12):
            (last,) = player.do("east")
            if last.terminated:
                break
        assert last[:2] == (0.0, True)
        assert not last.success
        assert b"lava" in last.caption
        assert player.game.ending() == "burned by molten lava"


def rules(*events, stairs_reward=0.0):
    blstats, internal, glyphs = np.zeros(27, np.int64), np.zeros(9, np.int32), np.zeros((21, 79), np.int16)
    definition = Definition("", [], "", 1, True, list(events), stairs_reward, False)
    judge = Rules(definition, 0.0)
    judge.start(Views(blstats.data, internal.data, glyphs.data, glyphs))
    return judge, glyphs, blstats


def test_events_add_up_as_in_the_library():
    apple = Event(0.5, True, False, False, ["delicious"])
    never = Event(1.0, False, True, True, ["Mission Complete."])
    judge, *_ = rules(apple, never)
    assert judge.hear(0, b"This apple is delicious!", asked=False) == (0.5, False)
    assert judge.hear(0, b"This apple is delicious!", asked=False) == (0.5, False)  # it repeats
    assert judge.hear(0, b"You see here an apple.", asked=False) == (0.0, False)
    assert judge.hear(0, b"Mission Complete.", asked=False) == (1.0, True)


def test_both_needed_events_must_happen_and_each_pays_once():
    judge, *_ = rules(Event(1.0, False, True, False, ["robe"]), Event(2.0, False, True, False, ["ring"]))
    assert judge.hear(0, b"a robe", asked=False) == (1.0, False)
    assert judge.hear(0, b"a robe", asked=False) == (0.0, False)
    assert judge.hear(0, b"a ring", asked=False) == (2.0, True)


def test_a_place_counts_where_it_was_seen():
    judge, glyphs, blstats = rules(Event(1.0, False, True, False, [], "sink", ord("q")))
    glyphs[3, 7] = cmap_offset() + 30
    assert judge.hear(0, b"", asked=False) == (0.0, False)
    glyphs[3, 7] = 0  # something hides it, as the hero would
    for x, asked, paid in ((6, True, 0.0), (7, False, 0.0), (7, True, 1.0)):
        blstats[:2] = x, 3
        assert judge.hear(ord("q"), b"", asked=asked) == (0.0, False)
        assert judge.hear(ord("y"), b"", asked=False) == (paid, paid > 0)


def test_a_level_that_cannot_be_compiled_is_said():
    with pytest.raises(EnvError, match="lev_comp"):
        compile_level('MAZE: "mylevel", nonsense\n')


@pytest.mark.parametrize(
    "options",
    [{"observation": "map"}, {"crop": 4}, {"step_penalty": -0.1}, {"max_episode_steps": 0}, {"character": "x"}],
)
def test_bad_options_are_said(options):
    with pytest.raises(EnvError, match=next(iter(options))):
        envs.make("minihack:Room-5x5", **options)


@pytest.mark.slow
def test_the_list_of_names_is_what_the_library_has_and_can_be_played():
    playable = []
    for name in definitions.entry_points():
        try:
            definitions.read_definition(name)
        except EnvError:
            continue
        playable.append(name)
    assert names() == playable
    assert {make(name).spec.num_actions for name in names()} == {8, 10, 11, 12, 14, 16, 26}
    assert not any(action.startswith("key ") for name in names() for action in make(name).spec.action_names)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["KeyRoom-S5", "River-MonsterLava", "LavaCross-Restricted", "Levitate-Ring-Full"])
def test_levels_keep_the_contract(name):
    assert check_env(make(name, max_episode_steps=60), num_envs=2, num_steps=130) > 3


@pytest.mark.slow
def test_recordings_of_a_level(tmp_path):
    with Player("Room-5x5", record_dir=str(tmp_path)) as player:
        player.do("southeast")
        player.game.reset(1)
    assert sorted(path.name for path in (tmp_path / "Room-5x5").iterdir()) == ["0.ttyrec2.bz2", "1.ttyrec2.bz2"]


@pytest.mark.slow
def test_a_short_training():
    config = TrainConfig(
        env=EnvConfig(id="minihack:KeyRoom-S5", num_envs=8, num_workers=1),
        network=NetworkConfig(hidden_size=16, core_size=16),
        ppo=PPOConfig(num_steps=16, num_minibatches=2, num_epochs=1),
        reward=RewardConfig(kind="none"),
    )
    with Trainer(config) as trainer:
        for _ in range(3):
            trainer.update()
        assert np.isfinite(trainer.flush().metrics["loss/value"])
