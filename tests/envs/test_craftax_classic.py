"""Craftax-Classic plays the library's game, shows what the library shows, and says what happened."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.craftax import captions, drawing, words

pytest.importorskip("craftax")

from craftax.craftax_classic.constants import Action, BlockType
from craftax.craftax_classic.renderer import render_craftax_symbolic

ROW, COLUMN = 32, 32
"""Where the player of a test stands; it looks at the cell on its left."""
FRONT = (ROW, COLUMN - 1)

LEFT, RIGHT, DO, SLEEP = (Action[name].value for name in ("LEFT", "RIGHT", "DO", "SLEEP"))


@pytest.fixture(scope="module")
def env():
    return envs.make("craftax:Craftax-Classic", detail="full")


@pytest.fixture(scope="module")
def meadow(env):
    """A state on an endless meadow, without creatures."""
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    return state.replace(
        map=jnp.full_like(state.map, BlockType.GRASS.value),
        player_position=jnp.array([ROW, COLUMN]),
        player_direction=jnp.full_like(state.player_direction, LEFT),
    )


def front(state, block):
    return state.replace(map=state.map.at[FRONT].set(BlockType[block].value))


def owning(state, **counts):
    return state.replace(inventory=state.inventory.replace(**{k: jnp.int32(v) for k, v in counts.items()}))


def beside_table(state):
    return state.replace(map=state.map.at[ROW + 1, COLUMN].set(BlockType.CRAFTING_TABLE.value))


def beside_furnace(state):
    return state.replace(map=state.map.at[ROW - 1, COLUMN].set(BlockType.FURNACE.value))


def creature(state, kind, position=FRONT, *, health=1, cooldown=9):
    """Puts one creature of a kind somewhere."""
    group = getattr(state, kind)
    group = group.replace(
        position=group.position.at[0].set(jnp.array(position)),
        health=group.health.at[0].set(health),
        mask=group.mask.at[0].set(True),
        attack_cooldown=group.attack_cooldown.at[0].set(cooldown),
    )
    return state.replace(**{kind: group}, mob_map=state.mob_map.at[position].set(True))


def arrow(state, position, direction):
    arrows = state.arrows
    arrows = arrows.replace(position=arrows.position.at[0].set(jnp.array(position)), mask=arrows.mask.at[0].set(True))
    return state.replace(arrows=arrows, arrow_directions=state.arrow_directions.at[0].set(jnp.array(direction)))


def vital(state, **values):
    return state.replace(**{k: jnp.asarray(v, getattr(state, k).dtype) for k, v in values.items()})


def act(name):
    return Action[name].value


PLAYS = {
    "nothing": (lambda s: s, 0, ""),
    "wood": (lambda s: front(s, "TREE"), DO, "You collect wood."),
    "wood at the limit": (lambda s: owning(front(s, "TREE"), wood=9), DO, "You collect wood."),
    "stone": (lambda s: owning(front(s, "STONE"), wood_pickaxe=1), DO, "You collect stone."),
    "stone by hand": (lambda s: front(s, "STONE"), DO, ""),
    "coal": (lambda s: owning(front(s, "COAL"), wood_pickaxe=1), DO, "You collect coal."),
    "iron": (lambda s: owning(front(s, "IRON"), stone_pickaxe=1), DO, "You collect iron."),
    "diamond": (lambda s: owning(front(s, "DIAMOND"), iron_pickaxe=1), DO, "You collect a diamond."),
    "water": (lambda s: front(s, "WATER"), DO, "You drink water."),
    "plant": (lambda s: front(s, "RIPE_PLANT"), DO, "You eat a ripe plant."),
    "table": (lambda s: owning(s, wood=5), act("PLACE_TABLE"), "You place a crafting table."),
    "table without wood": (lambda s: owning(s, wood=0), act("PLACE_TABLE"), ""),
    "stone placed": (lambda s: owning(s, stone=1), act("PLACE_STONE"), "You place a stone."),
    "furnace": (lambda s: owning(beside_table(s), stone=5), act("PLACE_FURNACE"), "You place a furnace."),
    "sapling": (lambda s: owning(s, sapling=1), act("PLACE_PLANT"), "You plant a sapling."),
    "wood pickaxe": (
        lambda s: owning(beside_table(s), wood=5),
        act("MAKE_WOOD_PICKAXE"),
        "You make a wooden pickaxe.",
    ),
    "pickaxe far from a table": (lambda s: owning(s, wood=5), act("MAKE_WOOD_PICKAXE"), ""),
    "stone sword": (
        lambda s: owning(beside_table(s), wood=5, stone=5),
        act("MAKE_STONE_SWORD"),
        "You make a stone sword.",
    ),
    "iron sword": (
        lambda s: owning(beside_furnace(beside_table(s)), wood=5, stone=5, iron=5, coal=5),
        act("MAKE_IRON_SWORD"),
        "You make an iron sword.",
    ),
    "cow eaten": (lambda s: creature(s, "cows"), DO, "You eat the cow."),
    "cow hit": (lambda s: creature(s, "cows", health=3), DO, "You hit the cow."),
    "zombie killed": (lambda s: creature(s, "zombies"), DO, "You defeat the zombie."),
    "zombie killed by sword": (
        lambda s: owning(creature(s, "zombies", health=5), iron_sword=1),
        DO,
        "You defeat the zombie.",
    ),
    "skeleton killed": (lambda s: creature(s, "skeletons"), DO, "You defeat the skeleton."),
    "zombie hits": (lambda s: creature(s, "zombies", cooldown=0), 0, "A zombie hits you."),
    "zombie hits hard": (
        lambda s: vital(creature(s, "zombies", cooldown=0), player_health=4),
        0,
        "A zombie hits you. You are badly hurt.",
    ),
    "arrow hits": (lambda s: arrow(s, (ROW, COLUMN + 1), (0, -1)), 0, "An arrow hits you."),
    "arrow misses": (lambda s: arrow(s, (ROW + 1, COLUMN + 1), (0, -1)), 0, ""),
    "sleep": (lambda s: vital(s, player_energy=5), SLEEP, "You fall asleep."),
    "wide awake": (lambda s: s, SLEEP, ""),
    "waking": (lambda s: vital(s, player_energy=9, is_sleeping=True), 0, "You wake up."),
    "deeds of a sleeper": (lambda s: vital(front(s, "TREE"), player_energy=5, is_sleeping=True), DO, ""),
    "way barred": (lambda s: front(s, "WATER"), LEFT, "Water is in your way."),
    "way barred by a cow": (lambda s: creature(s, "cows", health=3), LEFT, "A cow is in your way."),
    "way free": (lambda s: front(s, "TREE"), RIGHT, ""),
    "hunger": (lambda s: vital(s, player_food=4, player_hunger=25), 0, "You are hungry."),
    "full": (lambda s: vital(s, player_food=9, player_hunger=25), 0, ""),
    "thirst": (lambda s: vital(s, player_drink=1, player_thirst=20), 0, "You are dying of thirst."),
    "fatigue": (lambda s: vital(s, player_energy=3, player_fatigue=30), 0, "You are tired."),
    "healing": (lambda s: vital(s, player_health=5, player_recover=25), 0, "You recover."),
    "starving": (
        lambda s: vital(s, player_health=4, player_recover=-15, player_food=0, player_hunger=0),
        0,
        "You are badly hurt.",
    ),
    "lava": (lambda s: front(s, "LAVA"), LEFT, "You fall into lava and die."),
    "killed by a zombie": (
        lambda s: vital(creature(s, "zombies", cooldown=0), player_health=2),
        0,
        "A zombie hits you. You die.",
    ),
    "killed while collecting": (
        lambda s: vital(creature(front(s, "TREE"), "zombies", (ROW + 1, COLUMN), cooldown=0), player_health=1),
        DO,
        "You collect wood. A zombie hits you. You die.",
    ),
}


@pytest.fixture(scope="module")
def played(env, meadow):
    """All plays at once: the states before and after, and what the steps led to."""
    before = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(setup(meadow) for setup, _, _ in PLAYS.values()))
    actions = jnp.array([action for _, action, _ in PLAYS.values()])
    keys = jnp.broadcast_to(jax.random.key(3), (len(PLAYS),))
    after, timestep = jax.jit(jax.vmap(env.step))(keys, before, actions)
    return before, after, jax.device_get(timestep)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAYS)
def test_captions_say_what_happened(env, played, name):
    timestep = played[2]
    number = list(PLAYS).index(name)
    caption = PLAYS[name][2]
    assert env.describe(timestep.event[number]) == caption
    assert timestep.terminated[number] == ("die." in caption)


@pytest.mark.slow
def test_figures_of_an_episode_are_its_achievements(env, played):
    names = env.spec.episode_stats
    assert names[0] == "achievements"
    assert len(names) == 1 + 22
    achieved = {
        "nothing": "",
        "wood": "collect_wood",
        "stone": "collect_stone",
        "diamond": "collect_diamond",
        "water": "collect_drink",
        "table": "place_table",
        "table without wood": "",
        "sapling": "place_plant",
        "wood pickaxe": "make_wood_pickaxe",
        "iron sword": "make_iron_sword",
        "cow eaten": "eat_cow",
        "cow hit": "",
        "zombie killed": "defeat_zombie",
        "waking": "wake_up",
        "killed while collecting": "collect_wood",
    }
    for play, name in achieved.items():
        stats = played[2].info["stats"][list(PLAYS).index(play)]
        found = [one for one, has in zip(names[1:], stats[1:], strict=True) if has]
        assert found == ([f"achievement/{name}"] if name else [])
        assert stats[0] == len(found)


@pytest.mark.slow
def test_brief_captions_leave_out_what_changes_nothing(env, played):
    brief = envs.make("craftax:Craftax-Classic", detail="brief")
    assert isinstance(brief, envs.JaxEnv)
    said = [brief.describe(event[: brief.spec.event_size]) for event in played[2].event]
    assert said[list(PLAYS).index("killed while collecting")] == "You collect wood. You die."
    assert said[list(PLAYS).index("hunger")] == ""
    assert said[list(PLAYS).index("zombie hits")] == ""
    assert said[list(PLAYS).index("way barred")] == ""


@pytest.mark.slow
def test_observations_hold_what_the_library_shows(env, played):
    _, after, timestep = played
    theirs = np.asarray(jax.jit(jax.vmap(render_craftax_symbolic))(after), np.float32)
    rows, columns = 7, 9
    cells = theirs[:, : rows * columns * 21].reshape(-1, rows, columns, 21)
    assert (cells[..., :17].argmax(-1) == timestep.obs["map"][..., 0]).all()
    shown = cells[..., 17:]
    highest = np.where(shown.any(-1), 4 - shown[..., ::-1].argmax(-1), 0)
    assert (highest == timestep.obs["map"][..., 1]).all()
    np.testing.assert_allclose(timestep.obs["status"], theirs[:, rows * columns * 21 :], atol=1e-3)
    assert timestep.obs["status"].shape[1] == len(env.status_names)


def test_blocks_are_numbered_as_in_the_library():
    assert [words.BLOCK_NAMES[block.value] for block in (BlockType.GRASS, BlockType.WATER, BlockType.LAVA)] == [
        "grass",
        "water",
        "lava",
    ]
    assert words.TAKE[BlockType.RIPE_PLANT.value] == "You eat a ripe plant."
    assert words.TAKE[BlockType.DIAMOND.value] == "You collect a diamond."


@pytest.mark.slow
def test_a_picture_shows_blocks_creatures_and_where_the_player_looks(env, meadow):
    plain = env.render(meadow)
    assert plain.dtype == np.uint8
    assert plain.shape == (7 * drawing.CELL_PX, 9 * drawing.CELL_PX, 3)

    def changed(state):
        cells = (env.render(state) != plain).any(-1).reshape(7, drawing.CELL_PX, 9, drawing.CELL_PX).any((1, 3))
        return np.argwhere(cells).tolist()

    assert changed(meadow) == []
    assert changed(front(meadow, "TREE")) == [[3, 3]]
    assert changed(creature(meadow, "cows", (ROW - 2, COLUMN + 1))) == [[1, 5]]
    assert changed(vital(meadow, player_direction=RIGHT)) == [[3, 4]]


def test_an_event_of_zeros_says_nothing(env):
    assert env.describe(np.zeros(captions.EVENT_SIZES["full"], np.uint8)) == ""


@pytest.mark.parametrize(
    "options",
    [{"detail": "long"}, {"num_worlds": -1}, {"num_worlds": 1.5}, {"world_seed": -1}, {"max_steps": 0}, {"detial": 1}],
)
def test_bad_options_are_said(options):
    with pytest.raises(envs.EnvError, match=next(iter(options))):
        envs.make("craftax:Craftax-Classic", **options)
