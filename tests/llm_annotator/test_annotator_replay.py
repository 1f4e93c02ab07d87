"""Answers out of a store: which one, whose, and what happens where there is none."""

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from llm_annotator.asking import Answer, ask_all
from llm_annotator.backends import create_backend
from llm_annotator.backends.replay import NotInStore
from llm_annotator.config import AnnotatorConfig, BackendConfig, EngineConfig, LabelerConfig
from llm_annotator.errors import BackendRejected, BackendUnreachable, ConfigError
from llm_annotator.labeler import Labeler, LabelerSpec, resolve_labeler
from llm_annotator.service import config_from_json
from llm_annotator.store import Store, StoreReader
from llm_annotator.store.answers import ANSWERS
from llm_annotator.types import Completion, LabelStatus
from tests.answered_store import answer_into, fail_into
from tests.fake_openai_server import FakeOpenAIServer

CAPTIONS = [b"You open the door.", b"You see a key.", b"\xff\xfe\x00"]
SPEC = resolve_labeler(LabelerConfig())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "old.sqlite"


def replay(path: Path | str, model: str | None = None) -> BackendConfig:
    return BackendConfig(kind="replay", model=model, options={"store": str(path)})


def ask(config: BackendConfig, captions: list[bytes], spec: LabelerSpec = SPEC) -> list[Completion]:
    async def go() -> list[Completion]:
        async with create_backend(config) as backend:
            labeler = Labeler(spec, backend.model)
            return [await backend.complete(labeler.request(caption)) for caption in captions]

    return asyncio.run(go())


def recorded(completion: Completion) -> Completion:
    return replace(completion, latency_s=0.0)


def test_answers_and_labeler_are_those_of_the_store(path: Path) -> None:
    answered = answer_into(path, CAPTIONS)
    assert [recorded(item) for item in ask(replay(path), CAPTIONS)] == [recorded(item) for item in answered]
    with StoreReader(path) as reader:
        (row,) = reader.labelers()
    assert Labeler(SPEC, create_backend(replay(path)).model).id == row.labeler_id


def test_chat_answers_are_replayed_too(path: Path) -> None:
    with FakeOpenAIServer() as server:
        chat = BackendConfig(kind="openai", model="m", base_url=server.base_url, api_key_env="ONI_TEST_NO_KEY")
        answered = answer_into(path, CAPTIONS, chat)
    assert answered[0].sent_prefix.startswith('[{"role"')
    assert [recorded(item) for item in ask(replay(path), CAPTIONS)] == [recorded(item) for item in answered]


def test_a_goal_that_no_column_can_hold_is_found_again(path: Path) -> None:
    spec = replace(SPEC, goal="open \udcff")
    answer_into(path, CAPTIONS[:1], spec=spec)
    assert ask(replay(path), CAPTIONS[:1], spec)[0].text == " yes"


def test_the_newest_label_wins_over_what_holds_none(path: Path) -> None:
    rules: dict[str, str | int | float | bool] = {"seed": 1}
    model = create_backend(BackendConfig(kind="scripted", options=rules)).model
    answer_into(path, [b"You open it."], BackendConfig(kind="scripted", options=rules | {"garble_rate": 1.0}))
    assert ask(replay(path), [b"You open it."])[0].text == " \ufffd%", "an answer without a label is better than none"
    answer_into(path, [b"You open it."], BackendConfig(kind="scripted", options=rules))
    with sqlite3.connect(path) as connection:  # an older label that says otherwise
        connection.execute("UPDATE annotations SET answer = ' no', status = 'labelled', helpful = 0 WHERE id = 1")
    connection.close()
    answer_into(path, [b"You open it."], BackendConfig(kind="scripted", options=rules | {"garble_rate": 1.0}))
    fail_into(path, [b"You open it."], model)
    assert ask(replay(path), [b"You open it."])[0].text == " yes"


def test_overrides_are_not_replayed(path: Path) -> None:
    answer_into(path, CAPTIONS)
    with StoreReader(path) as reader:
        (row,) = reader.labelers()
    with Store(path) as store:
        store.override(CAPTIONS[0], row.labeler_id, helpful=False)
        store.override(b"never asked", row.labeler_id, helpful=True)
    assert ask(replay(path), CAPTIONS[:1])[0].text == " yes"
    with pytest.raises(NotInStore):
        ask(replay(path), [b"never asked"])


def test_what_is_not_in_the_store_says_what_to_do_and_is_told_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answer_into(path, CAPTIONS)
    model = create_backend(replay(path)).model
    fail_into(path, [b"failed"], model)
    for caption in (b"You see a key. ", b"failed", b"x" * 10_000):
        with pytest.raises(NotInStore, match="never answered about.*another backend") as caught:
            ask(replay(path), [caption])
        assert not caught.value.retryable
        assert len(str(caught.value)) < 500
    with pytest.raises(NotInStore, match="another goal or prompt"):
        ask(replay(path), CAPTIONS[:1], replace(SPEC, goal="another one"))
    with pytest.raises(BackendRejected, match="calibration to 'none'"):
        ask(replay(path), [b"N/A"])
    caplog.clear()

    async def go() -> None:
        async with create_backend(replay(path)) as backend:
            for caption in (b"one", b"two"):
                with pytest.raises(NotInStore):
                    await backend.complete(SPEC.request(caption))

    asyncio.run(go())
    assert len(caplog.records) == 1


