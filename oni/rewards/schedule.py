"""How the coefficient of the intrinsic reward changes over a run."""

from collections.abc import Callable

from oni.config import RewardConfig

Schedule = Callable[[int], float]
"""From the env step, over all games, to the coefficient."""


def linear(start: float, final: float, *, total_env_steps: int) -> Schedule:
    """Returns (1 - f) * start + f * final with f = min(env_step / total_env_steps, 1)."""

    def at(env_step: int) -> float:
        share = min(env_step / total_env_steps, 1.0)
        return (1.0 - share) * start + share * final

    return at


SCHEDULES: dict[str, Callable[[RewardConfig, int], Schedule]] = {
    "constant": lambda config, total: lambda env_step: config.intrinsic_coef,
    "linear": lambda config, total: linear(config.intrinsic_coef, config.intrinsic_final_coef, total_env_steps=total),
}


def make_schedule(config: RewardConfig, *, total_env_steps: int) -> Schedule:
    """Creates the schedule named by `config.intrinsic_schedule`.

    A function of the env step alone, so that a resumed run goes on where it was.
    """
    return SCHEDULES[config.intrinsic_schedule](config, total_env_steps)
