"""`oni envs`."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envs.types import EnvSpec

SCHEMA = 2
"""Layout of the JSON."""


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="oni envs", description="Lists families of environments.")
    parser.add_argument("--json", action="store_true", help="print JSON, with the ids of all environments")
    commands = parser.add_subparsers(dest="command")
    one = commands.add_parser("list", help="list the environments of a family: observation, actions, captions")
    one.add_argument("family", help="for example xminigrid")
    one.add_argument("--json", action="store_true", help="print JSON")
    check = commands.add_parser("check", help="play random actions and check the contract (envs.testing.check_env)")
    check.add_argument("id", help="environment, for example xminigrid:MiniGrid-DoorKey-8x8 or package.module:factory")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Lists families of environments, or the environments of one, or checks one."""
    arguments = _parse(argv)
    from envs.errors import EnvError, UnknownEnv

    try:
        if arguments.command == "check":
            return _check(arguments.id)
        if arguments.command == "list":
            return _list(arguments.family, as_json=arguments.json)
    except EnvError as error:
        print(f"oni envs: {error}", file=sys.stderr)
        return 2 if isinstance(error, UnknownEnv) else 1
    return _families(as_json=arguments.json)


def _check(env_id: str) -> int:
    import envs
    from envs.errors import EnvContractError
    from envs.testing import check_env

    try:
        captions = check_env(envs.make(env_id))
    except EnvContractError as error:
        print(f"{env_id} breaks the contract: {error}", file=sys.stderr)
        return 1
    print(f"{env_id} keeps the contract; {captions} distinct captions came up under random actions")
    return 0


def _list(family: str, *, as_json: bool) -> int:
    import envs
    from envs.errors import EnvError

    rows: list[dict[str, Any]] = []
    for env_id in envs.list_envs(family):
        try:
            rows.append(_row(envs.make(env_id).spec))
        except EnvError as error:  # data that it needs is not here, for example
            print(f"oni envs: {env_id} is left out: {error}", file=sys.stderr)
    if as_json:
        print(json.dumps({"schema": SCHEMA, "envs": rows}))
    else:
        _print_table(rows)
    return 0


def _families(*, as_json: bool) -> int:
    import envs
    from envs.errors import EnvUnavailable
    from envs.registry import FAMILIES

    rows: list[dict[str, Any]] = []
    for name, family in FAMILIES.items():
        try:
            ids, missing = envs.list_envs(name), ""
        except EnvUnavailable as error:
            ids, missing = [], str(error)
        rows.append({"family": name, "summary": family.summary, "ids": ids, "missing": missing})
    if as_json:
        print(json.dumps({"schema": SCHEMA, "families": rows}))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table("family", "environments", "what they are", box=None, padding=(0, 2))
    for row in rows:
        number = str(len(row["ids"])) if not row["missing"] else "-"
        what = row["summary"] if not row["missing"] else f"{row['summary']} ({row['missing']})"
        table.add_row(row["family"], number, what.replace("[", r"\["))
    console = Console()
    console.print(table, soft_wrap=True)
    console.print("\noni envs list FAMILY names them; oni envs check ID checks one.", highlight=False)
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
