"""Pictures of observations: each kind by hand, every family against the format, NetHack's screen against NLE's own."""

import io

import jax
import numpy as np
import pytest
from PIL import Image

import envs
from envs import pictures
from envs.craftax.pictures import creature_letters
from envs.envpool.captions import COLORS, OBJECTS, STATES
from envs.envpool.observe import mission_words
from envs.envpool.pictures import picture as envpool_picture
from envs.gymnax.pictures import PLANES
from envs.minigrid.captions import COLOR_NAMES, TILE_NAMES
from envs.minigrid.pictures import picture as minigrid_picture
from envs.pictures import Cell, cells_picture, depict, ink_on, png_picture
from llm_annotator.pictures import check_picture, picture_text


def tile(name, color="-"):
    return TILE_NAMES.index(name), COLOR_NAMES.index(color)


def test_equal_cells_are_kept_once():
    shown = {7: Cell("a", "#ffffff", words="an a"), 9: Cell("b", "#000000", "#112233")}
    picture = cells_picture(np.array([[7, 9, 7], [9, 9, 7]]), shown.__getitem__, mark=(1, 2, "left"), note="Well.")
    assert check_picture(picture) == {
        "kind": "cells",
        "rows": 2,
        "cols": 3,
        "cells": [["a", "#ffffff", pictures.GROUND], ["b", "#000000", "#112233"]],
        "grid": bytes([0, 1, 0, 1, 1, 0]),
        "mark": [1, 2, "left"],
        "legend": {"a": "an a"},
        "note": "Well.",
    }
    assert picture_text(picture) == "a b a\nb b <\na an a\nWell."


def test_ink_is_readable():
    assert ink_on("#ffffff") == ink_on("#f0d040") == "#000000"
    assert ink_on("#000000") == ink_on("#0000ff") == "#ffffff"


def test_what_a_minigrid_agent_sees():
    obs = np.zeros((3, 3, 2), np.uint8)
    obs[0] = [tile("wall", "grey")] * 3
    obs[1] = [tile("key", "red"), tile("locked-door", "blue"), tile("floor", "black")]
    obs[2] = [tile("nothing"), tile("floor", "black"), tile("key", "blue")]
    picture = check_picture(minigrid_picture(obs))
    assert picture_text(picture).splitlines() == [
        "#  #  #",
        "kr Lb .",
        "   ^  kb",
        "# wall, kr red key, kb blue key, Lb blue locked door",
    ]
    assert picture["cells"][picture["grid"][4]][2] == "#5b8cff", "a door is as blue as its key"


def test_every_tile_and_colour_of_minigrid_has_a_cell_of_its_own():
    tiles, colors = len(TILE_NAMES), len(COLOR_NAMES)
    cells = {}
    for number in range(tiles):
        for color in range(colors):
            obs = np.full((1, 1, 2), (number, color), np.uint8)
            picture = check_picture(minigrid_picture(obs))
            if words := "".join(picture["legend"].values()):
                assert cells.setdefault(picture["cells"][0][0], words) == words


