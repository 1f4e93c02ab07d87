"""What people change on the pages, through the app: what it does to the store, and what is refused."""

import asyncio
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import inspected_store
import pytest
from inspected_store import DOOR, HOSTILE, KEY, LATIN, QUOTES, SCRIPT, caption_id
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from llm_annotator.access import Guard
from llm_annotator.askagain import AskAgain
from llm_annotator.backends import create_backend
from llm_annotator.config import AnnotatorConfig, BackendConfig, LabelerConfig
from llm_annotator.errors import ConfigError
from llm_annotator.exporting import Wanted, export
from llm_annotator.importing import overrule, read_labels
from llm_annotator.inspector.app import inspector_routes
from llm_annotator.inspector.mending import MAX_IMPORT_BYTES, make_mending
from llm_annotator.inspector.multipart import parse
from llm_annotator.labeler import Labeler, resolve_labeler
from llm_annotator.store import Store, StoreReader
from tests.able_openai_server import AbleServer

HERE = "http://127.0.0.1:8000"
SAME = {"sec-fetch-site": "same-origin", "origin": HERE}

Send = Callable[..., httpx.Response]


def pages(store: Path, *, token: str | None = None, asking: AskAgain | None = None) -> Send:
    """Returns a function that sends one request to the pages about a store."""
    guard = Guard(token, loopback_only=token is None)
    mending = make_mending(store, author="ann", asking=asking)
    app = Starlette(routes=inspector_routes(store, run_dir=None, guard=guard, mending=mending))

    def send(path: str, method: str = "GET", **options: Any) -> httpx.Response:
        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=HERE) as http:
                return await http.request(method, path, **options)

        return asyncio.run(go())

    return send


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return inspected_store.fill(tmp_path / "store.sqlite")


@pytest.fixture
def send(store: Path) -> Send:
    return pages(store)


def form_token(send: Send) -> str:
    (token,) = set(re.findall(r'name="token" value="([^"]+)"', send("/inspect/caption/1").text))
    return token


def post(send: Send, path: str, *, headers: dict[str, str] = SAME, token: str | None = None, **fields: str) -> Any:
    data = {"token": form_token(send) if token is None else token, **fields}
    return send(f"/inspect/{path}", "POST", data=data, headers=headers)


def in_force(store: Path, caption: bytes, labeler_id: str = "judge-1") -> tuple[Any, ...]:
    with Store(store) as writer:
        (label,) = writer.labels_of(labeler_id, writer.intern([caption]))
    return () if label is None else (label.helpful, label.muted, label.source)


def nothing_changed(store: Path) -> bool:
    with StoreReader(store) as reader:
        return reader.totals().overrides == 1


# Overruling.


@pytest.mark.parametrize(
    ("word", "found"),
    [("yes", (True, False, "human")), ("no", (False, False, "human")), ("mute", (False, True, "human"))],
)
def test_a_word_counts_at_once_and_leads_back(store: Path, send: Send, word: str, found: Any) -> None:
    key = caption_id(store, KEY)
    fields = {"helpful": word, "labeler": "judge-1", "note": " why <b> "}
    answer = post(send, f"caption/{key}/override?run=run-a&labeler=judge-1", **fields)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/inspect/caption/{key}?run=run-a&labeler=judge-1&done=override"
    assert in_force(store, KEY) == found
    html = send(answer.headers["location"]).text
    assert "Saved. A run that goes on learns it within seconds." in html
    assert "why &lt;b&gt;" in html
    assert "by ann," in html
    with StoreReader(store) as reader:
        history = reader.history(key)
    assert history.annotations[0].helpful, "what the LLM had said is kept"
    override = str(history.overrides[-1].override_id)
    answer = post(send, f"caption/{key}/undo", override=override)
    assert answer.headers["location"] == f"/inspect/caption/{key}?done=undo"
    assert in_force(store, KEY) == (True, False, "llm")
    assert "taken back" in send(f"/inspect/caption/{key}").text
    answer = post(send, f"caption/{key}/undo", override=override)
    assert answer.status_code == 409
    assert "was taken back already" in answer.text


@pytest.mark.parametrize("caption", HOSTILE)
def test_any_caption_can_be_overruled(store: Path, send: Send, caption: bytes) -> None:
    answer = post(send, f"caption/{caption_id(store, caption)}/override", helpful="mute", labeler="judge-2")
    assert answer.status_code == 303
    assert in_force(store, caption, "judge-2") == (False, True, "human")


