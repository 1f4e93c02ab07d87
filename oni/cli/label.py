"""`oni label`: labels lines of text, to try out a goal, a prompt or a model."""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from llm_annotator.captions import decode_caption, render_caption
from llm_annotator.config import AnnotatorConfig
from llm_annotator.errors import ConfigError
from oni.cli._annotator_config import FAILED, add_config_option, load_annotator_config, report_errors, split_overrides

if TYPE_CHECKING:
    from llm_annotator.asking import Answer
    from llm_annotator.evaluate import Evaluation
    from llm_annotator.evaluate_pairs import PairEvaluation

PROG = "oni label"
SHOWN_CHARS = 100
"""Characters of a caption in a line for people; --json shows it whole."""


def main(argv: list[str]) -> int:
    """Labels the lines of a file, or measures a labeler on labelled captions. Returns the exit status."""
    return report_errors(PROG, lambda: _main(argv))


def _main(argv: list[str]) -> int:
    own, overrides = split_overrides(argv)
    args = _parser().parse_args(own)
    if (args.file is None) == (args.evaluate is None):
        raise ConfigError("give either a file of captions (or - for standard input), or --evaluate FILE")
    if args.preferences and args.evaluate is None:
        raise ConfigError("--preferences measures how well captions are compared: give --evaluate FILE too")
    config = load_annotator_config(args.config, overrides, prog=PROG)
    if args.preferences:
        return asyncio.run(_evaluate_pairs(args.evaluate, config, args.pairs, args.seed, as_json=args.json))
    if args.evaluate is not None:
        return asyncio.run(_evaluate(args.evaluate, config, as_json=args.json))
    if args.file == "-":
        return asyncio.run(_label(sys.stdin.buffer, config, as_json=args.json))
    try:
        file = Path(args.file).open("rb")  # noqa: SIM115 - closed by the block below
    except OSError as error:
        raise ConfigError(f"{args.file} cannot be read: {error.strerror}") from None
    with file:
        return asyncio.run(_label(file, config, as_json=args.json))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(PROG, description="Labels captions, one a line.", allow_abbrev=False)
    parser.add_argument("file", nargs="?", metavar="FILE", help="captions, one a line; - reads standard input")
    parser.add_argument(
        "--evaluate",
        type=Path,
        metavar="FILE",
        help='measure on captions with labels: {"caption": "...", "label": "helpful"} or "unhelpful" a line',
    )
    parser.add_argument(
        "--preferences",
        action="store_true",
        help="with --evaluate: compare helpful with unhelpful captions, in both orders, instead of labelling each",
    )
    parser.add_argument(
        "--pairs", type=_positive, default=200, metavar="N", help="pairs drawn for --preferences (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides which pairs are drawn (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    add_config_option(parser)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of pairs: give 1, 2, ...")
    return int(text)


async def _label(file: BinaryIO, config: AnnotatorConfig, *, as_json: bool) -> int:
    from llm_annotator.asking_parts import ask_captions
    from llm_annotator.backends import create_servers
    from llm_annotator.labeler import Labeler, resolve_labeler
    from llm_annotator.parts import splitter

    spec = resolve_labeler(config.labeler)
    split = splitter(spec.parts)
    different: set[bytes] = set()
    questions: set[bytes] = set()
    missing = 0
    async with create_servers(config.backend) as backend:
        labeler = Labeler(spec, backend.model)
        async for answer in ask_captions(labeler, backend, _captions(file), config.engine):
            different.add(answer.subject)
            questions.update(split(answer.subject))
            missing += answer.judgement.helpful is None
            print(json.dumps(_as_dict(answer)) if as_json else _as_line(answer), flush=True)
    if spec.parts != "none":
        print(f"{PROG}: {len(different):,} different captions took {len(questions):,} questions", file=sys.stderr)
    if missing:
        print(f"{PROG}: {missing} captions got no label", file=sys.stderr)
    return FAILED if missing else 0


def _captions(file: BinaryIO) -> Iterator[bytes]:
    """Yields the lines that hold anything."""
    for line in file:
        if caption := line.rstrip(b"\r\n"):
            yield caption


def _as_dict(answer: "Answer[bytes]") -> dict[str, Any]:
    return {"caption": decode_caption(answer.subject), **asdict(answer.judgement)}


