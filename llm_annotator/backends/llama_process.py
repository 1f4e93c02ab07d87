"""The child process that runs llama.cpp's server: started, watched and ended."""

import asyncio
import contextlib
import hashlib
import json
import secrets
from collections import deque
from dataclasses import asdict, replace
from pathlib import Path

from llm_annotator.backends.llama_server import ServerSettings
from llm_annotator.captions import printable
from llm_annotator.children import python_command, python_environment, read_report
from llm_annotator.errors import BackendError, BackendRejected, BackendUnreachable, ConfigError

START_TIMEOUT_S = 300.0
"""A model of some GiB on a slow disk needs minutes to load."""
STOP_TIMEOUT_S = 5.0

_SETTLE_S = 1.0
_KEPT_LINES = 20
"""Lines of the server's error output that are kept for messages."""
_SAMPLE_BYTES = 1 << 20
_SAMPLES = 16


class LlamaProcess:
    """One server at a time, started when it is needed. Closed by `stop`."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._starting = asyncio.Lock()  # guards the four fields below
        self._process: asyncio.subprocess.Process | None = None
        self._stderr: deque[str] = deque(maxlen=_KEPT_LINES)
        self._reader: asyncio.Task[None] | None = None
        self.url = ""
        self.api_key = ""

    @property
    def pid(self) -> int | None:
        """Process id, None while no server runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def ensure_running(self) -> None:
        """Returns once a server runs, a new one if the last has died.

        Raises:
            BackendRejected: it ended while starting; the message holds its last words.
            BackendUnreachable: it did not start in time.
        """
        async with self._starting:
            if self.pid is None:
                await self._start()

    async def last_words(self) -> str:
        """Returns how the server ended and what it wrote last, empty if it runs silently.

        A connection breaks a moment before the system reports the end of the process: that moment is waited for.
        """
        if self._process is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SETTLE_S):
                    await self._process.wait()
        code = self._process.returncode if self._process is not None else None
        ended = f"; it ended with status {code}" if code is not None else ""
        lines = [line for line in self._stderr if line.strip()]
        return ended + (f"; its last words: {' / '.join(lines[-3:])}" if lines else "")

    async def stop(self) -> None:
        """Ends the server and waits for it."""
        async with self._starting:
            await self._end()

    async def _start(self) -> None:
        await self._end()
        self._stderr.clear()
        self.api_key = secrets.token_hex(16)
        self._process = await asyncio.create_subprocess_exec(
            *python_command("llm_annotator.backends.llama_server"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # Threads that wait sleep instead of spinning. llama.cpp's threads meet at a barrier several hundred times
            # per prompt. By default they spin there, and where training keeps the cores busy each meeting costs a
            # time slice: 1 label/s instead of 14 was measured.
            env=python_environment() | {"OMP_WAIT_POLICY": "passive"},
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                self.url = await self._handshake(self._process)
        except BackendError:
            raise
        except TimeoutError:
            await self._end()
            raise BackendUnreachable(f"llama.cpp's server did not start within {START_TIMEOUT_S:g} s") from None
        except BaseException:  # cancelled: leave no half-started server behind
            await self._end()
            raise

    async def _handshake(self, process: asyncio.subprocess.Process) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._reader = asyncio.create_task(self._keep_stderr(process.stderr))
        settings = replace(self._settings, api_key=self.api_key)
        try:
            process.stdin.write(json.dumps(asdict(settings)).encode() + b"\n")
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass  # it ended at once, without a report
        async for line in process.stdout:
            if found := read_report(line, "url"):
                return str(found["url"])
        await process.wait()
        await self._reader
        raise BackendRejected(
            f"llama.cpp's server cannot start with {self._settings.model_path}{await self.last_words()}. Check that "
            "the file is a GGUF model that this machine's memory holds (annotator.backend.model), and that "
            "'python -c \"import xllamacpp\"' works"
        )

    async def _keep_stderr(self, stream: asyncio.StreamReader) -> None:
        while chunk := await stream.read(4096):
            self._stderr.extend(map(printable, chunk.decode("utf-8", errors="replace").splitlines()))

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()  # it ends by itself
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader


def model_identity(path: Path) -> str:
    """Returns a name for the weights in a GGUF file: its stem and a hash of its size and of samples of its content.

    The file is sampled (its start, with all names and shapes, its end, and 16 places between), since it may be many
    gigabytes long.

    Raises:
        ConfigError: there is no such file, or it is not in the GGUF format.
    """
    try:
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with path.open("rb") as file:
            magic = file.read(4)
            for index in range(_SAMPLES + 1):
                file.seek(max(size - _SAMPLE_BYTES, 0) * index // _SAMPLES)
                digest.update(file.read(_SAMPLE_BYTES))
    except OSError as error:
        raise ConfigError(
            f"annotator.backend.model must be the path of a GGUF file; {path} cannot be read: {error.strerror}"
        ) from None
    if magic != b"GGUF":
        raise ConfigError(f"annotator.backend.model must be the path of a GGUF file; {path} is in another format")
    return f"{path.stem}-{digest.hexdigest()[:8]}"
