"""A moment of training, for people: some steps of one game around the one in which a caption was said.

In the store a moment is a map in msgpack, compressed by zlib: {"schema": 1, "env": id of the environment, "row": number
of the game, "centre": place in "frames" of the step that said the caption, "frames": [maps with the fields of `Frame`],
"pictures": [maps as `llm_annotator.pictures` describes them]}. Frames name their picture by its place, so that equal
ones are kept once.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import msgpack  # pyright: ignore[reportMissingTypeStubs]

from llm_annotator.pictures import Picture, check_picture

SCHEMA = 1

MAX_PACKED_BYTES = 2**20
"""A packed moment has at most so many bytes. One of NetHack has about 3 KB."""

MAX_BYTES = 16 * 2**20
"""Bytes of one that is unpacked, at most."""

MAX_PER_CAPTION = 16
"""Moments kept of one caption in one run, at most."""

MAX_FRAMES = 1000

NO_ACTION = -1
"""The action of a last frame that only shows what came of the one before."""


class Frame(NamedTuple):
    """One step.

    env_step: steps done before it, over all environments. action: what was done then, `NO_ACTION` in a last frame that
    only shows what came of the one before; action_name: the same in words. extrinsic: what the game paid for it.
    intrinsic: what it earned beside that, after coefficients, count in the episode and guard. caption: what was said
    to it. terminated, truncated: whether the episode ended with it. picture: what was seen before the action, a place
    in `Moment.pictures`; None if that is not known.
    """

    env_step: int
    action: int
    action_name: str
    extrinsic: float
    intrinsic: float
    caption: bytes
    terminated: bool
    truncated: bool
    picture: int | None


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Some steps of one game, oldest first.

    env: id of the environment. row: number of the game among those that are played at once.
    centre: place in `frames` of the step that said the caption for which the moment is kept.
    """

    env: str
    row: int
    centre: int
    frames: tuple[Frame, ...]
    pictures: tuple[Picture, ...]

    def picture(self, frame: Frame) -> Picture | None:
        """Returns what was seen before a step."""
        return None if frame.picture is None else self.pictures[frame.picture]


def pack_moment(moment: Moment) -> bytes:
    """Returns a moment as bytes, as `SampledTransition.frames` holds them."""
    body = {
        "schema": SCHEMA,
        "env": moment.env,
        "row": moment.row,
        "centre": moment.centre,
        "frames": [frame._asdict() for frame in moment.frames],
        "pictures": list(moment.pictures),
    }
    packed = cast("bytes", msgpack.packb(body))  # pyright: ignore[reportUnknownMemberType] - msgpack has no types
    return zlib.compress(packed, 1)


def unpack_moment(data: bytes) -> Moment:
    """Returns the moment that bytes hold, checked, so that whoever draws it need not.

    Raises:
        ValueError: they hold none; says why.
    """
    if len(data) > MAX_PACKED_BYTES:
        raise ValueError(f"a moment has {len(data)} bytes, more than {MAX_PACKED_BYTES}")
    unzip = zlib.decompressobj()
    try:
        plain = unzip.decompress(data, MAX_BYTES)
    except zlib.error as error:
        raise ValueError(f"a moment cannot be unpacked: {error}") from error
    if unzip.unconsumed_tail or not unzip.eof:
        raise ValueError(f"a moment is cut off, or has more than {MAX_BYTES} bytes")
    try:
        body = cast("Any", msgpack.unpackb(plain))  # pyright: ignore[reportUnknownMemberType] - msgpack has no types
    except ValueError as error:
        raise ValueError(f"a moment is no msgpack: {str(error) or type(error).__name__}") from error
    if not isinstance(body, dict):
        raise ValueError(f"a moment is a {type(body).__name__}, not a map")
    return _moment(cast("Mapping[str, Any]", body))


def _moment(body: Mapping[str, Any]) -> Moment:
    if body.get("schema") != SCHEMA:
        raise ValueError(f"a moment has schema {body.get('schema')!r}, this version of oni-jax knows {SCHEMA}")
    pictures = tuple(check_picture(picture) for picture in _list(body, "pictures"))
    frames = tuple(_frame(frame, len(pictures)) for frame in _list(body, "frames"))
    centre, env, row = body.get("centre"), body.get("env"), body.get("row")
    if not isinstance(centre, int) or not 0 <= centre < len(frames) <= MAX_FRAMES:
        raise ValueError(f"a moment has {len(frames)} frames, and its middle at {centre!r}")
    if not isinstance(env, str) or not isinstance(row, int):
        raise ValueError(f"a moment is of environment {env!r}, game {row!r}")
    return Moment(env=env, row=row, centre=centre, frames=frames, pictures=pictures)


def _list(body: Mapping[str, Any], name: str) -> Sequence[Any]:
    value: object = body.get(name)
    if not isinstance(value, list):
        raise ValueError(f"a moment has {name} that are a {type(value).__name__}")
    return cast("list[Any]", value)


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "env_step": int,
    "action": int,
    "action_name": str,
    "extrinsic": (int, float),
    "intrinsic": (int, float),
    "caption": bytes,
    "terminated": bool,
    "truncated": bool,
    "picture": (int, type(None)),
}


def _frame(value: Any, num_pictures: int) -> Frame:
    if not isinstance(value, dict):
        raise ValueError(f"a frame is a {type(value).__name__}, not a map")
    fields = cast("dict[str, Any]", value)
    for name, kinds in _TYPES.items():
        if name not in fields or not isinstance(fields[name], kinds):
            raise ValueError(f"a frame has {name} {fields.get(name)!r}")
    if not all(math.isfinite(fields[name]) for name in ("extrinsic", "intrinsic")):
        raise ValueError("a frame has a reward that is no number")
    picture: int | None = fields["picture"]
    if picture is not None and not 0 <= picture < num_pictures:
        raise ValueError(f"a frame shows picture {picture} of {num_pictures}")
    return Frame(**{name: fields[name] for name in Frame._fields})
