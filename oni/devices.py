"""The devices that share a run: each has its games, steps and learns from them, and gradients are averaged.

Functions of a run are written for the games of one device and get an `Across`, by which they add up or average over
all devices (`jax.shard_map`). With one device it does nothing, and `Devices.jit` is `jax.jit`. Written so, and not as
one program over all games that the compiler splits: resets and shuffles would make it move games between devices.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from oni.errors import ConfigError
from oni.types import Rollout

Tree = TypeVar("Tree")

AXIS = "devices"
"""Name of the axis over devices."""

GAMES: Any = P(AXIS)
"""Layout of arrays `[B, ...]`: each device has the rows of its games."""

STEPS: Any = P(None, AXIS)
"""Layout of arrays `[T, B, ...]`."""

SAME: Any = P()
"""Layout of what is the same on every device."""

_OF_GAMES = ("stats", "initial_core_state", "last_value", "last_obs", "endings")

ROLLOUT: Any = Rollout(*[GAMES if name in _OF_GAMES else STEPS for name in Rollout._fields])
"""Layout of a rollout."""


@dataclass(frozen=True)
class Across:
    """Sums and means over all devices, from inside a function that runs on each with its share of the games.

    size: number of devices.
    """

    size: int = 1

    def sum(self, tree: Tree) -> Tree:
        """Returns the sums over devices."""
        return tree if self.size == 1 else jax.lax.psum(tree, AXIS)

    def mean(self, tree: Tree) -> Tree:
        """Returns the means over devices: of means over equally many games each, the mean over all."""
        return tree if self.size == 1 else jax.lax.pmean(tree, AXIS)

    def moments(self, values: Float[Array, "..."], axis: int | None = None) -> tuple[Array, Array]:
        """Returns mean and variance over the values of all devices, or along one axis of them."""
        mean, var = values.mean(axis), values.var(axis)
        if self.size == 1:
            return mean, var
        whole = self.mean(mean)
        return whole, self.mean(var + jnp.square(mean - whole))

    @property
    def number(self) -> int | Int[Array, ""]:
        """Which of the devices this is, from 0."""
        return 0 if self.size == 1 else jax.lax.axis_index(AXIS)

    def own_key(self, key: Array) -> Array:
        """Returns a key that is another one on every device; with one device the key itself."""
        return key if self.size == 1 else jax.random.fold_in(key, self.number)

    def categorical(self, key: Array, logits: Float[Array, "B A"]) -> Int[Array, " B"]:
        """Draws an action for each game of this device, the same as with all games on one device."""
        if self.size == 1:
            return jax.random.categorical(key, logits)
        rows, choices = logits.shape
        noise = jax.random.gumbel(key, (self.size * rows, choices))
        own = jax.lax.dynamic_slice_in_dim(noise, self.number * rows, rows)
        return jnp.argmax(own + logits, axis=-1)


ALONE = Across()
"""One device."""


class Devices:
    """The devices of one run, as `jax.local_devices` gives them."""

    def __init__(self, devices: Sequence[Any]) -> None:
        self.across = Across(len(devices))
        self._first = devices[0]
        self._mesh = None if len(devices) == 1 else Mesh(np.array(devices), (AXIS,))

    @property
    def count(self) -> int:
        """How many there are."""
        return self.across.size

    def __str__(self) -> str:
        kind = self._first.device_kind
        return f"one device ({kind})" if self._mesh is None else f"{self.count} devices ({kind})"

    def _shardings(self, specs: Any) -> Any:
        mesh = self._mesh
        assert mesh is not None
        return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda leaf: isinstance(leaf, P))

    def jit(self, function: Callable[..., Any], *, takes: tuple[Any, ...], gives: Any) -> Callable[..., Any]:
        """Compiles a function that each device runs on its games; all arguments are given by position.

        Args:
            takes: layout of each argument, or of the parts of it, as trees of `GAMES`, `STEPS` and `SAME`.
            gives: the same for what is returned.
        """
        if self._mesh is None:
            return jax.jit(function)
        # The layouts are checked by tests that compare with one device; JAX's own check does not know `Across`.
        mapped = jax.shard_map(function, mesh=self._mesh, in_specs=takes, out_specs=gives, check_vma=False)
        return jax.jit(mapped, in_shardings=self._shardings(takes), out_shardings=self._shardings(gives))

    def place(self, tree: Tree, specs: Any) -> Tree:
        """Lays a tree of arrays out over the devices."""
        return jax.device_put(tree) if self._mesh is None else jax.device_put(tree, self._shardings(specs))

    def on_first(self, tree: Tree) -> Tree:
        """Returns what is the same on all devices as arrays on the first one, for work that only that one does."""
        return tree if self._mesh is None else jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def choose_devices(
    wanted: int | Literal["auto"],
    *,
    num_envs: int,
    num_minibatches: int,
    available: Sequence[Any] | None = None,
) -> Devices:
    """Returns the devices of a run.

    Args:
        wanted: how many; `auto` for all of this machine.
        available: those of this machine, by default.

    Raises:
        ConfigError: there are not so many, or the games cannot be shared evenly among them.
    """
    available = jax.local_devices() if available is None else available
    count = len(available) if wanted == "auto" else wanted
    work = [n for n in range(1, len(available) + 1) if num_envs % (n * num_minibatches) == 0]
    if count in work:
        return Devices(available[:count])
    if not work:
        raise ConfigError(f"ppo.num_minibatches ({num_minibatches}) must divide env.num_envs ({num_envs})")
    which = ", ".join(map(str, work))
    if count > len(available):
        raise ConfigError(
            f"devices is {count}, and this machine has {len(available)} ({available[0].device_kind}): set devices to "
            f"auto, or to one of {which}"
        )
    raise ConfigError(
        f"{count} devices cannot share env.num_envs {num_envs} evenly, in ppo.num_minibatches {num_minibatches} parts "
        f"each: set devices to one of {which}, or env.num_envs to a multiple of {count * num_minibatches}"
    )
