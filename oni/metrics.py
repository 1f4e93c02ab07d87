"""What a run reports: windows over episodes, and the files that figures are written to."""

import json
import logging
import math
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from llm_annotator.mailbox import ClientHealth
from oni.errors import OniError

log = logging.getLogger(__name__)

METRICS: Mapping[str, str] = {
    "env_step": "steps so far, over all games",
    "wall_s": "seconds since this process began to train",
    "steps_per_s": "env steps a second since the last line",
    "devices": "devices that share games and learning",
    "success": "share of episodes that succeeded, over those that ended in the last two step limits",
    "return/extrinsic": "mean sum of the game's rewards over the same episodes",
    "episode/length": "mean length of the same episodes, in steps",
    "episode/score": "mean in-game score at the end of the same episodes (NetHack)",
    "episode/depth": "mean dungeon level on which they ended (NetHack)",
    "episode/max_depth": "mean deepest dungeon level that they reached (NetHack)",
    "episode/experience_level": "mean experience level at their end (NetHack)",
    "episode/gold": "mean gold carried at their end (NetHack)",
    "episode/turns": "mean turns on the game's own clock (NetHack)",
    "episode/achievements": "mean number of achievements of the same episodes (Craftax)",
    "episode/achievement/...": "share of the same episodes with that achievement, each on its own (Craftax)",
    "env/workers_replaced": "worker processes of games that died and were replaced, in this process of training",
    "reward/extrinsic": "mean extrinsic part of a step's reward, after its coefficient",
    "reward/intrinsic": "mean intrinsic part of a step's reward, after coefficient, episodic count and guard",
    "reward/intrinsic_coef": "coefficient of the intrinsic reward, as its schedule has it",
    "reward/intrinsic_std": "what scores are divided by: the running standard deviation of their discounted return",
    "reward/bonus": "mean bonus of a step for novelty (rnd, counts), before coefficient and guard",
    "reward_model/steps": "gradient steps that the reward model has done",
    "reward_model/labels": "labels, or pairs of captions, that it learns from",
    "reward_model/errors": "rounds of its learning that failed; the log says why",
    "reward_model/loss": "its mean loss over the last round of learning",
    "reward_model/heldout_accuracy": "share of the labels kept from learning that it gets right",
    "reward_model/heldout_auc": "probability that it puts a helpful one of them above an unhelpful one",
    "reward_model/heldout_log_loss": "mean negative log-likelihood of them, in nats",
    "reward_model/heldout_calibration_error": "expected calibration error over ten bins of them",
    "reward_model/pairs_asked": "pairs of captions drawn for comparison (ranking)",
    "reward_model/ties": "share of answered pairs whose two orders were answered against each other (ranking)",
    "reward_model/value_mean": "running mean of the values of captions, which is score 0 (ranking)",
    "reward_model/value_std": "their running standard deviation, which is score 1 (ranking)",
    "novelty/rnd_error": "mean error of RND's predictor on what it has just learned from",
    "novelty/rnd_scale": "what RND's bonus is divided by",
    "captions/distinct": "distinct captions seen in the run",
    "captions/labelled": "of those, captions that have a label",
    "captions/helpful": "of those, captions labelled helpful",
    "captions/coverage": "share of the last rollout's steps with a caption whose caption had a label",
    "annotator/connected": "1 if the annotator answered last time, else 0",
    "annotator/queued": "captions of this run that wait for an answer",
    "annotator/failed": "captions of this run that got no answer after every retry",
    "annotator/unparsed": "captions of this run whose answer could not be read",
    "annotator/dropped": "captions that fell out of a full queue (they are offered again)",
    "annotator/labels_per_s": "labels a second, lately",
    "annotator/in_flight": "questions under way for this run's labeler",
    "annotator/requests": "requests to the LLM since the annotator started, of this run's labeler",
    "annotator/failures": "of those, requests that failed (most are tried again)",
    "annotator/tokens_in": "tokens of prompts since the annotator started, of this run's labeler",
    "annotator/tokens_out": "tokens of answers, likewise",
    "annotator/cost": "what they cost by annotator.backend.price_in and price_out, null without prices",
    "annotator/saved_by_cache": "captions that had a label in the store when they were offered, so that none was asked",
    "annotator/saved_by_parts": "questions that asking by parts saved (annotator.labeler.parts)",
    "annotator/oldest_s": "for how long the caption offered first, by any run, has been without an answer",
    "annotator/wait_s": "median time from the offer of a caption to its answer, of the last 256",
    "annotator/concurrency": "requests that may be in flight at once now, over all servers",
    "annotator/endpoints_up": "servers of the LLM that answer",
    "annotator/budget_left": "smallest share that is left of a budget, null without one",
    "annotator/records_dropped": "moments and scores for `oni inspect` that the annotator never got, while it was away",
    "loss/policy": "clipped surrogate loss of PPO",
    "loss/value": "half the mean squared error of the value",
    "loss/entropy": "entropy of the policy, in nats",
    "loss/kl": "approximate KL divergence from the policy that played, in nats",
    "loss/clip_fraction": "share of ratios beyond the clipping distance",
    "loss/grad_norm": "global norm of the gradient before clipping",
}
"""Every figure of metrics.jsonl, but for the episode/... that an environment of your own names."""

EPISODE_STAT = "episode/"
"""Begins the names of figures of an episode."""


