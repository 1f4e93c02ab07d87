"""Levels of MiniHack, from their description to the data file that NetHack plays.

MiniHack (Samvelyan et al., arXiv 2109.13202) replaces the dungeon by a single level that a des-file describes.
NetHack's own compilers, which come with NLE, turn it into `nhdat`, the archive that a game reads when it starts.
"""

import functools
import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

from envs.errors import EnvError

_COMPILE_TIMEOUT_S = 60.0


def _folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise EnvError(f"levels of MiniHack need the package {package!r} (pip install 'oni-jax[minihack]')")
    return Path(spec.origin).parent


@functools.lru_cache(maxsize=16)
def compile_level(description: str) -> bytes:
    """Compiles the text of a des-file; returns the content of the `nhdat` that has it as the only level.

    The games of a worker process play the same level, so what was compiled is kept.

    Raises:
        EnvError: NetHack's compiler refuses the description; the message has its words.
    """
    compilers = _folder_of("nle") / "nethackdir"
    with tempfile.TemporaryDirectory(prefix="oni-level-") as scratch:
        folder = Path(scratch) / "lib"
        shutil.copytree(_folder_of("minihack") / "lib", folder)
        source = folder / "mylevel.des"
        source.write_text(description)
        _run([str(compilers / "lev_comp"), source.name], folder)
        source.unlink()
        files = sorted(path.name for path in folder.iterdir())
        _run([str(compilers / "dlb"), "cf", "nhdat", *files], folder)
        return (folder / "nhdat").read_bytes()


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=_COMPILE_TIMEOUT_S, check=False)
    if done.returncode:
        words = (done.stdout + done.stderr).decode(errors="replace").strip()
        raise EnvError(f"{Path(command[0]).name} of NetHack cannot compile a level: {words}")
