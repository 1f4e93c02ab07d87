"""`scripts/bench games`: every environment of its list exists, and what it prints of games in jit and on the host."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from envs.errors import EnvUnavailable
from envs.registry import FAMILIES, list_envs

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "benchmarks" / "games.py"


def measured(*arguments):
    """Exit status, stdout and stderr."""
    command = [sys.executable, str(SCRIPT), *arguments, "--rounds", "2", "--seconds", "0.05"]
    done = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": "."}, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_each_family_is_measured_by_default(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import games

    by_family = {}
    for env_id in games.ENVS:
        by_family.setdefault(env_id.partition(":")[0], set()).add(env_id)
    assert by_family.keys() >= FAMILIES.keys() - {"probe", "hostprobe"}
    for family in by_family.keys() & FAMILIES.keys():
        try:
            assert by_family[family] <= set(list_envs(family))
        except EnvUnavailable:
            continue


@pytest.mark.slow
def test_games_in_jit_and_on_the_host_are_measured():
    status, out, err = measured("probe:intrinsic", "hostprobe:time-limit", "--num-envs", "8", "--json")
    assert status == 0, err
    jitted, host = json.loads(out)["envs"]
    assert (jitted["id"], jitted["num_envs"], jitted["state_bytes"], jitted["captions"]) == (
        "probe:intrinsic",
        8,
        8,
        True,
    )
    assert jitted["compile_s"] > 0
    assert (host["id"], host["compile_s"], host["state_bytes"], host["captions"]) == (
        "hostprobe:time-limit",
        None,
        None,
        False,
    )
    assert all(len(one["steps_per_s"]) == 2 and min(one["steps_per_s"]) > 0 for one in (jitted, host))


@pytest.mark.slow
def test_an_environment_that_there_is_not_is_left_out():
    status, out, err = measured("probe:memory", "probe:memry")
    assert status == 1
    assert "did you mean probe:memory" in err
    assert "probe:memory " in out
    assert "memry" not in out
