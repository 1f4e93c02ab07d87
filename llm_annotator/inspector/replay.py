"""A moment of training as it is shown: steps, pictures, and rewards on a time line."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from llm_annotator.inspector.drawings import draw
from llm_annotator.inspector.markup import join, tag
from llm_annotator.inspector.words import caption_line, count, reward
from llm_annotator.moments import NO_ACTION, Frame, Moment
from llm_annotator.store.moments import StoredMoment

COLUMN, BAND, GAP = 22, 34, 6
"""Width of a step on the time line, height of the bars of a reward, room between them; in units of the drawing."""

LABELS = 86
"""Room for the names of the rewards, left of the bars."""


class FrameView(NamedTuple):
    """One step.

    name: unique on the page. acts: False for a last frame that only shows what came of the one before. picture: number
    of what was seen before the action, None if that is not known. drawing: that picture, where no earlier frame has
    shown it.
    """

    name: str
    frame: Frame
    acts: bool
    is_centre: bool
    picture: int | None
    drawing: Markup | None

    @property
    def action(self) -> str:
        """What was done, in words."""
        return self.frame.action_name or f"action {self.frame.action}"


@dataclass(frozen=True, kw_only=True)
class ReplayView:
    """A moment with everything drawn; `problem` says why there is nothing to see, if so."""

    moment_id: int
    run_id: str
    env_step: int
    env: str
    frames: Sequence[FrameView]
    centre: int
    timeline: Markup
    problem: str


def replay(stored: StoredMoment) -> ReplayView:
    """Returns a moment drawn."""
    moment = stored.moment
    name = f"m{stored.moment_id}"
    return ReplayView(
        moment_id=stored.moment_id,
        run_id=stored.run_id,
        env_step=stored.env_step,
        env="" if moment is None else moment.env,
        frames=[] if moment is None else _frames(moment, name),
        centre=0 if moment is None else moment.centre,
        timeline=Markup() if moment is None else timeline(moment, name),
        problem=stored.problem,
    )


def _frames(moment: Moment, name: str) -> list[FrameView]:
    shown: set[int] = set()
    views: list[FrameView] = []
    for number, frame in enumerate(moment.frames):
        drawing = None
        if frame.picture is not None and frame.picture not in shown:
            shown.add(frame.picture)
            drawing = draw(moment.pictures[frame.picture])
        views.append(
            FrameView(
                name=f"{name}-f{number}",
                frame=frame,
                acts=frame.action != NO_ACTION,
                is_centre=number == moment.centre,
                picture=frame.picture,
                drawing=drawing,
            )
        )
    return views


def timeline(moment: Moment, name: str) -> Markup:
    """Returns both rewards step by step, as SVG: bars up for what was paid, down for what it cost."""
    frames = moment.frames
    width, height = LABELS + len(frames) * COLUMN + 4, 2 * BAND + 3 * GAP
    centre = LABELS + moment.centre * COLUMN
    parts = [tag("rect", class_="centre", x=centre, y=0, width=COLUMN, height=height)]
    bands = (("game", [frame.extrinsic for frame in frames]), ("intrinsic", [frame.intrinsic for frame in frames]))
    for band, (words, rewards) in enumerate(bands):
        parts += _band(words, rewards, GAP + band * (BAND + GAP))
    for number, frame in enumerate(frames):
        parts.append(_column(frame, number, name, height))
    svg = tag("svg", join(parts), class_="timeline", viewBox=f"0 0 {width} {height}", width=width, height=height)
    return tag("figure", svg, class_="time", aria_label=f"Rewards of {len(frames)} steps: {_said(bands)}")


def _said(bands: Sequence[tuple[str, Sequence[float]]]) -> str:
    return ", ".join(f"{words} {reward(sum(rewards))}" for words, rewards in bands)


def _band(words: str, rewards: Sequence[float], top: int) -> list[Markup]:
    most = max((abs(value) for value in rewards), default=0.0)
    below = any(value < 0 for value in rewards)
    zero = top + (BAND / 2 if below else BAND)
    room = BAND / 2 if below else BAND
    parts = [
        tag("text", words, class_="tick start", x=0, y=top + 12),
        tag("text", f"up to {reward(most)}" if most else "none", class_="tick start", x=0, y=top + 26),
        tag("line", class_="grid", x1=LABELS, x2=LABELS + len(rewards) * COLUMN, y1=zero, y2=zero),
    ]
    for number, value in enumerate(rewards):
        if value and most:
            size = max(abs(value) / most * room, 2.0)
            y = zero - size if value > 0 else zero
            parts.append(
                tag(
                    "rect",
                    class_=f"bar {words}",
                    x=LABELS + number * COLUMN + 3,
                    y=round(y, 1),
                    width=COLUMN - 6,
                    height=round(size, 1),
                )
            )
    return parts


def _column(frame: Frame, number: int, name: str, height: int) -> Markup:
    """Returns a place on the time line that leads to its step."""
    said = f", said {caption_line(frame.caption)}" if frame.caption else ""
    words = (
        f"step {count(frame.env_step)}: {frame.action_name or frame.action}{said}, game {reward(frame.extrinsic)}, "
        f"intrinsic {reward(frame.intrinsic)}"
    )
    rect = tag("rect", tag("title", words), class_="hit", x=LABELS + number * COLUMN, y=0, width=COLUMN, height=height)
    return tag("a", rect, href=f"#{name}-f{number}", data_frame=number, tabindex=-1)
