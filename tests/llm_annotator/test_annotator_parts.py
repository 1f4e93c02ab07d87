"""Captions taken apart into sentences, and the labels of parts put together again, here and in SQL."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_annotator.config import LabelerConfig
from llm_annotator.errors import ConfigError
from llm_annotator.labeler import Labeler, LabelerSpec, resolve_labeler
from llm_annotator.parts import MAX_PARTS, Combined, PartLabel, canonical, combine, sentences, splitter
from llm_annotator.store import Store, StoreReader
from llm_annotator.store.disputes import verdicts
from llm_annotator.store.onecaption import holders
from llm_annotator.store.onecaption import parts as parts_of
from llm_annotator.store.reading import Reading
from llm_annotator.store.schema import MIGRATIONS, migrate
from llm_annotator.types import LabelStatus

DATA = Path(__file__).parents[1] / "data"

LABELLED, UNPARSED, FAILED = LabelStatus.LABELLED, LabelStatus.UNPARSED, LabelStatus.FAILED


@pytest.mark.parametrize(
    ("caption", "parts"),
    [
        (b"You kill the newt!  It's a wall.", [b"You kill the newt!", b"It's a wall."]),
        (b"You kill the newt!\nIt's a wall.", [b"You kill the newt!", b"It's a wall."]),
        (b"It bites!  It bites!  It bites!", [b"It bites!"]),
        (b"Continue eating? [yn] (n)  You stop eating.", [b"Continue eating? [yn] (n)", b"You stop eating."]),
        (b"You stop.  You die...  Hm.", [b"You stop.", b"You die...", b"Hm."]),
        (b"You hit it. You are badly hurt. You die.", [b"You hit it.", b"You are badly hurt.", b"You die."]),
        (
            b"There is a doorway here.  Things that are here:  a dart  3 rocks  The newt bites!",
            [b"There is a doorway here.", b"Things that are here:  a dart  12 rocks", b"The newt bites!"],
        ),
    ],
)
def test_sentences_are_told_apart(caption: bytes, parts: list[bytes]) -> None:
    assert list(sentences(caption)) == parts


@pytest.mark.parametrize(
    "caption",
    [
        b"You hear the footsteps of a guard on patrol.",
        b'"Hello, Agent!  Welcome to Oss\'s emporium!"',
        b'The voice of Odin booms: "Thou hast angered me.  Begone!"',
        b'You read: "Vlad was here. Beware".',
        b'You read: "an unclosed quotation.  It goes on. And on',
        b"It reads:  They say that a cat has nine lives. Be careful.",
        b"Mr. Smith shakes your hand.",
        b"J. R. Smith and Dr. No come at 3.5 miles an hour, e.g. Today.",
        b"You see v1.2 of the map",
        b"Mission: open the door. You stand before the blue key.",
        b"Weapons  d - a dagger  Comestibles  d - 12 slime molds",
        b"no end",
    ],
)
def test_what_belongs_together_stays_whole(caption: bytes) -> None:
    assert sentences(caption) == (caption,)


def test_a_quotation_ends_where_its_sentence_does() -> None:
    assert sentences(b'Odin booms: "Begone!"  You feel ill.') == (b'Odin booms: "Begone!"', b"You feel ill.")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"a - a dagger.", b"K - a dagger."),
        (b"q - 2 darts (in quiver).", b"r - 17 darts (in quiver)."),
        (b"$ - 12 gold pieces.", b"$ - 240 gold pieces."),
        (b"You see here 2 slime molds.", b"You see here 5 slime molds."),
        (b"There are 2 slime molds here; eat one? [ynq] (n)", b"There are 3 slime molds here; eat one? [ynq] (n)"),
        (b"What do you want to eat? [hi or ?*]", b"What do you want to eat? [a-cg or ?*]"),
        (b"A ring (for sale, 50 zorkmids).", b"A ring (for sale, 267 zorkmids)."),
        (b"b - a wand of sleep (0:3).", b"c - a wand of sleep (1:12)."),
        (b"The newt deals 3 damage.", b"The newt deals 12 damage."),
    ],
)  # fmt: skip
def test_what_varies_without_meaning_is_one_question(one: bytes, other: bytes) -> None:
    assert sentences(one) == sentences(other) == (canonical(one),)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"Welcome to experience level 2.", b"Welcome to experience level 3."),
        (b"You do not kill the newt!", b"You kill the newt!"),
        (b"You kill the newt!", b"You kill the jackal!"),
        (b"a - a ruby potion.", b"a - a murky potion."),
        (b"a - a +1 robe.", b"a - a -1 robe."),
        (b"$ - 12 gold pieces.", b"$ - a gold piece."),
        (b"a - a wand of sleep (0:3).", b"a - a wand of sleep (0:0)."),
        (b"You take 0 damage.", b"You take 5 damage."),
        (b"You die.", b"You dive."),
        (b"a - a scroll labeled NR 9.", b"a - a scroll labeled NR 8."),
    ],
)
def test_what_matters_is_left_as_it_is(one: bytes, other: bytes) -> None:
    assert sentences(one) != sentences(other)


WORDS = [
    *(b"You kill the newt!", b"It's a wall.", b'"Hm.', b'yes."', b"  ", b" ", b"\n", b"a - 3 darts", b"[hi or ?*]"),
    *(b"\x00", b"\xff", b"Mission: go.", b"Things that are here:", b"$ - 3 gold pieces.", b"Mr.", b"...", b"?", b"A"),
]
TEXTS = st.one_of(st.binary(max_size=80), st.lists(st.sampled_from(WORDS), max_size=12).map(b"".join))


@settings(max_examples=300, deadline=None)
@given(caption=TEXTS)
def test_a_part_is_its_own_only_part(caption: bytes) -> None:
    parts = sentences(caption)
    assert 1 <= len(parts) <= MAX_PARTS
    assert len(set(parts)) == len(parts)
    assert all(parts) or parts == (caption,)
    for part in parts:
        assert sentences(part) == (part,)


@pytest.mark.parametrize(
    "caption",
    [b"A. " * 80_000, b"Yes? [" * 40_000, b"1" * 256_000, b"There are 12 " * 19_000, b" " * 256_000 + b"x",
     b"Things that are here:  a" + b" " * 200_000 + b"b", b'"' * 256_000, b"!)" * 100_000, b"\n" * 200_000 + b"x."],
)  # fmt: skip
def test_long_captions_are_bounded(caption: bytes) -> None:
    # Each would take minutes if a pattern went over the text again and again.
    assert len(sentences(caption)) <= MAX_PARTS


def test_a_caption_of_too_many_sentences_is_asked_whole() -> None:
    some = [b"It bites %s times." % bytes([65 + number]) for number in range(MAX_PARTS + 1)]
    assert len(sentences(b"  ".join(some[:-1]))) == MAX_PARTS
    whole = b"  ".join(some)
    assert sentences(whole) == (whole,)


def test_the_labelled_captions_hold_no_odd_parts() -> None:
    """Of the messages labelled by hand no part is cut from a quotation, and most are sentences."""
    files = (DATA / "nethack_captions.jsonl", DATA / "nethack_captions_heldout.jsonl")
    lines = [line for file in files for line in file.read_text().splitlines()]
    captions = [json.loads(line)["caption"].encode() for line in lines]
    parts = {part for caption in captions for part in sentences(caption)}
    assert all(part.count(b'"') % 2 == 0 for part in parts)
    unfinished = [part for part in parts if part[-1:] not in b".!?)]\"'"]
    assert len(unfinished) < len(parts) / 20


def test_without_parts_a_caption_is_asked_whole() -> None:
    assert splitter("none")(b"A.  B.") == (b"A.  B.",)
    assert splitter("sentences") is sentences


# -- combining


def yes(score: float | None = 1.0) -> PartLabel:
    return PartLabel(LABELLED, True, 0.75, score)


def no(score: float | None = -1.0) -> PartLabel:
    return PartLabel(LABELLED, False, 0.25, score)


NOTHING = PartLabel(UNPARSED, None, None, None)
LOST = PartLabel(FAILED, None, None, None)


@pytest.mark.parametrize(
    ("parts", "status", "helpful", "score", "position"),
    [
        ([no(-3.0), no(-1.0)], LABELLED, False, -1.0, 1),
        ([no(-3.0), yes(0.5), yes(2.0)], LABELLED, True, 2.0, 2),
        ([None, yes(0.5)], LABELLED, True, 0.5, 1),
        ([LOST, NOTHING, yes(0.5)], LABELLED, True, 0.5, 2),
        ([no(), NOTHING], UNPARSED, None, None, 1),
        ([no(), NOTHING, LOST], FAILED, None, None, 1),
        ([yes(None), yes(None)], LABELLED, True, None, 0),
        ([yes(9.0), PartLabel(LABELLED, True, None, None, by_person=True)], LABELLED, True, None, 1),
        ([no(-9.0), PartLabel(LABELLED, False, None, None, by_person=True)], LABELLED, False, -9.0, 0),
        # A threshold below 0: helpful with a score under that of an unhelpful one cannot be, but would win.
        ([no(5.0), yes(1.0)], LABELLED, True, 1.0, 1),
    ],
)
def test_a_caption_is_worth_what_its_best_part_is(
    parts: list[PartLabel | None], status: LabelStatus, helpful: bool | None, score: float | None, position: int
) -> None:
    result = combine(parts)
    assert result is not None
    assert (result.status, result.helpful, result.score, result.position) == (status, helpful, score, position)


@pytest.mark.parametrize("parts", [[None], [no(), None], [NOTHING, None], [None, LOST]])
def test_nothing_is_decided_while_a_part_is_open_and_none_is_helpful(parts: list[PartLabel | None]) -> None:
    assert combine(parts) is None


LABELS = st.one_of(
    st.none(),
    st.sampled_from([NOTHING, LOST]),
    st.builds(
        lambda helpful, score: PartLabel(LABELLED, helpful, None if score is None else 0.5, score),
        st.booleans(),
        st.one_of(st.none(), st.integers(-4, 4).map(float)),
    ),
    st.booleans().map(lambda helpful: PartLabel(LABELLED, helpful, None, None, by_person=True)),
)

_FILL = """INSERT INTO annotations (labeler_id, caption_id, status, helpful, p_helpful, score, prompt_prefix_id,
    prompt_suffix, answer, model, backend, attempts, detail, created_at)
    VALUES ('judge', ?, ?, ?, ?, ?, 1, '', '', 'm', 'scripted', 1, '', 1.0)"""


def in_sql(parts: Sequence[PartLabel | None], order: Sequence[int]) -> Combined | None:
    """Labels parts in an order, and returns what the store makes of it."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.execute("PRAGMA recursive_triggers = ON")
        migrate(connection, "memory")
        connection.execute("INSERT INTO labelers VALUES ('judge', '{}', 'm', 0.0)")
        connection.executemany(
            "INSERT INTO captions VALUES (?, ?, 0.0)", [(i, b"%d" % i) for i in range(len(parts) + 1)]
        )
        rows = [("judge", len(parts), position, position) for position in range(len(parts))]
        connection.executemany("INSERT INTO caption_parts VALUES (?, ?, ?, ?)", rows)
        for position in order:
            part = parts[position]
            if part is None:
                continue
            if part.by_person:
                values = (position, part.helpful)
                connection.execute(
                    "INSERT INTO overrides (caption_id, labeler_id, helpful, note, author, created_at)"
                    " VALUES (?, 'judge', ?, '', '', 1.0)",
                    values,
                )
            else:
                connection.execute(_FILL, (position, str(part.status), part.helpful, part.p_helpful, part.score))
        row = connection.execute(
            "SELECT l.status, l.helpful, l.p_helpful, l.score, a.detail FROM labels l JOIN annotations a"
            " ON a.id = l.annotation_id WHERE l.caption_id = ?",
            (len(parts),),
        ).fetchone()
    finally:
        connection.close()
    if row is None:
        return None
    status, helpful, p_helpful, score, detail = row
    position = int(detail.split("caption ")[1])
    return Combined(LabelStatus(status), None if helpful is None else bool(helpful), p_helpful, score, position)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), parts=st.lists(LABELS, min_size=1, max_size=4))
