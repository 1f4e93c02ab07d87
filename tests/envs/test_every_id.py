"""`check_env` over every registered id, which takes from a minute (gymnax) to an hour (EnvPool) a family, so by hand:

    python -m pytest tests/envs/test_every_id.py --every-id minihack

Without the option one id of each family is checked; the files of the families check more of theirs.
"""

import pytest

import envs
from envs.errors import EnvUnavailable
from envs.testing import check_env
from envs.types import JaxEnv

SAMPLE = {
    "xminigrid": "xminigrid:MiniGrid-Empty-5x5",
    "gymnax": "gymnax:Breakout-MinAtar",
    "nethack": "nethack:gold",
    "minihack": "minihack:Room-5x5",
    "envpool": "envpool:FrozenLake-v1",
    "gymnasium": "gymnasium:FrozenLake-v1",
    "probe": "probe:last-caption",
    "hostprobe": "hostprobe:time-limit",
}
"""Craftax is left to its own tests: it compiles for a minute."""

JAX_STEPS, HOST_STEPS = 300, 150
"""Steps of each game: where the limit is longer, that an episode is cut off there is not seen."""

NOT_HERE = {"envpool": "qtbase5-dev", "gymnax": "load_mnist"}
"""What some environments of a family need beyond the package (Procgen, MNISTBandit): the error must say so."""


def pytest_generate_tests(metafunc):
    family = metafunc.config.getoption("--every-id")
    ids = SAMPLE.values() if family is None else envs.list_envs(None if family == "all" else family)
    metafunc.parametrize("env_id", ids)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_it_keeps_the_contract(env_id):
    family = env_id.partition(":")[0]
    try:
        env = envs.make(env_id)
    except EnvUnavailable as error:
        if not any(what in str(error) for what in ("pip install", NOT_HERE.get(family, "pip install"))):
            raise
        pytest.skip(str(error))
    assert env.spec.id == env_id
    assert env.spec.reward != "unknown"
    steps = min(env.spec.max_episode_steps + 1, JAX_STEPS if isinstance(env, JaxEnv) else HOST_STEPS)
    captions = check_env(env, num_envs=2, num_steps=steps)
    assert captions == 0 or env.spec.captioned
