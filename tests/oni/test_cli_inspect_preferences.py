"""`oni inspect --preferences`: verdicts by hand, hostile captions, stores with none, and the totals."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_annotator.store import ComparisonRecord, Store
from llm_annotator.types import LabelStatus
from oni.cli.main import main

KEY, RAIN, ANSI, LATIN = b"You take the yellow key.", b"It rains.", b"\x1b[31m[b]red[/b]\r\n", b"caf\xe9 \xff"

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main(["inspect", *map(str, arguments)])
        except SystemExit as end:  # argparse
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def record(first_id: int, second_id: int, first_better: bool | None, **fields: Any) -> ComparisonRecord:
    values: dict[str, Any] = {
        "labeler_id": "pairs-1",
        "first_id": first_id,
        "second_id": second_id,
        "status": LabelStatus.UNPARSED if first_better is None else LabelStatus.LABELLED,
        "first_better": first_better,
        "p_first": None if first_better is None else 0.875 if first_better else 0.125,
        "score": None if first_better is None else 1.5 if first_better else -1.5,
        "prompt_prefix": "Goal\n",
        "prompt_suffix": "which?",
        "answer": " one",
        "logprobs": None,
        "model": "tiny",
        "backend": "scripted",
        "tokens_in": 40,
        "tokens_out": 1,
        "latency_s": 0.25,
        "attempts": 1,
        "detail": "neither word \x1b[2J" if first_better is None else "",
        "created_at": 2000.0,
    }
    return ComparisonRecord(**(values | fields))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "labels.sqlite"
    with Store(path, wall_clock=lambda: 1000.0) as writer:
        writer.add_labeler("labels-1", {"goal": "open the box"}, "tiny")
        writer.add_labeler("pairs-1", {"goal": "open the [b]box[/b]", "question": "preference"}, "tiny")
        writer.add_run("run-a", "first", {}, labeler_id="labels-1", goal="open the box")
        key, rain, ansi, latin = writer.intern([KEY, RAIN, ANSI, LATIN])
        writer.add_annotations([record(key, rain, True), record(rain, key, False)])  # the first of both
        writer.add_annotations([record(rain, ansi, False), record(ansi, rain, True, score=None)])  # the second
        writer.add_annotations([record(key, ansi, True), record(ansi, key, True)])  # it likes the first place
        writer.add_annotations([record(latin, key, True)])  # the other order was not asked about
        writer.add_annotations([record(ansi, latin, None), record(latin, ansi, True)])
    return path


def test_verdicts_of_both_orders(cli: Cli, store: Path) -> None:
    status, out, err = cli(store, "--preferences", "--json")
    assert (status, err) == (0, "")
    document = json.loads(out)
    assert (document["schema"], document["labeler"], document["compared"]) == (1, "pairs-1", 8)
    verdicts = {(pair["a"]["caption_id"], pair["b"]["caption_id"]): pair["preferred"] for pair in document["pairs"]}
    assert verdicts == {(3, 4): "pending", (1, 4): "pending", (1, 3): "tie", (2, 3): "b", (1, 2): "a"}
    assert list(verdicts) == [(3, 4), (1, 4), (1, 3), (2, 3), (1, 2)], "those answered last first"
    newest = document["pairs"][0]
    assert base64.b64decode(newest["b"]["caption_base64"]) == LATIN
    assert newest["a_first"]["status"] == "unparsed"
    assert newest["a_first"]["detail"] == "neither word \x1b[2J"
    assert (newest["b_first"]["first_better"], newest["b_first"]["p_first"]) == (True, 0.875)
    assert document["pairs"][1]["a_first"] is None


def test_the_table_shows_hostile_captions_as_text(cli: Cli, store: Path) -> None:
    status, out, _ = cli(store, "--preferences")
    assert status == 0
    assert not [char for char in out if char != "\n" and (ord(char) < 32 or 0x7F <= ord(char) < 0xA0)]
    rows = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert rows[0][:4] == ["3", "4", "pending", "unparsed"]
    assert rows[1][:6] == ["1", "4", "pending", "-", "b", "+1.50"]
    assert rows[2][:7] == ["1", "3", "tie", "a", "+1.50", "b", "+1.50"]
    assert rows[3][:6] == ["2", "3", "b", "b", "-1.50", "b"], "no score, no number"
    assert rows[4][:7] == ["1", "2", "a", "a", "+1.50", "a", "-1.50"]
    assert r"\x1b[31m[b]red[/b]\r\n" in out
    assert "open the [b]box[/b]" in out
    assert "8 ordered pairs" in out


@pytest.mark.parametrize(
    ("options", "pairs"),
    [
        (["--limit", "2"], [(3, 4), (1, 4)]),
        (["--search", "RAINS"], [(2, 3), (1, 2)]),
        (["--search", "no such words"], []),
        (["--labeler", "pairs"], [(3, 4), (1, 4), (1, 3), (2, 3), (1, 2)]),
        (["--labeler", "labels"], []),
        (["--run-id", "run"], []),
    ],
)
def test_filters(cli: Cli, store: Path, options: list[str], pairs: list[tuple[int, int]]) -> None:
    status, out, _ = cli(store, "--preferences", "--json", "--limit", "0", *options)
    assert status == 0
    found = json.loads(out)["pairs"]
    assert [(pair["a"]["caption_id"], pair["b"]["caption_id"]) for pair in found] == pairs


def test_the_overview_counts_them(cli: Cli, store: Path) -> None:
    out = cli(store, "--text")[1]
    assert "9 of ordered pairs, listed by --preferences" in out
    assert "360 tokens in, 9 tokens out, 0.250 s an answer" in out
    document = json.loads(cli(store, "--json")[1])
    assert document["cost"]["comparisons"] == 9
    assert {row["labeler_id"]: row["compared"] for row in document["labelers"]} == {"labels-1": 0, "pairs-1": 8}


def test_a_store_without_comparisons_says_so(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "empty.sqlite"
    Store(path).close()
    status, out, _ = cli(path, "--preferences")
    assert status == 0
    assert "No captions compared yet." in out
    assert json.loads(cli(path, "--preferences", "--json")[1])["pairs"] == []
    assert "--preferences" not in cli(path, "--text")[1]


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--preferences", "--helpful"], 2, "not allowed with"),
        (["--preferences", "--show", "1"], 2, "not allowed with"),
        (["--preferences", "--labeler", "zzz"], 1, "holds no labeler 'zzz'; there are: labels-1, pairs-1"),
        (["--preferences", "--run-id", "zzz"], 1, "holds no run 'zzz'"),
    ],
)
def test_wrong_usage(cli: Cli, store: Path, options: list[str], status: int, words: str) -> None:
    found, out, err = cli(store, *options)
    assert (found, out) == (status, "")
    assert words in err
