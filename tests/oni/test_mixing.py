"""Guards, schedule, and normalisation of the intrinsic reward: by hand, against a plain loop, and over rollouts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from probing import config, trained
from test_probes import judge
from test_trainer import assert_equal_trees

from oni.checkpoint import Checkpoints
from oni.config import RewardConfig
from oni.errors import ConfigError
from oni.rewards import make_mix, make_schedule
from oni.rewards.guards import GateState, clip_episode, gate_intrinsic, make_guard, score_increase
from oni.rewards.mixing import MixMemory, empty_counts, mix_figures, without_scale
from oni.rewards.normalizing import add_returns, empty_stats, scale_of
from oni.trainer import Trainer

GUARDS = {
    "none": RewardConfig(),
    "clip": RewardConfig(guard="clip", guard_limit=0.4),
    "delta": RewardConfig(guard="delta"),
    "gate": RewardConfig(guard="gate", guard_limit=1.0),
}


def column(*values):
    """One game, a row a step."""
    return jnp.array(values)[:, None]


def test_clip_by_hand():
    # limit 1: 0.6; 0.4 of 0.6; nothing; -0.5 leaves 0.5; 0.5 of 0.7 | new episode: 0.7, and 0.3 of 0.4 at its end | 0.2
    rewards = column(0.6, 0.6, 0.6, -0.5, 0.7, 0.7, 0.4, 0.2)
    reset = column(True, False, False, False, False, True, False, True)
    earned, paid = clip_episode(jnp.array([9.0]), rewards, reset, limit=1.0)
    np.testing.assert_allclose(paid[:, 0], [0.6, 0.4, 0.0, -0.5, 0.5, 0.7, 0.3, 0.2], atol=1e-6)
    assert earned.tolist() == pytest.approx([0.2])


def test_delta_by_hand():
    # the first step of an episode counts in full; then 1 -> 1 nothing, 1 -> 0.25 nothing, 0.25 -> 0.75 half;
    # new episode: 0.75 in full, though it is no increase over the last step of the one before; 0.75 -> 1 a quarter
    score = column(1.0, 1.0, 0.25, 0.75, 0.75, 1.0)
    reset = column(True, False, False, False, True, False)
    last, increase = score_increase(jnp.array([0.5]), score, reset)
    assert increase[:, 0].tolist() == [1.0, 0.0, 0.0, 0.5, 0.75, 0.25]
    assert last.tolist() == [1.0]
    # the episode goes on in the next rollout: 1 -> 1 is no increase
    _, increase = score_increase(last, column(1.0), column(False))
    assert increase.tolist() == [[0.0]]


def test_gate_by_hand():
    # sums of the game's reward: 0, 1 (not more than 1), 1.5 (passed, paid at once), 0.5 (stays open)
    # | new episode: 0, and 2 at its last step, whose caption is paid | closed again
    extrinsic = column(0.0, 1.0, 0.5, -1.0, 0.0, 2.0, 0.0)
    reset = column(True, False, False, False, True, False, True)
    start = GateState(extrinsic=jnp.array([7.0]), is_open=jnp.array([True]))
    state, paid = gate_intrinsic(start, jnp.ones((7, 1)), extrinsic, reset, limit=1.0)
    assert paid[:, 0].tolist() == [0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0]
    assert state.extrinsic.tolist() == [0.0]
    assert state.is_open.tolist() == [False]


def test_returns_by_hand():
    # discount 0.5. Returns: 1, 0.5 * 1 + 0 = 0.5 | new episode: 2, 0.5 * 2 + 1 = 2
    # mean 5.5 / 4 = 1.375; squares 1 + 0.25 + 4 + 4 = 9.25, variance 9.25 / 4 - 1.375^2 = 0.421875
    stats = add_returns(empty_stats(1), column(1.0, 0.0, 2.0, 1.0), column(True, False, True, False), discount=0.5)
    assert float(stats.running[0]) == 2.0
    assert float(stats.num_steps) == 4.0
    assert float(stats.mean) == pytest.approx(1.375)
    assert float(stats.var) == pytest.approx(0.421875)
    assert float(scale_of(stats)) == pytest.approx(0.421875**0.5)
    # the episode goes on: 0.5 * 2 + 0 = 1 and 0.5 * 1 + 3 = 3.5
    # over all six: sum 10, mean 5 / 3; squares 9.25 + 1 + 12.25 = 22.5, variance 3.75 - 25 / 9 = 0.97222
    stats = add_returns(stats, column(0.0, 3.0), column(False, False), discount=0.5)
    assert float(stats.mean) == pytest.approx(5 / 3)
    assert float(stats.var) == pytest.approx(3.75 - 25 / 9)


def test_before_the_first_reward_there_is_no_scale():
    stats = add_returns(empty_stats(2), jnp.zeros((3, 2)), jnp.zeros((3, 2), bool), discount=0.9)
    assert float(stats.num_steps) == 0.0
    assert float(scale_of(stats)) == 1.0
    stats = add_returns(stats, jnp.ones((3, 2)), jnp.ones((3, 2), bool), discount=0.9)
    assert float(stats.num_steps) == 6.0
    assert float(scale_of(stats)) == pytest.approx(0.01)  # all returns are 1: no variance


def test_schedules_by_hand():
    constant = make_schedule(RewardConfig(intrinsic_coef=0.3), total_env_steps=100)
    assert [constant(step) for step in (0, 50, 1000)] == [0.3, 0.3, 0.3]
    to_zero = make_schedule(RewardConfig(intrinsic_coef=0.4, intrinsic_schedule="linear"), total_env_steps=100)
    assert [to_zero(step) for step in (0, 25, 100, 1000)] == pytest.approx([0.4, 0.3, 0.0, 0.0])
    # a fifth of the way from 0.5 to 1: 0.6
    rising = RewardConfig(intrinsic_coef=0.5, intrinsic_schedule="linear", intrinsic_final_coef=1.0)
    assert make_schedule(rising, total_env_steps=100)(20) == pytest.approx(0.6)


def test_normalised_reward_by_hand():
    # no counts, discount 0.5; scores 1, 0, then 1 in a new episode: returns 1, 0.5, 1; mean 5 / 6,
    # variance 2.25 / 3 - 25 / 36 = 1 / 18; each score pays 0.3 * sqrt(18)
    settings = RewardConfig(intrinsic_coef=0.3, count_exponent=0.0, normalize_intrinsic=True)
    state, reward, stats = jax.jit(make_mix(settings, discount=0.5))(
        empty_counts(settings, 1),
        jnp.zeros((3, 1)),
        column(True, False, True),
        column(1, 0, 1),
        jnp.array([0.0, 1.0]),
    )
    pay = 0.3 * 18**0.5
    np.testing.assert_allclose(reward.total[:, 0], [pay, 0.0, pay], rtol=1e-5)
    np.testing.assert_allclose(stats.reward_sum, [0.0, 2 * pay], rtol=1e-5)
    assert float(mix_figures(state, settings)["reward/intrinsic_std"]) == pytest.approx(18**-0.5)
    fresh = without_scale(state, settings)
    assert float(mix_figures(fresh, settings)["reward/intrinsic_std"]) == 1.0
    assert_equal_trees(fresh.counts, state.counts)


def test_delta_looks_at_scores_before_counts():
    # exponent 1; scores 1 and 0.5, then 1 again: the increase of 0.5 is halved as the caption comes up a second time
    settings = RewardConfig(guard="delta", intrinsic_coef=1.0, count_exponent=1.0)
    _, reward, _ = jax.jit(make_mix(settings))(
        empty_counts(settings, 1),
        jnp.zeros((3, 1)),
        column(True, False, False),
        column(1, 2, 1),
        jnp.array([0.0, 1.0, 0.5]),
    )
    assert reward.intrinsic[:, 0].tolist() == [1.0, 0.0, 0.25]


def test_what_does_more_than_count_is_off_by_default():
    state = empty_counts(RewardConfig(), 2)
    assert state.shape == (2, 1024)  # the counts alone, as checkpoints have always had them
    assert mix_figures(state, RewardConfig()) == {}
    assert isinstance(empty_counts(GUARDS["delta"], 2), MixMemory)


@pytest.mark.parametrize("name", ["clip", "gate"])
def test_a_guard_without_its_limit_is_refused(name):
    with pytest.raises(ConfigError, match="needs reward.guard_limit"):
        make_guard(RewardConfig(guard=name))


class PlainGame:
    """One game in plain Python, step by step; `scores` and `rewards` are the two looks that mixing takes."""

    def __init__(self, settings, slots, discount):
        self.settings, self.slots, self.discount = settings, slots, discount
        self.counts, self.last, self.discounted = [0] * slots, 0.0, 0.0
        self.earned, self.extrinsic, self.is_open = 0.0, 0.0, False

    def scores(self, reset, ids, score):
        """Yields score over count, and the discounted return so far."""
        for first, caption_id in zip(reset, ids, strict=True):
            if first:
                self.counts, self.last, self.discounted = [0] * self.slots, 0.0, 0.0
            worth = score[caption_id]
            if self.settings.guard == "delta":
                worth, self.last = max(worth - self.last, 0.0), worth
            if caption_id != 0:
                self.counts[caption_id % self.slots] += 1
                worth /= self.counts[caption_id % self.slots] ** self.settings.count_exponent
            self.discounted = worth + self.discount * self.discounted
            yield worth, self.discounted

    def rewards(self, reset, intrinsic, extrinsic):
        """Yields what is paid."""
        for first, wanted, game in zip(reset, intrinsic, extrinsic, strict=True):
            if first:
                self.earned, self.extrinsic, self.is_open = 0.0, 0.0, False
            self.extrinsic += game
            reward = wanted
            if self.settings.guard == "clip":
                reward = min(reward, self.settings.guard_limit - self.earned)
                self.earned += reward
            if self.settings.guard == "gate":
                self.is_open |= self.extrinsic > self.settings.guard_limit
                reward *= self.is_open
            yield reward


SETTINGS = {
    (guard, normalize): dataclasses.replace(
        config, normalize_intrinsic=normalize, count_slots=4, count_exponent=1.0, extrinsic_coef=0.5
    )
    for guard, config in GUARDS.items()
    for normalize in (False, True)
}
MIXES = {key: jax.jit(make_mix(config, discount=0.8)) for key, config in SETTINGS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("key", SETTINGS, ids=str)
@settings_of_hypothesis(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_mixing_equals_a_plain_loop(key, seed):
    """Three rollouts in a row, so that episodes span their boundaries; the coefficient changes from one to the next."""
    rng = np.random.default_rng(seed)
    settings, steps, batch = SETTINGS[key], 6, 3
    games = [PlainGame(settings, settings.count_slots, 0.8) for _ in range(batch)]
    state, stream = empty_counts(settings, batch), []
    for coef in (0.5, 0.25, 0.0625):
        ids = rng.integers(0, 7, (steps, batch))
        reset = rng.random((steps, batch)) < 0.2
        # quarters: sums are exact, so no rounding decides whether a limit was passed
        extrinsic = rng.integers(-1, 4, (steps, batch)) / 4
        score = rng.integers(0, 5, 8) / 4 * (rng.random() < 0.7)
        score[0] = 0.0
        looks = [list(game.scores(reset[:, b], ids[:, b], score)) for b, game in enumerate(games)]
        returns = [discounted for look in looks for _, discounted in look]
        if stream or any(returns):
            stream += returns
        scale = max(np.std(stream), 0.01) if settings.normalize_intrinsic and stream else 1.0
        expected = np.stack(
            [
                list(game.rewards(reset[:, b], [coef * worth / scale for worth, _ in looks[b]], extrinsic[:, b]))
                for b, game in enumerate(games)
            ],
            axis=1,
        )
        state, reward, stats = MIXES[key](
            state,
            jnp.asarray(extrinsic, jnp.float32),
            jnp.asarray(reset),
            jnp.asarray(ids, jnp.int32),
            jnp.asarray(score, jnp.float32),
            jnp.float32(coef),
        )
        np.testing.assert_allclose(reward.intrinsic, expected, rtol=2e-4, atol=1e-5)
        np.testing.assert_allclose(reward.total, 0.5 * extrinsic + expected, rtol=2e-4, atol=1e-5)
        by_caption = [expected[ids == caption_id].sum() for caption_id in range(8)]
        np.testing.assert_allclose(stats.reward_sum, by_caption, rtol=2e-4, atol=1e-4)


def random_steps(num_steps):
    """Game reward, episode starts and captions of two games, and scores of four captions."""
    rng = np.random.default_rng(3)
    steps = (
        jnp.asarray(rng.integers(0, 4, (num_steps, 2)) / 4, jnp.float32),
        jnp.asarray(rng.random((num_steps, 2)) < 0.25),
        jnp.asarray(rng.integers(0, 4, (num_steps, 2)), jnp.int32),
    )
    return steps, jnp.array([0.0, 1.0, 0.5, 0.25])


@pytest.mark.slow
@pytest.mark.parametrize("name", GUARDS)
def test_one_long_rollout_equals_two_halves(name):
    settings = dataclasses.replace(GUARDS[name], count_slots=4, intrinsic_coef=0.25)
    steps, score = random_steps(8)
    mix = jax.jit(make_mix(settings))
    whole_state, whole, _ = mix(empty_counts(settings, 2), *steps, score)
    state, first, _ = mix(empty_counts(settings, 2), *(part[:4] for part in steps), score)
    state, second, _ = mix(state, *(part[4:] for part in steps), score)
    np.testing.assert_array_equal(whole.intrinsic, jnp.concatenate([first.intrinsic, second.intrinsic]))
    assert_equal_trees(whole_state, state)


@pytest.mark.slow
@pytest.mark.parametrize("key", SETTINGS, ids=str)
def test_what_mixing_keeps_goes_through_a_checkpoint(tmp_path, key):
    steps, score = random_steps(6)
    state, _, _ = MIXES[key](empty_counts(SETTINGS[key], 2), *steps, score)
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        assert checkpoints.save(1, {"counts": state}, {})
        restored = checkpoints.restore(like={"counts": empty_counts(SETTINGS[key], 2)}).device["counts"]
    assert any(np.asarray(leaf).any() for leaf in jax.tree.leaves(state))
    assert_equal_trees(restored, state)
    assert_equal_trees(MIXES[key](restored, *steps, score), MIXES[key](state, *steps, score))


BONUS_STEPS = (
    jnp.zeros((3, 1)),
    column(True, False, False),
    column(1, 0, 1),
    jnp.array([0.0, 1.0]),
)
"""One game that says caption 1, nothing, and caption 1 again; only that caption is worth anything."""


def test_a_bonus_is_added_to_what_captions_earn():
    # exponent 1: 0.5 * (1 / 1 + 2), 0.5 * (0 + 0.5), 0.5 * (1 / 2 + 0); of it the caption earned 0.5 + 0.25
    settings = RewardConfig(intrinsic_coef=0.5, count_exponent=1.0)
    _, reward, stats = make_mix(settings)(empty_counts(settings, 1), *BONUS_STEPS, 0.5, bonus=column(2.0, 0.5, 0.0))
    assert reward.intrinsic[:, 0].tolist() == [1.5, 0.25, 0.25]
    assert reward.total[:, 0].tolist() == [1.5, 0.25, 0.25]
    assert stats.reward_sum.tolist() == [0.0, 0.75]
    assert stats.num_steps.tolist() == [0, 2]


def test_a_guard_cuts_caption_and_bonus_alike():
    # 0.5 * (1 + 2) = 1.5 of at most 1: two thirds, of which the caption's 0.5 is a third; then nothing is left
    settings = RewardConfig(intrinsic_coef=0.5, count_exponent=1.0, guard="clip", guard_limit=1.0)
    _, reward, stats = make_mix(settings)(empty_counts(settings, 1), *BONUS_STEPS, 0.5, bonus=column(2.0, 0.5, 0.0))
    assert reward.intrinsic[:, 0].tolist() == [1.0, 0.0, 0.0]
    np.testing.assert_allclose(stats.reward_sum, [0.0, 1 / 3], rtol=1e-6)


def test_the_normaliser_sees_caption_and_bonus_together():
    # discount 0.5, sums 3, 0.5, 0.5: returns 3, 2, 1.5; variance 15.25 / 3 - (6.5 / 3)^2
    settings = RewardConfig(intrinsic_coef=1.0, count_exponent=1.0, normalize_intrinsic=True)
    state, reward, _ = make_mix(settings, discount=0.5)(
        empty_counts(settings, 1), *BONUS_STEPS, 1.0, bonus=column(2.0, 0.5, 0.0)
    )
    scale = (15.25 / 3 - (6.5 / 3) ** 2) ** 0.5
    np.testing.assert_allclose(reward.intrinsic[:, 0], [3 / scale, 0.5 / scale, 0.5 / scale], rtol=1e-4)
    assert state.returns.running.tolist() == [1.5]


def test_the_scale_of_a_return_that_runs_on_through_ends_of_episodes():
    # scores 1, 0, 1 with ends in between, discount 0.5: returns 1, 0.5, 1.25 as if there were none
    settings = RewardConfig(count_exponent=0.0, normalize_intrinsic=True)
    for episodic, last in ((True, 1.0), (False, 1.25)):
        state, _, _ = make_mix(settings, discount=0.5, episodic=episodic)(
            empty_counts(settings, 1), jnp.zeros((3, 1)), column(True, False, True), *BONUS_STEPS[2:]
        )
        assert state.returns.running.tolist() == [last]


@pytest.mark.slow
@pytest.mark.parametrize("key", SETTINGS, ids=str)
def test_no_bonus_is_a_bonus_of_nothing(key):
    steps, score = random_steps(8)
    ours = MIXES[key](empty_counts(SETTINGS[key], 2), *steps, score)
    theirs = MIXES[key](empty_counts(SETTINGS[key], 2), *steps, score, bonus=jnp.zeros((8, 2)))
    assert_equal_trees(ours[:2], theirs[:2])
    np.testing.assert_allclose(ours[2].reward_sum, theirs[2].reward_sum, rtol=1e-6)


RUNS = [
    RewardConfig(intrinsic_coef=0.5, normalize_intrinsic=True, intrinsic_schedule="linear"),
    RewardConfig(intrinsic_coef=0.5, guard="clip", guard_limit=0.6),
    RewardConfig(intrinsic_coef=0.5, guard="delta", normalize_intrinsic=True),
    # the probe's game pays nothing, so a limit of 0 is never passed: the gate's own state is what is compared
    RewardConfig(intrinsic_coef=0.5, guard="gate", guard_limit=0.0),
]


@pytest.mark.slow
@pytest.mark.parametrize("reward", RUNS, ids=lambda reward: f"{reward.guard}-{reward.normalize_intrinsic}")
def test_a_resumed_run_is_bit_equal_to_one_never_stopped(tmp_path, reward):
    # 5 steps a rollout and 3 an episode: the run is stopped within episodes
    settings = config("last-caption", reward=reward, num_steps=5)
    whole = trained(settings, 3, labels=judge)
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        assert checkpoints.save(3, whole.state, whole.host_state())
    resumed = Trainer(settings)
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        restored = checkpoints.restore(like=resumed.state)
    resumed.load(restored.device, restored.host)
    for trainer in (whole, resumed):
        for _ in range(2):
            trainer.update()
        trainer.flush()
    assert_equal_trees(resumed.state, whole.state)
    assert resumed.host_state() == whole.host_state()


@pytest.mark.slow
def test_figures_say_coefficient_and_scale_and_nothing_compiles_anew():
    reward = RewardConfig(intrinsic_coef=1.0, intrinsic_schedule="linear", normalize_intrinsic=True)
    trainer = Trainer(config("last-caption", reward=reward))
    figures = []
    for _ in range(4):
        progress = trainer.update()
        trainer.take_labels(judge(progress.new))
        figures.append(trainer.flush().metrics)
    # 256 steps an update of 10,000
    assert [f["reward/intrinsic_coef"] for f in figures] == pytest.approx([1.0, 0.9744, 0.9488, 0.9232])
    assert figures[0]["reward/intrinsic_std"] == 1.0  # no labels yet
    assert 0.01 < figures[-1]["reward/intrinsic_std"] < 1.0
    assert trainer.rewarding._mix._cache_size() == 1
    trainer.forget_labels()
    trainer.update()
    assert trainer.flush().metrics["reward/intrinsic_std"] == 1.0


@pytest.mark.slow
def test_the_reward_logged_is_what_the_guard_left():
    reward = RewardConfig(intrinsic_coef=1.0, count_exponent=0.0, guard="clip", guard_limit=0.25)
    trainer = Trainer(config("last-caption", reward=reward, num_steps=6))
    trainer.take_labels(judge(trainer.update().new))
    trainer.flush()
    trainer.update()
    figures = trainer.flush().metrics
    # an episode of three steps earns 0.25 at its last, if at all: at most a twelfth a step
    assert 0.0 < figures["reward/intrinsic"] <= 0.25 / 3 + 1e-6
    assert trainer.captions.reward_sum.sum() == pytest.approx(figures["reward/intrinsic"] * 32 * 6, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("reward", RUNS[:3], ids=lambda reward: f"{reward.guard}-{reward.normalize_intrinsic}")
def test_the_last_caption_of_an_episode_is_paid(reward):
    trainer = trained(config("last-caption", reward=reward), 80, labels=judge)
    assert trainer.window.means()["success"] > 0.95