def test_an_override_of_another_caption_is_not_undone_here(store: Path, send: Send) -> None:
    with StoreReader(store) as reader:
        (override,) = reader.history(caption_id(store, QUOTES)).overrides
    assert post(send, f"caption/{caption_id(store, KEY)}/undo", override=str(override.override_id)).status_code == 409
    assert in_force(store, QUOTES) == (True, False, "human")


@pytest.mark.parametrize(
    ("path", "fields", "status", "words"),
    [
        ("caption/1/override", {"helpful": "perhaps", "labeler": "judge-1"}, 400, "press Helpful, Unhelpful or Mute"),
        ("caption/1/override", {"labeler": "judge-1"}, 400, "Nothing was chosen"),
        ("caption/1/override", {"helpful": "yes", "labeler": "<b>"}, 404, "knows no labeler &#39;&lt;b&gt;&#39;"),
        ("caption/77/override", {"helpful": "yes", "labeler": "judge-1"}, 404, "holds no caption 77"),
        (f"caption/{10**30}/override", {"helpful": "yes", "labeler": "judge-1"}, 404, "holds no caption"),
        ("caption/1/override", {"helpful": "yes", "labeler": "judge-1", "note": "x" * 2001}, 400, "2,000 at most"),
        ("caption/1/override", {"helpful": "yes", "note": "x" * 70_000}, 400, "more than 65,536 bytes"),
        ("caption/1/override", {f"f{i}": "x" for i in range(200)}, 400, "no form of these pages"),
        ("caption/1/undo", {"override": "x"}, 409, "was taken back already"),
        ("caption/1/ask", {"labeler": "judge-1"}, 409, "oni relabel STORE"),
    ],
)
def test_what_makes_no_sense_is_said(
    store: Path, send: Send, path: str, fields: dict[str, str], status: int, words: str
) -> None:
    answer = post(send, path, **fields)
    assert answer.status_code == status
    assert words in answer.text
    assert answer.headers["content-type"].startswith("text/html")
    assert nothing_changed(store)


def test_a_labeler_that_compares_can_be_told_to_mute_alone(store: Path, send: Send) -> None:
    inspected_store.add_comparisons(store)
    assert "(compares: mute only)" in send("/inspect/caption/1?labeler=pairs-1").text
    answer = post(send, "caption/1/override", helpful="yes", labeler="pairs-1")
    assert (answer.status_code, "can only be muted" in answer.text) == (400, True)
    assert post(send, "caption/1/override", helpful="mute", labeler="pairs-1").status_code == 303
    assert in_force(store, KEY, "pairs-1") == (False, True, "human")


def test_labels_of_a_file_are_no_word_for_a_labeler_that_compares(store: Path) -> None:
    inspected_store.add_comparisons(store)
    helpful = read_labels(io.BytesIO(b"caption,label\nYou win.,helpful\n"), "csv")
    with pytest.raises(ValueError, match=r"pairs-1 compares captions .* a caption can only be muted"):
        overrule(store, helpful, "pairs-1", author="", note="")
    muted = read_labels(io.BytesIO(b"caption,label\nYou win.,muted\n"), "csv")
    assert overrule(store, muted, "pairs-1", author="", note="").changed == 1


def test_a_store_that_cannot_be_written_is_said(store: Path, send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    monkeypatch.setattr("llm_annotator.store.connection.BUSY_TIMEOUT_S", 0.05)
    token = form_token(send)
    holder = sqlite3.connect(store, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    answer = post(send, "caption/1/override", helpful="no", labeler="judge-1", token=token)
    holder.execute("ROLLBACK")
    holder.close()
    assert answer.status_code == 507
    assert "stays locked by another process" in answer.text
    assert nothing_changed(store)


# Who may not.

WRITES = [
    ("caption/1/override", {"helpful": "no", "labeler": "judge-1"}),
    ("caption/1/undo", {"override": "1"}),
    ("caption/1/ask", {"labeler": "judge-1"}),
]


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},  # another port of this machine
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site", "origin": HERE},
    ],
)
def test_pages_of_other_sites_change_nothing_even_with_the_token(
    store: Path, send: Send, headers: dict[str, str]
) -> None:
    token = form_token(send)
    for path, fields in WRITES:
        answer = post(send, path, headers=headers, token=token, **fields)
        assert answer.status_code == 403
        assert "a page of another site" in answer.text
    assert nothing_changed(store)


