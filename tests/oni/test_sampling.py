"""Which moments are kept, cut out of rollouts and drawn: by hand, against plain loops, with a clock of the test's."""

import itertools
import logging
import threading
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.spec import EnvSpec, ObsSpec
from llm_annotator.client import AnnotatorClient
from llm_annotator.config import LabelerConfig
from llm_annotator.labeler import resolve_labeler
from llm_annotator.moments import NO_ACTION, unpack_moment
from llm_annotator.pictures import picture_text
from oni.actors.scenes import Scenes
from oni.config import SamplingConfig
from oni.devices import Devices
from oni.sampling.reservoir import Reservoir
from oni.sampling.sampler import BURST_S, MAX_JOBS, Look, Sampler
from oni.sampling.scores import MAX_AT_ONCE, MAX_AT_THE_END, ScoreLog
from oni.sampling.windows import PICKS, Span, make_gather, span_of
from oni.types import Endings, Rollout

T, B = 12, 5
ONE = Devices(jax.devices()[:1])


def reservoir(size, seed=0):
    return Reservoir(size, np.random.default_rng(seed))


def rollout_of(*captions, num_rows=1):
    return np.array(captions, np.int32).reshape(-1, num_rows)


# --- the reservoir


def test_the_first_offers_fill_the_slots_in_order():
    kept = reservoir(3)
    for number in range(3):
        (pick,) = kept.choose(rollout_of(0, 7, 0, 7), limit=8)
        assert (pick.caption_id, pick.slot, pick.row, pick.is_new) == (7, number, 0, True)
        assert pick.step in (1, 3)
    assert kept.num_kept == 3
    assert kept.offers[7] == 3


def test_the_empty_caption_is_never_kept():
    assert reservoir(3).choose(rollout_of(0, 0, 0), limit=8) == []


def kept_offers(size, offers, seed):
    """Returns which of so many offers of one caption are kept at the end, by slot."""
    one, slots = reservoir(size, seed), {}
    for number in range(offers):
        for pick in one.choose(rollout_of(3), limit=8):
            assert pick.is_new == (number < size)
            slots[pick.slot] = number
    return set(slots.values())


def test_each_offer_is_kept_with_the_same_probability():
    size, offers, trials = 2, 8, 2000
    count = np.zeros(offers)
    for seed in range(trials):
        kept = kept_offers(size, offers, seed)
        assert len(kept) == size
        count[list(kept)] += 1
    # 2000 draws of probability 1/4: mean 500, standard deviation 19.4
    assert np.abs(count - trials * size / offers).max() < 5 * 19.4


def test_the_moment_is_drawn_among_all_steps_that_said_the_caption():
    seen = {reservoir(1, seed).choose(rollout_of(5, 0, 0, 5, 5, 0, num_rows=2), limit=8)[0][1:3] for seed in range(60)}
    assert seen == {(0, 0), (1, 1), (2, 0)}


def test_captions_with_the_fewest_moments_come_first_and_no_more_are_taken_than_allowed():
    kept = reservoir(2)
    for _ in range(2):
        assert len(kept.choose(rollout_of(1, 2, 3), limit=8)) == 3
    picks = kept.choose(rollout_of(1, 2, 3, 4, 5), limit=2)
    assert {pick.caption_id for pick in picks} == {4, 5}
    assert kept.offers[[1, 2, 3]].tolist() == [2, 2, 2], "what there was no room for was not offered"
    assert kept.choose(rollout_of(1, 2, 3), limit=0) == []


def test_a_limit_does_not_prefer_some_offers():
    """Two captions that always come up together, one moment allowed each time: still each offer is as good."""
    trials, rounds = 3000, 6
    share = np.zeros(rounds)
    for seed in range(trials):
        one, kept, offers = reservoir(1, seed), {}, {1: [], 2: []}
        for number in range(rounds):
            before = one.offers[[1, 2]].copy() if len(one.offers) else np.zeros(2)
            for pick in one.choose(rollout_of(1, 2), limit=1):
                kept[pick.caption_id] = number
            for caption, was in zip((1, 2), before, strict=True):
                if one.offers[caption] > was:
                    offers[caption].append(number)
        for caption, numbers in offers.items():
            if len(numbers) == 3:
                share[numbers.index(kept[caption])] += 1
    thirds = share[:3]
    expected = thirds.sum() / 3
    assert expected > 200
    assert np.abs(thirds - expected).max() < 5 * np.sqrt(expected * 2 / 3)


