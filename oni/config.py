"""Settings of a run: frozen dataclasses, whose annotations carry the allowed ranges.

A run's settings come from these defaults, then a YAML file, then the command line (see `oni.configfile`).
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from llm_annotator.config import AnnotatorConfig

PositiveInt = Annotated[int, Gt(0)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
NonNegativeInt = Annotated[int, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True)
class EnvConfig:
    """What is played."""

    id: str = "xminigrid:MiniGrid-BlockedUnlockPickUp"
    """Environment: see `oni envs`, or `package.module:factory` for your own."""
    num_envs: PositiveInt = 256
    """Games that step at once (B)."""
    options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Options of that environment."""
    num_groups: PositiveInt = 2
    """Groups of games outside JAX: one steps while the policy acts for another."""
    num_workers: PositiveInt | None = None
    """Processes that games outside JAX run in; one per core by default."""
    step_timeout_s: Positive = 60.0
    """Seconds after which a game outside JAX that does not answer is ended and replaced."""
    resume_games: bool = True
    """Whether --resume brings running episodes outside JAX back by replaying them, or starts new ones."""


@dataclass(frozen=True)
class NetworkConfig:
    """Policy and value network."""

    encoder: Literal["small", "large"] = "small"
    """`large` reads NetHack's whole map and messages by convolutions (needs env.options.observation full)."""
    embed_size: PositiveInt = 8
    """Features of one cell of a categorical observation."""
    hidden_size: PositiveInt = 64
    """Features of an observation."""
    core: Literal["gru", "lstm", "none"] = "gru"
    """Recurrence; `none` for a policy without memory."""
    core_size: PositiveInt = 64
    """Units of the recurrence."""


@dataclass(frozen=True)
class PPOConfig:
    """How the policy is learned."""

    num_steps: PositiveInt = 64
    """Steps of each game between two updates (T)."""
    num_epochs: PositiveInt = 2
    """Passes over each rollout."""
    num_minibatches: PositiveInt = 4
    """Parts of the games that each gradient step sees; must divide env.num_envs."""
    learning_rate: Positive = 1e-3
    """Step size of Adam."""
    anneal_learning_rate: bool = False
    """Whether the step size falls linearly to 0 at total_env_steps."""
    discount: Fraction = 0.99
    """Worth of a reward one step later."""
    value_heads: Literal[1, 2] = 1
    """1: one value of all reward. 2: the values of the game's own reward and of the intrinsic one apart."""
    intrinsic_discount: Fraction = 0.99
    """Worth of an intrinsic reward one step later (with two value heads)."""
    intrinsic_episodic: bool = True
    """Whether the intrinsic return ends with the episode, or runs on into the next one (with two value heads)."""
    gae_lambda: Fraction = 0.95
    """From 0, advantages that trust the value, to 1, those that trust the returns."""
    clip_eps: Positive = 0.2
    """Distance from 1 at which the probability ratio is clipped."""
    value_clip_eps: Positive | None = None
    """Distance at which a change of the value is clipped; none by default."""
    value_coef: NonNegative = 0.5
    """Weight of the value loss."""
    entropy_coef: NonNegative = 0.01
    """Weight of the entropy of the policy."""
    max_grad_norm: Positive = 0.5
    """Global norm to which gradients are clipped."""
    normalize_advantage: bool = True
    """Whether advantages get mean 0 and variance 1 in each minibatch."""
    overlap: bool | None = None
    """Whether games outside JAX play on while the policy learns, one update behind; by default only beside a GPU or
    TPU."""


