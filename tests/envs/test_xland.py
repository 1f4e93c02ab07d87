"""XLand's rules fire as in the library, and what they did is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xminigrid
from xminigrid.benchmarks import save_bz2_pickle
from xminigrid.core.constants import TILES_REGISTRY, Colors, Tiles
from xminigrid.core.goals import check_goal
from xminigrid.core.rules import check_rule
from xminigrid.types import AgentState

import envs
from envs.minigrid import rules, rulesets, words
from envs.testing import check_env
from envs.vector import VectorEnv

FORWARD, RIGHT, LEFT, PICK, PUT, TOGGLE = range(6)
RED_BALL, BLUE_KEY, GREEN_SQUARE = (
    (Tiles.BALL, Colors.RED),
    (Tiles.KEY, Colors.BLUE),
    (Tiles.SQUARE, Colors.GREEN),
)
FLOOR = (Tiles.FLOOR, Colors.BLACK)
NOTHING = (Tiles.EMPTY, Colors.EMPTY)


def crowded_worlds(num_worlds, num_rules):
    """Worlds and rules of few kinds of things, so that many rules fire; an outer wall around 4x4 cells."""
    rng = np.random.default_rng(0)
    things = np.array([FLOOR, FLOOR, RED_BALL, BLUE_KEY, GREEN_SQUARE], np.uint8)
    grid = np.broadcast_to(np.array((Tiles.WALL, Colors.GREY), np.uint8), (num_worlds, 6, 6, 2)).copy()
    grid[:, 1:5, 1:5] = things[rng.integers(0, 5, (num_worlds, 4, 4))]
    tiles = things[rng.integers(2, 5, (num_worlds, num_rules, 3))]
    tiles[:, :, 2] = (Tiles.HEX, Colors.PINK)
    kinds = rng.integers(0, rules.NUM_KINDS, (num_worlds, num_rules, 1))
    encoding = np.concatenate([kinds, tiles.reshape(num_worlds, num_rules, 6)], -1).astype(np.uint8)
    agent = AgentState(
        position=jnp.asarray(rng.integers(1, 5, (num_worlds, 2)), jnp.int32),
        direction=jnp.asarray(rng.integers(0, 4, num_worlds), jnp.int32),
        pocket=jnp.asarray(things[rng.integers(2, 5, num_worlds)]),
    )
    return jnp.asarray(encoding), jnp.asarray(grid), agent, jnp.asarray(rng.integers(0, 6, num_worlds))


@pytest.mark.slow
def test_rules_change_the_world_as_the_library_does():
    encoding, grid, agent, action = crowded_worlds(20_000, 3)

    @jax.jit
    @jax.vmap
    def both(encoding, grid, agent, action):
        front = agent.position + jnp.array([[-1, 0], [0, 1], [1, 0], [0, -1]])[agent.direction]
        theirs = check_rule(encoding, grid, agent, action, front)
        new_grid, new_agent, fired = rules.apply_rules(rules.pack_rules(encoding), grid, agent, action)
        same = (theirs[0] == new_grid).all() & (theirs[1].pocket == new_agent.pocket).all()
        changed = (new_grid != grid).any() | (new_agent.pocket != agent.pocket).any()
        return same, fired, changed

    same, fired, changed = both(encoding, grid, agent, action)
    assert same.all()
    assert (fired.any(-1) | ~changed).all()
    kinds = set(np.asarray(encoding[..., 0])[np.asarray(fired)].tolist())
    assert kinds == set(range(1, rules.NUM_KINDS))  # every kind of rule was seen to fire


@pytest.mark.slow
def test_steps_equal_those_of_the_library():
    ours = envs.make("xminigrid:XLand-MiniGrid-R1-9x9", ruleset=0)
    theirs, params = xminigrid.make("XLand-MiniGrid-R1-9x9")
    params = params.replace(ruleset=rulesets.sample_ruleset(0, rulesets.DIFFICULTIES["small"]))

    def body(carry, key):
        state, timestep = carry
        action = jax.random.choice(key, 6, p=jnp.array([0.3, 0.1, 0.1, 0.25, 0.2, 0.05]))
        timestep = theirs.step(params, timestep, action)
        state, ours_step = ours.step(key, state, action)
        same = (
            (timestep.observation == ours_step.obs).all()
            & (timestep.state.grid == state.grid).all()
            & (timestep.state.agent.pocket == state.agent.pocket).all()
            & (timestep.reward == ours_step.reward)
            & (timestep.last() == (ours_step.terminated | ours_step.truncated))
        )
        return (state, timestep), (same, ours_step.event)

    @jax.jit
    @jax.vmap
    def play(key):
        state, first = ours.reset(key)
        theirs_first = theirs.reset(params, key)
        theirs_first = theirs_first.replace(state=state, observation=first.obs)
        return jax.lax.scan(body, (state, theirs_first), jax.random.split(key, ours.spec.max_episode_steps))[1]

    same, event = play(jax.random.split(jax.random.key(0), 32))
    assert same.all()
    said = {ours.describe(code) for code in np.unique(np.asarray(event).reshape(-1, ours.spec.event_size), axis=0)}
    assert any(" become a " in caption or " turns into a " in caption for caption in said)


def task(tmp_path, goal, *rule_encodings, lying=(RED_BALL,)):
    """A task with the given rules and goal, out of a benchmark file as the library writes it."""
    encodings = [list(rule) + [0] * (7 - len(rule)) for rule in rule_encodings] or [[0] * 7]
    content = {
        "goals": jnp.asarray([list(goal) + [0] * (5 - len(goal))], jnp.uint8),
        "rules": jnp.asarray([encodings], jnp.uint8),
        "init_tiles": jnp.asarray([lying], jnp.uint8),
        "num_rules": jnp.asarray([len(rule_encodings)], jnp.uint8),
    }
    save_bz2_pickle(content, str(tmp_path / "one"))
    return envs.make("xminigrid:XLand-MiniGrid-R1-9x9", benchmark=str(tmp_path / "one"))


def stand(env, things):
    """Stands the agent in the middle of an empty room, looking up, with things around it: offset -> tile."""
    state, _ = env.reset(jax.random.key(0))
    grid = state.grid.at[1:8, 1:8].set(TILES_REGISTRY[FLOOR])
    for (row, column), tile in things.items():
        grid = grid.at[4 + row, 4 + column].set(TILES_REGISTRY[tile])
    agent = state.agent.replace(position=jnp.array([4, 4]), direction=jnp.array(0))
    return state.replace(grid=grid, agent=agent)


HOLD_SQUARE = (1, *GREEN_SQUARE)
JOIN = (3, *RED_BALL, *BLUE_KEY, *GREEN_SQUARE)


@pytest.mark.slow
def test_a_hand_played_episode_up_to_its_last_step(tmp_path):
    """Take the ball, carry it to the key, put it down: they become a square; take that: the goal."""
    env = task(tmp_path, HOLD_SQUARE, JOIN)
    vector = VectorEnv(env, 1)
    state = stand(env, {(-1, 0): RED_BALL, (-1, 2): BLUE_KEY})
    state = jax.tree.map(lambda leaf: leaf[None], state)
    step = jax.jit(vector.step)
    said = []
    plan = [PICK, RIGHT, FORWARD, LEFT, PUT, RIGHT, FORWARD, LEFT, PICK]
    for number, action in enumerate(plan):
        assert not bool(state.step_num[0] != number)
        state, timestep = step(jax.random.key(number), state, jnp.array([action]))
        said.append(env.describe(np.asarray(timestep.event[0])))
        assert bool(timestep.terminated[0]) == (number == len(plan) - 1)
    assert said == [
        "You pick up the red ball.",
        *[""] * 3,
        "You put down the red ball. The red ball and the blue key become a green square.",
        *[""] * 3,
        "You pick up the green square. You reach the goal: you hold the green square.",
    ]
    assert timestep.reward[0] == pytest.approx(1 - 0.9 * 9 / 243)
    assert timestep.info["success"][0]
    assert state.step_num[0] == 0  # the next episode has begun, and the last caption was kept


@pytest.mark.slow
def test_two_rules_of_one_step_are_both_said(tmp_path):
    star = (Tiles.STAR, Colors.PINK)
    env = task(tmp_path, (1, *star), (1, *RED_BALL, *BLUE_KEY), (1, *BLUE_KEY, *star))
    _, timestep = env.step(jax.random.key(0), stand(env, {(-1, 0): RED_BALL}), jnp.int32(PICK))
    assert env.describe(np.asarray(timestep.event)) == (
        "You pick up the red ball. The red ball in your hand turns into a blue key. "
        "The blue key in your hand turns into a pink star. You reach the goal: you hold the pink star."
    )


@pytest.mark.slow
def test_things_beside_the_agent_change_when_it_moves(tmp_path):
    env = task(tmp_path, (3, *GREEN_SQUARE), (9, *RED_BALL, *GREEN_SQUARE))
    _, timestep = env.step(jax.random.key(0), stand(env, {(-1, 1): RED_BALL}), jnp.int32(FORWARD))
    assert env.describe(np.asarray(timestep.event)) == (
        "The red ball next to you turns into a green square. You reach the goal: the green square is next to you."
    )


def test_goal_and_rules_in_words(tmp_path):
    goal, sentences = task(tmp_path, (7, *RED_BALL, *BLUE_KEY), JOIN, (1, *RED_BALL, *BLUE_KEY)).ruleset()
    assert goal == "Make it so that the blue key is above the red ball."
    assert sentences == (
        "A blue key next to a red ball makes both a green square.",
        "Picked up, a red ball turns into a blue key.",
    )


def test_articles():
    orange_ball = Tiles.BALL * 12 + Colors.ORANGE
    assert words.fired(np.array([1, Tiles.KEY * 12 + Colors.RED, orange_ball, 0])) == (
        "The red key in your hand turns into an orange ball."
    )


def test_every_kind_of_rule_and_goal_has_words():
    filled = [*RED_BALL, *BLUE_KEY, *GREEN_SQUARE]
    assert len({words.rule(np.array([kind, *filled])) for kind in range(rules.NUM_KINDS)}) == rules.NUM_KINDS
    assert len({words.goal(np.array([kind, *filled[:4]])) for kind in range(15)}) == 15


def leads_to_goal(one):
    """Plays a rule set without a world: what can be made of what lies around, each thing used up."""
    tiles = {tuple(tile) for tile in np.asarray(one.init_tiles).tolist()}
    todo = [rule for rule in np.asarray(one.rules).tolist() if rule[0]]
    goal = np.asarray(one.goal).tolist()
    wanted = {tuple(goal[1:3])} | ({tuple(goal[3:5])} if goal[0] in rulesets.GOALS_TILE_NEAR else set())
    made = True
    while made:
        made = False
        for rule in todo:
            pair = rule[0] in rules.TILE_NEAR
            inputs = {tuple(rule[1:3]), tuple(rule[3:5])} if pair else {tuple(rule[1:3])}
            output = tuple(rule[5:7]) if pair else tuple(rule[3:5])
            if inputs <= tiles and output not in tiles:
                tiles |= {output}
                made = True
    return wanted <= tiles


@pytest.mark.slow
@pytest.mark.parametrize("difficulty", rulesets.DIFFICULTIES)
def test_sampled_rule_sets_can_be_solved_and_need_what_they_should(difficulty):
    figures = rulesets.DIFFICULTIES[difficulty]
    made = [rulesets.sample_ruleset(seed, figures) for seed in range(20)]
    assert all(leads_to_goal(one) for one in made)
    most = sum(2**level for level in range(1, figures.depth + 1)) + figures.distractor_rules
    counts = [int((one.rules[:, 0] > 0).sum()) for one in made]
    assert max(counts) <= most
    assert (max(counts) > 0) == (difficulty != "trivial")
    assert len({np.asarray(one.goal).tobytes() for one in made}) > 10
    again = rulesets.sample_ruleset(3, figures)
    assert (again.rules == made[3].rules).all()
    assert (again.init_tiles == made[3].init_tiles).all()


@pytest.mark.slow
def test_each_episode_draws_one_of_several_rule_sets():
    env = envs.make("xminigrid:XLand-MiniGrid-R1-9x9", ruleset=5, num_rulesets=4)
    state, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 64))
    goals = {tuple(goal) for goal in np.asarray(state.goal_encoding).tolist()}
    figures = rulesets.DIFFICULTIES["small"]
    assert goals == {tuple(rulesets.sample_ruleset(n, figures).goal.tolist()) for n in range(5, 9)}


@pytest.mark.slow
def test_contract_with_several_rule_sets():
    """Those with one are among the tasks that test_contract.py samples."""
    env = envs.make("xminigrid:XLand-MiniGrid-R2-9x9", difficulty="medium", num_rulesets=3, max_steps=120)
    assert check_env(env, num_envs=8) > 2


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("XLand-MiniGrid-R1-9x9", {"difficulty": "easy"}, "difficulty must be one of trivial, small"),
        ("XLand-MiniGrid-R1-9x9", {"ruleset": -1}, "ruleset must be a whole number of at least 0"),
        ("XLand-MiniGrid-R1-9x9", {"num_rulesets": 0}, "num_rulesets"),
        ("XLand-MiniGrid-R1-9x9", {"benchmark": "no-such-file"}, "there is no file"),
        ("XLand-MiniGrid-R1-9x9", {"benchmark": "x", "difficulty": "small"}, "leave it out"),
        ("MiniGrid-Empty-5x5", {"ruleset": 3}, "has no rule sets"),
    ],
)
def test_bad_options_are_said(env_id, options, message):
    with pytest.raises(envs.EnvError, match=message):
        envs.make(f"xminigrid:{env_id}", **options)


def test_numbers_past_the_end_of_a_benchmark_are_said(tmp_path):
    task(tmp_path, HOLD_SQUARE)
    with pytest.raises(envs.EnvError, match="has 1 rule sets"):
        envs.make("xminigrid:XLand-MiniGrid-R1-9x9", benchmark=str(tmp_path / "one"), ruleset=1)


@pytest.mark.slow
def test_goals_are_numbered_as_in_the_library():
    """The kinds that rule sets are sampled from are what `check_goal` makes of them."""
    grid = jnp.broadcast_to(TILES_REGISTRY[FLOOR], (5, 5, 2))
    agent = AgentState(position=jnp.array([2, 2]), direction=jnp.array(0), pocket=TILES_REGISTRY[NOTHING])
    beside = {"above": (1, 2), "to the right": (2, 3), "below": (3, 2), "to the left": (2, 1)}
    for kind, (side, cell) in zip(rulesets.GOALS_AGENT_NEAR[1:], beside.items(), strict=True):
        reached = {
            other: bool(
                check_goal(
                    jnp.array([kind, *RED_BALL, 0, 0], jnp.uint8),
                    grid.at[at].set(TILES_REGISTRY[RED_BALL]),
                    agent,
                    FORWARD,
                    agent.position,
                )
            )
            for other, at in beside.items()
        }
        assert [other for other, yes in reached.items() if yes] == [side]
        assert side in words.goal(np.array([kind, *RED_BALL, 0, 0]))
        assert cell == beside[side]
