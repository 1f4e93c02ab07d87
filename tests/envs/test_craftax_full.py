"""Craftax plays the library's game, shows what the library shows, and says what happened."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.craftax import words

pytest.importorskip("craftax")

from craftax.craftax.constants import Achievement, Action, BlockType, ItemType
from craftax.craftax.renderer import render_craftax_symbolic

ROW, COLUMN = 24, 24
"""Where the player of a test stands; it looks at the cell on its left."""
FRONT = (ROW, COLUMN - 1)

LEFT, DO = Action.LEFT.value, Action.DO.value


@pytest.fixture(scope="module")
def env():
    return envs.make("craftax:Craftax", detail="full", num_worlds=1)


@pytest.fixture(scope="module")
def meadow(env):
    """A state in which every floor is a lit meadow, without creatures."""
    state, _ = env.reset(jax.random.key(0))
    return state.replace(
        map=jnp.full_like(state.map, BlockType.GRASS.value),
        item_map=jnp.zeros_like(state.item_map),
        light_map=jnp.ones_like(state.light_map),
        player_position=jnp.array([ROW, COLUMN]),
        player_direction=jnp.full_like(state.player_direction, LEFT),
        potion_mapping=jnp.arange(6),
    )


def front(state, block):
    return state.replace(map=state.map.at[state.player_level, *FRONT].set(BlockType[block].value))


def owning(state, **counts):
    changes = {k: jnp.asarray(v, getattr(state.inventory, k).dtype) for k, v in counts.items()}
    return state.replace(inventory=state.inventory.replace(**changes))


def on_floor(state, floor):
    return state.replace(player_level=jnp.int32(floor))


def standing_on(state, item):
    return state.replace(item_map=state.item_map.at[state.player_level, ROW, COLUMN].set(ItemType[item].value))


def being(state, **values):
    return state.replace(**{k: jnp.asarray(v, getattr(state, k).dtype) for k, v in values.items()})


def creature(state, kind, type_id=0, position=FRONT, *, health: float = 1, cooldown=9):
    group, floor = getattr(state, kind), state.player_level
    group = group.replace(
        position=group.position.at[floor, 0].set(jnp.array(position)),
        health=group.health.at[floor, 0].set(health),
        mask=group.mask.at[floor, 0].set(True),
        type_id=group.type_id.at[floor, 0].set(type_id),
        attack_cooldown=group.attack_cooldown.at[floor, 0].set(cooldown),
    )
    return state.replace(**{kind: group}, mob_map=state.mob_map.at[floor, *position].set(True))


def missile(state, type_id, position, direction):
    group, floor = state.mob_projectiles, state.player_level
    group = group.replace(
        position=group.position.at[floor, 0].set(jnp.array(position)),
        mask=group.mask.at[floor, 0].set(True),
        type_id=group.type_id.at[floor, 0].set(type_id),
    )
    directions = state.mob_projectile_directions.at[floor, 0].set(jnp.array(direction))
    return state.replace(mob_projectiles=group, mob_projectile_directions=directions)


def act(name):
    return Action[name].value


RED, GREEN = jnp.array([1, 0, 0, 0, 0, 0]), jnp.array([0, 1, 0, 0, 0, 0])

PLAYS = {
    "nothing": (lambda s: s, 0, ""),
    "wood": (lambda s: front(s, "TREE"), DO, "You collect wood."),
    "burning tree": (lambda s: front(on_floor(s, 6), "FIRE_TREE"), DO, "You collect wood."),
    "stalagmite": (lambda s: owning(front(s, "STALAGMITE"), pickaxe=1), DO, "You collect stone."),
    "ruby": (lambda s: owning(front(s, "RUBY"), pickaxe=4), DO, "You collect a ruby."),
    "ruby too hard": (lambda s: owning(front(s, "RUBY"), pickaxe=3), DO, ""),
    "fountain": (lambda s: front(s, "FOUNTAIN"), DO, "You drink from a fountain."),
    "table taken down": (lambda s: front(s, "CRAFTING_TABLE"), DO, "You take down the crafting table."),
    "torch": (lambda s: owning(s, torches=2), act("PLACE_TORCH"), "You place a torch."),
    "arrow shot": (lambda s: owning(s, bow=1, arrows=3), act("SHOOT_ARROW"), "You shoot an arrow."),
    "no bow": (lambda s: owning(s, arrows=3), act("SHOOT_ARROW"), ""),
    "potion that heals": (
        lambda s: being(owning(s, potions=RED), player_health=3),
        act("DRINK_POTION_RED"),
        "You drink the red potion and feel much healthier.",
    ),
    "potion that hurts": (
        lambda s: owning(s, potions=GREEN),
        act("DRINK_POTION_GREEN"),
        "You drink the green potion and feel sick.",
    ),
    "no potion": (lambda s: owning(s, potions=GREEN), act("DRINK_POTION_RED"), ""),
    "book": (
        lambda s: being(owning(s, books=1), learned_spells=[False, True]),
        act("READ_BOOK"),
        "You read a book and learn to cast fireballs.",
    ),
    "spell": (lambda s: being(s, learned_spells=[True, False]), act("CAST_FIREBALL"), "You cast a fireball."),
    "enchantment": (
        lambda s: owning(front(s, "ENCHANTMENT_TABLE_FIRE"), sword=1, ruby=1),
        act("ENCHANT_SWORD"),
        "You enchant your sword.",
    ),
    "stronger": (lambda s: being(s, player_xp=1), act("LEVEL_UP_STRENGTH"), "You become stronger."),
    "down": (lambda s: standing_on(s, "LADDER_DOWN"), act("DESCEND"), "You climb down to the dungeon."),
    "down where monsters bar it": (lambda s: standing_on(on_floor(s, 1), "LADDER_DOWN"), act("DESCEND"), ""),
    "up": (
        lambda s: standing_on(on_floor(s, 2), "LADDER_UP"),
        act("ASCEND"),
        "You climb up to the dungeon.",
    ),
    "the last monster of a floor": (
        lambda s: being(creature(on_floor(s, 1), "melee_mobs", 2), monsters_killed=[10, 7, 0, 0, 0, 0, 0, 0, 0]),
        DO,
        "You defeat the orc soldier. The way down is open.",
    ),
    "bat": (lambda s: creature(on_floor(s, 2), "passive_mobs", 1), DO, "You eat the bat."),
    "knight in armour": (
        lambda s: creature(on_floor(s, 4), "melee_mobs", 4, health=0.6),
        DO,
        "You hit the knight.",
    ),
    "archer": (lambda s: creature(on_floor(s, 2), "ranged_mobs", 1), DO, "You defeat the gnome archer."),
    "troll hits": (
        lambda s: creature(on_floor(s, 5), "melee_mobs", 5, cooldown=0),
        0,
        "A troll hits you. You are badly hurt.",
    ),
    "fireball hits": (
        lambda s: missile(on_floor(s, 1), 2, (ROW, COLUMN + 1), (0, -1)),
        0,
        "A fireball hits you.",
    ),
    "rest": (lambda s: being(s, player_health=5), act("REST"), "You lie down to rest."),
    "sleep": (lambda s: being(s, player_energy=5), act("SLEEP"), "You fall asleep."),
    "way barred": (lambda s: front(s, "WALL_MOSS"), LEFT, "A mossy wall is in your way."),
    "death": (
        lambda s: being(creature(s, "melee_mobs", cooldown=0), player_health=1),
        0,
        "A zombie hits you. You die.",
    ),
    "necromancer wounded": (
        lambda s: being(front(on_floor(s, 8), "NECROMANCER"), boss_timesteps_to_spawn_this_round=0),
        DO,
        "You wound the necromancer.",
    ),
    "necromancer defeated": (
        lambda s: being(front(on_floor(s, 8), "NECROMANCER"), boss_timesteps_to_spawn_this_round=0, boss_progress=7),
        DO,
        "You wound the necromancer. You defeat the necromancer.",
    ),
}

CHEST = "chest"


@pytest.fixture(scope="module")
def played(env, meadow):
    """All plays at once, and a chest opened on the first floor below."""
    setups = [setup for setup, _, _ in PLAYS.values()] + [lambda s: front(on_floor(s, 1), "CHEST")]
    before = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(setup(meadow) for setup in setups))
    actions = jnp.array([*(action for _, action, _ in PLAYS.values()), DO])
    keys = jnp.broadcast_to(jax.random.key(5), (len(setups),))
    after, timestep = jax.jit(jax.vmap(env.step))(keys, before, actions)
    return before, after, jax.device_get(timestep)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAYS)
def test_captions_say_what_happened(env, played, name):
    timestep = played[2]
    number = list(PLAYS).index(name)
    caption = PLAYS[name][2]
    assert env.describe(timestep.event[number]) == caption
    assert timestep.terminated[number] == (name in ("death", "necromancer defeated"))
    assert timestep.info["success"][number] == (name == "necromancer defeated")


@pytest.mark.slow
def test_figures_of_an_episode_are_its_achievements(env, played):
    names = env.spec.episode_stats
    assert len(names) == 1 + 67
    achieved = {
        "nothing": "",
        "wood": "collect_wood",
        "ruby": "collect_ruby",
        "torch": "place_torch",
        "bat": "eat_bat",
        "arrow shot": "fire_bow",
        "potion that hurts": "drink_potion",
        "book": "learn_fireball",
        "spell": "cast_fireball",
        "enchantment": "enchant_sword",
        "archer": "defeat_gnome_archer",
        "the last monster of a floor": "defeat_orc_soldier",
        "necromancer wounded": "damage_necromancer",
    }
    for play, name in achieved.items():
        stats = played[2].info["stats"][list(PLAYS).index(play)]
        found = [one for one, has in zip(names[1:], stats[1:], strict=True) if has]
        assert stats[0] == len(found)
        # the library also grants what a player was given for the play, and the floor it was put on
        given = ("achievement/make_", "achievement/enter_", "achievement/find_")
        found = [one for one in found if not one.startswith(given)]
        assert found == ([f"achievement/{name}"] if name else [])


@pytest.mark.slow
def test_a_chest_tells_what_it_held(env, played):
    before, after, timestep = played
    caption = env.describe(timestep.event[-1])
    assert caption.startswith("You open a chest and find ")
    found = jax.tree.map(lambda new, old: int(np.sum(new[-1] - old[-1])), after.inventory, before.inventory)
    assert found.bow == 1
    for field, word in {"bow": "a bow", "torches": "torches", "coal": "coal", "potions": "a potion"}.items():
        assert (word in caption) == (getattr(found, field) > 0)


@pytest.mark.slow
def test_observations_hold_what_the_library_shows(env, played):
    _, after, timestep = played
    theirs = np.asarray(jax.jit(jax.vmap(render_craftax_symbolic))(after), np.float32)
    rows, columns, blocks, items, mobs = 9, 11, len(BlockType), len(ItemType), 40
    depth = blocks + items + mobs + 1
    cells = theirs[:, : rows * columns * depth].reshape(-1, rows, columns, depth)
    block, item, mob, lit = np.split(cells, np.cumsum([blocks, items, mobs]), axis=-1)
    shown = timestep.obs["map"]
    assert (block.argmax(-1) == shown[..., 0]).all()
    assert (item.argmax(-1) == shown[..., 1]).all()
    highest = np.where(mob.any(-1), mobs - mob[..., ::-1].argmax(-1), 0)
    assert (highest == shown[..., 2]).all()
    assert (shown[lit[..., 0] == 0] == 0).all()
    np.testing.assert_allclose(timestep.obs["status"], theirs[:, rows * columns * depth :], atol=1e-5)
    assert timestep.obs["status"].shape[1] == len(env.status_names)


def test_blocks_and_creatures_are_named_as_in_the_library(env):
    assert len(words.BLOCK_NAMES) == len(BlockType)
    for block in ("STALAGMITE", "CHEST", "FOUNTAIN", "NECROMANCER", "FIRE_TREE", "RUBY", "SAPPHIRE", "FURNACE"):
        assert BlockType[block].value in words.TAKE
    from envs.craftax.full import GAME, MOB_NAMES

    defeated = {a.name.removeprefix("DEFEAT_").lower() for a in Achievement if a.name.startswith("DEFEAT_")}
    defeated -= {"necromancer"}
    ours = {
        name.replace(" ", "_").replace("orc_soldier", "orc_solider") for name in (*MOB_NAMES[:8], *MOB_NAMES[16:24])
    }
    assert ours == defeated
    assert set(words.DEEDS) <= set(GAME.action_names)
