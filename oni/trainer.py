"""One training run as an object: what is jitted once, the state that a resume needs, and one update at a time."""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from llm_annotator.types import News
from oni.actors import Actors, Said, make_actors, make_env
from oni.actors.factory import overlaps
from oni.actors.scenes import Scenes
from oni.captions import EMPTY_ID, CaptionStats, CaptionTable
from oni.config import TrainConfig
from oni.devices import ALONE, ROLLOUT, SAME, STEPS, Across, choose_devices
from oni.errors import CheckpointError
from oni.metrics import EpisodeTotals, EpisodeWindow
from oni.networks import ActorCritic, init_params, make_network
from oni.ppo.update import LearnerState, make_learner
from oni.rewarding import Rewarding
from oni.rewards import MixState, RewardModel
from oni.rewards.mixing import empty_counts, mix_layout, without_scale
from oni.sampling.sampler import Look, Sampler
from oni.types import ActorState, MixedReward, Rollout


class DeviceState(NamedTuple):
    """All that lives on the device and changes from update to update."""

    actor: ActorState
    learner: LearnerState
    counts: MixState


class Finished(NamedTuple):
    """What one update left behind, still on the device until it is read."""

    losses: dict[str, Float[Array, ""]]
    episodes: EpisodeTotals
    extrinsic: Float[Array, ""]
    intrinsic: Float[Array, ""]
    reward_figures: dict[str, Any]
    caption_stats: CaptionStats | None


class Progress(NamedTuple):
    """What one update left behind, on the host.

    seen: ids of the captions that came up. new: captions never seen before.
    """

    metrics: dict[str, float | int]
    seen: np.ndarray
    new: list[bytes]


def episode_totals(rollout: Rollout, across: Across = ALONE) -> EpisodeTotals:
    """Sums over the episodes that ended in a rollout, of all devices, but for those that a fault cut off.

    On the device `stats` is one array in the order of the spec: it may have many figures, and each would be fetched.
    """
    ended: Bool[Array, "T B"] = (rollout.terminated | rollout.truncated) & ~rollout.lost

    def total(values: Array) -> Any:
        return jnp.where(ended, values, 0).sum()

    return across.sum(
        EpisodeTotals(
            episodes=ended.sum(),  # pyright: ignore[reportArgumentType]
            success=total(rollout.success),
            extrinsic_return=total(rollout.episode_return),
            length=total(rollout.episode_length),
            stats=rollout.stats.sum(axis=0),  # pyright: ignore[reportArgumentType]
        )
    )


