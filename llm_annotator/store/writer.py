"""Writing to the store. One process owns a `Store`, and uses it from one thread at a time."""

import json
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from llm_annotator.errors import StoreError
from llm_annotator.store.combining import put_parts, unanswered_parts
from llm_annotator.store.connection import open_for_writing, store_errors
from llm_annotator.store.overruling import Verdict, is_in_force, put_override, storable
from llm_annotator.store.recombining import is_behind, recombine
from llm_annotator.store.records import AnnotationRecord, ComparisonRecord, StoredComparison, StoredLabel
from llm_annotator.store.sampled import put_scores, put_transitions
from llm_annotator.store.spending import Spent, put_spent, read_spent
from llm_annotator.types import CaptionScore, LabelStatus, Occurrence, SampledTransition

_LABEL = """SELECT text, status, helpful, p_helpful, source, annotation_id IS NOT NULL, updated_at, change, muted
    FROM labels JOIN captions ON captions.id = caption_id WHERE labeler_id = ? """

_COMPARISON = """SELECT a.text, b.text, status, first_better, p_first, created_at, change
    FROM comparisons_in_force c JOIN captions a ON a.id = c.first_id JOIN captions b ON b.id = c.second_id
    WHERE labeler_id = ? """

_ADD: dict[type[AnnotationRecord | ComparisonRecord], str] = {
    AnnotationRecord: """INSERT INTO annotations (labeler_id, status, score, prompt_prefix_id, prompt_suffix, answer,
        logprobs, model, backend, tokens_in, tokens_out, latency_s, attempts, detail, created_at, caption_id, helpful,
        p_helpful) VALUES (:labeler_id, :status, :score, :prompt_prefix_id, :prompt_suffix, :answer, :logprobs, :model,
        :backend, :tokens_in, :tokens_out, :latency_s, :attempts, :detail, :created_at, :caption_id, :helpful,
        :p_helpful)""",
    ComparisonRecord: """INSERT INTO comparisons (labeler_id, status, score, prompt_prefix_id, prompt_suffix, answer,
        logprobs, model, backend, tokens_in, tokens_out, latency_s, attempts, detail, created_at, first_id, second_id,
        first_better, p_first) VALUES (:labeler_id, :status, :score, :prompt_prefix_id, :prompt_suffix, :answer,
        :logprobs, :model, :backend, :tokens_in, :tokens_out, :latency_s, :attempts, :detail, :created_at, :first_id,
        :second_id, :first_better, :p_first)""",
}

_UPSERT_OCCURRENCE = """INSERT INTO occurrences
    (run_id, caption_id, count, episode_count, first_step, last_step, reward_sum) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (run_id, caption_id) DO UPDATE SET count = excluded.count, episode_count = excluded.episode_count,
    first_step = excluded.first_step, last_step = excluded.last_step, reward_sum = excluded.reward_sum"""

RECOMBINED_AT_ONCE = 256
"""Captions whose labels follow those of their parts in one transaction, which takes some 50 ms."""

RECOMBINING_PAUSE_S = 0.01
"""Between two such transactions, so that other processes get to write."""