@pytest.mark.parametrize("token", ["", "x", "\u00fc", "x" * 43])
def test_no_form_without_the_token_changes_anything(store: Path, send: Send, token: str) -> None:
    for path, fields in WRITES:
        for headers in (SAME, {}, {"origin": "null"}):
            answer = post(send, path, headers=headers, token=token, **fields)
            assert answer.status_code == 403
            assert "older than the server" in answer.text
    assert nothing_changed(store)


def test_a_foreign_name_for_this_machine_is_refused(store: Path, send: Send) -> None:
    """DNS rebinding: a page of evil.example whose name now means 127.0.0.1 would be of the same site."""
    headers = {"host": "evil.example", "origin": "http://evil.example", "sec-fetch-site": "same-origin"}
    assert post(send, "caption/1/override", headers=headers, helpful="no", labeler="judge-1").status_code == 421
    assert send("/inspect/caption/1", headers=headers).status_code == 421, "nor can it read the token"
    assert send("/inspect/export/annotations.jsonl", headers=headers).status_code == 421
    assert nothing_changed(store)


def test_each_process_has_a_token_of_its_own(store: Path) -> None:
    first, second = pages(store), pages(store)
    assert form_token(first) != form_token(second)
    assert len(form_token(first)) >= 43
    fields = {"helpful": "no", "labeler": "judge-1"}
    assert post(second, "caption/1/override", token=form_token(first), **fields).status_code == 403


def test_other_kinds_of_requests_change_nothing(store: Path, send: Send) -> None:
    token = form_token(send)
    body = {"token": token, "helpful": "no", "labeler": "judge-1"}
    assert send("/inspect/caption/1/override", "POST", json=body, headers=SAME).status_code == 400
    assert send("/inspect/caption/1/override", params=body, headers=SAME).status_code == 405
    text = {"content-type": "text/plain", **SAME}
    assert send("/inspect/caption/1/override", "POST", content=f"token={token}", headers=text).status_code == 400
    assert nothing_changed(store)


def test_behind_a_token_nothing_is_written_or_taken_along_without_it(store: Path) -> None:
    send = pages(store, token="a long secret")
    answer = send("/inspect/caption/1/override", "POST", data={"helpful": "no"}, headers=SAME)
    assert answer.status_code == 401
    assert send("/inspect/export/annotations.csv").headers["location"].startswith("/inspect/login?next=")
    assert send("/inspect/import", "POST", files={"file": ("a.csv", b"x")}, headers=SAME).status_code == 401
    assert nothing_changed(store)


# Asking again.


@pytest.fixture
def answered(tmp_path: Path) -> tuple[Path, str, AnnotatorConfig]:
    """A store in which a scripted LLM finds keys helpful, the labeler, and how that LLM is reached."""
    path = tmp_path / "answered.sqlite"
    backend = BackendConfig(kind="scripted", options={"helpful_pattern": "key"})
    config = AnnotatorConfig(backend=backend, labeler=LabelerConfig(goal="Find keys.", threshold=0.0))
    labeler = Labeler(resolve_labeler(config.labeler), create_backend(backend).model)
    with Store(path) as store:
        store.add_labeler(labeler.id, labeler.spec.to_wire(), labeler.model)
        store.add_run("run-a", "first", {}, labeler_id=labeler.id, goal="Find keys.")
        store.add_occurrences("run-a", [inspected_store.occurrence(c, 5, 1.0) for c in (KEY, DOOR, LATIN)])
    return path, labeler.id, config


def test_the_same_question_again_counts_for_the_run(answered: tuple[Path, str, AnnotatorConfig]) -> None:
    path, labeler_id, config = answered
    with Store(path) as store:
        before = store.last_change()
    send = pages(path, asking=AskAgain(path, lambda: config))
    for number in (1, 2):
        answer = post(send, f"caption/{caption_id(path, KEY)}/ask", labeler=labeler_id)
        assert answer.status_code == 303, answer.text
        with StoreReader(path) as reader:
            assert len(reader.history(caption_id(path, KEY)).annotations) == number
    assert in_force(path, KEY, labeler_id) == (True, False, "llm")
    with Store(path) as store:
        assert [label.caption for label in store.labels_since(labeler_id, before, limit=9)] == [KEY]


