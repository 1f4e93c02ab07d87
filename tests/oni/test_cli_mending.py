"""`oni override`, `oni export`, `oni import`: what they do to a run's store, and what they say."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import inspected_store
import pytest
from inspected_store import DOOR, KEY, LATIN, QUOTES, caption_id

from llm_annotator.store import Store, StoreReader
from oni.cli.main import main, usage
from oni.config import TrainConfig
from oni.rundir import create

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsysbinary: pytest.CaptureFixture[bytes]) -> Cli:
    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capsysbinary.readouterr()
        return status, out.decode(), err.decode()

    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory whose store holds one run of the labeler judge-1, and answers of judge-2."""
    found = create(tmp_path / "run", TrainConfig())
    inspected_store.fill(found.store)
    return found.path


def in_force(run: Path, caption: bytes, labeler_id: str = "judge-1") -> tuple[object, ...]:
    with Store(run / "annotations.sqlite") as store:
        (label,) = store.labels_of(labeler_id, store.intern([caption]))
    return () if label is None else (label.helpful, label.muted, label.source)


def test_a_caption_is_muted_relabelled_and_left_to_the_llm_again(cli: Cli, run: Path) -> None:
    key = caption_id(run / "annotations.sqlite", KEY)
    assert cli("override", run, key, "mute", "--note", "farmed", "--author", "ann") == (
        0,
        f"caption {key} (You take the yellow key.): muted, by hand\n",
        "",
    )
    assert in_force(run, KEY) == (False, True, "human")
    status, out, _ = cli("override", run, "You take the yellow key.", "no", "--json")
    assert json.loads(out) == {
        "schema": 1,
        "caption_id": key,
        "labeler_id": "judge-1",
        "label": "unhelpful",
        "source": "human",
    }
    assert in_force(run, KEY) == (False, False, "human")
    assert "muted, by hand" in cli("override", run, key, "undo")[1]
    assert "helpful, as the LLM said" in cli("override", run, key, "undo")[1]
    assert in_force(run, KEY) == (True, False, "llm")
    status, _, err = cli("override", run, key, "undo")
    assert (status, "nothing to undo" in err) == (1, True)
    with StoreReader(run / "annotations.sqlite") as reader:
        first = reader.history(key).overrides[0]
        assert (first.note, first.author, first.revoked_at is None) == ("farmed", "ann", False)
    shown = cli("inspect", run, "--show", key)[1]
    assert "muted" in shown
    assert "farmed" in shown


def test_captions_that_are_no_text(cli: Cli, run: Path) -> None:
    number = caption_id(run / "annotations.sqlite", LATIN)
    assert cli("override", run, number, "yes")[0] == 0
    assert in_force(run, LATIN) == (True, False, "human")


