"""What `oni inspect RUN --show ID --moments` prints: the moments kept of one caption, and its score over training."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from llm_annotator.captions import decode_caption
from llm_annotator.moments import NO_ACTION, Frame, Moment
from llm_annotator.pictures import picture_text
from llm_annotator.store.moments import MomentReader, StoredMoment, StoredScore
from oni.cli._inspect_tables import printable


def print_moments(path: Path, caption: bytes, caption_id: int, console: Console) -> None:
    """Prints every moment kept of a caption, step by step, each picture once where it does not change.

    Raises:
        StoreError: the store cannot be read.
    """
    with MomentReader(path) as reader:
        moments, scores = reader.moments(caption_id), reader.scores(caption_id)
    console.print(Text(f"Caption {caption_id}: {printable(decode_caption(caption))}\n", style="bold"))
    if not moments:
        console.print(Text("No moment of it is kept: others had their turn when it came up, or none are kept at all."))
    for number, stored in enumerate(moments, start=1):
        _print_moment(stored, f"Moment {number} of {len(moments)}", console)
    if scores:
        console.print(Text("Score of the reward model", style="bold"))
        console.print(Text(_scores_line(scores)))


def _print_moment(stored: StoredMoment, title: str, console: Console) -> None:
    console.print(Text(f"{title}, run {stored.run_id}, step {stored.env_step:,}", style="bold"))
    moment = stored.moment
    if moment is None:
        console.print(Text(f"It cannot be read: {stored.problem}."))
        return
    shown: int | None = None
    for place, frame in enumerate(moment.frames):
        if frame.picture != shown:
            _print_picture(moment, frame, console)
        shown = frame.picture
        if frame.action != NO_ACTION:
            console.print(Text(_step_line(frame, is_centre=place == moment.centre)))
    console.print()


def _print_picture(moment: Moment, frame: Frame, console: Console) -> None:
    picture = moment.picture(frame)
    if picture is not None:
        console.print(Text(picture_text(picture), no_wrap=True, overflow="ignore"), crop=False)


def _step_line(frame: Frame, *, is_centre: bool) -> str:
    end = "  (the episode ends)" if frame.terminated else "  (cut off)" if frame.truncated else ""
    rewards = f"game {frame.extrinsic:+.3g}, intrinsic {frame.intrinsic:+.3g}"
    caption = f"  {printable(decode_caption(frame.caption))}" if frame.caption else ""
    return f"{'=>' if is_centre else '  '} {printable(frame.action_name)} [{rewards}]{caption}{end}"


def _scores_line(scores: Sequence[StoredScore]) -> str:
    return ", ".join(f"{score.score:.3g} at {score.env_step:,}" for score in scores)
