"""Options and fixtures for all tests."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest


def _share_compilations() -> None:
    """Lets all processes of one run of the tests compile each function once: most of their time went there."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="oni-tests-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"


_share_compilations()  # before anything imports jax

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-golden",
        action="store_true",
        help="write what the program gives now into tests/golden (scripts/golden); look at the diff before a commit",
    )
    parser.addoption(
        "--every-id",
        metavar="FAMILY",
        help="check every registered environment of a family, or of `all` (tests/envs/test_every_id.py; hours)",
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Returns a function that compares a text with a file of tests/golden: `golden("name.json", text)`."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--rewrite-golden"):
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8"), f"differs from {path}; scripts/golden rewrites it"

    return compare
