"""The reward of a rollout: the scores of its captions and steps, mixed with what the game paid."""

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from envs.spec import EnvSpec
from llm_annotator.types import Comparison, LabelUpdate, News
from oni.captions import CaptionStats, CaptionTable
from oni.config import TrainConfig
from oni.devices import ROLLOUT, SAME, STEPS, Devices
from oni.ppo.streams import reward_streams
from oni.rewards import MixState, RewardModel, make_mix, make_reward_model, make_schedule
from oni.rewards.factory import weights_of
from oni.rewards.mixing import mix_figures, mix_layout
from oni.rewards.novelty import StepReward, make_step_reward
from oni.types import MixedReward, Rollout

_STEP_KEY = 0x51EB
"""Sets the randomness of rewards of steps apart from that of playing and learning."""


class Rewarded(NamedTuple):
    """What a rollout earned.

    stats: None where captions earn nothing. figures: metrics, still on the device.
    """

    counts: MixState
    reward: MixedReward
    stats: CaptionStats | None
    figures: dict[str, Any]


@partial(jax.jit, static_argnums=1)
def _which(caption_id: Int[Array, "T B"], size: int) -> Bool[Array, " size"]:
    """Tells for each caption whether it comes up."""
    return jnp.zeros(size, bool).at[caption_id.reshape(-1)].set(True)


