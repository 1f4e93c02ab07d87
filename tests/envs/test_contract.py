"""`check_env` over what is registered, and over environments that break one rule each."""

import jax
import jax.numpy as jnp
import pytest

import envs
from envs.errors import EnvContractError
from envs.probes import PROBES, ProbeEnv
from envs.testing import check_env
from envs.vector import replace_rows


@pytest.mark.parametrize("name", PROBES)
def test_probes_keep_the_contract(name):
    check_env(envs.make(f"probe:{name}"))


MINIGRID = [env_id for env_id in envs.list_envs() if env_id.startswith("xminigrid:")]


@pytest.mark.slow
@pytest.mark.parametrize("env_id", MINIGRID[::6])
def test_minigrid_keeps_the_contract(env_id):
    check_env(envs.make(env_id), num_envs=4)


@pytest.mark.slow
def test_talkative_world_keeps_the_contract():
    env = envs.make("xminigrid:MiniGrid-BlockedUnlockPickUp", talkative=True)
    assert check_env(env) > 60  # mostly chatter


@pytest.mark.parametrize("env_id", MINIGRID)
def test_every_minigrid_task_can_be_made(env_id):
    assert envs.make(env_id).spec.id == env_id


class Broken(ProbeEnv):
    """A probe that spoils what it returns."""

    def __init__(self, spoil, spec=None):
        super().__init__("memory")
        self._spoil = spoil
        if spec is not None:
            self.spec = self.spec._replace(**spec)

    def step(self, key, state, action):
        return self._spoil(key, *super().step(key, state, action))


def spoil_step(**fields):
    def spoil(key, state, timestep):
        return state, timestep._replace(**{name: change(key, timestep) for name, change in fields.items()})

    return spoil


@pytest.mark.parametrize(
    ("spoil", "spec", "message"),
    [
        (spoil_step(obs=lambda k, t: t.obs[:1]), None, "obs"),
        (spoil_step(reward=lambda k, t: t.reward[None]), None, "reward"),
        (spoil_step(terminated=lambda k, t: t.terminated.astype(jnp.float32)), None, "terminated"),
        (spoil_step(event=lambda k, t: jnp.zeros(3, jnp.uint8)), None, "event"),
        (spoil_step(info=lambda k, t: {}), None, "success"),
        (spoil_step(truncated=lambda k, t: t.terminated), None, "both"),
        (spoil_step(reward=lambda k, t: jnp.float32(jnp.nan)), None, "finite"),
        (spoil_step(info=lambda k, t: {"success": jnp.bool_(True)}), None, "before the end"),
        (spoil_step(terminated=lambda k, t: jnp.bool_(False)), None, "at most"),
        (spoil_step(final_obs=lambda k, t: t.obs), None, "final_obs"),
        (lambda key, state, t: (state._replace(step=state.step.astype(jnp.float32)), t), None, "twice"),
        (lambda key, state, t: (state, t), {"max_episode_steps": 2}, "promises at most 2"),
    ],
)
def test_every_broken_rule_is_named(spoil, spec, message):
    with pytest.raises(EnvContractError, match=message):
        check_env(Broken(spoil, spec))


def test_observations_above_their_range_are_found():
    env = ProbeEnv("time-limit")
    env.spec = env.spec._replace(obs=env.spec.obs._replace(num_values=(0, 5)))
    with pytest.raises(EnvContractError, match="values below"):
        check_env(env)


def make_mine(length=2):
    """A factory of a user's own."""
    env = ProbeEnv("discount")
    assert length == 2
    return env


def test_own_environment_by_module_and_name():
    assert envs.make("test_contract:make_mine", length=2).spec.max_episode_steps == 2


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("xminigrid:MiniGrid-DorKey-8x8", "did you mean xminigrid:MiniGrid-DoorKey-8x8"),
        ("MiniGrid-DoorKey-8x8", "xminigrid:MiniGrid-DoorKey-8x8"),
        ("nosuchmodule:thing", "neither a family"),
        ("test_contract:nothing", "has no 'nothing'"),
    ],
)
def test_wrong_ids_are_said(env_id, message):
    with pytest.raises(envs.UnknownEnv, match=message):
        envs.make(env_id)


def test_replacing_rows_does_not_depend_on_how_many_fit_in_a_pass():
    tree = {"a": jnp.zeros((13, 2)), "b": jnp.arange(13)}

    def rows(index):
        return {"a": jnp.broadcast_to(index[:, None], (index.shape[0], 2)) * 1.0, "b": index * 10}

    for seed, rate in ((0, 0.0), (1, 0.3), (2, 1.0)):
        mask = jax.random.uniform(jax.random.key(seed), (13,)) < rate
        for rows_at_once in (1, 4, 13, 50):
            replaced = replace_rows(mask, tree, rows, rows_at_once=rows_at_once)
            assert (replaced["b"] == jnp.where(mask, jnp.arange(13) * 10, jnp.arange(13))).all()
            assert (replaced["a"] == jnp.where(mask, jnp.arange(13), 0)[:, None]).all()
