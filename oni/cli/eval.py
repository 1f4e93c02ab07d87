"""`oni eval`."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from oni.errors import OniError
from oni.rundir import RunDir

SCHEMA = 1
"""Layout of the JSON."""


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="oni eval", description="Plays episodes with the policy of a run.")
    parser.add_argument("run", type=Path, help="directory of the run")
    parser.add_argument("--episodes", type=int, default=256, help="episodes to play (default 256)")
    parser.add_argument("--greedy", action="store_true", help="take the most likely action instead of drawing one")
    parser.add_argument("--seed", type=int, default=1_000_000, help="seed of the episodes")
    parser.add_argument("--record", type=int, default=0, metavar="N", help="also record N episodes as animated GIF")
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

    from envs.vector import VectorEnv
    from oni import evaluation
    from oni.checkpoint import Checkpoints
    from oni.trainer import Trainer

    trainer = Trainer(config)
    with Checkpoints(run.checkpoints, keep=config.checkpoint.keep) as checkpoints:
        restored = checkpoints.restore(like=trainer.state)
    params = restored.device.learner.params
    choose = evaluation.greedy if arguments.greedy else evaluation.sample
    games = VectorEnv(trainer.env.env, min(arguments.episodes, evaluation.MAX_GAMES))
    episodes = evaluation.play(
        games, trainer.network, params, num_episodes=arguments.episodes, seed=arguments.seed, choose=choose
    )
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "run": str(run.path),
        "env_step": restored.update * config.steps_per_update,
        "episodes": len(episodes.success),
        "success": dataclasses.asdict(evaluation.wilson(int(episodes.success.sum()), len(episodes.success))),
        "return": dataclasses.asdict(evaluation.mean_interval(episodes.extrinsic_return)),
        "length": dataclasses.asdict(evaluation.mean_interval(episodes.length)),
    }
    if arguments.record:
        result["recordings"] = _record(arguments, run, trainer, params, choose)
    print(json.dumps(result) if arguments.json else _text(result))
    return 0


def _record(arguments: argparse.Namespace, run: RunDir, trainer: Any, params: Any, choose: Any) -> list[str]:
    from envs.vector import VectorEnv
    from oni.evaluation import record
    from oni.recording import write_episode

    if not hasattr(trainer.env.env, "render"):
        raise OniError(f"{trainer.env.spec.id} cannot draw itself, so there is nothing to record: leave --record out")
    folder = run.path / "recordings"
    folder.mkdir(exist_ok=True)
    one = VectorEnv(trainer.env.env, 1)
    paths: list[str] = []
    episodes = record(one, trainer.network, params, num_episodes=arguments.record, seed=arguments.seed, choose=choose)
    for number, frames in enumerate(episodes):
        path = folder / f"episode-{number:03d}"
        write_episode(frames, path)
        paths.append(f"{path}.gif")
    return paths


def _text(result: dict[str, Any]) -> str:
    lines = [f"{result['run']} after {result['env_step']:,} steps, {result['episodes']} episodes (95% confidence)"]
    for name in ("success", "return", "length"):
        estimate = result[name]
        lines.append(f"  {name:<8} {estimate['mean']:8.3f}   [{estimate['low']:.3f}, {estimate['high']:.3f}]")
    lines += [f"  recorded {path}" for path in result.get("recordings", [])]
    return "\n".join(lines)
