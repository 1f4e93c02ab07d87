"""Moments and scores on their way into the store and out of it: packed, checked, bounded, through a killed service."""

import itertools
import os
import signal
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_annotator import outbox, wire
from llm_annotator.client import MAX_RECORDS, AnnotatorClient
from llm_annotator.config import AnnotatorConfig, BackendConfig, LabelerConfig
from llm_annotator.errors import StoreError
from llm_annotator.labeler import LabelerSpec, resolve_labeler
from llm_annotator.moments import (
    MAX_PACKED_BYTES,
    MAX_PER_CAPTION,
    NO_ACTION,
    Frame,
    Moment,
    pack_moment,
    unpack_moment,
)
from llm_annotator.outbox import Outbox, Sendings
from llm_annotator.pictures import Picture, check_picture, picture_text
from llm_annotator.store import Store
from llm_annotator.store.moments import MomentReader
from llm_annotator.store.sampled import MAX_SCORES
from llm_annotator.store.schema import MIGRATIONS, migrate
from llm_annotator.supervisor import ServiceProcess
from llm_annotator.types import CaptionScore, SampledTransition

TTY: Picture = {
    "kind": "tty",
    "rows": 2,
    "cols": 4,
    "chars": b"You \x1bd\x00e",
    "colors": bytes(range(8)),
    "cursor": [1, 3],
}
CELLS: Picture = {
    "kind": "cells",
    "rows": 2,
    "cols": 2,
    "cells": [[".", "#000000", "#FFFFFF"], ["kr", "#ff5555", "#15171a"]],
    "grid": bytes([0, 1, 1, 0]),
    "mark": [1, 1, "up"],
    "legend": {"kr": "red key"},
}
PNG: Picture = {"kind": "png", "png": b"\x89PNG\r\n\x1a\n....", "width": 3, "height": 2}
TEXT: Picture = {"kind": "text", "text": "a\x1b[31mb\nc"}
PICTURES = [TTY, CELLS, PNG, TEXT]


def frame(step: int, caption: bytes = b"", picture: int | None = 0) -> Frame:
    return Frame(
        env_step=step,
        action=1,
        action_name="wait",
        extrinsic=0.5,
        intrinsic=-0.25,
        caption=caption,
        terminated=False,
        truncated=True,
        picture=picture,
    )


def moment(caption: bytes = b"\xff\x00you", step: int = 7) -> Moment:
    frames = (frame(step - 1), frame(step, caption, 3), frame(step + 1, picture=None)._replace(action=NO_ACTION))
    return Moment(env="test:game", row=3, centre=1, frames=frames, pictures=tuple(PICTURES))


def sampled(caption: bytes = b"you", step: int = 7, slot: int = 0) -> SampledTransition:
    return SampledTransition(caption=caption, env_step=step, slot=slot, frames=pack_moment(moment(caption, step)))


# --- packed and checked


def test_a_moment_survives_packing() -> None:
    there = unpack_moment(pack_moment(moment()))
    assert there == moment()
    assert [there.picture(one) for one in there.frames] == [TTY, TEXT, None]


def test_pictures_as_plain_text_hold_no_control_characters() -> None:
    assert picture_text(TTY) == "You\n.d e"
    assert picture_text(CELLS) == ".  kr\nkr ^\nkr red key"
    assert picture_text(PNG) == "[a picture of 3 x 2 pixels]"
    assert picture_text(TEXT) == "a.[31mb\nc"


