"""Worlds are built for episodes that begin, and are the same however rows are grouped."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.craftax.worlds import Pool, fresh, last_distinct_row
from envs.testing import check_env
from envs.vector import replace_rows


class World(NamedTuple):
    """A small world."""

    blocks: jax.Array
    light: jax.Array
    step: jax.Array
    depth: jax.Array


def generate(key):
    return World(
        blocks=jax.random.randint(key, (3, 3), 0, 200),
        light=jax.random.uniform(key, (3,)),
        step=jnp.int32(0),
        depth=jax.random.randint(key, (), -500, 500),
    )


@pytest.mark.parametrize(
    ("numbers", "last"), [([4, 4, 4], 0), ([1, 2, 3], 2), ([1, 2, 2], 1), ([2, 1, 2], 2), ([7], 0), ([2, 2, 1, 1], 2)]
)
def test_the_last_distinct_row(numbers, last):
    keys = jax.vmap(lambda number: jax.random.fold_in(jax.random.key(0), number))(jnp.array(numbers))
    assert last_distinct_row(keys) == last


@pytest.mark.parametrize("numbers", [[4, 4, 4], [1, 2, 3], [1, 2, 2], [2, 1, 2], [5]])
def test_worlds_one_by_one_are_those_built_at_once(numbers):
    keys = jax.vmap(lambda number: jax.random.fold_in(jax.random.key(0), number))(jnp.array(numbers))
    one_by_one = jax.jit(jax.vmap(fresh(generate, one_by_one=True)))(keys)
    at_once = jax.jit(jax.vmap(fresh(generate, one_by_one=False)))(keys)
    for ours, theirs in zip(one_by_one, at_once, strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours == theirs).all()


def test_only_rows_that_ended_cost_a_world():
    built = []

    def counted(key):
        jax.debug.callback(lambda: built.append(1))
        return generate(key)._asdict()

    make = fresh(counted, one_by_one=True)

    @jax.jit
    def reset(mask, old):
        def rows(index):
            return jax.vmap(lambda i: make(jax.random.fold_in(jax.random.key(1), i)))(index)

        return replace_rows(mask, old, rows)

    old = jax.vmap(generate)(jax.random.split(jax.random.key(0), 64))._asdict()
    for ended in ([], [3], [0, 20, 63]):
        built.clear()
        mask = np.zeros(64, bool)
        mask[ended] = True
        jax.block_until_ready(reset(mask, old))
        jax.effects_barrier()
        assert len(built) == len(ended) + bool(ended)  # one more for the rows that only fill up


def test_a_pool_draws_from_its_worlds_and_forgets_nothing():
    pool = Pool(generate, seed=5, count=6)
    build = jax.jit(generate)
    worlds = [jax.device_get(build(key)) for key in jax.random.split(jax.random.key(5), 6)]
    drawn = jax.device_get(jax.jit(jax.vmap(pool.draw))(jax.random.split(jax.random.key(0), 100)))
    seen = set()
    for row in range(100):
        world = jax.tree.map(lambda leaf: leaf[row], drawn)  # noqa: B023
        same = [all((a == b).all() for a, b in zip(world, one, strict=True)) for one in worlds]
        assert sum(same) == 1
        seen.add(same.index(True))
    assert len(seen) == 6
    assert [leaf.dtype for leaf in drawn] == [leaf.dtype for leaf in worlds[0]]
    assert pool.size_bytes == 6 * (9 + 3 * 4 + 4) + 4  # blocks as bytes, the step once


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Craftax-Classic", "Craftax"])
def test_both_games_keep_the_contract(name):
    pytest.importorskip("craftax")
    steps = 120
    env = envs.make(f"craftax:{name}", detail="full", num_worlds=2, max_steps=steps - 1)
    assert check_env(env, num_envs=2, num_steps=steps) >= 3
