"""Answers with thoughts: only the final field is read, and one that cannot be read is asked for once more."""

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from llm_annotator.config import LabelerConfig
from llm_annotator.errors import BackendAnswerInvalid, BackendError, BackendOverloaded, BackendRejected, ConfigError
from llm_annotator.forms import Form, after_thinking, is_exactly, read_choice, read_final
from llm_annotator.labeler import Answered, Labeler, LabelerSpec, resolve_labeler
from llm_annotator.promptfiles import names
from llm_annotator.types import Completion, LabelStatus, Message, Request

SPEC = resolve_labeler(LabelerConfig(method="reasoned", max_tokens=100))
WORDS = ("yes", "no")
PROMPTS = Path(__file__).parents[2] / "llm_annotator" / "prompts"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("It opens.\nAnswer: yes", "yes"),
        ("Answer: no", "no"),
        ("I see.\n\n**Answer:** Yes.\n\n", "yes"),
        ("Hm.\n> answer : `NO`", "no"),
        ('{"thoughts": "Answer: no", "answer": "yes"}', "yes"),
        ('```json\n{"thoughts": "?", "answer": "no"}\n```', "no"),
        ("<think>\nAnswer: yes\n</think>\nSo:\nAnswer: no", "no"),
        ("Answer: yes\n=== asked again ===\nAnswer: yes or no?\n=== answered ===\nAnswer: no", "no"),
    ],
)
def test_final_field_is_read(text: str, word: str) -> None:
    assert read_final(text, WORDS) == word


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes",
        "The answer is yes.",
        "Answer: yes\nBut then again, it may not be.",
        "Answer: yes or no",
        "Answer: maybe",
        "Answer: yes, since the door is open",
        "The final Answer: yes",
        "Answer:",
        "Answer: yes\n=== cut ===",
        "Answer: yes\n=== asked again ===\nAgain?\n=== answered ===\nI do not know.",
        "<think>\nso\nAnswer: yes",
        "<think>\nso\nAnswer: yes\n</think>",
        '{"thoughts": "Answer: yes"}',
        '{"answer": "maybe"}',
        '{"answer": ["yes"]}',
        '["Answer: yes"]',
        '{"thoughts": "cut of\nAnswer: yes"}',
        "[" * 100_000,
    ],
)
def test_nothing_else_is_read(text: str) -> None:
    assert read_final(text, WORDS) is None


def test_long_lines_are_read_in_no_time() -> None:
    """A reader that tried every way to take a line apart would need hours for these."""
    for filler in ("_*", " ", "`", "Answer", "Answer:", "```json\n", "<think>", "</think"):
        assert read_final(filler * 100_000 + "@", WORDS) is None
        assert read_choice(filler * 100_000 + "@", WORDS) is None


def test_choice_is_read_from_json_and_after_thinking() -> None:
    assert read_choice('{"answer": "Yes"}', WORDS) == "yes"
    assert read_choice("<think>yes?</think>\n\nno", WORDS) == "no"
    assert read_choice("<think>yes", WORDS) is None
    assert read_choice(" yes\nYou open", WORDS) == "yes"
    assert read_choice("No idea, sorry.", WORDS) is None
    assert after_thinking("<THINKING>a</thinking> b <think>c</think>d") == "d"
    assert is_exactly(" Yes\n", WORDS)
    assert not is_exactly("yes, it is", WORDS)


@pytest.mark.parametrize("words", [("yes", "no"), ("c++", "no.")])
@pytest.mark.parametrize("reasoned", [True, False])
def test_all_ways_to_bind_a_server_mean_the_same_form(words: tuple[str, str], reasoned: bool) -> None:
    form = Form(words, reasoned=reasoned, max_tokens=20, lead="" if reasoned else " ")
    pattern = re.compile(form.regex())
    good = [f"So it is.\nAnswer: {words[1]}"] if reasoned else [f" {words[0]}", f" {words[1]}"]
    for text in good:
        assert pattern.fullmatch(text)
    for text in ("", "maybe", f"Answer: {words[0]}", f"a\nb\nAnswer: {words[0]}", f"{'x' * 43}\nAnswer: {words[0]}"):
        assert not pattern.fullmatch(text)  # 12 tokens of thoughts are 42 characters
    schema = form.json_schema()
    assert schema["properties"]["answer"]["enum"] == list(words)
    assert list(schema["properties"])[-1] == "answer", "the thoughts come first"
    assert all(json.dumps(choice) in form.grammar() for choice in (words if reasoned else form.choices()))


