"""Mending and taking along in a real Chromium, from click to effect: on a store, and on a training that goes on."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from browsing import ROOT, Opener, Served, first_words
from inspected_store import DOOR, HOSTILE, KEY, SCRIPT, caption_id
from playwright.sync_api import Browser, Page, expect

from llm_annotator.store import Store, StoreReader

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

HEARD_WITHIN_S = 10.0
"""A word is to reach a training within seconds: two looks at the store, and an update on a busy machine."""


def in_force(store: Path, caption: bytes, labeler_id: str = "judge-1") -> tuple[Any, ...]:
    with Store(store) as writer:
        (label,) = writer.labels_of(labeler_id, writer.intern([caption]))
    return () if label is None else (label.helpful, label.muted, label.source)


def in_scope(address: str) -> str:
    return f"{address}?run=run-a&labeler=judge-1"


# Mend it.


def test_overrule_mute_and_undo(served: Served, open_page: Opener) -> None:
    page = open_page(in_scope(f"{served.url}captions"))
    page.get_by_role("link", name="You open the door.", exact=True).click()
    standing = page.locator("#standing .verdict")
    expect(standing).to_contain_text("helpful")
    page.get_by_label("Note").fill("<b>it</b> is farmed")
    page.get_by_role("button", name="Unhelpful").click()
    expect(page.locator(".done")).to_contain_text("Saved.")
    expect(standing).to_contain_text("unhelpful")
    expect(standing).to_contain_text("by hand")
    assert in_force(served.store, DOOR) == (False, False, "human")
    expect(page.locator("#labels .note")).to_have_text("<b>it</b> is farmed")
    expect(page.locator("#labels .labeler").first.locator("details.annotation")).to_have_count(1)

    page.get_by_role("button", name="Mute").focus()
    page.keyboard.press("Enter")
    expect(standing.locator(".muted")).to_have_text("⊘ muted")
    assert in_force(served.store, DOOR) == (False, True, "human")
    page.goto(in_scope(f"{served.url}captions"))
    page.get_by_role("link", name="muted", exact=True).click()
    expect(page.locator("#list tbody th")).to_have_text(["You open the door."])

    page.get_by_role("link", name="You open the door.", exact=True).click()
    undo = page.locator("#labels .override").first.get_by_role("button")
    undo.click()
    expect(page.locator(".done")).to_contain_text("Taken back.")
    expect(standing).to_contain_text("unhelpful")
    page.locator("#labels .override:not(.revoked)").get_by_role("button").click()
    expect(standing.locator(".hand, .muted")).to_have_count(0)
    assert in_force(served.store, DOOR) == (True, False, "llm")
    expect(page.locator("#labels .override.revoked")).to_have_count(2)


@pytest.mark.parametrize("caption", HOSTILE)
def test_hostile_captions_are_mended_and_do_nothing(served: Served, open_page: Opener, caption: bytes) -> None:
    page = open_page(in_scope(served.caption(caption)))
    page.get_by_label("Note").fill("</p><script>alert('note')</script>")
    page.get_by_role("button", name="Mute").click()
    expect(page.locator("#standing .muted")).to_be_visible()
    assert in_force(served.store, caption) == (False, True, "human")
    assert page.locator("main script").count() == 0
    page.locator("#labels .override:not(.revoked)").get_by_role("button").first.click()
    expect(page.locator(".done")).to_contain_text("Taken back.")


def own_caption(served: Served) -> tuple[int, str, str]:
    """Returns a caption of the run itself: id and text, and the run's labeler."""
    with StoreReader(served.store) as reader:
        run = next(run for run in reader.runs() if run.run_id != "run-a")
        row = reader.captions(run_id=run.run_id, helpful=True, text="key")[0]
        assert run.labeler_id is not None
        return row.caption_id, row.text.decode(), run.labeler_id


def test_ask_again_with_the_same_and_with_another_goal(served: Served, open_page: Opener) -> None:
    number, text, labeler_id = own_caption(served)
    page = open_page(f"{served.url}caption/{number}?labeler={labeler_id}")
    assert first_words(page) == text
    asked = page.locator("#labels .labeler").first.locator("details.annotation")
    before = asked.count()
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".done")).to_contain_text("Asked again.")
    expect(asked).to_have_count(before + 1)
    labelers = page.locator("#labels .labeler").count()
    page.get_by_label("Goal").fill("Open <i>every</i> door.")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".done")).to_contain_text("Asked again.")
    expect(page.locator("#labels .labeler")).to_have_count(labelers + 1)
    first = page.locator("#labels .labeler").first
    expect(first.locator(".goal")).to_have_text("Goal: Open <i>every</i> door.")
    expect(first.locator("pre.prompt")).to_contain_text("Open <i>every</i> door.")


