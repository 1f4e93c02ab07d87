"""Lists and figures of the pages against plain loops over what the store holds, and against older stores."""

import itertools
import random
import sqlite3
from pathlib import Path
from typing import Any

import inspected_store
import pytest
from inspected_store import ANSI, DOOR, KEY, LINES, QUOTES, RTL, SCRIPT, UNASKED, caption_id

from llm_annotator.inspector.findings import findings
from llm_annotator.inspector.liststate import ListState, caption_filter, read_state
from llm_annotator.inspector.metricsfile import Figures
from llm_annotator.inspector.overview import earners, overview
from llm_annotator.inspector.scope import NotFound, find_scope
from llm_annotator.store import Store, StoreReader, figures
from llm_annotator.store.listing import CaptionFilter, ListedCaption, list_captions
from llm_annotator.store.onecaption import _IN_FORCE, compared_with, labels_in_force
from llm_annotator.store.reading import Reading
from llm_annotator.store.records import CaptionRow
from llm_annotator.store.schema import APPLICATION_ID, MIGRATIONS
from llm_annotator.types import CaptionScore, LabelStatus

WORDS = ("key", "door", "KEY", "wall", "newt", "caf\xe9", "nul\x00")


def random_store(path: Path, *, captions: int = 120) -> Path:
    """Writes a store whose rows are drawn, with ties, gaps and negative rewards."""
    rng = random.Random(7)
    with Store(path) as store:
        for labeler in ("a", "b"):
            store.add_labeler(labeler, {"goal": labeler}, "model")
        for run in ("one", "two"):
            store.add_run(run, run, {}, labeler_id="a", goal="g")
        texts = [f"{rng.choice(WORDS)} {number}".encode("latin-1") for number in range(captions)]
        ids = store.intern(texts)
        for labeler, key in itertools.product("ab", ids):
            kind = rng.choice(["yes", "no", "unparsed", "failed", "none"])
            if kind == "none":
                continue
            helpful = {"yes": True, "no": False}.get(kind)
            status = LabelStatus.FAILED if kind == "failed" else LabelStatus.UNPARSED
            more: dict[str, Any] = {"status": status} if helpful is None else {"score": rng.choice([-1.0, 0.5, 2.0])}
            store.add_annotations([inspected_store.record(key, helpful, labeler_id=labeler, **more)])
        for text in rng.sample(texts, 15):
            store.override(text, "a", helpful=rng.random() < 0.5)
        for run, share in (("one", 0.8), ("two", 0.4)):
            store.add_occurrences(
                run,
                [
                    inspected_store.occurrence(
                        text,
                        rng.randrange(1, 6),
                        rng.choice([-1.0, 0.0, 0.5, 3.0]),
                        episode_count=rng.choice([None, 1, 2]),
                        first_step=rng.randrange(100),
                        last_step=rng.randrange(100, 200),
                    )
                    for text in texts
                    if rng.random() < share
                ],
            )
            scored = [text for text in texts if rng.random() < 0.5]
            for step in (10, 20):
                store.add_scores(
                    run, [CaptionScore(caption=t, env_step=step, score=rng.choice([-0.5, 0.0, 1.0])) for t in scored]
                )
    return path


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_store(tmp_path_factory.mktemp("drawn") / "store.sqlite")


def everything(path: Path, run: str | None) -> list[dict[str, Any]]:
    """Returns every caption of a run (or of the store) with what a list may need, put together in Python."""
    with StoreReader(path) as reader:
        rows = reader.captions(run_id=run, labeler_id="a", limit=-1)
        other = {row.caption_id: row.helpful for row in reader.captions(labeler_id="b", limit=-1)}
    with sqlite3.connect(path) as connection:
        scores = dict(
            connection.execute(
                "SELECT caption_id, score FROM model_scores WHERE run_id = ? AND env_step = 20", (run or "two",)
            )
        )
    connection.close()
    return [{"row": row, "other": other[row.caption_id], "score": scores.get(row.caption_id)} for row in rows]


