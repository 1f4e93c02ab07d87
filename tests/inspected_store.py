"""A store for the tests of the pages: hostile captions, two labelers, all kinds of pictures, figures done by hand."""

import io
import sqlite3
from pathlib import Path
from typing import Any

from PIL import Image

from llm_annotator.moments import NO_ACTION, Frame, Moment, pack_moment
from llm_annotator.pictures import Picture
from llm_annotator.store import AnnotationRecord, ComparisonRecord, Store
from llm_annotator.types import CaptionScore, LabelStatus, Occurrence, SampledTransition

SCRIPT = b"<script>alert('caption')</script>"
QUOTES = b"\"'><img src=x onerror=alert(1)>"
STYLE = b"</style></title><svg onload=alert(2)>{{ 7*7 }}{% raw %}"
ANSI = b"\x1b[31mred\x1b[0m\x1b]0;title\x07"
REVERSED = "safe\u202egnp.exe\u2028line \u200b\ufeff".encode()
RTL = "\u05e9\u05dc\u05d5\u05dd <b>bold</b>".encode()
LATIN = b"caf\xe9 \xff\x00 end"
LONG = b"<i>" + b"x" * 4_000
LINES = b"first line\nsecond <line>\r\n\tthird"
HOSTILE = (SCRIPT, QUOTES, STYLE, ANSI, REVERSED, RTL, LATIN, LONG, LINES)

EVIL = "</pre><script>alert('answer')</script><a href=\"javascript:alert(3)\">"


