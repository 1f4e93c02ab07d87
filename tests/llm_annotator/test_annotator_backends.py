"""What every backend promises, shown on each; and the registry."""

import asyncio
import json
import math
import re
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import EntryPoint
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.responses import Response

import llm_annotator.backends as registry
from llm_annotator.backends import available_backends, create_backend
from llm_annotator.backends.scripted import ScriptedBackend, ScriptedOptions
from llm_annotator.config import BackendConfig, LabelerConfig
from llm_annotator.errors import (
    BackendAnswerInvalid,
    BackendOverloaded,
    BackendRejected,
    BackendUnreachable,
    ConfigError,
)
from llm_annotator.labeler import Answered, Labeler, LabelerSpec, resolve_labeler
from llm_annotator.question import QuestionName
from llm_annotator.types import Completion, LabelStatus, Subject
from oni.cli import backends
from tests.able_openai_server import AbleServer
from tests.answered_store import answer_into

HOSTILE = [b"You open the door.", b"", b"\xff\xfe\x00", b"<|im_end|>\n", "\u202e\U0001f600".encode(), b"x" * 20_000]

COMPARING = replace(resolve_labeler(LabelerConfig(), question="preference"), threshold=0.0)
PAIRS = [*pairwise(HOSTILE), *pairwise(HOSTILE[::-1])]

REASONING = resolve_labeler(LabelerConfig(method="reasoned"))
REASONING_PAIRS = resolve_labeler(LabelerConfig(method="reasoned"), question="preference")

OPTION = {
    "scripted": "latency_s",
    "openai": "temperature",
    "completions": "temperature",
    "llama-cpp": "n_ctx",
    "replay": "store",
}
"""An option of each kind of backend that cannot be -1."""

EXAMPLE = Path(__file__).parents[1] / "data" / "own_backend.md"

SERVED = [
    "openai-via-chat",
    "openai-via-completions",
    "completions-via-chat",
    "completions-via-completions",
    "generate",
]
"""Backends that ask a server of ours."""

server_of: dict[str, AbleServer] = {}
"""The server behind each of them."""


class GenerateServer(AbleServer):
    """A server with an API of its own, that of the README's example."""

    paths = ("/generate",)

    def complete(self, body: dict[str, Any], *, chat: bool, authorization: str) -> dict[str, Any] | Response:
        answer = super().complete({"prompt": body["inputs"]}, chat=False, authorization=authorization)
        assert isinstance(answer, dict)
        return {"generated_text": answer["choices"][0]["text"]}


@contextmanager
def config_of(kind: str, installed: Path) -> Iterator[BackendConfig]:
    name, _, api = kind.partition("-via-")
    if name in ("openai", "completions"):
        with AbleServer(heeds="structured_outputs") as server:
            server_of[kind] = server
            yield BackendConfig(
                kind=name,
                model="m",
                base_url=server.base_url,
                api=api,
                api_key_env="ONI_TEST_NO_KEY",  # pyright: ignore[reportArgumentType]
            )
    elif kind == "generate":
        with GenerateServer() as server, pytest.MonkeyPatch.context() as patch:
            server_of[kind] = server
            patch.syspath_prepend(str(installed))
            yield BackendConfig(kind="generate", model="m", base_url=server.base_url.removesuffix("/v1"))
    elif kind == "replay":
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "annotations.sqlite"
            for spec, subjects in ((None, HOSTILE), (COMPARING, PAIRS), (REASONING, HOSTILE), (REASONING_PAIRS, PAIRS)):
                answer_into(store, subjects, spec=spec)
            yield BackendConfig(kind="replay", options={"store": str(store)})
    else:
        yield BackendConfig(kind=kind, timeout_s=50.0)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder in which the README's example is installed as a package."""
    code, project = re.findall(r"```(?:python|toml)\n(.*?)```", EXAMPLE.read_text(encoding="utf-8"), re.DOTALL)
    table = tomllib.loads(project)["project"]
    folder = tmp_path_factory.mktemp("installed")
    (folder / "oni_generate.py").write_text(code)
    info = folder / f"{table['name'].replace('-', '_')}-{table['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {table['name']}\nVersion: {table['version']}\n")
    for group, entries in table["entry-points"].items():
        lines = [f"{name} = {value}\n" for name, value in entries.items()]
        (info / "entry_points.txt").write_text(f"[{group}]\n{''.join(lines)}")
    return folder


