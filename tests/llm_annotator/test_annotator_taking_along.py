"""What goes out of a store as a file and comes back: any bytes, in every format; whose label counts afterwards."""

import base64
import csv
import io
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import inspected_store
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspected_store import DOOR, EVIL, HOSTILE, KEY, LATIN, QUOTES, RTL, SCRIPT, UNASKED, caption_id

from llm_annotator.errors import ConfigError, StoreError
from llm_annotator.exporting import Wanted, export, export_file
from llm_annotator.importing import Report, add_labeler, overrule, read_labels
from llm_annotator.store import Store, StoreReader, exported
from llm_annotator.tables import FORMATS, Column, Format, TableError, caption_of, decode, encode, guarded, unguarded
from llm_annotator.wire import MAX_CAPTION_BYTES

ODD = (
    *HOSTILE,
    b"=1+1",
    b"'=1+1",
    b"+41",
    b"-2",
    b"@SUM(A1)",
    b"\t=x",
    b"\r\n",
    b"\x00",
    b"a\x00b",
    b"\xff\xfe",
    b"\xc3\xa9",
    b"\xed\xa0\x80",  # a surrogate, which is no UTF-8
    b" edges ",
    b'"quoted", and',
    b"007",
    b"March 5",
    b"TRUE",
    "\u2028\ufeff\U0001f600".encode(),
)


def written(rows: list[dict[str, Any]], columns: list[Column], form: Format) -> bytes:
    return b"".join(encode([rows], columns, form))


def read(content: bytes, form: Format) -> list[dict[str, Any]]:
    return [row for _, row in decode(io.BytesIO(content), form)]


def labels_in(content: str | bytes, form: Format = "jsonl") -> Any:
    return read_labels(io.BytesIO(content.encode() if isinstance(content, str) else content), form)


CAPTION = Column("caption", "caption")


@pytest.mark.parametrize("form", FORMATS)
@settings(deadline=None)
@given(captions=st.lists(st.binary(min_size=1, max_size=30) | st.text(min_size=1, max_size=30).map(str.encode)))
def test_any_bytes_come_back(form: Format, captions: list[bytes]) -> None:
    content = written([{"caption": caption} for caption in captions], [CAPTION], form)
    assert [caption_of(row) for row in read(content, form)] == captions


@pytest.mark.parametrize("form", FORMATS)
def test_odd_captions_come_back(form: Format) -> None:
    content = written([{"caption": caption} for caption in ODD], [CAPTION], form)
    assert [caption_of(row) for row in read(content, form)] == list(ODD)


@settings(deadline=None)
@given(text=st.text() | st.from_regex(r"'{0,3}[=+@-].{0,3}"))
def test_the_guard_against_formulas_loses_nothing(text: str) -> None:
    assert unguarded(guarded(text)) == text
    assert not guarded(text).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


def test_no_cell_of_a_csv_is_a_formula_and_the_text_stays_readable() -> None:
    columns = [CAPTION, Column("note", "text"), Column("score", "number")]
    rows = [{"caption": b"=cmd|' /C calc'!A0", "note": "@SUM(1)", "score": -1.5}, {"caption": b"You open it."}]
    cells = list(csv.reader(io.StringIO(written(rows, columns, "csv").decode(), newline="")))
    assert cells[0] == ["caption", "caption_base64", "note", "score"]
    assert cells[1][0] == "'=cmd|' /C calc'!A0"
    assert cells[1][2:] == ["'@SUM(1)", "-1.5"], "numbers stay numbers"
    assert cells[2] == ["You open it.", "", "", ""]
    assert read(written(rows, columns, "csv"), "csv")[0]["note"] == "@SUM(1)"


def test_a_csv_survives_what_spreadsheets_do_to_text() -> None:
    """They guess encodings, trim, and take for numbers and dates what looks like it: then the bytes count."""
    content = written([{"caption": caption} for caption in ODD], [CAPTION], "csv").decode()
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    spoilt = [{**row, "caption": "#NAME?"} if row["caption_base64"] else row for row in rows]
    assert [caption_of({name: unguarded(cell) for name, cell in row.items()}) for row in spoilt] == list(ODD)
    assert sum(bool(row["caption_base64"]) for row in rows) == len(ODD)


def test_the_longest_caption_survives_csv() -> None:
    for caption in (b"\xff" * MAX_CAPTION_BYTES, b"x" * MAX_CAPTION_BYTES):
        assert caption_of(read(written([{"caption": caption}], [CAPTION], "csv"), "csv")[0]) == caption


