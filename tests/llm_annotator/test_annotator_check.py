"""`oni backends check`: what a server answered, how that was read, and what the server can do."""

import json
import socket
from collections.abc import Iterator

import pytest

from oni.cli import backends
from tests.able_openai_server import AbleServer


@pytest.fixture(scope="module")
def shared_server() -> Iterator[AbleServer]:
    with AbleServer() as server:
        yield server


@pytest.fixture
def server(shared_server: AbleServer) -> AbleServer:
    return shared_server.become()


def options(*addresses: str, kind: str = "completions") -> list[str]:
    where = ["--annotator.backend.endpoints", *addresses]
    if len(addresses) == 1:
        where = ["--annotator.backend.base-url", addresses[0]]
    return ["--annotator.backend.kind", kind, *where, "--annotator.backend.model", "m"]


def nowhere() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


@pytest.mark.parametrize("kind", ["completions", "openai"])
def test_report_says_how_the_answer_was_read_and_what_the_server_can_do(
    server: AbleServer, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    server.become(heeds="structured_outputs", refuses=("temperature",))
    assert backends.main(["check", *options(server.base_url, kind=kind)]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["server"] == server.base_url
    assert lines["backend"] == kind
    assert lines["answer"] == "' yes'"
    assert lines["helpful"] == "True"
    assert lines["tokens_in"] == "100"
    assert float(lines["latency_s"]) > 0
    assert lines["read_from"] == "log-probabilities"
    assert lines["capabilities"] == (
        "log-probabilities: yes; answer bound to a word: structured_outputs; bound to thoughts and a final line: "
        "structured_outputs; refuses temperature"
    )


def test_json_holds_the_same(server: AbleServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.become(alternatives=0, heeds="regex")
    caption = "It \x1b[31mrains \udcff."
    assert backends.main(["check", "--json", "--caption", caption, *options(server.base_url)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["caption"], report["helpful"], report["logprobs"]) == ("It \x1b[31mrains \xff.", False, None)
    assert report["read_from"] == "constrained output (regex)"
    assert report["capabilities"] == {
        "log_probabilities": False,
        "choice": "regex",
        "final": "regex",
        "left_out": [],
    }


@pytest.mark.parametrize("method", ["choice", "reasoned"])
def test_two_captions_are_compared(server: AbleServer, capsys: pytest.CaptureFixture[str], method: str) -> None:
    server.become(alternatives=0, heeds="grammar")
    asked = ["--caption", "It rains.", "--against", "You open the door.", f"--annotator.labeler.method={method}"]
    assert backends.main(["check", "--json", *asked, *options(server.base_url)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["method"], report["against"], report["helpful"]) == (method, "You open the door.", False)


def test_an_answer_that_no_terminal_can_show_is_shown(server: AbleServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.become(alternatives=0, says="\ud800 \x1b[2J")
    for extra in ([], ["--json"]):
        assert backends.main(["check", *extra, *options(server.base_url)]) == 1
        shown = capsys.readouterr().out
        assert "\\ud800" in shown
        assert "\x1b" not in shown


def test_an_answer_without_a_label_ends_in_1(server: AbleServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.become(alternatives=0, says="I would rather not say.")
    assert backends.main(["check", "--annotator.labeler.method=reasoned", *options(server.base_url)]) == 1
    shown = capsys.readouterr().out
    assert "unparsed" in shown
    assert "=== asked again ===" in shown


def test_every_address_is_asked(server: AbleServer, capsys: pytest.CaptureFixture[str]) -> None:
    down = nowhere()
    assert backends.main(["check", "--json", *options(down, server.base_url)]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["server"] == server.base_url
    assert f"nothing answers at {down}" in shown.err


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["--annotator.backend.options.top_logprobs=200"], "top_logprobs"),
        (["--annotator.labeler.method=reasond"], "method"),
        (["--annotator.labeler.method=reasoned", "--annotator.labeler.threshold=1"], "gives no scores"),
        (["--annotator.labeler.max-tokens=3"], "max_tokens"),
        (["--annotator.backend.api=chats"], "api"),
    ],
)
def test_usage_errors_end_in_2(
    server: AbleServer, capsys: pytest.CaptureFixture[str], changes: list[str], says: str
) -> None:
    assert backends.main(["check", *options(server.base_url), *changes]) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert shown.out == ""
    assert server.requests == []
