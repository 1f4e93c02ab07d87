"""Writes recorded episodes as animated pictures and as text."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from oni.evaluation import Frame

_STRIP_PX = 28
_FRAME_MS = 150
_LAST_FRAME_MS = 1500


def _picture(frame: Frame, width: int) -> Image.Image:
    game = Image.fromarray(np.asarray(frame.picture, np.uint8)).convert("RGB")
    canvas = Image.new("RGB", (max(width, game.width), game.height + _STRIP_PX), "black")
    canvas.paste(game, (0, 0))
    text = f"{frame.action}{': ' if frame.caption else ''}{frame.caption}"
    # the built-in font knows Latin-1 only
    ImageDraw.Draw(canvas).text((4, game.height + 8), text.encode("latin-1", "replace").decode("latin-1"), "white")
    return canvas.quantize(64)


def write_episode(frames: list[Frame], path: Path) -> None:
    """Writes `path`.gif, the pictures with action and caption below, and `path`.jsonl, one line a step."""
    width = 420
    pictures = [_picture(frame, width) for frame in frames]
    durations = [_FRAME_MS] * (len(pictures) - 1) + [_LAST_FRAME_MS]
    pictures[0].save(path.with_suffix(".gif"), save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    lines = [
        json.dumps({"step": i, "action": f.action, "reward": f.reward, "caption": f.caption})
        for i, f in enumerate(frames)
    ]
    path.with_suffix(".jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
