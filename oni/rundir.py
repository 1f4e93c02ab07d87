"""The directory of a run: who may write in it, and where things are."""

import datetime
import fcntl
import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from oni.config import TrainConfig
from oni.configfile import load_config, to_yaml
from oni.errors import NotARun, RunBusy, RunError, RunExists

SCHEMA = 1
"""Layout of a run directory; raised when an older program could not read a newer run."""


@dataclass(frozen=True)
class RunDir:
    """Paths of one run.

    config.yaml: resolved settings. run.json: schema, id and time. metrics.jsonl: one line a log interval.
    checkpoints/: the last ones. annotations.sqlite: captions, labels, and what they earned. annotator.log, videos/.
    """

    path: Path

    @property
    def config_file(self) -> Path:
        """Resolved settings."""
        return self.path / "config.yaml"

    @property
    def meta_file(self) -> Path:
        """Schema, id and creation time."""
        return self.path / "run.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Orbax checkpoints, named by update."""
        return self.path / "checkpoints"

    @property
    def store(self) -> Path:
        """The annotator's store, unless the run joined a shared one."""
        return self.path / "annotations.sqlite"

    @property
    def annotator_log(self) -> Path:
        """Log of the annotator's process."""
        return self.path / "annotator.log"

    def config(self, overrides: tuple[str, ...] = ()) -> TrainConfig:
        """Reads the settings of the run, with changes from the command line.

        Raises:
            NotARun: there is none.
        """
        self.meta()
        return load_config(self.config_file, overrides)

    def meta(self) -> dict[str, Any]:
        """Reads `run.json`.

        Raises:
            NotARun: there is none, or it is damaged. RunError: a later version wrote it.
        """
        try:
            meta = json.loads(self.meta_file.read_text(encoding="utf-8"))
            schema = int(meta["schema"])
        except OSError:
            raise NotARun(f"{self.path} holds no run: {self.meta_file.name} is missing") from None
        except (ValueError, KeyError, TypeError) as error:
            raise NotARun(f"{self.meta_file} is damaged ({error}); restore it or start a new run") from error
        if schema > SCHEMA:
            raise RunError(f"{self.path} was written by a later version of oni-jax (schema {schema}): update oni-jax")
        return meta


def default_path(name: str, root: Path = Path("runs")) -> Path:
    """Returns a run directory that does not exist yet: runs/NAME-DATE-TIME."""
    stamp = datetime.datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    path = root / f"{name}-{stamp}"
    number = 2
    while path.exists():
        path = root / f"{name}-{stamp}-{number}"
        number += 1
    return path


def create(path: Path, config: TrainConfig) -> RunDir:
    """Makes the directory of a new run.

    Raises:
        RunExists: it holds another run, or other files. RunError: it cannot be made.
    """
    run = RunDir(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if run.meta_file.exists():
            raise RunExists(
                f"{path} holds another run. Go on with it: oni train --run-dir {path} --resume. "
                "Or give this one its own --run-dir."
            )
        if any(path.iterdir()):
            raise RunExists(f"{path} is not empty; give the run a --run-dir of its own")
        meta = {
            "schema": SCHEMA,
            "run_id": uuid.uuid4().hex,
            "created_at": datetime.datetime.now(datetime.UTC).isoformat(),
        }
        write_atomically(run.config_file, to_yaml(config))
        write_atomically(run.meta_file, json.dumps(meta) + "\n")
    except OSError as error:
        raise RunError(f"cannot make the run directory {path}: {error.strerror or error}") from error
    return run


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file as a whole: a reader sees the old or the new one, never a part."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


class RunLock:
    """Keeps a second trainer out of a run directory while held; freed by the system when the process dies."""

    def __init__(self, run: RunDir) -> None:
        self._path = run.path / "lock"
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        self._file = self._path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            owner = self._file.read().strip()
            self._file.close()
            raise RunBusy(f"process {owner or '?'} trains in {self._path.parent}; stop it first") from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
