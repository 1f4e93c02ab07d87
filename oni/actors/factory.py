"""Creates the games of a run and what plays them. The only place that asks where an environment runs."""

from typing import Any

import envs
from envs.errors import EnvError
from envs.host.types import HostEnv
from envs.types import JaxEnv
from envs.vector import VectorEnv
from oni.actors.anakin import AnakinActors
from oni.actors.base import Actors
from oni.actors.sebulba import SebulbaActors
from oni.config import TrainConfig
from oni.devices import Devices
from oni.errors import ConfigError
from oni.networks import ActorCritic
from oni.rewards.factory import asks_annotator, scores_captions


def make_env(config: TrainConfig) -> JaxEnv[Any] | HostEnv:
    """Creates the game of a run; nothing of it runs yet.

    Raises:
        ConfigError: there is no such environment, an option of it cannot be used, or it says nothing that the reward
            could be learned from.
    """
    try:
        env = envs.make(config.env.id, **config.env.options)
    except EnvError as error:
        raise ConfigError(str(error)) from error
    if scores_captions(config.reward) and not env.spec.captioned:
        raise ConfigError(
            f"{env.spec.id} says nothing, so reward.kind {config.reward.kind!r} has nothing to label: "
            "use an environment with captions (oni envs) or reward.kind none"
        )
    if isinstance(env, HostEnv) and config.env.num_envs % config.env.num_groups:
        raise ConfigError(
            f"env.num_envs {config.env.num_envs} must be a multiple of env.num_groups {config.env.num_groups}"
        )
    return env


def make_actors(config: TrainConfig, env: JaxEnv[Any] | HostEnv, network: ActorCritic, devices: Devices) -> Actors:
    """Creates what plays the games: Anakin for a `JaxEnv`, Sebulba for a `HostEnv`."""
    if isinstance(env, HostEnv):
        shown = config.sampling.moments > 0 and asks_annotator(config.reward)
        return SebulbaActors(
            env, network, config.env, devices, num_steps=config.ppo.num_steps, seed=config.seed, shown=shown
        )
    return AnakinActors(VectorEnv(env, config.env.num_envs), network, devices, num_steps=config.ppo.num_steps)


def overlaps(config: TrainConfig, env: JaxEnv[Any] | HostEnv, platform: str) -> bool:
    """Tells whether the next rollout is played while the learner works on this one.

    Args:
        platform: of the device that learns, as JAX names it ("cpu", "gpu", "tpu").
    """
    if not isinstance(env, HostEnv):
        return False  # games and learner share the device, and JAX queues work on it anyway
    return platform != "cpu" if config.ppo.overlap is None else config.ppo.overlap
