"""`oni envs`."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envs.types import EnvSpec

SCHEMA = 1
"""Layout of the JSON."""


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="oni envs", description="Lists environments, or checks one.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    commands = parser.add_subparsers(dest="command")
    check = commands.add_parser("check", help="play random actions and check the contract (envs.testing.check_env)")
    check.add_argument("id", help="environment, for example xminigrid:MiniGrid-DoorKey-8x8 or package.module:factory")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Lists the environments, or checks one."""
    arguments = _parse(argv)
    import envs
    from envs.errors import EnvContractError, EnvError, UnknownEnv

    if arguments.command == "check":
        from envs.testing import check_env

        try:
            captions = check_env(envs.make(arguments.id))
        except EnvContractError as error:
            print(f"{arguments.id} breaks the contract: {error}", file=sys.stderr)
            return 1
        except EnvError as error:
            print(f"oni envs: {error}", file=sys.stderr)
            return 2 if isinstance(error, UnknownEnv) else 1
        print(f"{arguments.id} keeps the contract; {captions} distinct captions came up under random actions")
        return 0
    rows = [_row(envs.make(env_id).spec) for env_id in envs.list_envs()]
    if arguments.json:
        print(json.dumps({"schema": SCHEMA, "envs": rows}))
        return 0
    _print_table(rows)
    return 0


def _row(spec: "EnvSpec") -> dict[str, Any]:
    return {
        "id": spec.id,
        "obs": _observation(spec),
        "actions": list(spec.action_names),
        "max_episode_steps": spec.max_episode_steps,
        "captions": spec.captioned,
    }


def _observation(spec: "EnvSpec") -> str:
    from envs.spec import ObsSpec

    if isinstance(spec.obs, ObsSpec):
        return f"{spec.obs.dtype}{list(spec.obs.shape)}"
    return " ".join(f"{name} {obs.dtype}{list(obs.shape)}" for name, obs in spec.obs.items())


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "observation", "actions", "step limit", "captions", box=None, padding=(0, 2))
    for row in rows:
        table.add_row(
            str(row["id"]),
            str(row["obs"]).replace("[", r"\["),
            str(len(row["actions"])),
            f"{row['max_episode_steps']:,}",
            "yes" if row["captions"] else "no",
        )
    Console().print(table, soft_wrap=True)
