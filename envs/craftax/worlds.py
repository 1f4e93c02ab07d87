"""Where the worlds of new episodes come from. A world is built for an episode that begins, never for a step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Int, Key, PRNGKeyArray

Generate = Callable[[Array], Any]

_UINT8_VALUES = 256


def last_distinct_row(keys: Key[Array, " R"]) -> Int[Array, ""]:
    """Returns the first row of the run of equal keys at the end, after which nothing new comes."""
    data = jax.random.key_data(keys)
    differs = (data != data[-1]).reshape(data.shape[0], -1).any(axis=1)
    return jnp.where(differs, jnp.arange(1, len(differs) + 1), 0).max()


def fresh(generate: Generate, *, one_by_one: bool) -> Generate:
    """Returns a function from keys to new worlds that, batched, builds one for each distinct key only.

    The vector resets rows in passes of a fixed size and fills them up with one and the same key
    (`envs.vector.replace_rows`): with `one_by_one`, rows that repeat the last key are copied instead of built, which
    changes no result. On CPU a world of Craftax-Classic takes 1.7 ms and 16 take 34 ms, while seldom more than one of
    64 games ends in a step. Without it all are built at once, which suits a GPU.
    """
    if not one_by_one:
        return generate

    @custom_vmap
    def make(key: PRNGKeyArray) -> Any:
        return generate(key)

    @make.def_vmap
    def make_rows(axis_size: int, in_batched: list[bool], keys: Any) -> tuple[Any, Any]:
        del axis_size, in_batched  # one argument: it is batched, or this would not be called
        like = jax.eval_shape(generate, keys[0])
        last = last_distinct_row(keys)
        empty = jax.tree.map(lambda leaf: jnp.zeros((keys.shape[0], *leaf.shape), leaf.dtype), like)

        def build(row: Array, worlds: Any) -> Any:
            return jax.tree.map(lambda all_, one: all_.at[row].set(one), worlds, generate(keys[row]))

        worlds = jax.lax.fori_loop(0, last + 1, build, empty)
        row = jnp.minimum(jnp.arange(keys.shape[0]), last)
        return jax.tree.map(lambda leaf: leaf[row], worlds), jax.tree.map(lambda _: True, like)

    return make


class _Stored(NamedTuple):
    """One leaf of all worlds: stacked, or once where it is the same in each."""

    values: np.ndarray
    stacked: bool
    dtype: np.dtype[Any]


def _store(values: np.ndarray) -> _Stored:
    dtype = values.dtype
    if (values == values[0]).all():
        return _Stored(values[0], False, dtype)
    fits = dtype.kind in "iu" and values.min() >= 0 and values.max() < _UINT8_VALUES
    return _Stored(values.astype(np.uint8) if fits else values, True, dtype)


class Pool:
    """A fixed number of worlds, built once; an episode draws one of them.

    They are a constant of the compiled program and depend on `seed` and `count` alone, so there is nothing to save. A
    world takes 4 KiB (Craftax-Classic) or 122 KiB (Craftax): leaves that are equal in all worlds are kept once, small
    numbers as bytes.
    """

    def __init__(self, generate: Generate, *, seed: int, count: int) -> None:
        build = jax.jit(generate)
        worlds = [jax.device_get(build(key)) for key in jax.random.split(jax.random.key(seed), count)]
        leaves = [jax.tree.leaves(world) for world in worlds]
        self._structure = jax.tree.structure(worlds[0])
        self._stored = [_store(np.stack(same)) for same in zip(*leaves, strict=True)]
        self._count = count

    @property
    def size_bytes(self) -> int:
        """Memory that all worlds take together."""
        return sum(stored.values.nbytes for stored in self._stored)

    def draw(self, key: PRNGKeyArray) -> Any:
        """Returns the state at the start of one of the worlds."""
        number = jax.random.randint(key, (), 0, self._count)
        leaves = [
            (jnp.asarray(stored.values)[number] if stored.stacked else jnp.asarray(stored.values)).astype(stored.dtype)
            for stored in self._stored
        ]
        return jax.tree.unflatten(self._structure, leaves)