FILTERS: dict[str, tuple[dict[str, Any], Any]] = {
    "all": ({}, lambda i: True),
    "text": ({"text": "KeY"}, lambda i: b"key" in i["row"].text.lower()),
    "latin-1": ({"text": "AF\xe9"}, lambda i: b"caf\xe9" in i["row"].text),
    "bytes": ({"text": "caf\udce9"}, lambda i: b"caf\xe9" in i["row"].text),
    "nul": ({"text": "\x00"}, lambda i: b"\x00" in i["row"].text),
    "helpful": ({"label": "helpful"}, lambda i: i["row"].helpful is True),
    "unhelpful": ({"label": "unhelpful"}, lambda i: i["row"].helpful is False),
    "unparsed": ({"label": "unparsed"}, lambda i: i["row"].status is LabelStatus.UNPARSED),
    "failed": ({"label": "failed"}, lambda i: i["row"].status is LabelStatus.FAILED),
    "unlabelled": ({"label": "unlabelled"}, lambda i: i["row"].status is None),
    "overruled": ({"overruled": True}, lambda i: i["row"].source == "human"),
    "count": ({"min_count": 4}, lambda i: i["row"].count >= 4),
    "reward": ({"min_reward": 0.5}, lambda i: i["row"].count > 0 and i["row"].reward_sum >= 0.5),
    "labeler": (
        {"differs": "b"},
        lambda i: None not in (i["row"].helpful, i["other"]) and i["row"].helpful != i["other"],
    ),
    "model": (
        {"differs": "model"},
        lambda i: None not in (i["row"].helpful, i["score"]) and i["row"].helpful != (i["score"] > 0),
    ),
    "several": (
        {"text": "key", "label": "helpful", "min_count": 2},
        lambda i: b"key" in i["row"].text.lower() and i["row"].helpful is True and i["row"].count >= 2,
    ),
}
KEYS: dict[str, Any] = {
    "reward": lambda i: i["row"].reward_sum if i["row"].count else None,
    "count": lambda i: i["row"].count or None,
    "episodes": lambda i: i["row"].episode_count,
    "first": lambda i: i["row"].first_step,
    "last": lambda i: i["row"].last_step,
    "probability": lambda i: i["row"].p_helpful,
    "model": lambda i: i["score"],
    "newest": lambda i: i["row"].caption_id,
}


def ids_of(captions: list[ListedCaption]) -> list[int]:
    return [item.row.caption_id for item in captions]


@pytest.mark.parametrize("run", [None, "one"])
@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_finds_what_a_loop_finds(drawn: Path, name: str, run: str | None) -> None:
    options, fits = FILTERS[name]
    wanted = {item["row"].caption_id for item in everything(drawn, run) if fits(item)}
    assert wanted, "the drawn store has nothing to find"
    with Reading(drawn) as reading:
        listing = list_captions(
            reading, CaptionFilter(run_id=run, labeler_id="a", score_run=run or "two", **options), limit=1000
        )
    assert set(ids_of(listing.captions)) == wanted
    assert listing.matching == len(listing.captions) == len(wanted)


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("run", [None, "one"])
@pytest.mark.parametrize("sort", KEYS)
def test_every_order_is_that_of_a_loop(drawn: Path, sort: Any, run: str | None, descending: bool) -> None:
    items = sorted(everything(drawn, run), key=lambda i: i["row"].caption_id)
    with_key = [item for item in items if KEYS[sort](item) is not None]
    with_key.sort(key=KEYS[sort], reverse=descending)  # stable: ties stay in the order of ids
    if descending:
        with_key = [
            i
            for _, group in itertools.groupby(with_key, KEYS[sort])
            for i in sorted(group, key=lambda i: i["row"].caption_id)
        ]
    wanted = [i["row"].caption_id for i in with_key] + [i["row"].caption_id for i in items if KEYS[sort](i) is None]
    filter_ = CaptionFilter(run_id=run, labeler_id="a", score_run=run or "two", sort=sort, descending=descending)
    with Reading(drawn) as reading:
        assert ids_of(list_captions(reading, filter_, limit=1000).captions) == wanted
        # Pages put together are the list, and each knows how long that is.
        pages = [list_captions(reading, filter_, limit=7, offset=offset) for offset in range(0, len(wanted), 7)]
    assert [key for page in pages for key in ids_of(page.captions)] == wanted
    assert {page.matching for page in pages} == {len(wanted)}


def test_rows_tell_the_same_as_the_reader(drawn: Path) -> None:
    with StoreReader(drawn) as reader, Reading(drawn) as reading:
        for run in (None, "two"):
            rows: dict[int, CaptionRow] = {
                row.caption_id: row for row in reader.captions(run_id=run, labeler_id="a", limit=-1)
            }
            listing = list_captions(reading, CaptionFilter(run_id=run, labeler_id="a"), limit=1000)
            assert {item.row.caption_id: item.row for item in listing.captions} == rows


