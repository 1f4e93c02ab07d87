"""Networks: sequences equal repeated steps, and episodes do not leak into each other."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.spec import EnvSpec, ObsSpec
from oni.config import NetworkConfig
from oni.errors import ConfigError
from oni.networks import act, init_params, make_network, unroll
from oni.networks.encoders import CellConv, make_encoder


def network_for(core, env_id="probe:memory"):
    spec = envs.make(env_id).spec
    network = make_network(NetworkConfig(core=core, core_size=8, hidden_size=8), spec)
    params = init_params(network, spec, jax.random.key(0))
    # the heads start near zero; make the outputs depend on the features
    return network, jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(1), p.shape), params)


@pytest.mark.parametrize("core", ["gru", "lstm", "none"])
def test_a_sequence_equals_its_steps(core):
    network, params = network_for(core)
    steps, batch = 6, 3
    obs = jax.random.normal(jax.random.key(2), (steps, batch, 2))
    reset = jax.random.bernoulli(jax.random.key(3), 0.3, (steps, batch))
    state = jax.tree.map(lambda s: s + 1.0, network.initial_state(batch))
    logits, value = unroll(network, params, state, obs, reset)
    for t in range(steps):
        state, step_logits, step_value = act(network, params, state, obs[t], reset[t])
        np.testing.assert_allclose(step_logits, logits[t], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(step_value, value[t], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("core", ["gru", "lstm"])
def test_a_reset_forgets(core):
    network, params = network_for(core)
    obs = jax.random.normal(jax.random.key(2), (4, 1, 2))
    reset = jnp.zeros((4, 1), bool).at[2].set(True)
    before = network.initial_state(1)
    other = jax.tree.map(lambda s: s + 5.0, before)
    ours, _ = unroll(network, params, before, obs, reset)
    theirs, _ = unroll(network, params, other, obs, reset)
    assert not np.allclose(ours[1], theirs[1])
    np.testing.assert_array_equal(ours[2:], theirs[2:])


def test_gru_by_hand():
    network, params = network_for("gru")
    zero = jax.tree.map(jnp.zeros_like, params)
    state = jnp.full((1, 8), 2.0)
    # all weights zero: both gates are 1/2 and the candidate is 0, so the state halves
    state, _, _ = act(network, zero, state, jnp.ones((1, 2)), jnp.zeros(1, bool))
    np.testing.assert_allclose(state, 1.0)


def test_lstm_by_hand():
    network, params = network_for("lstm")
    zero = jax.tree.map(jnp.zeros_like, params)
    state = (jnp.full((1, 8), 2.0), jnp.zeros((1, 8)))
    # all weights zero: the forget gate is sigmoid(1), nothing is let in, the output gate is 1/2
    (cell, hidden), _, _ = act(network, zero, state, jnp.ones((1, 2)), jnp.zeros(1, bool))
    kept = 2.0 / (1.0 + np.exp(-1.0))
    np.testing.assert_allclose(cell, kept, rtol=1e-6)
    np.testing.assert_allclose(hidden, 0.5 * np.tanh(kept), rtol=1e-6)


def test_cells_of_a_grid_are_told_apart_by_every_channel():
    network, params = network_for("none", "xminigrid:MiniGrid-Empty-5x5")
    obs = np.zeros((3, 7, 7, 2), np.uint8)
    obs[1, 3, 3, 0] = 7  # another tile
    obs[2, 3, 3, 1] = 7  # another colour
    _, logits, _ = act(network, params, (), jnp.asarray(obs), jnp.zeros(3, bool))
    assert len(np.unique(np.asarray(logits).round(6), axis=0)) == 3


NETHACK_OBS = {
    "crop": ObsSpec((9, 9, 2), np.dtype(np.uint8), (256, 16)),
    "map": ObsSpec((21, 79, 2), np.dtype(np.uint8), (256, 16)),
    "message": ObsSpec((256, 1), np.dtype(np.uint8), (256,)),
    "status": ObsSpec((5,), np.dtype(np.float32)),
}


def spec_of(obs):
    return EnvSpec(id="some:game", obs=obs, action_names=("left", "right"), max_episode_steps=10)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["small", "large"])
def test_every_named_observation_matters(encoder):
    spec = spec_of(NETHACK_OBS)
    network = make_network(NetworkConfig(encoder=encoder, hidden_size=16, core="none"), spec)
    params = init_params(network, spec, jax.random.key(0))
    obs = {name: jnp.zeros((1, *one.shape), one.dtype) for name, one in NETHACK_OBS.items()}
    _, before, _ = act(network, params, (), obs, jnp.zeros(1, bool))
    for name, leaf in obs.items():
        changed = obs | {name: jnp.ones_like(leaf)}
        _, after, _ = act(network, params, (), changed, jnp.zeros(1, bool))
        assert not np.array_equal(before, after), name


def test_the_large_encoder_needs_a_map():
    crop_only = spec_of({name: NETHACK_OBS[name] for name in ("crop", "status")})
    for spec in (crop_only, spec_of(ObsSpec((3,), np.dtype(np.float32)))):
        with pytest.raises(ConfigError, match="observation full"):
            make_network(NetworkConfig(encoder="large"), spec)


def pixels_spec(shape, dtype):
    return EnvSpec(id="test:pixels", obs=ObsSpec(shape, np.dtype(dtype)), action_names=("a", "b"), max_episode_steps=10)


def features(spec, obs):
    encoder = make_encoder(NetworkConfig(hidden_size=8), spec)
    return np.asarray(encoder.apply(encoder.init(jax.random.key(0), obs), obs))


@pytest.mark.slow
def test_bool_planes_are_seen_cell_by_cell_and_plane_by_plane():
    obs = np.zeros((3, 10, 10, 4), bool)
    obs[1, 2, 3, 0] = True
    obs[2, 2, 3, 1] = True
    assert len(np.unique(features(pixels_spec((10, 10, 4), bool), jnp.asarray(obs)).round(6), axis=0)) == 3


@pytest.mark.slow
def test_pixels_count_as_shares_of_255():
    obs = np.random.default_rng(0).integers(0, 256, (2, 40, 36, 3), dtype=np.uint8)
    of_pixels = features(pixels_spec((40, 36, 3), np.uint8), jnp.asarray(obs))
    of_shares = features(pixels_spec((40, 36, 3), np.float32), jnp.asarray(obs / 255.0, jnp.float32))
    np.testing.assert_allclose(of_pixels, of_shares, rtol=1e-5, atol=1e-6)
    assert not np.allclose(of_pixels[0], of_pixels[1])


def test_a_convolution_of_cells_is_the_library_s_with_the_same_parameters():
    obs = jax.random.normal(jax.random.key(1), (2, 7, 6, 4))
    ours, theirs = (
        CellConv(5),
        nn.Conv(5, (3, 3), padding="VALID", kernel_init=nn.initializers.orthogonal(np.sqrt(2.0))),
    )
    params = ours.init(jax.random.key(0), obs)
    jax.tree.map(np.testing.assert_array_equal, params, theirs.init(jax.random.key(0), obs))
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    np.testing.assert_allclose(ours.apply(params, obs), theirs.apply(params, obs), rtol=1e-5, atol=1e-5)


def test_small_pictures_get_one_convolution_and_big_ones_three():
    for side, convolutions in ((10, 1), (36, 3)):
        spec = pixels_spec((side, side, 2), np.uint8)
        network = make_network(NetworkConfig(), spec)
        params = jax.eval_shape(
            lambda key, network=network, spec=spec: init_params(network, spec, key), jax.random.key(0)
        )
        assert sum(name.startswith("Conv") for name in params["encoder"]) == convolutions