def _as_line(answer: "Answer[bytes]") -> str:
    judgement = answer.judgement
    label = {None: judgement.status.value, True: "helpful", False: "unhelpful"}[judgement.helpful]
    score = "" if judgement.score is None else f"{judgement.score:+.2f}"
    caption = render_caption(answer.subject, max_chars=SHOWN_CHARS)
    detail = f"\t({judgement.detail})" if judgement.detail else ""
    return f"{label}\t{score}\t{caption}{detail}"


async def _evaluate(path: Path, config: AnnotatorConfig, *, as_json: bool) -> int:
    from llm_annotator.backends import create_servers
    from llm_annotator.evaluate import evaluate, read_cases
    from llm_annotator.labeler import Labeler, resolve_labeler

    cases = read_cases(path)
    spec = resolve_labeler(config.labeler)
    async with create_servers(config.backend) as backend:
        result = await evaluate(Labeler(spec, backend.model), backend, cases, config.engine)
    print(json.dumps(asdict(result)) if as_json else _table(result))
    return 0 if result.labelled else FAILED


async def _evaluate_pairs(path: Path, config: AnnotatorConfig, number: int, seed: int, *, as_json: bool) -> int:
    from llm_annotator.backends import create_servers
    from llm_annotator.evaluate import read_cases
    from llm_annotator.evaluate_pairs import draw_pairs, evaluate_pairs
    from llm_annotator.labeler import Labeler, resolve_labeler

    pairs = draw_pairs(read_cases(path), number, seed=seed)
    spec = resolve_labeler(config.labeler, question="preference")
    async with create_servers(config.backend) as backend:
        result = await evaluate_pairs(Labeler(spec, backend.model), backend, pairs, config.engine)
    print(json.dumps(asdict(result)) if as_json else _pair_table(result))
    return 0 if result.answered else FAILED


def _pair_table(result: "PairEvaluation") -> str:
    rows: list[tuple[str, object]] = [
        ("model", result.model),
        ("labeler", result.labeler),
        ("pairs", f"{result.pairs} ({result.pairs - result.answered} without a label in both orders)"),
        (f"both orders right at {result.threshold:g}", _figure(result.right)),
        ("each order says something else", _figure(result.tie)),
        ("both orders wrong", _figure(result.wrong)),
        ("accuracy of the difference", _figure(result.accuracy)),
        ("bias toward the first place", f"{_figure(result.place_bias)} nats"),
        ("best threshold", f"{_figure(result.best_threshold)} (both orders right {_figure(result.best_right)})"),
        ("questions/s", f"{result.questions_per_s:.1f}"),
    ]
    lines = [f"{name:34} {value}" for name, value in rows]
    for better, worse, lean in result.mistakes:
        shown = [render_caption(caption.encode(), max_chars=SHOWN_CHARS) for caption in (better, worse)]
        lines.append(f"wrong: {_figure(lean)} {shown[0]} < {shown[1]}")
    return "\n".join(lines)


def _table(result: "Evaluation") -> str:
    rows: list[tuple[str, object]] = [
        ("model", result.model),
        ("labeler", result.labeler),
        ("captions", f"{result.captions} ({result.unparsed} without a readable answer, {result.failed} failed)"),
        ("AUC", _figure(result.auc)),
        ("questions", result.questions),
        (f"accuracy at threshold {result.threshold:g}", _figure(result.accuracy)),
        ("precision, recall of helpful", f"{_figure(result.precision)}, {_figure(result.recall)}"),
        ("best threshold", f"{_figure(result.best_threshold)} (accuracy {_figure(result.best_accuracy)})"),
        ("log-loss", f"{_figure(result.log_loss)} nats"),
        ("lowest score of a helpful one", _figure(result.lowest_helpful)),
        ("highest score of an unhelpful one", _figure(result.highest_unhelpful)),
        ("labels/s", f"{result.labels_per_s:.1f}"),
    ]
    lines = [f"{name:34} {value}" for name, value in rows]
    for caption, score in result.mistakes:
        lines.append(f"wrong: {_figure(score)} {render_caption(caption.encode(), max_chars=SHOWN_CHARS)}")
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
