"""Who may talk to the annotator over HTTP: which names of this machine, which token."""

import hmac
import ipaddress

from starlette.requests import Request


class Refused(Exception):
    """A request that cannot be served: HTTP status, a word for programs, a sentence for people."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error


def is_loopback(host: str) -> bool:
    """Returns whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """Refuses requests that may not be served.

    token: what clients must send as `Authorization: Bearer TOKEN`; None lets everyone in.
    loopback_only: refuse requests that name another host. A web page that a browser on this machine shows could
        otherwise reach the service through a name of its own that resolves to loopback (DNS rebinding).
    """

    def __init__(self, token: str | None, *, loopback_only: bool) -> None:
        self._token = token or None
        self._loopback_only = loopback_only

    @property
    def needs_token(self) -> bool:
        """Whether a token is asked for."""
        return self._token is not None

    def check(self, request: Request) -> None:
        """Lets a request of a program in.

        Raises:
            Refused: 421 for another host name, 401 without the token.
        """
        self.check_host(request)
        if not self.has_token(request):
            raise Refused(
                401, "wrong_token", "the annotator asks for a token: set the environment variable that token_env names"
            )

    def check_host(self, request: Request) -> None:
        """Lets a request in whose name for this machine is right.

        Raises:
            Refused: 421.
        """
        if self._loopback_only and not is_loopback(_host_name(request.headers.get("host", ""))):
            raise Refused(421, "wrong_host", "this annotator serves its own machine alone: use http://127.0.0.1:PORT")

    def has_token(self, request: Request) -> bool:
        """Returns whether the request's header holds the token; True where none is asked for."""
        if self._token is None:
            return True
        sent = request.headers.get("authorization", "").encode("latin-1")
        return hmac.compare_digest(sent, f"Bearer {self._token}".encode())

    def is_token(self, text: str) -> bool:
        """Returns whether `text` is the token. The time that it takes tells nothing of how it differs."""
        return self._token is not None and hmac.compare_digest(text.encode("utf-8", "replace"), self._token.encode())


def _host_name(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]