def annotator_metrics(health: ClientHealth) -> dict[str, float | int | None]:
    """Returns the figures of the annotator, `annotator/...`."""
    service = health.service
    return {
        "annotator/connected": int(health.connected),
        "annotator/queued": health.queued,
        "annotator/in_flight": health.in_flight,
        "annotator/failed": health.failed,
        "annotator/unparsed": health.unparsed,
        "annotator/dropped": health.dropped,
        "annotator/labels_per_s": health.labels_per_s,
        "annotator/requests": health.requests,
        "annotator/failures": service.failures,
        "annotator/tokens_in": service.tokens_in,
        "annotator/tokens_out": service.tokens_out,
        "annotator/cost": service.cost,
        "annotator/saved_by_cache": service.saved_by_cache,
        "annotator/saved_by_parts": service.saved_by_parts,
        "annotator/oldest_s": service.oldest_s,
        "annotator/wait_s": service.wait_s,
        "annotator/concurrency": service.concurrency,
        "annotator/endpoints_up": service.endpoints_up,
        "annotator/budget_left": service.budget_left,
        "annotator/records_dropped": health.records_dropped,
    }


class EpisodeTotals(NamedTuple):
    """Sums over the episodes that ended in one rollout."""

    episodes: int
    success: int
    extrinsic_return: float
    length: int
    stats: Mapping[str, float] = {}


EPISODES_A_GAME = 9
"""Episodes that ended in each game, on average, after which their means are reported. Those under way, one a game, are
then a tenth of all that began: for want of them a share such as `success` is off by a tenth at most."""


class EpisodeWindow:
    """Means over the episodes that ended in the last rollouts.

    The window spans two step limits of an episode. It says nothing before it spans one, or holds `EPISODES_A_GAME`:
    in a shorter one quick episodes, that is successes or early deaths, would count too often. Where episodes end long
    before their limit (Craftax: 10,000 steps) the second comes much sooner.
    """

    def __init__(self, *, num_steps: int, max_episode_steps: int, num_envs: int) -> None:
        self._enough = math.ceil(max_episode_steps / num_steps)
        self._enough_episodes = EPISODES_A_GAME * num_envs
        self._totals: deque[EpisodeTotals] = deque(maxlen=max(4, 2 * self._enough))

    def add(self, totals: EpisodeTotals) -> None:
        """Adds one rollout and forgets the oldest."""
        self._totals.append(totals)

    def means(self) -> dict[str, float]:
        """Returns the means by metric name; nothing while the window is too short to be fair."""
        episodes = sum(t.episodes for t in self._totals)
        fair = len(self._totals) >= self._enough or episodes >= self._enough_episodes
        if not fair or episodes == 0:
            return {}
        return {
            "success": sum(t.success for t in self._totals) / episodes,
            "return/extrinsic": sum(t.extrinsic_return for t in self._totals) / episodes,
            "episode/length": sum(t.length for t in self._totals) / episodes,
            **{f"{EPISODE_STAT}{name}": self._mean(name) for name in self._totals[-1].stats},
        }

    def _mean(self, name: str) -> float:
        """Returns the mean of a figure; rollouts from before it was there, in an older checkpoint, do not count."""
        having = [t for t in self._totals if name in t.stats]
        return sum(t.stats[name] for t in having) / max(1, sum(t.episodes for t in having))

    def state(self) -> list[list[Any]]:
        """Returns the window as JSON values."""
        return [list(t) for t in self._totals]

    def load(self, state: list[list[Any]]) -> None:
        """Restores what `state` returned."""
        self._totals.clear()
        self._totals.extend(EpisodeTotals(*totals) for totals in state)


class Speed:
    """Steps a second since the last reading."""

    def __init__(self) -> None:
        self._time = time.perf_counter()
        self._steps: int | None = None

    def read(self, env_step: int) -> float | None:
        """Returns the rate since the last call, None the first time (which would measure compilation)."""
        now = time.perf_counter()
        rate = None if self._steps is None else (env_step - self._steps) / (now - self._time)
        self._time, self._steps = now, env_step
        return rate


class MetricsWriter:
    """Appends metrics to `metrics.jsonl`, and to TensorBoard when asked."""

    def __init__(self, path: Path, *, tensorboard: bool) -> None:
        self._path = path
        self._failing = False
        self._board: Any = None
        if tensorboard:
            try:
                from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingTypeStubs]
            except ModuleNotFoundError:
                raise OniError("log.tensorboard needs: pip install 'oni-jax[tensorboard]'") from None
            self._board = SummaryWriter(str(path.parent / "tensorboard"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.close()

    def write(self, metrics: Mapping[str, float | int | None]) -> None:
        """Writes one line; numbers that are not finite become null, as JSON has none.

        A full disk is logged once, and the lines that do not fit are left out.
        """
        if unknown := {name for name in metrics.keys() - METRICS.keys() if not name.startswith(EPISODE_STAT)}:
            raise KeyError(f"metrics without a meaning in METRICS: {sorted(unknown)}")
        clean = {k: v if v is None or math.isfinite(v) else None for k, v in metrics.items()}
        try:
            self._append(clean)
        except OSError as error:
            if not self._failing:
                log.error("figures cannot be written: %s. Free disk space; training goes on", error)
            self._failing = True
        else:
            self._failing = False

    def _append(self, metrics: Mapping[str, float | int | None]) -> None:
        # opened each time: a file object whose flush failed would write the same bytes again, perhaps in part
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")
        if self._board is not None:
            for name, value in metrics.items():
                if value is not None:
                    self._board.add_scalar(name, value, metrics["env_step"])


def truncate_after(path: Path, env_step: int) -> None:
    """Drops the lines of `metrics.jsonl` past `env_step`, and a half-written last one.

    The resumed run writes them anew.
    """
    if not path.exists():
        return
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["env_step"] <= env_step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
