"""Reading what runs sampled: the moments in which a caption was said, and its score over training."""

from typing import Any, NamedTuple

from llm_annotator.moments import MAX_PACKED_BYTES, Moment, unpack_moment
from llm_annotator.store.connection import store_errors
from llm_annotator.store.reading import Reading

_MOMENTS = """SELECT t.id, t.run_id, t.env_step, length(t.frames), CASE WHEN length(t.frames) <= ? THEN t.frames END
    FROM transitions t WHERE t.caption_id = ? AND (? IS NULL OR t.run_id = ?) ORDER BY t.env_step, t.id"""

_SCORES = """SELECT run_id, env_step, score FROM model_scores
    WHERE caption_id = ? AND (? IS NULL OR run_id = ?) ORDER BY run_id, env_step"""


class StoredMoment(NamedTuple):
    """A moment as it is kept.

    moment_id: its number in this store, until another moment takes its place.
    env_step: of the step that said the caption, over all environments.
    moment: None if it cannot be read; `problem` then says why, in words.
    """

    moment_id: int
    run_id: str
    env_step: int
    moment: Moment | None
    problem: str = ""


class StoredScore(NamedTuple):
    """What the reward model of a run made of a caption at `env_step`, when the caption had last come up."""

    run_id: str
    env_step: int
    score: float


class MomentReader(Reading):
    """The moments and scores in a store, open for reading; a service may be writing to it. For one thread.

    Opening and every method raise `StoreError`, whose message says what to do (no such file, damaged, newer schema).
    """

    def moments(self, caption_id: int, run_id: str | None = None) -> list[StoredMoment]:
        """Returns the moments kept of a caption, of one run or of all, in the order of their steps.

        One that cannot be read ends nothing: it is returned with what is wrong with it.
        """
        values = (MAX_PACKED_BYTES, caption_id, run_id, run_id)
        with store_errors(self.path):
            rows = self._connection.execute(_MOMENTS, values).fetchall()
        return [_stored(*row) for row in rows]

    def scores(self, caption_id: int, run_id: str | None = None) -> list[StoredScore]:
        """Returns the scores of a caption over training, of one run or of all, run by run in the order of steps."""
        with store_errors(self.path):
            rows = self._connection.execute(_SCORES, (caption_id, run_id, run_id)).fetchall()
        return [StoredScore(*row) for row in rows]


def _stored(moment_id: int, run_id: str, env_step: int, size: int, frames: Any) -> StoredMoment:
    if frames is None:
        return StoredMoment(moment_id, run_id, env_step, None, f"it has {size} bytes, more than {MAX_PACKED_BYTES}")
    try:
        return StoredMoment(moment_id, run_id, env_step, unpack_moment(frames))
    except ValueError as error:
        return StoredMoment(moment_id, run_id, env_step, None, str(error))