def png(width: int = 4, height: int = 3) -> bytes:
    """Returns a real picture."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


def tty(text: str, *, rows: int = 24, cols: int = 80, cursor: tuple[int, int] = (2, 5)) -> Picture:
    """Returns a terminal that shows `text` in red on its first row."""
    chars = text.encode("latin-1")[:cols].ljust(rows * cols, b" ")
    colors = bytes([1] * len(text)).ljust(rows * cols, b"\x07")
    return {
        "kind": "tty",
        "rows": rows,
        "cols": cols,
        "chars": chars,
        "colors": colors,
        "cursor": list(cursor),
    }


CELLS: Picture = {
    "kind": "cells",
    "rows": 2,
    "cols": 3,
    "cells": [["", "#000000", "#222222"], ["<k", "#ff5555", "#ffffff"], ["#", "#888888", "#222222"]],
    "grid": bytes([0, 0, 1, 2, 2, 0]),
    "mark": [0, 1, "right"],
    "legend": {"<k": "red <key>", "#": "wall", "?": "never seen"},
    "note": "step <1> & more",
}
TEXT: Picture = {"kind": "text", "text": "<script>alert('text')</script>\x1b[31m\nsecond"}


def pictures() -> tuple[Picture, ...]:
    """Returns one picture of each kind, and a second terminal."""
    shot: Picture = {"kind": "png", "png": png(), "width": 4, "height": 3}
    return (tty("You see <here> & a 'key'."), tty("The door opens.\x1b"), CELLS, shot, TEXT)


def moment(caption: bytes, env_step: int) -> Moment:
    """Returns a moment of seven frames; the fourth said the caption and was paid for it."""
    shows = (0, 1, 1, 2, 3, 4, None)
    frames = tuple(
        Frame(
            env_step=env_step + 64 * (number - 3),
            action=NO_ACTION if number == 6 else number,
            action_name="" if number == 6 else "<b>north</b>" if number == 3 else f"move {number}",
            extrinsic=1.0 if number == 3 else -0.25 if number == 5 else 0.0,
            intrinsic=0.5 if number == 3 else 0.0,
            caption=caption if number == 3 else SCRIPT if number == 4 else b"",
            terminated=number == 5,
            truncated=False,
            picture=picture,
        )
        for number, picture in enumerate(shows)
    )
    return Moment(env="test:<game>", row=0, centre=3, frames=frames, pictures=pictures())


def record(caption_id: int, helpful: bool | None, **fields: Any) -> AnnotationRecord:
    """Returns an answer; None for one that could not be read."""
    values: dict[str, Any] = {
        "labeler_id": "judge-1",
        "caption_id": caption_id,
        "status": LabelStatus.UNPARSED if helpful is None else LabelStatus.LABELLED,
        "helpful": helpful,
        "p_helpful": None if helpful is None else 0.875 if helpful else 0.125,
        "score": None if helpful is None else 1.5 if helpful else -1.5,
        "prompt_prefix": f"Goal: <b>open</b> the box. {EVIL}\n",
        "prompt_suffix": f"Event: number {caption_id}\x1b[2J\nProgress:",
        "answer": f" yes {EVIL}",
        "logprobs": {" yes": -0.25, "\x1b[1m<no>": -1.75, "never": float("-inf")},
        "model": "tiny <i>model</i>",
        "backend": "scripted",
        "tokens_in": 40,
        "tokens_out": 1,
        "latency_s": 0.25,
        "attempts": 2,
        "detail": f"neither word {EVIL}" if helpful is None else "",
        "created_at": 2000.0 + caption_id,
    }
    return AnnotationRecord(**(values | fields))


def occurrence(caption: bytes, count: int, reward: float, **fields: Any) -> Occurrence:
    """Returns what a caption came to in a run."""
    values: dict[str, Any] = {"first_step": 64, "last_step": 12_800, "episode_count": 3}
    return Occurrence(caption=caption, count=count, reward_sum=reward, **(values | fields))


KEY = b"You take the yellow key."
DOOR = b"You open the door."
UNASKED = b"Nobody asked about this."


def fill(path: Path) -> Path:
    """Writes a store of twelve captions. In the run all of them earned 40 together, the key half of that.

    Labels of judge-1: key and door helpful, the script unhelpful though it earned, quotes by hand, ANSI unparsed, RTL
    failed, the others none. Labels of judge-2 (another model): key unhelpful, door helpful. The reward model pays the
    script, and does not pay the door.
    """
    with Store(path, wall_clock=lambda: 1000.0) as store:
        store.add_labeler("judge-1", {"goal": f"open the box {EVIL}", "threshold": 0.5}, "tiny <i>model</i>")
        store.add_labeler("judge-2", {"goal": "find the exit"}, "other")
        store.add_run("run-a", "first <b>run</b>", {"seed": 1}, labeler_id="judge-1", goal="open the box")
        ids = dict(zip((KEY, DOOR, UNASKED, *HOSTILE), store.intern([KEY, DOOR, UNASKED, *HOSTILE]), strict=True))
        store.add_annotations(
            [
                record(ids[KEY], True),
                record(ids[DOOR], True, p_helpful=0.75, score=1.0),
                record(ids[SCRIPT], False),
                record(ids[QUOTES], False),
                record(ids[ANSI], None),
                record(ids[RTL], None, status=LabelStatus.FAILED, answer=None, logprobs=None, latency_s=None),
                record(ids[KEY], False, labeler_id="judge-2"),
                record(ids[DOOR], True, labeler_id="judge-2"),
            ]
        )
        store.override(QUOTES, "judge-1", helpful=True, note=f"no <u>sense</u> {EVIL}", author="kim <k>")
        earned = [(KEY, 10, 20.0), (DOOR, 40, 10.0), (SCRIPT, 2_000_000, 6.0), (QUOTES, 15_000, 4.0)]
        rest = [(text, 5, 0.0) for text in (UNASKED, *HOSTILE[2:])]
        store.add_occurrences("run-a", [occurrence(*row) for row in [*earned, *rest]])
        store.add_transitions(
            "run-a",
            [
                SampledTransition(caption=text, env_step=step, slot=slot, frames=pack_moment(moment(text, step)))
                for text, step, slot in ((KEY, 640, 0), (KEY, 12_800, 1), (SCRIPT, 6400, 0))
            ],
        )
        scores = [(KEY, 640, 0.2), (KEY, 12_800, 0.9), (DOOR, 12_800, -0.5), (SCRIPT, 6400, 0.7)]
        store.add_scores("run-a", [CaptionScore(caption=c, env_step=s, score=x) for c, s, x in scores])
    return path


def add_comparisons(path: Path) -> None:
    """Adds a labeler that compares, and says that the key is better than the door in both orders."""
    with Store(path, wall_clock=lambda: 1500.0) as store:
        store.add_labeler("pairs-1", {"goal": "open the box", "question": "preference"}, "comparing")
        key, door, script = store.intern([KEY, DOOR, SCRIPT])
        shared = {
            name: value
            for name, value in vars(record(0, True)).items()
            if name not in ("caption_id", "helpful", "p_helpful", "labeler_id")
        }
        store.add_annotations(
            ComparisonRecord(**shared, labeler_id="pairs-1", first_id=a, second_id=b, first_better=better, p_first=p)
            for a, b, better, p in ((key, door, True, 0.75), (door, key, False, 0.375), (script, key, True, 0.5))
        )


def caption_id(path: Path, caption: bytes) -> int:
    """Returns the id of a caption."""
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT id FROM captions WHERE text = ?", (caption,)).fetchone()
    connection.close()
    return found[0]
