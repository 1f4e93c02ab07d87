"""Opens the games of a host environment: in worker processes of ours, or as its library steps them itself."""

from envs.host.pool import GamePool
from envs.host.types import Games, HostEnv, OpensPool


def open_games(
    env: HostEnv,
    num_envs: int,
    *,
    seed: int,
    num_groups: int = 2,
    num_workers: int | None = None,
    step_timeout_s: float = 60.0,
    scenes: bool = False,
) -> Games:
    """Returns B games of an environment, to be entered: those that its library steps itself, else a `GamePool`.

    The arguments are those of `GamePool`; `step_timeout_s` and `scenes` mean nothing to a library.
    """
    if isinstance(env, OpensPool):
        return env.open_pool(num_envs, seed=seed, num_groups=num_groups, num_workers=num_workers)
    return GamePool(
        env,
        num_envs,
        seed=seed,
        num_groups=num_groups,
        num_workers=num_workers,
        step_timeout_s=step_timeout_s,
        scenes=scenes,
    )
