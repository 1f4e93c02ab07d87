"""Policy and value on top of one encoder and one recurrence."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Bool, Float

from envs.spec import EnvSpec, ObsSpec
from oni.config import NetworkConfig
from oni.networks.cores import GRU, LSTM, NoCore
from oni.networks.encoders import make_encoder
from oni.types import CoreState

CORES: dict[str, Callable[[int], nn.Module]] = {"gru": GRU, "lstm": LSTM, "none": lambda size: NoCore()}


Obs = Any
"""One array of observations, or several by name."""

Params = Any
"""Parameters of a network, a tree of arrays."""


class ActorCritic(nn.Module):
    """Encoder, recurrence, and linear heads: logits of the actions and one value, or several.

    Values have a last axis only if there are several.
    """

    encoder: nn.Module
    core: nn.Module
    num_actions: int
    num_values: int = 1

    def setup(self) -> None:
        self.actor = nn.Dense(self.num_actions, kernel_init=nn.initializers.orthogonal(0.01))
        self.critic = nn.Dense(self.num_values, kernel_init=nn.initializers.orthogonal(1.0))

    @property
    def value_shape(self) -> tuple[int, ...]:
        """Shape of the values of one observation: `()`, or `(num_values,)` for several."""
        return () if self.num_values == 1 else (self.num_values,)

    def initial_state(self, num_envs: int) -> CoreState:
        """Returns the recurrent state at the start of an episode; needs no parameters."""
        return self.core.initial_state(num_envs)  # pyright: ignore[reportAttributeAccessIssue]

    def step(
        self, state: CoreState, obs: Obs, reset: Bool[Array, " B"]
    ) -> tuple[CoreState, Float[Array, "B A"], Float[Array, " B *V"]]:
        """Acts once: from one observation a row to the new state, logits and values."""
        state, x = self.core.step(state, self.encoder(obs), reset)  # pyright: ignore[reportAttributeAccessIssue]
        return state, self.actor(x), self.critic(x).reshape(-1, *self.value_shape)

    def __call__(
        self, state: CoreState, obs: Obs, reset: Bool[Array, "T B"]
    ) -> tuple[Float[Array, "T B A"], Float[Array, "T B *V"]]:
        """Goes over a whole sequence: logits and values of every step."""
        steps, batch = reset.shape
        flat = jax.tree.map(lambda leaf: leaf.reshape(steps * batch, *leaf.shape[2:]), obs)
        x = self.encoder(flat).reshape(steps, batch, -1)
        _, x = self.core.sequence(state, x, reset)  # pyright: ignore[reportAttributeAccessIssue]
        x = x.reshape(steps * batch, -1)
        return self.actor(x).reshape(steps, batch, -1), self.critic(x).reshape(steps, batch, *self.value_shape)


def act(
    network: ActorCritic, params: Params, state: CoreState, obs: Obs, reset: Bool[Array, " B"]
) -> tuple[CoreState, Float[Array, "B A"], Float[Array, " B *V"]]:
    """Acts once with given parameters: new recurrent state, logits, values."""
    return network.apply({"params": params}, state, obs, reset, method="step")  # pyright: ignore[reportReturnType]


def unroll(
    network: ActorCritic, params: Params, state: CoreState, obs: Obs, reset: Bool[Array, "T B"]
) -> tuple[Float[Array, "T B A"], Float[Array, "T B *V"]]:
    """Goes over a sequence with given parameters: logits and values of every step."""
    return network.apply({"params": params}, state, obs, reset)  # pyright: ignore[reportReturnType]


def make_network(config: NetworkConfig, spec: EnvSpec, *, num_values: int = 1) -> ActorCritic:
    """Creates the network that fits an environment's observations.

    Args:
        num_values: value heads (`ppo.value_heads`).

    Raises:
        ConfigError: the encoder needs observations that the environment does not give.
    """
    encoder = make_encoder(config, spec)
    core = CORES[config.core](config.core_size)
    return ActorCritic(encoder=encoder, core=core, num_actions=spec.num_actions, num_values=num_values)


def init_params(network: ActorCritic, spec: EnvSpec, key: jax.Array) -> Params:
    """Draws the initial parameters."""
    obs = jax.tree.map(
        lambda one: jax.numpy.zeros((1, 1, *one.shape), one.dtype), spec.obs, is_leaf=lambda x: isinstance(x, ObsSpec)
    )
    reset = jax.numpy.zeros((1, 1), bool)
    return network.init(key, network.initial_state(1), obs, reset)["params"]
