"""What the annotator makes of an LLM server: share of its capacity, processor time a label, memory.

The server is one of our own, of known capacity (`known_server.py`), in a process of its own. The annotator is what a
run starts: the service in another process, and the client here. A plain client stands beside it: it sends a batch of
captions, waits for all of them, and sends the next one.
"""

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from llm_annotator import AnnotatorClient, AnnotatorConfig, BackendConfig, LabelerConfig, ServiceProcess
from llm_annotator.labeler import LabelerSpec, resolve_labeler

SERVER = Path(__file__).with_name("known_server.py")

AHEAD = 2_000
"""Captions that wait at the annotator while it is measured, so that there is always something to ask."""

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Measured:
    """One measurement.

    share: of the time of the server's slots, that in which they worked. waited_ms: mean wait in the server's queue.
    refused: requests refused for each that was served. cpu_ms: processor time a label.
    """

    share: float
    waited_ms: float
    refused: float
    cpu_ms: float


@contextmanager
def known_server(slots: int, seconds: float, *, refuse: bool) -> Generator[str]:
    """Runs the server; yields its address."""
    arguments = ["--slots", str(slots), "--seconds", str(seconds), *(["--refuse"] if refuse else [])]
    process = subprocess.Popen([sys.executable, str(SERVER), *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
    finally:
        process.kill()
        process.communicate()


def cpu_s(pid: int) -> float:
    """Returns the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def rss_mb(pid: int) -> float:
    """Returns the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / 2**20


class _Window:
    """What the server saw between two moments."""

    def __init__(self, url: str, slots: int, pid: int) -> None:
        self._url, self._slots, self._pid = url, slots, pid
        self._begin = self._look()

    def _look(self) -> tuple[dict[str, float], float]:
        return httpx.get(f"{self._url}/stats").json(), cpu_s(self._pid)

    def measure(self) -> Measured:
        """Returns what was seen since the window was opened."""
        (before, cpu_before), (now, cpu_now) = self._begin, self._look()
        served = now["served"] - before["served"]
        return Measured(
            share=(now["busy_s"] - before["busy_s"]) / (self._slots * (now["at"] - before["at"])),
            waited_ms=1e3 * (now["waited_s"] - before["waited_s"]) / served,
            refused=(now["refused"] - before["refused"]) / served,
            cpu_ms=1e3 * (cpu_now - cpu_before) / served,
        )


def captions() -> Iterator[bytes]:
    """Yields captions, all different."""
    return (b"You see key number %d." % i for i in itertools.count())


def feed(client: AnnotatorClient, source: Iterator[bytes], until: float) -> None:
    """Keeps the client's queue full until a moment."""
    while time.perf_counter() < until:
        missing = AHEAD - client.health.queued
        if missing > AHEAD // 4:
            client.submit(list(itertools.islice(source, missing)))
        client.poll()
        time.sleep(0.05)


def annotate(
    url: str, kind: str, spec: LabelerSpec, options: argparse.Namespace, folder: Path, *, slots: int
) -> Measured:
    """Measures the annotator, after it had time to find out how much the server can do."""
    backend = BackendConfig(kind=kind, model="known", base_url=f"{url}/v1")
    config = AnnotatorConfig(backend=backend)
    with (
        ServiceProcess(folder / "annotations.sqlite", config, folder / "log.txt") as service,
        AnnotatorClient(service.url, "bench", "bench", {}, spec, service.token) as client,
    ):
        source = captions()
        feed(client, source, time.perf_counter() + options.warmup)
        assert service.pid is not None
        window = _Window(url, slots, service.pid)
        feed(client, source, time.perf_counter() + options.seconds)
        measured = window.measure()
        if client.health.message:
            print(f"  the annotator says: {client.health.message}")
        return measured


async def _send_batches(url: str, spec: LabelerSpec, batch: int, seconds: float) -> None:
    source = captions()
    until = time.perf_counter() + seconds
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=None, limits=limits) as http:  # noqa: S113 - the server answers

        async def ask(caption: bytes) -> None:
            messages = [message._asdict() for message in spec.request(caption).messages]
            fields = {"model": "known", "messages": messages, "max_tokens": 3, "logprobs": True, "top_logprobs": 20}
            while True:
                answer = await http.post("/v1/chat/completions", json=fields)
                if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
                    return
                await asyncio.sleep(0.1)

        while time.perf_counter() < until:
            await asyncio.gather(*map(ask, itertools.islice(source, batch)))


def send_batches(url: str, spec: LabelerSpec, batch: int, seconds: float, *, slots: int) -> Measured:
    """Measures the plain client: one blocking batch at a time."""
    window = _Window(url, slots, os.getpid())
    asyncio.run(_send_batches(url, spec, batch, seconds))
    return window.measure()


def _row(name: str, measured: Measured) -> str:
    return (
        f"  {name:<34} {measured.share:>6.3f} {measured.waited_ms:>12.1f} {measured.refused:>9.3f} "
        f"{measured.cpu_ms:>14.2f}"
    )


def bench_capacity(options: argparse.Namespace, spec: LabelerSpec) -> None:
    """Prints the share of capacity and the processor time a label, of the annotator and of the plain client."""
    for refuse in (False, True):
        capacity = options.slots / options.service
        full = "429 where all are busy" if refuse else "a queue"
        print(f"server of {options.slots} slots, {options.service:g} s each ({capacity:.0f}/s), {full}:")
        print(f"  {'':<34} {'share':>6} {'wait there ms':>13} {'refused':>8} {'CPU ms a label':>14}")
        for kind in options.backends:
            with known_server(options.slots, options.service, refuse=refuse) as url, _folder() as folder:
                print(_row(f"annotator, {kind}", annotate(url, kind, spec, options, folder, slots=options.slots)))
        for batch in options.batches:
            with known_server(options.slots, options.service, refuse=refuse) as url:
                measured = send_batches(url, spec, batch, options.seconds, slots=options.slots)
                print(_row(f"plain client, batches of {batch}", measured))


def bench_memory(options: argparse.Namespace, spec: LabelerSpec) -> None:
    """Prints how memory grows over very many captions, with a backend that takes no time."""
    config = AnnotatorConfig(backend=BackendConfig(kind="scripted"))
    with (
        _folder() as folder,
        ServiceProcess(folder / "annotations.sqlite", config, folder / "log.txt") as service,
        AnnotatorClient(service.url, "bench", "bench", {}, spec, service.token) as client,
    ):
        assert service.pid is not None
        source, done, mark, began = captions(), 0, 0, time.perf_counter()
        cpu = cpu_s(service.pid)
        print(f"{options.captions:,} captions, a backend that takes no time:")
        print(f"  {'labels':>12} {'service MiB':>12} {'client MiB':>12} {'labels/s':>9}")
        while done < options.captions:
            if client.health.queued < AHEAD:
                client.submit(list(itertools.islice(source, min(AHEAD, options.captions))))
            done += len(client.poll())
            if done >= mark:
                rate = done / (time.perf_counter() - began)
                print(
                    f"  {done:>12,} {rss_mb(service.pid):>12.0f} {rss_mb(os.getpid()):>12.0f} {rate:>9.0f}", flush=True
                )
                mark += options.captions // 10
            time.sleep(0.01)
        print(f"  CPU of the service: {1e3 * (cpu_s(service.pid) - cpu) / done:.2f} ms a label")


@contextmanager
def _folder() -> Generator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def main() -> None:
    """Prints all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=24)
    parser.add_argument("--service", type=float, default=0.2, metavar="S", help="seconds that one request takes")
    parser.add_argument("--seconds", type=float, default=20.0, help="that each is measured")
    parser.add_argument("--warmup", type=float, default=15.0, help="seconds before, to find the server's capacity")
    parser.add_argument("--backends", nargs="+", default=["completions", "openai"])
    parser.add_argument("--batches", nargs="+", type=int, default=[8, 32, 128], help="of the plain client")
    parser.add_argument("--captions", type=int, default=1_000_000, help="for the memory; 0 leaves it out")
    options = parser.parse_args()
    spec = resolve_labeler(LabelerConfig())
    if options.seconds > 0:
        bench_capacity(options, spec)
    if options.captions:
        bench_memory(options, spec)


if __name__ == "__main__":
    main()
