"""What the pages draw, without a page: words, curves, terminals, grids, time lines, the figures of a run."""

import json
import math
import re
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import inspected_store
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_annotator.inspector import words
from llm_annotator.inspector.charts import Series, line_chart, thin, ticks
from llm_annotator.inspector.curves import run_charts
from llm_annotator.inspector.drawings import draw
from llm_annotator.inspector.markup import tag
from llm_annotator.inspector.metricsfile import Figures, MetricsFile
from llm_annotator.inspector.replay import replay
from llm_annotator.pictures import check_picture
from llm_annotator.store.moments import StoredMoment

UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("plain", "plain"),
        ("<b>&\"'", "&lt;b&gt;&amp;&#34;&#39;"),
        ("a\x1bb", 'a<span class="ctl" title="U+001B">\\x1b</span>b'),
        ("\u202e<", '<span class="ctl" title="U+202E RIGHT-TO-LEFT OVERRIDE">\\u202e</span>&lt;'),
        ("a\nb", "a\nb"),
        ("שלום", "שלום"),
    ],
)
def test_visible(text: str, html: str) -> None:
    assert words.visible(text) == html


def test_a_line_end_can_be_marked_too() -> None:
    assert words.visible("a\nb", keep_lines=False) == 'a<span class="ctl" title="U+000A">\\n</span>b'


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_nothing_visible_is_obeyed(text: str) -> None:
    html = words.visible(text)
    assert not UNSEEN.search(html)
    assert "<" not in re.sub(r'<span class="ctl" title="[^"<>]*">|</span>', "", html)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300))
def test_any_caption_can_be_shown(caption: bytes) -> None:
    for html in (words.caption_html(caption), words.caption_html(caption, whole=True)):
        assert html.startswith("<bdi>")
        assert not UNSEEN.search(html)
    assert "\n" not in words.caption_line(caption)


def test_long_captions_are_cut_but_not_on_their_own_page() -> None:
    assert len(words.caption_html(b"x" * 1000)) < 300
    assert words.caption_html(b"x" * 1000, whole=True) == f"<bdi>{'x' * 1000}</bdi>"


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (words.short, None, "-"),
        (words.short, 950, "950"),
        (words.short, 9999, "9999"),
        (words.short, 12_345, "12.3k"),
        (words.short, 4_560_000, "4.56M"),
        (words.short, 0.0125, "0.0125"),
        (words.percent, 0.12345, "12.3%"),
        (words.percent, 0.0001, "<0.1%"),
        (words.percent, 0.99999, ">99.9%"),
        (words.percent, 1.0, "100.0%"),
        (words.percent, 0.0, "0.0%"),
        (words.reward, 11.0, "11.0"),
        (words.reward, 0.0, "0"),
        (words.reward, 12_345.67, "12,345.7"),
        (words.seconds, 0.085, "85 ms"),
        (words.seconds, 3.25, "3.2 s"),
        (words.seconds, 240, "4 min"),
        (words.seconds, 9000, "2.5 h"),
        (words.seconds, 300_000, "3 days"),
        (words.count, 1234567, "1,234,567"),
        (words.percent_tick, 0.5, "50%"),
    ],
)
def test_numbers(function, value, text) -> None:
    assert function(value) == text


def test_elements_escape_children_and_attributes() -> None:
    assert tag("a", "<x>", class_='"c"', aria_label="&") == '<a class="&#34;c&#34;" aria-label="&amp;">&lt;x&gt;</a>'
    assert tag("rect", width=3, fill=None) == '<rect width="3"/>'


def test_thinning_keeps_the_extremes() -> None:
    points = thin([(float(x), float(x % 10)) for x in range(1000)], limit=100)
    assert len(points) == 100
    assert points[0] == (9.0, 4.5, 0.0, 9.0)
    assert points[-1].x == 999.0
    assert thin([(0.0, math.nan), (1.0, 2.0), (2.0, math.inf)]) == [(1.0, 2.0, 2.0, 2.0)]
    assert thin([]) == []


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (0, 1, [0, 0.5, 1]),
        (0, 72_000, [0, 50_000, 100_000]),
        (-1.3, 2, [-2, 0, 2]),
        (0, 0, [0, 0.5, 1]),
        (0, 3e-13, [0, 1e-13, 2e-13, 3e-13]),
    ],
)
def test_ticks_are_round_and_span(low: float, high: float, marks: list[float]) -> None:
    assert ticks(low, high) == marks


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
@example(0.0, 5e-324)
@example(1e9, 1e-7)
def test_ticks_always_span(low: float, span: float) -> None:
    marks = ticks(low, low + span)
    tolerance = 1e-6 * max(abs(low), abs(low + span), 1.0)
    assert marks[0] <= low + tolerance
    assert marks[-1] >= low + span - tolerance
    assert len(marks) <= 8