def test_a_csv_of_another_country_and_with_a_mark_is_read() -> None:
    content = "\ufeffcaption;label\r\nYou win; at last.;yes\r\n".encode()
    with pytest.raises(TableError, match="line 2 has 3 cells, the first line names 2 columns"):
        labels_in(content, "csv")
    (label,) = labels_in('\ufeffcaption;label\r\n"You win; at last.";yes\r\n\r\n', "csv").labels
    assert (label.caption, label.helpful, label.place) == (b"You win; at last.", True, "line 2")


def test_json_lines_are_ascii_and_hold_no_number_that_json_lacks() -> None:
    columns = [CAPTION, Column("logprobs", "json"), Column("score", "number")]
    rows = [{"caption": "\u2028".encode(), "logprobs": '{" no": -Infinity, "yes": -0.5}', "score": float("nan")}]
    line = written(rows, columns, "jsonl")
    assert line.isascii()
    assert json.loads(line) == {
        "caption": "\u2028",
        "caption_base64": None,
        "logprobs": {" no": None, "yes": -0.5},
        "score": None,
    }


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return inspected_store.fill(tmp_path / "store.sqlite")


def rows_of(store: Path, form: Format = "jsonl", **wanted: Any) -> list[dict[str, Any]]:
    return read(b"".join(export(store, Wanted(**wanted), form)), form)


def test_a_row_says_what_counts_and_what_the_llm_said(store: Path) -> None:
    with Store(store) as writer:
        writer.override(SCRIPT, "judge-1", helpful=False, muted=True, note="noise", author="ann")
    rows = {caption_of(row): row for row in rows_of(store)}
    assert len(rows) == 12
    key, quotes, script = rows[KEY], rows[QUOTES], rows[SCRIPT]
    assert (key["label"], key["llm_label"], key["source"], key["p_helpful"]) == ("helpful", "helpful", "llm", 0.875)
    assert (key["count"], key["reward_sum"], key["first_step"], key["tokens_in"]) == (10, 20.0, 64, 40)
    assert (
        key["prompt"] == f"Goal: <b>open</b> the box. {EVIL}\nEvent: number {caption_id(store, KEY)}\x1b[2J\nProgress:"
    )
    assert key["logprobs"] == {" yes": -0.25, "\x1b[1m<no>": -1.75, "never": None}
    assert (quotes["label"], quotes["llm_label"], quotes["author"]) == ("helpful", "unhelpful", "kim <k>")
    assert quotes["note"] == f"no <u>sense</u> {EVIL}"
    assert (script["label"], script["llm_label"], script["note"]) == ("muted", "unhelpful", "noise")
    assert (rows[UNASKED]["label"], rows[RTL]["label"]) == (None, "failed")
    assert rows[LATIN]["caption_base64"] == base64.b64encode(LATIN).decode()
    assert {row["labeler_id"] for row in rows.values()} == {"judge-1"}


def test_all_labelers_and_one_run(store: Path) -> None:
    rows = rows_of(store, labeler_id="all")
    assert len(rows) == 6 + 2, "without captions that nobody answered"
    assert {row["labeler_id"] for row in rows} == {"judge-1", "judge-2"}
    with Store(store) as writer:
        writer.add_run("run-b", "second", {}, labeler_id="judge-2", goal="x")
        writer.add_occurrences("run-b", [inspected_store.occurrence(DOOR, 7, 1.0)])
    (row,) = rows_of(store, run_id="run-b")
    assert (row["caption"], row["labeler_id"], row["count"]) == (DOOR.decode(), "judge-2", 7)
    for wanted, words in ((Wanted(run_id="x"), "no run 'x'"), (Wanted(labeler_id="x"), "no labeler 'x'")):
        with pytest.raises(StoreError, match=words):
            export(store, wanted, "jsonl")


def test_parquet_has_types(store: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(b"".join(export(store, Wanted(), "parquet"))))
    types = {field.name: str(field.type) for field in table.schema}
    assert (types["caption"], types["count"], types["reward_sum"]) == ("string", "int64", "double")
    assert table.num_rows == 12
    assert json.loads(table.column("logprobs")[0].as_py())[" yes"] == -0.25


def test_preferences_are_what_both_orders_say(store: Path) -> None:
    inspected_store.add_comparisons(store)
    (row,) = rows_of(store, what="preferences")
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("open the box", KEY.decode(), DOOR.decode())
    assert row["p_chosen"] == pytest.approx((0.75 + 1 - 0.375) / 2)
    with Store(store) as writer:
        writer.override(DOOR, "pairs-1", helpful=False, muted=True)
    assert rows_of(store, what="preferences") == [], "what is muted is learned from by none"
    with pytest.raises(StoreError, match="no labeler that compared captions"):
        export(inspected_store.fill(store.with_name("other.sqlite")), Wanted("preferences"), "jsonl")


