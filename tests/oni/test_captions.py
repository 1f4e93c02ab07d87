"""The caption table: ids, device look-up, labels, totals."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_annotator.types import LabelStatus, LabelUpdate
from oni.captions import EMPTY_ID, UNKNOWN_ID, CaptionStats, CaptionTable, lookup


def label(caption, helpful, *, status=LabelStatus.LABELLED, p_helpful=None, source="llm"):
    return LabelUpdate(caption=caption, status=status, helpful=helpful, p_helpful=p_helpful, source=source)


def find(table, event):
    ids, unknown = lookup(table.index, jnp.asarray(event)[None])
    return np.asarray(ids[0]), int(unknown)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**31), st.integers(1, 400))
def test_lookup_equals_a_dictionary(event_size, seed, count):
    rng = np.random.default_rng(seed)
    events = rng.integers(0, 4, (count, event_size), dtype=np.uint8)
    table = CaptionTable(event_size)
    known = events[: count // 2 + 1]
    table.intern_events(known, lambda code: code.tobytes().hex())
    ids, unknown = find(table, events)
    expected = {code.tobytes() for code in known}
    for code, caption_id in zip(events, ids, strict=True):
        if not code.any():
            assert caption_id == EMPTY_ID
        elif code.tobytes() in expected:
            assert table.texts[caption_id] == code.tobytes().hex().encode()
        else:
            assert caption_id == UNKNOWN_ID
    assert unknown == (ids == UNKNOWN_ID).sum()


def test_events_that_say_the_same_share_a_caption_and_silence_is_empty():
    table = CaptionTable(1)
    new = table.intern_events(np.array([[1], [2], [3]], np.uint8), lambda code: "" if code[0] == 3 else "The same.")
    assert table.texts == [b"", b"The same."]
    assert new == [1]
    assert find(table, np.array([[0], [1], [2], [3]], np.uint8))[0].tolist() == [0, 1, 1, 0]


def test_an_event_is_described_once():
    table = CaptionTable(1)
    asked = []

    def describe(code):
        asked.append(int(code[0]))
        return f"Caption {code[0]}."

    for _ in range(2):
        table.intern_events(np.array([[5], [5], [7]], np.uint8), describe)
    assert asked == [5, 7]


def test_lone_surrogates_do_not_stop_a_run():
    table = CaptionTable(1)
    table.intern_events(np.array([[1], [2]], np.uint8), lambda code: "raw \udcff" if code[0] == 1 else "odd \ud800")
    assert table.texts[1:] == [b"raw \xff", rb"odd \ud800"]


def test_growing_keeps_everything():
    table = CaptionTable(2)
    codes = np.array([[i // 256, i % 256] for i in range(1, 3000)], np.uint8)
    table.intern_events(codes[:10], str)
    table.set_labels([label(table.texts[3], True, p_helpful=0.75)])
    table.intern_events(codes, str)
    assert table.capacity == 4096
    assert table.helpful[3] == 1
    assert table.p_helpful[3] == 0.75
    ids, unknown = find(table, codes)
    assert unknown == 0
    assert sorted(ids) == list(range(1, 3000))


def test_no_answer_is_not_a_label():
    table = CaptionTable(1)
    a, b = table.intern(b"a"), table.intern(b"b")
    changed = table.set_labels(
        [
            label(b"a", None, status=LabelStatus.UNPARSED),
            label(b"b", True),
            label(b"b", None, status=LabelStatus.FAILED),
            label(b"never seen", True),
            label(b"", True),
        ]
    )
    assert changed == [b]
    assert table.helpful[[EMPTY_ID, a, b]].tolist() == [-1, -1, 1]
    assert table.failed[[a, b]].tolist() == [True, True]
    assert table.unanswered().tolist() == []


def test_a_label_heard_again_is_no_change():
    table = CaptionTable(1)
    a = table.intern(b"a")
    for p in (None, 0.3):
        assert table.set_labels([label(b"a", True, p_helpful=p)]) == [a]
        assert table.set_labels([label(b"a", True, p_helpful=p)]) == []
    assert table.set_labels([label(b"a", False, p_helpful=0.3)]) == [a]


def test_a_person_overrules():
    table = CaptionTable(1)
    a = table.intern(b"a")
    table.set_labels([label(b"a", True)])
    table.set_labels([label(b"a", False, source="human")])
    assert table.helpful[a] == 0


def test_totals():
    table = CaptionTable(1)
    a, b = table.intern(b"a"), table.intern(b"b")

    def stats(*count):
        padded = np.zeros(table.capacity, np.int32)
        padded[: len(count)] = count
        return CaptionStats(num_steps=padded, num_episodes=padded > 0, reward_sum=padded * 0.5)

    assert table.add(stats(0, 3), env_step=100).tolist() == [a]
    assert table.add(stats(0, 1, 2), env_step=200).tolist() == [a, b]
    assert table.count[[a, b]].tolist() == [4, 2]
    assert table.first_step[[a, b]].tolist() == [100, 200]
    assert table.last_step[[a, b]].tolist() == [200, 200]
    assert table.reward_sum[[a, b]].tolist() == [2.0, 1.0]
    assert table.episode_count[[a, b]].tolist() == [2, 1]


@pytest.mark.parametrize("text", [b"\x00\xff\xfe", "Grüße \U0001f5dd".encode(), b"\x1b[31mred", b"x" * 10_000])
def test_any_bytes_survive_a_checkpoint(text):
    table = CaptionTable(1)
    i = table.intern(text)
    table.set_labels([label(text, True, p_helpful=0.9)])
    again = CaptionTable.from_state_dict(table.state_dict())
    assert again.texts == table.texts
    assert again.intern(text) == i
    assert again.helpful[i] == 1
    assert again.p_helpful[i] == table.p_helpful[i]
    assert np.isnan(again.p_helpful[EMPTY_ID])


def stats_of(table, episodes):
    """Statistics of a rollout in which captions came up in so many episodes each."""
    count = np.zeros(table.capacity, np.int32)
    for caption_id, number in episodes.items():
        count[caption_id] = number
    return CaptionStats(num_steps=count, num_episodes=count, reward_sum=np.zeros(table.capacity))


def test_the_most_wanted_are_the_frequent_and_every_fourth_a_new_one():
    table = CaptionTable(0)
    ids = [table.intern(b"caption %d" % i) for i in range(12)]  # 1 to 12
    table.add(stats_of(table, {1: 9, 2: 7, 3: 8, 4: 6, 5: 5, 6: 5}), env_step=10)
    table.set_labels([label(b"caption 0", True)])
    table.set_labels([label(b"caption 11", None, status=LabelStatus.FAILED)])
    assert table.wanted(8) == [3, 2, 4, 11, 6, 5, 9, 10]  # 9: the newest of those that did not come up
    assert set(table.wanted(100)) == set(ids) - {1, 12}
    assert table.wanted(0) == []


def test_what_came_up_long_ago_is_wanted_less():
    table = CaptionTable(0)
    for i in range(8):
        table.intern(b"caption %d" % i)
    table.add(stats_of(table, {1: 3}), env_step=1)
    for step in range(2, 140):
        table.add(stats_of(table, {}), env_step=step)
    table.add(stats_of(table, {2: 1}), env_step=140)
    assert table.wanted(4)[:2] == [2, 1]  # 3 * 0.99^139 = 0.74
    restored = CaptionTable.from_state_dict(table.state_dict())
    assert restored.wanted(4)[:2] == [1, 2]  # a resumed run begins with what it counted in all
