"""Goal and prompt files: YAML that ships with the package, or that a user wrote."""

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from llm_annotator.choices import unknown_name
from llm_annotator.config import LabelerConfig
from llm_annotator.errors import ConfigError
from llm_annotator.forms import final_line
from llm_annotator.methods import METHODS, Method
from llm_annotator.question import Question, QuestionName
from llm_annotator.questions import QUESTIONS
from llm_annotator.spec import LabelerSpec

_PACKAGE = Path(__file__).parent
_ENDINGS = (".yaml", ".yml")
_LABELS = ("helpful", "unhelpful")

DEFAULT_PROMPT = "progress"
"""Prompt for labels of the goals that name none."""

_OPTIONAL = ("max_caption_chars", "method", "question", "threshold")

PROMPT_TEMPLATES = ("text_header", "text_example", "text_question", "chat_system", "chat_question")

_REQUIRED = ("instruction", "positive", "negative", *PROMPT_TEMPLATES)


class Goal(NamedTuple):
    """What the agent is to achieve.

    prompt: name or path of the prompt that asks for labels, unless the settings name another.
    examples: captions of the goal's own game and whether each is helpful; they replace those of any prompt. A prompt
        that compares gets each helpful one against an unhelpful one.
    threshold: in nats, measured with the goal's own prompt and no calibration, and used with nothing else.
    """

    text: str
    prompt: str = DEFAULT_PROMPT
    examples: tuple[tuple[str, bool], ...] = ()
    threshold: float | None = None


def resolve_labeler(config: LabelerConfig, question: QuestionName = "label") -> LabelerSpec:
    """Returns the labeler that the settings describe, goal and prompt files read.

    question: what it is to be asked: whether a caption is helpful, or which of two is better.

    Raises:
        ConfigError: no goal or prompt of that name (the message lists what there is), a prompt that asks another
            question, a file that cannot be used, or captions to be compared by parts.
    """
    goal = load_goal(config.goal)
    asking, answering = QUESTIONS[question], METHODS[config.method]
    own_prompt = answering.default_prompt(asking, goal.prompt)
    prompt_name = own_prompt if config.prompt is None else config.prompt
    prompt = load_prompt(prompt_name)
    _check_fit(prompt_name, prompt, question, answering)
    if config.parts not in asking.parts_modes:
        raise ConfigError(
            f"annotator.labeler.parts is {config.parts!r}, but what is asked for here is a {question}, and captions "
            "are compared whole: set it to 'none'"
        )
    measured = prompt.pop("threshold")
    prompt["parts"] = config.parts
    if answering.reasoned:
        return LabelerSpec(goal=goal.text, **prompt, **_unscored(config))
    if goal.threshold is not None and prompt_name == goal.prompt:
        measured = goal.threshold
    threshold = config.threshold
    if threshold is None:
        threshold = measured if measured is not None and config.calibration == "none" else 0.0
    if examples := asking.examples(goal.examples, (prompt["positive"], prompt["negative"])):
        prompt["example_goal"] = goal.text
        prompt["examples"] = examples
    return LabelerSpec(goal=goal.text, **prompt, threshold=threshold, calibration=config.calibration)


def _check_fit(name: str, prompt: Mapping[str, Any], question: QuestionName, answering: Method) -> None:
    """Refuses a prompt that asks for something else, or to be answered otherwise."""
    wanted = (question, answering.name)
    if (prompt["question"], prompt["method"]) == wanted:
        return
    prompts = {name: load_prompt(name) for name in names("prompts")}
    fitting = ", ".join(name for name, other in prompts.items() if (other["question"], other["method"]) == wanted)
    raise ConfigError(
        f"prompt {name!r} asks for a {prompt['question']} by method `{prompt['method']}`, and what is wanted here is a "
        f"{question} by method `{answering.name}`: leave annotator.labeler.prompt out, or set it to one that asks for "
        f"that ({fitting}, or a file with `question: {question}` and `method: {answering.name}`)"
    )


