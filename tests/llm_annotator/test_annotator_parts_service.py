"""The annotator asks about parts: each once, whatever happens, and a person's word about one counts everywhere."""

import asyncio
import random
import signal
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from llm_annotator.annotator import Annotator
from llm_annotator.app import build_app
from llm_annotator.backends.scripted import ScriptedBackend, ScriptedOptions
from llm_annotator.client import AnnotatorClient
from llm_annotator.config import AnnotatorConfig, BackendConfig, EngineConfig, LabelerConfig
from llm_annotator.evaluate import LabelledCaption, evaluate
from llm_annotator.labeler import Labeler, resolve_labeler
from llm_annotator.parts import PartLabel, combine, sentences
from llm_annotator.store import Store, StoreReader
from llm_annotator.types import Completion, LabelStatus, LabelUpdate, Occurrence, Request
from tests.annotator_service import start_service

SPEC = resolve_labeler(LabelerConfig(goal="open the box", parts="sentences"))


class Counting(ScriptedBackend):
    """A scripted backend that notes what it was asked about."""

    def __init__(self, **options: Any) -> None:
        super().__init__(ScriptedOptions(**{"helpful_pattern": "open", **options}))
        self.asked: Counter[bytes] = Counter()

    async def complete(self, request: Request) -> Completion:
        self.asked[request.captions[0]] += 1
        return await super().complete(request)


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20):
            await scene()

    asyncio.run(whole())


class Talk:
    """One run that talks to an annotator: what it offers, and what it hears."""

    def __init__(self, path: Path, backend: ScriptedBackend, engine: EngineConfig = EngineConfig()) -> None:
        self.annotator = Annotator(Store(path), AnnotatorConfig(engine=engine), lambda _: backend)
        self.labels: dict[bytes, LabelUpdate] = {}

    async def begin(self) -> None:
        while self.annotator.problem:
            await asyncio.sleep(0.005)
        self.labeler_id, self.cursor, *_ = await self.annotator.register("run", "run", {}, SPEC)

    async def offer(self, *captions: bytes) -> None:
        reply = await self.annotator.offer("run", self.labeler_id, captions)
        self._learn(reply.known)

    async def hear(self, done: Callable[[], bool]) -> None:
        while not done():
            news, self.cursor = await self.annotator.labels(self.labeler_id, self.cursor, 0.05)
            self._learn(news)

    async def answers(self, *captions: bytes) -> list[bool | None]:
        await self.offer(*captions)
        await self.hear(lambda: set(captions) <= set(self.labels))
        return [self.labels[caption].helpful for caption in captions]

    def _learn(self, news: Sequence[Any]) -> None:
        self.labels.update({update.caption: update for update in news})


def test_each_part_is_asked_once_and_captions_follow(tmp_path: Path) -> None:
    async def scene() -> None:
        backend = Counting()
        talk = Talk(tmp_path / "s.sqlite", backend)
        async with talk.annotator.running():
            await talk.begin()
            captions = (b"It's a wall.  You open it.", b"It's a wall.  It bites!", b"It bites!", b"k - 3 darts.")
            assert await talk.answers(*captions) == [True, False, False, False]
            assert await talk.answers(b"h - 5 darts.", b"It bites!  You open it.  It's a wall.") == [False, True]
            # The annotations of parts are those of captions that say nothing else.
            assert backend.asked == Counter([b"It's a wall.", b"You open it.", b"It bites!", b"d - 12 darts."])
            status = talk.annotator.status(talk.labeler_id)
            # Four captions were taken apart; it took four parts, of which one came up alone, but in the same moment.
            assert (status.requests, status.saved_by_parts) == (4, 5 - 4)
            whole, part = talk.labels[captions[0]], talk.labels[b"You open it."]
            assert (whole.p_helpful, whole.source) == (part.p_helpful, "llm")

    play(scene)


def test_no_counter_of_prometheus_ever_falls(tmp_path: Path) -> None:
    """What parts save does: taking a caption apart costs at first."""

    async def figures(http: httpx.AsyncClient) -> dict[tuple[str, str], float]:
        families = text_string_to_metric_families((await http.get("/metrics")).text)
        samples = [sample for family in families for sample in family.samples]
        return {(sample.name, str(sample.labels)): sample.value for sample in samples}

    async def scene() -> None:
        talk = Talk(tmp_path / "s.sqlite", Counting())
        transport = httpx.ASGITransport(build_app(talk.annotator))
        async with (
            talk.annotator.running(),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as http,
        ):
            await talk.begin()
            saved, before = [], await figures(http)
            for caption in (b"It bites!  You open it.", b"You open it.  It bites!", b"A bell.  A cat.  A door."):
                await talk.answers(caption)
                now = await figures(http)
                fallen = [name for name in before if name[0].endswith("_total") and now[name] < before[name]]
                assert fallen == []
                saved += [value for (name, _), value in now.items() if name == "oni_annotator_saved_by_parts"]
                assert saved[-1] == talk.annotator.status(talk.labeler_id).saved_by_parts
                before = now
            assert saved == [-1, 0, -2]

    play(scene)


