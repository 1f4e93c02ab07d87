"""Saves and restores runs with Orbax: atomic, the last few, the newest that can be read wins."""

import logging
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import orbax.checkpoint as ocp

from oni.errors import CheckpointError

log = logging.getLogger(__name__)

SCHEMA = 1
"""Content of a checkpoint; raised when an older program could not read a newer one."""


class Restored(NamedTuple):
    """What a checkpoint held. update: number of updates done. reward: None if it was of another kind of reward."""

    update: int
    device: Any
    host: dict[str, Any]
    reward: Any


def is_key(leaf: Any) -> bool:
    """Tells whether a leaf is a typed PRNG key."""
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _pack(tree: Any) -> Any:
    """Replaces typed PRNG keys, which cannot be stored, by their numbers."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, tree)


def _unpack(tree: Any, like: Any) -> Any:
    return jax.tree.map(lambda leaf, old: jax.random.wrap_key_data(leaf) if is_key(old) else leaf, tree, like)


def _layout(tree: Any) -> list[str]:
    """Describes a tree: where each leaf is, and its shape and dtype."""
    leaves = jax.tree_util.tree_leaves_with_path(_pack(tree))
    return [f"{jax.tree_util.keystr(path)} {leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves]


class Checkpoints:
    """The checkpoints of one run.

    They are written in the foreground: some tenths of a second every few minutes, and an error is met where it can be
    told.
    """

    def __init__(self, path: Path, *, keep: int) -> None:
        self._path = path.absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self._path, options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """Number of updates in the newest checkpoint, None if there is none."""
        return self._manager.latest_step()

    def save(self, update: int, device: Any, host: dict[str, Any], *, reward: Any = ()) -> bool:
        """Saves a run after `update` updates.

        Args:
            reward: arrays that belong to the kind of reward. They are kept apart, so that a run can go on with another.

        A failure (a full disk) is logged and returned as False: the run goes on, and the checkpoint before stays.
        """
        if self.latest == update:
            return True
        items: dict[str, Any] = {
            "device": ocp.args.StandardSave(_pack(device)),  # pyright: ignore[reportCallIssue]
            "host": ocp.args.JsonSave({"schema": SCHEMA, "reward": _layout(reward), **host}),  # pyright: ignore[reportCallIssue]
        }
        if jax.tree.leaves(reward):
            items["reward"] = ocp.args.StandardSave(_pack(reward))  # pyright: ignore[reportCallIssue]
        try:
            saved = self._manager.save(update, args=ocp.args.Composite(**items))
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            log.error("the checkpoint after update %d could not be written; the one before stays. %s", update, reason)
            for partial in self._path.glob(f"{update}.*tmp*"):
                shutil.rmtree(partial, ignore_errors=True)
            return False
        return bool(saved)

    def restore(self, like: Any, *, reward: Any = ()) -> Restored:
        """Reads the newest checkpoint that is whole.

        Args:
            like: a tree of the same structure, shapes and dtypes as was saved.
            reward: the same for the arrays of the reward; those of another structure are left out.

        Raises:
            CheckpointError: there is none, none can be read, or a later version wrote it.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        if not steps:
            raise CheckpointError(f"no checkpoint in {self._manager.directory}: start the run anew, without --resume")
        for step in steps:
            try:
                device, host, arrays = self._read(step, like, reward)
            except Exception as error:  # noqa: BLE001 - Orbax raises whatever the broken part leads to
                log.warning("the checkpoint after update %d cannot be read: %s", step, error)
                continue
            self._set_aside([newer for newer in steps if newer > step])
            if host.get("schema", 0) > SCHEMA:
                raise CheckpointError("the checkpoint was written by a later version of oni-jax: update oni-jax")
            return Restored(update=step, device=device, host=host, reward=arrays)
        raise CheckpointError(
            f"none of the checkpoints in {self._manager.directory} can be read with these settings "
            f"(updates {', '.join(map(str, steps))}); the log above says why"
        )

    def _read(self, step: int, like: Any, reward: Any) -> tuple[Any, dict[str, Any], Any]:
        def abstract(tree: Any) -> Any:
            packed = jax.tree.map(ocp.utils.to_shape_dtype_struct, _pack(tree))
            return ocp.args.StandardRestore(packed)  # pyright: ignore[reportCallIssue]

        host: dict[str, Any] = self._manager.restore(step, args=ocp.args.Composite(host=ocp.args.JsonRestore()))["host"]
        items = {"device": abstract(like)}
        is_same = host.get("reward", []) == _layout(reward)
        if is_same and jax.tree.leaves(reward):
            items["reward"] = abstract(reward)
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        arrays = _unpack(restored["reward"], reward) if "reward" in items else reward if is_same else None
        return _unpack(restored["device"], like), host, arrays

    def _set_aside(self, unreadable: list[int]) -> None:
        """Moves checkpoints that cannot be read out of the way: while they are listed, Orbax saves nothing older."""
        if not unreadable:
            return
        folder = self._path.with_name(f"{self._path.name}-unreadable")
        folder.mkdir(exist_ok=True)
        for step in unreadable:
            target = folder / str(step)
            shutil.rmtree(target, ignore_errors=True)
            shutil.move(self._path / str(step), target)
        log.warning("checkpoints that cannot be read were moved to %s", folder)
        self._manager.reload()
