"""`GamePool`: what a step gives, whoever plays it."""

import numpy as np
import pytest
from host_games import LIMIT, Hall, HallEnv, QuietHallEnv

import envs
from envs.errors import EnvError
from envs.host.arena import CAPTION_BYTES, ENDING_BYTES
from envs.host.pool import GamePool
from envs.host.seeding import episode_seed
from envs.host.types import HostVectorEnv
from envs.spec import ObsSpec


def random_actions(steps, num_envs, *, seed=0, num_actions=3):
    return np.random.default_rng(seed).integers(0, num_actions, (steps, num_envs), np.int32)


def play(env, actions, *, seed=5, **options):
    """Returns all that a pool said: one list entry a step, of arrays over all rows."""
    with GamePool(env, actions.shape[1], seed=seed, **options) as pool:
        told = [join([group.reset() for group in pool.groups])]
        for action in actions:
            for group, share in zip(pool.groups, np.split(action, len(pool.groups)), strict=True):
                group.send(share)
            told.append(join([group.recv() for group in pool.groups]))
        assert pool.deaths == 0
    return told


def join(steps):
    """One flat record of the steps of several groups."""
    record = {}
    for name in ("obs", "final_obs", "info"):
        for key in getattr(steps[0], name):
            record[f"{name}/{key}"] = np.concatenate([getattr(step, name)[key] for step in steps])
    for name in ("reward", "terminated", "truncated"):
        record[name] = np.concatenate([getattr(step, name) for step in steps])
    for name in ("caption", "ending"):
        record[name] = [value for step in steps for value in getattr(step, name)]
    return record


def assert_same(told, again):
    assert len(told) == len(again)
    for a, b in zip(told, again, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def expected(actions, *, seed=5):
    """What the rows of a pool of halls must say, worked out by one game after another."""
    rows = []
    for row in range(actions.shape[1]):
        game, raw, episode, steps = Hall(), {"state": np.zeros(3, np.int64), "screen": np.zeros((2, 4), np.uint8)}, 0, 0
        game.attach(raw)
        game.reset(episode_seed(seed, row, 0))
        told = []
        for action in actions[:, row].tolist():
            step = game.step(action)
            steps += 1
            final = {name: array.copy() for name, array in raw.items()}
            cut = not step.terminated and steps == LIMIT
            if step.terminated or cut:
                episode, steps = episode + 1, 0
                game.reset(episode_seed(seed, row, episode))
            told.append((step, cut, final, {name: array.copy() for name, array in raw.items()}))
        rows.append(told)
    return rows


def test_pool_says_what_its_games_say():
    actions = random_actions(60, 4)
    told = play(HallEnv(), actions, num_workers=1)[1:]
    ends = cuts = longest = 0
    for row, games in enumerate(expected(actions)):
        for record, (step, cut, final, raw) in zip(told, games, strict=True):
            assert record["reward"][row] == np.float32(step.reward)
            assert (record["terminated"][row], record["truncated"][row]) == (step.terminated, cut)
            assert record["caption"][row] == step.caption[:CAPTION_BYTES]
            longest += len(record["caption"][row]) == CAPTION_BYTES
            assert record["info/success"][row] == step.success
            for name in raw:
                assert record[f"obs/{name}"][row].tobytes() == raw[name].tobytes()
                if step.terminated or cut:
                    assert record[f"final_obs/{name}"][row].tobytes() == final[name].tobytes()
            if step.terminated or cut:
                assert record["info/steps"][row] == final["state"][1]
                assert record["ending"][row].startswith(f"after {final['state'][1]} steps")
                assert ENDING_BYTES - 1 <= len(record["ending"][row].encode()) <= ENDING_BYTES
            else:
                assert record["ending"][row] == ""
            ends, cuts = ends + step.terminated, cuts + cut
    assert min(ends, cuts, longest) > 3  # all of it came up


def test_captions_belong_to_the_action_and_the_last_one_is_kept():
    env = envs.make("hostprobe:intrinsic")
    with GamePool(env, 4, seed=1, num_groups=1, num_workers=2) as pool:
        (group,) = pool.groups
        cue = group.reset().obs["signal"][:, 0]
        for last in (False, True):
            right = np.array([True, False, True, False])
            group.send(np.where((cue > 0) == right, 1, 0))
            step = group.recv()
            coin, wind = b"You find a coin.", b"You hear the wind."
            assert step.caption == [coin, wind, coin, wind]
            assert step.terminated.tolist() == [last] * 4
            assert step.info["success"].tolist() == [last and r for r in right]
        np.testing.assert_array_equal(step.info["cue"], cue)
        np.testing.assert_array_equal(step.final_obs["signal"][:, 0], cue)
        assert step.ending == ["the cue was answered"] * 4


def test_time_limit_cuts_off_and_does_not_terminate():
    env = envs.make("hostprobe:time-limit")
    told = play(env, np.zeros((5, 2), np.int32), num_workers=1)
    assert [record["truncated"].tolist() for record in told] == [[False] * 2] * 5 + [[True] * 2]
    assert not any(record["terminated"].any() for record in told)


@pytest.mark.slow
def test_neither_workers_nor_groups_change_what_is_played():
    actions = random_actions(40, 6)
    told = play(HallEnv(), actions, num_groups=1, num_workers=1)
    for options in ({"num_groups": 1, "num_workers": 4}, {"num_groups": 2, "num_workers": 2}, {"num_groups": 3}):
        assert_same(told, play(HallEnv(), actions, **options))
    other = play(HallEnv(), actions, seed=6)
    assert any((a["reward"] != b["reward"]).any() for a, b in zip(told[1:], other[1:], strict=True))


def test_groups_step_by_turns_and_reset_starts_other_episodes():
    with GamePool(QuietHallEnv(), 4, seed=2, num_workers=1) as pool:
        one, two = pool.groups
        assert isinstance(one, HostVectorEnv)
        assert one.spec is pool.env.spec
        assert one.num_envs == 2
        first, other = one.reset(), two.reset()
        kept = {name: array.copy() for name, array in other.obs.items()}
        one.send(np.array([0, 1]))
        two.send(np.array([1, 2]))
        step = two.recv()  # out of the order of the sends
        assert (step.obs["state"][:, 1] == 1).all()
        assert (one.recv().obs["state"][:, 1] == 1).all()
        for name, array in kept.items():
            np.testing.assert_array_equal(other.obs[name], array)  # what was given out stays as it was
        again = one.reset()
        assert (again.obs["state"] != first.obs["state"])[:, 0].all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_envs": 5}, "5 games cannot be dealt out to 2 groups"),
        ({"num_envs": 0}, "0 games"),
        ({"num_groups": 0}, "groups"),
        ({"num_workers": 0}, "at least one worker"),
        ({"seed": -1}, "negative"),
        ({"step_timeout_s": 0.0}, "positive"),
    ],
)
def test_arguments_out_of_range_are_said(change, message):
    with pytest.raises(EnvError, match=message):
        GamePool(HallEnv(), **{"num_envs": 4, "seed": 0, **change})


