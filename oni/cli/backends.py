"""`oni backends`: which ways to ask a model there are, and whether one works."""

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from typing import Any

from llm_annotator.config import AnnotatorConfig
from oni.cli._annotator_config import FAILED, add_config_option, load_annotator_config, report_errors, split_overrides

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
    check.add_argument("--json", action="store_true", help="print JSON", default=argparse.SUPPRESS)
    add_config_option(check)
    own, overrides = split_overrides(argv)
    args = parser.parse_args(own)
    if args.command is None:
        if overrides:
            parser.error(f"{overrides[0]} belongs to `oni backends check`")
        return _list(as_json=args.json)
    config = load_annotator_config(args.config, overrides, prog=f"{PROG} check")
    return asyncio.run(_check(args.caption, config, as_json=args.json))


def _list(*, as_json: bool) -> int:
    from llm_annotator.backends import available_backends

    infos = available_backends()
    if as_json:
        print(json.dumps([asdict(info) for info in infos]))
        return 0
    for info in infos:
        print(f"{info.name:12} {info.description}" + (f"\n{'':12} NOT AVAILABLE: {info.reason}" if info.reason else ""))
    return 0


async def _check(caption: str, config: AnnotatorConfig, *, as_json: bool) -> int:
    from llm_annotator.backends import create_backend
    from llm_annotator.labeler import Labeler, resolve_labeler

    spec = resolve_labeler(config.labeler)
    async with create_backend(config.backend) as backend:
        labeler = Labeler(spec, backend.model)
        await labeler.prepare(backend)
        request = labeler.request(caption.encode("utf-8", errors="surrogateescape"))
        completion = await backend.complete(request)
        judgement = labeler.judge(completion)
        report: dict[str, Any] = {
            "backend": backend.name,
            "model": completion.model,
            "labeler": labeler.id,
            "caption": caption,
            "latency_s": round(completion.latency_s, 4),
            "tokens_in": completion.tokens_in,
            "tokens_out": completion.tokens_out,
            "answer": completion.text,
            "logprobs": None if completion.logprobs is None else dict(completion.logprobs),
            **asdict(judgement),
        }
    print(json.dumps(report, ensure_ascii=False) if as_json else _report(report))
    return 0 if judgement.helpful is not None else FAILED


def _report(report: dict[str, Any]) -> str:
    shown = {name: value for name, value in report.items() if value not in (None, "")}
    shown["answer"] = repr(report["answer"])
    if report["logprobs"] is None:
        shown["logprobs"] = "none: the answer is read from its first word"
    else:
        best = sorted(report["logprobs"].items(), key=lambda item: -item[1])[:SHOWN_ALTERNATIVES]
        shown["logprobs"] = ", ".join(f"{token!r} {value:.2f}" for token, value in best)
    return "\n".join(f"{name:12} {value}" for name, value in shown.items())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
