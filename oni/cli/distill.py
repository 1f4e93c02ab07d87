"""`oni distill`: a reward model learned from stored annotations, to train with it frozen."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_annotator.captions import printable
from llm_annotator.store.reader import StoreReader
from oni.cli.inspect import find_store
from oni.errors import ConfigError

if TYPE_CHECKING:
    from oni.rewards.modelfile import RewardFile

SCHEMA = 1
"""Layout of the JSON."""

EPILOG = """examples:
  oni distill runs/NAME --out reward.oni
  oni train --config FILE --reward.kind offline --reward.path reward.oni
"""


def main(argv: list[str]) -> int:
    """Learns a reward model, writes it and prints how well it does on what it did not learn from; returns 0.

    A usage error ends the process with status 2.

    Raises:
        StoreError: no store, or nothing in it to learn from. ConfigError: a setting cannot be used.
    """
    args = _parser().parse_args(argv)
    if args.out.exists() and not args.overwrite:
        raise ConfigError(f"{args.out} is there already: give another name, or --overwrite (a run may still need it)")
    store = find_store(args.run)

    from oni.distillation import DistillConfig, distill
    from oni.rewards.modelfile import write_model

    settings = {
        "encoder": args.encoder,
        "learning_rate": args.learning_rate,
        "batch_size": args.batch_size,
        "held_out": args.held_out,
        "class_balance": args.class_balance or None,
        "soft_labels": args.soft_labels or None,
    }
    config = DistillConfig(
        kind=args.kind,
        learner=_learner({name: value for name, value in settings.items() if value is not None}),
        labeler_id=args.labeler,
        epochs=args.epochs,
        steps=args.steps,
        seed=args.seed,
    )
    with StoreReader(store) as reader:
        model = distill(reader, config)
    digest = write_model(args.out, model)
    print(json.dumps(_document(args.out, model, digest)) if args.json else _text(args.out, model))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "oni distill",
        description="Learns a reward model from stored annotations, those that people overruled included.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory, or the SQLite file of a shared annotator")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it is there")
    parser.add_argument(
        "--kind",
        choices=("classification", "ranking"),
        default="classification",
        help="learn from labels, or from comparisons (default: %(default)s)",
    )
    parser.add_argument("--labeler", metavar="ID", help="whose answers (default: those the newest run used)")
    parser.add_argument("--encoder", choices=("ngrams", "cnn"), help="how captions are read (default: ngrams)")
    much = parser.add_mutually_exclusive_group()
    much.add_argument(
        "--epochs",
        type=_positive,
        default=10.0,
        metavar="N",
        help="times that each answer is drawn on average, 100 steps at least (default: %(default)g)",
    )
    much.add_argument("--steps", type=_count, metavar="N", help="gradient steps instead")
    parser.add_argument("--batch-size", type=_count, metavar="N", help="answers in each gradient step")
    parser.add_argument("--learning-rate", type=_positive, metavar="X", help="step size of Adam")
    parser.add_argument("--held-out", type=float, metavar="X", help="share kept to measure, 0 to 0.5 (default: 0.1)")
    parser.add_argument(
        "--class-balance", action="store_true", help="helpful and unhelpful labels weigh the same in sum"
    )
    parser.add_argument("--soft-labels", action="store_true", help="learn probabilities where the annotator gave them")
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="of parameters and batches")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def _learner(settings: dict[str, Any]) -> Any:
    from oni.config import RewardLearnerConfig
    from oni.configfile import validate

    return validate(settings, RewardLearnerConfig, source="oni distill")


def _document(path: Path, model: "RewardFile", digest: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "file": str(path),
        "sha256": digest,
        "kind": model.kind,
        "settings": model.settings,
        "mean": model.mean,
        "std": model.std,
        "provenance": model.provenance,
        "held_out": model.held_out,
    }


def _text(path: Path, model: "RewardFile") -> str:
    told, figures = model.provenance, dict(model.held_out)
    counts = {
        name: told[name] for name in ("captions", "helpful", "unhelpful", "by_hand", "pairs", "ties") if name in told
    }
    lines = [
        f"{path}: {model.kind}, encoder {model.settings['encoder']}, {told['steps']:,} steps",
        printable(f"  labeler {told['labeler']}: {told['model']}, {told['goal']!r}"),
        "  " + ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in counts.items()),
    ]
    held_out = figures.pop("count") or 0
    if not figures:
        return "\n".join([*lines, f"  nothing could be measured: {held_out} held out (--held-out keeps more)"])
    lines.append(f"  learned from {told['learned_from']:,}, measured on {held_out:,} others:")
    lines += [f"    {name.replace('_', ' '):<18} {value:.3f}" for name, value in figures.items()]
    return "\n".join(lines)
