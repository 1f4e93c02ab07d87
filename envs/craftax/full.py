"""Craftax as a `Game`: the rules are the library's own functions."""

from typing import Any

import jax
import jax.numpy as jnp
from craftax.craftax.constants import (
    MOB_TYPE_DEFENSE_MAPPING,
    MONSTERS_KILLED_TO_CLEAR_LEVEL,
    OBS_DIM,
    Achievement,
    Action,
    BlockType,
    ItemType,
)
from craftax.craftax.craftax_state import EnvParams, StaticEnvParams
from craftax.craftax.game_logic import craftax_step, is_game_over
from craftax.craftax.util.game_logic_utils import (
    get_damage,
    get_player_damage_vector,
    has_beaten_boss,
    is_boss_vulnerable,
)
from craftax.craftax.world_gen.world_gen import generate_world
from jaxtyping import Array, Float, UInt8

from envs.craftax.game import NUM_LOOT, Game, Missiles, Mobs, View
from envs.craftax.shared import NO_LIMIT_STEPS, achievement_names, action_names, one_hot_direction, without_key

_PARAMS = EnvParams(max_timesteps=NO_LIMIT_STEPS)
_STATIC = StaticEnvParams()

_LIT = 0.05
"""Light above which a cell is seen, as in the library's symbolic observation."""

_TYPES = 8
"""Types of each of the classes below; a code is `1 + class * 8 + type`."""

_MELEE = ("zombie", "gnome warrior", "orc soldier", "lizard", "knight", "troll", "pigman", "frost troll")
_PASSIVE = ("cow", "bat", "snail", *[""] * 5)
_RANGED = ("skeleton", "gnome archer", "orc mage", "kobold", "archer", "deep thing", "fire elemental", "ice elemental")
_MISSILES = ("arrow", "dagger", "fireball", "iceball", "arrow", "slimeball", "fireball", "iceball")
MOB_NAMES = (*_MELEE, *_PASSIVE, *_RANGED, *_MISSILES, *(f"{name} of yours" for name in _MISSILES))

_THINGS = ("wood", "stone", "coal", "iron", "diamond", "sapphire", "ruby", "sapling", "torches", "arrows")
_POTIONS = tuple(f"{color} potion" for color in ("red", "green", "blue", "pink", "cyan", "yellow"))
_ARMOUR = ("helmet", "chestplate", "leggings", "boots")
_ATTRIBUTES = ("mana", "xp", "dexterity", "strength", "intelligence")

STATUS = (
    *_THINGS,
    *("books", "pickaxe", "sword", "sword enchantment", "bow enchantment", "bow"),
    *_POTIONS,
    *("health", "food", "drink", "energy", *_ATTRIBUTES),
    *("facing left", "facing right", "facing up", "facing down"),
    *_ARMOUR,
    *(f"{part} enchantment" for part in _ARMOUR),
    *("light", "asleep", "resting", "knows fireball", "knows iceball", "floor", "way down open", "boss vulnerable"),
)


def _generate(key: Array) -> Any:
    return without_key(generate_world(key, _PARAMS, _STATIC))


def _step(key: Array, state: Any, action: Array) -> tuple[Any, Array]:
    state, reward = craftax_step(key, state, action, _PARAMS, _STATIC)
    return without_key(state), reward


def _over(state: Any) -> Array:
    return is_game_over(state, _PARAMS, _STATIC)


def _dead(state: Any) -> Array:
    return _over(state) & ~_won(state)


def _won(state: Any) -> Array:
    return has_beaten_boss(state, _STATIC)


def _way_down(state: Any) -> Array:
    return state.monsters_killed[state.player_level] >= MONSTERS_KILLED_TO_CLEAR_LEVEL


def _blow(state: Any, types: Array, class_index: int) -> Float[Array, " M"]:
    """Damage that the player's hand does to creatures of these types, as in the library's `attack_mob_class`."""
    vector = get_player_damage_vector(state)
    return jax.vmap(lambda kind: get_damage(vector, MOB_TYPE_DEFENSE_MAPPING[kind, class_index]))(types)


def _missiles(group: Any, class_number: int) -> Missiles:
    return Missiles(position=group.position, flying=group.mask, code=1 + class_number * _TYPES + group.type_id)


