"""Goal and prompt files: those that ship are what they were, and those of users are checked."""

from pathlib import Path

import pytest

from llm_annotator.config import LabelerConfig
from llm_annotator.errors import ConfigError
from llm_annotator.labeler import Example, LabelerSpec, resolve_labeler
from llm_annotator.promptfiles import load_prompt, names
from llm_annotator.types import Subject

GOLDEN = Path(__file__).parents[1] / "golden"
CAPTION = b"You pick up the red ball."
SUBJECTS: dict[str, Subject] = {"label": CAPTION, "preference": (CAPTION, b"You bump into a wall.")}


def resolve(prompt: str, goal: str = "minigrid") -> LabelerSpec:
    fields = load_prompt(prompt)
    return resolve_labeler(
        LabelerConfig(goal=goal, prompt=prompt, method=fields["method"]), question=fields["question"]
    )


def render(spec: LabelerSpec) -> str:
    """Returns both forms of one question, as the golden files hold them."""
    request = spec.request(SUBJECTS[spec.question])
    turns = [f"[{message.role}]\n{message.content}\n" for message in request.messages]
    return f"=== text\n{request.text_prefix}|{request.text_suffix}|\n=== chat\n{''.join(turns)}"


def shipped() -> list[tuple[str, str]]:
    """Returns each prompt with each goal; of a goal, those that let the model think take nothing but its sentence."""
    return [
        (prompt, goal)
        for prompt in names("prompts")
        for goal in names("goals")
        if load_prompt(prompt)["method"] == "choice" or goal == "minigrid"
    ]


def rewrite_golden() -> None:
    """Writes the golden files anew: `python -m tests.llm_annotator.test_annotator_prompts`; then read the diff."""
    for prompt, goal in shipped():
        (GOLDEN / f"prompt_{prompt}_{goal}.txt").write_text(render(resolve(prompt, goal)))


@pytest.mark.parametrize(("prompt", "goal"), shipped())
def test_shipped_prompt_is_the_golden_one(prompt: str, goal: str) -> None:
    golden = (GOLDEN / f"prompt_{prompt}_{goal}.txt").read_text()
    assert render(resolve(prompt, goal)) == golden


@pytest.mark.parametrize("prompt", names("prompts"))
def test_shipped_examples_are_balanced_and_of_another_world(prompt: str) -> None:
    spec = resolve(prompt)
    captions = [getattr(example, name) for example in spec.examples for name in spec.asking.placeholders]
    assert len(set(captions)) == len(captions)
    assert len(captions) == (4 if spec.method == "reasoned" and spec.question == "label" else 8)
    assert [example.answer for example in spec.examples].count(spec.positive) * 2 == len(spec.examples)
    words = " ".join(captions).casefold()
    things = ("key", "door", "ball", "square", "pyramid", "hex", "star", "goal")
    assert not [thing for thing in things if thing in words]


def test_goal_may_be_a_sentence() -> None:
    assert resolve_labeler(LabelerConfig(goal="  Find  the\nAmulet. ")).goal == "Find the Amulet."


def test_settings_reach_the_spec() -> None:
    spec = resolve_labeler(LabelerConfig(threshold=0.7, calibration="content_free"))
    assert (spec.threshold, spec.calibration, spec.method) == (0.7, "content_free", "choice")


def test_wrong_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no goal 'minigird': did you mean 'minigrid'\? There are: .*doorkey"):
        resolve_labeler(LabelerConfig(goal="minigird"))
    with pytest.raises(ConfigError, match=r"no prompt 'progres': did you mean 'progress'\?"):
        resolve_labeler(LabelerConfig(prompt="progres"))
    with pytest.raises(ConfigError, match=r"no file 'mine.yaml'.*minigrid"):
        resolve_labeler(LabelerConfig(goal="mine.yaml"))


def test_goal_brings_its_prompt_examples_and_threshold(tmp_path: Path) -> None:
    path = goal_file(tmp_path)
    spec = resolve_labeler(LabelerConfig(goal=path))
    assert (spec.positive, spec.negative, spec.threshold) == ("success", "failure", -0.25)
    assert (spec.goal, spec.example_goal) == ("Win it.", "Win it.")
    assert spec.examples == (Example("You score.", "success"), Example("You trip.", "failure"))


def test_settings_win_over_the_goal(tmp_path: Path) -> None:
    path = goal_file(tmp_path)
    assert resolve_labeler(LabelerConfig(goal=path, threshold=0.0)).threshold == 0.0
    # The examples speak of the goal's game and stay; the threshold was measured with another prompt.
    spec = resolve_labeler(LabelerConfig(goal=path, prompt="progress"))
    assert (spec.positive, spec.threshold) == ("yes", 0.0)
    assert spec.examples == (Example("You score.", "yes"), Example("You trip.", "no"))
    assert resolve_labeler(LabelerConfig(goal=path, prompt="outcome")).threshold == -0.25
    assert resolve_labeler(LabelerConfig(goal=path, calibration="content_free")).threshold == 0.0