def test_request_asks_for_thoughts_and_bounds_them() -> None:
    request = SPEC.request(b"You open the door.")
    assert (request.reasoned, request.max_tokens, request.choices) == (True, 100, ("yes", "no"))
    assert request.text_suffix == "You open the door.\nThoughts:"
    assert request.stop == ("\n\nEvent:",)
    assert request.messages[2].content.endswith("One step is done.\nAnswer: yes")
    choice = resolve_labeler(LabelerConfig()).request(b"Hi.")
    assert (choice.reasoned, choice.max_tokens, choice.stop) == (False, 3, ())


class Script:
    """Answers what it is told to, in turn."""

    def __init__(self, answers: Sequence[str | BackendError], *, cut: bool = False) -> None:
        self.answers = list(answers)
        self.cut = cut
        self.asked: list[Request] = []

    async def complete(self, request: Request) -> Completion:
        self.asked.append(request)
        answer = self.answers[len(self.asked) - 1]
        if isinstance(answer, BackendError):
            raise answer
        return Completion(
            sent_prefix="the prompt, ",
            sent_suffix=f"number {len(self.asked)}",
            text=answer,
            logprobs=None,
            model="m",
            tokens_in=100 * len(self.asked),
            tokens_out=10,
            latency_s=0.5,
            cut=self.cut and len(self.asked) == 1,
        )


def ask(script: Script, spec: LabelerSpec = SPEC) -> Answered:
    return asyncio.run(Labeler(spec, "m").ask(script.complete, b"You open the {goal}."))


def test_answer_that_can_be_read_is_asked_for_once() -> None:
    script = Script(["It opens.\nAnswer: yes"])
    answered = ask(script)
    assert len(script.asked) == 1
    assert answered.judgement.helpful is True
    assert (answered.judgement.score, answered.judgement.p_helpful) == (None, None)
    assert answered.judgement.read_from == "parsing"


def test_second_question_repeats_the_first_and_both_answers_are_kept() -> None:
    script = Script(["I would say yes.", "Hm.\nAnswer: no"])
    answered = ask(script)
    first, second = script.asked
    assert answered.judgement.helpful is False, "the word in the first answer is not read"
    assert second.messages[: len(first.messages)] == first.messages
    said, again = second.messages[len(first.messages) :]
    assert said == Message("assistant", "I would say yes.")
    assert again.content == f"{SPEC.again}\n{first.messages[-1].content}"
    assert second.text_suffix.startswith(f"{first.text_suffix}I would say yes.\n\n{SPEC.again}")
    assert second.text_suffix.endswith("You open the {goal}.\nThoughts:")
    completion = answered.completion
    assert completion.text == (
        f"I would say yes.\n=== asked again ===\n{again.content}\n=== answered ===\nHm.\nAnswer: no"
    )
    assert (completion.tokens_in, completion.tokens_out, completion.latency_s) == (300, 20, 1.0)
    assert completion.sent_prefix + completion.sent_suffix == "the prompt, number 1"


def test_after_the_second_answer_there_is_no_label() -> None:
    script = Script(["Yes!", "I told you: yes!", "Answer: yes"])
    answered = ask(script)
    assert len(script.asked) == 2
    assert answered.judgement.status is LabelStatus.UNPARSED
    assert "'I told you: yes!'" in answered.judgement.detail
    assert "'Answer: yes' or 'Answer: no'" in answered.judgement.detail
    assert "Yes!" in answered.completion.text
    assert "I told you: yes!" in answered.completion.text


def test_what_is_kept_reads_the_same_when_it_is_replayed() -> None:
    for answers in (["?", "Answer: no"], ["Answer: yes", "?"], ["?", "?"]):
        answered = ask(Script(answers, cut=True))
        again = ask(Script([answered.completion.text]))
        assert again.judgement.helpful == answered.judgement.helpful
        assert again.completion.text == answered.completion.text


def test_answer_that_was_cut_is_asked_for_again() -> None:
    script = Script(["It is long.\nAnswer: yes", "Answer: no"], cut=True)
    assert ask(script).judgement.helpful is False
    assert len(script.asked) == 2