def _unscored(config: LabelerConfig) -> dict[str, Any]:
    """Returns the fields of a labeler that gives no scores.

    A goal's own examples are not among them: they come without thoughts, and the model would learn to leave them out.
    """
    if config.calibration != "none" or config.threshold is not None:
        raise ConfigError(
            "annotator.labeler.method 'reasoned' gives no scores: leave annotator.labeler.threshold and .calibration "
            "out, or use method 'choice'"
        )
    return {"max_tokens": config.max_tokens}


def names(kind: str) -> list[str]:
    """Returns the names of the packaged files; `kind` is "goals" or "prompts"."""
    return sorted(path.stem for path in (_PACKAGE / kind).glob("*.yaml"))


def load_goal(goal: str) -> Goal:
    """Returns the goal: of a packaged file, of a YAML file with the key `goal`, or the sentence that was given.

    Raises:
        ConfigError: a single word that names no packaged goal, or a file that cannot be used.
    """
    path = _find("goals", goal)
    if path is not None:
        return _read_goal(path)
    if len(goal.split()) > 1:
        return Goal(" ".join(goal.split()))
    hint = " (or give a path to a YAML file, or the goal itself as a sentence of several words)"
    raise ConfigError(unknown_name("goal", goal, names("goals"), hint=hint))


def _read_goal(path: Path) -> Goal:
    content = _read(path, required=("goal",), optional=("description", "prompt", "examples", "threshold"))
    prompt = _text(content, "prompt", path) if "prompt" in content else DEFAULT_PROMPT
    if prompt.endswith(_ENDINGS):  # a file beside the goal's own
        prompt = str(path.parent / Path(prompt).expanduser())
    pairs = _examples(content.get("examples") or [], ("caption",), "label", _LABELS, path)
    return Goal(
        text=_text(content, "goal", path),
        prompt=prompt,
        examples=tuple((caption, label == _LABELS[0]) for caption, label in pairs),
        threshold=_maybe_number(content, "threshold", path),
    )


def load_prompt(prompt: str) -> dict[str, Any]:
    """Returns the fields of `LabelerSpec` that a prompt file gives.

    Raises:
        ConfigError: no such prompt, a missing or unknown key, an answer that is neither of the two words, or a
            question without its captions.
    """
    path = _find("prompts", prompt)
    if path is None:
        hint = " (or give a path to a YAML file)"
        raise ConfigError(unknown_name("prompt", prompt, names("prompts"), hint=hint))
    content = _read(path, required=_REQUIRED, optional=("again", "description", "example_goal", "examples", *_OPTIONAL))
    fields: dict[str, Any] = {name: _text(content, name, path) for name in _REQUIRED if name not in PROMPT_TEMPLATES}
    # Templates are taken as they stand: their last line end is a part of the prompt.
    fields |= {name: _template(content, name, path) for name in PROMPT_TEMPLATES}
    for name in ("positive", "negative"):
        if len(fields[name].split()) != 1:
            raise ConfigError(f"{path}: {name!r} must be a single word, not {fields[name]!r}")
    if fields["positive"].casefold() == fields["negative"].casefold():
        raise ConfigError(f"{path}: 'positive' and 'negative' are the same word")
    question, method = content.get("question", "label"), content.get("method", "choice")
    if question not in QUESTIONS:
        raise ConfigError(f"{path}: {unknown_name('question', str(question), QUESTIONS)}")
    if method not in METHODS:
        raise ConfigError(f"{path}: {unknown_name('method', str(method), METHODS)}")
    fields |= {"question": question, "method": method}
    fields |= _asked(content, fields, QUESTIONS[question], METHODS[method], path)
    fields["threshold"] = _maybe_number(content, "threshold", path)
    fields["example_goal"] = str(content.get("example_goal", "")).strip()
    if "max_caption_chars" in content:
        fields["max_caption_chars"] = _count(content["max_caption_chars"], path)
    return fields


