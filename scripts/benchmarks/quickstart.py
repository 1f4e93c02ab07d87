"""The quickstart over several seeds, beside its controls: each a whole `oni train` from an empty store.

Controls: no intrinsic reward; every caption helpful; the right labels with a fifth of them flipped.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOLVED = 0.9
"""Success rate that counts as solved."""

PROGRESS = "pick up|unlock|open|reach"
"""Pattern of the captions that are progress in MiniGrid tasks."""


def scripted(pattern: str, flip_rate: float = 0.0) -> list[str]:
    """Returns options for an annotator that follows a rule instead of a model."""
    prefix = "--annotator.backend"
    rules = [f"{prefix}.options.helpful-pattern={pattern}", f"{prefix}.options.flip-rate={flip_rate}"]
    return [f"{prefix}.kind=scripted", *rules]


CONDITIONS = {
    "embedded LLM": [],
    "none": ["--reward.kind", "none"],
    "every caption helpful": scripted("."),
    "a fifth flipped": scripted(PROGRESS, 0.2),
}


@dataclass(frozen=True)
class Outcome:
    """One run. solved_at: steps at which success first passed SOLVED and time since the start, None if never."""

    success: float
    solved_at: int | None
    solved_s: float | None
    steps_per_s: float
    total_s: float


def run(config: Path, options: list[str], seed: int) -> Outcome:
    """Trains once and reads the figures back."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        command = [sys.executable, "-m", "oni.cli.main", "train", "--config", str(config), "--run-dir", str(path)]
        begun = time.perf_counter()
        process = subprocess.run(
            [*command, "--seed", str(seed), *options], cwd=ROOT, capture_output=True, text=True, check=False
        )
        total_s = time.perf_counter() - begun
        if process.returncode != 0:
            sys.exit(process.stderr)
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    steps_per_s = [line["steps_per_s"] for line in lines if line.get("steps_per_s")]
    solved = next((line for line in lines if line.get("success", 0.0) >= SOLVED), None)
    return Outcome(
        success=lines[-1]["success"],
        solved_at=None if solved is None else solved["env_step"],
        solved_s=None if solved is None else solved["wall_s"],
        steps_per_s=statistics.median(steps_per_s),
        total_s=total_s,
    )


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the embedded LLM")
    parser.add_argument("--control-seeds", type=int, default=2, help="seeds of each control")
    parser.add_argument("--first-seed", type=int, default=100)
    arguments, more = parser.parse_known_args()
    print(f"| labels | seeds | success at the end | {SOLVED:.0%} after | which took | steps/s | whole command |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name, options in CONDITIONS.items():
        count = arguments.seeds if name == "embedded LLM" else arguments.control_seeds
        outcomes = [run(arguments.config, options + more, arguments.first_seed + i) for i in range(count)]
        success = ", ".join(f"{o.success:.2f}" for o in outcomes)
        after = ", ".join("-" if o.solved_at is None else f"{o.solved_at / 1e6:.1f}M" for o in outcomes)
        took = ", ".join("-" if o.solved_s is None else f"{o.solved_s:.0f} s" for o in outcomes)
        speed = statistics.median(o.steps_per_s for o in outcomes)
        whole = statistics.median(o.total_s for o in outcomes)
        print(f"| {name} | {count} | {success} | {after} | {took} | {speed / 1000:.0f}k | {whole:.0f} s |", flush=True)


if __name__ == "__main__":
    main()
