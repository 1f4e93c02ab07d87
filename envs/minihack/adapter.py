"""MiniHack's levels (`minihack` 1.0 on `nle` 1.3) as tasks with NetHack's messages for captions."""

from importlib import resources
from pathlib import Path
from typing import Any

from envs.errors import EnvError
from envs.minihack.actions import actions_of
from envs.minihack.definitions import Definition, read_definition
from envs.nethack.adapter import OBSERVATIONS, NetHackEnv
from envs.nethack.observe import obs_spec
from envs.spec import EnvSpec

STATS = ("turns",)


def names() -> list[str]:
    """Lists the tasks: the library's ids without `MiniHack-` and version.

    Left out are those that need other packages or downloads (MultiRoom, the Crossings, Boxoban) or have rules beyond
    stairs and events (Sokoban).
    """
    return resources.files("envs").joinpath("data", "minihack.txt").read_text("ascii").split()


def _pays(definition: Definition) -> str:
    """Says in a few words what a task pays."""
    words = ["1 on the stairs down"] if definition.stairs_reward else []
    paid = {event.reward for event in definition.events}
    if -1.0 in paid:
        words += ["1 at the right end", "-1 at the wrong one"]
    elif 0.5 in paid:
        words.append("0.5 an apple")
    elif paid:
        words.append("1 when it is done")
    return ", ".join(words)


class MiniHackEnv(NetHackEnv):
    """What is fixed about a MiniHack task; `envs.minihack.game.MiniHackGame` plays it in a worker.

    Observation: as `envs.nethack.adapter.NetHackEnv`.

    Action: those of the library; where it gives all of NetHack's keys, `envs.minihack.actions.SKILLS`. Questions of the
    game are answered by the same actions, see `envs.nethack.prompts`.

    Reward: 1 for the goal, on the stairs down or by what the skill tasks ask for; ExploreMaze also pays 0.5 for each
    apple, Memento -1 for the wrong end. `step_penalty` is taken off where the game's clock stood still.

    End: the goal, or the hero's death; cut off after the library's number of steps.

    Captions: all that the game says in a step, see `envs.nethack.game.NetHackGame`.
    """

    factory = "envs.minihack.game:make_game"


def make(
    name: str,
    *,
    observation: str = "crop",
    crop: int = 9,
    step_penalty: float = 0.0,
    max_episode_steps: int | None = None,
    character: str | None = None,
    record_dir: str | None = None,
) -> MiniHackEnv:
    """Creates a MiniHack task.

    Args:
        name: one of `names()`.
        observation: `crop` (around the hero, and status) or `full` (also the whole map and the message).
        crop: side of the crop in squares, odd.
        step_penalty: taken off the reward of each step in which no time passed in the game, such as walking into a wall
            or answering a question. The library's is 0.01, which in a sparse task teaches not to try the commands.
        max_episode_steps: steps after which an episode is cut off, default the task's own.
        character: role, race, alignment and gender, default the task's own.
        record_dir: folder that every episode is recorded in, as of `envs.nethack.adapter.make`.

    Raises:
        EnvError: an option has a value that cannot be used, or the library cannot.
    """
    if name not in names():
        raise EnvError(f"no MiniHack task {name!r}")
    if observation not in OBSERVATIONS:
        raise EnvError(f"observation is {observation!r}, expected one of: {', '.join(OBSERVATIONS)}")
    if crop < 1 or crop % 2 == 0:
        raise EnvError(f"crop is {crop}, expected an odd number of squares, so that the hero is in the middle")
    if max_episode_steps is not None and max_episode_steps < 1:
        raise EnvError(f"max_episode_steps is {max_episode_steps}, expected 1 or more")
    if step_penalty < 0:
        raise EnvError(f"step_penalty is {step_penalty}, expected 0 or more: it is taken off the reward")
    definition = read_definition(name)
    if character is not None:
        from envs.nethack.engine import check_character

        definition = definition._replace(character=check_character(character))
    full = observation == "full"
    spec = EnvSpec(
        id=f"minihack:{name}",
        obs=obs_spec(full=full, crop=crop),
        action_names=tuple(action.name for action in actions_of(definition.keys)),
        max_episode_steps=max_episode_steps or definition.max_episode_steps,
        says_text=True,
        episode_stats=STATS,
        reward=_pays(definition),
    )
    fields = definition._asdict() | {"events": [list(event) for event in definition.events]}
    options: dict[str, Any] = {"definition": fields, "step_penalty": float(step_penalty)}
    if record_dir is not None:
        options["record_dir"] = str(Path(record_dir).resolve() / name)
    return MiniHackEnv(spec, options, full=full, crop=crop)
