"""Who is let in to the pages: the token, the session, what other sites may not send."""

from pathlib import Path
from typing import Any

import httpx
import inspected_store
import pytest
from starlette.requests import Request

from llm_annotator.access import Guard
from llm_annotator.inspector.app import PREFIX
from llm_annotator.inspector.door import Door, local_target
from tests.page_client import Get, client

TOKEN = "a long secret"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return inspected_store.fill(tmp_path_factory.mktemp("pages") / "store.sqlite")


def locked(store: Path) -> Get:
    return client(store, Guard(TOKEN, loopback_only=False))


def log_in(get: Get, token: str = TOKEN, **options: Any) -> httpx.Response:
    return get("/inspect/login", "POST", data={"token": token, "next": "/inspect/captions?q=door"}, **options)


def test_without_the_token_there_is_the_login_page_alone(store: Path) -> None:
    get = locked(store)
    answer = get("/inspect/captions?q=door")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/inspect/login?next=%2Finspect%2Fcaptions%3Fq%3Ddoor"
    assert get("/inspect/caption/1", "POST").status_code == 401
    assert get("/inspect/logout", "POST").status_code == 401
    html = get("/inspect/login").text
    assert "This annotator asks for its token" in html
    assert str(store) not in html
    assert "yellow key" not in html


def test_the_token_opens_a_session_in_a_strict_cookie(store: Path) -> None:
    get = locked(store)
    answer = log_in(get)
    assert (answer.status_code, answer.headers["location"]) == (303, "/inspect/captions?q=door")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("oni_inspect_1=")
    for part in ("HttpOnly", "SameSite=strict", "Path=/inspect", "Max-Age=43200"):
        assert part in cookie
    assert TOKEN not in cookie
    assert get("/inspect/captions").status_code == 200
    assert get("/inspect/login").status_code == 303
    assert get("/inspect/logout", "POST").status_code == 303
    assert get("/inspect/captions").status_code == 303


def test_a_wrong_token_or_a_made_up_session_opens_nothing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_annotator.inspector.app.WRONG_TOKEN_PAUSE_S", 0.01)
    get = locked(store)
    for token in ("", "wrong", TOKEN + "x", "t\u00f6ken"):
        answer = log_in(get, token)
        assert answer.status_code == 401
        assert "That is not the token" in answer.text
        assert "set-cookie" not in answer.headers
    assert get("/inspect/", headers={"cookie": "oni_inspect_1=made-up"}).status_code == 303


def test_programs_may_send_the_token_as_to_the_service(store: Path) -> None:
    get = locked(store)
    assert get("/inspect/captions", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert get("/inspect/captions", headers={"authorization": "Bearer wrong"}).status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:2"},
        {"content-type": "text/plain"},
    ],
)
def test_forms_of_other_sites_are_refused(store: Path, headers: dict[str, str]) -> None:
    get = locked(store)
    answer = log_in(get, headers=headers)
    assert answer.status_code == 400
    assert "set-cookie" not in answer.headers


def test_forms_of_ours_are_taken(store: Path) -> None:
    for headers in ({"sec-fetch-site": "same-origin"}, {"origin": "http://127.0.0.1:1"}, {"origin": "null"}):
        assert log_in(locked(store), headers=headers).status_code == 303


def test_a_body_that_never_ends_is_cut_off(store: Path) -> None:
    get = locked(store)
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert get("/inspect/login", "POST", content=b"token=" + b"x" * 100_000, headers=headers).status_code == 400


@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("/inspect/caption/3?run=a", "/inspect/caption/3?run=a"),
        ("", "/inspect/"),
        ("//evil.example/inspect/", "/inspect/"),
        ("https://evil.example", "/inspect/"),
        ("/inspect/\\evil.example", "/inspect/"),
        ("/inspect/\nx", "/inspect/"),
        ("/elsewhere", "/inspect/"),
        ("javascript:alert(1)", "/inspect/"),
    ],
)
def test_nobody_is_led_elsewhere_after_login(target: str, place: str) -> None:
    assert local_target(target, PREFIX) == place


def test_sessions_end_and_are_not_endlessly_many() -> None:
    now = [0.0]
    door = Door(Guard(TOKEN, loopback_only=False), clock=lambda: now[0])

    def comes_in(session: str | None) -> bool:
        headers = [(b"host", b"h:1"), (b"cookie", f"oni_inspect_1={session}".encode())]
        scope = {
            "type": "http",
            "headers": headers,
            "path": "/",
            "query_string": b"",
            "server": ("h", 1),
            "scheme": "http",
        }
        return door.lets_in(Request(scope))

    first = door.open(TOKEN)
    assert comes_in(first)
    now[0] = 13 * 3600.0
    assert not comes_in(first)
    second = door.open(TOKEN)
    assert comes_in(second)
    for _ in range(100):
        door.open(TOKEN)
    assert not comes_in(second)
    assert door.open("wrong") is None