def test_a_labeler_whose_prompt_nobody_knows_is_said(served: Served, browser: Browser) -> None:
    page = browser.new_page()  # judge-1 was written by hand into this store, without a prompt
    page.goto(in_scope(served.caption(KEY)))
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("main")).to_contain_text("It could not be asked: this labeler has schema None")
    page.close()


# Who may not.


@contextmanager
def another_site(html: str) -> Iterator[int]:
    """Serves one page at a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("knows_token", [False, True])
def test_a_page_of_another_site_changes_nothing(served: Served, browser: Browser, host: str, knows_token: bool) -> None:
    page = browser.new_page()
    page.goto(in_scope(served.caption(KEY)))
    token = page.locator("#mend input[name=token]").first.get_attribute("value") if knows_token else "guessed"
    action = f"{served.caption(KEY)}/override"
    body = f"token={token}&amp;helpful=mute&amp;labeler=judge-1"
    attack = f"""<form method=post action="{action}"><input name=token value="{token}"><input name=helpful value=mute>
        <input name=labeler value=judge-1><button>Win a prize</button></form><script>
        fetch("{action}", {{method: "POST", mode: "no-cors", credentials: "include",
            headers: {{"content-type": "application/x-www-form-urlencoded"}}, body: "{body}".replaceAll("&amp;", "&")}})
            .finally(() => {{ document.title = "sent"; }});</script>"""
    with another_site(attack) as port:
        page.goto(f"http://{host}:{port}/")
        page.wait_for_function("document.title === 'sent'")
        page.get_by_role("button").click()
        expect(page.locator("main")).to_contain_text("sent by a page of another site, and was left alone")
    page.close()
    assert in_force(served.store, KEY) == (True, False, "llm")
    with StoreReader(served.store) as reader:
        assert reader.history(caption_id(served.store, KEY)).overrides == ()


def test_a_page_of_a_server_that_was_started_anew_says_so(served: Served, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(in_scope(served.caption(KEY)))
    page.locator("#mend input[name=token]").first.evaluate("element => { element.value = 'of another process'; }")
    page.get_by_role("button", name="Mute").click()
    expect(page.locator("main")).to_contain_text("Open it anew, and send it again.")
    page.close()
    assert in_force(served.store, KEY) == (True, False, "llm")


# Take it along.


def download(page: Page, name: str, target: Path) -> bytes:
    with page.expect_download() as found:
        page.locator("#take-along").get_by_role("link", name=name).click()
    found.value.save_as(target)
    return target.read_bytes()


def test_take_it_along_change_it_and_bring_it_back(served: Served, open_page: Opener, tmp_path: Path) -> None:
    page = open_page(in_scope(f"{served.url}captions"))
    assert download(page, "Annotations, Parquet", tmp_path / "a.parquet").startswith(b"PAR1")
    rows = [json.loads(line) for line in download(page, "JSONL", tmp_path / "a.jsonl").splitlines()]
    assert {row["caption"] for row in rows} >= {KEY.decode(), SCRIPT.decode()}
    sheet = download(page, "CSV", tmp_path / "a.csv")
    line = b"You take the yellow key.,,helpful,"
    assert line in sheet
    (tmp_path / "a.csv").write_bytes(sheet.replace(line, b"You take the yellow key.,,muted,because"))

    page.get_by_label("File").set_input_files(tmp_path / "a.csv")
    page.get_by_role("button", name="Import").click()
    expect(page.locator(".done")).to_contain_text("a.csv: 1 label changed")
    assert in_force(served.store, KEY) == (False, True, "human")
    page.get_by_role("link", name="All labels by hand").click()
    page.get_by_role("link", name="You take the yellow key.").click()
    expect(page.locator("#labels .note").first).to_have_text("because")
    page.locator("#labels .override:not(.revoked)").get_by_role("button").click()
    assert in_force(served.store, KEY) == (True, False, "llm")


def test_bring_labels_as_a_labeler_of_its_own(served: Served, open_page: Opener, tmp_path: Path) -> None:
    page = open_page(in_scope(f"{served.url}captions"))
    (tmp_path / "kim.jsonl").write_text('{"caption": "You open the door.", "helpful": false}\n')
    page.get_by_label("File").set_input_files(tmp_path / "kim.jsonl")
    page.get_by_label("named").fill("kim")
    page.get_by_role("button", name="Import").click()
    expect(page.locator(".done")).to_contain_text("imported:kim")
    page.get_by_role("link", name="Its captions").click()
    page.get_by_role("link", name="You open the door.").click()
    expect(page.locator("#standing .verdict")).to_contain_text("unhelpful")
    assert in_force(served.store, DOOR) == (True, False, "llm")


def test_a_wrong_file_is_said(served: Served, browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto(f"{served.url}captions")
    (tmp_path / "<b>.csv").write_text("caption,label\nx,<script>alert(1)</script>\n")
    page.get_by_label("File").set_input_files(tmp_path / "<b>.csv")
    page.get_by_role("button", name="Import").click()
    expect(page.locator("main")).to_contain_text("<b>.csv was not imported, and nothing was changed: line 2: label is")
    page.close()


def test_preferences_are_taken_along(served: Served, open_page: Opener, tmp_path: Path) -> None:
    page = open_page(f"{served.url}captions?labeler=pairs-1")
    (line,) = download(page, "Preferences", tmp_path / "p.jsonl").splitlines()
    row = json.loads(line)
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("open the box", KEY.decode(), DOOR.decode())


# A training that goes on.


FREQUENT = "You pick up the purple key."
"""Even a policy that knows nothing yet hears it in every other update."""

ENDLESS = (
    *("--config", ROOT / "configs" / "quickstart.yaml", "--total-env-steps", 10**9, "--env.num-envs", 32),
    *("--annotator.backend.kind", "scripted", "--log.every-updates", 1, "--seed", 3),
)


class Training:
    """`oni train` in a process of its own, and what it writes down."""

    def __init__(self, run: Path, *arguments: object) -> None:
        self._metrics = run / "metrics.jsonl"
        self._log = run.with_name("training.log")
        self._seen = len(self._lines())
        command = [sys.executable, "-m", "oni.cli.main", "train", "--run-dir", run, *arguments]
        with self._log.open("a") as log:
            self.process = subprocess.Popen([*map(str, command)], stdout=log, stderr=log)

    def _lines(self) -> list[dict[str, Any]]:
        if not self._metrics.exists():
            return []
        return [json.loads(line) for line in self._metrics.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def news(self) -> list[dict[str, Any]]:
        """Returns the lines of metrics since the last call."""
        lines = self._lines()
        found, self._seen = lines[self._seen :], len(lines)
        return found

    def wait_for(self, condition: Callable[[dict[str, Any]], bool], *, within_s: float) -> float:
        """Returns after how many seconds a line met the condition."""
        begun = time.monotonic()
        while not any(condition(line) for line in self.news()):
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() - begun < within_s, self._lines()[-1:]
            time.sleep(0.05)
        return time.monotonic() - begun

    def stop(self) -> None:
        """Ends it as Ctrl-C does: it saves first."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)

    def kill(self) -> None:
        """Ends it whatever it does."""
        self.process.kill()
        self.process.wait()


