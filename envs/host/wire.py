"""What a pool and a worker say to each other, over a socket: frames of kind, group, and rarely some bytes more.

The pool sends CONFIGURE once, then START and STEP; the worker answers each with DONE, whose group is that of the
request, and whose bytes are JSON if something went wrong. All the bulk is in the shared memory (`envs.host.arena`).
"""

import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONFIGURE, START, STEP, DONE = b"c", b"r", b"s", b"d"

NO_GROUP = 255
"""Group of requests that are about no group in particular."""

MAX_GROUPS = NO_GROUP
"""Groups fit into a byte."""

_HEADER = struct.Struct("<cBI")
_COUNT = struct.Struct("<I")


class Frame(NamedTuple):
    """One message."""

    kind: bytes
    group: int
    payload: bytes = b""


class Episode(NamedTuple):
    """An episode to start in a row: its number, from 0, and the actions to replay."""

    row: int
    number: int
    actions: np.ndarray


def pack(frame: Frame) -> bytes:
    """Returns the bytes of a frame."""
    return _HEADER.pack(frame.kind, frame.group, len(frame.payload)) + frame.payload


def read(connection: socket.socket) -> Frame | None:
    """Waits for a frame; None if the other side has closed.

    Raises:
        BlockingIOError: nothing came within the receive timeout of the socket.
        OSError: the connection is broken.
    """
    header = connection.recv(_HEADER.size)
    if len(header) < _HEADER.size:
        if not header:
            return None
        header += _read_rest(connection, _HEADER.size - len(header))
        if len(header) < _HEADER.size:
            return None
    kind, group, size = _HEADER.unpack(header)
    if not size:
        return Frame(kind, group)
    payload = _read_rest(connection, size)
    return Frame(kind, group, payload) if len(payload) == size else None


def _read_rest(connection: socket.socket, size: int) -> bytes:
    """Reads so many bytes, fewer if the other side closes. A pause inside a frame is waited out."""
    parts: list[bytes] = []
    while size:
        try:
            part = connection.recv(min(size, 1 << 20))
        except BlockingIOError:
            continue
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def pack_episodes(episodes: Sequence[Episode]) -> bytes:
    """Returns the payload of START."""
    numbers = np.array([[e.row, e.number, len(e.actions)] for e in episodes], "<i8").reshape(-1, 3)
    actions = [np.asarray(e.actions, "<i4").tobytes() for e in episodes]
    return b"".join([_COUNT.pack(len(episodes)), numbers.tobytes(), *actions])


def unpack_episodes(payload: bytes) -> list[Episode]:
    """Reads the payload of START."""
    (count,) = _COUNT.unpack_from(payload)
    numbers = np.frombuffer(payload, "<i8", 3 * count, _COUNT.size).reshape(count, 3)
    actions = np.frombuffer(payload, "<i4", offset=_COUNT.size + numbers.nbytes)
    ends = np.cumsum(numbers[:, 2])
    return [
        Episode(row, number, actions[end - length : end])
        for (row, number, length), end in zip(numbers.tolist(), ends.tolist(), strict=True)
    ]
