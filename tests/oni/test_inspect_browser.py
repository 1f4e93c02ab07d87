"""The pages in a real Chromium, on the store of a real short run with hostile captions put into it.

What a person comes for, from click to effect: is the reward sane, what was said about X, why. Mending has its own file.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from browsing import Opener, Served, first_words
from inspected_store import ANSI, HOSTILE, KEY, QUOTES, SCRIPT, STYLE, caption_id
from playwright.sync_api import Browser, expect

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

CONTRAST = 4.5
"""Least contrast of text and ground, of WCAG 2.2, level AA."""


def test_is_the_reward_sane(served: Served, open_page: Opener) -> None:
    page = open_page(f"{served.url}?run=&labeler=")
    for title in ("Label coverage", "Helpful share", "Success", "Extrinsic return", "Steps a second"):
        expect(
            page.locator("figure", has_text=title).locator("svg.chart polyline, svg.chart circle").first
        ).to_be_visible()
    rows = page.locator("#earners tbody tr")
    assert rows.count() == 20
    shares = [float(cell.rstrip("%")) for cell in page.locator("#earners td[data-name='So far']").all_inner_texts()]
    assert shares == sorted(shares)
    name = rows.first.locator("a").inner_text()
    rows.first.locator("a").click()
    assert first_words(page) == name
    expect(page.locator("#where tbody tr").first).to_be_visible()


def test_what_did_it_say_about_x(served: Served, open_page: Opener) -> None:
    page = open_page(served.url)
    page.get_by_role("link", name="Captions", exact=True).click()
    page.get_by_role("navigation", name="Labels").get_by_role("link", name="helpful", exact=True).click()
    page.locator("#filter input[name=q]").fill("KEY")
    page.locator("#filter button").click()
    assert "label=helpful" in page.url
    assert "q=KEY" in page.url
    texts = page.locator("#list tbody th").all_inner_texts()
    assert texts
    assert all("key" in text.lower() for text in texts)
    assert set(page.locator("#list td[data-name=Label]").all_inner_texts()) == {"● helpful"}
    page.locator("#list thead").get_by_role("link", name="Count").click()
    expect(page.locator("#list thead th[aria-sort]")).to_have_attribute("aria-sort", "descending")
    with_count = page.locator("#list tbody th").all_inner_texts()
    assert sorted(with_count) == sorted(texts)
    page.locator("#list thead").get_by_role("link", name="Count").click()
    assert page.locator("#list tbody th").all_inner_texts() != with_count
    page.reload()
    expect(page.locator("#list thead th[aria-sort]")).to_have_attribute("aria-sort", "ascending")


def test_who_disagrees_with_the_llm(served: Served, open_page: Opener) -> None:
    page = open_page(f"{served.url}captions?run=run-a&labeler=judge-1")
    differs = page.get_by_label("Label differs from")
    differs.select_option(label="the reward model")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#list tbody tr")).to_have_count(2)
    paid = page.locator("#list tbody tr", has_text=SCRIPT.decode())
    expect(paid.locator("[data-name=Label]")).to_have_text("○ unhelpful")
    expect(paid.locator("[data-name='Model score']")).to_have_text("0.700")
    differs.select_option("judge-2")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#list tbody th")).to_have_text([KEY.decode()])
    expect(page.locator("#list tbody [data-name=Label]")).to_contain_text("other: unhelpful")
    page.get_by_role("link", name=KEY.decode()).click()
    expect(page.locator("article.labeler h3")).to_contain_text(["helpful", "unhelpful"])
    expect(page.locator("#scores svg.chart")).to_have_attribute("aria-label", re.compile("Newest: .*0.900"))


def test_why(served: Served, open_page: Opener) -> None:
    page = open_page(f"{served.url}captions?q=key&label=helpful")
    page.locator("#list tbody a").first.click()
    opened = page.locator("details.annotation[open]").first
    expect(opened.locator("pre.prompt")).to_contain_text(first_words(page))
    expect(opened.locator("pre.answer")).to_contain_text("yes")
    expect(opened.locator(".probabilities tr").first).to_contain_text("0.9500")
    said = [" ".join(fact.split()) for fact in opened.locator(".facts > div").all_inner_texts()]
    facts = {fact.partition(" ")[0]: fact for fact in said}
    assert re.fullmatch(r"Model scripted\S* \(scripted, log-probabilities\)", facts["Model"])
    assert re.fullmatch(r"Tokens [\d,]+ in, 1 out", facts["Tokens"])
    assert re.fullmatch(r"Latency \d+ ms", facts["Latency"])
    opened.locator("summary").click()
    expect(page.locator("pre.prompt").first).to_be_hidden()


def sampled(served: Served) -> str:
    """Returns the page of a caption of which the run itself kept a moment."""
    import sqlite3

    with sqlite3.connect(served.store) as connection:
        query = "SELECT caption_id FROM transitions WHERE run_id <> 'run-a' ORDER BY length(frames) DESC LIMIT 1"
        found = connection.execute(query).fetchone()
    connection.close()
    assert found is not None, "the run sampled nothing"
    return f"{served.url}caption/{found[0]}"


def test_a_replay_of_the_run_itself(served: Served, open_page: Opener) -> None:
    page = open_page(sampled(served))
    stage = page.locator(".stage")
    expect(stage.locator("svg.cells rect").first).to_be_visible()
    current = page.locator(".frames li.here")
    expect(current).to_have_class(re.compile("centre"))
    expect(current.locator(".said")).to_have_text(first_words(page))
    before = stage.inner_html()
    steps = page.locator(".frames > li").count()
    assert steps > 3
    page.get_by_role("button", name="First step").click()
    expect(page.locator(".place")).to_have_text(f"1 of {steps}")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".place")).to_have_text(f"2 of {steps}")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".place")).to_have_text(f"1 of {steps}")
    assert stage.inner_html() != before
    page.get_by_role("button", name="Said here").click()
    assert stage.inner_html() == before
    page.get_by_role("button", name="Last step").click()
    expect(page.locator(".place")).to_have_text(f"{steps} of {steps}")
    page.get_by_role("button", name="Play").click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(page.locator(".place")).to_have_text(f"2 of {steps}")
    page.locator(".timeline a").nth(0).locator("rect").click()
    expect(page.locator(".place")).to_have_text(f"1 of {steps}")


def test_every_kind_of_picture_is_drawn(served: Served, open_page: Opener) -> None:
    page = open_page(f"{served.caption(KEY)}?run=run-a&labeler=judge-1")
    kinds = ["pre.tty", "pre.tty", "pre.tty", "svg.cells", "img.pixels", "pre.seen"]
    for number, kind in enumerate(kinds):
        page.locator(".frames > li").nth(number).click()
        expect(page.locator(f".stage {kind}")).to_be_visible()
    picture = page.locator(".stage pre.seen").inner_text()
    assert picture.startswith("<script>alert('text')</script>\\x1b[31m")
    page.locator(".frames > li").nth(6).click()
    expect(page.locator(".stage")).to_have_text("No picture was kept of this step.")
    page.locator(".frames > li").nth(0).click()
    color = page.locator(".stage pre.tty .c1").first.evaluate("element => getComputedStyle(element).color")
    assert color == "rgb(240, 115, 107)"
    page.locator(".frames > li").nth(4).click()
    size = page.locator(".stage img").evaluate("image => [image.naturalWidth, image.complete]")
    assert size == [4, True]


def test_without_script_everything_is_there(served: Served, open_page: Opener) -> None:
    page = open_page(f"{served.caption(KEY)}?run=run-a&labeler=judge-1", java_script_enabled=False)
    for kind in ("pre.tty", "svg.cells", "img.pixels", "pre.seen"):
        expect(page.locator(f".frames {kind}").first).to_be_visible()
    expect(page.locator(".controls")).to_be_hidden()
    page.get_by_role("link", name="step 640").click()
    expect(page.locator("#m1-f3, [id$='-f3']").first).to_be_visible()
    page.goto(served.url)
    page.locator("select[name=labeler]").select_option("judge-2")
    page.get_by_role("button", name="Show").click()
    assert "labeler=judge-2" in page.url
    page.locator("#search").fill("nobody asked")
    page.locator("#search").press("Enter")
    expect(page.locator("#list tbody tr")).to_have_count(1)


@pytest.mark.parametrize("caption", HOSTILE)
def test_hostile_captions_do_nothing(served: Served, open_page: Opener, caption: bytes) -> None:
    page = open_page(f"{served.caption(caption)}?labeler=judge-1")
    assert page.locator("h1").count() == 1
    assert page.locator("main script, main style, main iframe, h1 img, h1 b, h1 i, h1 svg").count() == 0
    assert page.evaluate("document.title").endswith(" · oni inspect")


def test_hostile_lists_and_answers_do_nothing(served: Served, open_page: Opener) -> None:
    page = open_page(f"{served.url}captions?run=run-a&labeler=judge-1")
    shown = page.locator("#list tbody th").all_inner_texts()
    for text in (SCRIPT, QUOTES, STYLE):
        assert text.decode() in shown
    assert "\\x1b[31mred\\x1b[0m\\x1b]0;title\\x07" in shown
    for path in (
        "",
        "labelers",
        "runs",
        "pairs",
        "captions?q=%3Cscript%3Ealert(1)%3C/script%3E",
        "nothing%3Cscript%3E",
    ):
        other = open_page(f"{served.url}runs")
        answer = other.goto(f"{served.url}{path}") if not path.startswith("nothing") else None
        assert answer is None or answer.ok
    page.goto(f"{served.caption(ANSI)}?labeler=judge-1")
    expect(page.locator(".detail")).to_contain_text("<script>alert('answer')</script>")


def test_keys_alone_lead_everywhere(served: Served, open_page: Opener) -> None:
    page = open_page(f"{served.url}captions?run=run-a&labeler=judge-1")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    rows = page.locator("#list a[data-row]")
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(rows.nth(1)).to_be_focused()
    outline = rows.nth(1).evaluate("element => getComputedStyle(element).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("k")
    expect(rows.nth(0)).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("jk/")
    expect(page.locator("#search")).to_have_value("jk/")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("You take the yellow key.")


PLACES = (
    "",
    "captions?run=run-a&labeler=judge-1",
    "labelers",
    "runs",
    "pairs?labeler=pairs-1",
    "login",
    "nothing-here",
)

TOO_WIDE = "() => [document.documentElement.scrollWidth, innerWidth]"


def test_nothing_is_wider_than_a_telephone(served: Served, browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 400, "height": 800})
    page = context.new_page()
    places = [f"{served.url}{place}" for place in PLACES]
    places += [f"{served.caption(text)}?run=run-a&labeler=judge-1" for text in (KEY, *HOSTILE)]
    for place in [*places, sampled(served)]:
        page.goto(place)
        for element in page.locator("details").all():
            element.evaluate("element => { element.open = true; }")
        wide, room = page.evaluate(TOO_WIDE)
        assert wide <= room == 400, place
    context.close()


LEAST_CONTRAST = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const channel = (value) => (value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  let worst = [21, ""];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility() || element.closest("noscript, svg.cells, option")) continue;
    const style = getComputedStyle(element);
    const svg = element.closest("svg");
    const [a, b] = [light(parse(svg ? style.fill : style.color)), light(ground(svg ? svg.parentElement : element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < worst[0]) worst = [contrast, `${element.outerHTML.slice(0, 80)}: ${text}`];
  }
  return worst;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(served: Served, browser: Browser, scheme: Any) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    pages = [f"{served.url}{place}" for place in PLACES]
    for place in [*pages, *(f"{served.caption(text)}?run=run-a&labeler=judge-1" for text in (KEY, QUOTES, ANSI))]:
        page.goto(place)
        for element in page.locator("details").all():
            element.evaluate("element => { element.open = true; }")
        contrast, words = page.evaluate(LEAST_CONTRAST)
        assert contrast >= CONTRAST, (place, words)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark == ("rgb(19, 21, 24)" if scheme == "dark" else "rgb(247, 247, 245)")
    context.close()


def test_a_page_reads_itself_anew_while_the_run_goes_on(trained: Path, tmp_path: Path, open_page: Opener) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    metrics.write_text("\n".join(lines) + "\n")  # written just now: the run goes on
    served = Served(run)
    try:
        page = open_page(served.url)
        expect(page.locator("#fresh")).to_contain_text("The run goes on")
        page.evaluate("() => { window.same = true; }")
        page.locator("#earners a[data-row]").nth(1).focus()
        focused = page.evaluate("document.activeElement.getAttribute('href')")
        newest = json.loads(lines[-1]) | {"steps_per_s": 123456.0}
        metrics.write_text("\n".join([*lines, json.dumps(newest)]) + "\n")
        expect(page.locator("figure", has_text="Steps a second")).to_contain_text("123k", timeout=15_000)
        assert page.evaluate("window.same"), "the page was loaded anew"
        assert page.evaluate("document.activeElement.getAttribute('href')") == focused
        page.get_by_role("button", name="pause").click()
        newest = json.loads(lines[-1]) | {"steps_per_s": 999_999.0}
        metrics.write_text("\n".join([*lines, json.dumps(newest)]) + "\n")
        page.wait_for_timeout(6000)
        expect(page.locator("figure", has_text="Steps a second")).to_contain_text("123k")
        page.get_by_role("button", name="Go on refreshing").click()
        expect(page.locator("figure", has_text="Steps a second")).to_contain_text("1M")
    finally:
        served.close()


def test_a_server_that_has_ended_is_said(trained: Path, tmp_path: Path, browser: Browser) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "metrics.jsonl").touch()
    served = Served(run)
    context = browser.new_context()
    page = context.new_page()
    page.goto(served.url)
    served.close()
    page.evaluate("refresh()")
    expect(page.locator("#fresh")).to_contain_text("has oni inspect been ended")
    expect(page.locator("#earners tbody tr").first).to_be_visible()
    context.close()


def test_the_token_is_asked_for_once(trained: Path, tmp_path: Path, open_page: Opener) -> None:
    store = tmp_path / "store.sqlite"
    shutil.copy(trained / "annotations.sqlite", store)
    command = [sys.executable, "-m", "oni.cli.main", "serve", "--store", str(store), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--annotator.backend.kind", "scripted"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"ONI_ANNOTATOR_TOKEN": "a-secret-of-some-length"},
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        page = open_page(f"{url}/inspect/captions?q=key")
        expect(page.locator("h1")).to_have_text("Log in")
        page.get_by_label("Token").fill("a-secret-of-some-length")
        page.get_by_role("button", name="Log in").click()
        assert page.url == f"{url}/inspect/captions?q=key"
        assert page.locator("#list tbody tr").count() > 0
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/inspect")
        page.get_by_role("button", name="Log out").click()
        page.goto(f"{url}/inspect/")
        expect(page.locator("h1")).to_have_text("Log in")
    finally:
        process.kill()
        process.communicate()


def test_the_exported_page_works_from_a_file(served: Served, tmp_path: Path, open_page: Opener) -> None:
    target = tmp_path / "page.html"
    command = [sys.executable, "-m", "oni.cli.main", "inspect", str(served.run), "--export", str(target)]
    subprocess.run([*command, "--run-id", "run-a", "--labeler", "judge-1"], check=True, timeout=60)
    page = open_page(target.as_uri())
    page.locator("#list tbody a").first.click()
    article = page.locator(f"#c{caption_id(served.store, KEY)}")
    article.locator("summary").last.click()
    expect(article.locator(".stage svg.cells")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(article.locator(".stage pre.tty")).to_be_visible()
    assert page.locator("main script, main img:not(.pixels)").count() == 0
    wide, room = page.evaluate(TOO_WIDE)
    assert wide <= room