@pytest.mark.parametrize("error", [BackendRejected("too long"), BackendAnswerInvalid("garbled")])
def test_a_second_question_that_is_refused_leaves_no_label(error: BackendError) -> None:
    answered = ask(Script(["Yes!", error]))
    assert answered.judgement.status is LabelStatus.UNPARSED
    assert "asked once more" in answered.judgement.detail
    assert answered.completion.text == "Yes!"


def test_a_server_that_is_down_at_the_second_question_is_a_fault_of_the_server() -> None:
    with pytest.raises(BackendOverloaded):
        ask(Script(["Yes!", BackendOverloaded("busy")]))


def test_a_huge_answer_is_not_sent_back_whole() -> None:
    script = Script(["x" * 1_000_000, "Answer: yes"])
    assert ask(script).judgement.helpful is True
    assert len(script.asked[1].messages[-2].content) == 4000


def test_choice_is_never_asked_again() -> None:
    script = Script(["Perhaps."])
    answered = ask(script, resolve_labeler(LabelerConfig()))
    assert answered.judgement.status is LabelStatus.UNPARSED


def test_labelers_of_before_keep_their_ids() -> None:
    """The literals are the ids that these settings had before there was another method."""
    spec = resolve_labeler(LabelerConfig())
    assert Labeler(spec, "m").id == "be849e34ab853576"
    compare = resolve_labeler(LabelerConfig(), question="preference")
    assert Labeler(compare, "m").id == "358c326cc9764364"
    assert not {"max_tokens", "again"} & {*spec.to_wire(), *compare.to_wire()}


def test_each_setting_of_a_reasoned_labeler_makes_another_one() -> None:
    specs = [SPEC, replace(SPEC, max_tokens=50), replace(SPEC, again="What?"), resolve_labeler(LabelerConfig())]
    assert len({Labeler(spec, "m").id for spec in specs}) == 4
    assert LabelerSpec.from_wire(json.loads(json.dumps(SPEC.to_wire()))) == SPEC
    pairs = resolve_labeler(LabelerConfig(method="reasoned"), question="preference")
    assert LabelerSpec.from_wire(json.loads(json.dumps(pairs.to_wire()))) == pairs


def test_wire_with_an_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="no answer method 'guess', only choice, reasoned"):
        LabelerSpec.from_wire(SPEC.to_wire() | {"method": "guess"})


@pytest.mark.parametrize("goal", names("goals"))
def test_every_goal_can_be_reasoned_about(goal: str) -> None:
    spec = resolve_labeler(LabelerConfig(method="reasoned", goal=goal))
    assert spec.goal in spec.request(b"Hi.").text_prefix
    assert spec.threshold == 0.0
    assert spec.examples == SPEC.examples, "a goal's own examples come without thoughts"


@pytest.mark.parametrize("changes", [{"threshold": 0.5}, {"calibration": "content_free"}])
def test_scores_are_not_to_be_had(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="gives no scores"):
        resolve_labeler(LabelerConfig(method="reasoned", **changes))  # pyright: ignore[reportArgumentType]


def test_prompt_of_the_other_method_is_refused_with_those_that_fit() -> None:
    with pytest.raises(ConfigError, match=r"method `choice`.*method `reasoned`.*\(reason, or a file"):
        resolve_labeler(LabelerConfig(method="reasoned", prompt="progress"))
    with pytest.raises(ConfigError, match=r"method `reasoned`.*\(outcome, progress, or a file"):
        resolve_labeler(LabelerConfig(prompt="reason"))
    with pytest.raises(ConfigError, match=r"\(reason-compare, or a file"):
        resolve_labeler(LabelerConfig(method="reasoned", prompt="reason"), question="preference")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": "guess"}, "no method 'guess'"),
        ({"again": None}, "missing again"),
        ({"text_example": "{caption}: {thoughts} {answer}"}, "must hold .*Answer: {answer}"),
        ({"examples": [{"caption": "a", "answer": "yes"}]}, "'caption', 'thoughts' and 'answer'"),
        ({"method": "choice"}, "'again' belongs to prompts with `method: reasoned`"),
    ],
)
def test_prompt_file_that_is_wrong_is_refused(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    content = yaml.load((PROMPTS / "reason.yaml").read_text(), Loader=yaml.BaseLoader) | changes
    path = tmp_path / "prompt.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    with pytest.raises(ConfigError, match=says):
        resolve_labeler(LabelerConfig(method="reasoned", prompt=str(path)))
