"""Craftax-Classic as a `Game`: the rules are the library's own functions."""

from typing import Any

import jax.numpy as jnp
from craftax.craftax_classic.constants import OBS_DIM, Achievement, Action, BlockType
from craftax.craftax_classic.envs.craftax_state import EnvParams, StaticEnvParams
from craftax.craftax_classic.game_logic import craftax_step, get_player_attack_damage, is_game_over
from craftax.craftax_classic.world_gen import generate_world
from jaxtyping import Array, UInt8

from envs.craftax.game import Game, Missiles, Mobs, View
from envs.craftax.shared import NO_LIMIT_STEPS, achievement_names, action_names, one_hot_direction, without_key

_PARAMS = EnvParams(max_timesteps=NO_LIMIT_STEPS)
_STATIC = StaticEnvParams()

MOB_NAMES = ("zombie", "cow", "skeleton", "arrow")

OWNED = (
    *("wood", "stone", "coal", "iron", "diamond", "sapling"),
    *("wood_pickaxe", "stone_pickaxe", "iron_pickaxe", "wood_sword", "stone_sword", "iron_sword"),
)

STATUS = (
    *OWNED,
    *("health", "food", "drink", "energy"),
    *("facing left", "facing right", "facing up", "facing down"),
    *("light", "asleep"),
)


def _generate(key: Array) -> Any:
    return without_key(generate_world(key, _PARAMS, _STATIC))


def _step(key: Array, state: Any, action: Array) -> tuple[Any, Array]:
    state, reward = craftax_step(key, state, action, _PARAMS, _STATIC)
    return without_key(state), reward


def _over(state: Any) -> Array:
    return is_game_over(state, _PARAMS)


def _won(state: Any) -> Array:
    return state.achievements.all()


def _view(state: Any) -> View:
    groups = (state.zombies, state.cows, state.skeletons)
    sizes = [group.mask.shape[0] for group in groups]
    blow = get_player_attack_damage(state)
    arrows = state.arrows.mask.shape[0]
    return View(
        floor=jnp.int32(0),
        block=state.map,
        item=jnp.zeros_like(state.map),
        lit=jnp.ones(state.map.shape, bool),
        position=state.player_position,
        direction=state.player_direction,
        owned={name: getattr(state.inventory, name) for name in OWNED},
        health=state.player_health,
        food=state.player_food,
        drink=state.player_drink,
        energy=state.player_energy,
        recover=state.player_recover,
        asleep=state.is_sleeping,
        resting=jnp.bool_(False),
        light=state.light_level,
        mobs=Mobs(
            position=jnp.concatenate([group.position for group in groups]),
            alive=jnp.concatenate([group.mask for group in groups]),
            code=jnp.concatenate([jnp.full(size, code, jnp.int32) for code, size in enumerate(sizes, start=1)]),
            health=jnp.concatenate([group.health for group in groups]),
            cooldown=jnp.concatenate([group.attack_cooldown for group in groups]),
            blow=jnp.broadcast_to(blow, (sum(sizes),)),
        ),
        hostile=Missiles(
            position=state.arrows.position,
            flying=state.arrows.mask,
            code=jnp.full(arrows, MOB_NAMES.index("arrow") + 1, jnp.int32),
        ),
        own=Missiles(position=jnp.zeros((0, 2), jnp.int32), flying=jnp.zeros(0, bool), code=jnp.zeros(0, jnp.int32)),
        killed=jnp.int32(0),
        way_down=jnp.bool_(False),
        boss_hits=jnp.int32(0),
        potion_effect=jnp.zeros(6, jnp.int32),
    )


def _status(state: Any) -> Array:
    counts = [getattr(state.inventory, name) / 10 for name in OWNED]
    vitals = [state.player_health, state.player_food, state.player_drink, state.player_energy]
    return jnp.stack(
        [
            *(jnp.asarray(value, jnp.float32) for value in counts),
            *(jnp.asarray(value, jnp.float32) / 10 for value in vitals),
            *one_hot_direction(state.player_direction),
            jnp.asarray(state.light_level, jnp.float32),
            jnp.asarray(state.is_sleeping, jnp.float32),
        ]
    )


def _no_loot(_before: View, _after: View) -> UInt8[Array, "2"]:
    return jnp.zeros(2, jnp.uint8)


GAME = Game(
    generate=_generate,
    step=_step,
    over=_over,
    dead=_over,
    won=_won,
    view=_view,
    status=_status,
    status_names=STATUS,
    view_size=OBS_DIM,
    num_blocks=len(BlockType),
    num_items=1,
    mob_names=MOB_NAMES,
    num_melee=1,
    action_names=action_names(Action),
    max_episode_steps=EnvParams().max_timesteps,
    loot=_no_loot,
    achievements=lambda state: state.achievements,
    achievement_names=achievement_names(Achievement),
    pays="1 an achievement, 0.1 a point of health",
)
