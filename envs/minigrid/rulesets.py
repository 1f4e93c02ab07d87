"""Where the rule sets of XLand tasks come from: sampled here, or read from a benchmark file of XLand-MiniGrid.

The library's benchmarks are downloads, and what makes them is not part of its package. So that its tasks can be played
without either, rule sets are sampled here in the same manner (arXiv 2312.12044, section 3): a goal, a tree of rules
that leads to its objects from those that lie around, and rules and objects that only distract. They are not the rule
sets of the benchmarks: name `benchmark` to compare with published results.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from xminigrid.core.constants import Colors, Tiles
from xminigrid.core.goals import MAX_GOAL_ENCODING_LEN
from xminigrid.types import RuleSet

from envs.errors import EnvError
from envs.minigrid.rules import AGENT_NEAR, HOLD, RULE_SIZE, TILE_NEAR


class Difficulty(NamedTuple):
    """What a rule set is made of.

    depth: rules between the objects that lie around and those of the goal. stop: chance that a branch of the tree ends
    early. distractor_rules: at most so many rules that lead nowhere. distractor_objects: objects without any use.
    """

    depth: int
    stop: float
    distractor_rules: int
    distractor_objects: int


DIFFICULTIES = {
    "trivial": Difficulty(depth=0, stop=0.0, distractor_rules=0, distractor_objects=3),
    "small": Difficulty(depth=1, stop=0.3, distractor_rules=2, distractor_objects=2),
    "medium": Difficulty(depth=2, stop=0.1, distractor_rules=3, distractor_objects=2),
    "high": Difficulty(depth=3, stop=0.1, distractor_rules=4, distractor_objects=1),
}
"""Figures of the library's benchmarks of these names (scripts/generate_benchmarks.sh of its repository)."""

_SHAPES = (Tiles.BALL, Tiles.SQUARE, Tiles.PYRAMID, Tiles.KEY, Tiles.HEX, Tiles.STAR)
_COLORS = (
    Colors.RED,
    Colors.GREEN,
    Colors.BLUE,
    Colors.PURPLE,
    Colors.YELLOW,
    Colors.GREY,
    Colors.ORANGE,
    Colors.WHITE,
    Colors.BROWN,
    Colors.PINK,
)

GOAL_HOLD = 1
GOALS_AGENT_NEAR = (3, 11, 12, 13, 14)
GOALS_TILE_NEAR = (4, 7, 8, 9, 10)
"""Kinds of goals, numbered and ordered as the rules in `envs.minigrid.rules`."""

_NOTHING = (int(Tiles.EMPTY), int(Colors.EMPTY))
Tile = tuple[int, int]


def _inputs(kind: int) -> int:
    return 2 if kind in TILE_NEAR else 1


def _rule(kind: int, inputs: list[Tile], output: Tile) -> list[int]:
    values = [kind, *(value for tile in (*inputs, output) for value in tile)]
    return values + [0] * (RULE_SIZE - len(values))


