"""`oni inspect`: figures by hand, hostile captions shown and never obeyed, JSON against a golden file."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_annotator.store import AnnotationRecord, Store
from llm_annotator.store.schema import APPLICATION_ID
from llm_annotator.types import LabelStatus, Occurrence
from oni.cli.main import main
from oni.config import TrainConfig
from oni.configfile import to_yaml
from oni.rundir import create

KEY = b"You take the yellow key."
CHATTER = b"Rain [bold red]falls[/] on [link=http://x]tin[/link]."
ANSI = b"\x1b[31mred\x1b[0m\x1b]0;title\x07 bell\x07 back\x08 tab\t"
LATIN = b"caf\xe9 \xff"
REVERSED = "safe\u202egnp.exe\u2028 line \u200b".encode()
LONG = b"x" * 5_000
UNASKED = b"Nobody asked about this."

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


def record(caption_id: int, helpful: bool | None, **fields: Any) -> AnnotationRecord:
    values: dict[str, Any] = {
        "labeler_id": "judge-1",
        "caption_id": caption_id,
        "status": LabelStatus.UNPARSED if helpful is None else LabelStatus.LABELLED,
        "helpful": helpful,
        "p_helpful": None if helpful is None else 0.875 if helpful else 0.125,
        "score": None if helpful is None else 1.5 if helpful else -1.5,
        "prompt_prefix": "Goal: [b]open[/b] the box.\n",
        "prompt_suffix": f"Event: number {caption_id}\x1b[2J\nProgress:",
        "answer": " yes [red]",
        "logprobs": {" yes": -0.25, "\x1b[1m no": -1.75, "never": float("-inf")},
        "model": "tiny [i]model[/i]",
        "backend": "scripted",
        "tokens_in": 40,
        "tokens_out": 1,
        "latency_s": 0.25,
        "attempts": 2,
        "detail": "neither word \x1b[2J" if helpful is None else "",
        "created_at": 2000.0,
    }
    return AnnotationRecord(**(values | fields))


def fill(path: Path) -> Path:
    """Writes a store of seven captions, of which four were labelled, one by hand. All of them earned 20 together."""
    with Store(path, wall_clock=lambda: 1000.0) as store:
        store.add_labeler("judge-1", {"goal": "open the box"}, "tiny [i]model[/i]")
        store.add_run("run-a", "first [b]run[/b]", {"seed": 1}, labeler_id="judge-1", goal="open the box")
        ids = store.intern([KEY, CHATTER, ANSI, LATIN, REVERSED, LONG, UNASKED])
        store.add_annotations(
            [
                record(ids[0], True),
                record(ids[1], False),
                record(ids[2], True),
                record(ids[3], None),
                record(ids[4], None, status=LabelStatus.FAILED, answer=None, logprobs=None, latency_s=None),
            ]
        )
        store.override(LONG, "judge-1", helpful=False, note="no [u]sense[/u]", author="kim")
        seen = [(KEY, 10, 12.0), (CHATTER, 2_000_000, 0.0), (ANSI, 40, 6.0), (LATIN, 5, 0.0), (LONG, 15_000, 2.0)]
        store.add_occurrences(
            "run-a",
            [
                Occurrence(
                    caption=text, count=count, first_step=64, last_step=12_800, reward_sum=reward, episode_count=3
                )
                for text, count, reward in seen
            ],
        )
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return fill(tmp_path / "labels.sqlite")


def test_overview_figures(cli: Cli, store: Path) -> None:
    status, out, err = cli(store, "--text")
    assert (status, err) == (0, "")
    assert "open the box" in out
    assert "7 seen, 4 labelled (2 helpful, 2 unhelpful, 1 by hand), 1 unparsed, 1 failed, 1 unlabelled" in out
    assert "20 intrinsic reward" in out
    assert "5 annotations, 200 tokens in, 5 tokens out, 0.250 s an answer" in out
    rows = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()][1:]  # the first is the title
    assert rows[0] == [
        *["1", "12", "60.0%", "60.0%", "10", "3", "64", "12.8k", "helpful", "0.88"],
        *KEY.decode().split(),
    ]
    assert rows[1][:10] == ["3", "6", "30.0%", "90.0%", "40", "3", "64", "12.8k", "helpful", "0.88"]
    assert rows[2][:10] == ["6", "2", "10.0%", "100.0%", "15k", "3", "64", "12.8k", "unhelpful*", "-"]
    assert rows[3][:5] == ["2", "0", "0.0%", "100.0%", "2M"]


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--sort", "count"], [2, 6, 3, 1, 4, 5, 7]),
        (["--sort", "newest"], [7, 6, 5, 4, 3, 2, 1]),
        (["--sort", "label"], [1, 3, 2, 6, 4, 5, 7]),
        (["--helpful"], [1, 3]),
        (["--unhelpful"], [6, 2]),
        (["--unparsed"], [4]),
        (["--failed"], [5]),
        (["--unlabelled"], [7]),
        (["--search", "THE YELLOW"], [1]),
        (["--search", "ask", "--unlabelled"], [7]),
        (["--search", "no such words"], []),
        (["--limit", "2"], [1, 3]),
        (["--limit", "0"], [1, 3, 6, 2, 4, 5, 7]),
        (["--run-id", "run"], [1, 3, 6, 2, 4]),
        (["--labeler", "judge-1", "--failed"], [5]),
    ],
)
def test_filters_and_orders(cli: Cli, store: Path, options: list[str], ids: list[int]) -> None:
    status, out, _ = cli(store, "--json", *options)
    assert status == 0
    assert [item["caption_id"] for item in json.loads(out)["captions"]] == ids


def test_the_limit_does_not_touch_totals_and_shares(cli: Cli, store: Path) -> None:
    document = json.loads(cli(store, "--json", "--unhelpful", "--limit", "1")[1])
    assert document["totals"]["seen"] == 7
    assert document["matching"] == 2
    (caption,) = document["captions"]
    assert (caption["reward_share"], caption["reward_share_cumulative"]) == (0.1, 0.1)


@pytest.mark.parametrize(
    "options", [["--text"], ["--show", "1"], ["--show", "2"], ["--show", "3"], ["--show", "4"], ["--show", "5"]]
)
def test_nothing_from_a_game_or_a_model_is_obeyed(cli: Cli, store: Path, options: list[str]) -> None:
    out = cli(store, *options)[1]
    assert not [char for char in out if char != "\n" and (ord(char) < 32 or 0x7F <= ord(char) < 0xA0)]
    assert not {"\u202e", "\u2028", "\u200b"} & set(out)


def test_markup_and_escapes_are_shown_as_text(cli: Cli, store: Path) -> None:
    out = cli(store, "--text")[1]
    assert CHATTER.decode() in out
    assert r"\x1b[31mred\x1b[0m\x1b]0;title\x07 bell\x07 back\x08 tab\t" in out
    assert "café ÿ" in out
    assert r"safe\u202egnp.exe\u2028 line \u200b" in out
    assert "first [b]run[/b]" in out
    assert "tiny [i]model[/i]" in out


def test_show_tells_the_whole_history(cli: Cli, store: Path) -> None:
    out = cli(store, "--show", "3")[1]
    words = " ".join(out.split())
    for part in (
        "run-a first [b]run[/b] 40 3 64 12,800 6",
        "Label helpful",
        "P(helpful) 0.8750",
        "Score +1.500 nats",
        "tiny [i]model[/i] (scripted)",
        "Labeler judge-1",
        "Tokens 40 in, 1 out",
        "Latency 0.250 s",
        "Requests 2",
        r"Goal: [b]open[/b] the box. Event: number 3\x1b[2J Progress:",
        "yes [red]",
        "its label counts",
    ):
        assert part in words
    assert "0.7788" in words  # exp(-0.25)


def test_show_tells_what_people_said_and_why_there_is_no_label(cli: Cli, store: Path) -> None:
    by_hand = " ".join(cli(store, "--show", "6")[1].split())
    assert "unhelpful kim" in by_hand
    assert "no [u]sense[/u]" in by_hand
    assert "No model has been asked about it." in by_hand
    unparsed = " ".join(cli(store, "--show", "4")[1].split())
    assert r"Why no label neither word \x1b[2J" in unparsed
    assert "It is not UTF-8" in unparsed


def test_the_json_of_the_overview(cli: Cli, store: Path, golden: Callable[[str, str], None]) -> None:
    out = cli(store, "--json")[1]
    document = json.loads(out)
    by_id = {item["caption_id"]: item for item in document["captions"]}
    assert base64.b64decode(by_id[4]["caption_base64"]) == LATIN
    assert by_id[3]["caption"].encode() == ANSI
    assert by_id[3]["caption_base64"] is None
    golden("inspect_overview.json", out.replace(str(store), "STORE").replace(LONG.decode(), "LONG"))


def test_the_json_of_one_caption(cli: Cli, store: Path, golden: Callable[[str, str], None]) -> None:
    out = cli(store, "--show", "3", "--json")[1]
    # JSON knows no infinity.
    assert json.loads(out)["annotations"][0]["logprobs"] == {" yes": -0.25, "\x1b[1m no": -1.75, "never": None}
    golden("inspect_caption.json", out.replace(str(store), "STORE"))


def test_a_run_directory(cli: Cli, tmp_path: Path) -> None:
    run = create(tmp_path / "run", TrainConfig())
    status, out, err = cli(run.path, "--text")
    assert (status, out) == (1, "")
    assert "no annotation store yet" in err
    fill(run.store)
    assert "7 seen" in cli(run.path, "--text")[1]


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("annotator", {"url": "http://10.0.0.7:8765"}, "with the shared annotator at http://10.0.0.7:8765"),
        ("reward", {"kind": "none"}, "with reward.kind `none` no caption is annotated"),
    ],
)
def test_a_run_without_a_store_of_its_own(
    cli: Cli, tmp_path: Path, section: str, values: dict[str, str], words: str
) -> None:
    run = create(tmp_path / "run", TrainConfig())
    config = yaml.safe_load(to_yaml(TrainConfig()))
    config[section] |= values
    run.config_file.write_text(yaml.safe_dump(config), encoding="utf-8")
    status, out, err = cli(run.path, "--text")
    assert (status, out) == (1, "")
    assert words in err


def write_newer_schema(path: Path) -> None:
    import sqlite3

    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 999")
    connection.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "there is no run and no annotation store at"),
        (lambda path: path.mkdir(), "holds no run"),
        (
            lambda path: path.write_bytes(b"not a database, but long enough to have a header" * 100),
            "is damaged or is not",
        ),
        (lambda path: path.write_bytes(b""), "is empty"),
        (write_newer_schema, "upgrade oni-jax"),
    ],
)
def test_what_cannot_be_inspected_is_said_in_words(
    cli: Cli, tmp_path: Path, make: Callable[[Path], object], words: str
) -> None:
    path = tmp_path / "thing"
    make(path)
    status, out, err = cli(path, "--json")
    assert (status, out) == (1, "")
    assert words in err
    assert str(path) in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--show", "99"], 1, "holds no caption 99"),
        (["--run-id", "zzz"], 1, "holds no run 'zzz'; there are: run-a"),
        (["--labeler", "zzz"], 1, "holds no labeler 'zzz'; there are: judge-1"),
        (["--show", "x"], 2, "invalid int value"),
        (["--limit", "-3"], 2, "'-3' is no number of captions"),
        (["--sort", "size"], 2, "invalid choice"),
        (["--helpful", "--failed"], 2, "not allowed with"),
        (["--show", "1", "--search", "x"], 2, "leave --run-id, --labeler and --search out"),
        (["--halpful"], 2, "unrecognized arguments"),
        (["--port", "70000"], 2, "'70000' is no port"),
        (["--port", "80", "--text"], 2, "nothing is served with these options"),
        (["--port", "80", "--search", "x"], 2, "nothing is served with these options"),
        (["--export", "x.html", "--json"], 2, "--export writes the captions that earned most"),
        (["--export", "x.html", "--helpful"], 2, "--export writes the captions that earned most"),
        (["--export", "x.html", "--run-id", "zzz"], 1, "holds no run 'zzz'"),
        (["--export", "no/such/folder/x.html"], 1, "no/such/folder/x.html cannot be written"),
    ],
)
def test_wrong_usage(cli: Cli, store: Path, options: list[str], status: int, words: str) -> None:
    found, out, err = cli(store, *options)
    assert (found, out) == (status, "")
    assert words in err


def test_an_empty_store(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "empty.sqlite"
    Store(path).close()
    status, out, _ = cli(path, "--text")
    assert status == 0
    assert "No caption has come up yet." in out
    assert json.loads(cli(path, "--json")[1])["captions"] == []


def test_a_run_that_has_said_nothing_yet_has_a_labeler(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite"
    with Store(path) as writer:
        writer.add_labeler("judge-2", {"goal": "find the exit"}, "small")
        writer.add_run("run-b", "new", {}, labeler_id="judge-2", goal="find the exit")
    assert "find the exit" in cli(path, "--text")[1]
    assert json.loads(cli(path, "--json", "--run-id", "run-b")[1])["labeler"] == "judge-2"


def test_several_runs_are_counted_together_or_alone(cli: Cli, store: Path) -> None:
    with Store(store, wall_clock=lambda: 3000.0) as writer:
        writer.add_run("other", "second", {}, labeler_id="judge-1", goal="open the box")
        occurrence = Occurrence(caption=KEY, count=5, first_step=1, last_step=99_999, reward_sum=8.0)
        writer.add_occurrences("other", [occurrence])
    assert "Counted over all runs" in cli(store, "--text")[1]
    together = json.loads(cli(store, "--json")[1])
    assert together["captions"][0]["reward_sum"] == 20.0
    assert together["captions"][0]["count"] == 15
    alone = json.loads(cli(store, "--json", "--run-id", "oth")[1])
    assert alone["run"] == "other"
    assert [(item["caption_id"], item["reward_sum"]) for item in alone["captions"]] == [(1, 8.0)]


def test_what_the_terminal_cannot_write_comes_out_as_escapes(store: Path) -> None:
    program = "import sys; from oni.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "inspect", str(store), "--text"]
    environment = {"PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    done = subprocess.run(command, capture_output=True, check=True, env=environment, timeout=60)
    assert rb"caf\xe9 \xff" in done.stdout


def test_captions_have_room_in_a_narrow_terminal(cli: Cli, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stdout for a terminal
    monkeypatch.setenv("COLUMNS", "80")
    out = cli(store, "--search", "yellow")[1]
    assert KEY.decode() in out
    assert "Last step" not in out
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", out).splitlines())) <= 80


def test_it_imports_neither_jax_nor_an_environment(store: Path) -> None:
    program = (
        "import sys; from oni.cli.main import main; main(sys.argv[1:]);"
        "print(sorted({name.partition('.')[0] for name in sys.modules}"
        " & {'jax', 'flax', 'numpy', 'envs', 'xminigrid', 'openai', 'httpx', 'tyro', 'uvicorn'}))"
    )
    command = [sys.executable, "-c", program, "inspect", str(store), "--json"]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