def test_calls_out_of_turn_and_wrong_actions_are_said():
    pool = GamePool(QuietHallEnv(), 2, seed=0, num_groups=1)
    with pytest.raises(EnvError, match="not open"):
        _ = pool.groups
    with pool:
        (group,) = pool.groups
        for call in (lambda: group.send(np.array([0, 0])), group.recv, pool.snapshot):
            with pytest.raises(EnvError, match="after|between"):
                call()
        group.reset()
        for action in (np.array([0]), np.array([0, 3]), np.array([-1, 0])):
            with pytest.raises(EnvError, match=r"actions are|out of range"):
                group.send(action)
        group.send(np.array([0, 2]))
        for call in (lambda: group.send(np.array([0, 0])), group.reset, pool.snapshot):
            with pytest.raises(EnvError, match="recv"):
                call()
        group.recv()
    with pytest.raises(EnvError, match="not open"):
        pool.snapshot()


def test_workers_are_no_more_than_there_is_work_for():
    assert GamePool(HallEnv(), 4, seed=0, num_workers=7).num_workers == 2
    assert GamePool(HallEnv(), 2, seed=0).num_workers == 1


def test_arrays_of_odd_shapes_are_shared():
    class Odd(QuietHallEnv):
        """Shows a single number and a flag beside."""

        def __init__(self):
            super().__init__()
            self.raw = {**self.raw, "flag": ObsSpec((), np.dtype(np.bool_))}

        def observe(self, raw):
            assert raw["flag"].shape == raw["state"].shape[:1]
            return {"state": raw["state"], "screen": raw["screen"]}

    play(Odd(), random_actions(3, 2), num_workers=1)
