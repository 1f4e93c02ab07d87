"""`oni eval`."""

import argparse
import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

from oni.rundir import RunDir

SCHEMA = 1
"""Layout of the JSON."""

_ENDINGS = 12
"""Ways in which episodes ended that the text names."""


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="oni eval", description="Plays episodes with the policy of a run.")
    parser.add_argument("run", type=Path, help="directory of the run")
    parser.add_argument("--episodes", type=int, default=256, help="episodes to play (default 256)")
    parser.add_argument("--greedy", action="store_true", help="take the most likely action instead of drawing one")
    parser.add_argument("--seed", type=int, default=1_000_000, help="seed of the episodes")
    parser.add_argument(
        "--record", type=int, default=0, metavar="N", help="also record N episodes: animated GIF, or ttyrec for NetHack"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    if arguments.episodes < 1 or arguments.record < 0:
        parser.error("--episodes must be at least 1 and --record at least 0")
    return arguments


def main(argv: list[str]) -> int:
    """Plays episodes and prints success and return with 95% confidence intervals."""
    arguments = _parse(argv)
    run = RunDir(arguments.run)
    config = run.config()

    from oni import evaluation
    from oni.checkpoint import Checkpoints
    from oni.trainer import Trainer

    trainer = Trainer(dataclasses.replace(config, devices=1))  # wherever the run was trained
    with Checkpoints(run.checkpoints, keep=config.checkpoint.keep) as checkpoints:
        restored = checkpoints.restore(like=trainer.state)
    params = restored.device.learner.params
    choose = evaluation.greedy if arguments.greedy else evaluation.sample
    actors = trainer.actors
    episodes = actors.play(params, num_episodes=arguments.episodes, seed=arguments.seed, choose=choose)
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "run": str(run.path),
        "env_step": restored.update * config.steps_per_update,
        "episodes": len(episodes.success),
        "success": dataclasses.asdict(evaluation.wilson(int(episodes.success.sum()), len(episodes.success))),
        "return": dataclasses.asdict(evaluation.mean_interval(episodes.extrinsic_return)),
        "length": dataclasses.asdict(evaluation.mean_interval(episodes.length)),
        "stats": {n: dataclasses.asdict(evaluation.mean_interval(values)) for n, values in episodes.stats.items()},
        "endings": dict(Counter(episodes.ending).most_common()),
    }
    if arguments.record:
        folder = run.path / "recordings"
        folder.mkdir(exist_ok=True)
        result["recordings"] = actors.record(
            params, folder, num_episodes=arguments.record, seed=arguments.seed, choose=choose
        )
    print(json.dumps(result) if arguments.json else _text(result))
    return 0


def _text(result: dict[str, Any]) -> str:
    lines = [f"{result['run']} after {result['env_step']:,} steps, {result['episodes']} episodes (95% confidence)"]
    estimates = {name: result[name] for name in ("success", "return", "length")} | result["stats"]
    many = {name for name in estimates if "/" in name}  # of a kind, such as Craftax's achievements: highest first
    never = {name for name in many if estimates[name]["mean"] == 0.0}
    shown = [name for name in estimates if name not in many]
    shown += sorted(many - never, key=lambda name: -estimates[name]["mean"])
    width = max(map(len, shown))
    for name in shown:
        mean, low, high = (estimates[name][key] for key in ("mean", "low", "high"))
        lines.append(f"  {name:<{width}} {mean:10.3f}   [{low:.3f}, {high:.3f}]")
    if never:
        lines.append(f"  and {len(never)} that came up in no episode (--json lists them)")
    for ending, count in list(result["endings"].items())[:_ENDINGS]:
        lines.append(f"  {count:>5}x {ending}")
    if len(result["endings"]) > _ENDINGS:
        lines.append(f"  and {len(result['endings']) - _ENDINGS} other endings (--json lists them)")
    lines += [f"  recorded {path}" for path in result.get("recordings", [])]
    return "\n".join(lines)