@pytest.mark.parametrize(("room", "expected"), [("plenty", {1, 2, 3}), ("little", {2, 3}), ("none", {3})])
def test_with_little_room_new_captions_come_before_second_moments(room, expected):
    taken = set()
    for seed in range(40):
        one = reservoir(2, seed)
        one.load({"size": 2, "offers": [0, 1, 0, 2]})
        taken |= {pick.caption_id for pick in one.choose(rollout_of(1, 2, 3), limit=8, room=room)}
    assert taken == expected


def test_a_resumed_reservoir_goes_on():
    one = reservoir(4)
    for _ in range(10):
        one.choose(rollout_of(1, 3), limit=8)
    again = reservoir(4, seed=1)
    again.load(one.state_dict())
    assert again.state_dict() == one.state_dict() == {"size": 4, "offers": [0, 10, 0, 10]}
    smaller = reservoir(2)
    smaller.load(one.state_dict())
    assert all(pick.slot < 2 for _ in range(20) for pick in smaller.choose(rollout_of(1, 3), limit=8))
    fresh = reservoir(4)
    fresh.load({})  # a checkpoint of before
    assert fresh.choose(rollout_of(1), limit=8)[0].slot == 0


# --- which steps belong to a moment


def span(step, *, reset=(), ended=(), before=3, after=2, num_steps=10):
    times = range(step - before, step + after + 1)
    flags = [np.array([time in which for time in times]) for which in (reset, ended)]
    return span_of(step, reset=flags[0], ended=flags[1], before=before, after=after, num_steps=num_steps)


def test_a_moment_within_a_rollout():
    assert span(5) == Span(2, 7, shows_after=False, ended=False)


def test_a_moment_ends_at_the_borders_of_the_rollout():
    assert span(0) == Span(0, 2, shows_after=False, ended=False)
    assert span(9) == Span(6, 9, shows_after=True, ended=False)
    assert span(8) == Span(5, 9, shows_after=True, ended=False)
    assert span(7) == Span(4, 9, shows_after=False, ended=False), "all of it fits"


def test_a_moment_holds_nothing_of_other_episodes():
    assert span(5, reset=[2, 4], ended=[1, 3]) == Span(4, 7, shows_after=False, ended=False)
    assert span(5, reset=[5], ended=[4]) == Span(5, 7, shows_after=False, ended=False)
    assert span(5, reset=[7], ended=[6]) == Span(2, 6, shows_after=False, ended=True)
    assert span(5, reset=[6], ended=[5]) == Span(2, 5, shows_after=False, ended=True)
    assert span(9, ended=[9]) == Span(6, 9, shows_after=False, ended=True), "what comes after is of the next episode"


def test_what_windows_repeat_beyond_the_rollout_does_not_matter():
    # step 0 of a game that begins there: the flags of steps before it are repeats
    assert span(1, reset=[-2, -1, 0]) == Span(0, 3, shows_after=False, ended=False)
    assert span(8, ended=[10]) == Span(5, 9, shows_after=True, ended=False)


# --- cutting and drawing