def test_a_page_beyond_the_end_is_empty_and_knows_how_many_there_are(drawn: Path) -> None:
    with Reading(drawn) as reading:
        listing = list_captions(reading, CaptionFilter(labeler_id="a"), limit=10, offset=5000)
    assert listing == ([], 120)


def old_store(path: Path) -> Path:
    """Writes a store as schema 2 had it."""
    connection = sqlite3.connect(path)
    for statement in [statement for migration in MIGRATIONS[:2] for statement in migration]:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 2")
    connection.execute("INSERT INTO captions VALUES (1, x'6162', 0), (2, x'63', 0), (3, x'64', 0)")
    connection.execute("INSERT INTO runs VALUES ('r', 'r', 'g', '{}', NULL, 0), ('s', 's', 'g', '{}', NULL, 1)")
    connection.execute("INSERT INTO occurrences VALUES ('r', 1, 5, 2, 10, 20, 1.5), ('s', 1, 7, 3, 5, 15, 2.0)")
    connection.execute("INSERT INTO occurrences VALUES ('r', 2, 1, NULL, 30, 40, 4.0)")
    connection.commit()
    connection.close()
    return path


TOTALS_OF_OLD = [(2, 1, None, 30, 40, 4.0), (1, 12, 5, 5, 20, 3.5), (3, 0, None, None, None, 0.0)]


def totals(path: Path) -> list[tuple[Any, ...]]:
    with Reading(path) as reading:
        rows = [item.row for item in list_captions(reading, CaptionFilter(), limit=10).captions]
    return [(r.caption_id, r.count, r.episode_count, r.first_step, r.last_step, r.reward_sum) for r in rows]


def test_an_older_store_is_listed_as_it_stands_and_after_its_migration(tmp_path: Path) -> None:
    path = old_store(tmp_path / "old.sqlite")
    assert totals(path) == TOTALS_OF_OLD
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()
    Store(path).close()
    assert totals(path) == TOTALS_OF_OLD


def test_totals_follow_every_write(tmp_path: Path) -> None:
    path = old_store(tmp_path / "old.sqlite")
    with Store(path) as store:
        for run, count, reward in (("s", 8, 2.5), ("r", 6, 1.0), ("s", 9, 3.0)):
            store.add_occurrences(run, [inspected_store.occurrence(b"ab", count, reward, episode_count=4)])
        store.add_occurrences("s", [inspected_store.occurrence(b"new", 2, 0.5)])
    assert totals(path)[:2] == [(1, 15, 8, 64, 12_800, 4.0), (2, 1, None, 30, 40, 4.0)]
    assert (4, 2, 3, 64, 12_800, 0.5) in totals(path)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return inspected_store.fill(tmp_path / "store.sqlite")


def test_figures_worked_out_by_hand(store: Path) -> None:
    with Reading(store) as reading:
        scope = find_scope(reading, {})
        view = overview(reading, scope, None, ListState())
        agreed = figures.agreement(reading, "judge-1", "judge-2")
        curve = figures.labels_over_time(reading, "judge-1")
        lately = figures.lately(reading, "judge-1")
        waits = figures.waiting(reading, None, "judge-1")
        costs = figures.costs(reading)
        runs = figures.run_totals(reading)
    assert (scope.labeler_id, scope.run_id, scope.score_run) == ("judge-1", None, "run-a")
    assert [(item.share, item.cumulative) for item in view.earners[:4]] == [
        (0.5, 0.5),
        (0.25, 0.75),
        (0.15, 0.9),
        (0.1, 1.0),
    ]
    assert (view.summary.helpful, view.summary.unhelpful, view.summary.overruled) == (3, 1, 1)
    assert agreed == (1, 1, 0, 0)
    assert (agreed.share, agreed.kappa) == (0.5, 0.0)
    # Asked 1 to 10 ids after they were seen at 1000, answered at 2000 + id; the newest label is the override's.
    assert (lately.answers, lately.without_label, lately.latency_s) == (6, 2, 0.25)
    assert lately.wait_s == pytest.approx(1005.0)
    assert waits == (6, 1000.0)
    assert curve[-1][1:] == (6, 4, 3, 1, 1)
    assert costs["judge-1"] == (6, 240, 6, 0.25)
    assert runs["run-a"] == (12, 40.0, 12_800)