def test_what_a_babyai_agent_sees_and_carries():
    image = np.zeros((3, 3, 3), np.uint8)
    image[1, 1] = OBJECTS.index("door"), COLORS.index("yellow"), STATES.index("locked")  # by column and row
    image[0, 2] = OBJECTS.index("lava"), 0, 0
    image[1, 2] = OBJECTS.index("key"), COLORS.index("yellow"), 0
    obs = {"image": image, "direction": np.array([3], np.int32), "mission": mission_words(b"open the yellow door")}
    picture = check_picture(envpool_picture(obs))
    lines = picture_text(picture).splitlines()
    assert lines[:3] == ["", "   Ly", "~  ^"]
    assert lines[4] == "Mission: open the yellow door. You look north; you carry the yellow key."
    assert picture["legend"] == {"Ly": "locked yellow door", "ky": "yellow key", "~": "lava"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Craftax-Classic", "Craftax"])
def test_creatures_of_craftax_can_be_told_apart(name):
    pytest.importorskip("craftax")
    module = __import__(f"envs.craftax.{'classic' if name.endswith('Classic') else 'full'}", fromlist=["MOB_NAMES"])
    letters = dict(zip(module.MOB_NAMES, creature_letters(module.MOB_NAMES), strict=True))
    letters.pop("", None)
    assert len(set(letters.values())) == len(letters)
    assert all(len(text) == 2 for text in letters.values())
    assert letters["zombie"] == "Zo"


@pytest.mark.slow
def test_a_player_of_craftax():
    pytest.importorskip("craftax")
    env = envs.make("craftax:Craftax-Classic")
    names = env.status_names
    status = np.zeros(len(names), np.float32)
    for name, value in (("wood", 0.3), ("health", 0.9), ("light", 1.0), ("facing right", 1.0), ("asleep", 0.0)):
        status[names.index(name)] = value
    cells = np.full((*env.spec.obs["map"].shape[:2], 2), 2, np.uint8)
    cells[..., 1] = 0
    cells[0, 0], cells[3, 5] = (5, 0), (2, 1)
    picture = check_picture(env.depict({"map": cells, "status": status}))
    lines = picture_text(picture).splitlines()
    assert lines[0].split() == ["T", *["."] * 8]
    assert lines[3].split() == [".", ".", ".", ".", ">", "Zo", ".", ".", "."]
    assert picture["legend"] == {"Zo": "zombie", "T": "tree"}
    assert lines[-1] == "wood 3, health 9, food 0, drink 0, energy 0, light 1"


@pytest.mark.slow
def test_what_craftax_observes_is_told_in_the_games_own_numbers():
    pytest.importorskip("craftax")
    env = envs.make("craftax:Craftax")
    names = env.status_names
    status = np.zeros(len(names), np.float32)
    observed = {"wood": 0.3, "red potion": 0.2, "books": 0.5, "pickaxe": 0.75, "boots": 1.0, "xp": 0.4, "floor": 0.2}
    for name, value in observed.items():
        status[names.index(name)] = value
    cells = np.zeros((*env.spec.obs["map"].shape[:2], 3), np.uint8)
    note = env.depict({"map": cells, "status": status})["note"]
    assert "wood 9" in note  # sqrt(9) / 10 is observed
    for words in ("red potion 4", "books 1", "pickaxe 3", "boots 2", "xp 4", "floor 2"):
        assert words in note


@pytest.mark.slow
def test_planes_of_minatar_are_named():
    pytest.importorskip("gymnax")
    for name, words in PLANES.items():
        env = envs.make(f"gymnax:{name}")
        assert len(words) in (env.spec.obs.shape[-1], env.spec.obs.shape[-1] - 1), name  # Asterix has one unused
    obs = np.zeros((10, 10, 4), bool)
    obs[9, 4, 0] = obs[3, 2, 1] = obs[1, :, 3] = True
    text = picture_text(check_picture(envs.make("gymnax:Breakout-MinAtar").depict(obs))).splitlines()
    assert text[1] == " ".join("4" * 10)
    assert text[-1] == "1 paddle, 2 ball, 4 brick"


@pytest.mark.parametrize(
    ("shape", "size"), [((6, 4, 3), (4, 6)), ((6, 4, 4), (4, 6)), ((6, 4, 1), (4, 6)), ((1100, 600, 3), (200, 367))]
)
def test_pixels_become_a_png(shape, size):
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    picture = check_picture(depict(object(), {"status": np.zeros(2), "image": pixels}))
    image = Image.open(io.BytesIO(picture["png"]))
    assert image.size == (picture["width"], picture["height"]) == size
    if shape == (6, 4, 3):
        np.testing.assert_array_equal(np.asarray(image), pixels)
    if shape == (6, 4, 4):
        np.testing.assert_array_equal(np.asarray(image), pixels[..., 3])  # the newest frame


def test_png_of_grey_pixels():
    assert check_picture(png_picture(np.zeros((2, 3), np.uint8)))["width"] == 3


def test_numbers_become_text():
    assert picture_text(depict(object(), np.array([1.5, -2.0]))) == "1.5 -2"
    many = depict(object(), {"a": np.zeros(40), "b": np.array([True])})
    assert picture_text(many).splitlines() == [f"a: {' '.join('0' * 32)} ... (40 numbers)", "b: 1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "env_id",
    [
        "xminigrid:MiniGrid-DoorKey-5x5",
        "probe:memory",
        "gymnax:Freeway-MinAtar",
        "gymnax:CartPole-v1",
        "gymnax:Catch-bsuite",
    ],
)
def test_first_observations_of_jitted_games_can_be_drawn(env_id):
    env = envs.make(env_id)
    _, timestep = jax.jit(env.reset)(jax.random.key(0))
    obs = jax.tree.map(np.asarray, jax.device_get(timestep.obs))
    assert picture_text(check_picture(depict(env, obs))).strip()


@pytest.mark.slow
def test_a_talkative_world_is_drawn_as_the_one_in_it():
    env = envs.make("xminigrid:MiniGrid-DoorKey-5x5", talkative=True)
    _, timestep = jax.jit(env.reset)(jax.random.key(0))
    assert depict(env, np.asarray(timestep.obs))["kind"] == "cells"