def _asked(
    content: Mapping[str, Any], fields: Mapping[str, Any], asking: Question, answering: Method, path: Path
) -> dict[str, Any]:
    """Returns the fields that depend on what is asked and how it is answered; checks the templates."""
    for name, place in itertools.product(("text_question", "chat_question"), asking.placeholders):
        if fields[name].count(f"{{{place}}}") != 1:
            raise ConfigError(f"{path}: {name!r} must hold {{{place}}} exactly once")
    if "again" in content and "again" not in answering.extra_keys:
        raise ConfigError(f"{path}: 'again' belongs to prompts with `method: reasoned`")
    if missing := [key for key in answering.extra_keys if key not in content]:
        raise ConfigError(f"{path}: missing {', '.join(missing)}, what is said before the question is repeated")
    extra = {key: _text(content, key, path) for key in answering.extra_keys}
    if answering.reasoned and (ending := "{thoughts}\n" + final_line("{answer}")) not in fields["text_example"]:
        raise ConfigError(f"{path}: 'text_example' must hold {ending!r}, the form that an answer shall have")
    example = answering.example(asking)
    words = (fields["positive"], fields["negative"])
    rows = _examples(content.get("examples") or [], example._fields[:-1], "answer", words, path)
    return {**extra, "examples": tuple(example(*row) for row in rows)}


def _examples(
    content: Any, texts: tuple[str, ...], key: str, words: tuple[str, str], path: Path
) -> tuple[tuple[str, ...], ...]:
    """Returns the examples: the texts that stand under those names, and then one of the two words, under `key`."""
    if not isinstance(content, list):
        raise ConfigError(f"{path}: 'examples' must be a list of {', '.join(texts)} and {key}")
    found: list[tuple[str, ...]] = []
    for number, item in enumerate(content, start=1):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        if not isinstance(item, Mapping) or set(item) != {*texts, key}:  # pyright: ignore[reportUnknownArgumentType]
            listed = ", ".join(f"'{name}'" for name in texts)
            raise ConfigError(f"{path}: example {number} must have the keys {listed} and '{key}' and no other")
        word = str(item[key])  # pyright: ignore[reportUnknownArgumentType]
        if word not in words:
            raise ConfigError(
                f"{path}: the {key} of example {number} is {word!r}, neither {words[0]!r} nor {words[1]!r}"
            )
        found.append((*(str(item[name]) for name in texts), word))  # pyright: ignore[reportUnknownArgumentType]
    return tuple(found)


def _count(value: str, path: Path) -> int:
    if not value.isdecimal() or int(value) < 8:
        raise ConfigError(f"{path}: 'max_caption_chars' must be a whole number of at least 8, not {value!r}")
    return int(value)


def _maybe_number(content: Mapping[str, Any], key: str, path: Path) -> float | None:
    if key not in content:
        return None
    value = content[key]
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{path}: {key!r} must be a number, not {value!r}")
    return number


def _find(kind: str, name: str) -> Path | None:
    if name in names(kind):
        return _PACKAGE / kind / f"{name}.yaml"
    if not name.endswith(_ENDINGS):
        return None
    path = Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(f"there is no file {name!r}; the {kind} that ship with the package: {', '.join(names(kind))}")
    return path


def _read(path: Path, *, required: tuple[str, ...], optional: tuple[str, ...]) -> Mapping[str, Any]:
    try:
        # BaseLoader: every value is a string. YAML would otherwise read the answers yes and no as booleans.
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506 - builds no objects
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path}: expected the keys {', '.join(required)}")
    keys = {str(key) for key in content}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    for key in keys - {*required, *optional}:
        raise ConfigError(f"{path}: {unknown_name('key', key, [*required, *optional])}")
    if missing := [key for key in required if key not in keys]:
        raise ConfigError(f"{path}: missing {', '.join(missing)}")
    return content  # pyright: ignore[reportUnknownVariableType]


def _template(content: Mapping[str, Any], key: str, path: Path) -> str:
    value = content[key]
    if not isinstance(value, str):
        raise ConfigError(f"{path}: {key!r} must be text")
    return value


def _text(content: Mapping[str, Any], key: str, path: Path) -> str:
    value = content[key]
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{path}: {key!r} must be text and not empty")
    return " ".join(value.split())
