"""One NetHack game as a whole: seeds, captions, deaths, recordings; and what the trainer is told about it."""

import _ctypes
import bz2
import ctypes
import hashlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nethack_play import INDEX, Player, captions, new_arrays, random_play

from envs.errors import EnvError
from envs.host.types import Game, HostEnv
from envs.nethack import observe
from envs.nethack.adapter import make, names
from envs.nethack.game import CAPTION_BYTES, RAW, make_game

ROOT = Path(__file__).resolve().parents[2]


def fingerprint(seed=3, num_steps=400):
    """Hashes a game of random actions: rewards, captions and every byte of the arrays."""
    digest = hashlib.sha256()
    with Player() as player:
        for step, raw in random_play(player, seed, num_steps):
            digest.update(repr(step).encode())
            for array in raw.values():
                digest.update(array.tobytes())
    return digest.hexdigest()


def test_same_seed_and_actions_give_the_same_bytes_in_another_process():
    script = "from test_nethack_game import fingerprint; print(fingerprint())"
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    other = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": paths, "TZ": "Asia/Tokyo"},
        capture_output=True,
        check=False,
    )
    assert other.stdout.decode().strip() == fingerprint(), other.stderr.decode()


def test_an_episode_does_not_depend_on_those_before_it():
    def play(player):
        player.reset(11)
        history = []
        for action in np.random.default_rng(1).integers(len(INDEX), size=200):
            step = player.game.step(int(action))
            history.append((step, {name: array.tobytes() for name, array in player.raw.items()}))
        return history

    with Player() as fresh, Player() as used:
        used.reset(0)
        assert used.do("eat", "more", "eat", "more", "eat", "eat", "more")[-1].terminated  # in the list of high scores
        used.reset(260)
        used.path("jbhjjjjjjjbhbb>")  # leaves in the middle of an episode, on another level
        assert play(fresh) == play(used)


def test_no_hero_is_born_at_the_time_of_the_clock():
    with Player().reset(0) as player:
        library = ctypes.CDLL(player.game._engine._nle.dlpath, mode=os.RTLD_NOW)
        birthday = ctypes.c_long.in_dll(library, "ubirthday").value
        _ctypes.dlclose(library._handle)  # NLE ends the process if its library is still held
        assert birthday == 0


def test_a_death_has_its_last_message_its_scene_and_its_cause():
    with Player().reset(0) as player:
        *_, hard, stopped, _, died = player.do("eat", "more", "eat", "more", "eat", "eat", "more")
        assert hard.caption == b"You're having a hard time getting all of it down.  Continue eating? [yn] (n)"
        assert stopped.caption.startswith(b"You stop eating the food ration.")
        assert died == (0.0, True, b"You choke over your food.  You die...", False, False)
        assert player.message == died.caption
        assert (player.raw["chars"] == ord("@")).sum() == 1
        assert player.game.ending() == "choked on a food ration"
        assert player.game.stats() == {
            "score": 0.0, "depth": 1.0, "max_depth": 1.0, "experience_level": 1.0, "gold": 0.0, "turns": 6.0,
        }  # fmt: skip
        player.reset(1)
        assert player.game.ending() == "still alive"
        assert player.game.stats()["turns"] == 1.0


def test_a_step_that_says_nothing_has_no_caption():
    with Player().reset(0) as player:
        assert captions(player.do("quaff", "north", "search"))[1:] == [b"You feel better.", b""]
        assert player.message == b""


def test_random_play_keeps_the_contract():
    with Player() as player:
        assert isinstance(player.game, Game)
        history = random_play(player, 0, 2_500)
    said = [step.caption for step, _ in history]
    assert any(step.terminated for step, _ in history)
    assert max(map(len, said)) <= CAPTION_BYTES
    assert all(caption == caption.strip() for caption in said)
    assert not any(b"--More--" in caption or b"\0" in caption for caption in said)
    assert 0.5 < np.mean([bool(caption) for caption in said]) < 0.95
    for step, raw in history:
        assert raw["message"].tobytes().rstrip(b"\0").strip() == step.caption[:256].strip()
        assert raw["blstats"][20] > 0  # the status line is there to the last


