"""`oni envs`: what is listed of an environment, what cannot be made, what a check tells, and the exit codes."""

import json

import pytest
from test_contract import Broken, spoil_step

from envs import registry
from envs.errors import EnvUnavailable
from oni.cli import envs as cli
from oni.cli.main import main


def told(capsys, *arguments):
    """Exit status, what was printed, and what was said on stderr."""
    status = main(["envs", *arguments])
    return status, *capsys.readouterr()


def test_each_row_says_what_is_seen_done_paid_and_said(capsys):
    pytest.importorskip("nle")
    status, out, err = told(capsys, "list", "nethack", "--json")
    assert (status, err) == (0, "")
    listed = json.loads(out)
    assert listed["schema"] == cli.SCHEMA
    assert listed["missing"] == {}
    row = listed["envs"][2]
    assert row.pop("actions")[:2] == ["more", "north"]
    assert row == {
        "id": "nethack:staircase",
        "obs": "crop uint8[9, 9, 2] status float32[42]",
        "max_episode_steps": 5_000,
        "reward": "50 for stairs down to depth 2",
        "captions": True,
    }
    _, table, _ = told(capsys, "list", "nethack")
    assert "captions" in table.splitlines()[0]
    (line,) = [line for line in table.splitlines() if "staircase-3" in line]
    assert line.split("  ")[-1].strip() == "50 for stairs down to depth 3"
    assert "float32[42]" in line


def test_all_families_can_be_listed_at_once(capsys, monkeypatch):
    monkeypatch.setattr(registry, "FAMILIES", {n: registry.FAMILIES[n] for n in ("probe", "hostprobe")})
    _, out, _ = told(capsys, "list", "--json")
    ids = [row["id"] for row in json.loads(out)["envs"]]
    assert ids == registry.list_envs()
    assert all(row["reward"] != "unknown" for row in json.loads(out)["envs"])


def names():
    """Of a family, this module, of which some environments need what is not here."""
    return ["a-v1", "b-v1", "c-v1", "d-v1", "e-v1", "memory"]


def make(name):
    if name == "memory":
        return registry.make("probe:memory")
    raise EnvUnavailable(f"{name} needs a ball: fetch one" if name != "e-v1" else "e-v1 is sold out")


def test_what_cannot_be_made_is_said_once_for_each_reason(capsys, monkeypatch):
    monkeypatch.setitem(registry.FAMILIES, "shop", registry.Family(__name__, None, "things for games"))
    status, out, err = told(capsys, "list", "shop", "--json")
    assert status == 0
    listed = json.loads(out)
    assert [row["id"] for row in listed["envs"]] == ["probe:memory"]
    assert listed["missing"]["shop:b-v1"] == "b-v1 needs a ball: fetch one"
    assert len(listed["missing"]) == 5
    assert err.splitlines() == [
        "oni envs: shop:a-v1, shop:b-v1, shop:c-v1 and 1 more are left out: a-v1 needs a ball: fetch one",
        "oni envs: shop:e-v1 is left out: e-v1 is sold out",
    ]


def make_broken():
    return Broken(spoil_step(truncated=lambda key, t: t.terminated))


@pytest.mark.slow
def test_a_check_tells_captions_compilation_and_memory(capsys):
    status, out, _ = told(capsys, "check", "probe:intrinsic", "--json")
    assert status == 0
    found = json.loads(out)
    assert 0 < found.pop("compile_s") < 100
    # float32 cue, int32 step
    assert found == {
        "schema": cli.SCHEMA,
        "id": "probe:intrinsic",
        "keeps_contract": True,
        "problem": "",
        "captions": 2,
        "state_bytes": 8,
    }
    _, text, _ = told(capsys, "check", "probe:intrinsic")
    assert "2 distinct captions" in text
    assert "the state of one game takes 8 bytes" in text


@pytest.mark.slow
def test_options_of_an_environment_can_be_checked(capsys):
    pytest.importorskip("gymnasium")
    own = "gymnasium:gymnasium_lights:oni-tests/Lights-v0"
    status, out, _ = told(capsys, "check", own, "--env.options.captioner", "gymnasium_lights:say")
    assert status == 0
    assert " 0 distinct captions" not in out
    assert "bytes" not in out, "a game on the host has neither"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["check", "probe:memry"], 2, "did you mean probe:memory"),
        (["check", "nosuchmodule:thing"], 2, "neither a family"),
        (["list", "prob"], 2, "there are xminigrid"),
        (["check", "probe:memory", "--env.options.size", "3"], 1, "there is no option 'size'"),
        pytest.param(
            *(["check", "test_envs_command:make_broken"], 1, "breaks the contract: a step is both terminated and"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_exit_codes(capsys, arguments, status, words):
    code, _, err = told(capsys, *arguments)
    assert code == status
    assert words in err


@pytest.mark.parametrize(
    "arguments", [["check"], ["check", "probe:memory", "--what"], ["list", "probe", "--env.options.a", "1"]]
)
def test_wrong_usage(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["envs", *arguments])
    assert stopped.value.code == 2
