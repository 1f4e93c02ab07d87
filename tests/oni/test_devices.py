"""Which devices a run takes, and that several of them learn what one learns."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from oni.compilations import Compilations
from oni.config import TrainConfig
from oni.configfile import validate
from oni.devices import choose_devices
from oni.errors import ConfigError

ON_FOUR = Path(__file__).with_name("on_four_devices.py")


def available(count):
    return jax.local_devices()[:1] * count


def test_auto_takes_all_and_one_is_enough():
    assert choose_devices("auto", num_envs=32, num_minibatches=2).count == jax.local_device_count()
    assert choose_devices(1, num_envs=7, num_minibatches=7).count == 1
    assert str(choose_devices(1, num_envs=7, num_minibatches=7)) == "one device (cpu)"


@pytest.mark.parametrize("wanted", ["auto", 3])
def test_games_that_cannot_be_shared_evenly_are_refused_with_what_works(wanted):
    with pytest.raises(ConfigError, match=r"3 devices .*num_envs 256 .* to one of 1, 2, or .* multiple of 12$"):
        choose_devices(wanted, num_envs=256, num_minibatches=4, available=available(3))


def test_minibatches_must_be_shared_evenly_too():
    with pytest.raises(ConfigError, match=r"4 devices .*num_minibatches 8 .* one of 1, 2, or"):
        choose_devices(4, num_envs=16, num_minibatches=8, available=available(4))


def test_more_devices_than_there_are():
    with pytest.raises(ConfigError, match=r"devices is 8, and this machine has 2 \(cpu\): .* auto, or to one of 1, 2$"):
        choose_devices(8, num_envs=256, num_minibatches=4, available=available(2))


@pytest.mark.parametrize("value", ["auto", 4])
def test_the_setting_takes_auto_or_a_number(value):
    assert validate({"devices": value}, TrainConfig, source="test").devices == value


@pytest.mark.parametrize("value", ["all", 0, 1.5])
def test_the_setting_takes_nothing_else(value):
    with pytest.raises(ConfigError, match="devices"):
        validate({"devices": value}, TrainConfig, source="test")


def test_compilations_are_counted_by_function():
    def doubled(x):
        return 2 * x

    function = jax.jit(doubled)
    with Compilations() as heard:
        for size in (2, 2, 3):
            function(jnp.ones(size))
        assert heard.count("doubled") == 2
        assert heard.count("another") == 0
        assert heard.seconds("doubled") > 0.0
    function(jnp.ones(4))
    assert heard.count("doubled") == 2, "closed"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_four_devices_against_one():
    """In a process of its own: how many devices a CPU counts as is decided before JAX starts."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "600", str(ON_FOUR)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