def test_other_arrays_can_be_attached():
    with Player().reset(2) as player:
        (first,) = player.do("search")
        chars = player.raw["chars"].copy()
        raw = new_arrays()
        player.game.attach(raw)
        player.game.reset(2)
        assert player.game.step(INDEX["search"]) == first
        assert (raw["chars"] == chars).all()


def test_a_game_needs_arrays_first():
    with pytest.raises(RuntimeError, match="attach"):
        make_game(task="score").reset(0)


def test_arrays_may_lie_in_shared_memory():
    buffer = bytearray(sum(new_arrays()[name].nbytes + 8 for name in RAW))
    raw, start = {}, 0
    for name, array in new_arrays().items():
        raw[name] = np.frombuffer(buffer, array.dtype.newbyteorder("="), array.size, start).reshape(array.shape)
        start += -(-array.nbytes // 8) * 8
    game = make_game(task="score")
    game.attach(raw)
    game.reset(0)
    assert (raw["chars"] == ord("@")).sum() == 1
    game.close()


def test_other_characters():
    with Player(character="val-dwa-law-fem").reset(0) as player:
        assert b"Valkyrie" in player.message
    with Player(character="@").reset(0) as player:
        first = player.message
        assert first.startswith(b"Hello Agent") or b"Agent" in first


def test_recordings_are_played_by_nle(tmp_path):
    with Player(record_dir=str(tmp_path)) as player:
        player.reset(5).do("kick", "east", "search")
        player.reset(6).do("pay")
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    assert files == ["score/5.ttyrec2.bz2", "score/6.ttyrec2.bz2"]
    assert b"no shopkeeper here" in bz2.decompress((tmp_path / files[1]).read_bytes())
    primary, secondary = pty.openpty()  # the player wants a terminal
    shown = subprocess.run(
        [Path(sys.executable).parent / "nle-ttyplay2", "-n", tmp_path / files[1]],
        stdin=secondary, capture_output=True, check=True,
    )  # fmt: skip
    os.close(primary)
    os.close(secondary)
    assert b"no shopkeeper here" in shown.stdout


def test_a_seed_played_again_replaces_its_recording(tmp_path):
    with Player(record_dir=str(tmp_path)) as player:
        player.reset(5).do("pay")
        player.reset(5).do("search")
    assert b"no shopkeeper here" not in bz2.decompress((tmp_path / "score" / "5.ttyrec2.bz2").read_bytes())


def test_workers_do_without_jax():
    script = "import envs.nethack.game, sys; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_what_the_trainer_is_told():
    env = make("staircase-3", actions="extended", record_dir="records")
    assert isinstance(env, HostEnv)
    assert env.spec.id == "nethack:staircase-3"
    assert env.spec.num_actions == 28
    assert env.spec.action_names[:3] == ("more", "north", "east")
    assert env.spec.max_episode_steps == 5_000
    assert make("score", max_episode_steps=7).spec.max_episode_steps == 7
    assert env.spec.captioned
    assert set(env.options) == {"task", "actions", "character", "record_dir"}
    assert Path(env.options["record_dir"]).is_absolute()
    assert names() == ["score", "oracle", "staircase", "staircase-3", "staircase-4", "gold", "eat", "scout"]
    assert make("score").spec.num_actions == 23
    game = make_game(**make("gold").options)
    assert isinstance(game, Game)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "ascend"}, "no NetHack task 'ascend'"),
        ({"actions": "all"}, "task, extended"),
        ({"observation": "pixels"}, "crop, full"),
        ({"crop": 8}, "odd"),
        ({"crop": -1}, "odd"),
        ({"character": "mon-hum"}, "role-race-alignment-gender"),
        ({"character": "mon-hum-neu-cat"}, "mon-hum-neu-mal"),
        ({"max_episode_steps": 0}, "1 or more"),
    ],
)
def test_options_that_cannot_be_used(options, message):
    with pytest.raises(EnvError, match=message):
        make(**{"name": "score"} | options)
    with pytest.raises(EnvError, match="expected one of"):
        make_game(task="ascend")


def stacked(num_steps, every):
    with Player() as player:
        history = random_play(player, 2, num_steps)[::every]
    return {name: np.stack([raw[name] for _, raw in history]) for name in RAW}