def test_the_store_combines_as_this_module_does(data: st.DataObject, parts: list[PartLabel | None]) -> None:
    order = data.draw(st.permutations(range(len(parts))))
    assert in_sql(parts, order) == combine(parts)


# -- the labeler


def test_labelers_without_parts_keep_their_ids() -> None:
    assert Labeler(resolve_labeler(LabelerConfig(goal="open the box")), "m").id == "a2063688467aba0d"
    assert Labeler(resolve_labeler(LabelerConfig(goal="open the box"), "preference"), "m").id == "ac196ef37a1a51d2"


def test_parts_make_another_labeler() -> None:
    whole = resolve_labeler(LabelerConfig(goal="open the box"))
    spec = resolve_labeler(LabelerConfig(goal="open the box", parts="sentences"))
    assert spec == replace(whole, parts="sentences")
    assert Labeler(spec, "m").id != Labeler(whole, "m").id
    assert spec.request(b"A.") == whole.request(b"A.")
    assert LabelerSpec.from_wire(spec.to_wire()) == spec
    assert "parts" not in whole.to_wire()


def test_parts_of_another_version_and_of_pairs_are_refused_in_words() -> None:
    wire = resolve_labeler(LabelerConfig(goal="open the box")).to_wire()
    with pytest.raises(ConfigError, match="knows no parts 'words'"):
        LabelerSpec.from_wire(wire | {"parts": "words"})
    with pytest.raises(ConfigError, match="annotator.labeler.parts is 'sentences'.*preference.*'none'"):
        resolve_labeler(LabelerConfig(goal="open the box", parts="sentences"), "preference")


def test_the_store_keeps_parts_of_any_bytes(tmp_path: Path) -> None:
    caption = b"nul \x00 and \xff. \x1b[31mRed.  End."
    with Store(tmp_path / "annotations.sqlite") as store:
        store.add_labeler("judge", {}, "m")
        (key,) = store.intern([caption])
        kept, _ = store.add_parts("judge", {key: sentences(caption)})
    assert [text for _, text in kept[key]] == list(sentences(caption))


def test_a_store_of_before_is_read_as_one_without_parts(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, str(path), MIGRATIONS[:2])
    connection.execute("INSERT INTO labelers VALUES ('judge', '{}', 'm', 0.0)")
    connection.execute("INSERT INTO captions VALUES (7, X'41', 0.0)")
    connection.close()
    with StoreReader(path) as reader, Reading(path) as reading:
        assert reader.summary().captions == 1
        assert parts_of(reading, 7) == {}
        assert holders(reading, 7) == 0
        assert verdicts(reading, "run", "judge", "other") == []
