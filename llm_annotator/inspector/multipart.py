"""Forms with a file in them (RFC 7578), small enough to be held in memory.

Browsers write them in one way, which is all that is read: CRLF line ends, a boundary in the content type, and for each
part a header that names the field.
"""

import re
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request

MAX_PARTS = 20

_BOUNDARY = re.compile(r'boundary="?([^\s";,]{1,70})"?')
_NAME = re.compile(rb';\s*name="([^"\r\n]*)"')
_FILENAME = re.compile(rb';\s*filename="([^"\r\n]*)"')
_LINE, _BLANK = b"\r\n", b"\r\n\r\n"

FILENAME = ".filename"
"""What the name of a file is kept under, after the name of its field."""


async def read_upload(request: Request, limit: int) -> Mapping[str, bytes]:
    """Returns the fields of a form, each with its last value, and the names of files.

    Raises:
        HTTPException: it is no such form, or larger than `limit` bytes.
    """
    kind, _, rest = request.headers.get("content-type", "").partition(";")
    boundary = _BOUNDARY.search(rest)
    if kind.strip().lower() != "multipart/form-data" or boundary is None:
        raise HTTPException(400, "This is no form with a file. Use the forms on these pages.")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise HTTPException(
                413, f"The file is larger than {limit // 2**20} MB. Import it on the command line: oni import RUN FILE."
            )
    return parse(bytes(body), boundary[1].encode("ascii", "replace"))


def parse(body: bytes, boundary: bytes) -> Mapping[str, bytes]:
    """Returns the fields of a form; see `read_upload`.

    Raises:
        HTTPException: it is no such form.
    """
    fields: dict[str, bytes] = {}
    pieces = (_LINE + body).split(_LINE + b"--" + boundary, MAX_PARTS + 2)
    if len(pieces) > MAX_PARTS + 2 or len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise HTTPException(400, "The form did not arrive whole. Send it again.")
    for piece in pieces[1:-1]:
        head, blank, value = piece.partition(_BLANK)
        name = _NAME.search(head)
        if not blank or name is None:
            raise HTTPException(400, "The form holds a part without a name. Use the forms on these pages.")
        key = name[1].decode("utf-8", "replace")
        fields[key] = value
        if filename := _FILENAME.search(head):
            fields[key + FILENAME] = filename[1]
    return fields
