"""One value for the game's own reward and one for the intrinsic one: by hand, against a plain loop, and in training."""

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

from envs.spec import EnvSpec, ObsSpec
from oni.config import NetworkConfig, PPOConfig, RewardConfig
from oni.networks import make_network, unroll
from oni.ppo import Stream, advantages_and_targets, make_learner, ppo_loss, reward_streams
from oni.trainer import Trainer
from oni.types import MixedReward, Rollout

RETRIEVAL = RewardConfig(kind="retrieval", intrinsic_coef=1.0, count_exponent=0.0)


def rollout_of(value, last_value, bootstrap_value, terminated, truncated):
    """A rollout with nothing but what advantages are made of."""
    blank = dict.fromkeys(Rollout._fields)
    return Rollout(
        **blank
        | {
            "value": jnp.asarray(value, jnp.float32),
            "last_value": jnp.asarray(last_value, jnp.float32),
            "bootstrap_value": jnp.asarray(bootstrap_value, jnp.float32),
            "terminated": jnp.asarray(terminated, bool),
            "truncated": jnp.asarray(truncated, bool),
        }
    )


def mixed(extrinsic, intrinsic):
    extrinsic, intrinsic = jnp.asarray(extrinsic, jnp.float32), jnp.asarray(intrinsic, jnp.float32)
    return MixedReward(total=extrinsic + intrinsic, extrinsic=extrinsic, intrinsic=intrinsic)


# One game, two steps, cut off after the first; a row a step, columns extrinsic and intrinsic.
BY_HAND = (
    mixed([[2.0], [1.0]], [[0.5], [0.25]]),
    rollout_of(
        value=[[[1.0, 4.0]], [[2.0, 8.0]]],
        last_value=[[3.0, 2.0]],
        bootstrap_value=[[[6.0, 1.0]], [[0.0, 0.0]]],
        terminated=[[False], [False]],
        truncated=[[True], [False]],
    ),
)


def test_two_streams_by_hand():
    # extrinsic, discount 1/2, lambda 1/2: step 1: 1 + 0.5 * 3 - 2 = 0.5; step 0: 2 + 0.5 * 6 - 1 = 4, the trace ends
    # intrinsic, discount 1/4:             step 1: 0.25 + 0.25 * 2 - 8 = -7.25; step 0: 0.5 + 0.25 * 1 - 4 = -3.25
    streams = (Stream(0.5, episodic=True), Stream(0.25, episodic=True))
    advantage, target = advantages_and_targets(*BY_HAND, streams, gae_lambda=0.5)
    assert advantage[:, 0].tolist() == [4.0 - 3.25, 0.5 - 7.25]
    assert target[:, 0].tolist() == [[4.0 + 1.0, -3.25 + 4.0], [0.5 + 2.0, -7.25 + 8.0]]


def test_a_stream_that_runs_on_by_hand():
    # intrinsic step 0 now goes on into the next episode, value 8, and with the trace 0.25 * 0.5 * -7.25 of step 1:
    # 0.5 + 0.25 * 8 - 4 = -1.5, and -1.5 - 0.90625 = -2.40625; the extrinsic one still ends
    streams = (Stream(0.5, episodic=True), Stream(0.25, episodic=False))
    advantage, target = advantages_and_targets(*BY_HAND, streams, gae_lambda=0.5)
    assert advantage[:, 0].tolist() == [4.0 - 2.40625, 0.5 - 7.25]
    assert target[0, 0].tolist() == [5.0, 4.0 - 2.40625]


def loop_advantages(reward, value, last_value, bootstrap, terminated, truncated, discount, lam):
    """One game, one stream, plain Python."""
    result, running = [], 0.0
    for t in reversed(range(len(reward))):
        following = value[t + 1] if t + 1 < len(value) else last_value
        following = 0.0 if terminated[t] else bootstrap[t] if truncated[t] else following
        running = (
            reward[t]
            + discount * following
            - value[t]
            + (not (terminated[t] or truncated[t])) * discount * lam * running
        )
        result.append(running)
    return result[::-1]


