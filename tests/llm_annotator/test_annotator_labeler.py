"""How a labeler asks, reads answers, and what its id depends on; numbers are worked out by hand."""

import asyncio
import dataclasses
import math
from collections.abc import Mapping

import pytest

from llm_annotator.backends.scripted import ScriptedBackend, ScriptedOptions
from llm_annotator.config import LabelerConfig
from llm_annotator.errors import BackendUnreachable, ConfigError
from llm_annotator.labeler import Example, Labeler, LabelerSpec, resolve_labeler
from llm_annotator.types import Completion, LabelStatus, Message, Request

SPEC = LabelerSpec(
    goal="Cook {soup}.",
    instruction="Judge.",
    example_goal="Paint.",
    examples=(Example("You dip the brush.", "yes"), Example("Hm.", "no")),
    text_header="{instruction}\nG: {example_goal}\n",
    text_example="{caption} > {answer}\n",
    text_question="G: {goal}\n{caption} >",
    chat_system="{instruction} yes or no.",
    chat_question="{goal} {caption} Progress?",
)


def completion(logprobs: Mapping[str, float] | None, text: str = "?") -> Completion:
    return Completion(
        sent_prefix="",
        sent_suffix="",
        text=text,
        logprobs=logprobs,
        model="m",
        tokens_in=None,
        tokens_out=None,
        latency_s=0.0,
    )


def judge(logprobs: Mapping[str, float] | None, text: str = "?", **changes: object):
    return Labeler(dataclasses.replace(SPEC, **changes), "m").judge(completion(logprobs, text))  # pyright: ignore[reportArgumentType]


def logs(**probabilities: float) -> dict[str, float]:
    return {token.replace("_", " "): math.log(value) for token, value in probabilities.items()}


def test_request_holds_both_forms_of_the_question() -> None:
    request = SPEC.request(b"You boil\nwater. {goal}")
    assert request.text_prefix == "Judge.\nG: Paint.\nYou dip the brush. > yes\nHm. > no\nG: Cook {soup}.\n"
    assert request.text_suffix == "You boil water. {goal} >"
    assert request.messages == (
        Message("system", "Judge. yes or no."),
        Message("user", "Paint. You dip the brush. Progress?"),
        Message("assistant", "yes"),
        Message("user", "Paint. Hm. Progress?"),
        Message("assistant", "no"),
        Message("user", "Cook {soup}. You boil water. {goal} Progress?"),
    )
    assert request.choices == ("yes", "no")
    assert request.captions == (b"You boil\nwater. {goal}",)


def test_a_goal_that_holds_a_placeholder_does_not_split_the_question() -> None:
    spec = dataclasses.replace(SPEC, goal="Say {caption}.")
    request = spec.request(b"Hi.")
    assert request.text_prefix.endswith("G: Say {caption}.\n")
    assert request.text_suffix == "Hi. >"
    assert request.messages[-1].content == "Say {caption}. Hi. Progress?"


def test_prefix_is_the_same_for_every_caption() -> None:
    assert SPEC.request(b"a").text_prefix == SPEC.request(b"\xff\x00\n" * 500).text_prefix


def test_score_sums_the_ways_to_write_a_word() -> None:
    # P(yes) = 0.2 + 0.1 + 0.05 + 0.05 = 0.4, P(no) = 0.05 + 0.05 = 0.1: log 4.
    judgement = judge(logs(_yes=0.2, Yes=0.1, _YES=0.05, yes=0.05, _no=0.05, No=0.05, _yesterday=0.3))
    assert judgement.status is LabelStatus.LABELLED
    assert judgement.helpful is True
    assert judgement.score == pytest.approx(math.log(4))
    assert judgement.p_helpful == pytest.approx(0.8)
    assert judgement.detail == ""


@pytest.mark.parametrize("token", ["\u2581yes", "\u0120yes", "\u010ayes", "\nYes "])
def test_vocabulary_markers_count_as_space(token: str) -> None:
    assert judge({token: math.log(0.6), " no": math.log(0.3)}).score == pytest.approx(math.log(2))


def test_threshold_is_exclusive() -> None:
    even = logs(_yes=0.4, _no=0.4)
    assert judge(even).helpful is False
    assert judge(even, threshold=-0.01).helpful is True
    assert judge(logs(_yes=0.8, _no=0.1), threshold=2.2).helpful is False  # log 8 = 2.08


def test_missing_word_is_bounded_by_what_is_left_over() -> None:
    # 0.9 is accounted for; "no" has at most 0.1, so the score is at least log(0.7 / 0.1).
    judgement = judge(logs(_yes=0.7, _the=0.2))
    assert judgement.helpful is True
    assert judgement.score == pytest.approx(math.log(7))
    # "yes" has at most 0.1: the score is at most log(0.1 / 0.7).
    judgement = judge(logs(_no=0.7, _the=0.2))
    assert judgement.helpful is False
    assert judgement.score == pytest.approx(-math.log(7))


@pytest.mark.parametrize("present", ["_yes", "_no"])
def test_missing_word_that_may_still_win_is_no_label(present: str) -> None:
    judgement = judge(logs(**{present: 0.3, "_the": 0.2}))  # the other has at most 0.5
    assert judgement.status is LabelStatus.UNPARSED
    assert judgement.helpful is None
    assert judgement.score is None
    assert "not among the 2 alternatives" in judgement.detail


