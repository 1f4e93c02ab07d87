"""What a policy remembers: GRU and LSTM over sequences in which episodes begin and end.

The projection of the inputs and all gates are one matrix product each, and the one of the inputs is taken for the
whole sequence at once; only `hidden @ hidden` stays inside the recurrence. On CPU that decides the speed of training.
"""

from typing import Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from oni.types import CoreState


@runtime_checkable
class Core(Protocol):
    """A recurrence. `sequence` equals repeated `step`."""

    def initial_state(self, num_envs: int) -> CoreState:
        """Returns the state at the start of an episode: zeros."""
        ...

    def step(self, state: CoreState, x: Float[Array, "B F"], reset: Bool[Array, " B"]) -> tuple[CoreState, Array]:
        """Takes one input; the state is zeroed first where `reset`."""
        ...

    def sequence(
        self, state: CoreState, x: Float[Array, "T B F"], reset: Bool[Array, "T B"]
    ) -> tuple[CoreState, Float[Array, "T B H"]]:
        """Takes a sequence of inputs."""
        ...


class _Recurrent(nn.Module):
    """Shared by GRU and LSTM: projections, resets, the scan over time."""

    size: int
    gates: int = 0

    def setup(self) -> None:
        self.project = nn.Dense(self.gates * self.size, kernel_init=nn.initializers.lecun_normal())
        orthogonal = nn.initializers.orthogonal()

        def by_gate(key: jax.Array, shape: tuple[int, int]) -> Array:
            keys = jax.random.split(key, self.gates)
            return jnp.concatenate([orthogonal(k, (shape[0], self.size)) for k in keys], axis=1)

        self.recurrent = self.param("recurrent", by_gate, (self.size, self.gates * self.size))

    def initial_state(self, num_envs: int) -> CoreState:
        raise NotImplementedError

    def _cell(self, state: CoreState, projected: Array, recurrent: Array) -> tuple[CoreState, Array]:
        raise NotImplementedError

    def step(self, state: CoreState, x: Array, reset: Array) -> tuple[CoreState, Array]:
        state = jax.tree.map(lambda s: jnp.where(reset[:, None], 0.0, s), state)
        return self._cell(state, self.project(x), self.recurrent)

    def sequence(self, state: CoreState, x: Array, reset: Array) -> tuple[CoreState, Array]:
        recurrent = self.recurrent

        def body(carry: CoreState, step: tuple[Array, Array]) -> tuple[CoreState, Array]:
            projected, keep = step
            carry = jax.tree.map(lambda s: s * keep, carry)
            return self._cell(carry, projected, recurrent)

        keep = (~reset)[..., None].astype(x.dtype)
        return jax.lax.scan(body, state, (self.project(x), keep))


class GRU(_Recurrent):
    """Gated recurrent unit (Cho et al., arXiv 1406.1078, in the variant that resets after the product)."""

    gates: int = 3

    def setup(self) -> None:
        super().setup()
        self.candidate_bias = self.param("candidate_bias", nn.initializers.zeros, (self.size,))

    def initial_state(self, num_envs: int) -> CoreState:
        return jnp.zeros((num_envs, self.size))

    def _cell(self, state: Array, projected: Array, recurrent: Array) -> tuple[Array, Array]:
        size = self.size
        hidden = state @ recurrent
        gates = nn.sigmoid(projected[:, : 2 * size] + hidden[:, : 2 * size])
        keep, let_in = gates[:, :size], gates[:, size:]
        candidate = nn.tanh(projected[:, 2 * size :] + let_in * (hidden[:, 2 * size :] + self.candidate_bias[None]))
        state = keep * state + (1.0 - keep) * candidate
        return state, state


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997), forget bias 1."""

    gates: int = 4

    def initial_state(self, num_envs: int) -> CoreState:
        return (jnp.zeros((num_envs, self.size)), jnp.zeros((num_envs, self.size)))

    def _cell(self, state: CoreState, projected: Array, recurrent: Array) -> tuple[CoreState, Array]:
        cell, hidden = state
        let_in, forget, out, candidate = jnp.split(projected + hidden @ recurrent, 4, axis=1)
        cell = nn.sigmoid(forget + 1.0) * cell + nn.sigmoid(let_in) * nn.tanh(candidate)
        hidden = nn.sigmoid(out) * nn.tanh(cell)
        return (cell, hidden), hidden


class NoCore(nn.Module):
    """No memory: the input goes through."""

    def initial_state(self, num_envs: int) -> CoreState:
        return ()

    def step(self, state: CoreState, x: Array, reset: Array) -> tuple[CoreState, Array]:
        return state, x

    def sequence(self, state: CoreState, x: Array, reset: Array) -> tuple[CoreState, Array]:
        return state, x