@pytest.mark.parametrize(
    ("picture", "change", "message"),
    [
        (TTY, {"rows": 3}, "chars that are not 12 bytes"),
        (TTY, {"rows": 0}, "0 rows"),
        (TTY, {"cols": 10**9}, "1000000000 columns"),
        (TTY, {"colors": b""}, "colors"),
        (TTY, {"cursor": [2, 0]}, "cursor"),
        (TTY, {"cursor": "ab"}, "cursor"),
        (TTY, {"kind": "svg"}, "'svg', which this version does not know"),
        (CELLS, {"grid": bytes([0, 1, 2, 0])}, "not listed"),
        (CELLS, {"cells": [["<script>", "#000000", "#ffffff"]] * 2}, "cell"),
        (CELLS, {"cells": [["a", "red;}body{", "#ffffff"]] * 2}, "cell"),
        (CELLS, {"cells": [["a", "#00000", "#ffffff"]] * 2}, "cell"),
        (CELLS, {"mark": [0, 0, "north"]}, "mark"),
        (CELLS, {"mark": [0, 2, "up"]}, "mark"),
        (CELLS, {"legend": {"a": 1}}, "legend"),
        (CELLS, {"legend": None}, "legend"),
        (CELLS, {"note": b"x"}, "note"),
        (PNG, {"png": b"<svg onload=alert(1)>"}, "no PNG"),
        (PNG, {"width": 0}, "width"),
        (PNG, {"width": True}, "width"),
        (TEXT, {"text": b"x"}, "text"),
    ],
)
def test_a_picture_that_is_none_is_refused(picture: Picture, change: dict[str, Any], message: str) -> None:
    assert check_picture(picture) is picture
    with pytest.raises(ValueError, match=message):
        check_picture({**picture, **change})


def packed(**change: Any) -> bytes:
    body: Any = msgpack.unpackb(zlib.decompress(pack_moment(moment())))
    return zlib.compress(msgpack.packb({**body, **change}))


def a_frame(**change: Any) -> list[dict[str, Any]]:
    return [{**frame(1)._asdict(), **change}]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut off"),
        (b"junk", "cannot be unpacked"),
        (pack_moment(moment())[:-3], "cut off"),
        (zlib.compress(b"\xc1"), "no msgpack: FormatError"),
        (zlib.compress(msgpack.packb([1])), "not a map"),
        (zlib.compress(bytes(17 * 2**20)), "more than"),
        (packed(schema=2), "schema 2"),
        (packed(centre=3), "its middle at 3"),
        (packed(centre=None), "its middle"),
        (packed(frames=[]), "0 frames"),
        (packed(frames=None), "frames that are"),
        (packed(env=3), "environment 3"),
        (packed(pictures=[{}]), "kind None"),
        (packed(frames=[1]), "a frame is a int"),
        (packed(frames=a_frame(action="up")), "action 'up'"),
        (packed(frames=a_frame(picture=4)), "picture 4 of 4"),
        (packed(frames=a_frame(intrinsic=float("nan"))), "no number"),
        (packed(frames=a_frame(caption="text")), "caption 'text'"),
    ],
)
def test_what_is_no_moment_is_refused_in_words(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unpack_moment(data)


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_raise_anything_else(data: bytes, compressed: bool) -> None:
    try:
        unpack_moment(zlib.compress(data) if compressed else data)
    except ValueError:
        pass
    else:
        pytest.fail("these bytes are no moment")


# --- in the store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "annotations.sqlite") as opened:
        opened.add_labeler("l", {}, "m")
        for run in ("r", "q"):
            opened.add_run(run, run, {}, labeler_id="l", goal="g")
        yield opened


def test_a_moment_takes_the_place_of_the_one_with_its_slot(store: Store) -> None:
    store.add_transitions("r", [sampled(step=7), sampled(step=9, slot=1), sampled(b"other", step=1)])
    store.add_transitions("q", [sampled(step=8)])
    store.add_transitions("r", [sampled(step=20)])
    (caption,) = store.intern([b"you"])
    with MomentReader(store.path) as reader:
        assert [(m.run_id, m.env_step) for m in reader.moments(caption)] == [("q", 8), ("r", 9), ("r", 20)]
        assert [m.env_step for m in reader.moments(caption, "r")] == [9, 20]
        assert reader.moments(caption, "r")[1].moment == moment(b"you", 20)
        assert reader.moments(10_000) == []


def test_a_broken_moment_is_said_and_hides_no_other(store: Store) -> None:
    store.add_transitions("r", [sampled(step=7), sampled(step=9, slot=1), sampled(step=11, slot=2)])
    store._connection.execute("UPDATE transitions SET frames = x'00' WHERE env_step = 9")
    store._connection.execute(f"UPDATE transitions SET frames = zeroblob({MAX_PACKED_BYTES + 1}) WHERE env_step = 11")
    (caption,) = store.intern([b"you"])
    with MomentReader(store.path) as reader:
        whole, broken, huge = reader.moments(caption)
    assert (whole.moment, whole.problem) == (moment(b"you", 7), "")
    assert broken.moment is None
    assert "cut off" in broken.problem
    assert huge.moment is None
    assert "more than" in huge.problem


def test_scores_are_thinned_evenly(store: Store) -> None:
    for step in range(1000):
        store.add_scores("r", [CaptionScore(caption=b"you", env_step=step, score=step / 1000)])
    store.add_scores("r", [CaptionScore(caption=b"you", env_step=999, score=0.5)])  # said again
    store.add_scores("q", [CaptionScore(caption=b"you", env_step=3, score=1.0)])
    (caption,) = store.intern([b"you"])
    with MomentReader(store.path) as reader:
        scores = reader.scores(caption, "r")
        assert reader.scores(caption)[0] == ("q", 3, 1.0)
    steps = [score.env_step for score in scores]
    assert len(steps) == MAX_SCORES
    assert (steps[0], steps[-1]) == (0, 999)
    assert scores[-1].score == 0.5
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    assert max(gaps) <= 4 * 1000 / MAX_SCORES, gaps


def test_nothing_is_kept_for_a_run_that_nobody_registered(store: Store) -> None:
    with pytest.raises(StoreError, match="register it first"):
        store.add_transitions("nobody", [sampled()])
    with pytest.raises(StoreError, match="register it first"):
        store.add_scores("nobody", [CaptionScore(caption=b"you", env_step=1, score=1.0)])


def test_an_old_store_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, "old", MIGRATIONS[:2])
    connection.close()
    with MomentReader(path) as reader:
        assert reader.moments(1) == []
        assert reader.scores(1) == []