def test_combined_labels_are_annotations_that_say_how(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"

    async def scene() -> None:
        talk = Talk(path, Counting())
        async with talk.annotator.running():
            await talk.begin()
            await talk.answers(b"It bites!  You open it.")

    play(scene)
    with StoreReader(path) as reader:
        key = reader.find(b"It bites!  You open it.")
        assert key is not None
        (annotation,) = reader.history(key).annotations
        part_id = reader.find(b"You open it.")
    assert (annotation.backend, annotation.answer, annotation.prompt, annotation.attempts) == ("parts", None, "", 0)
    assert annotation.detail == f"part 2 of 2 decided: caption {part_id}"
    assert annotation.in_force
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT * FROM annotation_parts").fetchall()
    connection.close()
    assert rows == [(annotation.annotation_id, 0, key + 1), (annotation.annotation_id, 1, part_id)]


def test_a_persons_word_about_a_part_reaches_every_caption_that_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    both, alone, whole = b"It bites!  You open it.", b"It bites!  It's a wall.", b"It's a wall.  You open it."

    async def scene() -> None:
        talk = Talk(path, Counting())
        async with talk.annotator.running():
            await talk.begin()
            assert await talk.answers(both, alone, whole) == [True, False, True]
            with Store(path) as other:  # another process, to SQLite
                kept = other.override(whole, talk.labeler_id, helpful=True)
                override = other.override(b"You open it.", talk.labeler_id, helpful=False)
                other.override(b"It's a wall.", talk.labeler_id, helpful=True)
            await talk.hear(lambda: talk.labels[alone].helpful is True)
            assert talk.labels[both].helpful is False
            assert (talk.labels[alone].p_helpful, talk.labels[alone].source) == (None, "llm")
            assert (talk.labels[whole].helpful, talk.labels[whole].source) == (True, "human")
            with Store(path) as other:
                other.revoke_override(override)
                other.revoke_override(kept)
            await talk.hear(lambda: talk.labels[both].helpful is True and talk.labels[whole].source == "llm")
            assert talk.labels[whole].helpful is True

    play(scene)


def test_a_label_whose_only_reason_is_taken_back_is_lost_until_the_rest_is_answered(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite") as store:
        store.add_labeler("judge", SPEC.to_wire(), "m")
        (key,) = store.intern([b"A.  B."])
        store.add_parts("judge", {key: [b"A.", b"B."]})
        override = store.override(b"A.", "judge", helpful=True)
        (label,) = store.labels_of("judge", [key])
        assert label is not None
        assert label.helpful is True
        store.revoke_override(override)
        store.override(b"A.", "judge", helpful=False)
        (lost,) = store.labels_since("judge", label.change + 1, limit=9)[-1:]
        assert (lost.caption, lost.status, lost.helpful) == (b"A.  B.", LabelStatus.FAILED, None)
        store.override(b"B.", "judge", helpful=False)
        (label,) = store.labels_of("judge", [key])
        assert label is not None
        assert label.helpful is False


def test_parts_without_an_answer_are_no_labels_and_are_asked_again_later(tmp_path: Path) -> None:
    engine = EngineConfig(retry_failed_s=0.05)

    async def scene() -> None:
        backend = Counting(garble_rate=1.0)
        talk = Talk(tmp_path / "s.sqlite", backend, engine)
        async with talk.annotator.running():
            await talk.begin()
            caption = b"It bites!  It's a wall."
            assert await talk.answers(caption) == [None]
            assert talk.labels[caption].status is LabelStatus.UNPARSED
            backend._options = ScriptedOptions(helpful_pattern="open")
            await asyncio.sleep(0.1)
            await talk.offer(caption)
            await talk.hear(lambda: talk.labels[caption].helpful is False)
            assert backend.asked == Counter({b"It bites!": 2, b"It's a wall.": 2})

    play(scene)


def test_another_annotator_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    captions = [b"It bites %s.  It is %s.  You see it." % (word, word) for word in (b"A", b"B", b"C", b"D", b"E")]
    asked: Counter[bytes] = Counter()

    async def scene(answered: int) -> None:
        backend = Counting(latency_s=0.005)
        backend.max_concurrent = 1
        talk = Talk(tmp_path / "s.sqlite", backend)
        async with talk.annotator.running():
            await talk.begin()
            await talk.offer(*captions)
            while talk.annotator.status(talk.labeler_id).labelled < answered:
                await asyncio.sleep(0.002)
            if answered == 0:
                await talk.hear(lambda: set(captions) <= set(talk.labels))
        asked.update(backend.asked)

    play(lambda: scene(4))
    assert len(asked) < 11
    play(lambda: scene(0))
    assert asked == Counter({part: 1 for caption in captions for part in sentences(caption)})


def test_frequent_captions_make_their_parts_frequent(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite") as store:
        store.add_labeler("judge", {}, "m")
        store.add_run("run", "run", {}, labeler_id="judge", goal="g")
        ids = store.intern([b"A.  B.", b"B.  C."])
        store.add_parts("judge", {ids[0]: [b"A.", b"B."], ids[1]: [b"B.", b"C."]})
        store.override(b"C.", "judge", helpful=True)
        for number, caption in ((3, b"A.  B."), (4, b"B.  C.")):
            seen = Occurrence(caption=caption, count=9, first_step=1, last_step=2, reward_sum=0.0, episode_count=number)
            store.add_occurrences("run", [seen])
        a, b = store.intern([b"A.", b"B."])
        assert dict(store.unanswered_parts("judge", "run", ids)) == {a: 3, b: 7}
        assert dict(store.unanswered_parts("judge", "run", ids[1:])) == {b: 7}


def test_a_labeler_is_measured_by_parts(tmp_path: Path) -> None:
    async def scene() -> None:
        backend = Counting()
        cases = [
            LabelledCaption(b"It bites!  You open it.", True),
            LabelledCaption(b"It bites!", False),
            LabelledCaption(b"You open it.  It bites!", True),
            LabelledCaption(b"You open it.", False),
        ]
        async with backend:
            result = await evaluate(Labeler(SPEC, backend.model), backend, cases, EngineConfig())
        assert backend.asked == Counter([b"It bites!", b"You open it."])
        assert (result.captions, result.labelled, result.questions) == (4, 4, 2)
        assert (result.accuracy, result.precision, result.recall) == (0.75, pytest.approx(2 / 3), 1.0)

    play(scene)


@pytest.mark.slow
def test_kill_at_any_moment_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """The service is killed while it answers; afterwards every caption has the label that its parts make."""
    path, chance = tmp_path / "s.sqlite", random.Random(3)
    words = [b"w%d" % number for number in range(60)]
    said = [b"It bites %s." % word for word in words] + [b"You open %s." % word for word in words[:20]]
    captions = [b"  ".join(chance.sample(said, k=3)) for _ in range(300)]
    config = AnnotatorConfig(
        backend=BackendConfig(kind="scripted", options={"helpful_pattern": "open", "latency_s": 0.02})
    )
    for last in [False] * 12 + [True]:
        url, process = start_service(tmp_path, config, path)
        try:
            with AnnotatorClient(url, "run", "run", {}, SPEC) as client:
                client.submit(captions)
                if last:
                    assert client.drain(60)
                else:
                    client.drain(chance.uniform(0.02, 0.2))
        finally:
            process.send_signal(signal.SIGTERM if last else signal.SIGKILL)
            process.wait(20)
    connection = sqlite3.connect(path)
    twice = "SELECT count(*) FROM annotations GROUP BY labeler_id, caption_id HAVING count(*) > 1"
    assert connection.execute(twice).fetchall() == []
    query = (
        "SELECT c.text, l.status, l.helpful, l.p_helpful, l.score FROM captions c JOIN labels l ON l.caption_id = c.id"
    )
    labels = {
        text: PartLabel(LabelStatus(status), bool(helpful), p, score)
        for text, status, helpful, p, score in connection.execute(query)
    }
    connection.close()
    assert {text: label.helpful for text, label in labels.items() if text in said} == {
        text: b"open" in text for caption in captions for text in sentences(caption)
    }
    for caption in captions:
        result = combine([labels[part] for part in sentences(caption)])
        assert result is not None
        assert result[:4] == labels[caption][:4]
