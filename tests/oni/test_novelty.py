"""Rewards of single steps: counts and random network distillation, by hand, against plain loops, and in training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from test_trainer import assert_equal_trees

from envs.spec import EnvSpec, ObsSpec
from envs.types import TimeStep
from envs.vector import VectorEnv
from oni.checkpoint import Checkpoints
from oni.config import NetworkConfig, PPOConfig, RewardConfig, RNDConfig, TrainConfig
from oni.networks import init_params, make_network
from oni.ppo import make_learner
from oni.rewards import make_mix
from oni.rewards.mixing import empty_counts
from oni.rewards.normalizing import add_returns, empty_stats, merge_moments
from oni.rewards.novelty import add_step_rewards, hash_observations, make_counts, make_step_reward
from oni.rewards.rnd import add_observations, empty_obs_stats, make_rnd, normalize_observations
from oni.rollout import make_collect, start
from oni.types import Rollout


def spec_of(obs):
    return EnvSpec(id="any", obs=obs, action_names=("go",), max_episode_steps=9)


FLOATS = np.dtype(np.float32)
GRID = spec_of(ObsSpec((2, 1, 2), np.dtype(np.uint8), (5, 4)))
NUMBERS = spec_of(ObsSpec((2,), FLOATS))
NAMED = spec_of({"map": ObsSpec((2, 1, 2), np.dtype(np.uint8), (5, 4)), "status": ObsSpec((3,), FLOATS)})
SPECS = {"grid": GRID, "numbers": NUMBERS, "named": NAMED}


def jitted(reward):
    return jax.jit(reward.init), jax.jit(reward.score), jax.jit(reward.learn)


JITTED = {name: jitted(make_rnd(RNDConfig(learn_share=1.0, num_minibatches=2), spec)) for name, spec in SPECS.items()}


def rollout_of(obs, last_obs, *, reset=None, terminated=None, truncated=None):
    """A rollout with nothing but what is looked at; no episode begins or ends unless said so."""
    shape = jax.tree.leaves(obs)[0].shape[:2]
    none = np.zeros(shape, bool)
    blank = dict.fromkeys(Rollout._fields)
    return Rollout(
        **blank
        | {
            "obs": jax.tree.map(jnp.asarray, obs),
            "last_obs": jax.tree.map(jnp.asarray, last_obs),
            "reset": jnp.asarray(none if reset is None else reset),
            "terminated": jnp.asarray(none if terminated is None else terminated),
            "truncated": jnp.asarray(none if truncated is None else truncated),
            "reward": jnp.zeros(shape),
        }
    )


def walk(places, **ends):
    """One game that sees these places, the last one after its last step."""
    seen = np.array(places, np.float32)[:, None, None] * [1.0, 10.0]
    seen = seen.astype(np.float32)
    return rollout_of(seen[:-1], seen[-1], **{name: np.array(flags, bool)[:, None] for name, flags in ends.items()})


def test_counts_by_hand():
    # start at 1; go to 2, to 1 again, to 2 again
    counts = make_counts(NUMBERS, exponent=1.0)
    score = jax.jit(counts.score)
    state = counts.init(jax.random.key(0), 1)
    first = walk([1, 2, 1, 2], reset=[1, 0, 0])
    state, bonus = score(state, first)
    assert bonus[:, 0].tolist() == [1.0, 0.5, 0.5]
    # the next rollout begins where that one ended, which is not counted again; to 3; the end, unpaid | from 1 to 2
    second = walk([2, 3, 1, 2], terminated=[0, 1, 0], reset=[0, 0, 1])
    state, bonus = score(state, second)
    assert bonus[:, 0].tolist() == [1.0, 0.0, 1.0]
    # to 1, which was the first of this episode, to 2 and to 2
    _, bonus = score(state, walk([2, 1, 2, 2]))
    assert bonus[:, 0].tolist() == [0.5, 0.5, pytest.approx(1 / 3)]


def test_counts_begin_anew_where_an_episode_ended_with_the_rollout():
    counts = make_counts(NUMBERS, exponent=2.0)
    score = jax.jit(counts.score)
    state, bonus = score(counts.init(jax.random.key(0), 1), walk([1, 2, 2, 1], reset=[1, 0, 0], truncated=[0, 0, 1]))
    assert bonus[:, 0].tolist() == [1.0, 0.25, 0.0]
    expected = score(state, walk([1, 2, 1, 1], reset=[1, 0, 0]))
    assert expected[1][:, 0].tolist() == [1.0, 0.25, pytest.approx(1 / 9)]
    # games that were not brought back start elsewhere, with nothing counted
    _, bonus = score(state, walk([3, 2, 1, 3], reset=[1, 0, 0]))
    assert bonus[:, 0].tolist() == [1.0, 1.0, 0.25]


COUNTS = make_counts(GRID, exponent=0.5)
SCORE_COUNTS = jax.jit(COUNTS.score)


@settings_of_hypothesis(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_counts_equal_a_plain_loop(seed):
    """Two rollouts in a row, with few enough observations that they come up again."""
    rng = np.random.default_rng(seed)
    steps, batch = 6, 3
    obs = np.zeros((2 * steps + 1, batch, 2, 1, 2), np.uint8)
    obs[..., 0, 0, 0] = rng.integers(0, 3, obs.shape[:2])
    ended = rng.random((2 * steps, batch)) < 0.2
    reset = np.concatenate([np.ones((1, batch), bool), ended[:-1]])
    expected = np.zeros((2 * steps, batch))
    for b in range(batch):
        seen = []
        for t in range(2 * steps):
            if reset[t, b]:
                seen = [obs[t, b].tobytes()]
            if not ended[t, b]:
                seen.append(obs[t + 1, b].tobytes())
                expected[t, b] = seen.count(seen[-1]) ** -0.5
    state, bonus = COUNTS.init(jax.random.key(0), batch), []
    for part in (slice(0, steps), slice(steps, 2 * steps)):
        rollout = rollout_of(obs[part], obs[part.stop], reset=reset[part], terminated=ended[part])
        state, paid = SCORE_COUNTS(state, rollout)
        bonus.append(paid)
    np.testing.assert_allclose(np.concatenate(bonus), expected, rtol=1e-6)


def test_the_hash_tells_observations_apart():
    every = jnp.stack(jnp.meshgrid(*[jnp.arange(n) for n in (5, 4, 5, 4)], indexing="ij"), -1).reshape(400, 2, 1, 2)
    ids = np.asarray(hash_observations(every.astype(jnp.uint8), GRID, num_axes=1))
    assert len(set(ids.tolist())) == 400
    assert ids.min() >= 1
    assert len(set((ids % 4096).tolist())) > 350  # 381 expected of a perfect hash
    numbers = hash_observations(jnp.array([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0], [1e-20, 1.0]]), NUMBERS, num_axes=1)
    assert numbers[0] == numbers[1]
    assert len(set(numbers.tolist())) == 3


def test_the_hash_looks_at_grids_and_not_at_numbers_beside_them():
    grid = jnp.array([[[[1, 2]], [[0, 0]]]] * 3, jnp.uint8).at[2, 0, 0, 0].set(4)
    status = jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    same, clock, other = hash_observations({"status": status, "map": grid}, NAMED, num_axes=1).tolist()
    assert same == clock != other


def test_moments_by_hand():
    # 1 and 3 (mean 2, variance 1), then 5 alone (a third of all): mean 3, variance (4 + 0 + 4) / 3
    mean, var = merge_moments(jnp.array([2.0]), jnp.array([1.0]), jnp.array([5.0]), jnp.array([0.0]), 1 / 3)
    assert float(mean[0]) == pytest.approx(3.0)
    assert float(var[0]) == pytest.approx(8 / 3)


def test_numbers_are_normalised_and_categories_are_not():
    rng = np.random.default_rng(0)
    parts = [
        {
            "map": jnp.asarray(rng.integers(0, 4, (n, 2, 1, 2)), jnp.uint8),
            "status": jnp.asarray(rng.normal([0, 5, 7], [1, 3, 0], (n, 3)), jnp.float32),
        }
        for n in (8, 4)
    ]
    stats = empty_obs_stats(NAMED)
    for part in parts:
        stats = add_observations(stats, part, NAMED)
    whole = np.concatenate([part["status"] for part in parts])
    np.testing.assert_allclose(stats["status"].mean, whole.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stats["status"].var, whole.var(0), rtol=1e-4, atol=1e-6)
    normal = normalize_observations(stats, parts[1], NAMED)
    expected = (np.asarray(parts[1]["status"]) - whole.mean(0)) / np.maximum(whole.std(0), 0.01)
    np.testing.assert_allclose(normal["status"], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(normal["map"], parts[1]["map"])
    far = normalize_observations(stats, parts[1] | {"status": jnp.full((4, 3), 1e6)}, NAMED)
    assert (far["status"] == 5.0).all()


def test_the_bonus_by_hand():
    # a target that is 0 and a prediction that is 2: an error of 4 at each step but the last of an episode; discounted
    # by a half: 4, 6, 3 (nothing added, but no end), 5.5: mean 4.625, variance 91.25 / 4 - 4.625^2
    rnd = make_rnd(RNDConfig(feature_size=3, discount=0.5), NUMBERS)
    state = rnd.init(jax.random.key(0), 1)
    zeros = jax.tree.map(jnp.zeros_like, (state.target, state.predictor))
    zeros[1]["Dense_0"]["bias"] = jnp.full(3, 2.0)
    state = state._replace(target=zeros[0], predictor=zeros[1])
    state, bonus = rnd.score(state, walk([1, 2, 3, 4, 5], terminated=[0, 0, 1, 0]))
    scale = ((16 + 36 + 9 + 30.25) / 4 - 4.625**2) ** 0.5
    np.testing.assert_allclose(bonus[:, 0], [4 / scale, 4 / scale, 0.0, 4 / scale], rtol=1e-4)
    assert float(state.obs.num_steps) == 4.0
    np.testing.assert_allclose(state.obs.mean, [3.5, 35.0], rtol=1e-5)  # of 2, 3, 4, 5: what actions led to
    never = jnp.zeros((4, 1), bool)
    expected = add_returns(empty_stats(1), jnp.array([[4.0], [4.0], [0.0], [4.0]]), never, discount=0.5)
    assert_equal_trees(state.returns, expected)


def observations(name, rng, *, new, shape=(8, 4)):
    """Observations of one of two kinds that share nothing."""
    grid = rng.integers(0, 2, (*shape, 2, 1, 2)).astype(np.uint8) + np.uint8(2 * new)
    numbers = rng.integers(0, 2, (*shape, 3)).astype(np.float32) + 3.0 * new
    return {"grid": grid, "numbers": numbers[..., :2], "named": {"map": grid, "status": numbers}}[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_the_error_falls_on_what_comes_up_again_and_is_higher_on_what_is_new(name):
    rng = np.random.default_rng(0)
    _, score, learn = JITTED[name]
    state = make_rnd(RNDConfig(), SPECS[name]).init(jax.random.key(1), 4)
    target = state.target
    # both kinds come up in the first rollout, so that they are normalised alike, but only one is learned
    both = jax.tree.map(
        lambda old, new: np.concatenate([old[:4], new[4:]]),
        observations(name, rng, new=False),
        observations(name, rng, new=True),
    )
    last = jax.tree.map(lambda leaf: leaf[-1], both)
    state, before = score(state, rollout_of(both, last))
    errors = []
    for number in range(200):
        seen = observations(name, rng, new=False)
        rollout = rollout_of(seen, jax.tree.map(lambda leaf: leaf[-1], seen))
        state, metrics = learn(state, rollout, jax.random.key(number))
        errors.append(float(metrics["novelty/rnd_error"]))
    _, after = score(state, rollout_of(both, last))
    assert errors[-1] < 0.2 * errors[0]
    known, new = float(after[:3].mean()), float(after[4:].mean())
    assert known < 0.3 * float(before[:3].mean())
    assert new > 3 * known
    assert_equal_trees(state.target, target)


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_state_goes_through_a_checkpoint(tmp_path, name):
    _, score, learn = JITTED[name]
    fresh = make_rnd(RNDConfig(), SPECS[name]).init(jax.random.key(1), 4)
    seen = observations(name, np.random.default_rng(0), new=True)
    rollout = rollout_of(seen, jax.tree.map(lambda leaf: leaf[0], seen))
    state, _ = score(fresh, rollout)
    state, _ = learn(state, rollout, jax.random.key(2))
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        assert checkpoints.save(1, {"novelty": state}, {})
        restored = checkpoints.restore(like={"novelty": fresh}).device["novelty"]
    assert_equal_trees(restored, state)
    assert_equal_trees(score(restored, rollout), score(state, rollout))
    key = jax.random.key(3)
    assert_equal_trees(learn(restored, rollout, key), learn(state, rollout, key))


def test_rewards_of_steps_are_added_with_weights():
    rollout = walk([1, 2, 1, 1], reset=[1, 0, 0])
    both = add_step_rewards([(2.0, make_counts(NUMBERS, exponent=1.0)), (0.5, make_counts(NUMBERS, exponent=2.0))])
    state, bonus = both.score(both.init(jax.random.key(0), 1), rollout)
    # counts 1, 2, 3
    assert bonus[:, 0].tolist() == pytest.approx([2.5, 2 / 2 + 0.5 / 4, 2 / 3 + 0.5 / 9])
    state, metrics = both.learn(state, rollout, jax.random.key(0))
    assert metrics == {}
    assert len(state) == 2


def test_only_the_kinds_of_steps_are_created_here():
    config = TrainConfig(reward=RewardConfig(count_exponent=1.0))
    assert make_step_reward({"retrieval": 1.0, "none": 0.5}, config, NUMBERS) is None
    both = make_step_reward({"counts": 1.0, "retrieval": 0.5, "rnd": 0.25}, config, NUMBERS)
    counts, rnd = both.init(jax.random.key(0), 2)
    assert counts.shape == (2, 4096)
    _, metrics = both.learn((counts, rnd), walk([1, 2]), jax.random.key(0))
    assert set(metrics) == {"novelty/rnd_error", "novelty/rnd_scale"}


class Corridor:
    """Eleven places in a row; action 1 goes on, action 0 back to the start, and nothing is ever paid.

    Success is to reach the end within twelve steps, as a coin does once in 512 episodes.
    """

    length, steps = 10, 12

    def __init__(self):
        obs = ObsSpec((self.length + 1,), FLOATS)
        self.spec = EnvSpec("corridor", obs, ("back", "on"), max_episode_steps=self.steps)

    def _timestep(self, place, step, success):
        return (place, step, success), TimeStep(
            obs=jax.nn.one_hot(place, self.length + 1),
            reward=jnp.float32(0),
            terminated=step >= self.steps,
            truncated=jnp.bool_(False),
            event=jnp.zeros(0, jnp.uint8),
            info={"success": success},
        )

    def reset(self, key):
        return self._timestep(jnp.int32(0), jnp.int32(0), jnp.bool_(False))

    def step(self, key, state, action):
        place, step, success = state
        place = jnp.where(action == 1, jnp.minimum(place + 1, self.length), 0)
        return self._timestep(place, step + 1, success | (place == self.length))

    def describe(self, event):
        return ""


def successes(weights, updates):
    """Trains in the corridor with rewards of steps alone; returns the success rate of every rollout."""
    num_envs = 16
    config = TrainConfig(
        network=NetworkConfig(hidden_size=16, core="none", core_size=16),
        ppo=PPOConfig(num_steps=24, num_epochs=4, num_minibatches=2, learning_rate=5e-3),
        reward=RewardConfig(
            kind="none",
            intrinsic_coef=1.0,
            count_exponent=2.0,
            rnd=RNDConfig(feature_size=16, learn_share=1.0, num_minibatches=1),
        ),
    )
    env = VectorEnv(Corridor(), num_envs)
    network = make_network(config.network, env.spec, num_values=config.ppo.value_heads)
    learner = make_learner(network, config.ppo, num_updates=updates)
    collect, mix = make_collect(env, network, num_steps=24), make_mix(config.reward)
    novelty = make_step_reward(weights, config, env.spec)
    silent = jnp.zeros((24, num_envs), jnp.int32)

    @jax.jit
    def update(carry, key):
        actor, learning, counts, seen = carry
        keys = jax.random.split(key, 3)
        actor, rollout, _ = collect(learning.params, actor, keys[0])
        seen, bonus = novelty.score(seen, rollout)
        counts, reward, stats = mix(counts, rollout.reward, rollout.reset, silent, jnp.zeros(1), bonus=bonus)
        learning, _ = learner.update(learning, rollout, reward, keys[1])
        seen, _ = novelty.learn(seen, rollout, keys[2])
        rate = (rollout.success & rollout.terminated).sum() / rollout.terminated.sum()
        return (actor, learning, counts, seen), (rate, stats.reward_sum)

    keys = jax.random.split(jax.random.key(0), 4)
    carry = (
        start(env, network, keys[0]),
        learner.init(init_params(network, env.spec, keys[1])),
        empty_counts(config.reward, num_envs),
        novelty.init(keys[2], num_envs),
    )
    _, (rate, earned) = jax.lax.scan(update, carry, jax.random.split(keys[3], updates))
    assert not earned.any()  # captions earned nothing of it
    return rate


@pytest.mark.slow
@pytest.mark.parametrize("weights", [{"counts": 1.0}, {"rnd": 1.0}], ids="-".join)
def test_only_novelty_leads_to_the_end_of_the_corridor(weights):
    # what is known bores `rnd` in the end, and the policy drifts off again: the best of the way is looked at
    rate = successes(weights, 60)
    assert rate[:3].mean() < 0.1
    assert jnp.convolve(rate, jnp.full(5, 0.2), "valid").max() > 0.85