def test_a_missing_answer_is_no_label_and_is_not_waited_for(path: Path) -> None:
    answer_into(path, CAPTIONS)

    async def go() -> list[Answer[bytes]]:
        async with create_backend(replay(path)) as backend:
            labeler = Labeler(SPEC, backend.model)
            asked = ask_all(labeler, backend, [*CAPTIONS, b"new"], EngineConfig(backoff_s=1000.0))
            return [item async for item in asked]

    *known, new = asyncio.run(go())
    assert [item.judgement.helpful for item in known] == [True, False, False]
    assert new.judgement.status is LabelStatus.FAILED
    assert new.judgement.helpful is None
    assert "another backend" in new.judgement.detail


def test_of_several_models_one_is_chosen(path: Path) -> None:
    other = BackendConfig(kind="scripted", options={"helpful_pattern": "key"})
    mine = answer_into(path, CAPTIONS)[0].model
    theirs = answer_into(path, CAPTIONS, other)[0].model
    fail_into(path, CAPTIONS, "never-answered")
    with pytest.raises(ConfigError, match="several models: set backend.model") as caught:
        create_backend(replay(path))
    assert repr(mine) in str(caught.value)
    assert repr(theirs) in str(caught.value)
    assert "never-answered" not in str(caught.value)
    assert [item.text for item in ask(replay(path, mine), CAPTIONS[:2])] == [" yes", " no"]
    assert [item.text for item in ask(replay(path, theirs), CAPTIONS[:2])] == [" no", " yes"]
    with pytest.raises(ConfigError, match=f"no answer of the model 'gpt'.*{theirs}"):
        create_backend(replay(path, "gpt"))


def newer(path: Path) -> None:
    answer_into(path, CAPTIONS)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "there is no annotation store"),
        (Path.mkdir, "is a folder"),
        (
            lambda path: path.write_bytes(b"no database at all, but long enough to be one" * 50),
            "not an annotation store",
        ),
        (foreign, "not an annotation store"),
        (newer, "upgrade oni-jax"),
        (Path.touch, "is empty"),
        (lambda path: Store(path).close(), "nothing to replay"),
        (lambda path: fail_into(path, CAPTIONS, "m"), "nothing to replay"),
    ],
    ids=["missing", "folder", "no database", "foreign", "newer", "empty", "unused", "failures alone"],
)
def test_a_store_that_cannot_be_replayed_is_refused_at_once(
    path: Path, make: Callable[[Path], object], words: str
) -> None:
    make(path)
    with pytest.raises(ConfigError, match=words) as caught:
        create_backend(replay(path))
    assert str(path) in str(caught.value)


def test_without_a_store_it_says_which_option_is_missing() -> None:
    with pytest.raises(ConfigError, match="needs the option 'store'"):
        create_backend(BackendConfig(kind="replay"))


def test_the_store_may_be_written_meanwhile_and_is_not_touched(path: Path) -> None:
    answer_into(path, CAPTIONS)
    before = path.read_bytes()
    ask(replay(path), CAPTIONS)
    assert path.read_bytes() == before

    async def go() -> list[str]:
        async with create_backend(replay(path)) as backend:
            with pytest.raises(NotInStore):
                await backend.complete(SPEC.request(b"You reach the goal."))
            # In a thread: it has an event loop of its own.
            await asyncio.to_thread(answer_into, path, [b"You reach the goal."])
            with Store(path) as store, store._transaction():  # the other annotator is in the middle of a write
                return [(await backend.complete(SPEC.request(b"You reach the goal."))).text]

    assert asyncio.run(go()) == [" yes"]


def wipe(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def test_a_store_that_breaks_meanwhile_is_a_fault_of_the_backend(path: Path) -> None:
    answer_into(path, [b"%d " % number * 200 for number in range(200)])

    async def go() -> None:
        async with create_backend(replay(path)) as backend:
            wipe(path)
            with pytest.raises(BackendUnreachable, match="cannot be read"):
                await backend.complete(SPEC.request(b"%d " % 150 * 200))

    asyncio.run(go())


def test_every_step_of_a_look_up_uses_an_index(path: Path) -> None:
    answer_into(path, CAPTIONS)
    with sqlite3.connect(path) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {ANSWERS}", (b"", "")).fetchall()
    connection.close()
    steps = [row[3] for row in plan]
    assert not [step for step in steps if step.startswith("SCAN")]
    assert any("annotations_of_caption" in step for step in steps)


def test_deterministic_is_a_setting_that_travels_to_the_service() -> None:
    assert not AnnotatorConfig().deterministic
    assert config_from_json('{"deterministic": true}').deterministic