def test_another_goal_or_model_is_another_labeler(answered: tuple[Path, str, AnnotatorConfig]) -> None:
    path, labeler_id, _ = answered
    with AbleServer() as server:
        backend = BackendConfig(kind="completions", model="first", base_url=server.base_url)
        _ask_others(path, labeler_id, AnnotatorConfig(backend=backend))
        assert {seen.body["model"] for seen in server.requests} == {"first", "other"}


def _ask_others(path: Path, labeler_id: str, config: AnnotatorConfig) -> None:
    send = pages(path, asking=AskAgain(path, lambda: config))
    door = caption_id(path, DOOR)
    for fields in ({"goal": "Find <b>doors</b>."}, {"model": "other"}, {"goal": "Find coins.", "model": "other"}):
        answer = post(send, f"caption/{door}/ask?run=run-a", labeler=labeler_id, **fields)
        assert answer.status_code == 303, answer.text
        html = send(answer.headers["location"]).text
        assert "Asked again." in html
        assert "<b>doors" not in html
    with StoreReader(path) as reader:
        labelers = reader.labelers()
        assert {row.spec["goal"] for row in labelers} == {"Find keys.", "Find <b>doors</b>.", "Find coins."}
        assert len(labelers) == 4
        (run,) = reader.runs()
        assert run.labeler_id == labeler_id, "the run stays with its own"
        assert {a.labeler_id for a in reader.history(door).annotations} == {
            row.labeler_id for row in labelers if row.labeler_id != labeler_id
        }
    assert in_force(path, DOOR, labeler_id) == ()


def test_an_llm_that_does_not_answer_is_said(answered: tuple[Path, str, AnnotatorConfig]) -> None:
    path, labeler_id, config = answered

    def unreachable() -> AnnotatorConfig:
        raise ConfigError("config.yaml is damaged")

    dead = BackendConfig(kind="completions", model="m", base_url="http://127.0.0.1:9/v1", timeout_s=0.2)
    engine = type(config.engine)(max_attempts=1)
    for settings, words in (
        (unreachable, "It could not be asked: config.yaml is damaged."),
        (lambda: AnnotatorConfig(backend=dead, engine=engine), "It could not be asked: "),
    ):
        answer = post(pages(path, asking=AskAgain(path, settings)), "caption/1/ask", labeler=labeler_id)
        assert answer.status_code == 502
        assert words in answer.text
    assert in_force(path, KEY, labeler_id) == ()