def test_goal_may_name_a_prompt_file_beside_it(tmp_path: Path) -> None:
    prompt_file(tmp_path, positive="aye", examples="[]")
    spec = resolve_labeler(LabelerConfig(goal=goal_file(tmp_path, prompt="prompt.yaml")))
    assert (spec.positive, spec.threshold) == ("aye", -0.25)
    assert spec.examples[0] == Example("You score.", "aye")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"goal": None}, "missing goal"),
        (
            {"examples": "[{caption: a, label: good}]"},
            "label of example 1 is 'good', neither 'helpful' nor 'unhelpful'",
        ),
        ({"examples": "[{caption: a, answer: helpful}]"}, "example 1 must have the keys 'caption' and 'label'"),
        ({"examples": "yes"}, "'examples' must be a list of caption and label"),
        ({"threshold": "high"}, "'threshold' must be a number, not 'high'"),
        ({"threshold": "nan"}, "'threshold' must be a number"),
        ({"threshold": "[1]"}, "'threshold' must be a number"),
        ({"prompt": "outcom"}, "no prompt 'outcom': did you mean 'outcome'"),
        ({"prompt": "none.yaml"}, "there is no file"),
    ],
)
def test_goal_file_with_a_wrong_value_is_refused(tmp_path: Path, changes: dict[str, str | None], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve_labeler(LabelerConfig(goal=goal_file(tmp_path, **changes)))


def goal_file(tmp_path: Path, **changes: str | None) -> str:
    lines = {
        "goal": "Win it.",
        "prompt": "outcome",
        "threshold": "-0.25",
        "examples": "[{caption: You score., label: helpful}, {caption: You trip., label: unhelpful}]",
        **changes,
    }
    path = tmp_path / "goal.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in lines.items() if value is not None))
    return str(path)


def prompt_file(tmp_path: Path, **changes: str | None) -> str:
    lines = {
        "instruction": "Judge.",
        "positive": "yes",
        "negative": "no",
        "examples": "[{caption: a, answer: yes}]",
        "text_header": '"{instruction} {example_goal}"',
        "text_example": '"{caption} {answer}"',
        "text_question": '"{goal} {caption} ="',
        "chat_system": '"{instruction}"',
        "chat_question": '"{caption}"',
        **changes,
    }
    path = tmp_path / "prompt.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in lines.items() if value is not None))
    return str(path)


def test_file_of_a_user_is_read(tmp_path: Path) -> None:
    spec = resolve_labeler(LabelerConfig(goal="Win it.", prompt=prompt_file(tmp_path, max_caption_chars="10")))
    request = spec.request(b"0123456789abc")
    assert (request.text_prefix, request.text_suffix) == ("Judge. a yesWin it. ", "0123456... =")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"instruction": None}, "missing instruction"),
        ({"instruction": '""'}, "'instruction' must be text"),
        ({"instuction": "x"}, "no key 'instuction': did you mean 'instruction'"),
        ({"text_question": '"{goal}"'}, "'text_question' must hold {caption} exactly once"),
        ({"chat_question": '"{caption} {caption}"'}, "'chat_question' must hold {caption} exactly once"),
        ({"examples": "[{caption: a, answer: maybe}]"}, "example 1 is 'maybe', neither 'yes' nor 'no'"),
        ({"examples": "[{caption: a}]"}, "example 1 must have the keys"),
        ({"examples": "none"}, "'examples' must be a list"),
        ({"positive": "NO"}, "same word"),
        ({"positive": "for sure"}, "'positive' must be a single word"),
        ({"max_caption_chars": "many"}, "whole number"),
        ({"text_header": "[1]"}, "'text_header' must be text"),
        ({"text_header": '"'}, "cannot be read"),
    ],
)
def test_file_that_is_wrong_is_refused(tmp_path: Path, changes: dict[str, str | None], says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("{", r"\{")) as caught:
        resolve_labeler(LabelerConfig(prompt=prompt_file(tmp_path, **changes)))
    assert "prompt.yaml" in str(caught.value)


def test_goal_file_that_is_wrong_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "goal.yaml"
    path.write_text("gaol: x\n")
    with pytest.raises(ConfigError, match="did you mean 'goal'"):
        resolve_labeler(LabelerConfig(goal=str(path)))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        resolve_labeler(LabelerConfig(goal=str(path)))
    path.write_text("just a sentence\n")
    with pytest.raises(ConfigError, match="expected the keys goal"):
        resolve_labeler(LabelerConfig(goal=str(path)))


def test_file_may_lie_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "goal.yml").write_text("goal: Win.\n")
    assert resolve_labeler(LabelerConfig(goal="~/goal.yml")).goal == "Win."


if __name__ == "__main__":
    rewrite_golden()