def make_rollout(seed=0, *, ended=()):
    """Observations say their own step and row: T * row + step."""
    rng = np.random.default_rng(seed)
    terminated = np.zeros((T, B), bool)
    for step, row in ended:
        terminated[step, row] = True
    reset = np.zeros((T, B), bool)
    reset[1:] = terminated[:-1]
    grid = np.arange(B)[None] * 100 + np.arange(T)[:, None]
    zeros = np.zeros((T, B), np.float32)
    return Rollout(
        obs={"a": jnp.asarray(grid[..., None], jnp.float32), "b": jnp.asarray(grid[..., None, None] % 7, jnp.int32)},
        action=jnp.asarray(rng.integers(0, 3, (T, B)), jnp.int32),
        log_prob=zeros,
        value=zeros,
        reset=jnp.asarray(reset),
        reward=jnp.asarray(rng.normal(size=(T, B)), jnp.float32),
        terminated=jnp.asarray(terminated),
        truncated=jnp.zeros((T, B), bool),
        bootstrap_value=zeros,
        episode_return=zeros,
        episode_length=zeros,
        success=zeros,
        stats=np.zeros((B, 0)),
        lost=zeros,
        initial_core_state=(),
        last_value=np.zeros(B),
        last_obs={
            "a": jnp.asarray(np.arange(B)[:, None] * 100.0 + T, jnp.float32),
            "b": jnp.zeros((B, 1, 1), jnp.int32),
        },
    )


def test_windows_equal_a_plain_loop_and_are_compiled_once():
    gather = make_gather(ONE, before=3, after=2)
    for seed in range(3):
        rollout = make_rollout(seed)
        rng = np.random.default_rng(seed)
        ids = jnp.asarray(rng.integers(0, 9, (T, B)), jnp.int32)
        intrinsic = jnp.asarray(rng.normal(size=(T, B)), jnp.float32)
        where = np.stack([rng.integers(0, T, PICKS), rng.integers(0, B, PICKS)], 1).astype(np.int32)
        window = jax.device_get(gather(rollout, intrinsic, ids, where))
        for p, (step, row) in enumerate(where):
            for i, t in enumerate(range(step - 3, step + 3)):
                seen = rollout.obs["a"][max(t, 0), row, 0] if t < T else rollout.last_obs["a"][row, 0]
                assert window.obs["a"][p, i, 0] == seen
                inside = min(max(t, 0), T - 1)
                for name, array in (("action", rollout.action), ("extrinsic", rollout.reward), ("caption_id", ids)):
                    assert getattr(window, name)[p, i] == array[inside, row]
                assert window.intrinsic[p, i] == intrinsic[inside, row]
    assert gather._cache_size() == 1


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


SPEC = EnvSpec(
    id="test:game",
    obs={"a": ObsSpec((1,), np.dtype(np.float32)), "b": ObsSpec((1, 1), np.dtype(np.int32))},
    action_names=("left", "right", "wait"),
    max_episode_steps=T,
    says_text=True,
)
TEXTS = [b"", b"one", b"two", b"\xff three"]


class Drawn:
    """An environment whose pictures say what was observed."""

    spec = SPEC

    def depict(self, obs):
        return {"kind": "text", "text": f"{obs['a'][0]:.0f}"}


@pytest.fixture
def sampled():
    """Returns a function that looks at one rollout and returns the moments."""
    open_ones = []

    def start(env=None, clock=None, **config):
        sampler = Sampler(SamplingConfig(**config), env or Drawn(), ONE, seed=0, clock=clock or Clock()).__enter__()
        open_ones.append(sampler)
        return sampler

    yield start
    for sampler in open_ones:
        sampler.close()


def look(rollout, said, *, env_step=1000, scenes=None):
    """`said`: caption ids by (step, row)."""
    ids = np.zeros((T, B), np.int32)
    for place, caption in said.items():
        ids[place] = caption
    intrinsic = jnp.asarray(ids * 0.5, jnp.float32)
    return Look(rollout, intrinsic, jnp.asarray(ids), TEXTS, scenes, env_step)


def test_a_moment_shows_what_led_to_the_caption_and_what_came_of_it(sampled):
    sampler = sampled(before=3, after=2)
    rollout = make_rollout()
    sampler.look(look(rollout, {(5, 2): 3, (6, 2): 1, (6, 3): 2}))
    moments = {moment.caption: moment for moment in sampler.finish(10.0)}
    assert set(moments) == {b"one", b"two", b"\xff three"}
    sent = moments[b"\xff three"]
    assert (sent.env_step, sent.slot) == (1000 + 5 * B, 0)
    moment = unpack_moment(sent.frames)
    assert (moment.env, moment.row, moment.centre) == ("test:game", 2, 3)
    assert [frame.env_step for frame in moment.frames] == [1000 + step * B for step in range(2, 8)]
    assert [picture_text(moment.picture(frame)) for frame in moment.frames] == [str(200 + step) for step in range(2, 8)]
    assert [frame.caption for frame in moment.frames] == [b"", b"", b"", b"\xff three", b"one", b""]
    assert [frame.intrinsic for frame in moment.frames] == [0.0, 0.0, 0.0, 1.5, 0.5, 0.0]
    for step, frame in zip(range(2, 8), moment.frames, strict=True):
        assert frame.action == rollout.action[step, 2]
        assert frame.action_name == SPEC.action_names[frame.action]
        assert frame.extrinsic == float(rollout.reward[step, 2])