def test_what_wants_a_look_is_found(store: Path) -> None:
    with Reading(store) as reading:
        view = overview(reading, find_scope(reading, {}), None, ListState())
    said = {finding.text: finding for finding in view.findings}
    assert any("earned 50.0% of all intrinsic reward: 'You take the yellow key.'" in text for text in said)
    assert any("1 is labelled unhelpful, and earned 15.0% of the reward" in text for text in said)
    assert any("33.3% of the answered captions got no label (1 unparsed, 1 failed)" in text for text in said)
    assert said["1 caption was labelled by hand."].link == "?by=human"
    assert [finding.weight for finding in view.findings] == ["check"] * 3 + ["note"]


def test_an_annotator_that_is_away_is_said() -> None:
    with_figures = Figures([{"env_step": 1, "annotator/connected": 0, "captions/coverage": 0.25}], 1.0)
    from llm_annotator.store.records import CaptionSummary

    nothing = CaptionSummary(
        labeler_id="a", captions=0, helpful=0, unhelpful=0, unparsed=0, failed=0, overruled=0, reward_sum=0.0
    )
    words = " ".join(finding.text for finding in findings(nothing, [], with_figures, ListState()))
    assert "The annotator did not answer last time" in words
    assert "Only 25.0% of the last steps" in words
    assert earners([], 0.0) == []


def test_labels_in_force_and_comparisons(store: Path) -> None:
    inspected_store.add_comparisons(store)
    with Reading(store) as reading:
        labels = labels_in_force(reading, caption_id(store, QUOTES))
        compared = {item.text: item for item in compared_with(reading, caption_id(store, KEY))}
        from_script = compared_with(reading, caption_id(store, SCRIPT))
    assert [(label.helpful, label.source, label.override_id) for label in labels] == [(True, "human", 1)]
    assert (compared[DOOR].better, compared[DOOR].p_forward, compared[DOOR].p_backward) == (True, 0.75, 0.625)
    assert [(item.text, item.better, item.backward) for item in from_script] == [(KEY, None, None)]


def test_the_address_of_a_list_says_its_state() -> None:
    state, problems = read_state({"q": "a b&", "label": "helpful", "min": "3", "page": "2", "foreign": "x"})
    assert problems == []
    assert state.url() == "?q=a+b%26&label=helpful&min=3&page=2"
    assert state.sorted_by("count") == "?q=a+b%26&label=helpful&min=3&sort=count"
    assert state.sorted_by("reward") == "?q=a+b%26&label=helpful&min=3&way=asc"
    assert state.sorted_by("first") == "?q=a+b%26&label=helpful&min=3&sort=first&way=asc"
    assert (state.number, state.is_filtered, ListState().is_filtered) == (2, True, False)


@pytest.mark.parametrize(
    "parameters",
    [
        {"label": "x"},
        {"sort": "x; DROP TABLE"},
        {"way": "x"},
        {"min": "-1"},
        {"min": "1e99"},
        {"earned": "nan"},
        {"earned": "1e999"},
        {"earned": "x"},
    ],
)
def test_what_an_address_says_wrong_is_left_out_and_said(parameters: dict[str, str], store: Path) -> None:
    state, problems = read_state(parameters)
    assert len(problems) == 1
    assert state == ListState()
    with Reading(store) as reading:
        assert caption_filter(state, find_scope(reading, {})) == CaptionFilter(labeler_id="judge-1", score_run="run-a")


@pytest.mark.parametrize("page", ["0", "-3", "x", "9" * 40, "\u0663"])
def test_an_odd_page_is_some_page(page: str) -> None:
    assert 1 <= read_state({"page": page})[0].number <= 1_000_000


def test_an_unknown_run_or_labeler_is_not_found(store: Path) -> None:
    with Reading(store) as reading:
        for name in ("run", "labeler"):
            with pytest.raises(NotFound, match="knows no"):
                find_scope(reading, {name: "zzz"})


def test_captions_of_all_kinds_are_there(store: Path) -> None:
    with Reading(store) as reading:
        found = {
            item.row.text for item in list_captions(reading, CaptionFilter(labeler_id="judge-1"), limit=50).captions
        }
    assert {KEY, UNASKED, ANSI, RTL, LINES} < found


def test_the_labels_of_one_caption_are_looked_up_not_searched_for(store: Path) -> None:
    """With 100k captions the page about one took five times as long when SQLite read every label."""
    with Reading(store) as reading:
        plan = [row[3] for row in reading.rows("EXPLAIN QUERY PLAN " + _IN_FORCE.format(muted="l.muted"), (1,))]
    assert "SEARCH l USING PRIMARY KEY (labeler_id=? AND caption_id=?)" in plan
