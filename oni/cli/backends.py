"""`oni backends`: which ways to ask a model there are, and whether one works."""

import argparse
import asyncio
import contextlib
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from llm_annotator.captions import decode_caption
from llm_annotator.config import AnnotatorConfig, BackendConfig
from llm_annotator.errors import BackendError
from llm_annotator.types import Subject
from oni.cli._annotator_config import FAILED, add_config_option, load_annotator_config, report_errors, split_overrides

if TYPE_CHECKING:
    from llm_annotator.spec import LabelerSpec

PROG = "oni backends"
SHOWN_ALTERNATIVES = 8
"""Log-probabilities in the report for people; --json shows all."""


def main(argv: list[str]) -> int:
    """Lists the backends, or asks one a question. Returns the exit status."""
    return report_errors(PROG, lambda: _main(argv))


def _main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(PROG, description="Lists the backends.", allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="print JSON")
    commands = parser.add_subparsers(dest="command")
    check = commands.add_parser("check", help="ask one question and show all that comes back", allow_abbrev=False)
    check.add_argument("--caption", default="You open the door.", help="what is asked about (default: %(default)s)")
    check.add_argument("--against", metavar="CAPTION", help="ask which of the two is better instead: a preference")
    check.add_argument("--json", action="store_true", help="print JSON", default=argparse.SUPPRESS)
    add_config_option(check)
    own, overrides = split_overrides(argv)
    args = parser.parse_args(own)
    if args.command is None:
        if overrides:
            parser.error(f"{overrides[0]} belongs to `oni backends check`")
        return _list(as_json=args.json)
    config = load_annotator_config(args.config, overrides, prog=f"{PROG} check")
    return asyncio.run(_check(args.caption, args.against, config, as_json=args.json))


def _list(*, as_json: bool) -> int:
    from llm_annotator.backends import available_backends

    infos = available_backends()
    if as_json:
        print(json.dumps([asdict(info) for info in infos]))
        return 0
    for info in infos:
        print(f"{info.name:12} {info.description}" + (f"\n{'':12} NOT AVAILABLE: {info.reason}" if info.reason else ""))
    return 0


async def _check(caption: str, against: str | None, config: AnnotatorConfig, *, as_json: bool) -> int:
    """Asks each server and prints what came back: an object each, one a line, or a block each."""
    from llm_annotator.addresses import endpoint_configs
    from llm_annotator.labeler import resolve_labeler
    from llm_annotator.secret import backend_secrets, redactor

    subject: Subject = _as_bytes(caption) if against is None else (_as_bytes(caption), _as_bytes(against))
    spec = resolve_labeler(config.labeler, question="label" if against is None else "preference")
    status = 0
    redact = redactor(backend_secrets(config.backend))  # a server, or its library, may repeat them

    for number, (server, backend) in enumerate(endpoint_configs(config.backend).items()):
        try:
            report = await _ask(spec, backend, subject)
        except BackendError as error:
            print(f"{PROG} check: {redact(str(error))}", file=sys.stderr)
            status = FAILED
            continue
        report = {"server": server, **report, "caption": _shown(caption), "against": against and _shown(against)}
        text = json.dumps(report) if as_json else ("\n" if number else "") + _report(report)
        print(redact(text).encode("utf-8", "backslashreplace").decode(), flush=True)
        status = status if report["helpful"] is not None else FAILED
    return status


async def _ask(spec: "LabelerSpec", config: BackendConfig, subject: Subject) -> dict[str, Any]:
    from llm_annotator.backends import create_backend
    from llm_annotator.backends.capabilities import ShowsCapabilities
    from llm_annotator.labeler import Labeler

    async with create_backend(config) as backend:
        labeler = Labeler(spec, backend.model)
        await labeler.prepare(backend)
        completion, judgement = await labeler.ask(backend.complete, subject)
        capabilities = None
        if isinstance(backend, ShowsCapabilities):
            with contextlib.suppress(BackendError):  # then what the answer showed
                await backend.look()
            capabilities = backend.capabilities.to_json()
    return {
        "backend": backend.name,
        "model": completion.model,
        "labeler": labeler.id,
        "method": spec.method,
        "latency_s": round(completion.latency_s, 4),
        "tokens_in": completion.tokens_in,
        "tokens_out": completion.tokens_out,
        "answer": completion.text,
        "logprobs": None if completion.logprobs is None else dict(completion.logprobs),
        **asdict(judgement),
        "capabilities": capabilities,
    }


def _as_bytes(caption: str) -> bytes:
    return caption.encode("utf-8", errors="surrogateescape")


def _shown(caption: str) -> str:
    return decode_caption(_as_bytes(caption))


def _report(report: dict[str, Any]) -> str:
    shown = {name: value for name, value in report.items() if value not in (None, "")}
    shown["answer"] = repr(report["answer"])
    if report["logprobs"] is not None:
        best = sorted(report["logprobs"].items(), key=lambda item: -item[1])[:SHOWN_ALTERNATIVES]
        shown["logprobs"] = ", ".join(f"{token!r} {value:.2f}" for token, value in best)
    shown["capabilities"] = "not told by this backend"
    if (can := report["capabilities"]) is not None:
        shown["capabilities"] = "; ".join(
            [
                f"log-probabilities: {'yes' if can['log_probabilities'] else 'no'}",
                f"answer bound to a word: {can['choice'] or 'no'}",
                f"bound to thoughts and a final line: {can['final'] or 'no'}",
                *([f"refuses {', '.join(can['left_out'])}"] if can["left_out"] else []),
            ]
        )
    return "\n".join(f"{name:12} {value}" for name, value in shown.items())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
