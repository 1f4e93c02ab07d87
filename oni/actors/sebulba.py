"""Actors whose games run in worker processes, in groups: one group steps while the policy acts for another."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import envs
from envs.errors import EnvError
from envs.host.types import Games, HostEnv, HostTimeStep, ShowsScenes
from oni.actors.buffers import Choice, GroupState, RolloutBuffers, actor_state, named_obs, stack_obs
from oni.actors.episodes import play_host
from oni.actors.games import open_games
from oni.actors.scenes import Scenes, SceneWriter
from oni.captions import EMPTY_ID, CaptionTable
from oni.config import EnvConfig
from oni.devices import Devices
from oni.errors import CheckpointError, OniError
from oni.evaluation import Choose, Episodes
from oni.networks import ActorCritic, Params, act
from oni.ppo.loss import categorical_log_prob
from oni.types import ActorState, CoreState, Rollout

log = logging.getLogger(__name__)


class SebulbaActors:
    """Games in worker processes, which start with the first rollout or with a restored snapshot.

    The policy plays on the first device; rollouts are laid out over all of them, to be learned from.

    The same seed and parameters give the same rollout, bit by bit: each draw comes from the key, the step and the
    group, and the order in which workers finish does not matter.

    Args:
        shown: whether people will look at moments: what games show is kept, or how episodes looked at their end.
    """

    def __init__(
        self,
        env: HostEnv,
        network: ActorCritic,
        config: EnvConfig,
        devices: Devices,
        *,
        num_steps: int,
        seed: int,
        shown: bool = False,
    ) -> None:
        self.env = env
        self._network = network
        self._config = config
        self._devices = devices
        self._num_steps = num_steps
        self._seed = seed
        self._stack = ExitStack()
        self._pool: Games | None = None
        self._choose = jax.jit(self._choose_once)
        self._shows = shown and isinstance(env, ShowsScenes)
        self._keeps_endings = shown and not self._shows
        self._scenes: list[Scenes] = []  # two: one is filled while moments are cut out of the other
        self._scenes_now: Scenes | None = None
        size = config.num_envs // config.num_groups
        self._rows = [slice(i * size, (i + 1) * size) for i in range(config.num_groups)]

    def _choose_once(
        self, params: Params, core_state: CoreState, obs: dict[str, Array], reset: Array, key: Array, at: Array
    ) -> Choice:
        core_state, logits, value = act(self._network, params, core_state, obs, reset)
        action = jax.random.categorical(jax.random.fold_in(jax.random.fold_in(key, at[0]), at[1]), logits)
        return Choice(core_state, action, categorical_log_prob(logits, action), value)

    def start(self, key: Array) -> ActorState:
        """Returns a state in which every game is about to begin; the first rollout begins them."""
        num_envs = self._config.num_envs
        return ActorState(
            env_state=(),
            obs={n: np.zeros((num_envs, *obs.shape), obs.dtype) for n, obs in named_obs(self.env.spec).items()},
            core_state=self._network.initial_state(num_envs),
            reset=np.ones(num_envs, bool),  # pyright: ignore[reportArgumentType]
            episode_return=np.zeros(num_envs, np.float32),  # pyright: ignore[reportArgumentType]
            episode_length=np.zeros(num_envs, np.int32),  # pyright: ignore[reportArgumentType]
        )

    def _open(self) -> Games:
        config = self._config
        return self._stack.enter_context(
            open_games(
                self.env,
                config.num_envs,
                seed=self._seed,
                num_groups=config.num_groups,
                num_workers=config.num_workers,
                step_timeout_s=config.step_timeout_s,
                scenes=self._shows,
            )
        )

    def _begun(self, state: ActorState) -> tuple[Games, ActorState]:
        if self._pool is not None:
            return self._pool, state
        self._pool = self._open()
        first = [group.reset().obs for group in self._pool.groups]
        return self._pool, state._replace(obs=stack_obs(first))

    def collect(self, params: Params, state: ActorState, key: Array) -> tuple[ActorState, Rollout, list[list[bytes]]]:
        """Plays T steps in every game; what was said are the captions `[T][B]`.

        Raises:
            OniError: the games cannot be played at all.
        """
        try:
            return self._collect(params, state, key)
        except EnvError as error:
            raise OniError(str(error)) from error

    def _collect(self, params: Params, state: ActorState, key: Array) -> tuple[ActorState, Rollout, list[list[bytes]]]:
        pool, state = self._begun(state)
        params = self._devices.on_first(params)
        value_shape = self._network.value_shape
        buffers = RolloutBuffers(
            self.env.spec,
            self._num_steps,
            self._config.num_envs,
            value_shape=value_shape,
            endings=self._keeps_endings,
        )
        groups = [GroupState(env, rows, state) for env, rows in zip(pool.groups, self._rows, strict=True)]
        writers = self._scene_writers(groups)
        for t in range(self._num_steps + 1):
            for number, group in enumerate(groups):
                if t > 0:
                    step = group.env.recv()
                    group.write_step(buffers, t - 1, step, self._bootstrap(params, group, step, key))
                    if writers:
                        writers[number].write_endings(t - 1, group.reset, step.info)
                if writers:
                    writers[number].write(t)
                choice = self._choose(
                    params, group.core_state, group.obs, group.reset, key, np.array([t, number], np.int32)
                )
                if t < self._num_steps:
                    group.write_obs(buffers, t)
                    action = np.asarray(choice.action)
                    group.env.send(action)
                    group.write_action(buffers, t, choice, action)
                else:
                    buffers.last_value[group.rows] = choice.value
        last = actor_state(groups)
        return last, buffers.rollout(state.core_state, last.obs, self._devices), buffers.captions

    def watch(self) -> None:
        """Keeps what the games show in the rollouts from here on, where they can show it."""
        if self._shows and not self._scenes:
            num_envs = self._config.num_envs
            self._scenes = [Scenes(self.env, num_steps=self._num_steps, num_envs=num_envs) for _ in range(2)]

    def take_scenes(self) -> Scenes | None:
        """Returns what was shown in the rollout that `collect` returned last; good until the second one after it."""
        scenes, self._scenes_now = self._scenes_now, None
        return scenes

    def _scene_writers(self, groups: Sequence[GroupState]) -> list[SceneWriter]:
        if not self._scenes:
            return []
        self._scenes.reverse()
        self._scenes_now = scenes = self._scenes[0]
        scenes.begin()
        return [SceneWriter(scenes, group.env, group.rows) for group in groups]

    def _bootstrap(self, params: Params, group: GroupState, step: HostTimeStep, key: Array) -> Any:
        """Values of the true last observation where an episode was cut off, else 0."""
        if not step.truncated.any():
            return 0.0
        no_reset = np.zeros_like(group.reset)
        choice = self._choose(params, group.core_state, step.final_obs, no_reset, key, np.zeros(2, np.int32))
        value = np.asarray(choice.value)
        return np.where(step.truncated.reshape(-1, *[1] * (value.ndim - 1)), value, 0.0)

    def caption_ids(self, said: Sequence[Sequence[bytes]], captions: CaptionTable) -> tuple[Array, list[bytes]]:
        """Interns the captions of a rollout."""
        known = len(captions)
        ids = [[captions.intern(text.strip()) if text else EMPTY_ID for text in row] for row in said]
        return jnp.asarray(np.array(ids, np.int32)), captions.texts[known:]

    def play(self, params: Params, *, num_episodes: int, seed: int, choose: Choose) -> Episodes:
        """Plays episodes, many at once.

        Raises:
            OniError: the games cannot be played.
        """
        return self._play(self.env, params, num_episodes=num_episodes, seed=seed, choose=choose)

    def _play(self, env: HostEnv, params: Params, **how: Any) -> Episodes:
        try:
            return play_host(env, self._network, self._devices.on_first(params), **how)
        except EnvError as error:
            raise OniError(str(error)) from error

    def record(self, params: Params, folder: Path, *, num_episodes: int, seed: int, choose: Choose) -> list[str]:
        """Lets the game itself write a recording of each episode.

        Raises:
            OniError: these games cannot be recorded.
        """
        env_id = self._config.id
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            try:
                recorded = envs.make(env_id, **{**self._config.options, "record_dir": fresh})
            except EnvError as error:
                raise OniError(f"{env_id} cannot be recorded: leave --record out ({error})") from error
            assert isinstance(recorded, HostEnv)
            self._play(recorded, params, num_episodes=num_episodes, seed=seed, choose=choose, max_games=1)
            files = sorted((path for path in Path(fresh).rglob("*") if path.is_file()), key=lambda p: p.stat().st_mtime)
            # the last file is of the episode that began after the last one wanted
            return [str(path.replace(folder / path.name)) for path in files[:num_episodes]]

    def figures(self) -> dict[str, float | int]:
        """Returns how many workers died and were replaced."""
        return {"env/workers_replaced": 0 if self._pool is None else self._pool.deaths}

    def snapshot(self) -> dict[str, Any]:
        """Returns the seeds and actions that bring the running episodes back."""
        return {} if self._pool is None else self._pool.snapshot()

    def restore(self, state: ActorState, snapshot: dict[str, Any]) -> ActorState:
        """Replays the running episodes, or starts new ones if `env.resume_games` is off or these games do not repeat.

        Raises:
            CheckpointError: the replay of games that repeat came to another place.
        """
        if not snapshot:
            return state
        try:
            return self._restored(state, snapshot)
        except EnvError as error:
            self.close()
            raise CheckpointError(str(error)) from error

    def _restored(self, state: ActorState, snapshot: dict[str, Any]) -> ActorState:
        self._pool = self._open()
        steps = self._brought_back(self._pool, state, snapshot)
        obs = stack_obs([step.obs for step in steps])
        new = np.concatenate([step.truncated for step in steps])
        return state._replace(
            obs=obs,
            reset=np.asarray(state.reset) | new,  # pyright: ignore[reportArgumentType]
            episode_return=np.where(new, 0.0, state.episode_return).astype(np.float32),
            episode_length=np.where(new, 0, state.episode_length).astype(np.int32),
        )

    def _brought_back(self, pool: Games, state: ActorState, snapshot: dict[str, Any]) -> Sequence[HostTimeStep]:
        """Replays the running episodes, or begins new ones where that is asked for or the games do not repeat."""
        if not self._config.resume_games:
            return pool.restore(snapshot, replay=False)
        why = "its games never repeat"
        if pool.repeats != "never":
            try:
                steps = pool.restore(snapshot)
                _check_same(state.obs, steps)
            except EnvError as error:
                if pool.repeats == "always":
                    raise
                why = str(error).partition(". ")[0]
            else:
                return steps
        log.warning("%s: running episodes cannot be brought back, new ones begin instead (%s)", self._config.id, why)
        return pool.restore(snapshot, replay=False)

    def close(self) -> None:
        """Ends the worker processes."""
        self._stack.close()
        self._pool = None


def _check_same(before: Mapping[str, Any], steps: Sequence[HostTimeStep]) -> None:
    """Raises `EnvError` if a game that was brought back shows something else than what the policy saw there."""
    new = np.concatenate([step.truncated for step in steps])
    for name, leaf in stack_obs([step.obs for step in steps]).items():
        differs = (leaf != np.asarray(before[name])).reshape(len(new), -1).any(axis=1) & ~new
        if differs.any():
            raise EnvError(
                f"game {differs.argmax()} could not be brought back to where it was ({name} differs), as happens "
                "with another version of the game: start new episodes with --env.no-resume-games"
            )
