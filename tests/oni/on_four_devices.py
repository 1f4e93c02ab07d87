"""Runs with four devices against runs with one; `test_devices.py` starts pytest on this file where there are four.

With one minibatch every device count learns from the same rows, so that parameters agree up to the order of sums.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probing import config
from test_probes import judge
from test_sebulba import host_config

from oni.checkpoint import Checkpoints, is_key
from oni.compilations import ROLLOUT, UPDATE, Compilations
from oni.config import EnvConfig, NetworkConfig, RewardConfig
from oni.devices import ROLLOUT as ROLLOUT_LAYOUT
from oni.devices import STEPS
from oni.evaluation import greedy
from oni.ppo import make_learner
from oni.sampling.windows import make_gather
from oni.trainer import Trainer
from oni.types import MixedReward

UPDATES = 5
GRU = NetworkConfig(hidden_size=16, core="gru", core_size=16)
MIXED = RewardConfig(
    kind="retrieval", intrinsic_coef=1.0, normalize_intrinsic=True, guard="clip", guard_limit=5.0, add="counts"
)
NOVEL = RewardConfig(kind="rnd", intrinsic_coef=1.0)


def on(devices, settings):
    return Trainer(dataclasses.replace(settings, devices=devices))


def figures_of(trainer, updates=UPDATES):
    """Trains for some updates, with the labels of what came up; returns all metrics."""
    figures = []
    for number in range(updates):
        progress = trainer.update(last=number == updates - 1)
        trainer.take_labels(judge(progress.new))
        figures.append(progress.metrics)
    return [*figures, trainer.flush().metrics]


def assert_close(ours, theirs, tolerance=1e-5):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)


def assert_same_run(ours, theirs):
    """Fails unless both runs, trained equally long, saw the same and learned the same."""
    assert_close(ours.state.learner, theirs.state.learner)
    np.testing.assert_array_equal(ours.captions.count, theirs.captions.count)
    np.testing.assert_array_equal(ours.captions.episode_count, theirs.captions.episode_count)
    assert ours.captions.texts == theirs.captions.texts
    assert_close(ours.captions.reward_sum, theirs.captions.reward_sum)
    for totals, expected in zip(ours.window.state(), theirs.window.state(), strict=True):
        assert totals[:-1] == pytest.approx(expected[:-1], rel=1e-5)
        assert totals[-1] == pytest.approx(expected[-1], rel=1e-5)


def test_there_are_four_devices():
    assert jax.local_device_count() == 4
    assert str(on("auto", config("policy")).devices) == "4 devices (cpu)"


def test_four_devices_learn_what_one_learns():
    settings = config("intrinsic", reward=MIXED, network=GRU, num_minibatches=1)
    with on(1, settings) as one, on(4, settings) as four:
        expected, found = figures_of(one), figures_of(four)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
        assert_same_run(four, one)
        assert one.captions.count.sum() == one.env_step, "each step of this game says something: none counts twice"
        shards = four.state.actor.obs.addressable_shards
        assert [shard.data.shape[0] for shard in shards] == [8, 8, 8, 8]


def test_four_devices_play_the_games_that_one_plays():
    """A jitted game whose worlds, resets and pointless lines are all drawn at random."""
    options = {"talkative": True, "max_steps": 12}
    env = EnvConfig(id="xminigrid:MiniGrid-DoorKey-5x5", num_envs=16, options=options)
    settings = dataclasses.replace(config("policy", num_minibatches=1, num_steps=32), env=env)
    with on(1, settings) as one, on(4, settings) as four:
        played = [trainer.actors.collect(trainer.state.learner.params, trainer.state.actor, jax.random.key(3))
                  for trainer in (one, four)]  # fmt: skip
        (state, rollout, said), (state4, rollout4, said4) = jax.device_get(played)
        np.testing.assert_array_equal(said4, said)
        assert said.any()
        assert rollout.truncated.any()
        for name in ("obs", "action", "reset", "reward", "terminated", "truncated", "episode_length", "last_obs"):
            np.testing.assert_array_equal(getattr(rollout4, name), getattr(rollout, name), err_msg=name)
        for ours, theirs in zip(jax.tree.leaves(state4.env_state), jax.tree.leaves(state.env_state), strict=True):
            np.testing.assert_array_equal(
                *(jax.random.key_data(leaf) if is_key(leaf) else leaf for leaf in (ours, theirs))
            )


def taken(tree, layout, rows):
    """The given games of a rollout or a reward."""
    return jax.tree.map(
        lambda how, part: jax.tree.map(lambda leaf: leaf[:, rows] if how == STEPS else leaf[rows], part), layout, tree
    )


def test_a_gradient_step_is_that_of_the_joined_games_of_all_devices():
    settings = config("policy", network=GRU, num_minibatches=2, num_epochs=2)
    games, devices = settings.env.num_envs, 4
    with on(devices, settings) as trainer:
        params, key = trainer.state.learner.params, jax.random.key(5)
        _, rollout, _ = trainer.actors.collect(params, trainer.state.actor, key)
        reward = MixedReward(total=rollout.reward, extrinsic=rollout.reward, intrinsic=jnp.zeros_like(rollout.reward))
        found, *_ = trainer._learn(trainer.state.learner, rollout, reward, key)
        assert found.params["actor"]["kernel"].sharding.is_fully_replicated

        rollout, reward, params = jax.device_get((rollout, reward, params))
        one_step = dataclasses.replace(settings.ppo, num_minibatches=1, num_epochs=1)
        learner = make_learner(trainer.network, one_step, num_updates=1)
        learn, state = jax.jit(learner.update), learner.init(params)
        for epoch_key in jax.random.split(key, settings.ppo.num_epochs):
            shuffled = [
                jax.random.permutation(jax.random.fold_in(epoch_key, d), games // devices).reshape(2, -1)
                + d * (games // devices)
                for d in range(devices)
            ]
            for minibatch in range(2):
                rows = np.concatenate([order[minibatch] for order in shuffled])
                parts = taken(rollout, ROLLOUT_LAYOUT, rows), taken(reward, MixedReward(STEPS, STEPS, STEPS), rows)
                state, _ = learn(state, *parts, key)
        assert_close(found, state)
        moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), jax.device_get(found.params), params)
        assert max(jax.tree.leaves(moved)) > 1e-2, "otherwise anything would be close"


def test_a_checkpoint_goes_on_with_another_number_of_devices(tmp_path):
    settings = config("intrinsic", reward=MIXED, network=GRU, num_minibatches=1)
    with on(4, settings) as whole, on(4, settings) as part:
        figures_of(whole, 5)
        figures_of(part, 3)
        with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
            assert checkpoints.save(3, part.state, part.host_state(), reward=part.reward_arrays())
        for count in (1, 2, 4):
            with on(count, settings) as resumed, Checkpoints(tmp_path / "c", keep=1) as checkpoints:
                restored = checkpoints.restore(like=resumed.state, reward=resumed.reward_arrays())
                resumed.load(restored.device, restored.host, restored.reward)
                with Compilations() as heard:
                    figures_of(resumed, 2)
                assert heard.count(ROLLOUT) == heard.count(UPDATE) == 1
                assert_same_run(resumed, whole)
                if count == 4:
                    assert_close(resumed.state, whole.state, tolerance=0.0)


def test_novelty_is_normalised_and_learned_over_the_games_of_all():
    settings = config("obs-policy", reward=NOVEL, num_minibatches=1)
    with on(1, settings) as one, on(4, settings) as four:
        expected, found = figures_of(one, 1)[-1], figures_of(four, 1)[-1]
        assert found["reward/bonus"] == pytest.approx(expected["reward/bonus"], rel=1e-4)
        assert found["novelty/rnd_scale"] == pytest.approx(expected["novelty/rnd_scale"], rel=1e-4)
        (_, (state,)), (_, (state4,)) = one.reward_arrays(), four.reward_arrays()
        assert_close(state4.obs, state.obs)
        assert_close(state4.returns, state.returns)
        figures = figures_of(four, 10)
        assert figures[-1]["novelty/rnd_error"] < 0.5 * found["novelty/rnd_error"], "the predictor learns"
        for leaf in jax.tree.leaves(four.reward_arrays()[1][0].predictor):
            for shard in leaf.addressable_shards:
                np.testing.assert_array_equal(np.asarray(shard.data), np.asarray(leaf))


def test_each_part_is_compiled_once_on_four_devices():
    with Compilations() as heard, on(4, config("intrinsic", reward=MIXED)) as trainer:
        figures_of(trainer)
        assert heard.count(ROLLOUT) == heard.count(UPDATE) == heard.count("mix") == 1


def test_games_on_the_host_are_learned_from_by_all_devices():
    settings = host_config("intrinsic", reward=MIXED, num_minibatches=1)
    with on(1, settings) as one, on(4, settings) as four:
        figures_of(one, 3)
        figures_of(four, 3)
        assert_same_run(four, one)
        found, expected = (
            trainer.actors.play(trainer.state.learner.params, num_episodes=8, seed=1, choose=greedy)
            for trainer in (four, one)
        )
        np.testing.assert_array_equal(found.extrinsic_return, expected.extrinsic_return)


def test_moments_are_cut_out_of_the_games_of_all_devices():
    settings = config("memory")
    windows = []
    for devices in (1, 4):
        with on(devices, settings) as trainer:
            _, rollout, _ = trainer.actors.collect(trainer.state.learner.params, trainer.state.actor, jax.random.key(1))
            intrinsic = trainer.devices.place(rollout.reward * 2.0, STEPS)
            where = np.array([[3, row] for row in range(0, 32, 4)], np.int32)
            gather = make_gather(trainer.devices, before=2, after=1)
            windows.append(jax.device_get(gather(rollout, intrinsic, rollout.action, where)))
    one, four = windows
    for ours, theirs in zip(jax.tree.leaves(four), jax.tree.leaves(one), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_evaluation_needs_one_device():
    settings = config("policy", num_minibatches=1)
    with on(1, settings) as one, on(4, settings) as four:
        found, expected = (
            trainer.actors.play(trainer.state.learner.params, num_episodes=8, seed=1, choose=greedy)
            for trainer in (four, one)
        )
        np.testing.assert_array_equal(found.extrinsic_return, expected.extrinsic_return)