def test_a_chart_is_well_formed_and_says_what_it_shows() -> None:
    values = [(float(x), float(x) / 2) for x in range(11)]
    svg = line_chart(
        [Series('a<"b"', thin(values)), Series("c", thin([(0.0, 1.0), (10.0, 3.0)]))],
        title="T & U",
        in_words="Newest: 5",
    )
    root = ET.fromstring(svg)
    assert root.get("aria-label") == "T & U. Newest: 5"
    lines = [element for element in root if "line" in element.get("class", "").split()]
    assert [line.get("class") for line in lines] == ["line s0", "line s1"]
    assert len((lines[0].get("points") or "").split()) == 11
    # x from 44 to 330, y from 130 (0) to 8 (6): 5 of 6 is at 130 - 5/6 * 122.
    assert (lines[0].get("points") or "").split()[-1] == "330.0,28.3"
    titles = [title.text for title in root.iter("title")]
    assert titles[0] == 'step 0: a<"b" 0, c 1'
    assert "style" not in svg
    assert "<script" not in svg


def test_a_chart_without_figures_says_so() -> None:
    assert "no figures yet" in line_chart([Series("a", [])], title="T", in_words="none")


def test_one_point_is_a_dot() -> None:
    svg = line_chart([Series("a", thin([(5.0, 2.0)]))], title="T", in_words="2")
    assert ET.fromstring(svg).find("circle") is not None
    assert "step 5" in svg


def test_a_terminal_keeps_colours_in_as_few_elements_as_can_be() -> None:
    html = draw(
        {
            "kind": "tty",
            "rows": 2,
            "cols": 8,
            "chars": b"ab<&  \x1bz\x00\x00\x00\x00\x00\x00\x00\x00",
            "colors": bytes([1, 1, 2, 2, 7, 7, 9, 0x17, *[7] * 8]),
            "cursor": [1, 2],
        }
    )
    assert html == (
        '<pre class="tty" data-cols="8"><span class="c1">ab</span><span class="c2">&lt;&amp;</span>  '
        '<span class="c9">\ufffd</span><span class="c7 inv">z</span>\n'
        '  <span class="c0 cur"> </span>     \n</pre>'
    )


def test_a_grid_is_well_formed_whatever_it_holds() -> None:
    check_picture(inspected_store.CELLS)
    html = draw(inspected_store.CELLS)
    root = ET.fromstring(f"<div>{html}</div>")
    svg = root[0]
    assert svg.get("viewBox") == "0 0 66 44"
    assert [text.text for text in svg.iter("text")] == ["<k", "#", "#"]
    # Equal grounds side by side are one rectangle.
    grounds = [(r.get("x"), r.get("width"), r.get("fill")) for r in svg.iter("rect")]
    assert grounds == [("0", "44.5", "#222222"), ("44", "22.5", "#ffffff"), ("0", "66.5", "#222222")]
    mark = svg.find("polygon")
    assert mark is not None
    assert mark.get("transform") == "translate(33.0 11.0) rotate(90)"
    assert [item.findtext("code") for item in root.iter("li")] == ["<k", "#"]
    assert "never seen" not in html
    assert "step &lt;1&gt; &amp; more" in html


def test_pixels_are_a_data_address_and_text_is_text() -> None:
    html = draw({"kind": "png", "png": inspected_store.png(), "width": 4, "height": 3})
    assert 'src="data:image/png;base64,iVBORw0KGgo' in html
    assert 'width="32" height="24"' in html
    assert "&lt;script&gt;" in draw(inspected_store.TEXT)