@pytest.mark.parametrize("episodic", [True, False])
@settings_of_hypothesis(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_two_streams_equal_a_plain_loop(episodic, seed, discount, intrinsic_discount, lam):
    rng = np.random.default_rng(seed)
    steps, batch = 7, 3
    value, bootstrap = rng.normal(size=(2, steps, batch, 2)).astype(np.float32)
    rewards = rng.normal(size=(2, steps, batch)).astype(np.float32)
    last_value = rng.normal(size=(batch, 2)).astype(np.float32)
    ending = rng.integers(0, 4, (steps, batch))
    streams = (Stream(discount, episodic=True), Stream(intrinsic_discount, episodic=episodic))
    rollout = rollout_of(value, last_value, bootstrap, ending == 1, ending == 2)
    advantage, target = advantages_and_targets(mixed(*rewards), rollout, streams, gae_lambda=lam)
    expected = np.zeros((steps, batch, 2))
    for head, stream in enumerate(streams):
        ends = ending if stream.episodic else np.zeros_like(ending)
        for b in range(batch):
            of_game = (value[:, b, head], last_value[b, head], bootstrap[:, b, head])
            expected[:, b, head] = loop_advantages(
                rewards[head, :, b], *of_game, ends[:, b] == 1, ends[:, b] == 2, stream.discount, lam
            )
    np.testing.assert_allclose(advantage, expected.sum(-1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(target, expected + value, rtol=1e-4, atol=1e-4)


def test_streams_of_a_config():
    one = PPOConfig(discount=0.9, intrinsic_discount=0.8, intrinsic_episodic=False)
    assert reward_streams(one) == (Stream(0.9, episodic=True),)
    two = dataclasses.replace(one, value_heads=2)
    assert reward_streams(two) == (Stream(0.9, episodic=True), Stream(0.8, episodic=False))


def test_value_losses_are_summed_over_heads():
    # errors 1 and 3 in the first head, 2 and 0 in the second: 0.5 * (1 + 9) / 2 + 0.5 * (4 + 0) / 2 = 3.5
    one = jnp.ones(2)
    terms = ppo_loss(
        jnp.zeros(2),
        jnp.zeros(2),
        one,
        jnp.array([[1.0, 2.0], [3.0, 0.0]]),
        jnp.zeros((2, 2)),
        jnp.zeros((2, 2)),
        one,
        clip_eps=0.2,
        value_clip_eps=None,
    )
    assert float(terms.value) == 3.5


def test_a_network_with_another_number_of_heads_is_refused():
    spec = EnvSpec(id="any", obs=ObsSpec((2,), np.dtype(np.float32)), action_names=("go",), max_episode_steps=1)
    network = make_network(NetworkConfig(), spec)
    with pytest.raises(ValueError, match="1 value heads, and ppo.value_heads is 2"):
        make_learner(network, PPOConfig(value_heads=2), num_updates=1)


def values(trainer, observations):
    """Values of observations, each the first of an episode: a row an observation, extrinsic and intrinsic."""
    obs = jnp.array(observations, jnp.float32)[None]
    reset = jnp.ones((1, len(observations)), bool)
    state = trainer.network.initial_state(len(observations))
    return np.asarray(unroll(trainer.network, trainer.state.learner.params, state, obs, reset)[1][0])


@pytest.mark.slow
def test_the_extrinsic_head_learns_the_value_of_the_game_alone():
    trainer = trained(config("discount", discount=0.5, value_heads=2, intrinsic_discount=0.9), 100)
    np.testing.assert_allclose(values(trainer, [(0, 0), (0, 1)]), [[0.5, 0.0], [1.0, 0.0]], atol=0.12)


@pytest.mark.slow
def test_the_intrinsic_head_learns_with_its_own_discount_and_runs_on():
    # Only the last of three steps pays, 1, at a discount of a half: worth 0.25, 0.5 and 1 within an episode. As the
    # return runs on into the next one, the last is worth 1 + 0.5 * 0.25 + ... = 1 / (1 - 0.5^3) = 8 / 7.
    options = {"value_heads": 2, "discount": 0.99, "intrinsic_discount": 0.5, "intrinsic_episodic": False}
    trainer = trained(config("last-caption", reward=RETRIEVAL, **options), 100, labels=judge)
    assert trainer.window.means()["success"] > 0.95
    for cue in (1, -1):
        np.testing.assert_allclose(
            values(trainer, [(cue, 0), (cue, 1 / 3), (cue, 2 / 3)]), [[0, 2 / 7], [0, 4 / 7], [0, 8 / 7]], atol=0.05
        )


@pytest.mark.slow
def test_host_games_bootstrap_both_values_through_the_time_limit():
    settings = config("time-limit", value_heads=2, num_steps=7)
    settings = dataclasses.replace(
        settings, env=dataclasses.replace(settings.env, id="hostprobe:time-limit", num_workers=1)
    )
    with Trainer(settings) as trainer:
        params = trainer.state.learner.params
        params["critic"]["bias"] = jnp.array([1.0, 2.0])  # nothing is observed, so these are the values
        _, rollout, _ = trainer.actors.collect(params, trainer.state.actor, jax.random.key(0))
        assert (np.asarray(rollout.value) == [1.0, 2.0]).all()
        assert (np.asarray(rollout.last_value) == [1.0, 2.0]).all()
        truncated = np.asarray(rollout.truncated)
        assert truncated[4].all()
        np.testing.assert_array_equal(rollout.bootstrap_value, truncated[..., None] * np.array([1.0, 2.0]))
        trainer.update()
        assert np.isfinite(trainer.flush().metrics["loss/value"])