@dataclass(frozen=True)
class RewardLearnerConfig:
    """How a reward model learns from labels or preferences.

    The defaults suit a CPU. Those of the paper: encoder cnn, learning_rate 1e-4, batch_size 256, steps_per_arrival 32.
    """

    encoder: Literal["ngrams", "cnn"] = "ngrams"
    """How a caption is read: `ngrams` by hashed pieces of its text (cheap), `cnn` by convolutions over its bytes."""
    learning_rate: Positive = 2e-3
    """Step size of Adam."""
    batch_size: PositiveInt = 64
    """Labels, or pairs of captions, in each gradient step."""
    steps_per_arrival: NonNegativeInt = 8
    """Gradient steps each time that labels came in, as long as there are fewer than early_labels."""
    early_labels: NonNegativeInt = 25_000
    """Labels from which on news brings no steps of their own."""
    steps_per_update: NonNegativeInt = 1
    """Gradient steps after each update of the policy."""
    held_out: Annotated[float, Ge(0), Le(0.5)] = 0.1
    """Share of the labels that is kept from learning and measures the model; which ones, the text decides."""
    min_labels: PositiveInt = 32
    """Labels before anything is scored."""
    class_balance: bool = False
    """Whether helpful and unhelpful labels weigh the same in sum, however many there are of each (classification)."""
    soft_labels: bool = False
    """Whether the annotator's probability is learned instead of its label, where it gave one."""
    max_caption_bytes: PositiveInt = 256
    """Bytes of a caption that are read; the `cnn` needs at least 123."""
    ngram_buckets: Annotated[int, Ge(2)] = 4096
    """Pieces told apart by `ngrams`; with more, some share one."""
    ngram_size: PositiveInt = 32
    """Features of a piece and of a caption in `ngrams`."""
    in_background: bool = True
    """Whether a thread of its own learns, so that the training never waits for it; otherwise the same seed and the
    same labels give the same scores."""


@dataclass(frozen=True)
class PreferenceConfig:
    """Which pairs of captions `ranking` has compared."""

    reservoir: PositiveInt = 1000
    """Captions that pairs are drawn from: those that came up last."""
    sampling: Literal["uniform", "frequency"] = "uniform"
    """Whether captions are drawn all alike, or as often as they come up."""
    pairs_per_update: PositiveInt = 8
    """Pairs drawn after an update at most; each is asked in both orders. No more while twice as many questions wait."""


@dataclass(frozen=True)
class RNDConfig:
    """How `rnd` learns what is not new any more."""

    feature_size: PositiveInt = 32
    """Features of an observation that are predicted."""
    embed_size: PositiveInt = 4
    """Features of one cell of a categorical observation."""
    learning_rate: Positive = 1e-3
    """Step size of Adam."""
    learn_share: Annotated[float, Gt(0), Le(1)] = 0.125
    """Share of each rollout's steps that is learned from."""
    num_minibatches: PositiveInt = 8
    """Gradient steps after each rollout."""
    discount: Fraction = 0.99
    """Of the sum of errors whose running standard deviation the bonus is divided by."""


RewardKind = Literal["none", "retrieval", "classification", "ranking", "embedding", "offline", "rnd", "counts"]

ANNOTATED_KINDS = frozenset({"retrieval", "classification", "ranking"})
"""Those that an LLM must be asked for."""