def test_a_replay_shows_each_picture_once_and_both_rewards() -> None:
    view = replay(StoredMoment(7, "run", 640, inspected_store.moment(inspected_store.SCRIPT, 640)))
    assert [frame.picture for frame in view.frames] == [0, 1, 1, 2, 3, 4, None]
    assert [frame.drawing is not None for frame in view.frames] == [True, True, False, True, True, True, False]
    assert [frame.acts for frame in view.frames] == [True] * 6 + [False]
    assert view.centre == 3
    root = ET.fromstring(view.timeline)
    bars = [
        (bar.get("class"), bar.get("y"), bar.get("height"))
        for bar in root.iter("rect")
        if "bar" in bar.get("class", "")
    ]
    # The game paid 1 up and 0.25 down, of a band of 34 that is split; the intrinsic reward has its whole band.
    assert bars == [("bar game", "6.0", "17.0"), ("bar game", "23.0", "4.2"), ("bar intrinsic", "46.0", "34.0")]
    assert [link.get("href") for link in root.iter("a")][:2] == ["#m7-f0", "#m7-f1"]
    assert "<script" not in view.timeline


def test_a_moment_that_cannot_be_read_says_why() -> None:
    view = replay(StoredMoment(7, "run", 640, None, "it is cut off"))
    assert (view.frames, view.problem) == ([], "it is cut off")


def write_lines(path: Path, steps: range, mode: str = "a") -> None:
    with path.open(mode) as file:
        file.writelines(json.dumps({"env_step": step, "success": step / 100, "odd": "x"}) + "\n" for step in steps)


def test_figures_are_read_on_as_the_file_grows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    assert file.read() == ((), None)
    write_lines(path, range(3))
    with path.open("a") as half:
        half.write('{"env_step": 3, "succ')
    assert [line["env_step"] for line in file.read().lines] == [0, 1, 2]
    with path.open("a") as half:
        half.write('ess": null}\nnot json\n[1]\n')
    write_lines(path, range(4, 6))
    figures = file.read()
    assert [line["env_step"] for line in figures.lines] == [0, 1, 2, 3, 4, 5]
    assert figures.curve("success") == [(0.0, 0.0), (1.0, 0.01), (2.0, 0.02), (4.0, 0.04), (5.0, 0.05)]
    assert figures.newest("success") == 0.05
    assert figures.newest("odd") is None


@pytest.mark.parametrize("steps", [range(2), range(100, 130)])
def test_a_file_cut_by_a_resume_is_read_anew(tmp_path: Path, steps: range) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    write_lines(path, range(20))
    assert len(file.read().lines) == 20
    write_lines(path, steps, mode="w")
    assert [line["env_step"] for line in file.read().lines] == list(steps)


def test_a_run_goes_on_as_long_as_its_lines_come_as_before() -> None:
    lines = [{"env_step": 1, "wall_s": 100.0}, {"env_step": 2, "wall_s": 150.0}]
    now = time.time()
    assert Figures(lines, now - 190).goes_on(now)
    assert not Figures(lines, now - 210).goes_on(now)
    assert Figures(lines[:1], now - 20).goes_on(now)
    assert not Figures((), None).goes_on(now)


def test_the_charts_of_a_run_say_their_newest_values() -> None:
    lines = [
        {"env_step": step, "captions/helpful": 2 * step, "captions/labelled": 8 * step, "episode/length": 10.0}
        | {"reward/intrinsic": 0.25, "annotator/queued": 7, "steps_per_s": 1234.0}
        for step in (0, 100, 200)
    ]
    charts = {chart.title: chart.newest for chart in run_charts(Figures(lines, 0.0))}
    assert charts == {
        "Helpful share": [("helpful", "25.0%")],
        "Waiting captions": [("waiting", "7")],
        "Intrinsic return": [("intrinsic", "2.50")],
        "Steps a second": [("steps/s", "1234")],
    }
    aged = [{**line, "annotator/oldest_s": 90.0, "annotator/wait_s": 2.0} for line in lines]
    charts = {chart.title: chart.newest for chart in run_charts(Figures(aged, 0.0))}
    assert charts["Queue age"] == [("oldest", "90 s"), ("answered", "2.0 s")]
    assert "Waiting captions" not in charts
