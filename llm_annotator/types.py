"""Records that the parts of the annotator hand to each other. Nothing here does any work."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple


class LabelStatus(StrEnum):
    """What became of a question. Only LABELLED carries a label; the others never count as unhelpful."""

    LABELLED = "labelled"
    UNPARSED = "unparsed"
    """The model answered, but neither allowed word could be read from the answer."""
    FAILED = "failed"
    """No answer came after every retry."""


class Message(NamedTuple):
    """One chat turn."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question to a model, in both forms that model servers take.

    captions: what is asked about, whole: one caption, or the two that are compared, in their order (scripted and
        replaying backends look at them).
    messages: system turn, worked examples as user/assistant turns, the question as the last user turn.
    text_prefix, text_suffix: the same as plain text for completion APIs; the prefix does not depend on the
        captions, so servers can cache it.
    choices: the two answer words, in the labeler's order (positive word first). Empty if the answer is free text.
    max_tokens: upper bound of the answer, in tokens.
    reasoned: False: the answer is one of the words at once, and the log-probabilities of its first token are wanted.
        True: the model writes down its thoughts, and one of the words in the final field (`forms`).
    stop: what ends an answer to the plain text, beside the model's own end: the start of a next example.
    """

    captions: tuple[bytes, ...]
    messages: tuple[Message, ...]
    text_prefix: str
    text_suffix: str
    choices: tuple[str, ...]
    max_tokens: int
    reasoned: bool = False
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What a model server answered.

    sent_prefix, sent_suffix: exactly what was sent (plain text, or the chat messages as JSON); their
        concatenation is the whole prompt. The prefix is what all captions of a labeler share.
    text: the raw answer; what a server gives apart as the model's thinking stands before it, in <think> tags.
    logprobs: natural log-probability of each alternative for the first answer token, by token text exactly as
        the server wrote it (leading space kept); None if the server gives none.
    tokens_in, tokens_out: as the server counted them, None if it does not say.
    latency_s: seconds from sending the request to the whole answer.
    constraint: the means by which the server bound the answer to the form asked for, empty if it did not.
    cut: the answer ended because `max_tokens` was reached.
    """

    sent_prefix: str
    sent_suffix: str
    text: str
    model: str
    latency_s: float
    logprobs: Mapping[str, float] | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    constraint: str = ""
    cut: bool = False


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a labeler read out of a completion.

    helpful: the answer is the positive word: the caption is helpful, or the first of two captions is the better one.
    score: log P(positive word) - log P(negative word) after calibration, in nats; None without log-probabilities.
    p_helpful: probability in [0, 1] that goes with `score` (its logistic), None likewise.
    detail: why there is no label, in words; empty when there is one.
    read_from: what the answer was read from: "log-probabilities", "constrained output (MEANS)" or "parsing"; empty if
        there was none.
    """

    status: LabelStatus
    helpful: bool | None
    p_helpful: float | None
    score: float | None
    detail: str = ""
    read_from: str = ""


@dataclass(frozen=True, kw_only=True)
class LabelUpdate:
    """News about one caption, as `AnnotatorClient.poll` returns it.

    source: "llm", or "human" where a person overruled the LLM.
    muted: a person wants this caption to earn nothing, whatever the reward model, and to be learned from by none.
        Such an update is one about a label, too: unhelpful.
    change: its place in the sequence of all changes of the store, 0 if not known. It says how old news is, not what.
    """

    caption: bytes
    status: LabelStatus
    helpful: bool | None
    p_helpful: float | None
    source: Literal["llm", "human"] = "llm"
    muted: bool = False
    change: int = field(default=0, compare=False)

    @property
    def subject(self) -> bytes:
        """What was asked about."""
        return self.caption


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One question about an ordered pair of captions, which of the two tells of more progress, and its answer.

    A model may favour a place: a preference is what the questions about both orders come to.

    first_better: None if there is no label.
    p_first: probability in [0, 1] that the first is better, None without log-probabilities.
    change: as in `LabelUpdate`.
    """

    first: bytes
    second: bytes
    status: LabelStatus
    first_better: bool | None
    p_first: float | None
    change: int = field(default=0, compare=False)

    @property
    def subject(self) -> tuple[bytes, bytes]:
        """What was asked about."""
        return (self.first, self.second)


@dataclass(frozen=True, kw_only=True)
class Occurrence:
    """How often one caption came up in one run, since the start of the run (totals, not increments).

    first_step, last_step: env_step (summed over environments) at the end of the rollout that showed it.
    reward_sum: intrinsic reward that it earned, after coefficient and episodic count.
    episode_count: episodes in which it came up, None if not counted.
    """

    caption: bytes
    count: int
    first_step: int
    last_step: int
    reward_sum: float
    episode_count: int | None = None


@dataclass(frozen=True, kw_only=True)
class SampledTransition:
    """One moment in which a caption was said, with some steps before and after it, for people to look at.

    env_step: of the step that said it, summed over environments.
    slot: its place, from 0, among the moments kept of that caption in that run; it replaces the one that has it.
    frames: what `llm_annotator.moments.pack_moment` returns.
    """

    caption: bytes
    env_step: int
    slot: int
    frames: bytes


@dataclass(frozen=True, kw_only=True)
class CaptionScore:
    """What the reward model of one run made of a caption at `env_step`."""

    caption: bytes
    env_step: int
    score: float


Subject = bytes | tuple[bytes, bytes]
"""What one question is about: a caption, or an ordered pair of them."""

News = LabelUpdate | Comparison
"""What `AnnotatorClient.poll` returns."""