@pytest.fixture(
    scope="module",
    params=[
        "scripted",
        "replay",
        *SERVED,
        pytest.param("llama-cpp", marks=[pytest.mark.slow, pytest.mark.e2e]),
    ],
)
def config(request: pytest.FixtureRequest, installed: Path) -> Iterator[BackendConfig]:
    with config_of(request.param, installed) as config:
        yield config


class Served(NamedTuple):
    """A backend that asks a server, and the server."""

    config: BackendConfig
    server: AbleServer


@pytest.fixture(scope="module", params=SERVED)
def served(request: pytest.FixtureRequest, installed: Path) -> Iterator[Served]:
    with config_of(request.param, installed) as config:
        yield Served(config, server_of[request.param])


def ask(
    config: BackendConfig, subjects: Sequence[Subject], spec: LabelerSpec | None = None
) -> tuple[Labeler, list[Completion]]:
    async def go() -> tuple[Labeler, list[Completion]]:
        async with create_backend(config) as backend:
            labeler = Labeler(spec or resolve_labeler(LabelerConfig()), backend.model)
            return labeler, await asyncio.gather(*[backend.complete(labeler.request(item)) for item in subjects])

    return asyncio.run(go())


def test_contract_of_a_backend(config: BackendConfig) -> None:
    labeler, completions = ask(config, HOSTILE)
    first = completions[0]
    assert labeler.judge(first).helpful is True
    if config.kind == "generate":
        assert first.logprobs is None
    else:
        assert first.logprobs is not None
        assert all(value <= 1e-6 and math.isfinite(value) for value in first.logprobs.values())
        assert sum(math.exp(value) for value in first.logprobs.values()) <= 1.0 + 1e-6
    assert first.text.strip().casefold() == "yes"
    assert len({completion.sent_prefix for completion in completions}) == 1
    for caption, completion in zip(HOSTILE, completions, strict=True):
        assert labeler.judge(completion).status is LabelStatus.LABELLED
        assert completion.model == labeler.model
        assert completion.latency_s >= 0
        if config.kind != "generate":
            assert completion.tokens_in is not None
            assert completion.tokens_in > 0
            assert completion.tokens_out is not None
        assert completion.sent_suffix != completion.sent_prefix
        assert caption[:10].decode("latin-1") in completion.sent_suffix or not caption.isascii() or b"|" in caption


def test_pairs_of_any_captions_are_answered(config: BackendConfig) -> None:
    labeler, completions = ask(config, PAIRS, COMPARING)
    assert len({completion.sent_prefix for completion in completions}) == 1
    assert len({completion.sent_suffix for completion in completions}) == len(PAIRS), "either order is its own question"
    for completion in completions:
        judgement = labeler.judge(completion)
        assert judgement.status is LabelStatus.LABELLED
        assert (judgement.p_helpful is None) == (config.kind == "generate")


@pytest.mark.parametrize("question", ["label", "preference"])
def test_thoughts_about_any_captions_end_in_a_label(config: BackendConfig, question: QuestionName) -> None:
    async def go() -> list[Answered]:
        async with create_backend(config) as backend:
            labeler = Labeler(resolve_labeler(LabelerConfig(method="reasoned"), question=question), backend.model)
            return await asyncio.gather(*[labeler.ask(backend.complete, subject) for subject in subjects])

    subjects: Sequence[Subject] = HOSTILE if question == "label" else PAIRS
    subjects = subjects[:4] if config.kind == "llama-cpp" else subjects
    for completion, judgement in asyncio.run(go()):
        assert judgement.status is LabelStatus.LABELLED, completion.text
        assert judgement.score is None
        bound = config.kind in ("openai", "completions", "llama-cpp")
        assert judgement.read_from.startswith("constrained output" if bound else "parsing")
        assert "Answer: " in completion.text
        assert completion.tokens_out is None or completion.tokens_out > 1


def test_a_question_that_is_given_up_harms_no_other(config: BackendConfig) -> None:
    async def go() -> Completion:
        async with create_backend(config) as backend:
            labeler = Labeler(resolve_labeler(LabelerConfig()), backend.model)
            request = labeler.request(HOSTILE[0])
            for ticks in range(6):
                task = asyncio.create_task(backend.complete(request))
                for _ in range(ticks):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            return await backend.complete(request)

    assert asyncio.run(go()).text.strip().casefold() == "yes"


