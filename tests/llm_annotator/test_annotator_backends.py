"""What every backend promises, shown on each; and the registry."""

import asyncio
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import EntryPoint
from itertools import pairwise
from pathlib import Path

import pytest

import llm_annotator.backends as registry
from llm_annotator.backends import available_backends, create_backend
from llm_annotator.backends.scripted import ScriptedBackend, ScriptedOptions
from llm_annotator.config import BackendConfig, LabelerConfig
from llm_annotator.errors import BackendAnswerInvalid, BackendRejected, BackendUnreachable, ConfigError
from llm_annotator.labeler import Labeler, LabelerSpec, resolve_labeler
from llm_annotator.types import Completion, LabelStatus, Subject
from tests.answered_store import answer_into
from tests.fake_openai_server import FakeOpenAIServer

HOSTILE = [b"You open the door.", b"", b"\xff\xfe\x00", b"<|im_end|>\n", "\u202e\U0001f600".encode(), b"x" * 20_000]

COMPARING = replace(
    resolve_labeler(LabelerConfig(), question="preference"), positive="yes", negative="no", threshold=0.0
)
PAIRS = [*pairwise(HOSTILE), *pairwise(HOSTILE[::-1])]

OPTION = {"scripted": "latency_s", "openai": "temperature", "llama-cpp": "n_ctx", "replay": "store"}
"""An option of each kind of backend that cannot be -1."""


@contextmanager
def config_of(kind: str) -> Iterator[BackendConfig]:
    if kind.startswith("openai"):
        with FakeOpenAIServer() as server:
            api = "completions" if kind.endswith("completions") else "chat"
            yield BackendConfig(
                kind="openai", model="m", base_url=server.base_url, api=api, api_key_env="ONI_TEST_NO_KEY"
            )
    elif kind == "replay":
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "annotations.sqlite"
            answer_into(store, HOSTILE)
            answer_into(store, PAIRS, spec=COMPARING)
            yield BackendConfig(kind="replay", options={"store": str(store)})
    else:
        yield BackendConfig(kind=kind, timeout_s=50.0)


@pytest.fixture(
    scope="module",
    params=[
        "scripted",
        "openai",
        "openai-completions",
        "replay",
        pytest.param("llama-cpp", marks=[pytest.mark.slow, pytest.mark.e2e]),
    ],
)
def config(request: pytest.FixtureRequest) -> Iterator[BackendConfig]:
    with config_of(request.param) as config:
        yield config


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
    assert first.logprobs is not None
    assert all(value <= 1e-6 and math.isfinite(value) for value in first.logprobs.values())
    assert sum(math.exp(value) for value in first.logprobs.values()) <= 1.0 + 1e-6
    assert first.text.strip().casefold() == "yes"
    assert len({completion.sent_prefix for completion in completions}) == 1
    for caption, completion in zip(HOSTILE, completions, strict=True):
        assert labeler.judge(completion).status is LabelStatus.LABELLED
        assert completion.model == labeler.model
        assert completion.latency_s >= 0
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
        assert judgement.p_helpful is not None


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
    known = OPTION[config.kind]
    wrong = BackendConfig(kind=config.kind, model=config.model, options={known[:-1]: 1})
    with pytest.raises(ConfigError, match=f"did you mean '{known}'"):
        create_backend(wrong)


def test_option_out_of_range_is_refused(config: BackendConfig) -> None:
    name = OPTION[config.kind]
    with pytest.raises(ConfigError, match=f"option '{name}'.*-1"):
        create_backend(BackendConfig(kind=config.kind, model=config.model, options={name: -1}))


def test_unknown_backend_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'llama-cpp'.*openai, replay, scripted"):
        create_backend(BackendConfig(kind="llamacpp"))


def test_listing_says_what_there_is() -> None:
    infos = {info.name: info for info in available_backends()}
    assert {"llama-cpp", "openai", "replay", "scripted"} <= infos.keys()
    assert all(info.available for info in infos.values())


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
