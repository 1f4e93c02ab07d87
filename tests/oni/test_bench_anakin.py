"""What `scripts/bench anakin` compares with, and what it says of its own figures."""

import importlib
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from probing import config
from test_sebulba import host_config

from oni.actors import make_env
from oni.config import NetworkConfig
from oni.errors import OniError
from oni.evaluation import greedy
from oni.trainer import Trainer

BENCHMARKS = Path(__file__).parents[2] / "scripts" / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a module of the benchmarks, which are a folder of scripts."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return importlib.import_module


def figures(report, **changes):
    result = report.Result(
        env="game",
        num_envs=8,
        num_steps=4,
        device="1 x cpu",
        steps_per_s={"plain loop": 100.0, "none": 120.0, "retrieval": 110.0},
        ratios={"retrieval over none": (0.9, 0.95, 1.0), "none over plain loop": (1.1, 1.2, 1.3)},
        first_s={"plain loop": 1.0, "none": 1.0, "retrieval": 1.0},
        labelled=3,
        compile_s={"collect": 1.0, "_learn_and_sum": 1.0},
        state_bytes=100,
        compiled={"collect": 1.0, "_learn_and_sum": 1.0},
        updates=10,
        load=1.0,
    )
    return result._replace(**changes)


def test_ratios_are_of_speed_and_within_each_round(benchmark):
    report = benchmark("anakin_report")
    seconds = {"plain loop": [2.0, 4.0, 6.0], "none": [1.0, 1.0, 3.0], "retrieval": [2.0, 1.0, 4.0]}
    ratios = report.ratios_of(seconds)
    assert ratios["none over plain loop"] == (2.0, 2.0, 4.0)
    assert ratios["retrieval over none"] == (0.5, 0.75, 1.0)
    assert report.ratios_of({name: seconds[name] for name in ("plain loop", "none")}).keys() == {"none over plain loop"}


def test_worthless_figures_are_complained_about(benchmark):
    report = benchmark("anakin_report")
    assert report.complaint(figures(report)) == ""
    assert report.complaint(figures(report, labelled=None)) == "", "a game that says nothing"
    again = figures(report, compiled={"collect": 1.5, "_learn_and_sum": 1.0})
    assert report.complaint(again) == "game: in one run compiled collect 1.5 times, expected once each"
    assert "nothing was labelled" in report.complaint(figures(report, labelled=0))


def test_what_is_below_the_wanted_ratio_is_said(benchmark):
    report = benchmark("anakin_report")
    lines = report.text(figures(report), 3).splitlines()
    assert [line for line in lines if "wanted" in line] == [
        "  retrieval over none: 0.950 (quartiles 0.900 to 1.000, wanted 0.97)"
    ]


def test_a_game_of_the_host_has_no_plain_loop(benchmark):
    anakin = benchmark("anakin")
    settings = config("policy")
    assert anakin.jitted_env(settings).spec.id == "probe:policy"
    with pytest.raises(OniError, match="hostprobe:memory does not step inside jit"):
        anakin.jitted_env(host_config("memory"))


@pytest.mark.slow
def test_the_plain_loop_learns_what_the_training_learns(benchmark):
    """Otherwise it would be no wonder that it is slower, or faster."""
    loop = benchmark("plain_loop")
    settings = config("memory", network=NetworkConfig(hidden_size=16, core="gru", core_size=16))
    with Trainer(settings) as trainer:
        carry, update = loop.make_plain_update(settings, trainer.network, make_env(settings))
        before = jax.tree.map(np.asarray, carry.params)
        for _ in range(150):
            carry = update(carry)
        succeeded = [
            trainer.actors.play(params, num_episodes=64, seed=1, choose=greedy).success.mean()
            for params in (before, carry.params)
        ]
    assert succeeded[0] < 0.75
    assert succeeded[1] > 0.95
