"""The environments of `envs.examples`, shown in the README: they keep the contract, and `oni train` learns in them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import envs
from envs.testing import check_env

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "envs" / "examples"

NAMES = ("tower.py", "machine.py", "lake.py")
OWN = {"envs.examples.tower:Tower": "open door 5", "envs.examples.machine:MachineEnv": "Wheel 8 begins"}
"""Environments of one's own, and what is said on the last step of a success."""


def test_each_is_short():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*NAMES, "__init__.py"}
    assert all(len((EXAMPLES / name).read_text().splitlines()) < 60 for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_shows_the_very_files(name):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = (EXAMPLES / name).read_text(encoding="utf-8").rstrip()
    assert f"<!-- file: envs/examples/{name} -->\n```python\n{code}\n```\n<!-- end -->" in readme


def test_a_shown_file_is_brought_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import readme_tables

    readme = readme_tables.README.read_text(encoding="utf-8")
    shown = "Above.\n\n<!-- file: envs/examples/lake.py -->\nof long ago\n<!-- end -->\n\nBelow.\n"
    fresh = readme_tables.rewritten(readme + shown)
    lake = (EXAMPLES / "lake.py").read_text().rstrip()
    block = f"<!-- file: envs/examples/lake.py -->\n```python\n{lake}\n```\n<!-- end -->"
    assert fresh.endswith(f"Above.\n\n{block}\n\nBelow.\n")
    with pytest.raises(SystemExit, match="no such file"):
        readme_tables.rewritten(readme + shown.replace("lake.py", "river.py"))


@pytest.mark.slow
@pytest.mark.parametrize("env_id", OWN)
def test_they_keep_the_contract(env_id):
    assert check_env(envs.make(env_id)) > 5


@pytest.mark.slow
def test_the_captioner_of_a_lake():
    pytest.importorskip("gymnasium")
    env = envs.make("gymnasium:FrozenLake-v1", captioner="envs.examples.lake:say")
    assert check_env(env, num_envs=4) >= 2


def oni(folder, *arguments):
    """Runs `oni` in a folder, where files of the user's own may lie."""
    start = "import sys; from oni.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-P", "-c", start, *map(str, arguments)]  # -P: as the command, without this folder
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.parametrize(("name", "factory"), [("tower", "Tower"), ("machine", "MachineEnv")])
def test_a_copy_in_the_folder_of_the_user_is_found(tmp_path, name, factory):
    shutil.copy(EXAMPLES / f"{name}.py", tmp_path / f"my_{name}.py")
    assert "keeps the contract" in oni(tmp_path, "envs", "check", f"my_{name}:{factory}")


def trained(folder, env_id, *options):
    """A short training with labels by rule: the figures of its last line, and the label of every caption."""
    helpful = "You (pick up|open|reach)|begins to turn"
    scripted = ["--annotator.backend.kind", "scripted", "--annotator.backend.options.helpful-pattern", helpful]
    small = ["--env.num-envs", "64", "--env.num-workers", "1", "--ppo.num-steps", "32", "--annotator.deterministic"]
    oni(folder, "train", "--run-dir", "run", "--env.id", env_id, *scripted, *small, *options)
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    captions = json.loads(oni(folder, "inspect", "run", "--json"))["captions"]
    return json.loads(lines[-1]), {row["caption"]: row["label"] for row in captions}


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.parametrize("env_id", OWN)
def test_labels_lead_to_what_pays(tmp_path, env_id):
    metrics, label = trained(tmp_path, env_id, "--total-env-steps", "120000")
    assert metrics["success"] > 0.8  # 0.00 to 0.02 without labels, after 200,000 steps and more
    assert metrics["captions/coverage"] == 1.0
    (last,) = [caption for caption in label if OWN[env_id] in caption]
    assert label[last] == "helpful"
    assert "unhelpful" in label.values()
    if "machine" in env_id:
        assert metrics["episode/wheels"] > 7


@pytest.mark.slow
@pytest.mark.e2e
def test_a_training_on_the_lake_has_labels(tmp_path):
    pytest.importorskip("gymnasium")
    shutil.copy(EXAMPLES / "lake.py", tmp_path)
    options = ["--env.options.captioner", "lake:say", "--total-env-steps", "10000"]
    metrics, label = trained(tmp_path, "gymnasium:FrozenLake-v1", *options)
    assert label["You reach the goal."] == "helpful"
    assert label["You fall into the water."] == "unhelpful"
    assert metrics["captions/labelled"] == len(label) == 3
