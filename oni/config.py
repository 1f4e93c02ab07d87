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
class RewardConfig:
    """What the agent is paid: extrinsic_coef * game + intrinsic_coef * score(caption) / N_episode^count_exponent.

    The schedule changes intrinsic_coef; normalisation divides the second part by its scale; a guard comes on top.
    """

    kind: Literal["none", "retrieval"] = "retrieval"
    """Where scores come from: `retrieval` takes the label of that very caption."""
    extrinsic_coef: float = 1.0
    """Weight of the game's own reward; 0 trains without it."""
    intrinsic_coef: float = 0.3
    """Weight of the scores of captions."""
    intrinsic_schedule: Literal["constant", "linear"] = "constant"
    """How intrinsic_coef changes: `linear` goes to intrinsic_final_coef, which it reaches at total_env_steps."""
    intrinsic_final_coef: float = 0.0
    """Weight of the scores at the end of a `linear` schedule."""
    use_probability: bool = False
    """Whether `retrieval` takes the probability of helpful instead of the label, where the annotator gave one."""
    normalize_intrinsic: bool = False
    """Whether scores are divided by the running standard deviation of their discounted return."""
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
    env: EnvConfig = EnvConfig()
    network: NetworkConfig = NetworkConfig()
    ppo: PPOConfig = PPOConfig()
    reward: RewardConfig = RewardConfig()
    annotator: AnnotatorConfig = AnnotatorConfig()
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