class Store:
    """The SQLite file, open for writing.

    Every method that writes is one transaction: when it returns, what it wrote survives `kill -9`; when it raises,
    it wrote nothing. Methods raise `StoreError` (full disk, damaged file, ...). Not for use by two threads at once.
    """

    def __init__(self, path: Path, *, wall_clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._wall_clock = wall_clock
        self._prefix_ids: dict[str, int] = {}
        self._connection = open_for_writing(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; SQLite then folds the log into it."""
        self._connection.close()

    def add_labeler(self, labeler_id: str, spec: Mapping[str, Any], model: str) -> None:
        """Keeps a labeler; known ones stay as they are."""
        row = (labeler_id, json.dumps(spec), model, self._wall_clock())
        with self._transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO labelers VALUES (?, ?, ?, ?)", row)

    def add_run(self, run_id: str, name: str, config: Mapping[str, Any], *, labeler_id: str, goal: str) -> None:
        """Keeps a run; of a known one everything but its creation time is replaced."""
        row = (run_id, name, goal, json.dumps(config), labeler_id, self._wall_clock())
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name,"
                " goal = excluded.goal, config = excluded.config, labeler_id = excluded.labeler_id",
                row,
            )

    def intern(self, captions: Sequence[bytes]) -> list[int]:
        """Returns the id of each caption; new ones are kept."""
        with self._transaction() as connection:
            return self._intern(connection, captions)

    def labels_of(self, labeler_id: str, caption_ids: Sequence[int]) -> list[StoredLabel | None]:
        """Returns what is in force for each caption, None where the labeler never answered."""
        query = _LABEL + "AND caption_id = ?"
        with store_errors(self.path):
            rows = [self._connection.execute(query, (labeler_id, key)).fetchone() for key in caption_ids]
        return [None if row is None else _stored_label(row) for row in rows]

    def labels_since(self, labeler_id: str, change: int, *, limit: int) -> list[StoredLabel]:
        """Returns the labeler's labels that changed after `change`, oldest first, at most `limit`."""
        query = _LABEL + "AND change > ? ORDER BY change LIMIT ?"
        with store_errors(self.path):
            return [_stored_label(row) for row in self._connection.execute(query, (labeler_id, change, limit))]

    def comparisons_of(self, labeler_id: str, pairs: Sequence[tuple[int, int]]) -> list[StoredComparison | None]:
        """Returns what is in force for each ordered pair of captions, None where the labeler never answered."""
        query = _COMPARISON + "AND first_id = ? AND second_id = ?"
        with store_errors(self.path):
            rows = [self._connection.execute(query, (labeler_id, *pair)).fetchone() for pair in pairs]
        return [None if row is None else _stored_comparison(row) for row in rows]

    def comparisons_since(self, labeler_id: str, change: int, *, limit: int) -> list[StoredComparison]:
        """Returns the labeler's comparisons in force that are newer than `change`, oldest first, at most `limit`."""
        query = _COMPARISON + "AND change > ? ORDER BY change LIMIT ?"
        with store_errors(self.path):
            return [_stored_comparison(row) for row in self._connection.execute(query, (labeler_id, change, limit))]

    def last_change(self) -> int:
        """Returns the number of the newest change of a label or a comparison; 0 in a new store."""
        with store_errors(self.path):
            return self._connection.execute("SELECT value FROM change_counter").fetchone()[0]

    def add_annotations(self, records: Iterable[AnnotationRecord | ComparisonRecord]) -> None:
        """Keeps answers; what is in force follows."""
        with self._transaction() as connection:
            for record in records:
                connection.execute(_ADD[type(record)], self._row(connection, record))

    def add_parts(
        self, labeler_id: str, parts: Mapping[int, Sequence[bytes]]
    ) -> tuple[dict[int, list[tuple[int, bytes]]], int]:
        """Keeps of which parts captions, named by their ids, consist for a labeler; their labels follow.

        Returns the parts of each caption, ids and texts, and how many questions that saves: see `put_parts`.
        """
        with self._transaction() as connection:
            ids = {caption_id: self._intern(connection, texts) for caption_id, texts in parts.items()}
            return put_parts(connection, labeler_id, ids, self._wall_clock())

    def recombine(self) -> int:
        """Lets labels of some captions follow those of their parts; returns how many it looked at, 0 if all have.

        It is due after any other method that changes labels of parts, for very many captions may hold one. Those by
        which a person overrules see to it themselves.
        """
        with store_errors(self.path):
            if not is_behind(self._connection):
                return 0
        with self._transaction() as connection:
            return recombine(connection, self._wall_clock(), limit=RECOMBINED_AT_ONCE)

    def recombine_all(self) -> None:
        """Lets all labels of captions follow those of their parts; other processes can write meanwhile."""
        while self.recombine():
            time.sleep(RECOMBINING_PAUSE_S)

    def unanswered_parts(self, labeler_id: str, run_id: str, caption_ids: Sequence[int]) -> list[tuple[int, int]]:
        """Returns the parts of captions that wait for an answer, and in how many episodes they came up."""
        with store_errors(self.path):
            return unanswered_parts(self._connection, labeler_id, run_id, caption_ids)

    def add_occurrences(self, run_id: str, occurrences: Sequence[Occurrence]) -> list[int]:
        """Replaces the totals of the given captions in one run; returns the ids of the captions.

        Raises:
            StoreError: no such run.
        """
        with self._transaction() as connection:
            self._check_run(connection, run_id)
            ids = self._intern(connection, [item.caption for item in occurrences])
            rows = [
                (run_id, key, o.count, o.episode_count, o.first_step, o.last_step, o.reward_sum)
                for key, o in zip(ids, occurrences, strict=True)
            ]
            connection.executemany(_UPSERT_OCCURRENCE, rows)
            return ids

    def add_transitions(self, run_id: str, moments: Sequence[SampledTransition]) -> None:
        """Keeps moments of one run, each in place of the one of its caption that had its slot.

        Raises:
            StoreError: no such run.
        """
        with self._transaction() as connection:
            self._check_run(connection, run_id)
            put_transitions(connection, run_id, self._intern(connection, [m.caption for m in moments]), moments)

    def add_scores(self, run_id: str, scores: Sequence[CaptionScore]) -> None:
        """Keeps what the reward model of a run made of captions; see `store.sampled` for how many.

        Raises:
            StoreError: no such run.
        """
        with self._transaction() as connection:
            self._check_run(connection, run_id)
            put_scores(connection, run_id, self._intern(connection, [score.caption for score in scores]), scores)

    def spent(self) -> Spent:
        """Returns what asking has cost this store."""
        with store_errors(self.path):
            return read_spent(self._connection)

    def add_spent(self, model: str, spent: Spent) -> None:
        """Adds to what asking one model has cost."""
        with self._transaction() as connection:
            put_spent(connection, model, spent)

    def override(
        self,
        caption: bytes,
        labeler_id: str,
        *,
        helpful: bool,
        muted: bool = False,
        note: str = "",
        author: str = "",
    ) -> int:
        """Overrules the LLM on one caption, whatever it answers later; returns the override's id.

        muted: the caption is to earn nothing, whatever a reward model makes of it; goes with `helpful` False alone.

        Raises:
            StoreError: no such labeler.
        """
        verdict = Verdict(caption, helpful, muted, note, author)
        with self._transaction() as connection:
            self._check_labeler(connection, labeler_id)
            (caption_id,) = self._intern(connection, [caption])
            override_id = put_override(connection, labeler_id, caption_id, verdict, self._wall_clock())
        self._follow()
        return override_id

    def overrule(self, labeler_id: str, verdicts: Sequence[Verdict]) -> list[bool]:
        """Overrules the LLM where something else is in force; returns where that was.

        Raises:
            StoreError: no such labeler.
        """
        with self._transaction() as connection:
            self._check_labeler(connection, labeler_id)
            now, changed = self._wall_clock(), list[bool]()
            for key, verdict in zip(self._intern(connection, [v.caption for v in verdicts]), verdicts, strict=True):
                differs = not is_in_force(connection, labeler_id, key, verdict)
                if differs:
                    put_override(connection, labeler_id, key, verdict, now)
                changed.append(differs)
        self._follow()
        return changed

    def revoke_override(self, override_id: int) -> None:
        """Takes an override back, so that the LLM's label counts again.

        Raises:
            StoreError: no such override, or it was taken back before.
        """
        with self._transaction() as connection:
            changed = connection.execute(
                "UPDATE overrides SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL",
                (self._wall_clock(), override_id),
            ).rowcount
            if changed == 0:
                raise StoreError(f"there is no override {override_id} in force in {self.path}")
        self._follow()

    def _follow(self) -> None:
        # What was said is kept by now, and what has yet to follow is noted in the store, for whoever opens it next.
        with suppress(StoreError):
            self.recombine_all()

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        with store_errors(self.path):
            # IMMEDIATE takes the write lock first; a transaction that reads before it writes could not get it later.
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._prefix_ids.clear()  # one of them may have been added by the transaction that is undone
                if self._connection.in_transaction:  # SQLite itself rolls back on some errors, a full disk among them
                    self._connection.execute("ROLLBACK")
                raise

    def _check_labeler(self, connection: sqlite3.Connection, labeler_id: str) -> None:
        if connection.execute("SELECT 1 FROM labelers WHERE id = ?", (labeler_id,)).fetchone() is None:
            raise StoreError(f"the store {self.path} knows no labeler {labeler_id!r}")

    def _check_run(self, connection: sqlite3.Connection, run_id: str) -> None:
        if connection.execute("SELECT 1 FROM runs WHERE id = ?", (run_id,)).fetchone() is None:
            raise StoreError(f"the store {self.path} knows no run {run_id!r}: register it first")

    def _intern(self, connection: sqlite3.Connection, captions: Sequence[bytes]) -> list[int]:
        now = self._wall_clock()
        select = "SELECT id FROM captions WHERE text = ?"
        ids: list[int] = []
        for caption in captions:
            row = connection.execute(select, (caption,)).fetchone()
            if row is None:
                insert = "INSERT INTO captions (text, first_seen_at) VALUES (?, ?) RETURNING id"
                row = connection.execute(insert, (caption, now)).fetchone()
            ids.append(row[0])
        return ids

    def _row(self, connection: sqlite3.Connection, record: AnnotationRecord | ComparisonRecord) -> dict[str, Any]:
        return vars(record) | {
            "status": str(record.status),
            "prompt_prefix_id": self._prefix_id(connection, storable(record.prompt_prefix)),
            "prompt_suffix": storable(record.prompt_suffix),
            "answer": None if record.answer is None else storable(record.answer),
            "logprobs": None if record.logprobs is None else json.dumps(dict(record.logprobs)),
            "detail": storable(record.detail),
        }

    def _prefix_id(self, connection: sqlite3.Connection, prefix: str) -> int:
        if prefix not in self._prefix_ids:
            connection.execute("INSERT OR IGNORE INTO prompt_prefixes (text) VALUES (?)", (prefix,))
            row = connection.execute("SELECT id FROM prompt_prefixes WHERE text = ?", (prefix,)).fetchone()
            self._prefix_ids[prefix] = row[0]
        return self._prefix_ids[prefix]


def _stored_label(row: tuple[Any, ...]) -> StoredLabel:
    text, status, helpful, p_helpful, source, asked, updated_at, change, muted = row
    return StoredLabel(
        text,
        LabelStatus(status),
        _maybe_bool(helpful),
        p_helpful,
        source,
        bool(asked),
        updated_at,
        change,
        bool(muted),
    )


def _stored_comparison(row: tuple[Any, ...]) -> StoredComparison:
    first, second, status, first_better, *rest = row
    return StoredComparison(first, second, LabelStatus(status), _maybe_bool(first_better), *rest)


def _maybe_bool(value: int | None) -> bool | None:
    return None if value is None else bool(value)