class Trainer:
    """One run. `update` does one collect - label - mix - learn cycle.

    The learner works on update k while the host looks at the figures of update k - 1. Randomness of update k comes from
    `fold_in(seed, k)`, so a resumed run draws what the run never stopped would have drawn.

    With `ppo.overlap` the rollout of update k + 1 is played while the learner works on update k, by the policy from
    before update k, exactly one update behind. The same seed still gives the same run, but for checkpoints on the way:
    before one, the rollout under way is learned from, and the next is played without lag. The ratios of PPO are taken
    to the policy that played, and their clipping bounds what the lag can do.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        env = make_env(config)
        self.env = env
        self.spec = spec = env.spec
        self.devices = choose_devices(
            config.devices, num_envs=config.env.num_envs, num_minibatches=config.ppo.num_minibatches
        )
        self.rewarding = Rewarding(config, spec, self.devices)
        self.reward_model: RewardModel = self.rewarding.model
        self.network: ActorCritic = make_network(config.network, spec, num_values=config.ppo.value_heads)
        self.actors: Actors = make_actors(config, env, self.network, self.devices)
        self.captions = CaptionTable(spec.event_size)
        self.window = EpisodeWindow(
            num_steps=config.ppo.num_steps, max_episode_steps=spec.max_episode_steps, num_envs=config.env.num_envs
        )
        self.updates_done = 0
        self._root_key = jax.random.key(config.seed)
        self._learner = make_learner(
            self.network, config.ppo, num_updates=config.num_updates, across=self.devices.across
        )
        self._learn = self.devices.jit(self._learn_and_sum, takes=(SAME, ROLLOUT, STEPS, SAME), gives=SAME)
        self._pending: Finished | None = None
        self._news: list[News] = []
        self._thread = ThreadPoolExecutor(1) if overlaps(config, env, jax.default_backend()) else None
        self._ahead: Future[tuple[ActorState, Rollout, Said]] | None = None
        self._coverage: tuple[int, int] = (0, 0)
        self._sampler: Sampler | None = None
        self._sampled: dict[str, Any] = {}  # where sampling stands, while there is no sampler
        self._scenes: Scenes | None = None
        self.state = self._initial_state()

    def _initial_state(self) -> DeviceState:
        env_key, params_key = jax.random.split(self._root_key)
        init = jax.jit(lambda key: self._learner.init(init_params(self.network, self.spec, key)))
        return DeviceState(
            actor=self.actors.start(env_key),
            learner=self.devices.place(init(params_key), SAME),
            counts=self._placed_counts(empty_counts(self.config.reward, self.config.env.num_envs)),
        )

    def _placed_counts(self, counts: MixState) -> MixState:
        return self.devices.place(counts, mix_layout(self.config.reward))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends what runs beside this process."""
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
        self.rewarding.close()
        self.actors.close()

    def _learn_and_sum(
        self, learner: LearnerState, rollout: Rollout, reward: MixedReward, key: Array
    ) -> tuple[LearnerState, dict[str, Array], EpisodeTotals]:
        learner, losses = self._learner.update(learner, rollout, reward, key)
        return learner, losses, episode_totals(rollout, self.devices.across)

    @property
    def env_step(self) -> int:
        """Steps done, over all games."""
        return self.updates_done * self.config.steps_per_update

    def forget_labels(self) -> None:
        """Takes every label back: what they judged is no longer the goal."""
        self.rewarding.forget(self.captions)
        counts = without_scale(self.state.counts, self.config.reward)
        self.state = self.state._replace(counts=self._placed_counts(counts))

    def take_labels(self, updates: Iterable[News]) -> None:
        """Takes in news from the annotator, in force from the next update.

        What the update before left behind is looked at first, as it is where a checkpoint was written in between: when
        a reward model learns what decides what it learns, and the clock decides when there are checkpoints.
        """
        self._news += updates
        if self._pending is None:
            self._take_news()

    def _take_news(self) -> None:
        news, self._news = self._news, []
        self.rewarding.take(self.captions, news)

    @property
    def is_ahead(self) -> bool:
        """Whether a rollout is being played that no update has learned from yet."""
        return self._ahead is not None

    def _keys(self, update: int) -> tuple[Array, Array]:
        """Returns the keys of playing and of learning in one update."""
        collect_key, learn_key = jax.random.split(jax.random.fold_in(self._root_key, update))
        return collect_key, learn_key

    def _play(self, *, last: bool) -> tuple[ActorState, Rollout, Said]:
        """Returns the rollout of this update, and begins that of the next one where the two may overlap."""
        params = self.state.learner.params
        if self._ahead is None:
            played = self.actors.collect(params, self.state.actor, self._keys(self.updates_done)[0])
        else:
            played, self._ahead = self._ahead.result(), None
        self._scenes = self.actors.take_scenes()
        if self._thread is not None and not last:
            next_key, _ = self._keys(self.updates_done + 1)
            self._ahead = self._thread.submit(self.actors.collect, params, played[0], next_key)
        return played

    def update(self, *, last: bool = False) -> Progress:
        """Plays `num_steps` in every game and learns from them; returns the figures of the update before.

        Args:
            last: plays no rollout ahead, so that afterwards everything belongs to the same moment.
        """
        actor, rollout, said = self._play(last=last)
        learn_key = self._keys(self.updates_done)[1]
        metrics, seen = self._read_pending()
        self._take_news()

        new: list[bytes] = []
        caption_id = None
        if self.reward_model.active:
            caption_id, new = self.actors.caption_ids(said, self.captions)
        counts, reward, stats, figures = self.rewarding.reward(
            rollout, self.state.counts, self.captions, caption_id, env_step=self.env_step
        )
        learner, losses, episodes = self._learn(self.state.learner, rollout, reward, learn_key)
        figures |= self.rewarding.learn(rollout, learn_key)
        self.state = DeviceState(actor=actor, learner=learner, counts=counts)
        self._sample(rollout, reward, caption_id)
        self._pending = Finished(losses, episodes, reward.extrinsic.mean(), reward.intrinsic.mean(), figures, stats)
        self.updates_done += 1
        return Progress(metrics=metrics, seen=seen, new=new)

    def sample_with(self, sampler: Sampler) -> None:
        """Lets a sampler look at every rollout from here on. It changes nothing about the training."""
        sampler.load(self._sampled)
        self._sampler = sampler
        self.actors.watch()

    def _sample(self, rollout: Rollout, reward: MixedReward, caption_id: Array | None) -> None:
        scenes, self._scenes = self._scenes, None
        if self._sampler is not None and caption_id is not None:
            texts, env_step = self.captions.texts, self.env_step
            self._sampler.look(Look(rollout, reward.intrinsic, caption_id, texts, scenes, env_step))

    def flush(self) -> Progress:
        """Waits for the last update and returns its figures."""
        metrics, seen = self._read_pending()
        self._take_news()
        return Progress(metrics=metrics, seen=seen, new=[])

    def wait(self) -> None:
        """Waits until the device has done what it was given."""
        jax.block_until_ready(self.state)

    def _read_pending(self) -> tuple[dict[str, float | int], np.ndarray]:
        if self._pending is None:
            return {}, np.zeros(0, np.int64)
        finished: Finished = jax.device_get(self._pending)
        self._pending = None
        totals: EpisodeTotals = jax.tree.map(lambda total: np.asarray(total).tolist(), finished.episodes)
        stats = dict(zip(self.spec.episode_stats, totals.stats, strict=True))
        self.window.add(totals._replace(stats=stats))
        metrics: dict[str, float | int] = {name: float(value) for name, value in finished.losses.items()}
        metrics["reward/extrinsic"] = float(finished.extrinsic)
        metrics["reward/intrinsic"] = float(finished.intrinsic)
        metrics |= {name: float(value) for name, value in finished.reward_figures.items()}
        seen = np.zeros(0, np.int64)
        if finished.caption_stats is not None:
            seen = self.captions.add(finished.caption_stats, env_step=self.env_step)
            count = np.asarray(finished.caption_stats.num_steps)
            self._coverage = (int(count[self.captions.known[: len(count)]].sum()), int(count.sum()))
            self.reward_model.saw(self.captions, count)
            metrics |= self.reward_model.metrics()
        return metrics | self.window.means() | self.caption_metrics() | self.actors.figures(), seen

    def caption_metrics(self) -> dict[str, float | int]:
        """Returns the figures about captions, as of the last update that was read."""
        if not self.reward_model.active:
            return {}
        distinct: dict[str, float | int] = {"captions/distinct": len(self.captions) - 1}
        if self.reward_model.needs != "labels":
            return distinct  # none is ever labelled: zeros would tell of a fault
        known = self.captions.known[: len(self.captions)]
        labelled, said = self._coverage
        return distinct | {
            "captions/labelled": int(known.sum()),
            "captions/helpful": int((self.captions.helpful == 1).sum()),
            "captions/coverage": labelled / said if said else 0.0,
        }

    def host_state(self) -> dict[str, Any]:
        """Returns what a checkpoint must hold beside the device state, as JSON values. Call after `flush`."""
        return {
            "updates_done": self.updates_done,
            "captions": self.captions.state_dict(),
            "rewarding": self.rewarding.state_dict(),
            "window": self.window.state(),
            "games": self.actors.snapshot(),
            "sampling": self._sampled if self._sampler is None else self._sampler.state_dict(),
        }

    def reward_arrays(self) -> Any:
        """Returns the arrays that belong to the kind of reward, for the checkpoint."""
        return self.rewarding.arrays()

    def load(self, device: DeviceState, host: dict[str, Any], reward: Any = None) -> None:
        """Goes on from a checkpoint.

        Args:
            reward: `reward_arrays` of then; None if they belong to another kind of reward, which then learns anew
                from the labels.

        Raises:
            CheckpointError: it belongs to another environment, or running episodes cannot be brought back.
        """
        captions = CaptionTable.from_state_dict(host["captions"])
        if captions.event_size != self.captions.event_size:
            raise CheckpointError(
                "the checkpoint was made with another environment: resume with the run's own settings"
            )
        self.captions = captions
        self.state = DeviceState(
            actor=self.actors.restore(device.actor, host.get("games", {})),
            learner=self.devices.place(device.learner, SAME),
            counts=self._placed_counts(device.counts),
        )
        self.updates_done = int(host["updates_done"])
        self.window.load(host["window"])
        self._sampled = host.get("sampling", {})
        self.rewarding.load(reward, host.get("rewarding", {"model": {}}), captions)

    def top_earners(self, limit: int) -> list[tuple[str, float, bool | None]]:
        """Lists the captions that earned most intrinsic reward, with their share of the whole and their label."""
        earned = self.captions.reward_sum[: len(self.captions)].copy()
        earned[EMPTY_ID] = 0.0
        whole = np.abs(earned).sum()
        rows: list[tuple[str, float, bool | None]] = []
        for i in np.argsort(-earned)[:limit]:
            if earned[i] > 0:
                label = None if self.captions.helpful[i] < 0 else bool(self.captions.helpful[i])
                rows.append((self.captions.texts[i].decode("utf-8", "replace"), float(earned[i] / whole), label))
        return rows