@pytest.mark.parametrize("form", FORMATS)
def test_batches_leave_nothing_out(store: Path, form: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rows_of(store, form)
    for size in (1, 5, 12):
        monkeypatch.setattr(exported, "BATCH", size)
        assert rows_of(store, form) == whole


def test_no_read_stays_open_while_somebody_downloads_slowly(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exported, "BATCH", 2)
    pieces = export(store, Wanted(), "jsonl")
    next(pieces)
    connection = sqlite3.connect(store, timeout=0.1)
    with Store(store) as writer:
        writer.override(KEY, "judge-1", helpful=False)
    assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    connection.close()
    assert len(b"".join(pieces).splitlines()) == 10


def test_a_file_is_there_whole_or_not_at_all(store: Path, tmp_path: Path) -> None:
    target = tmp_path / "labels.csv"
    export_file(store, Wanted(), target)
    before = target.read_bytes()
    assert before.startswith(b"caption,caption_base64,label,note,")
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE annotations SET logprobs = '{' WHERE id = 1")
    connection.close()
    export_file(store, Wanted(), target)  # JSON text is a cell like any other
    with pytest.raises(ValueError, match="Expecting"):
        export_file(store, Wanted(), tmp_path / "labels.jsonl")
    assert sorted(path.name for path in tmp_path.glob("labels*")) == ["labels.csv"]
    with pytest.raises(ConfigError, match=r"'x\.foo' names no format"):
        export_file(store, Wanted(), Path("x.foo"))


def test_without_pyarrow_it_says_what_to_install(store: Path) -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pathlib import Path\n"
        "from llm_annotator.exporting import Wanted, export_file\n"
        "export_file(Path(sys.argv[1]), Wanted(), Path(sys.argv[2]))"
    )
    target = store.with_name("x.parquet")
    arguments = [sys.executable, "-c", code, str(store), str(target)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert "Parquet needs the package pyarrow: pip install 'oni-jax[parquet]'" in done.stderr
    assert not list(store.parent.glob("x.parquet*"))


# What comes back.


def in_force(store: Path, caption: bytes, labeler_id: str = "judge-1") -> tuple[Any, ...]:
    with Store(store) as writer:
        (label,) = writer.labels_of(labeler_id, writer.intern([caption]))
    return () if label is None else (label.helpful, label.muted, label.source)


@pytest.mark.parametrize("form", FORMATS)
def test_bringing_back_what_was_taken_changes_nothing(store: Path, form: Format) -> None:
    with Store(store) as writer:
        writer.override(SCRIPT, "judge-1", helpful=False, muted=True)
        before = writer.last_change()
    content = b"".join(export(store, Wanted(), form))
    report = overrule(store, labels_in(content, form), "judge-1", author="ann", note="")
    assert report == Report("judge-1", changed=0, same=4, skipped=8, unseen=0)
    with Store(store) as writer:
        assert writer.last_change() == before


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_what_was_changed_in_the_file_counts_and_the_llm_is_remembered(store: Path, form: Format) -> None:
    content = b"".join(export(store, Wanted(), form))
    rows = read(content, form)
    wanted = {KEY: "unhelpful", DOOR: "muted", UNASKED: "yes", LATIN: "no"}
    lines = [row | ({"label": wanted[caption_of(row)]} if caption_of(row) in wanted else {}) for row in rows]
    if form == "jsonl":
        text = "\n".join(json.dumps(line) for line in lines)
    else:
        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
        text = file.getvalue()
    report = overrule(store, labels_in(text, form), "judge-1", author="ann", note="by sheet")
    assert (report.changed, report.same) == (4, 2)
    assert in_force(store, KEY) == (False, False, "human")
    assert in_force(store, DOOR) == (False, True, "human")
    assert in_force(store, UNASKED) == (True, False, "human")
    assert in_force(store, LATIN) == (False, False, "human")
    with StoreReader(store) as reader:
        history = reader.history(caption_id(store, KEY))
        assert [(item.author, item.note) for item in history.overrides] == [("ann", "by sheet")]
        assert history.annotations[0].helpful, "what the LLM had said"
    assert overrule(store, labels_in(text, form), "judge-1", author="ann", note="").changed == 0


def test_labels_of_captions_that_never_came_up(store: Path) -> None:
    report = overrule(
        store, labels_in('{"caption": "new", "helpful": true, "note": "why"}'), "judge-1", author="", note="x"
    )
    assert (report.changed, report.unseen) == (1, 1)
    assert in_force(store, b"new") == (True, False, "human")
    with pytest.raises(StoreError, match="no labeler 'nobody'"):
        overrule(store, labels_in('{"caption": "new", "helpful": true}'), "nobody", author="", note="")


def test_a_labeler_of_its_own_changes_no_run(store: Path) -> None:
    text = '{"caption": "You take the yellow key.", "label": "unhelpful", "p_helpful": 0.875}\n'
    text += '{"caption": "You open the door.", "label": "helpful", "p_helpful": 0.75}'
    report = add_labeler(store, labels_in(text), "kim", goal="open the box", note="by hand")
    assert report == Report("imported:kim", changed=2, same=0, skipped=0, unseen=0)
    assert in_force(store, KEY) == (True, False, "llm")
    assert in_force(store, KEY, "imported:kim") == (False, False, "llm")
    assert add_labeler(store, labels_in(text), "kim", goal="", note="").changed == 0
    with StoreReader(store) as reader:
        (row,) = [row for row in reader.labelers() if row.labeler_id == "imported:kim"]
        assert (row.labelled, row.helpful, row.spec["goal"]) == (2, 1, "open the box")
        (annotation,) = [a for a in reader.history(1).annotations if a.labeler_id == "imported:kim"]
        assert (annotation.p_helpful, annotation.detail) == (None, "by hand"), "0.875 was that of the other label"
    for name, words in (("", "no name"), ("a\n", "no name")):
        with pytest.raises(ValueError, match=words):
            add_labeler(store, labels_in(text), name, goal="", note="")
    with pytest.raises(ValueError, match="line 1: a mute is a person's word"):
        add_labeler(store, labels_in('{"caption": "x", "label": "muted"}'), "kim", goal="", note="")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"caption": "a", "label": "yes"}\n{"caption": "a", "label": "no"}', "line 2: the same caption .* at line 1"),
        ('{"caption": "a", "label": "maybe"}', "line 1: label is 'maybe': give helpful, unhelpful or muted"),
        ('{"caption": "a"}', "line 1: it has neither `label` nor `helpful`; there are: caption"),
        ('{"label": "yes"}', "line 1: it has no caption"),
        ('{"caption": "", "label": "yes"}', "line 1: it has no caption"),
        ('{"caption": 5, "label": "yes"}', "line 1: caption is 5, which is no text"),
        ('{"caption": "\\ud800", "label": "yes"}', "half a character"),
        ('{"caption_base64": "!", "label": "yes"}', "caption_base64 is no base64"),
        ('{"caption": "a", "label": "yes", "p_helpful": 7}', "p_helpful is 7, no number from 0 to 1"),
        ('{"caption": "a", "label": "yes", "p_helpful": "nan"}', "no number from 0 to 1"),
        ('{"caption": "a", "label": "yes", "note": 5}', "note is a text"),
        ("\n\n[1]", "line 3 is no JSON object"),
        ("{", "line 1 is no JSON"),
        ("[" * 100_000, "line 1 is no JSON"),
        (b"\xff", "line 1 is no JSON"),
        (json.dumps({"caption": "x" * 300_000, "label": "yes"}), "300000 bytes, 262144 at most"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(content: str | bytes, words: str) -> None:
    with pytest.raises(TableError, match=words):
        labels_in(content)


def test_files_of_another_kind(store: Path) -> None:
    with pytest.raises(TableError, match="cannot be read as Parquet"):
        labels_in("no parquet", "parquet")
    with pytest.raises(TableError, match="no UTF-8"):
        labels_in(b"caption,label\n\xff,yes\n", "csv")
    with pytest.raises(TableError, match="no caption"):
        labels_in("text,label\na,yes\n", "csv")
    with pytest.raises(TableError, match="no CSV"):
        labels_in("caption,label\n" + "x" * (16 * 2**20 + 1) + ",yes\n", "csv")
    assert labels_in("", "csv").labels == []


def test_nothing_is_changed_if_one_line_is_wrong(store: Path) -> None:
    with Store(store) as writer:
        before = writer.last_change()
    text = '{"caption": "You take the yellow key.", "label": "no"}\n{"caption": "x", "label": "?"}'
    with pytest.raises(TableError):
        overrule(store, labels_in(text), "judge-1", author="", note="")
    with Store(store) as writer:
        assert writer.last_change() == before
