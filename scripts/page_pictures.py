"""Takes pictures of the pages of two real, short trainings with a headless Chromium; `scripts/screenshots` runs it."""

import argparse
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[1]
MAX_BYTES = 150_000
COLORS = (256, 128, 64, 32)
"""Colours of a picture: as many as fit into `MAX_BYTES`. Pages have few but for the smoothing of letters."""

TRAININGS = {
    "quickstart": ("quickstart_classification.yaml", "--total-env-steps", "1000000"),
    "nethack": ("nethack_score_classification.yaml", "--total-env-steps", "400000"),
}

# Of the captions that earned most the one with the newest moment: by then the LLM had answered, so that it was paid.
_PICK = """WITH top AS (
        SELECT t.caption_id AS id, (SELECT max(env_step) FROM transitions x WHERE x.caption_id = t.caption_id) AS step
        FROM caption_totals t JOIN captions c ON c.id = t.caption_id
        JOIN labels l ON l.caption_id = t.caption_id AND l.helpful = 1
        WHERE CAST(c.text AS TEXT) LIKE ? ORDER BY t.reward_sum DESC LIMIT 10)
    SELECT id FROM top WHERE step IS NOT NULL ORDER BY step DESC LIMIT 1"""


class Shot(NamedTuple):
    """One picture.

    like: the page of a caption that fits this pattern of SQL, instead of `path`. at: what stands at its top.
    """

    name: str
    run: str
    path: str
    like: str
    width: int
    height: int
    scheme: Literal["light", "dark"]
    at: str = "body"


SHOTS = (
    Shot("overview", "quickstart", "", "", 1280, 1100, "light"),
    Shot("captions", "quickstart", "captions?q=door&sort=count", "", 1280, 860, "light"),
    Shot("caption", "nethack", "", "%kill%", 1280, 1180, "dark"),
    Shot("phone", "quickstart", "", "%unlock%", 400, 900, "light", "#replay"),
)


def train(folder: Path, name: str, options: Sequence[str]) -> Path:
    """Returns the directory of a training, which is made if it is not there."""
    run = folder / name
    if not (run / "annotations.sqlite").exists():
        config, *settings = options
        command = ["train", "--config", str(ROOT / "configs" / config), "--run-dir", str(run), *settings]
        subprocess.run([sys.executable, "-m", "oni.cli.main", *command], check=True)
    return run


@contextmanager
def served(run: Path) -> Iterator[str]:
    """Yields the address of the pages of a run."""
    command = [sys.executable, "-m", "oni.cli.main", "inspect", str(run)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def page_of(run: Path, like: str) -> str:
    """Returns the path of the page of a caption; ends the program if the training has none to show."""
    with closing(sqlite3.connect(run / "annotations.sqlite")) as connection:
        found = connection.execute(_PICK, (like,)).fetchone()
    if found is None:
        sys.exit(f"{run} holds no helpful caption like {like!r} with a moment: train longer (TRAININGS)")
    return f"caption/{found[0]}"


def take(browser: Browser, shot: Shot, url: str, target: Path) -> None:
    """Writes one picture."""
    size = {"width": shot.width, "height": shot.height}
    context = browser.new_context(viewport=size, color_scheme=shot.scheme)  # pyright: ignore[reportArgumentType]
    page = context.new_page()
    page.goto(url, wait_until="networkidle")
    page.locator(shot.at).evaluate('element => element.scrollIntoView({ behavior: "instant" })')
    page.screenshot(path=target)
    context.close()
    whole = Image.open(target).convert("RGB")
    for colors in COLORS:
        whole.quantize(colors, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(target, optimize=True)
        if target.stat().st_size <= MAX_BYTES:
            print(f"{target}  {shot.width} x {shot.height}, {target.stat().st_size / 1000:.0f} kB, {colors} colours")
            return
    sys.exit(f"{target} has {target.stat().st_size:,} bytes, more than {MAX_BYTES:,}")


def main() -> None:
    """Trains what is not there, then takes every picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, help="folder for the trainings (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "screenshots")
    arguments = parser.parse_args()
    chromium = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
    if chromium is None:
        sys.exit("no Chromium: `apt-get install chromium` (Debian, Ubuntu)")
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder: Path = arguments.runs or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        arguments.out.mkdir(parents=True, exist_ok=True)
        runs = {name: train(folder, name, options) for name, options in TRAININGS.items()}
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        for shot in SHOTS:
            path = page_of(runs[shot.run], shot.like) if shot.like else shot.path
            with served(runs[shot.run]) as url:
                take(browser, shot, f"{url}{path}", arguments.out / f"inspect-{shot.name}.png")
        browser.close()


if __name__ == "__main__":
    main()
