"""The commands `oni label`, `oni backends` and `oni serve`: results on stdout, words on stderr, exit status."""

import io
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from oni.cli import backends, label, serve

SCRIPTED = ["--annotator.backend.kind", "scripted"]


@pytest.fixture
def captions(tmp_path: Path) -> str:
    path = tmp_path / "captions.txt"
    path.write_bytes(b"You open the door.\r\n\nIt \x1b[31mrains\xff.\n")
    return str(path)


def test_lines_are_labelled(captions: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert label.main([captions, *SCRIPTED]) == 0
    assert capsys.readouterr().out == "helpful\t+2.95\tYou open the door.\nunhelpful\t-2.95\tIt rainsÿ.\n"


def test_lines_are_labelled_as_json(captions: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert label.main(["--json", captions, *SCRIPTED]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["helpful"], row["status"]) for row in rows] == [(True, "labelled"), (False, "labelled")]
    assert rows[1]["caption"] == "It \x1b[31mrainsÿ."
    assert rows[0].keys() == {"caption", "status", "helpful", "p_helpful", "score", "detail", "read_from"}


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"You reach the goal.")))
    assert label.main(["-", *SCRIPTED]) == 0
    assert capsys.readouterr().out.startswith("helpful")


def test_section_of_a_config_file_is_used(tmp_path: Path, captions: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "seed: 3\n"
        "annotator: {backend: {kind: scripted, options: {helpful_pattern: rain}}, labeler: {goal: Get wet now.}}\n"
    )
    assert label.main([captions, "--config", str(config)]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == ["unhelpful", "helpful"]
    assert label.main([captions, "--config", str(config), "--annotator.labeler.threshold", "5"]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == ["unhelpful", "unhelpful"]


def test_by_parts_the_number_of_questions_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "captions.txt"
    lines = [
        "You open the box.  It's a wall.",
        "It's a wall.  It bites!",
        "It bites!",
        "You open the box.  It's a wall.",
    ]
    path.write_text("\n".join(lines))
    options = [str(path), *SCRIPTED, "--annotator.backend.options.helpful_pattern", "open"]
    assert label.main([*options, "--annotator.labeler.parts", "sentences"]) == 0
    by_parts = capsys.readouterr()
    assert [line.split("\t")[0] for line in by_parts.out.splitlines()] == [
        "helpful",
        "unhelpful",
        "unhelpful",
        "helpful",
    ]
    assert by_parts.err == "oni label: 3 different captions took 3 questions\n"
    assert label.main(options) == 0
    assert capsys.readouterr().err == ""


def test_caption_without_a_label_is_told_and_ends_in_1(captions: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert label.main([captions, *SCRIPTED, "--annotator.backend.options.garble_rate", "1.0"]) == 1
    shown = capsys.readouterr()
    assert [line.split("\t")[0] for line in shown.out.splitlines()] == ["unparsed", "unparsed"]
    assert "2 captions got no label" in shown.err


def test_backend_that_fails_ends_in_1(captions: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--annotator.backend.options.fail-rate", "1.0", "--annotator.backend.options.fail-with", "rejected"]
    assert label.main([captions, *SCRIPTED, *options]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "oni label: scripted failure (rejected)" in shown.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give either a file"),
        (["x", "--evaluate", "y"], "give either a file"),
        (["no/such/file"], "no/such/file cannot be read"),
        (["--evaluate", "no/such/file"], "no/such/file cannot be read"),
        (["x", "--config", "no/such.yaml"], "no/such.yaml"),
        (["x", "--annotator.backend.kind", "scriptd"], "did you mean 'scripted'"),
        (["x", "--annotator.backend.kinds", "scripted"], "annotator.backend.kind"),
        (["x", "--annotator.backend.timeout-s", "-3"], "annotator.backend.timeout_s"),
        (["x", "--annotator.backend.timeout-s", "soon"], "timeout-s"),
        (["x", "--annotator.labeler.goal", "minigird"], "did you mean 'minigrid'"),
        (["x", *SCRIPTED, "--annotator.backend.options.latency", "1"], "did you mean 'latency_s'"),
    ],
)
def test_usage_errors_end_in_2_and_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_text("You open the door.\n")
    assert label.main(arguments) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("seed: 1\n", "no section `annotator`"),
        ("annotator: {backend: {knd: scripted}}\n", "annotator.backend.kind"),
        ("annotator: {backend: {timeout_s: -1}}\n", "annotator.backend.timeout_s"),
        ("annotator: 3\n", "annotator must hold"),
        ("- annotator\n", "no section `annotator`"),
        ("just words\n", "no section `annotator`"),
        ("a: [\n", "not YAML"),
    ],
)
def test_wrong_config_files_end_in_2(
    tmp_path: Path, captions: str, capsys: pytest.CaptureFixture[str], content: str, says: str
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(content)
    assert label.main([captions, "--config", str(config)]) == 2
    assert says in capsys.readouterr().err


def test_evaluation_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = tmp_path / "cases.jsonl"
    rows = [("You open the door.", "helpful"), ("You open your mouth.", "unhelpful"), ("It rains.", "unhelpful")]
    cases.write_text("".join(json.dumps({"caption": text, "label": label}) + "\n" for text, label in rows))
    assert label.main(["--evaluate", str(cases), *SCRIPTED]) == 0
    text = capsys.readouterr().out
    assert "accuracy at threshold 0" in text
    assert "0.667" in text
    assert "wrong: 2.949 You open your mouth." in text
    assert label.main(["--evaluate", str(cases), *SCRIPTED, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["accuracy"] == pytest.approx(2 / 3)
    assert result["auc"] == 0.75
    assert result["mistakes"] == [["You open your mouth.", pytest.approx(2.9487)]]


def test_wrong_line_of_an_evaluation_ends_in_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = tmp_path / "cases.jsonl"
    cases.write_text("{}\n")
    assert label.main(["--evaluate", str(cases), *SCRIPTED]) == 2
    assert "line 1" in capsys.readouterr().err


def test_backends_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert backends.main([]) == 0
    assert "scripted" in capsys.readouterr().out
    assert backends.main(["--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"]: row["available"] for row in rows}["scripted"] is True


def test_backend_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert backends.main(["check", *SCRIPTED]) == 0
    text = capsys.readouterr().out
    assert "helpful      True" in text
    assert "' yes' -0.05" in text
    assert backends.main(["check", "--json", "--caption", "It rains.", *SCRIPTED]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["helpful"], report["answer"], report["tokens_out"]) == (False, " no", 1)
    assert report["logprobs"][" no"] == pytest.approx(-0.0513)


def test_check_of_a_backend_that_answers_nonsense_ends_in_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert backends.main(["check", *SCRIPTED, "--annotator.backend.options.garble-rate", "1"]) == 1
    assert "neither 'yes' and 'no'" in capsys.readouterr().out


def test_check_of_a_server_that_is_not_there_ends_in_1(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        kind = ["--annotator.backend.kind", "openai", "--annotator.backend.model", "m"]
        assert backends.main(["check", *kind, "--annotator.backend.base-url", url]) == 1
    assert "nothing answers at" in capsys.readouterr().err


@pytest.mark.parametrize("command", [label, backends, serve])
def test_unknown_options_end_in_2(command: object, capsys: pytest.CaptureFixture[str]) -> None:
    extra = ["check"] if command is backends else ["x"] if command is label else []
    assert command.main([*extra, "--no-such-option"]) == 2  # pyright: ignore[reportAttributeAccessIssue]
    assert "no-such-option" in capsys.readouterr().err


@pytest.mark.parametrize("command", [label, backends, serve])
def test_help_ends_in_0(command: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--help"]) == 0  # pyright: ignore[reportAttributeAccessIssue]
    assert "usage: oni" in capsys.readouterr().out


def test_settings_of_the_annotator_are_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert label.main(["x", "--annotator.help"]) == 0
    assert "--annotator.backend.kind" in capsys.readouterr().out


def test_file_may_stand_anywhere(captions: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--annotator.backend.options.flip_rate", "1", "--annotator.backend.options.seed=3"]
    for arguments in (
        [captions, *SCRIPTED, *options],
        [*SCRIPTED, captions, *options],
        [*options, "--annotator.backend.kind=scripted", captions],
    ):
        assert label.main(arguments) == 0
        assert capsys.readouterr().out.startswith("unhelpful\t-2.95\tYou open the door.")


@pytest.mark.parametrize("port", ["70000", "-1", "http"])
def test_serve_refuses_what_is_no_port(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main([f"--port={port}"]) == 2
    assert "is no port" in capsys.readouterr().err


def test_serve_says_that_a_port_is_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert serve.main(["--store", str(tmp_path / "s.sqlite"), "--port", port, *SCRIPTED]) == 1
    assert port in capsys.readouterr().err


def test_commands_start_without_heavy_libraries() -> None:
    code = (
        "import sys; import oni.cli.label, oni.cli.backends, oni.cli.serve; oni.cli.backends.main([]);"
        "print([name for name in ('jax', 'envs', 'openai', 'xllamacpp', 'uvicorn', 'tyro') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