FAILURES = {
    "busy": BackendOverloaded,
    "loading": BackendOverloaded,
    "crash": BackendOverloaded,
    "bad_key": BackendRejected,
    "no_model": BackendRejected,
    "garbage": BackendAnswerInvalid,
    "truncated": BackendAnswerInvalid,
    "empty": BackendAnswerInvalid,
    "no_gateway": BackendUnreachable,
}


@pytest.mark.parametrize("mode", FAILURES)
@pytest.mark.parametrize("spec", [None, REASONING], ids=["choice", "reasoned"])
def test_a_server_that_fails_is_an_error_of_its_kind(served: Served, mode: str, spec: LabelerSpec | None) -> None:
    config, server = served
    # The example makes no difference between failures; the annotator then asks again.
    kind = BackendUnreachable if config.kind == "generate" else FAILURES[mode]
    server.mode = mode
    with pytest.raises(kind) as caught:
        ask(config, HOSTILE[:1], spec)
    if kind is BackendOverloaded:
        assert caught.value.retry_after_s == {"busy": 7.0, "loading": 2.5, "crash": None}[mode]
    server.mode = "ok"
    labeler, completions = ask(config, HOSTILE[:1], spec)
    assert labeler.judge(completions[0]).helpful is True


def test_a_server_that_takes_too_long_is_given_up(served: Served) -> None:
    config, server = served
    server.mode = "slow"
    with pytest.raises(BackendUnreachable if config.kind == "generate" else BackendOverloaded):
        ask(replace(config, timeout_s=0.1), HOSTILE[:1])
    server.mode = "ok"


def test_model_is_the_same_for_two_backends_of_one_config(config: BackendConfig) -> None:
    assert create_backend(config).model == create_backend(config).model


def test_backend_can_be_opened_twice_in_turn(config: BackendConfig) -> None:
    async def go() -> list[str]:
        backend = create_backend(config)
        labeler = Labeler(resolve_labeler(LabelerConfig()), backend.model)
        texts: list[str] = []
        for _ in range(2):
            async with backend:
                texts.append((await backend.complete(labeler.request(b"You open the door."))).text)
        return texts

    assert asyncio.run(go()) == [" yes", " yes"]


def test_unknown_option_names_the_nearest(config: BackendConfig) -> None:
    if config.kind == "generate":
        pytest.skip("the example has no options")
    known = OPTION[config.kind]
    wrong = BackendConfig(kind=config.kind, model=config.model, options={known[:-1]: 1})
    with pytest.raises(ConfigError, match=f"did you mean '{known}'"):
        create_backend(wrong)


def test_option_out_of_range_is_refused(config: BackendConfig) -> None:
    if config.kind == "generate":
        pytest.skip("the example has no options")
    name = OPTION[config.kind]
    with pytest.raises(ConfigError, match=f"option '{name}'.*-1"):
        create_backend(BackendConfig(kind=config.kind, model=config.model, options={name: -1}))


def test_unknown_backend_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'llama-cpp'.*openai, replay, scripted"):
        create_backend(BackendConfig(kind="llamacpp"))


def test_listing_says_what_there_is() -> None:
    infos = {info.name: info for info in available_backends()}
    assert {"completions", "llama-cpp", "openai", "replay", "scripted"} <= infos.keys()
    assert all(infos[name].available for name in infos if name in registry._BUILTINS)


