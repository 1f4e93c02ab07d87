"""The pages through their app, without a browser: what is in them, who gets them, nothing hostile is obeyed."""

import re
import sqlite3
from html.parser import HTMLParser
from pathlib import Path

import inspected_store
import pytest
from inspected_store import ANSI, DOOR, HOSTILE, KEY, LINES, LONG, QUOTES, RTL, SCRIPT, UNASKED, caption_id
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route

from llm_annotator.errors import StoreError
from llm_annotator.inspector.app import PREFIX, build_inspector
from llm_annotator.inspector.export import export_page
from llm_annotator.inspector.serving import serve_pages
from llm_annotator.inspector.site import Mending
from llm_annotator.store import Store
from tests.page_client import OPEN, Get, client, requester

TOKEN = "a long secret"


class Checker(HTMLParser):
    """Collects what a page holds, and fails on what no page of ours has."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.labelled: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        assert "style" not in values, f"a style in {tag}"
        assert not [name for name in values if name.startswith("on")], f"a handler in {tag}: {values}"
        address = values.get("href") or values.get("src") or values.get("action") or ""
        assert re.match(r"^(/inspect/|\?|#|data:,|data:image/png;base64,|$)", address), address
        if tag == "script":
            assert (values.get("src") or "").startswith("/inspect/static/app.js?v="), values
        assert tag not in ("iframe", "object", "embed", "base", "b2", "u", "i"), tag
        if tag == "a":
            self.links.append(address)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def check(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    checker.close()
    return checker


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = inspected_store.fill(tmp_path_factory.mktemp("pages") / "store.sqlite")
    inspected_store.add_comparisons(path)
    return path


@pytest.fixture(scope="module")
def get(store: Path) -> Get:
    return client(store)


def test_the_bare_addresses_lead_to_the_overview(get: Get) -> None:
    for path in ("/", "/inspect"):
        answer = get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/inspect/")


PAGES = [
    "/inspect/",
    "/inspect/captions",
    "/inspect/captions?sort=newest&way=asc",
    "/inspect/captions?differs=judge-2",
    "/inspect/captions?differs=model",
    "/inspect/labelers",
    "/inspect/runs",
    "/inspect/pairs",
    "/inspect/?run=run-a&labeler=judge-2",
    "/inspect/captions?q=%3Cscript%3Ealert(1)%3C/script%3E%22%27",
    "/inspect/captions?min=%3Cb%3E&label=%22onload%3D%22x",
    "/inspect/nothing/%3Cscript%3E",
    "/inspect/caption/987654",
    "/inspect/captions?run=%3Cscript%3Ealert(1)%3C/script%3E",
    "/inspect/login?next=%22%3E%3Cscript%3E",
]


@pytest.mark.parametrize("path", PAGES)
def test_nothing_hostile_is_obeyed_on_any_page(get: Get, path: str) -> None:
    answer = get(path)
    if answer.status_code != 303:
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        check(answer.text)


@pytest.mark.parametrize("caption", [KEY, DOOR, UNASKED, *HOSTILE])
def test_nothing_hostile_is_obeyed_about_any_caption(get: Get, store: Path, caption: bytes) -> None:
    answer = get(f"/inspect/caption/{caption_id(store, caption)}")
    assert answer.status_code == 200
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u2028\u202e\ufeff]", answer.text)
    check(answer.text)


def test_headers_are_safe_on_every_answer(get: Get) -> None:
    for path in ("/inspect/", "/inspect/nothing", "/inspect/static/app.js", "/inspect/login", "/inspect/caption/99999"):
        headers = get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy == {
            "default-src": "'none'",
            "style-src": "'self'",
            "script-src": "'self'",
            "img-src": "'self' data:",
            "connect-src": "'self'",
            "form-action": "'self'",
            "frame-ancestors": "'none'",
            "base-uri": "'none'",
        }
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
    assert get("/inspect/").headers["cache-control"] == "no-store"
    assert "immutable" in get("/inspect/static/style.css").headers["cache-control"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::2]:80"])
@pytest.mark.parametrize("path", ["/inspect/", "/inspect/captions", "/inspect/static/app.js", "/inspect/login"])
def test_another_name_for_this_machine_is_refused(get: Get, host: str, path: str) -> None:
    answer = get(path, headers={"host": host})
    assert answer.status_code == 421
    assert "yellow key" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1:80", "localhost", "[::1]:9"])
def test_names_of_loopback_are_taken(get: Get, host: str) -> None:
    assert get("/inspect/", headers={"host": host}).status_code == 200


def test_the_overview_tells_what_earned_most(get: Get) -> None:
    page = check(get("/inspect/").text)
    text = " ".join(" ".join(page.text).split())
    assert "You take the yellow key. ● helpful 20.0 50.0% 50.0% 10 3 64 12.8k" in text
    assert "<script>alert('caption')</script> ○ unhelpful 6.00 15.0% 90.0% 2M 3 64 12.8k" in text
    assert "● helpful ✎ by hand 4.00 10.0% 100.0%" in text
    assert "Answered captions answered 6" in text


def listed(html: str) -> list[int]:
    return [int(match) for match in re.findall(r'href="/inspect/caption/(\d+)[^"]*" data-row', html)]


@pytest.mark.parametrize(
    ("query", "captions"),
    [
        ("label=helpful", [KEY, DOOR, QUOTES]),
        ("label=unhelpful", [SCRIPT]),
        ("by=human", [QUOTES]),
        ("label=unparsed", [ANSI]),
        ("label=failed", [RTL]),
        ("q=YELLOW", [KEY]),
        ("min=40&sort=count", [SCRIPT, QUOTES, DOOR]),
        ("earned=10", [KEY, DOOR]),
        ("differs=judge-2", [KEY]),
        ("differs=model", [DOOR, SCRIPT]),
        ("labeler=judge-2&label=helpful", [DOOR]),
        ("q=no+such+words", []),
    ],
)
def test_filters_of_the_list(get: Get, store: Path, query: str, captions: list[bytes]) -> None:
    answer = get(f"/inspect/captions?{query}")
    assert listed(answer.text) == [caption_id(store, caption) for caption in captions]
    assert f"<b>{len(captions)}</b>" in answer.text or "No caption fits." in answer.text


def test_what_cannot_be_meant_is_said_and_left_out(get: Get) -> None:
    answer = get("/inspect/captions?sort=size&min=x&differs=zzz")
    assert answer.status_code == 200
    assert answer.text.count('class="problem"') == 3
    assert len(listed(answer.text)) == 12


def test_a_page_beyond_the_end_leads_back(get: Get) -> None:
    answer = get("/inspect/captions?page=9")
    assert "The list has 1 page, and this would be page 9." in answer.text
    assert 'href="/inspect/captions?"' in answer.text


def test_one_caption_tells_everything(get: Get, store: Path) -> None:
    page = check(get(f"/inspect/caption/{caption_id(store, KEY)}").text)
    text = " ".join(" ".join(page.text).split())
    for part in (
        "20.0 50.0% of all",
        "P(helpful) 0.88",
        "reward model 0.900",
        "tiny <i>model</i> (scripted)",
        "+1.500 nats",
        "40 in, 1 out",
        "250 ms",
        "Goal: <b>open</b> the box. </pre><script>alert('answer')</script>",
        r"Event: number 1 \x1b [2J",
        "yes 0.7788",
        r"\x1b [1m<no> 0.1738",
        "never 0.0000",
        "all others 0.0474",
        "other · judge-2 ○ unhelpful",
        "first <b>run</b> 10 3 64 to 12.8k 20.0",
        "this one 0.75 / 0.62",
        "<b>north</b> game 1.00 intrinsic 0.500",
        "episode ends",
        "test:<game>.",
    ):
        assert part in text, part
    assert page.tags.count("pre") >= 4
    assert {"svg", "img"} <= set(page.tags)


def test_the_newest_moment_is_shown_and_others_can_be_chosen(get: Get, store: Path) -> None:
    key = caption_id(store, KEY)
    html = get(f"/inspect/caption/{key}?labeler=judge-1").text
    links = [link for link in check(html).links if "moment=" in link]
    assert links == ["?labeler=judge-1&moment=1#replay", "?labeler=judge-1&moment=2#replay"]
    assert 'id="m2-f3"' in html
    assert 'id="m1-f3"' in get(f"/inspect/caption/{key}?moment=1").text
    assert 'id="m2-f3"' in get(f"/inspect/caption/{key}?moment=zzz").text


def test_a_caption_that_nobody_asked_about(get: Get, store: Path) -> None:
    html = get(f"/inspect/caption/{caption_id(store, UNASKED)}").text
    assert "No model has been asked about it" in html
    assert "No moment was sampled" in html
    assert "no answer yet" in html


def test_overrides_keep_what_the_llm_had_said(get: Get, store: Path) -> None:
    text = " ".join(" ".join(check(get(f"/inspect/caption/{caption_id(store, QUOTES)}").text).text).split())
    assert "by kim <k>," in text
    assert "no <u>sense</u> </pre>" in text
    assert "○ unhelpful P 0.12" in text


def test_why_there_is_no_label(get: Get, store: Path) -> None:
    assert "neither word &lt;/pre&gt;" in get(f"/inspect/caption/{caption_id(store, ANSI)}").text


def test_labelers_and_how_far_they_agree(get: Get) -> None:
    text = " ".join(" ".join(check(get("/inspect/labelers").text).text).split())
    assert "50.0% of the 2 captions that both labelled have the same label (Cohen's kappa 0.00" in text
    assert "find the exit judge-2 other labels 2 50.0%" in text
    assert "comparing preferences 3" in text
    assert get("/inspect/labelers?a=zzz").status_code == 404


@pytest.mark.parametrize("digits", [25, 300, 5000])
def test_an_id_of_any_length_is_that_of_no_caption(get: Get, digits: int) -> None:
    assert get(f"/inspect/caption/{'9' * digits}").status_code == 404


def test_pairs(get: Get) -> None:
    text = " ".join(" ".join(check(get("/inspect/pairs").text).text).split())
    assert "You take the yellow key. ◀ one You open the door. 0.75, 0.62" in text
    assert "open" in text
    assert "No pair holds that" in get("/inspect/pairs?q=zzz").text


def test_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "empty.sqlite"
    Store(path).close()
    get = client(path)
    assert "No caption has come up yet" in get("/inspect/").text
    assert "No caption has come up yet" in get("/inspect/captions").text
    assert "No run has asked anything yet" in get("/inspect/labelers").text
    assert "No run has used this store yet" in get("/inspect/runs").text


def test_the_earners_are_those_that_earned(store: Path, tmp_path: Path) -> None:
    rows = check(client(store)("/inspect/").text.partition('id="earners"')[2].partition("</section>")[0])
    shown = [text for text in rows.text if text in (KEY.decode(), DOOR.decode(), UNASKED.decode())]
    assert shown == [KEY.decode(), DOOR.decode()]
    path = tmp_path / "poor.sqlite"
    with Store(path) as poor:
        poor.add_labeler("judge-1", {"goal": "g"}, "model")
        poor.add_run("run-a", "poor", {}, labeler_id="judge-1", goal="g")
        poor.add_occurrences("run-a", [inspected_store.occurrence(KEY, 10, 0.0)])
    html = client(path)("/inspect/").text
    assert "Nothing has been earned yet. Captions are paid once they are labelled helpful." in html


def test_a_store_that_goes_away_is_said(tmp_path: Path) -> None:
    path = inspected_store.fill(tmp_path / "store.sqlite")
    get = client(path)
    assert get("/inspect/").status_code == 200
    path.rename(tmp_path / "moved.sqlite")
    answer = get("/inspect/")
    assert answer.status_code == 503
    assert (
        "there is no annotation store at" in check(answer.text).text[-1]
        or "there is no annotation store" in answer.text
    )
    path.write_bytes(b"not a database, but long enough to have a header" * 100)
    assert "is damaged or is not" in get("/inspect/captions").text


def test_a_page_that_fails_says_so_with_safe_headers(tmp_path: Path) -> None:
    path = inspected_store.fill(tmp_path / "store.sqlite")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE labelers SET spec = 'no JSON'")
    connection.close()
    answer = client(path)("/inspect/captions")
    assert answer.status_code == 500
    assert "This page cannot be made (JSONDecodeError)" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    check(answer.text)


def test_the_figures_of_a_run_become_curves(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    lines = [f'{{"env_step": {n}, "captions/coverage": {n / 10}, "steps_per_s": {n}}}' for n in range(1, 9)]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    get = client(inspected_store.fill(run / "annotations.sqlite"), run_dir=run)
    html = get("/inspect/").text
    assert "Label coverage. Newest: coverage 80.0%" in html
    assert "The run goes on: newest figures" in html
    assert 'data-refresh="5"' in html
    assert '<meta http-equiv="refresh" content="30">' in html
    assert 'data-refresh="0"' in get("/inspect/?live=off").text


# Forms that another module answers.


def test_forms_for_mending_are_there_where_something_answers_them(store: Path) -> None:
    seen: list[tuple[str, dict[str, str]]] = []

    async def take(request: Request) -> Response:
        from llm_annotator.inspector.door import read_form

        form = await read_form(request, 10_000)
        assert form is not None
        seen.append((request.url.path, form))
        return RedirectResponse(f"/inspect/caption/{request.path_params['caption_id']}", status_code=303)

    routes = [Route("/caption/{caption_id:int}/override", take, methods=["POST"])]
    mending = Mending(routes, lambda: "form-token")
    app = Starlette(routes=[Mount(PREFIX, app=build_inspector(store, run_dir=None, guard=OPEN, mending=mending))])
    get = requester(app)
    quotes = caption_id(store, QUOTES)
    html = get(f"/inspect/caption/{quotes}").text
    check(html)
    assert html.count('name="token" value="form-token"') == 3  # overrule, ask again, take back
    assert f'action="/inspect/caption/{quotes}/undo"' in html
    assert get(f"/inspect/caption/{quotes}/override", "POST", data={"helpful": "no", "token": "x"}).status_code == 303
    assert seen == [(f"/inspect/caption/{quotes}/override", {"helpful": "no", "token": "x"})]
    assert "form-token" not in client(store)(f"/inspect/caption/{quotes}").text
    assert 'href="/inspect/export/annotations.jsonl?run=run-a"' in get("/inspect/captions?run=run-a").text
    assert "/export/" not in client(store)("/inspect/captions").text


def test_what_was_done_is_said_in_words_of_ours(store: Path) -> None:
    get = client(store)
    for path in ("caption/1", "captions"):
        assert "Taken back. What counted before counts again." in get(f"/inspect/{path}?done=undo").text
        html = get(f"/inspect/{path}?done=%3Cb%3Ewords").text
        assert 'class="done"' not in html
        assert "words" not in html.split("<main")[1]


# One page that holds everything.


def test_the_exported_page_needs_nothing_else_and_obeys_nobody(store: Path) -> None:
    html = export_page(store, run_dir=None, limit=50, parameters={})
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1]
    assert html.count("<script>") == 1
    assert html.count("<style>") == 1
    head, body = html.split("</head>")
    assert "alert(" not in head
    assert not re.search(r"(?:src|href|action)=\"(?!#|data:)", body)
    assert not re.search(r"<(?:script|style|form|iframe|link|meta)\b", body)
    assert not re.search(r"<[^>]+\son\w+=", body)
    for text in ("You take the yellow key.", "&lt;script&gt;alert(&#39;caption&#39;)", "+1.500 nats", "data-replay"):
        assert text in body
    assert f'id="c{caption_id(store, LONG)}"' in body
    assert f'href="#c{caption_id(store, LINES)}"' in body


def test_the_exported_page_has_as_many_captions_as_wanted(store: Path) -> None:
    html = export_page(store, run_dir=None, limit=2, parameters={"labeler": "judge-2"})
    assert html.count('<article class="one"') == 2
    assert "other" in html
    assert "&lt;script&gt;alert(&#39;caption&#39;)" in html  # in the table of what earned most, without a link
    assert f"#c{caption_id(store, SCRIPT)}" not in html


def test_what_cannot_be_read_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no annotation store"):
        serve_pages(tmp_path / "none.sqlite", run_dir=None, port=0, on_ready=lambda url: None)