# --- on the way


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (sampled(slot=MAX_PER_CAPTION), "slot is 16"),
        (sampled(step=-1), "env_step is -1"),
        (SampledTransition(caption=b"x", env_step=0, slot=0, frames=bytes(MAX_PACKED_BYTES + 1)), "frames are bytes"),
        (SampledTransition(caption=bytes(wire.MAX_CAPTION_BYTES + 1), env_step=0, slot=0, frames=b""), "262145 bytes"),
    ],
)
def test_a_moment_that_no_store_takes_is_refused(item: SampledTransition, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wire.transition_from_wire(wire.transition_to_wire(item))
    sendings = Sendings()
    sendings.add(item)
    assert (len(sendings), sendings.dropped) == (0, 1)


def test_what_waits_is_bounded_and_the_newest_stay() -> None:
    box = Outbox[int](key=lambda item: item % 100, size=lambda item: 10, max_items=8, max_bytes=50)
    for item in range(12):
        box.add(item)
    assert (box.next_batch(), box.dropped) == ([7, 8, 9, 10, 11], 7)
    box.add(109)  # takes the place of 9
    assert (box.next_batch(), box.dropped) == ([7, 8, 10, 11, 109], 7)
    box.done([7, 8, 9])
    assert box.next_batch() == [10, 11, 109]


def test_requests_stay_well_below_what_the_service_takes() -> None:
    sendings = Sendings()
    for slot in range(MAX_PER_CAPTION):
        sendings.add(SampledTransition(caption=b"x", env_step=1, slot=slot, frames=os.urandom(MAX_PACKED_BYTES)))
    for number in range(2500):
        sendings.add(CaptionScore(caption=b"%d" % number, env_step=1, score=1.0))
    sizes: dict[str, list[int]] = {}
    while parcel := sendings.next():
        body = wire.pack({"run_id": "r", parcel.field: parcel.rows})
        assert len(body) <= outbox.MAX_REQUEST_BYTES + 2**20 < wire.MAX_BODY_BYTES
        sizes.setdefault(parcel.path, []).append(len(parcel.items))
        sendings.done(parcel)
    assert sum(sizes["/v1/transitions"]) + sendings.dropped == MAX_PER_CAPTION
    assert sizes["/v1/scores"] == [1000, 1000, 500]


# --- through a service


@pytest.fixture(scope="module")
def spec() -> LabelerSpec:
    return resolve_labeler(LabelerConfig(goal="open the box"))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    config = AnnotatorConfig(backend=BackendConfig(kind="scripted"))
    with ServiceProcess(tmp_path / "annotations.sqlite", config, tmp_path / "log") as started:
        yield started


def client_of(service: ServiceProcess, spec: LabelerSpec) -> AnnotatorClient:
    return AnnotatorClient(service.url, "run", "run", {}, spec, token=service.token)


def stored(path: Path, caption: bytes) -> tuple[list[int], list[tuple[int, float]]]:
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT id FROM captions WHERE text = ?", (caption,)).fetchone()
    connection.close()
    if found is None:
        return [], []
    with MomentReader(path) as reader:
        moments = reader.moments(found[0])
        assert all(one.moment is not None for one in moments)
        return [one.env_step for one in moments], [score[1:] for score in reader.scores(found[0], "run")]


def eventually(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_run_sends_moments_and_scores(service: ServiceProcess, spec: LabelerSpec, tmp_path: Path) -> None:
    with client_of(service, spec) as client:
        client.record_transitions([sampled(b"\xffone", step, slot) for slot, step in enumerate((5, 9))])
        client.record_scores(10, [(b"\xffone", 0.25), (b"two", float("nan"))])
        client.record_scores(20, [(b"\xffone", 0.5)])
        client.record_transitions([])
        client.record_scores(20, [])
        assert client.flush(20.0)
        assert client.health.records_dropped == 1, "what is no number is not kept"
    assert stored(tmp_path / "annotations.sqlite", b"\xffone") == ([5, 9], [(10, 0.25), (20, 0.5)])


@pytest.mark.slow
def test_a_killed_service_costs_moments_at_most(service: ServiceProcess, spec: LabelerSpec, tmp_path: Path) -> None:
    path = tmp_path / "annotations.sqlite"
    with client_of(service, spec) as client:
        client.record_transitions([sampled(b"before", 1)])
        assert client.flush(20.0)
        os.kill(service.pid, signal.SIGKILL)
        big = SampledTransition(caption=b"big", env_step=1, slot=0, frames=os.urandom(MAX_PACKED_BYTES))
        for number in range(40):  # more than what waits may take: the oldest go
            client.record_transitions([SampledTransition(**{**vars(big), "caption": b"big %d" % number})])
        client.record_scores(7, [(b"after", 0.5)])
        client.record_transitions([sampled(b"after", 2)])
        assert client.flush(30.0), "the supervisor has started it again"
        dropped = client.health.records_dropped
    assert stored(path, b"before")[0] == [1]
    assert stored(path, b"after") == ([2], [(7, 0.5)])
    assert 0 < dropped <= 40
    assert sum(stored_big(path)) + dropped == 40


def stored_big(path: Path) -> list[int]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT count(*) FROM transitions WHERE length(frames) > 1000000").fetchall()
    connection.close()
    return [row[0] for row in rows]


def test_recording_never_waits_even_where_nobody_answers(spec: LabelerSpec) -> None:
    with AnnotatorClient("http://127.0.0.1:9", "run", "run", {}, spec) as client:
        for number in range(30):
            client.record_scores(number, [(b"%d" % i, 0.5) for i in range(1000)])
            client.record_transitions([sampled(b"%d" % number)])
        eventually(lambda: client.health.records_dropped >= 30_000 - outbox.MAX_ITEMS - MAX_RECORDS)
        assert not client.flush(0.05)