@dataclass(frozen=True)
class RewardConfig:
    """What the agent is paid: extrinsic_coef * game + intrinsic_coef * score(caption) / N_episode^count_exponent.

    The schedule changes intrinsic_coef; normalisation divides the second part by its scale; a guard comes on top.
    """

    kind: RewardKind = "retrieval"
    """Where intrinsic reward comes from. `retrieval`: the label of that very caption. `classification`, `ranking`: a
    network that learns from labels, or from preferences. `offline`: one that `oni distill` made. `embedding`: likeness
    of caption and goal, without an LLM. `rnd`, `counts`: novelty of what is seen, without captions."""
    add: RewardKind | None = None
    """Another kind that is added to it."""
    add_weight: float = 1.0
    """What the scores of `add` are multiplied by."""
    threshold: float | None = None
    """What a score must be above to be paid: probability of helpful (`classification`, by default 0.5), standard
    deviations (`ranking`, -0.5), cosine (`embedding`, none)."""
    path: str | None = None
    """File of `oni distill` (`offline`)."""
    goal_text: str | None = None
    """What captions are compared with (`embedding`); by default the goal of annotator.labeler.goal."""
    baseline_text: str | None = None
    """Says what is ordinary; what has nothing to do with the way from there to the goal counts less (`embedding`)."""
    baseline_strength: Fraction = 0.5
    """How much less, with baseline_text; 1 leaves it out altogether."""
    extrinsic_coef: float = 1.0
    """Weight of the game's own reward; 0 trains without it."""
    intrinsic_coef: float = 0.3
    """Weight of the scores of captions."""
    intrinsic_schedule: Literal["constant", "linear"] = "constant"
    """How intrinsic_coef changes: `linear` goes to intrinsic_final_coef, which it reaches at total_env_steps."""
    intrinsic_final_coef: float = 0.0
    """Weight of the scores at the end of a `linear` schedule."""
    use_probability: bool = False
    """Whether the probability of helpful is paid instead of 1: that of the label where the annotator gave one
    (`retrieval`), or the model's own (`classification`, `offline`)."""
    normalize_intrinsic: bool = False
    """Whether scores are divided by the running standard deviation of their discounted return."""
    learner: RewardLearnerConfig = RewardLearnerConfig()
    preferences: PreferenceConfig = PreferenceConfig()
    rnd: RNDConfig = RNDConfig()
    guard: Literal["none", "clip", "delta", "gate"] = "none"
    """Against reward hacking: `clip` bounds what an episode may earn, `delta` pays only for a score above that of the
    step before, `gate` pays nothing before the game has paid more than guard_limit in that episode."""
    guard_limit: NonNegative | None = None
    """The most intrinsic reward of an episode (`clip`), or the sum of the game's own reward to be passed (`gate`)."""
    count_exponent: NonNegative = 3.0
    """How fast the same caption loses worth within an episode."""
    count_slots: PositiveInt = 1024
    """Captions counted apart in each game; with more of them than slots, some share one."""


GUARDS_WITH_LIMIT = ("clip", "gate")
"""Values of `reward.guard` that need `reward.guard_limit`."""


@dataclass(frozen=True)
class SamplingConfig:
    """What a run with an annotator keeps for people to look at: moments in which captions were said, and scores."""

    moments: Annotated[int, Ge(0), Le(16)] = 4
    """Moments kept of each caption, spread over the run; 0 keeps none."""
    before: Annotated[int, Ge(0), Le(64)] = 8
    """Steps of a moment before the one that said the caption; fewer at the start of an episode or a rollout."""
    after: Annotated[int, Ge(0), Le(64)] = 4
    """Steps after it; fewer at their end."""
    per_s: Positive = 2.0
    """Moments taken a second, at most on average."""
    max_mb: Positive = 200.0
    """Megabytes that the moments of a run take in the store, about."""
    scores_every_s: Positive = 30.0
    """Seconds between two reports of the scores that changed."""


@dataclass(frozen=True)
class CheckpointConfig:
    """When the run is saved."""

    every_s: Positive = 120.0
    """Seconds between two checkpoints; the run is also saved when it ends or is stopped."""
    keep: PositiveInt = 2
    """Checkpoints kept."""


@dataclass(frozen=True)
class LogConfig:
    """What is written while the run goes on."""

    every_updates: PositiveInt = 5
    """Updates between two lines of metrics.jsonl."""
    tensorboard: bool = False
    """Also write TensorBoard files (needs the extra `tensorboard`)."""


@dataclass(frozen=True)
class TrainConfig:
    """One run."""

    name: str = "run"
    """Begins the name of the run directory."""
    seed: Annotated[int, Ge(0)] = 0
    """All randomness of games and learning comes from it; when labels arrive does not."""
    total_env_steps: PositiveInt = 4_000_000
    """Steps summed over all games."""
    devices: PositiveInt | Literal["auto"] = "auto"
    """GPUs or TPUs that share games and learning; `auto` for all of this machine. Must divide env.num_envs."""
    env: EnvConfig = EnvConfig()
    network: NetworkConfig = NetworkConfig()
    ppo: PPOConfig = PPOConfig()
    reward: RewardConfig = RewardConfig()
    annotator: AnnotatorConfig = AnnotatorConfig()
    sampling: SamplingConfig = SamplingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()

    @property
    def steps_per_update(self) -> int:
        """Steps of all games between two updates."""
        return self.env.num_envs * self.ppo.num_steps

    @property
    def num_updates(self) -> int:
        """Updates of the whole run; the last one passes `total_env_steps`."""
        return -(-self.total_env_steps // self.steps_per_update)
