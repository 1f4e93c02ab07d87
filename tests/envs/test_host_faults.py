"""`GamePool` when workers die, hang or cannot start: real processes, really killed."""

import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from host_games import ACTIONS, Hall, HallEnv, QuietHallEnv
from test_host_pool import expected, random_actions

from envs.errors import EnvError
from envs.host.group import LOST_ENDING
from envs.host.pool import GamePool
from envs.host.seeding import episode_seed

pytestmark = pytest.mark.slow  # a new worker takes half a second to come up

SEED = 5


def first_state(row, episode):
    """What the hall shows at the start of an episode."""
    game, raw = Hall(), {"state": np.zeros(3, np.int64), "screen": np.zeros((2, 4), np.uint8)}
    game.attach(raw)
    game.reset(episode_seed(SEED, row, episode))
    return raw["state"].tolist()


def freeze_and_kill(pid, meanwhile):
    """Kills a process that has done nothing of what it was asked for meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    meanwhile()
    os.kill(pid, signal.SIGKILL)


def assert_lost(step, before, rows, first_row, *, episode=1):
    """Rows of a group are cut off, the others are not."""
    assert step.info["lost"].tolist() == [row in rows for row in range(len(step.reward))]
    for row in rows:
        assert step.truncated[row]
        assert not step.terminated[row]
        assert step.reward[row] == 0
        assert not step.info["success"][row]
        assert step.caption[row] == b""
        assert step.ending[row] == LOST_ENDING
        assert step.obs["state"][row].tolist() == first_state(first_row + row, episode)
        for name in step.final_obs:
            assert step.final_obs[name][row].tobytes() == before.obs[name][row].tobytes()


@pytest.mark.parametrize("when", ["before send", "between send and recv", "while the other group steps"])
def test_rows_of_a_killed_worker_are_cut_off_in_every_group(when, caplog):
    quiet = np.zeros(4, np.int32)
    with GamePool(QuietHallEnv(), 8, seed=SEED, num_workers=2) as pool:
        one, two = pool.groups
        before_one, before_two = one.reset(), two.reset()
        victim, other = pool.pids[1], pool.pids[0]  # plays rows 2, 3, 6 and 7
        if when == "while the other group steps":
            one.send(quiet)
            freeze_and_kill(victim, lambda: two.send(quiet))
            step = one.recv()
            assert_lost(two.recv(), before_two, [2, 3], 4)
            if not step.info["lost"].any():  # the worker had answered for this group already: that answer holds
                before_one = step
                one.send(quiet)
                step = one.recv()
            # Where its last answer ended an episode, the one that was lost is the next.
            ended = (before_one.terminated[2:] | before_one.truncated[2:]).tolist()
            assert step.info["lost"].tolist() == [False, False, True, True]
            assert step.obs["state"][2:].tolist() == [first_state(2 + i, 1 + ended[i]) for i in (0, 1)]
        else:
            if when == "between send and recv":
                freeze_and_kill(victim, lambda: one.send(quiet))
            else:
                os.kill(victim, signal.SIGKILL)
                one.send(quiet)
            assert_lost(one.recv(), before_one, [2, 3], 0)
            two.send(quiet)
            assert_lost(two.recv(), before_two, [2, 3], 4)
        assert pool.deaths == 1
        assert other in pool.pids
        assert victim not in pool.pids
        for group in pool.groups:  # and the run goes on
            group.send(quiet)
            step = group.recv()
            assert not step.info["lost"].any()
            assert step.final_obs["state"][2:, 1].tolist() in ([1, 1], [2, 2])
    (said,) = [record.getMessage() for record in caplog.records if record.name.startswith("envs.host")]
    assert f"the worker process {victim} of rows 2-3, 6-7 was ended by SIGKILL" in said


def test_rows_of_the_other_worker_go_on_as_if_nothing_had_happened():
    actions = random_actions(10, 4)
    with GamePool(QuietHallEnv(), 4, seed=SEED, num_groups=1, num_workers=2) as pool:
        (group,) = pool.groups
        group.reset()
        games = expected(actions, seed=SEED)
        for t, action in enumerate(actions):
            if t == 4:
                freeze_and_kill(pool.pids[0], lambda action=action: group.send(action))
            else:
                group.send(action)
            step = group.recv()
            for row in (2, 3):
                played, cut, _, raw = games[row][t]
                assert step.reward[row] == np.float32(played.reward)
                assert step.truncated[row] == cut
                assert step.obs["state"][row].tolist() == raw["state"].tolist()
        assert pool.deaths == 1


@pytest.mark.parametrize(
    ("action", "cause"),
    [
        ("raise", r"ended with status 1 \(RuntimeError: the dungeon collapsed\) while it played row 0"),
        ("segfault", "was ended by SIGSEGV while it played row 0"),
        ("sleep", r"was killed, since a single step took over 0.4 s while it played row 0"),
        ("spin", r"was killed, since a single step took over 0.4 s while it played row 0"),
    ],
)
def test_a_game_that_fails_is_named_and_replaced(action, cause, caplog):
    with GamePool(HallEnv(), 2, seed=SEED, num_workers=1, step_timeout_s=0.4) as pool:
        one, two = pool.groups
        before, before_two = one.reset(), two.reset()
        (pid,) = pool.pids
        one.send(np.array([ACTIONS.index(action)]))
        assert_lost(one.recv(), before, [0], 0)
        two.send(np.array([ACTIONS.index(action)]))  # chosen for a game that is gone: played by nobody
        assert_lost(two.recv(), before_two, [0], 1)
        assert pool.deaths == 1
        assert re.search(f"worker process {pid} of rows 0, 1 {cause}", caplog.text)


def test_a_slow_group_is_not_taken_for_hung():
    env = QuietHallEnv("make_slow")
    with GamePool(env, 6, seed=SEED, num_groups=1, num_workers=1, step_timeout_s=0.4) as pool:
        (group,) = pool.groups
        group.reset()
        group.send(np.zeros(6, np.int32))
        group.recv()  # 0.9 s in all, each game within the limit
        assert pool.deaths == 0


def test_a_pool_whose_workers_always_die_gives_up(tmp_path):
    tripwire = tmp_path / "tripwire"
    with GamePool(HallEnv(tripwire=str(tripwire)), 2, seed=SEED, num_workers=1) as pool:
        one, _ = pool.groups
        one.reset()
        tripwire.touch()
        freeze_and_kill(pool.pids[0], lambda: one.send(np.array([0])))
        with pytest.raises(
            EnvError, match=r"5 replacements died before they had played a step(.|\n)*the roof came down"
        ):
            one.recv()
        assert pool.deaths == 6


def test_an_episode_that_kills_its_worker_is_passed_over():
    env = QuietHallEnv(curse=episode_seed(SEED, 1, 0))
    with GamePool(env, 4, seed=SEED, num_groups=1, num_workers=2) as pool:
        (group,) = pool.groups
        step = group.reset()
        assert pool.deaths == 1
        assert not step.truncated.any()  # nobody had seen the episodes that were lost
        episodes = [1, 1, 0, 0]
        assert step.obs["state"].tolist() == [first_state(row, episode) for row, episode in enumerate(episodes)]
        group.send(np.zeros(4, np.int32))
        assert group.recv().final_obs["state"][:, 1].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"message": "no such role: clown"}, EnvError, "^no such role: clown$"),
        (
            {"message": "", "kind": "import"},
            EnvError,
            "ModuleNotFoundError: No module named 'a_library_that_nobody_has'",
        ),
        ({"message": "bad value", "kind": "value"}, EnvError, "the games cannot be made: ValueError: bad value"),
        ({"colour": "red"}, EnvError, "unexpected keyword argument 'colour'"),
    ],
)
def test_a_factory_that_fails_is_quoted(options, kind, message, caplog):
    with pytest.raises(kind, match=message), GamePool(HallEnv("make_refused", **options), 2, seed=0):
        pass
    assert not caplog.records  # no worker was started again


def test_factory_that_does_not_exist_is_said():
    with pytest.raises(EnvError, match="has no attribute 'make_nothing'"), GamePool(HallEnv("make_nothing"), 2, seed=0):
        pass


def test_output_of_games_is_kept_but_not_for_ever():
    with GamePool(QuietHallEnv("make_chatty"), 2, seed=SEED, num_groups=1, num_workers=1) as pool:
        (group,) = pool.groups
        group.reset()
        sizes, deadline = [0], time.monotonic() + 10
        while sizes[-1] >= sizes[max(0, len(sizes) - 2)]:  # until it is emptied
            assert time.monotonic() < deadline
            group.send(np.zeros(2, np.int32))
            group.recv()
            sizes.append(Path(f"/proc/{pool.pids[0]}/fd/1").stat().st_size)
        assert max(sizes) > 1_000_000
        assert sizes[-1] < 1_000_000