def sample_ruleset(seed: int, difficulty: Difficulty) -> RuleSet:
    """Samples the rule set of a number; the same number and difficulty give the same one.

    Every object occurs in it once, so no rule takes away what another makes, but for the distracting ones.
    """
    rng = np.random.default_rng(seed)
    rule_kinds = (HOLD, *AGENT_NEAR, *TILE_NEAR)
    goal_kinds = (GOAL_HOLD, *GOALS_AGENT_NEAR, *GOALS_TILE_NEAR)
    unused: list[Tile] = [(int(shape), int(color)) for shape in _SHAPES for color in _COLORS]
    rng.shuffle(unused)

    goal_kind = int(rng.choice(goal_kinds))
    wanted = [unused.pop() for _ in range(2 if goal_kind in GOALS_TILE_NEAR else 1)]
    goal = [goal_kind, *(value for tile in wanted for value in tile)]
    rules: list[list[int]] = []
    lying: list[Tile] = []
    involved = list(wanted)
    for _ in range(difficulty.depth):
        made_from: list[Tile] = []
        for tile in wanted:
            if rng.random() < difficulty.stop:
                lying.append(tile)
                continue
            kind = int(rng.choice(rule_kinds))
            inputs = [unused.pop() for _ in range(_inputs(kind))]
            rules.append(_rule(kind, inputs, tile))
            made_from += inputs
        wanted = made_from
        involved += made_from
    lying += wanted

    for _ in range(int(rng.integers(0, difficulty.distractor_rules + 1))):
        kind = int(rng.choice(rule_kinds))
        count = min(_inputs(kind), len(involved))
        picked = [involved[i] for i in rng.choice(len(involved), count, replace=False)]
        picked += [unused.pop() for _ in range(_inputs(kind) - count)]
        rules.append(_rule(kind, picked, unused.pop()))
    lying += [unused.pop() for _ in range(difficulty.distractor_objects)]
    rng.shuffle(rules)
    return RuleSet(
        goal=jnp.asarray(goal + [0] * (MAX_GOAL_ENCODING_LEN - len(goal)), jnp.uint8),
        rules=jnp.asarray(rules or [[0] * RULE_SIZE], jnp.uint8),
        init_tiles=jnp.asarray(lying, jnp.uint8),
    )


def _pad(array: jax.Array, length: int) -> jax.Array:
    """Fills up with empty rules or tiles, which the library ignores."""
    return jnp.concatenate([array, jnp.zeros((length - len(array), *array.shape[1:]), array.dtype)])


def sample_rulesets(first: int, count: int, difficulty: str) -> RuleSet:
    """Samples `count` rule sets with numbers from `first` on, stacked.

    Raises:
        EnvError: there is no such difficulty.
    """
    if difficulty not in DIFFICULTIES:
        raise EnvError(f"env.options.difficulty must be one of {', '.join(DIFFICULTIES)}, not {difficulty!r}")
    made = [sample_ruleset(first + i, DIFFICULTIES[difficulty]) for i in range(count)]
    num_rules, num_tiles = (max(len(getattr(one, name)) for one in made) for name in ("rules", "init_tiles"))
    return RuleSet(
        goal=jnp.stack([one.goal for one in made]),
        rules=jnp.stack([_pad(one.rules, num_rules) for one in made]),
        init_tiles=jnp.stack([_pad(one.init_tiles, num_tiles) for one in made]),
    )


def read_rulesets(benchmark: str, first: int, count: int) -> RuleSet:
    """Reads `count` rule sets of a benchmark from number `first` on, stacked. Nothing is downloaded.

    Args:
        benchmark: a file that the library wrote, or the name of a benchmark that it has downloaded before. Such a file
            is a pickle, which can run any code: read none that you do not trust.

    Raises:
        EnvError: there is no such file, or it has no such numbers.
    """
    from xminigrid import benchmarks

    path = Path(benchmark)
    if benchmark in benchmarks.NAME2HFFILENAME:
        path = Path(benchmarks.DATA_PATH) / benchmarks.NAME2HFFILENAME[benchmark]
    if not path.is_file():
        raise EnvError(
            f"env.options.benchmark {benchmark!r}: there is no file {path}. The benchmarks "
            f"{', '.join(benchmarks.NAME2HFFILENAME)} are downloaded, once, by python -c "
            f"\"import xminigrid; xminigrid.load_benchmark('trivial-21k')\" and the like"
        )
    loaded = benchmarks.load_benchmark_from_path(str(path))
    if first + count > loaded.num_rulesets():
        raise EnvError(
            f"env.options.ruleset {first} with num_rulesets {count}: {benchmark!r} "
            f"has {loaded.num_rulesets()} rule sets"
        )
    chosen = slice(first, first + count)
    return RuleSet(
        goal=jnp.asarray(loaded.goals[chosen], jnp.uint8),
        rules=jnp.asarray(loaded.rules[chosen], jnp.uint8),
        init_tiles=jnp.asarray(loaded.init_tiles[chosen], jnp.uint8),
    )