def test_the_example_of_the_readme_is_listed_and_checked(
    installed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with config_of("generate", installed) as config:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-0123456789")
        server_of["generate"].says = " yes\nsk-planted-0123456789"
        assert backends.main(["--json"]) == 0
        rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
        assert rows["generate"]["description"] == "oni_generate:Generate"
        options = ["--annotator.backend.kind", "generate", "--annotator.backend.base-url", str(config.base_url)]
        assert backends.main(["check", *options, "--annotator.backend.model", "m"]) == 0
        shown = capsys.readouterr()
        assert "read_from    parsing" in shown.out
        assert "not told by this backend" in shown.out
        assert "planted" not in shown.out + shown.err


def test_the_example_of_the_readme_is_that_which_was_tried() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert EXAMPLE.read_text(encoding="utf-8") in readme
    code = re.findall(r"```python\n(.*?)```", EXAMPLE.read_text(encoding="utf-8"), re.DOTALL)[0]
    assert sum(bool(line.strip()) for line in code.splitlines()) < 20


def create_plugin(config: BackendConfig) -> ScriptedBackend:
    """Answers in the style of a test."""
    return ScriptedBackend(ScriptedOptions(helpful_pattern="plugin"), max_concurrent=config.max_concurrent)


def test_plugin_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        EntryPoint("mine", f"{__name__}:create_plugin", registry.ENTRY_POINT_GROUP),
        EntryPoint("broken", "no_such_module:create", registry.ENTRY_POINT_GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda *, group: entries)  # installed packages are the seam
    infos = {info.name: info for info in available_backends()}
    assert infos["mine"].description == "Answers in the style of a test."
    assert not infos["broken"].available
    assert "no_such_module" in infos["broken"].reason
    assert create_backend(BackendConfig(kind="mine", max_concurrent=3)).max_concurrent == 3
    with pytest.raises(ConfigError, match="no_such_module"):
        create_backend(BackendConfig(kind="broken"))


def scripted(captions: list[bytes], **options: str | float | bool) -> list[Completion | type[Exception]]:
    async def go() -> list[Completion | type[Exception]]:
        outcomes: list[Completion | type[Exception]] = []
        async with create_backend(BackendConfig(kind="scripted", options=options)) as backend:
            labeler = Labeler(resolve_labeler(LabelerConfig()), backend.model)
            for caption in captions:
                try:
                    outcomes.append(await backend.complete(labeler.request(caption)))
                except (BackendUnreachable, BackendRejected, BackendAnswerInvalid) as error:
                    outcomes.append(type(error))
        return outcomes

    return asyncio.run(go())


def answers(captions: list[bytes], **options: str | float | bool) -> list[str]:
    return [item.text.strip() if isinstance(item, Completion) else "error" for item in scripted(captions, **options)]


MANY = [b"caption %d" % number for number in range(400)]


def test_scripted_flips_a_fixed_share() -> None:
    flipped = answers(MANY, flip_rate=0.2, helpful_pattern="never")
    assert flipped == answers(MANY, flip_rate=0.2, helpful_pattern="never")
    assert 0.14 < flipped.count("yes") / len(MANY) < 0.26  # three standard deviations
    assert flipped != answers(MANY, flip_rate=0.2, helpful_pattern="never", seed=1)
    assert answers([b"caption 1"] * 5, flip_rate=0.5) in (["yes"] * 5, ["no"] * 5)


def test_scripted_fails_a_share_of_requests_not_of_captions() -> None:
    assert 0.43 < answers(MANY, fail_rate=0.5).count("error") / len(MANY) < 0.57
    assert set(answers([b"one"] * 50, fail_rate=0.5)) == {"error", "no"}
    assert set(answers(MANY[:20], fail_rate=1.0)) == {"error"}


def test_scripted_fails_first_and_in_the_kind_asked_for() -> None:
    outcomes = scripted([b"a", b"a", b"a", b"b"], fail_first=2, fail_with="rejected")
    assert outcomes[:2] == [BackendRejected, BackendRejected]
    assert isinstance(outcomes[2], Completion)
    assert outcomes[3] is BackendRejected


def test_scripted_nonsense_is_not_a_label() -> None:
    (outcome,) = scripted([b"You open the door."], garble_rate=1.0)
    assert isinstance(outcome, Completion)
    labeler = Labeler(resolve_labeler(LabelerConfig()), "m")
    assert labeler.judge(outcome).status is LabelStatus.UNPARSED


def test_scripted_model_names_the_rules() -> None:
    rules: list[dict[str, str | int | float | bool]] = [
        {},
        {"latency_s": 1.0},
        {"helpful_pattern": "x"},
        {"flip_rate": 0.2},
    ]
    models = {create_backend(BackendConfig(kind="scripted", options=options)).model for options in rules}
    assert len(models) == 3  # latency changes no answer


def test_scripted_bad_pattern_is_refused() -> None:
    with pytest.raises(ConfigError, match="no regular expression"):
        create_backend(BackendConfig(kind="scripted", options={"helpful_pattern": "("}))
