"""Steps B games at once and resets those that ended in the same step."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PRNGKeyArray

from envs.types import EnvSpec, JaxEnv, Obs, StateT, TimeStep

Tree = TypeVar("Tree")

ROWS_AT_ONCE = 16
"""Rows that one pass of `replace_rows` computes. Measured on 2 cores with 256 XLand-MiniGrid games: 16 resets a step
cost a tenth of 256, and more than 16 episodes seldom end in one step."""

PASSES = 16
"""Passes at most of `replace_rows` on a GPU or TPU, where the number of passes, one after the other, costs more than
their size does. Chosen for batches of thousands, in which more than 16 episodes end at once; not measured."""


def _rows_at_once(batch: int) -> int:
    return ROWS_AT_ONCE if jax.default_backend() == "cpu" else max(ROWS_AT_ONCE, -(-batch // PASSES))


def replace_rows(
    mask: Bool[Array, " B"],
    tree: Tree,
    rows: Callable[[Int[Array, " R"]], Tree],
    *,
    rows_at_once: int | None = None,
) -> Tree:
    """Replaces the rows of `tree` where `mask` is set by `rows(index)`, at a cost that follows their number.

    Unlike `jnp.where` it does not compute new rows for the whole batch, but in passes of `rows_at_once`: none for an
    empty mask, as many as it takes otherwise.

    Args:
        rows: from row indices, some of them out of range (their values are dropped), to those rows of the tree. A
            function of the index alone, so that the result does not depend on how rows are grouped into passes.
        rows_at_once: default `ROWS_AT_ONCE` on a CPU, elsewhere enough for `PASSES` passes at most.
    """
    batch = mask.shape[0]
    size = min(rows_at_once or _rows_at_once(batch), batch)
    rank = jnp.cumsum(mask) - 1

    def one_pass(number: Array, old: Tree) -> Tree:
        (index,) = jnp.nonzero(mask & (rank // size == number), size=size, fill_value=batch)
        return jax.tree.map(lambda o, n: o.at[index].set(n, mode="drop"), old, rows(index))

    return jax.lax.fori_loop(0, (mask.sum() + size - 1) // size, one_pass, tree)


class VectorEnv(Generic[StateT]):
    """B games in lock step with same-step auto-reset.

    After the last step of an episode `obs` is already the first of the next one and `final_obs` the true last. Row i
    draws from `fold_in(key, first_row + i)`: games that are spread over several vectors are the same as in one.
    """

    def __init__(self, env: JaxEnv[StateT], num_envs: int) -> None:
        self.env = env
        self.num_envs = num_envs

    @property
    def spec(self) -> EnvSpec:
        """What is fixed about the single environment."""
        return self.env.spec

    def _keys(self, key: PRNGKeyArray, index: Int[Array, " R"]) -> Key[Array, " R"]:
        return jax.vmap(lambda row: jax.random.fold_in(key, row))(index)

    def reset(self, key: PRNGKeyArray, *, first_row: int | Int[Array, ""] = 0) -> tuple[Any, TimeStep]:
        """Starts an episode in every row."""
        state, timestep = jax.vmap(self.env.reset)(self._keys(key, first_row + jnp.arange(self.num_envs)))
        return state, timestep._replace(final_obs=timestep.obs)

    def step(
        self, key: PRNGKeyArray, state: Any, action: Int[Array, " B"], *, first_row: int | Int[Array, ""] = 0
    ) -> tuple[Any, TimeStep]:
        """Plays one action in every row and starts anew where an episode ended."""
        step_key, reset_key = jax.random.split(key)
        keys = self._keys(step_key, first_row + jnp.arange(self.num_envs))
        state, timestep = jax.vmap(self.env.step)(keys, state, action)

        def fresh(index: Int[Array, " R"]) -> tuple[Any, Obs]:
            new_state, first = jax.vmap(self.env.reset)(self._keys(reset_key, first_row + index))
            return new_state, first.obs

        ended = timestep.terminated | timestep.truncated
        state, obs = replace_rows(ended, (state, timestep.obs), fresh)
        return state, timestep._replace(obs=obs, final_obs=timestep.obs)