def test_another_labeler(cli: Cli, run: Path) -> None:
    assert cli("override", run, 1, "mute", "--labeler", "judge-2")[0] == 0
    assert in_force(run, KEY, "judge-2") == (False, True, "human")
    assert in_force(run, KEY) == (True, False, "llm")
    inspected_store.add_comparisons(run / "annotations.sqlite")
    status, _, err = cli("override", run, 1, "yes", "--labeler", "pairs")
    assert (status, "can only be muted" in err) == (2, True)
    assert cli("override", run, 1, "mute", "--labeler", "pairs")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("override", "RUN", "nowhere", "yes"), 1, "holds no caption 'nowhere': give its whole text, or its id"),
        (("override", "RUN", 10**30, "yes"), 1, "holds no caption"),
        (("override", "RUN", 1, "maybe"), 2, "invalid choice: 'maybe'"),
        (("override", "RUN", 1, "yes", "--labeler", "judge"), 1, "holds 2 labelers that begin with 'judge'"),
        (("override", "RUN", 1, "yes", "--note", "x" * 2001), 2, "at most 2000 characters"),
        (("override", "nowhere", 1, "yes"), 1, "there is no run"),
        (("export", "RUN", "--out", "labels.xlsx"), 2, "names no format: let it end in .jsonl, .csv or .parquet"),
        (("export", "RUN", "--out", "a.jsonl", "--what", "preferences"), 1, "no labeler that compared captions"),
        (("export", "RUN", "--out", "/nowhere/a.jsonl"), 1, "/nowhere/a.jsonl"),
        (("import", "RUN", "/nowhere/a.jsonl"), 1, "/nowhere/a.jsonl"),
        (("import", "RUN", "labels.txt"), 2, "names no format"),
    ],
)
def test_what_cannot_be_done_is_said(
    cli: Cli, run: Path, arguments: tuple[object, ...], status: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    (run.parent / "labels.txt").touch()
    found, _, err = cli(*(run if argument == "RUN" else argument for argument in arguments))
    assert (found, words in err) == (status, True), err


def test_a_spreadsheet_there_and_back(cli: Cli, run: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "labels.csv"
    assert cli("export", run, "--out", sheet) == (0, f"{sheet}\n", "")
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["caption"] == DOOR.decode():
            row["label"] = "muted"
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert cli("import", run, sheet, "--author", "ann")[1] == (
        "1 label changed for labeler judge-1; 3 as before, 8 without a label in the file\n"
    )
    assert in_force(run, DOOR) == (False, True, "human")
    _, out, _ = cli("import", run, sheet, "--json")
    assert json.loads(out) == {"labeler_id": "judge-1", "changed": 0, "same": 4, "skipped": 8, "unseen": 0}


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_labels_of_one_run_for_another(cli: Cli, run: Path, tmp_path: Path, form: str) -> None:
    file, other = tmp_path / f"labels.{form}", create(tmp_path / "other", TrainConfig())
    assert cli("override", run, 1, "mute")[0] == 0
    assert cli("export", run, "--out", file)[0] == 0
    with Store(other.store) as store:
        store.add_labeler("judge-9", {"goal": "another"}, "m")
        store.add_run("run-b", "other", {}, labeler_id="judge-9", goal="another")
    assert cli("import", other.path, file)[1] == (
        "4 labels changed for labeler judge-9; 0 as before, 8 without a label in the file, 4 of captions that the "
        "store had not seen\n"
    )
    assert in_force(other.path, KEY, "judge-9") == (False, True, "human")
    assert in_force(other.path, QUOTES, "judge-9") == (True, False, "human")


def test_a_labeler_of_ones_own(cli: Cli, run: Path, tmp_path: Path) -> None:
    file = tmp_path / "kim.jsonl"
    file.write_text('{"caption": "You open the door.", "label": "unhelpful"}\n')
    assert "1 label changed for labeler imported:kim" in cli("import", run, file, "--as", "kim")[1]
    assert in_force(run, DOOR) == (True, False, "llm")
    status, out, _ = cli("export", run, "--out", "-", "--labeler", "imported:kim")
    rows = [json.loads(line) for line in out.splitlines()]
    assert {row["caption"]: row["label"] for row in rows if row["label"]} == {DOOR.decode(): "unhelpful"}
    file.write_text('{"caption": "You open the door.", "label": "muted"}\n')
    status, _, err = cli("import", run, file, "--as", "kim")
    assert (status, "a mute is a person's word" in err) == (2, True)


def test_preferences_on_standard_output(cli: Cli, run: Path) -> None:
    inspected_store.add_comparisons(run / "annotations.sqlite")
    status, out, _ = cli("export", run, "--out", "-", "--what", "preferences")
    (row,) = [json.loads(line) for line in out.splitlines()]
    assert (status, row["chosen"], row["rejected"]) == (0, KEY.decode(), DOOR.decode())


def test_the_help_names_them() -> None:
    for name in ("override", "export", "import"):
        assert f"  oni {name} " in usage()


def test_they_import_neither_jax_nor_what_serves() -> None:
    code = "import importlib, sys\n"
    code += "for name in ('override', 'export', 'import_'): importlib.import_module(f'oni.cli.{name}')\n"
    code += (
        "print([name for name in ('jax', 'numpy', 'pyarrow', 'starlette', 'httpx', 'openai') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