def test_a_key_that_a_server_repeats_is_not_shown(
    answered: tuple[Path, str, AnnotatorConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, labeler_id, config = answered
    monkeypatch.setenv("ONI_TEST_KEY", "sk-secret-of-mine")
    with AbleServer(mode="bad_key") as server:
        backend = BackendConfig(
            kind="completions", model="m", base_url=server.base_url, api_key_env="ONI_TEST_KEY", timeout_s=2.0
        )
        send = pages(path, asking=AskAgain(path, lambda: AnnotatorConfig(backend=backend, engine=config.engine)))
        answer = post(send, "caption/1/ask", labeler=labeler_id)
        assert server.requests[0].authorization == "Bearer sk-secret-of-mine"
    assert answer.status_code == 502
    assert "It could not be asked" in answer.text
    assert "sk-secret-of-mine" not in answer.text


def test_who_cannot_be_asked_about_one_caption(answered: tuple[Path, str, AnnotatorConfig]) -> None:
    path, _, config = answered
    inspected_store.add_comparisons(path)
    send = pages(path, asking=AskAgain(path, lambda: config))
    answer = post(send, "caption/1/ask", labeler="pairs-1")
    assert answer.status_code == 502
    assert "It could not be asked" in answer.text


# Taking along and bringing back.


@pytest.mark.parametrize("name", ["annotations.jsonl", "annotations.csv", "annotations.parquet"])
def test_downloads_are_what_the_command_writes(store: Path, send: Send, name: str) -> None:
    answer = send(f"/inspect/export/{name}?run=run-a&labeler=judge-1")
    assert answer.status_code == 200
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    form: Any = name.rpartition(".")[2]
    assert answer.content == b"".join(export(store, Wanted(run_id="run-a", labeler_id="judge-1"), form))


def test_downloads_that_are_not_there(store: Path, send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, words in (
        ("annotations.jsonl?run=nobody", "holds no run &#39;nobody&#39;"),
        ("preferences.jsonl", "no labeler that compared captions"),
        ("annotations.xlsx", "There is no such page"),
    ):
        answer = send(f"/inspect/export/{path}")
        assert answer.status_code == 404
        assert words in answer.text
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    answer = send("/inspect/export/annotations.parquet")
    assert answer.status_code == 501
    assert "pip install" in answer.text


def bring(send: Send, content: bytes, filename: str = "labels.jsonl", **more: Any) -> httpx.Response:
    fields = {"token": form_token(send), "labeler": "judge-1", "name": ""} | more
    files = {"file": (filename, io.BytesIO(content))}
    return send("/inspect/import", "POST", data=fields, files=files, headers=SAME)


def test_a_file_is_brought_back(store: Path, send: Send) -> None:
    content = send("/inspect/export/annotations.csv").content
    answer = bring(send, content, "labels.csv")
    assert answer.status_code == 200
    assert "0 labels changed" in answer.text
    changed = content.replace(b",unhelpful,", b",muted,")
    assert changed != content
    answer = bring(send, changed, "<i>labels.csv")
    assert "1 label changed" in answer.text
    assert "<i>" not in answer.text
    assert in_force(store, SCRIPT) == (False, True, "human")
    with StoreReader(store) as reader:
        (override,) = reader.history(caption_id(store, SCRIPT)).overrides
    assert (override.note, override.author) == ("imported from <i>labels.csv", "ann")


def test_a_file_as_a_labeler_of_its_own(store: Path, send: Send) -> None:
    answer = bring(send, b'{"caption": "You open the door.", "helpful": false}', name="kim")
    assert answer.status_code == 200
    assert "imported:kim" in answer.text
    assert in_force(store, DOOR, "imported:kim") == (False, False, "llm")
    assert in_force(store, DOOR) == (True, False, "llm")
    assert "imported:kim" in send("/inspect/labelers").text
    assert send("/inspect/captions?labeler=imported%3Akim").status_code == 200


def test_files_that_cannot_be_imported(store: Path, send: Send) -> None:
    for content, name, words in (
        (b"\n{", "a.jsonl", "line 2 is no JSON"),
        (b"x", "a.exe", "names no format"),
        (b"caption,label\na,maybe\n", "a.csv", "line 2: label is &#39;maybe&#39;"),
        (b"x", "a.parquet", "cannot be read as Parquet"),
    ):
        answer = bring(send, content, name)
        assert answer.status_code == 400, name
        assert words in answer.text
        assert "nothing was changed" in answer.text
    assert bring(send, b"", token="wrong").status_code == 403
    assert bring(send, b"", labeler="nobody").status_code == 404
    nothing = {"token": (None, form_token(send)), "labeler": (None, "judge-1")}
    assert "No file was chosen" in send("/inspect/import", "POST", files=nothing, headers=SAME).text
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "http://evil.example"}):
        fields = {"token": form_token(send), "labeler": "judge-1"}
        files = {"file": ("a.jsonl", b'{"caption": "x", "label": "yes"}')}
        assert send("/inspect/import", "POST", data=fields, files=files, headers=headers).status_code == 403
    assert nothing_changed(store)


def test_a_file_that_is_too_large_is_not_read_to_its_end(store: Path, send: Send) -> None:
    answer = bring(send, b" " * (MAX_IMPORT_BYTES + 1))
    assert answer.status_code == 413
    assert "larger than 32 MB" in answer.text


def test_a_form_with_a_file_keeps_its_bytes() -> None:
    content = b"\r\n--other\r\n\x00\xff\r\n--bound\r\n\r\n"
    body = b'--bnd\r\nContent-Disposition: form-data; name="a"\r\n\r\none\r\n--bnd\r\n'
    body += b'Content-Disposition: form-data; name="file"; filename="x y.csv"\r\nContent-Type: text/csv\r\n\r\n'
    body += content + b"\r\n--bnd--\r\n"
    assert parse(body, b"bnd") == {"a": b"one", "file": content, "file.filename": b"x y.csv"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--bnd",
        b'--bnd\r\nContent-Disposition: form-data; name="a"\r\n\r\none',  # cut off
        b"--bnd\r\nContent-Disposition: form-data\r\n\r\none\r\n--bnd--",
        b'--bnd\r\nContent-Disposition: form-data; name="a"\r\n--bnd--',
        b'--bnd\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 50 + b"--bnd--",
    ],
)
def test_a_form_that_did_not_arrive_whole(body: bytes) -> None:
    with pytest.raises(HTTPException, match="400"):
        parse(body, b"bnd")
