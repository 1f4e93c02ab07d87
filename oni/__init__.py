"""oni-jax: agents that learn sparse-reward games from rewards that an LLM gives while they play."""

import importlib.util as _util
from pathlib import Path as _Path


def _check_envs_is_ours() -> None:
    """`envs` is a common name. Raises ImportError if another package of that name would be imported in its place."""
    spec = _util.find_spec("envs")
    if spec is None or spec.origin is None:
        raise ImportError("oni-jax is not installed whole: its package `envs` is missing. Install oni-jax again.")
    if not (_Path(spec.origin).parent / "data" / "chatter.txt").exists():
        raise ImportError(
            f"the package `envs` at {spec.origin} is not the one of oni-jax, but is found before it: "
            "leave that folder, or take it out of PYTHONPATH or the environment"
        )


_check_envs_is_ours()