def test_moments_stop_at_the_borders_of_episode_and_rollout(sampled):
    sampler = sampled(before=3, after=2)
    sampler.look(look(make_rollout(ended=[(5, 1), (7, 1)]), {(7, 1): 1, (T - 1, 4): 2, (6, 1): 3}))
    moments = {moment.caption: unpack_moment(moment.frames) for moment in sampler.finish(10.0)}
    ending = moments[b"one"]
    assert [picture_text(ending.picture(frame)) for frame in ending.frames] == ["106", "107"]
    assert ending.frames[-1].terminated
    assert ending.centre == 1
    border = moments[b"two"]
    assert [picture_text(border.picture(f)) for f in border.frames] == [str(400 + step) for step in range(8, T + 1)]
    assert border.frames[-1].action == NO_ACTION
    assert not border.frames[-1].caption
    assert border.frames[border.centre].caption == b"two"
    assert moments[b"\xff three"].centre == 0, "it was said by the first step of an episode"


def test_the_last_end_of_an_episode_is_shown_where_it_was_kept(sampled):
    sampler = sampled(before=1, after=2)
    ended = np.array([0, 1, 0, 1, 0])
    endings = Endings(
        step=jnp.asarray([-1, 7, -1, 3, -1], jnp.int32),
        obs={"a": jnp.asarray(ended[:, None] * 999.0, jnp.float32), "b": jnp.zeros((B, 1, 1), jnp.int32)},
    )
    rollout = make_rollout(ended=[(5, 1), (7, 1), (3, 3)])._replace(endings=endings)
    sampler.look(look(rollout, {(7, 1): 1, (5, 1): 2, (5, 3): 3}))
    moments = {moment.caption: unpack_moment(moment.frames) for moment in sampler.finish(10.0)}

    def texts(caption):
        moment = moments[caption]
        return [picture_text(moment.picture(frame)) for frame in moment.frames]

    assert texts(b"one") == ["106", "107", "999"]
    last = moments[b"one"].frames[-1]
    assert (last.action, last.env_step, last.caption) == (NO_ACTION, 1000 + 8 * B, b"")
    assert texts(b"two") == ["104", "105"], "of an earlier end nothing is kept"
    assert texts(b"\xff three") == ["304", "305", "306", "307"], "the end of the episode before is none of its business"


def test_equal_pictures_are_kept_once(sampled):
    sampler = sampled(before=3, after=2)
    rollout = make_rollout()
    rollout = rollout._replace(obs=jax.tree.map(lambda leaf: leaf * 0, rollout.obs))
    sampler.look(look(rollout, {(5, 2): 1}))
    (moment,) = sampler.finish(10.0)
    moment = unpack_moment(moment.frames)
    assert len(moment.pictures) == 1
    assert {frame.picture for frame in moment.frames} == {0}


def test_moments_come_at_a_bounded_rate(sampled):
    clock = Clock()
    sampler = sampled(clock=clock, per_s=0.5, moments=16, before=1, after=1)
    taken = 0
    for number in range(160):  # sixteen seconds
        sampler.look(look(make_rollout(), {(1, row): 1 + (number + row) % 3 for row in range(3)}))
        clock.now += 0.1
        deadline = time.monotonic() + 10
        while not sampler._jobs.empty() and time.monotonic() < deadline:
            time.sleep(0.001)
        taken += len(sampler.take())
    taken += len(sampler.finish(10.0))
    assert 0.5 * (BURST_S + 16) - 1 <= taken <= 0.5 * (BURST_S + 16)


