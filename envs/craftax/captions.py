"""What happened in a step of Craftax: a small code computed in jit from the states before and after, and its caption.

An event is `uint8[11]`, or with `detail` brief its first five: the action that worked and what it worked on; what
became of the player; what a chest held (two bytes). Then, in full: who hit the player, what was shot at the player,
food, drink and energy, what barred the way, what the player hit, night and health.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, UInt8

from envs.craftax import words
from envs.craftax.game import Game, View

EVENT_SIZES: Mapping[str, int] = {"brief": 5, "full": 11}
"""Bytes of an event for each level of detail."""

CREATURE = 128
"""Added to the code of a creature where a block could stand too."""

SLEEPS, WAKES, DIES, LAVA, RESTS, WAY_DOWN, SHOT, WINS = (1 << number for number in range(8))
NIGHT, DAY, BADLY_HURT, RECOVERS = (1 << number for number in range(4))

_MOVES = jnp.array([[0, 0], [0, -1], [0, 1], [-1, 0], [1, 0]], jnp.int32)
"""Rows and columns by direction: none, left, right, up, down; the moves among the actions have the same numbers."""

_ATTACK_COOLDOWN_STEPS = 5
"""What the clock of a creature is set to when it hits the player (craftax 1.6.1, `update_mobs` of both games)."""

_DARK = 0.5
"""Light under which it is night."""


class Ending(NamedTuple):
    """Whether the step killed the player, and whether it ended the game with what was wanted."""

    dead: Bool[Array, ""]
    won: Bool[Array, ""]


def _flags(**bits: Array) -> Array:
    """Returns the sum of those of the bits (named by this module's constants) whose condition holds."""
    return jnp.stack([jnp.where(condition, globals()[name], 0) for name, condition in bits.items()]).sum()


class Step:
    """One step of a game, looked at from several sides while it is traced."""

    def __init__(self, game: Game, before: View, after: View, action: Array, ending: Ending) -> None:
        self.game, self.before, self.after, self.ending = game, before, after, ending
        self.action = jnp.where(before.asleep | before.resting, 0, action)
        self.same_floor = before.floor == after.floor
        size = jnp.asarray(before.block.shape)
        moves = (self.action >= 1) & (self.action < len(_MOVES))
        target = before.position + _MOVES[jnp.where(moves, self.action, before.direction)]
        self.inside = ((target >= 0) & (target < size)).all()
        self.row, self.column = jnp.clip(target, 0, size - 1)
        self.front = jnp.where(self.inside, before.block[self.row, self.column], words.OUT_OF_BOUNDS)
        there = before.mobs.alive & (before.mobs.position == target).all(axis=-1)
        self.meets, self.met = there.any(), jnp.argmax(there)
        self.moves = moves

    def _is(self, name: str) -> Array:
        return self.action == self.game.action_names.index(name)

    def hit(self) -> tuple[Array, Array, Array]:
        """Returns whether the player hit a creature, whether it died of that, and its code."""
        mobs = self.before.mobs
        hit = self._is("do") & self.meets
        return hit, hit & (mobs.health[self.met] <= mobs.blow[self.met]), mobs.code[self.met]

    def took(self) -> Array:
        """Tells whether `do` did something to the block in front."""
        before, after, block = self.before, self.after, self.front
        always = (words.WATER, words.FOUNTAIN)
        apart = (words.GRASS, words.NECROMANCER)
        if_gone = jnp.asarray([number for number in words.TAKE if number not in (*always, *apart)])
        gone = before.block[self.row, self.column] != after.block[self.row, self.column]
        worked = (
            ((block == if_gone).any() & gone)
            | (block == jnp.asarray(always)).any()
            | ((block == words.GRASS) & (after.owned["sapling"] > before.owned["sapling"]))
            | ((block == words.NECROMANCER) & (after.boss_hits > before.boss_hits))
        )
        return self._is("do") & self.inside & ~self.meets & worked

    def spent(self) -> Array:
        """Tells whether the action used up what it needs."""
        fewer = {name: self.after.owned[name] < count for name, count in self.before.owned.items()}
        never = jnp.bool_(False)
        worked = [fewer[words.DEEDS[name][0]] if name in words.DEEDS else never for name in self.game.action_names]
        return jnp.stack(worked)[self.action]

    def _potion(self) -> Array:
        """Returns 1 + the effect of the potion that the action drinks, 0 for another action."""
        names = self.game.action_names
        first = next((number for number, name in enumerate(names) if name.startswith("drink potion")), len(names))
        number = self.action - first
        return jnp.where((number >= 0) & (number < 6), 1 + self.before.potion_effect[jnp.clip(number, 0, 5)], 0)

    def _spell(self) -> Array:
        """Returns 1 for a fireball that was learned, 2 for an iceball, else 0."""
        before, after = self.before.owned, self.after.owned
        learned = [after[name] > before[name] for name in ("fireball", "iceball") if name in before]
        return jnp.stack([jnp.where(was, number, 0) for number, was in enumerate(learned, start=1)] or [0]).max()

    def deed(self) -> list[Array]:
        """Returns the action, 0 if nothing came of it, and what it worked on."""
        _, kills, code = self.hit()
        took, spent = self.took(), self.spent()
        worked = kills | took | spent | ~self.same_floor
        on = jnp.where(spent, jnp.maximum(self._potion(), self._spell()), 0)
        on = jnp.where(took, self.front, jnp.where(kills, CREATURE + code, on))
        on = jnp.where(self.same_floor, on, 1 + self.after.floor)
        return [jnp.where(worked, self.action, 0), jnp.where(worked, on, 0)]

    def player(self) -> Array:
        """Returns what became of the player, as bits."""
        before, after, ending = self.before, self.after, self.ending
        _, kills, code = self.hit()
        eaten = jnp.asarray([number for number, name in enumerate(self.game.mob_names, 1) if name in words.EATEN])
        by_hand = kills & ~(code == eaten).any()
        return _flags(
            SLEEPS=~before.asleep & after.asleep,
            WAKES=before.asleep & ~after.asleep & ~ending.dead,
            DIES=ending.dead,
            LAVA=ending.dead & self._in_lava(),
            RESTS=~before.resting & after.resting,
            WAY_DOWN=self.same_floor & ~before.way_down & after.way_down,
            SHOT=self.same_floor & (after.killed - before.killed > by_hand),
            WINS=ending.won,
        )

    def _in_lava(self) -> Array:
        return self.after.block[self.after.position[0], self.after.position[1]] == words.LAVA

    def attackers(self) -> list[Array]:
        """Returns the codes of the creature that hit the player and of what the player was shot with, 0 for none."""
        before, after = self.before, self.after
        struck = (
            self.same_floor
            & after.mobs.alive
            & (after.mobs.code <= self.game.num_melee)
            & (before.mobs.cooldown <= 0)
            & (after.mobs.cooldown == _ATTACK_COOLDOWN_STEPS)
        )
        creature = jnp.where(struck.any(), after.mobs.code[jnp.argmax(struck)], 0)
        # A missile can start and hit in one step, so that no state shows it: what else takes health is ruled out.
        starved = (after.recover == 0) & (before.recover < 0)
        hurt = (before.health > after.health) & ~struck.any() & ~starved & ~self._in_lava() & (self._potion() == 0)
        return [creature, jnp.where(hurt, after.hostile.code[jnp.argmax(before.hostile.flying)], 0)]

    def vitals(self) -> Array:
        """Returns two bits each for food, drink and energy: 1 if it fell to a low value, 2 if to none."""

        def level(was: Array, now: Array) -> Array:
            return jnp.where(now < was, (now <= words.LOW) + 1 * (now <= 0), 0)

        before, after = self.before, self.after
        levels = [level(getattr(before, name), getattr(after, name)) for name in ("food", "drink", "energy")]
        return jnp.stack([value << (2 * number) for number, value in enumerate(levels)]).sum()

    def barred(self) -> Array:
        """Returns what stood in the way of a move, 0 for nothing."""
        stays = self.moves & self.same_floor & (self.before.position == self.after.position).all()
        return jnp.where(stays, jnp.where(self.meets, CREATURE + self.before.mobs.code[self.met], self.front), 0)

    def surroundings(self) -> Array:
        """Returns night and health, as bits."""
        before, after = self.before, self.after
        outside = (before.floor == 0) & (after.floor == 0)
        return _flags(
            NIGHT=outside & (before.light >= _DARK) & (after.light < _DARK),
            DAY=outside & (before.light < _DARK) & (after.light >= _DARK),
            BADLY_HURT=(after.health < before.health) & (after.health <= words.LOW) & ~self.ending.dead,
            RECOVERS=(after.health > before.health) & (self._potion() == 0),
        )


def event(game: Game, before: View, after: View, action: Array, ending: Ending, *, detail: str) -> UInt8[Array, " E"]:
    """Returns the event of one step, as many bytes as `EVENT_SIZES[detail]`."""
    step = Step(game, before, after, action, ending)
    opened = step.took() & (step.front == words.CHEST)
    loot = jnp.where(opened, game.loot(before, after), 0)
    parts: list[Array] = [*step.deed(), step.player(), loot[0], loot[1]]
    if EVENT_SIZES[detail] > len(parts):
        hit, kills, code = step.hit()
        parts += [*step.attackers(), step.vitals(), step.barred(), jnp.where(hit & ~kills, code, 0)]
        parts.append(step.surroundings())
    return jnp.stack([jnp.asarray(part).astype(jnp.uint8) for part in parts])


def _deed(game: Game, action: int, on: int, loot: int) -> str:
    name = game.action_names[action]
    if name in words.DEEDS:
        sentence = words.DEEDS[name][1]
        if sentence.endswith("."):
            return sentence
        endings = words.SPELLS if name == "read book" else words.POTION_EFFECTS
        return sentence + (endings[on - 1] if on else ".")
    if name in ("descend", "ascend"):
        return f"You climb {'down' if name == 'descend' else 'up'} to {words.FLOORS[on - 1]}."
    if on > CREATURE:
        creature = game.mob_names[on - CREATURE - 1]
        return f"You {'eat' if creature in words.EATEN else 'defeat'} the {creature}."
    if on == words.CHEST:
        found = [thing for number, thing in enumerate(words.LOOT) if loot >> number & 1]
        return f"{words.TAKE[on]} and find {', '.join(found) or 'nothing'}."
    return words.TAKE[on]


def _ending(player: int) -> list[str]:
    if player & WINS:
        return ["You defeat the necromancer."]
    if not player & DIES:
        return []
    return ["You fall into lava and die." if player & LAVA else "You die."]


def _surroundings(game: Game, code: np.ndarray) -> list[str]:
    """The sentences of full detail, from the bytes after the brief ones."""
    creature, missile, vitals, barred, hit, around = (int(byte) for byte in code)
    said: list[str] = []
    if hit:
        said.append(f"You hit the {game.mob_names[hit - 1]}.")
    if barred > CREATURE:
        said.append(f"{words.article(game.mob_names[barred - CREATURE - 1]).capitalize()} is in your way.")
    elif barred:
        said.append(f"{words.BLOCK_NAMES[barred].capitalize()} is in your way.")
    said += [
        f"{words.article(game.mob_names[number - 1]).capitalize()} hits you."
        for number in (creature, missile)
        if number
    ]
    levels = [vitals >> shift & 3 for shift in (0, 2, 4)]
    said += [sentences[level - 1] for sentences, level in zip(words.VITALS, levels, strict=True) if level]
    by_bit = {
        BADLY_HURT: "You are badly hurt.",
        RECOVERS: "You recover.",
        NIGHT: "Night falls.",
        DAY: "Day breaks.",
    }
    return said + [sentence for bit, sentence in by_bit.items() if around & bit]


def describe(game: Game, code: np.ndarray) -> str:
    """Returns the caption of an event, "" for one of zeros."""
    action, on, player, low, high = (int(byte) for byte in code[:5])
    said = [_deed(game, action, on, low | high << 8)] if action else []
    by_bit = {
        SHOT: "Your shot kills a monster.",
        WAY_DOWN: "The way down is open.",
        SLEEPS: "You fall asleep.",
        RESTS: "You lie down to rest.",
        WAKES: "You wake up.",
    }
    said += [sentence for bit, sentence in by_bit.items() if player & bit]
    if len(code) > EVENT_SIZES["brief"]:
        said += _surroundings(game, code[EVENT_SIZES["brief"] :])
    return " ".join([*said, *_ending(player)])
