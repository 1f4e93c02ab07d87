"""Where a reward model learns: in a thread beside the training, or inline."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

from oni.rewards.learning import Round

log = logging.getLogger(__name__)


class Worker:
    """Does rounds of learning one after the other, in a thread of its own or at once.

    A round gets the state to start from and returns the one that it came to, so that nothing is shared. In the thread,
    an error is logged and counted, and what was learned before stays.
    """

    def __init__(self, *, in_background: bool) -> None:
        self._in_background = in_background
        self._thread: ThreadPoolExecutor | None = None  # begins with the first round: not every model learns
        self._round: Future[Round] | None = None
        self._stop = Event()
        self.errors = 0

    @property
    def is_busy(self) -> bool:
        """Whether a round goes on, or is done and was not taken yet."""
        return self._round is not None

    def start(self, work: Callable[[Callable[[], bool]], Round]) -> Round | None:
        """Does a round, or has the thread do it (then None). Call only if it is not busy.

        Args:
            work: gets a function that is true when it shall end early.
        """
        if not self._in_background:
            return work(lambda: False)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="reward-model")
        self._round = self._thread.submit(work, self._stop.is_set)
        return None

    def take(self) -> Round | None:
        """Returns the round that the thread has done since the last call, if any; never waits."""
        if self._round is None or not self._round.done():
            return None
        done, self._round = self._round, None
        error = done.exception()
        if error is None:
            return done.result()
        self.errors += 1
        log.error("the reward model could not learn; its scores stay as they are: %r", error, exc_info=error)
        return None

    def drop(self) -> None:
        """Forgets the round under way: what it comes to will be taken by nobody."""
        self._round = None

    def close(self) -> None:
        """Ends the thread, after the gradient step under way."""
        self._stop.set()
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