def test_a_look_is_dropped_where_the_thread_is_behind(sampled):
    go_on = threading.Event()

    class Slow(Drawn):
        def depict(self, obs):
            go_on.wait(10.0)
            return super().depict(obs)

    clock = Clock()
    sampler = sampled(env=Slow(), clock=clock, per_s=1000.0)
    for _ in range(20):  # would wait for good if it waited
        clock.now += 1.0
        sampler.look(look(make_rollout(), {(1, 1): 1}))
    go_on.set()
    assert 1 <= len(sampler.finish(10.0)) <= MAX_JOBS + 1


def test_an_environment_that_cannot_draw_is_shown_as_numbers_and_said_once(sampled, caplog):
    class Broken(Drawn):
        def depict(self, obs):
            raise ZeroDivisionError("no colour")

    sampler = sampled(env=Broken(), before=1, after=1)
    with caplog.at_level(logging.ERROR):
        sampler.look(look(make_rollout(), {(5, 2): 1, (6, 3): 2}))
        moments = sampler.finish(10.0)
    assert len(moments) == 2
    moment = unpack_moment(moments[0].frames)
    assert picture_text(moment.pictures[0]).startswith("a: ")
    assert [record.getMessage() for record in caplog.records] == [
        "test:game cannot draw what it shows; it is shown as numbers"
    ]


def test_a_failure_of_drawing_ends_no_run(sampled, caplog):
    env = SimpleNamespace(spec=SPEC._replace(action_names=()))  # so that no action has a name
    clock = Clock()
    sampler = sampled(env=env, clock=clock)
    for _ in range(2):
        sampler.look(look(make_rollout(), {(5, 2): 1}))
        clock.now += 1.0
        while sampler._jobs.qsize():
            time.sleep(0.001)
    assert sampler.finish(10.0) == []
    assert sampler.failed == 2
    assert len(caplog.records) == 1


def test_what_is_kept_stays_within_its_room(sampled):
    clock = Clock()
    sampler = sampled(clock=clock, per_s=1000.0, max_mb=1e-6, before=0, after=0)  # one byte
    for caption in (1, 2, 3):
        sampler.look(look(make_rollout(), {(5, 2): caption}))
        clock.now += 1.0
        deadline = time.monotonic() + 10
        while sampler.taken < 1 and time.monotonic() < deadline:
            time.sleep(0.001)
        sampler.take()
    assert sampler.taken == 1, "only what takes the place of another would be kept"
    state = sampler.state_dict()
    again = sampled(max_mb=1e-6)
    again.load(state)
    assert again.state_dict() == state
    assert again._room == "none"


class Shows:
    """A host environment with scenes, as far as scenes need one."""

    spec = SPEC
    raw = {"a": ObsSpec((1,), np.dtype(np.float32))}
    scene = {"s": ObsSpec((2,), np.dtype(np.uint8))}
    shown = ("s",)
    factory = "none:none"
    options = {}

    def observe(self, raw):
        return raw

    def depict_scene(self, shown):
        return {"kind": "text", "text": " ".join(map(str, shown["s"].tolist()))}


def filled_scenes(**options):
    scenes = Scenes(Shows(), num_steps=T, num_envs=B, **options)
    for step in range(T + 1):
        for rows in (slice(0, 2), slice(2, B)):
            shown = np.array([[step, row] for row in range(rows.start, rows.stop)], np.uint8)
            scenes.write(step, rows, {"s": shown})
    return scenes


