"""Rewards and goals of the NetHack tasks.

Score, gold, eat and scout follow NLE (`nle.env.tasks`, version 1.3): a step in which the game's clock stood still costs
0.01, and the step of the hero's death pays nothing. Where NLE's reward can be gamed, the honest variant is here; each
docstring says how.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from envs.nethack.actions import DOWN, PRAY

# Places in NLE's blstats (`nle.nethack.NLE_BL_*`).
X, Y, SCORE, DEPTH, GOLD, TIME, DUNGEON, LEVEL, CONDITION = 0, 1, 9, 12, 13, 20, 23, 24, 25
HALLUCINATING = 512  # BL_MASK_HALLU of the condition
# Places in NLE's internal (`fill_obs` of its winrl.cc).
ON_STAIRS_DOWN, NUTRITION = 4, 7

GOAL_REWARD = 50.0
IDLE_PENALTY = -0.01  # NetHackScore's penalty_step, a frozen step


class Views(NamedTuple):
    """What the tasks read of a game: NLE's arrays, which each step overwrites. Views, since indexing them is fast."""

    blstats: memoryview
    internal: memoryview
    glyphs: memoryview
    glyph_array: np.ndarray


@runtime_checkable
class Task(Protocol):
    """Turns what happened in the game into a reward. Not asked when the hero died."""

    def start(self, views: Views) -> None:
        """Begins an episode."""
        ...

    def step(self, key: int) -> tuple[float, bool]:
        """Returns the reward of the key just pressed, and whether the goal is reached."""
        ...


class _Clocked:
    """Pays what `_gain` says, less the penalty of a step in which no time passed. No goal, so never a success."""

    def start(self, views: Views) -> None:
        self._views = views
        self._time = views.blstats[TIME]
        self._begin()

    def step(self, key: int) -> tuple[float, bool]:
        time = self._views.blstats[TIME]
        gain = self._gain(key)
        if time == self._time:
            gain += IDLE_PENALTY
        self._time = time
        return gain, False

    def _begin(self) -> None: ...

    def _gain(self, key: int) -> float:
        raise NotImplementedError


class Difference(_Clocked):
    """Change of one figure of the status line: in-game score, or gold.

    Gold spent or stolen costs what it was worth, so picking up the same gold twice pays once.
    """

    def __init__(self, place: int) -> None:
        self._place = place

    def _begin(self) -> None:
        self._value = self._views.blstats[self._place]

    def _gain(self, key: int) -> float:
        value = self._views.blstats[self._place]
        gain, self._value = float(value - self._value), value
        return gain


class Eat(_Clocked):
    """Nutrition gained in a step, as NLE's `eat`; getting hungry costs nothing.

    A prayer that cures hunger pays nothing (NLE pays it about 850), since no food is eaten.
    """

    def _begin(self) -> None:
        self._nutrition = self._views.internal[NUTRITION]
        self._prayed = False

    def _gain(self, key: int) -> float:
        nutrition = self._views.internal[NUTRITION]
        gain, self._nutrition = float(max(0, nutrition - self._nutrition)), nutrition
        # The prayer itself happens when its question is answered, in the step after.
        prayed, self._prayed = self._prayed or key == PRAY, key == PRAY
        return 0.0 if prayed else gain


class Scout(_Clocked):
    """Squares of the dungeon newly seen in a step.

    NLE pays the change of the number of squares that are not blank, monsters included, so what is forgotten or hidden
    for a while (swallowed, amnesia, monsters sensed while blind) pays again when it comes back. Here each square of
    each level pays once an episode, when something that stays (floor, wall, door, stairs, trap, object) is first seen
    there.
    """

    def __init__(self) -> None:
        self._stays = _lasting_glyphs()

    def _begin(self) -> None:
        self._seen: dict[tuple[int, int], np.ndarray] = {}
        self._look()

    def _gain(self, key: int) -> float:
        return float(self._look())

    def _look(self) -> int:
        blstats = self._views.blstats
        shown = self._stays.take(self._views.glyph_array, mode="clip")
        level = blstats[DUNGEON], blstats[LEVEL]
        seen = self._seen.get(level)
        if seen is None:
            self._seen[level] = shown
            return int(np.count_nonzero(shown))
        before = np.count_nonzero(seen)
        np.logical_or(seen, shown, out=seen)
        return int(np.count_nonzero(seen) - before)


