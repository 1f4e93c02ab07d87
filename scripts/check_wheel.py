"""Checks that a wheel holds our three packages whole, and nothing else: `check_wheel.py FILE.whl`."""

import sys
import zipfile
from pathlib import Path

PACKAGES = ("oni", "envs", "llm_annotator")
ROOT = Path(__file__).resolve().parent.parent


def main(wheel: str) -> int:
    """Returns 0 if the wheel is right, else prints what is wrong and returns 1."""
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for name in sorted(wanted - found):
        print(f"{wheel} lacks {name}: see [tool.setuptools] in pyproject.toml")
    for name in sorted(found - wanted):
        print(f"{wheel} holds {name}, which is not ours")
    return int(found != wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