def test_scenes_are_shown_in_place_of_observations(sampled):
    scenes = filled_scenes()
    scenes.write_endings(7, slice(0, 2), np.array([False, True]), {"s": np.array([[0, 0], [99, 99]], np.uint8)})
    sampler = sampled(env=Shows(), before=2, after=1)
    said = {(7, 1): 1, (T - 1, 4): 2, (3, 3): 3}
    sampler.look(look(make_rollout(ended=[(7, 1)]), said, scenes=scenes))
    scenes.write(7, slice(0, B), {"s": np.zeros((B, 2), np.uint8)})  # the next rollout
    moments = {moment.caption: unpack_moment(moment.frames) for moment in sampler.finish(10.0)}

    def texts(moment):
        return [picture_text(moment.picture(frame)) for frame in moment.frames]

    assert texts(moments[b"one"]) == ["5 1", "6 1", "7 1", "99 99"], "the scene of the end is the last one"
    assert moments[b"one"].frames[-1].action == NO_ACTION
    assert texts(moments[b"two"]) == [f"{step} 4" for step in (9, 10, 11, 12)]
    assert texts(moments[b"\xff three"]) == [f"{step} 3" for step in (1, 2, 3, 4)]


def test_only_as_many_games_are_watched_as_memory_holds(sampled):
    scenes = filled_scenes(max_bytes=2 * 2 * (T + 1))
    assert scenes.num_rows == 2
    assert filled_scenes(max_bytes=1).num_rows == 1
    scenes.write_endings(3, slice(2, B), np.ones(3, bool), {"s": np.ones((3, 2), np.uint8)})  # of others: passed over
    sampler = sampled(env=Shows(), before=0, after=0)
    sampler.look(look(make_rollout(), {(4, 4): 1, (4, 1): 2}, scenes=scenes))
    assert [moment.caption for moment in sampler.finish(10.0)] == [b"two"]


# --- scores over training


def test_scores_are_told_when_they_changed_and_at_the_end():
    clock = Clock()
    log = ScoreLog(30.0, clock)
    texts = [b"", b"one", b"two"]
    scores = np.full(8, np.nan, np.float32)
    scores[:2] = 1.0, 0.25
    assert log.due(texts, scores) == []
    clock.now += 31
    assert log.due(texts, scores) == [(b"one", 0.25)], "the empty caption and those never scored are left out"
    clock.now += 31
    scores[1], scores[2] = 0.252, 0.0
    assert log.due(texts, scores) == [(b"two", 0.0)], "a change too small to see is left out"
    clock.now += 1
    assert log.due(texts, scores) == []
    assert log.due(texts, scores, last=True) == [(b"one", pytest.approx(0.252))]
    assert log.due(texts, scores, last=True) == []


def test_of_many_changes_the_largest_come_first_and_none_is_lost():
    clock = Clock()
    log = ScoreLog(1.0, clock)
    number = 2 * MAX_AT_ONCE + 10
    texts = [b"%d" % i for i in range(number)]
    scores = np.arange(number, dtype=np.float32)
    log._told = np.zeros(number, np.float32)
    told = []
    for _ in range(4):
        clock.now += 2.0
        told.append(log.due(texts, scores))
    assert [len(part) for part in told] == [MAX_AT_ONCE, MAX_AT_ONCE, 9, 0]
    assert min(score for _, score in told[0]) > max(score for _, score in told[1])
    assert len(dict(itertools.chain(*told))) == number - 1


def test_the_last_report_of_a_long_run_is_bounded_and_nothing_of_it_is_lost():
    number = 100_000
    texts = [b"%d" % i for i in range(number)]
    scores = np.random.default_rng(0).permutation(number).astype(np.float32)
    log = ScoreLog(60.0)
    log._told = scores.copy()
    log._told[: number // 2] = np.nan  # never told
    log._told[-10:] += 1.0
    told = log.due(texts, scores, last=True)
    best = sorted(range(1, number // 2), key=lambda i: -scores[i])[:MAX_AT_THE_END]
    assert [text for text, _ in told] == [b"%d" % i for i in best]
    with AnnotatorClient("http://127.0.0.1:9", "r", "n", {}, resolve_labeler(LabelerConfig())) as client:
        client.record_scores(5, told)
        client.drain(0.0)
        assert client.health.records_dropped == 0


def test_scores_of_captions_that_are_new_are_told_too():
    clock = Clock()
    log = ScoreLog(1.0, clock)
    for size in (3, 5):
        clock.now += 2.0
        told = log.due([b"%d" % i for i in range(size)], np.ones(8, np.float32))
        assert [caption for caption, _ in told] == ([b"1", b"2"] if size == 3 else [b"3", b"4"])
