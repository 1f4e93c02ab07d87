"""The mathematics of PPO against numbers worked out by hand and plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oni.ppo import categorical_entropy, categorical_log_prob, generalized_advantages, ppo_loss


def column(*values, dtype=jnp.float32):
    return jnp.array(values, dtype)[:, None]


def test_advantages_by_hand():
    # discount 1/2, lambda 1/2; two steps that go on:
    # delta_1 = 1 + 0.5 * 4 - 2 = 1;  delta_0 = 0 + 0.5 * 2 - 1 = 0;  adv_0 = 0 + 0.25 * 1
    advantage = generalized_advantages(
        column(0.0, 1.0),
        column(1.0, 2.0),
        jnp.array([4.0]),
        column(0, 0, dtype=bool),
        column(0, 0, dtype=bool),
        column(9.0, 9.0),
        discount=0.5,
        gae_lambda=0.5,
    )
    assert advantage[:, 0].tolist() == [0.25, 1.0]


def test_advantages_end_with_the_episode():
    # terminated at step 0: delta_0 = 3 - 1 = 2, and nothing of step 1 reaches it
    advantage = generalized_advantages(
        column(3.0, 1.0),
        column(1.0, 2.0),
        jnp.array([4.0]),
        column(1, 0, dtype=bool),
        column(0, 0, dtype=bool),
        column(9.0, 9.0),
        discount=0.5,
        gae_lambda=0.5,
    )
    assert advantage[:, 0].tolist() == [2.0, 1.0]


def test_advantages_bootstrap_through_a_time_limit():
    # truncated at step 0 with value 8 beyond: delta_0 = 3 + 0.5 * 8 - 1 = 6
    advantage = generalized_advantages(
        column(3.0, 1.0),
        column(1.0, 2.0),
        jnp.array([4.0]),
        column(0, 0, dtype=bool),
        column(1, 0, dtype=bool),
        column(8.0, 9.0),
        discount=0.5,
        gae_lambda=0.5,
    )
    assert advantage[:, 0].tolist() == [6.0, 1.0]


def loop_advantages(reward, value, last_value, terminated, truncated, bootstrap, discount, lam):
    steps, batch = reward.shape
    advantage = np.zeros((steps, batch))
    for b in range(batch):
        running = 0.0
        for t in reversed(range(steps)):
            following = last_value[b] if t == steps - 1 else value[t + 1, b]
            if terminated[t, b]:
                following = 0.0
            elif truncated[t, b]:
                following = bootstrap[t, b]
            ended = terminated[t, b] or truncated[t, b]
            delta = reward[t, b] + discount * following - value[t, b]
            running = delta + (0.0 if ended else discount * lam * running)
            advantage[t, b] = running
    return advantage


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 1))
def test_advantages_equal_a_plain_loop(seed, discount, lam):
    rng = np.random.default_rng(seed)
    steps, batch = 7, 3
    reward, value, bootstrap = rng.normal(size=(3, steps, batch)).astype(np.float32)
    last_value = rng.normal(size=batch).astype(np.float32)
    ending = rng.integers(0, 4, (steps, batch))
    arguments = (reward, value, last_value, ending == 1, ending == 2, bootstrap)
    ours = generalized_advantages(*map(jnp.asarray, arguments), discount=discount, gae_lambda=lam)
    np.testing.assert_allclose(ours, loop_advantages(*arguments, discount, lam), rtol=1e-4, atol=1e-5)


def test_log_prob_and_entropy_by_hand():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
    np.testing.assert_allclose(categorical_log_prob(logits, jnp.array([1])), [np.log(0.25)], rtol=1e-6)
    np.testing.assert_allclose(categorical_entropy(logits), [1.5 * np.log(2)], rtol=1e-6)


def loss_of(ratio, advantage, *, value=0.0, old_value=0.0, target=0.0, value_clip_eps=None):
    one = jnp.ones(1)
    return ppo_loss(
        jnp.log(ratio * one),
        jnp.zeros(1),
        advantage * one,
        value * one,
        old_value * one,
        target * one,
        one,
        clip_eps=0.2,
        value_clip_eps=value_clip_eps,
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "policy"),
    [(1.1, 2.0, -2.2), (1.5, 2.0, -2.4), (1.5, -2.0, 3.0), (0.5, 2.0, -1.0), (0.5, -2.0, 1.6)],
)
def test_policy_loss_clips_only_what_goes_too_far_in_the_good_direction(ratio, advantage, policy):
    assert float(loss_of(ratio, advantage).policy) == pytest.approx(policy, rel=1e-5)


def test_other_terms_by_hand():
    terms = loss_of(1.5, 1.0, value=3.0, target=1.0)
    assert float(terms.value) == pytest.approx(2.0)
    assert float(terms.entropy) == 1.0
    assert float(terms.clip_fraction) == 1.0
    assert float(terms.kl) == pytest.approx(0.5 - np.log(1.5), rel=1e-4)


def test_clipped_value_takes_the_worse_error():
    # value moved from 0 to 3, clipped to 1; target 3: unclipped error 0, clipped (1 - 3)^2 = 4
    assert float(loss_of(1.0, 0.0, value=3.0, target=3.0, value_clip_eps=1.0).value) == pytest.approx(2.0)
    assert float(loss_of(1.0, 0.0, value=3.0, target=3.0).value) == 0.0


def test_gradient_of_log_prob_is_one_hot_minus_probability():
    gradient = jax.grad(lambda logits: categorical_log_prob(logits, jnp.array([0])).sum())(jnp.zeros((1, 4)))
    np.testing.assert_allclose(gradient, [[0.75, -0.25, -0.25, -0.25]], atol=1e-6)