class Rewarding:
    """The reward model of a run, rewards of single steps if it has any, and how they are mixed."""

    def __init__(self, config: TrainConfig, spec: EnvSpec, devices: Devices) -> None:
        self.model: RewardModel = make_reward_model(config)
        self._config = config
        self._intrinsic_coef = make_schedule(config.reward, total_env_steps=config.total_env_steps)
        stream = reward_streams(config.ppo)[-1]  # of the intrinsic reward, or of all
        across, layout = devices.across, mix_layout(config.reward)
        self._mix = devices.jit(
            make_mix(config.reward, **stream._asdict(), across=across),
            takes=(layout, STEPS, STEPS, STEPS, SAME, SAME, STEPS),
            gives=(layout, STEPS, SAME),
        )
        self._steps: StepReward | None = make_step_reward(weights_of(config.reward), config, spec, across=across)
        self._step_state: Any = ()
        if self._steps is not None:
            layout = self._steps.layout
            key = jax.random.fold_in(jax.random.key(config.seed), _STEP_KEY)
            state = jax.jit(self._steps.init, static_argnums=1)(key, config.env.num_envs)
            self._step_state = devices.place(state, layout)
            self._score_steps = devices.jit(self._steps.score, takes=(layout, ROLLOUT), gives=(layout, STEPS))
            self._learn_steps = devices.jit(self._steps.learn, takes=(layout, ROLLOUT, SAME), gives=(layout, SAME))
        self._scores = np.zeros(0, np.float32)
        self._num_scored = 0
        self._latest = np.zeros(0, np.float32)

    def close(self) -> None:
        """Ends what runs beside the trainer."""
        self.model.close()

    def take(self, captions: CaptionTable, updates: Iterable[News]) -> int:
        """Takes in news from the annotator; returns how many labels changed."""
        news = list(updates)
        changed = captions.set_labels(update for update in news if isinstance(update, LabelUpdate))
        comparisons = [update for update in news if isinstance(update, Comparison)]
        if changed:
            self.model.observe(captions, changed)
        if comparisons:
            self.model.compare(captions, comparisons)
        if news:
            self._num_scored = 0
        return len(changed)

    def forget(self, captions: CaptionTable) -> None:
        """Takes every label back, and what was learned from them."""
        captions.forget_labels()
        self.model.forget()
        self._num_scored = 0

    def reward(
        self,
        rollout: Rollout,
        counts: MixState,
        captions: CaptionTable,
        caption_id: Int[Array, "T B"] | None,
        *,
        env_step: int,
    ) -> Rewarded:
        """Returns what each step of a rollout earned.

        Args:
            caption_id: None where captions earn nothing.
            env_step: steps done before, over all games.
        """
        if caption_id is None and self._steps is None:
            extrinsic = self._config.reward.extrinsic_coef * rollout.reward
            reward = MixedReward(total=extrinsic, extrinsic=extrinsic, intrinsic=jnp.zeros_like(extrinsic))
            return Rewarded(counts, reward, None, {})
        bonus = None
        figures: dict[str, Any] = {}
        if self._steps is not None:
            self._step_state, bonus = self._score_steps(self._step_state, rollout)
            figures["reward/bonus"] = bonus.mean()
        if caption_id is None:
            ids, scores = jnp.zeros(rollout.reward.shape, jnp.int32), np.zeros(1, np.float32)
        else:
            ids, scores = caption_id, self._score(captions, caption_id)
        coef = np.float32(self._intrinsic_coef(env_step))  # an array: its changes compile nothing anew
        counts, reward, stats = self._mix(counts, rollout.reward, rollout.reset, ids, scores, coef, bonus)
        figures |= {"reward/intrinsic_coef": coef} | mix_figures(counts, self._config.reward)
        return Rewarded(counts, reward, None if caption_id is None else stats, figures)

    def learn(self, rollout: Rollout, key: PRNGKeyArray) -> dict[str, Any]:
        """Lets the rewards of single steps learn from a rollout that was rewarded; returns their metrics."""
        if self._steps is None:
            return {}
        self._step_state, figures = self._learn_steps(self._step_state, rollout, jax.random.fold_in(key, _STEP_KEY))
        return figures

    def _score(self, captions: CaptionTable, caption_id: Int[Array, "T B"]) -> Float[np.ndarray, " capacity"]:
        """Returns scores by caption, right for those of the rollout at least; the array is not changed later."""
        size = captions.capacity
        if self.model.moves:
            ids = np.flatnonzero(np.asarray(_which(caption_id, size)))
            scores = np.zeros(size, np.float32)
            scores[ids] = self._worth(captions, ids)
            self._keep(ids, scores)
            return scores
        if self._num_scored < len(captions) or size != len(self._scores):
            ids = np.arange(self._num_scored, len(captions))
            scores = np.zeros(size, np.float32)
            scores[: self._num_scored] = self._scores[: self._num_scored]
            scores[ids] = self._worth(captions, ids)
            self._keep(ids, scores)
            self._scores, self._num_scored = scores, len(captions)
        return self._scores

    def _worth(self, captions: CaptionTable, ids: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        """Returns the model's scores, and 0 for what a person has muted: whatever the kind of reward."""
        return np.where(captions.muted[ids], np.float32(0.0), self.model.score(captions, ids))

    def _keep(self, ids: Int[np.ndarray, " N"], scores: Float[np.ndarray, " capacity"]) -> None:
        if len(self._latest) < len(scores):
            grown = np.full(len(scores), np.nan, np.float32)
            grown[: len(self._latest)] = self._latest
            self._latest = grown
        self._latest[ids] = scores[ids]

    @property
    def latest_scores(self) -> Float[np.ndarray, " capacity"]:
        """What each caption was worth when it last came up, NaN where it has not come up since the start."""
        return self._latest

    def arrays(self) -> Any:
        """Returns what a checkpoint must hold beside the device state of the trainer; () if nothing."""
        return (self.model.arrays(), self._step_state)

    def state_dict(self) -> dict[str, Any]:
        """Returns what else it must hold, as JSON values."""
        return {"kinds": self._kinds, "model": self.model.state_dict()}

    @property
    def _kinds(self) -> list[str]:
        return list(weights_of(self._config.reward))

    def load(self, arrays: Any, state: dict[str, Any], captions: CaptionTable) -> None:
        """Goes on from a checkpoint. A run whose kind of reward was changed learns it anew from the labels.

        Args:
            arrays: None if those of the checkpoint belong to another kind.
            captions: with their labels.
        """
        self._num_scored = 0
        if arrays is not None and list(state.get("kinds", self._kinds)) == self._kinds:
            model_arrays, self._step_state = arrays
            self.model.load(model_arrays, state["model"])
            return
        self.model.observe(captions, np.flatnonzero(captions.known).tolist())
