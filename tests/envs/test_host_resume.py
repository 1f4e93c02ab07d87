"""Snapshots of a `GamePool`: running episodes come back byte for byte, or it is said why not."""

import json

import numpy as np
import pytest
from host_games import HallEnv, QuietHallEnv
from test_host_pool import assert_same, join, random_actions

from envs.errors import EnvError
from envs.host.history import History, Snapshot, read_snapshot
from envs.host.pool import GamePool
from envs.spec import EnvSpec

SEED = 5


def go_on(pool, actions):
    told = []
    for action in actions:
        for group, share in zip(pool.groups, np.split(action, len(pool.groups)), strict=True):
            group.send(share)
        told.append(join([group.recv() for group in pool.groups]))
    return told


def raw_bytes(pool):
    """The observations as the games wrote them, over all rows."""
    return [b"".join(group.raw[name].tobytes() for group in pool.groups) for name in sorted(pool.env.raw)]


def start(pool):
    for group in pool.groups:
        group.reset()


@pytest.mark.slow
def test_episodes_come_back_byte_for_byte_and_go_on_alike():
    actions = random_actions(40, 6)
    with GamePool(QuietHallEnv(), 6, seed=SEED, num_workers=2) as pool:
        start(pool)
        before = go_on(pool, actions[:25])
        saved = json.dumps(pool.snapshot())
        raw = raw_bytes(pool)
        after = go_on(pool, actions[25:])
    for options in ({"num_workers": 2}, {"num_workers": 1, "num_groups": 3}):
        with GamePool(QuietHallEnv(), 6, seed=SEED, **options) as pool:
            steps = join(pool.restore(json.loads(saved)))
            assert raw_bytes(pool) == raw
            np.testing.assert_array_equal(steps["obs/state"], before[-1]["obs/state"])
            assert not steps["truncated"].any()
            assert json.dumps(pool.snapshot()) == saved
            assert_same(after, go_on(pool, actions[25:]))


def test_restore_in_the_same_pool_goes_back():
    actions = random_actions(20, 2)
    with GamePool(QuietHallEnv(), 2, seed=SEED, num_workers=1) as pool:
        start(pool)
        go_on(pool, actions[:9])
        saved = pool.snapshot()
        after = go_on(pool, actions[9:])
        pool.restore(saved)
        assert_same(after, go_on(pool, actions[9:]))


def test_without_replay_the_following_episodes_begin():
    with GamePool(QuietHallEnv(), 2, seed=SEED, num_workers=1) as pool:
        start(pool)
        go_on(pool, random_actions(8, 2))
        saved = pool.snapshot()
        steps = join(pool.restore(saved, replay=False))
        assert steps["truncated"].all()
        assert (steps["obs/state"][:, 1] == 0).all()
        again = pool.snapshot()
        assert again["episode"] == [number + 1 for number in saved["episode"]]
        assert len(set(again["actions"])) == 1  # none
        go_on(pool, random_actions(2, 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": 2}, "what row 0 shows is not what it showed"),
        ({"version": 3}, "row 0: the episode ended after 1 of the"),
        ({"tripwire": __file__}, r"rows 0-1, 2-3 ended with status 3 \(the roof came down\) while it played row 0"),
    ],
)
def test_games_that_do_not_come_back_are_named_and_new_ones_can_start(options, message, tmp_path):
    tripwire = tmp_path / "tripwire"
    with GamePool(QuietHallEnv(), 4, seed=SEED) as pool:
        start(pool)
        steps = go_on(pool, random_actions(3, 4))
        assert not any(step["terminated"][0] for step in steps)
        saved = pool.snapshot()
    if "tripwire" in options:
        tripwire.touch()
        options = {"tripwire": str(tripwire)}
    with GamePool(QuietHallEnv(**options), 4, seed=SEED, num_workers=1) as pool:
        with pytest.raises(EnvError, match=message) as caught:
            pool.restore(saved)
        assert "--env.no-resume-games" in str(caught.value)
        with pytest.raises(EnvError, match="after reset"):
            pool.groups[0].send(np.array([0, 0]))
        tripwire.unlink(missing_ok=True)
        pool.restore(saved, replay=False)
        go_on(pool, random_actions(2, 4))


@pytest.mark.slow
def test_rows_lost_before_the_snapshot_count_as_cut_off_after_it():
    with GamePool(HallEnv(), 2, seed=SEED, num_workers=1) as pool:
        start(pool)
        one, two = pool.groups
        one.send(np.array([HallEnv().spec.action_names.index("raise")]))
        one.recv()
        saved = pool.snapshot()  # the other group has not been told
        assert saved["lost"] == [1]
        assert join(pool.restore(saved))["truncated"].tolist() == [False, True]
        two.send(np.array([0]))
        assert two.recv().final_obs["state"][0, 1] == 1


def test_games_of_another_run_are_refused():
    with GamePool(QuietHallEnv(), 2, seed=SEED, num_workers=1) as pool:
        start(pool)
        go_on(pool, random_actions(3, 2))
        saved = pool.snapshot()
        damaged = [
            ({"schema": 99}, "layout 99"),
            ({"num_envs": 4}, "4 games were saved, but there are 2"),
            ({"env": "test:cellar"}, "games of test:cellar were saved"),
            ({"seed": 6}, "seed 6, and this run has seed 5"),
            ({"actions": ["!", "!"]}, "cannot be read"),
            ({"actions": saved["actions"][:1]}, "not every game"),
            ({"episode": None}, "cannot be read"),
            ({"episode": [-1, 0]}, "other games"),
            ({"lost": [2]}, "other games"),
        ]
        for change, message in damaged:
            with pytest.raises(EnvError, match=message):
                pool.restore({**saved, **change})
        pool.restore(saved)
        pool.groups[0].send(np.array([0]))
        with pytest.raises(EnvError, match="under way"):
            pool.restore(saved)


def test_history_forgets_only_what_ended():
    history = History(2, num_actions=300, max_episode_steps=4)
    history.begin(slice(None))
    for t in range(11):  # rows end every 4 and every 3 steps: the ring goes round
        history.add(np.array([t, 100 + t]))
        history.begin(np.array([(t + 1) % 4 == 0, (t + 1) % 3 == 0]))
    assert history.actions(0).tolist() == [8, 9, 10]
    assert history.actions(1).tolist() == [109, 110]
    assert history.episode.tolist() == [2, 3]
    copy = History(2, num_actions=300, max_episode_steps=4)
    copy.load([2, 3], [history.actions(0), history.actions(1)])
    copy.add(np.array([11, 111]))
    assert copy.actions(0).tolist() == [8, 9, 10, 11]
    assert copy.actions(1).tolist() == [109, 110, 111]


def test_long_episodes_make_small_snapshots():
    spec = EnvSpec("test:long", {}, tuple("abc"), 5_000)
    history = History(1, num_actions=3, max_episode_steps=5_000)
    history.begin(slice(None))
    played = np.random.default_rng(0).integers(0, 3, 4_999)
    for action in played:
        history.add(np.array([action]))
    snapshot = Snapshot(spec.id, 0, [0], [history.actions(0)], [0], [])
    text = json.dumps(snapshot.to_json(3))
    assert len(text) < 2_500
    again = read_snapshot(json.loads(text), env=spec.id, num_envs=1, num_actions=3, max_episode_steps=5_000)
    np.testing.assert_array_equal(again.actions[0], played)
