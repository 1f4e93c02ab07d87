"""`oni train` and `oni eval` as a user runs them: real processes, a real annotator, real signals."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

SETTINGS = """
name: probe
total_env_steps: 20_000
env: {id: "probe:intrinsic", num_envs: 32}
network: {hidden_size: 16, core: none}
ppo: {num_steps: 8, num_minibatches: 2, learning_rate: 5.0e-3}
reward: {kind: retrieval, intrinsic_coef: 1.0, count_exponent: 0.0}
annotator: {backend: {kind: scripted, options: {helpful_pattern: coin}}}
"""
NOBODY = "kind: openai, model: some-model, base_url: 'http://127.0.0.1:9/v1'"
"""A backend at an address where nothing listens."""

FOREVER = ["--total-env-steps", "1000000000"]


def oni(*arguments, **kwargs):
    return [sys.executable, "-m", "oni.cli.main", *map(str, arguments)], {"text": True, **kwargs}


def run(*arguments):
    command, kwargs = oni(*arguments, capture_output=True)
    return subprocess.run(command, timeout=100, check=False, **kwargs)


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "probe.yaml"
    path.write_text(SETTINGS)
    return path


class Running:
    """A training in the background."""

    def __init__(self, run_dir, *arguments):
        self.run_dir = run_dir
        self.stderr = run_dir.parent / "stderr.txt"
        command, kwargs = oni("train", "--run-dir", run_dir, *arguments, *FOREVER)
        with self.stderr.open("w") as stderr:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, **kwargs)

    def lines(self):
        path = self.run_dir / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def until(self, condition, timeout_s=60.0):
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            assert self.process.poll() is None, self.stderr.read_text()
            lines = self.lines()
            if lines and condition(lines[-1]):
                return lines[-1]
            time.sleep(0.05)
        raise AssertionError(f"not within {timeout_s} s: {self.lines()[-1:]} {self.stderr.read_text()}")

    def annotator_pid(self):
        store = str(self.run_dir / "annotations.sqlite").encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if b"llm_annotator.service" in command and store in command:
                    return int(entry.name)
        raise AssertionError("no annotator runs")

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=60)
        return out


@pytest.fixture
def running(tmp_path, settings):
    started = []

    def start(*arguments):
        started.append(Running(tmp_path / f"run{len(started)}", "--config", settings, *arguments))
        return started[-1]

    yield start
    for training in started:
        training.process.kill()
        training.process.communicate()


def test_train_inspect_eval_and_go_on(tmp_path, settings):
    path = tmp_path / "run"
    done = run("train", "--config", settings, "--run-dir", path)
    assert done.returncode == 0, done.stderr
    for words in ("success rate", "You find a coin.", "oni inspect", "oni eval", "--resume"):
        assert words in done.stdout
    last = json.loads((path / "metrics.jsonl").read_text().splitlines()[-1])
    wanted = (
        "env_step steps_per_s return/extrinsic success reward/extrinsic reward/intrinsic captions/distinct "
        "captions/labelled captions/coverage annotator/queued annotator/failed"
    )
    assert set(wanted.split()) <= set(last)
    assert last["success"] > 0.9
    assert last["captions/coverage"] == 1.0

    table = json.loads(run("inspect", path, "--json").stdout)
    captions = {row["caption"]: row for row in table["captions"]}
    assert captions["You find a coin."]["helpful"] is True
    assert captions["You hear the wind."]["helpful"] is False
    assert captions["You find a coin."]["reward_sum"] > 0
    assert sum(row["count"] for row in captions.values()) == last["env_step"]

    played = json.loads(run("eval", path, "--episodes", "40", "--json").stdout)
    assert played["success"]["mean"] > 0.9
    assert played["success"]["low"] < played["success"]["mean"]
    assert played["episodes"] == 40

    further = run("train", "--run-dir", path, "--resume", "--total-env-steps", "40000")
    assert further.returncode == 0, further.stderr
    steps = [json.loads(line)["env_step"] for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert steps[-1] >= 40_000
    assert run("eval", path, "--record", "1").returncode == 1  # probes cannot draw themselves
    again = run("train", "--run-dir", path, "--resume")  # the settings keep the 40,000 steps
    assert again.returncode == 0, again.stderr
    assert "done already" in again.stderr
    assert len((path / "metrics.jsonl").read_text().splitlines()) == len(steps)
    other = run("train", "--run-dir", path, "--resume", "--env.num-envs", "64")
    assert other.returncode == 2
    assert "env.num_envs cannot change" in other.stderr

    goal = ["--annotator.labeler.goal", "Listen to the wind.", "--annotator.backend.options.helpful-pattern", "wind"]
    turned = run("train", "--run-dir", path, "--resume", "--total-env-steps", "60000", *goal)
    assert turned.returncode == 0, turned.stderr
    assert "asked about anew" in turned.stderr
    table = json.loads(run("inspect", path, "--json").stdout)
    assert {row["caption"]: row["helpful"] for row in table["captions"]}["You hear the wind."] is True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_is_saved_and_goes_on(running, number):
    training = running()
    training.until(lambda line: line["env_step"] > 5_000)
    out = training.stop(number)
    assert training.process.returncode == 0
    assert f"stopped by {signal.Signals(number).name} and saved" in out
    reached = training.lines()[-1]["env_step"]
    done = run("train", "--run-dir", training.run_dir, "--resume", "--total-env-steps", reached + 5_000)
    assert done.returncode == 0, done.stderr
    assert f"Going on after {reached:,} steps" in done.stderr


def test_kill_9_of_the_annotator_in_mid_run(running):
    training = running("--annotator.backend.options.latency-s", "0.5")
    training.until(lambda line: line["captions/distinct"] == 2)
    first = training.annotator_pid()
    os.kill(first, signal.SIGKILL)
    before = training.lines()[-1]["env_step"]
    training.until(lambda line: line["captions/labelled"] == 2 and line["annotator/connected"] == 1)
    assert training.until(lambda line: line["env_step"] > before)
    assert training.annotator_pid() != first
    training.stop()
    with sqlite3.connect(training.run_dir / "annotations.sqlite") as store:
        rows = store.execute(
            "SELECT caption_id, count(*) FROM annotations WHERE status = 'labelled' GROUP BY 1"
        ).fetchall()
    store.close()
    assert [count for _, count in rows] == [1, 1]


def test_kill_9_of_the_trainer_leaves_no_annotator(running):
    training = running()
    training.until(lambda line: line["captions/labelled"] == 2)
    annotator = training.annotator_pid()
    training.process.kill()
    end = time.monotonic() + 20
    while Path(f"/proc/{annotator}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{annotator}").exists()


def test_without_an_llm_the_run_goes_on_and_says_so(settings, running):
    settings.write_text(SETTINGS.replace("kind: scripted, options: {helpful_pattern: coin}", NOBODY))
    training = running()
    begun = training.until(lambda line: line["annotator/queued"] == 2)
    training.until(lambda line: line["env_step"] > begun["env_step"] + 20_000)
    end = time.monotonic() + 30
    while "127.0.0.1:9" not in training.stderr.read_text() and time.monotonic() < end:
        time.sleep(0.1)
    out = training.stop()
    assert "127.0.0.1:9" in training.stderr.read_text()
    assert "The annotator needs attention" in out
    assert training.lines()[-1]["captions/labelled"] == 0


def test_one_trainer_a_run(running):
    training = running()
    training.until(lambda line: line["env_step"] > 0)
    second = run("train", "--run-dir", training.run_dir, "--resume")
    assert second.returncode == 1
    assert "stop it first" in second.stderr
    again = run("train", "--run-dir", training.run_dir)
    assert again.returncode == 1
    assert "holds another run" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--ppo.lerning-rate", "1"], 2, "--ppo.learning-rate"),
        (["--ppo.discount", "2"], 2, "ppo.discount"),
        (["--env.id", "xminigrid:MiniGrid-DorKey-8x8"], 2, "MiniGrid-DoorKey-8x8"),
        (["--annotator.backend.kind", "magic"], 2, "scripted"),
        (["--annotator.labeler.goal", "./missing.yaml"], 2, "missing.yaml"),
        (["--resume", "--config", "x.yaml"], 2, "leave --config out"),
        (["--config", "missing.yaml"], 2, "missing.yaml"),
    ],
)
def test_bad_usage_starts_nothing(tmp_path, settings, arguments, status, words):
    base = [] if "--config" in arguments else ["--config", settings]
    path = tmp_path / "run"
    done = run("train", *base, "--run-dir", path, *arguments)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not path.exists()


def test_a_store_of_a_later_version_is_said(tmp_path, settings):
    path = tmp_path / "run"
    assert run("train", "--config", settings, "--run-dir", path).returncode == 0
    with sqlite3.connect(path / "annotations.sqlite") as store:
        store.execute("PRAGMA user_version = 999")
    store.close()
    done = run("train", "--run-dir", path, "--resume", *FOREVER)
    assert done.returncode == 1
    assert "upgrade oni-jax" in done.stderr
    assert "Traceback" not in done.stderr


def test_envs_lists_and_checks():
    families = {row["family"]: row for row in json.loads(run("envs", "--json").stdout)["families"]}
    assert "xminigrid:MiniGrid-BlockedUnlockPickUp" in families["xminigrid"]["ids"]
    rows = {row["id"]: row for row in json.loads(run("envs", "list", "probe", "--json").stdout)["envs"]}
    assert rows.keys() == set(families["probe"]["ids"])
    assert rows["probe:intrinsic"]["captions"]
    nowhere = run("envs", "list", "prob")
    assert nowhere.returncode == 2
    assert "xminigrid" in nowhere.stderr
    assert run("envs", "check", "probe:memory").returncode == 0
    wrong = run("envs", "check", "probe:memry")
    assert wrong.returncode == 2
    assert "probe:memory" in wrong.stderr


def test_help_is_quick_and_names_every_command():
    begun = time.process_time()
    done = run("--help")
    assert done.returncode == 0
    assert time.process_time() - begun < 1.0
    for command in ("train", "eval", "inspect", "label", "envs", "backends", "serve"):
        assert f"oni {command}" in done.stdout
    assert run("trian").returncode == 2


@pytest.mark.timeout(300)
def test_the_quickstart_with_the_real_llm_labels_the_captions_right(tmp_path):
    """The whole chain with the embedded model, for a short run: every label against what the caption means."""
    path = tmp_path / "run"
    config = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
    command, kwargs = oni(
        "train", "--config", config, "--run-dir", path, "--total-env-steps", "100000", "--env.num-envs", "64",
        "--annotator.drain-s", "200", capture_output=True,
    )  # fmt: skip
    done = subprocess.run(command, timeout=280, check=False, **kwargs)
    assert done.returncode == 0, done.stderr
    table = json.loads(run("inspect", path, "--json", "--limit", "1000").stdout)
    labels = {row["caption"]: row["helpful"] for row in table["captions"]}
    assert len(labels) > 80
    assert None not in labels.values()
    progress = ("You pick up", "You unlock", "You open", "You reach")
    wrong = [caption for caption, helpful in labels.items() if helpful != caption.startswith(progress)]
    assert wrong == []
