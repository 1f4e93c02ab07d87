"""Worker processes of a `GamePool`: what is left of them, who interrupts them, what they import."""

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from host_games import HallEnv, QuietHallEnv

import envs
from envs.errors import EnvError
from envs.host.pool import GamePool


def open_descriptors():
    descriptors = [fd for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]  # not that of the listing itself
    return sorted(str(fd.readlink()) for fd in descriptors)


def alive(pid):
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def await_end(pids, limit_s=20.0):
    deadline = time.monotonic() + limit_s
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker is still there"
        time.sleep(0.01)


@pytest.mark.slow
def test_close_leaves_no_processes_and_no_descriptors():
    before = open_descriptors()
    for _ in range(2):
        with GamePool(HallEnv(), 4, seed=0, num_workers=2) as pool:
            one, two = pool.groups
            step = one.reset()
            two.reset()
            pids = pool.pids
            os.kill(pids[0], signal.SIGKILL)
            one.send(np.array([0, 0]))
            step = one.recv()
            pids += pool.pids
            assert len(set(pids)) == 3
        assert not any(alive(pid) for pid in pids)
        assert step.obs["state"].shape == (2, 3)
    with pytest.raises(EnvError), GamePool(HallEnv("make_refused", message="no"), 4, seed=0):
        pass
    gc.collect()  # what pytest.raises has caught, whose frames see the memory
    assert open_descriptors() == before
    with pytest.raises(EnvError, match="closed"):
        one.reset()


def test_interrupt_of_the_process_group_leaves_workers_alive():
    with GamePool(QuietHallEnv(), 2, seed=0, num_workers=1) as pool:
        one, two = pool.groups
        one.reset()
        two.reset()
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the trainer's own decision
        try:
            os.killpg(os.getpgid(pool.pids[0]), signal.SIGINT)
            for pid in pool.pids:
                os.kill(pid, signal.SIGINT)
        finally:
            signal.signal(signal.SIGINT, handler)
        one.send(np.array([0]))
        one.recv()
        assert pool.deaths == 0


PARENT = """
import sys, time
import numpy as np
sys.path[:0] = {path!r}
from envs.host.pool import GamePool
from host_games import ACTIONS, HallEnv

if __name__ == "__main__":
    with GamePool(HallEnv(), 4, seed=0, num_workers=2, step_timeout_s={timeout}) as pool:
        for group in pool.groups:
            group.reset()
        print(*pool.pids, flush=True)
        if {action!r}:
            pool.groups[0].send(np.full(2, ACTIONS.index({action!r})))
        time.sleep(100)
"""


@pytest.mark.slow
@pytest.mark.parametrize("action", ["", "sleep", "spin"], ids=["idle", "asleep", "holding the GIL"])
def test_no_worker_outlives_a_killed_trainer(action):
    path = [str(Path(__file__).parent), str(Path(envs.__file__).parents[1])]
    # The trainer would kill a hung worker itself after the timeout: it is dead before.
    code = PARENT.format(path=path, action=action, timeout=1.0)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(alive(pid) for pid in pids)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        await_end(pids)


def test_workers_do_without_jax():
    code = (
        "import sys, envs.host.worker, envs.host.probes, envs.host.pool; "
        "print([m for m in ('jax', 'flax', 'oni', 'envs.registry') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
def test_listing_needs_no_library_of_a_family():
    code = (
        "import sys; sys.modules['nle'] = None; import envs; ids = envs.list_envs(); "
        "print(any(i.startswith('nethack:') for i in ids), 'hostprobe:memory' in ids)\n"
        "try: envs.make('nethack:score')\n"
        "except envs.EnvUnavailable as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed, refusal = done.stdout.splitlines()
    assert listed == "False True"
    assert "pip install 'oni-jax[nethack]'" in refusal