@pytest.mark.parametrize("size", [1, 9, 25])
def test_the_crop_is_what_a_loop_cuts_out(size):
    raw = stacked(300, 10)
    raw["blstats"][0, :2], raw["blstats"][1, :2] = (0, 0), (78, 20)  # the corners of the map
    obs = make("score", crop=size).observe(raw)
    for channel, name in enumerate(("chars", "colors")):
        wanted = np.zeros((len(raw["chars"]), size, size), np.uint8)
        for game, (x, y) in enumerate(raw["blstats"][:, :2].tolist()):
            for row in range(size):
                for column in range(size):
                    at_y, at_x = y + row - size // 2, x + column - size // 2
                    if 0 <= at_y < 21 and 0 <= at_x < 79:
                        wanted[game, row, column] = raw[name][game, at_y, at_x]
        np.testing.assert_array_equal(obs["crop"][..., channel], wanted)


def test_the_status_is_scaled_by_hand():
    blstats, misc = np.zeros((2, 27), np.int64), np.zeros((2, 3), np.int32)
    blstats[0, [2, 10, 11, 12, 13, 14, 16, 21]] = 25, 6, 12, 3, 99, 5, -4, 1  # power 5 of 0: not a division by zero
    blstats[0, 25] = 512 | 32
    misc[0] = 1, 0, 1
    rows = np.empty((2, len(observe.STATUS)), np.float32)
    observe.write_status(blstats, misc, rows)
    row = dict(zip(observe.STATUS, rows[0].tolist(), strict=True))
    expected = {
        "strength": 1.0, "hit_points": 0.5, "log_hit_points": np.log(7) / 5, "log_depth": np.log(4) / 4,
        "log_gold": np.log(100) / 10, "power": 5.0, "armor_class": -0.4, "hunger": -2 / 3, "hallucinating": 1.0,
        "blind": 1.0, "deaf": 0.0, "asked_for_key": 1.0, "asked_for_line": 0.0, "window_open": 1.0,
        "dexterity": -1.0, "x": -1.0, "log_turns": 0.0,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert np.isfinite(rows).all()


def test_a_hero_that_is_nowhere_sees_nothing_of_other_games():
    rng = np.random.default_rng(0)
    raw = {name: rng.integers(1, 100, (3, *shape)).astype(dtype) for name, (shape, dtype) in RAW.items()}
    raw["blstats"][:, :2] = (5, 5), (-1, -1), (90, 30)  # columns and rows that no map has
    env = make("score")
    obs = env.observe(raw)
    for game in range(3):
        alone = env.observe({name: array[game : game + 1] for name, array in raw.items()})
        np.testing.assert_array_equal(obs["crop"][game], alone["crop"][0])
    assert obs["crop"][1, 4, 4].tolist() == [raw["chars"][1, 0, 0], raw["colors"][1, 0, 0]]
    assert obs["crop"][2, 4, 4].tolist() == [raw["chars"][2, -1, -1], raw["colors"][2, -1, -1]]
    assert not obs["crop"][1, :4].any()


@pytest.mark.parametrize("observation", ["crop", "full"])
def test_observations_are_as_promised_and_own_their_memory(observation):
    raw = stacked(200, 7)
    before = {name: array.copy() for name, array in raw.items()}
    env = make("score", observation=observation)
    obs = env.observe(raw)
    assert set(obs) == set(env.spec.obs)
    for name, spec in env.spec.obs.items():
        assert obs[name].shape == (len(raw["chars"]), *spec.shape)
        assert obs[name].dtype == spec.dtype
        assert spec.num_values is None or (obs[name] < spec.num_values).all()
        assert not any(np.shares_memory(obs[name], array) for array in raw.values())
    assert all((raw[name] == before[name]).all() for name in raw)
    assert (np.abs(obs["status"]) <= 2).all()
    if observation == "full":
        np.testing.assert_array_equal(obs["message"][..., 0], raw["message"])
        np.testing.assert_array_equal(obs["map"][..., 0], raw["chars"])
        np.testing.assert_array_equal(obs["map"][..., 1], raw["colors"])