def is_paid(line: dict[str, Any]) -> bool:
    return line.get("reward/intrinsic", 0) > 0


def is_not_paid(line: dict[str, Any]) -> bool:
    return line.get("captions/helpful") == 0 and line.get("reward/intrinsic") == 0


@pytest.mark.timeout(600)  # two trainings are started, and compile
def test_a_mute_reaches_a_training_that_goes_on_and_survives_a_resume(tmp_path: Path, open_page: Opener) -> None:
    """One caption alone is helpful; muted, nothing is paid any more."""
    run, text = tmp_path / "run", FREQUENT
    training = Training(run, *ENDLESS, "--annotator.backend.options", "helpful_pattern", f"^{re.escape(text)}$")
    served = None
    try:
        training.wait_for(is_paid, within_s=150)
        served = Served(run)
        page = open_page(f"{served.url}captions?label=helpful")
        page.get_by_role("link", name=text, exact=True).click()
        training.news()
        page.get_by_role("button", name="Mute").click()
        took_s = training.wait_for(is_not_paid, within_s=30)
        assert took_s < HEARD_WITHIN_S
        for _ in range(3):
            training.wait_for(lambda _: True, within_s=30)
        assert all(is_not_paid(line) for line in training.news())
        training.stop()
        assert training.process.returncode == 0

        training = Training(run, "--resume")
        training.wait_for(is_not_paid, within_s=150)
        for _ in range(3):
            training.wait_for(is_not_paid, within_s=30)
        page.reload()
        page.locator("#labels .override:not(.revoked)").get_by_role("button").click()
        expect(page.locator(".done")).to_contain_text("Taken back.")
        assert training.wait_for(is_paid, within_s=30) < HEARD_WITHIN_S
        command = ["override", run, text, "no", "--note", "on the command line"]
        subprocess.run([sys.executable, "-m", "oni.cli.main", *map(str, command)], check=True, timeout=60)
        assert training.wait_for(is_not_paid, within_s=30) < HEARD_WITHIN_S
        training.stop()
        with StoreReader(run / "annotations.sqlite") as reader:
            found = reader.find(text.encode())
            assert found is not None
            history = reader.history(found)
        assert [(item.helpful, item.muted, item.revoked_at is None) for item in history.overrides] == [
            (False, True, False),
            (False, False, True),
        ]
        assert history.annotations[-1].helpful, "what the LLM had said"
    finally:
        training.kill()
        if served is not None:
            served.close()