def test_alternatives_that_sum_to_one_still_give_a_finite_bound() -> None:
    judgement = judge({" yes": 0.0})
    assert judgement.helpful is True
    assert judgement.score is not None
    assert math.isfinite(judgement.score)


def test_neither_word_is_no_label() -> None:
    judgement = judge(logs(_I=0.5, _The=0.2), "I cannot say")
    assert judgement.status is LabelStatus.UNPARSED
    assert "'I cannot say'" in judgement.detail


def test_extreme_scores_do_not_overflow() -> None:
    assert judge({" yes": 0.0, " no": -9999.0}).p_helpful == 1.0
    assert judge({" no": 0.0, " yes": -9999.0}).p_helpful == 0.0


@pytest.mark.parametrize(
    ("text", "helpful"),
    [(" Yes.", True), ("yes", True), ("**No**, because", False), ("\n\nNO", False), ('"no"', False)],
)
def test_without_logprobs_the_first_word_counts(text: str, helpful: bool) -> None:
    judgement = judge(None, text)
    assert (judgement.status, judgement.helpful) == (LabelStatus.LABELLED, helpful)
    assert judgement.score is None
    assert judgement.p_helpful is None


@pytest.mark.parametrize("text", ["", "   ", "Not at all", "yesterday", "Maybe yes", "I think no", "\ufffd%"])
def test_without_logprobs_anything_else_is_no_label(text: str) -> None:
    judgement = judge(None, text)
    assert judgement.status is LabelStatus.UNPARSED
    assert judgement.helpful is None
    assert repr(text[:40]) in judgement.detail


def test_wire_form_comes_back_equal() -> None:
    assert LabelerSpec.from_wire(SPEC.to_wire()) == SPEC


def test_wire_form_of_another_version_is_refused() -> None:
    with pytest.raises(ConfigError, match="schema 99"):
        LabelerSpec.from_wire({**SPEC.to_wire(), "schema": 99})
    with pytest.raises(ConfigError, match="colour"):
        LabelerSpec.from_wire({**SPEC.to_wire(), "colour": "red"})
    short = SPEC.to_wire()
    del short["goal"]
    with pytest.raises(ConfigError, match="goal"):
        LabelerSpec.from_wire(short)


def test_id_depends_on_spec_and_model_alone() -> None:
    base = Labeler(SPEC, "m").id
    assert base == Labeler(LabelerSpec.from_wire(SPEC.to_wire()), "m").id
    others = [Labeler(SPEC, "n").id]
    changes = {"goal": "x", "threshold": 0.5, "calibration": "content_free", "examples": SPEC.examples[:1]}
    others += [Labeler(dataclasses.replace(SPEC, **{key: value}), "m").id for key, value in changes.items()]  # pyright: ignore[reportArgumentType]
    assert len({base, *others}) == 6


def test_id_is_the_same_on_every_machine() -> None:
    assert Labeler(SPEC, "m").id == "eb238c99e0a0cae1"


def test_calibration_subtracts_the_score_of_captions_that_say_nothing() -> None:
    spec = resolve_labeler(LabelerConfig(calibration="content_free"))
    # "N/A", "" and "[MASK]" are unhelpful to this pattern, each with the score that the rest below has.
    backend = ScriptedBackend(ScriptedOptions(helpful_pattern="door"))
    labeler = Labeler(spec, backend.model)

    async def scores() -> list[float | None]:
        await labeler.prepare(backend)
        await labeler.prepare(backend)
        return [labeler.judge(await backend.complete(labeler.request(text))).score for text in (b"door", b"rain")]

    helpful, unhelpful = asyncio.run(scores())
    assert labeler.offset == pytest.approx(-3.0 + 0.0513)
    assert helpful == pytest.approx(2 * (3.0 - 0.0513))
    assert unhelpful == pytest.approx(0.0)


class CountingBackend(ScriptedBackend):
    requests = 0

    async def complete(self, request: Request) -> Completion:
        self.requests += 1
        return await super().complete(request)


def test_calibration_happens_once_however_many_ask() -> None:
    backend = CountingBackend(ScriptedOptions(latency_s=0.01))
    labeler = Labeler(dataclasses.replace(SPEC, calibration="content_free"), backend.model)

    async def prepare() -> None:
        await asyncio.gather(*[labeler.prepare(backend) for _ in range(5)])

    asyncio.run(prepare())
    assert backend.requests == 3


def test_calibration_that_fails_can_be_tried_again() -> None:
    backend = ScriptedBackend(ScriptedOptions(fail_first=1))
    labeler = Labeler(dataclasses.replace(SPEC, calibration="content_free"), backend.model)

    async def prepare() -> None:
        for _ in range(3):  # each of the three captions fails once
            with pytest.raises(BackendUnreachable):
                await labeler.prepare(backend)
            assert labeler.offset is None
        await labeler.prepare(backend)

    asyncio.run(prepare())
    assert labeler.offset is not None


def test_calibration_without_logprobs_is_refused() -> None:
    backend = ScriptedBackend(ScriptedOptions(logprobs=False))
    labeler = Labeler(dataclasses.replace(SPEC, calibration="content_free"), backend.model)
    with pytest.raises(ConfigError, match="calibration to 'none'"):
        asyncio.run(labeler.prepare(backend))


def test_a_calibrated_labeler_cannot_judge_before_it_is_prepared() -> None:
    labeler = Labeler(dataclasses.replace(SPEC, calibration="content_free"), "m")
    with pytest.raises(RuntimeError, match="prepare"):
        labeler.judge(completion(logs(_yes=0.5, _no=0.5)))