def _lasting_glyphs() -> np.ndarray:
    """Tells by glyph whether it shows the dungeon or an object: no blank, monster, effect or inside of a monster."""
    from nle import nethack as module

    nethack: Any = module  # its constants come from the compiled part, which has no types
    stays = np.zeros(nethack.MAX_GLYPH + 1, np.bool_)
    stays[nethack.GLYPH_BODY_OFF : nethack.GLYPH_RIDDEN_OFF] = True
    stays[nethack.GLYPH_OBJ_OFF : nethack.GLYPH_EXPLODE_OFF] = True
    stays[nethack.GLYPH_CMAP_OFF] = False  # solid stone, or not seen yet
    stays[nethack.GLYPH_STATUE_OFF : nethack.MAX_GLYPH] = True
    return stays


class Staircase:
    """Pays 50 and ends when the hero walks down a staircase to a depth or below; no penalty.

    Depth is counted from the surface; the number of a level within its branch is another thing. Falling through a trap
    door or hole does not count, even when the hero jumps into it by `down`; walking down from where one fell to does.
    """

    def __init__(self, depth: int) -> None:
        self._target = depth

    def start(self, views: Views) -> None:
        self._views = views
        self._depth = views.blstats[DEPTH]
        self._on_stairs = views.internal[ON_STAIRS_DOWN]

    def step(self, key: int) -> tuple[float, bool]:
        depth = self._views.blstats[DEPTH]
        reached = key == DOWN and self._on_stairs != 0 and depth > self._depth and depth >= self._target
        self._depth = depth
        self._on_stairs = self._views.internal[ON_STAIRS_DOWN]
        return (GOAL_REWARD, True) if reached else (0.0, False)


class Oracle:
    """Pays 50 and ends when the hero stands next to the Oracle; no penalty.

    Found by her glyph, as in NLE, but not while hallucinating, when every monster may look like her, and only where she
    lives: levels 5 to 9 of the main dungeon (dungeon.def of NetHack 3.6).
    """

    def __init__(self) -> None:
        from nle import nethack as module

        nethack: Any = module
        self._glyph = next(
            glyph
            for glyph in range(nethack.GLYPH_MON_OFF, nethack.GLYPH_PET_OFF)
            if nethack.permonst(nethack.glyph_to_mon(glyph)).mname == "Oracle"
        )
        self._rows, self._columns = nethack.DUNGEON_SHAPE

    def start(self, views: Views) -> None:
        self._views = views

    def step(self, key: int) -> tuple[float, bool]:
        blstats = self._views.blstats
        if not 5 <= blstats[DEPTH] <= 9 or blstats[DUNGEON] != 0 or blstats[CONDITION] & HALLUCINATING:
            return 0.0, False
        return (GOAL_REWARD, True) if self._beside(blstats[X], blstats[Y]) else (0.0, False)

    def _beside(self, x: int, y: int) -> bool:
        glyphs, glyph = self._views.glyphs, self._glyph
        for row in range(max(0, y - 1), min(self._rows, y + 2)):
            for column in range(max(0, x - 1), min(self._columns, x + 2)):
                if glyphs[row, column] == glyph:
                    return True
        return False


TASKS: dict[str, Callable[[], Task]] = {
    "score": lambda: Difference(SCORE),
    "oracle": Oracle,
    "staircase": lambda: Staircase(2),
    "staircase-3": lambda: Staircase(3),
    "staircase-4": lambda: Staircase(4),
    "gold": lambda: Difference(GOLD),
    "eat": Eat,
    "scout": Scout,
}