def _view(state: Any) -> View:
    floor = state.player_level

    def here(group: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[floor], group)

    melee, passive, ranged = here(state.melee_mobs), here(state.passive_mobs), here(state.ranged_mobs)
    groups = (melee, passive, ranged)
    # The library numbers the classes of defence passive, melee, ranged.
    blows = (_blow(state, melee.type_id, 1), _blow(state, passive.type_id, 0), _blow(state, ranged.type_id, 2))
    inventory = state.inventory
    owned = {name: getattr(inventory, name) for name in (*_THINGS, "books", "pickaxe", "sword", "bow")}
    owned |= {name: inventory.potions[number] for number, name in enumerate(_POTIONS)}
    owned |= {"mana": state.player_mana, "xp": state.player_xp}
    owned |= {"fireball": state.learned_spells[0], "iceball": state.learned_spells[1]}
    return View(
        floor=floor,
        block=state.map[floor],
        item=state.item_map[floor],
        lit=state.light_map[floor] > _LIT,
        position=state.player_position,
        direction=state.player_direction,
        owned=owned,
        health=state.player_health,
        food=state.player_food,
        drink=state.player_drink,
        energy=state.player_energy,
        recover=state.player_recover,
        asleep=state.is_sleeping,
        resting=state.is_resting,
        light=state.light_level,
        mobs=Mobs(
            position=jnp.concatenate([group.position for group in groups]),
            alive=jnp.concatenate([group.mask for group in groups]),
            code=jnp.concatenate([1 + number * _TYPES + group.type_id for number, group in enumerate(groups)]),
            health=jnp.concatenate([group.health for group in groups]),
            cooldown=jnp.concatenate([group.attack_cooldown for group in groups]),
            blow=jnp.concatenate(blows),
        ),
        hostile=_missiles(here(state.mob_projectiles), 3),
        own=_missiles(here(state.player_projectiles), 4),
        killed=state.monsters_killed[floor],
        way_down=_way_down(state),
        boss_hits=state.boss_progress,
        potion_effect=state.potion_mapping,
    )


def _status(state: Any) -> Array:
    inventory = state.inventory
    counts = [jnp.sqrt(getattr(inventory, name)) / 10 for name in _THINGS]
    tools = [
        inventory.books / 2,
        inventory.pickaxe / 4,
        inventory.sword / 4,
        state.sword_enchantment,
        state.bow_enchantment,
        inventory.bow,
    ]
    vitals = [state.player_health, state.player_food, state.player_drink, state.player_energy]
    attributes = [getattr(state, f"player_{name}") for name in _ATTRIBUTES]
    special = [state.light_level, state.is_sleeping, state.is_resting, *state.learned_spells, state.player_level / 10]
    parts = [
        *counts,
        *tools,
        *(jnp.sqrt(inventory.potions) / 10),
        *(value / 10 for value in (*vitals, *attributes)),
        *one_hot_direction(state.player_direction),
        *(inventory.armour / 2),
        *state.armour_enchantments,
        *special,
        _way_down(state),
        is_boss_vulnerable(state),
    ]
    return jnp.stack([jnp.asarray(part, jnp.float32) for part in parts])


def _loot(before: View, after: View) -> UInt8[Array, "2"]:
    def more(*names: str) -> Array:
        return jnp.stack([after.owned[name] > before.owned[name] for name in names]).any()

    singles = ("torches", "coal", "iron", "diamond", "sapphire", "ruby", "arrows", "pickaxe", "sword", "bow", "books")
    flags = [*(more(name) for name in singles), more(*_POTIONS)]
    assert len(flags) == NUM_LOOT
    bits = sum(flag.astype(jnp.int32) << number for number, flag in enumerate(flags))
    return jnp.stack([bits & 255, bits >> 8]).astype(jnp.uint8)


GAME = Game(
    generate=_generate,
    step=_step,
    over=_over,
    dead=_dead,
    won=_won,
    view=_view,
    status=_status,
    status_names=STATUS,
    view_size=OBS_DIM,
    num_blocks=len(BlockType),
    num_items=len(ItemType),
    mob_names=MOB_NAMES,
    num_melee=len(_MELEE),
    action_names=action_names(Action),
    max_episode_steps=EnvParams().max_timesteps,
    loot=_loot,
    achievements=lambda state: state.achievements,
    achievement_names=achievement_names(Achievement),
    pays="1 to 8 an achievement, 0.1 a point of health",
)
