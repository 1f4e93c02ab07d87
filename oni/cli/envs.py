"""`oni envs`."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envs.spec import EnvSpec

SCHEMA = 3
"""Layout of the JSON."""

_PIPE_COLUMNS = 400
"""A pipe has no width: one line for each environment, for grep."""

_OPTION = "--env.options."
_SHOWN = 3
"""Ids named of those that cannot be made for one and the same reason."""


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="oni envs", description="Lists families of environments.")
    parser.add_argument("--json", action="store_true", help="print JSON, with the ids of all environments")
    commands = parser.add_subparsers(dest="command")
    one = commands.add_parser("list", help="list environments: observation, actions, step limit, reward, captions")
    one.add_argument("family", nargs="?", help="for example xminigrid; by default all that are installed")
    one.add_argument("--json", action="store_true", help="print JSON")
    check = commands.add_parser(
        "check",
        help="play random actions and check the contract (envs.testing.check_env)",
        epilog=f"{_OPTION}NAME VALUE sets an option of the environment, as in `oni train`.",
    )
    check.add_argument("id", help="environment, for example xminigrid:MiniGrid-DoorKey-8x8 or package.module:factory")
    check.add_argument("--json", action="store_true", help="print JSON")
    arguments, rest = parser.parse_known_args(argv)
    if rest and (arguments.command != "check" or not rest[0].startswith(_OPTION)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments, rest


def main(argv: list[str]) -> int:
    """Lists families of environments, or the environments of one, or checks one."""
    arguments, options = _parse(argv)
    from envs.errors import EnvError, UnknownEnv

    try:
        if arguments.command == "check":
            return _check(arguments.id, options, as_json=arguments.json)
        if arguments.command == "list":
            return _list(arguments.family, as_json=arguments.json)
    except EnvError as error:
        print(f"oni envs: {error}", file=sys.stderr)
        return 2 if isinstance(error, UnknownEnv) else 1
    return _families(as_json=arguments.json)


def _check(env_id: str, options: list[str], *, as_json: bool) -> int:
    import envs
    from envs.errors import EnvContractError
    from envs.testing import examine_env
    from oni.configfile import load_config

    given = load_config(None, options, prog="oni envs check").env.options
    env = envs.make(env_id, **given)
    try:
        seen = examine_env(env)
    except EnvContractError as error:
        if as_json:
            print(json.dumps({"schema": SCHEMA, "id": env_id, "keeps_contract": False, "problem": str(error)}))
        print(f"{env_id} breaks the contract: {error}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps({"schema": SCHEMA, "id": env_id, "keeps_contract": True, "problem": "", **seen._asdict()}))
        return 0
    print(f"{env_id} keeps the contract; {seen.captions} distinct captions came up under random actions")
    if seen.state_bytes is not None:
        print(f"compiles in {seen.compile_s:.1f} s; the state of one game takes {seen.state_bytes:,} bytes")
    return 0


def _list(family: str | None, *, as_json: bool) -> int:
    from envs.errors import EnvUnavailable
    from envs.registry import FAMILIES, Listed, list_specs

    listed: list[Listed] = []
    for name in FAMILIES if family is None else [family]:
        try:
            listed += list_specs(name)
        except EnvUnavailable:
            if family is not None:
                raise
    rows = [_row(one.spec) for one in listed if one.spec is not None]
    missing = {one.id: one.missing for one in listed if one.spec is None}
    if as_json:
        print(json.dumps({"schema": SCHEMA, "envs": rows, "missing": missing}))
    else:
        _print_table(rows)
    _print_missing(missing)
    return 0


def _print_missing(missing: dict[str, str]) -> None:
    """Says what cannot be made on this machine, once for each reason."""
    by_reason: dict[str, list[str]] = {}
    for env_id, reason in missing.items():
        by_reason.setdefault(reason.replace(env_id.partition(":")[2], "..."), []).append(env_id)
    for ids in by_reason.values():
        others = f" and {len(ids) - _SHOWN} more are" if len(ids) > _SHOWN else " are" if len(ids) > 1 else " is"
        print(f"oni envs: {', '.join(ids[:_SHOWN])}{others} left out: {missing[ids[0]]}", file=sys.stderr)


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
        "reward": spec.reward,
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

    table = Table(box=None, padding=(0, 1))
    for name in ("id", "observation", "actions", "step limit", "captions", "reward"):
        table.add_column(name, no_wrap=name == "id")  # an id is there to be copied
    for row in rows:
        table.add_row(
            str(row["id"]),
            str(row["obs"]).replace(", ", ",").replace("[", r"\["),
            str(len(row["actions"])),
            f"{row['max_episode_steps']:,}",
            "yes" if row["captions"] else "no",
            str(row["reward"]).replace("[", r"\["),
        )
    width = None if sys.stdout.isatty() else _PIPE_COLUMNS
    Console(width=width).print(table, soft_wrap=True, highlight=False)
