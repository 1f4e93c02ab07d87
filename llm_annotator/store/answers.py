"""Looking up what models answered before, for the backend `replay`."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from llm_annotator.store.connection import store_errors
from llm_annotator.store.reading import Reading

MODELS = """SELECT DISTINCT b.model FROM labelers b
    WHERE EXISTS (SELECT 1 FROM annotations a WHERE a.labeler_id = b.id AND a.answer IS NOT NULL)
    OR EXISTS (SELECT 1 FROM comparisons a WHERE a.labeler_id = b.id AND a.answer IS NOT NULL) ORDER BY b.model"""

# CROSS JOIN keeps SQLite to this order, in which every step is a look-up: one caption has a handful of annotations.
ANSWERS = """SELECT p.text, a.prompt_suffix, a.answer, a.logprobs, a.model, a.tokens_in, a.tokens_out
    FROM captions c
    CROSS JOIN annotations a ON a.caption_id = c.id
    CROSS JOIN labelers b ON b.id = a.labeler_id
    CROSS JOIN prompt_prefixes p ON p.id = a.prompt_prefix_id
    WHERE c.text = ? AND b.model = ? AND a.answer IS NOT NULL
    ORDER BY a.status = 'labelled' DESC, a.id DESC"""

ANSWERS_OF_PAIRS = """SELECT p.text, a.prompt_suffix, a.answer, a.logprobs, a.model, a.tokens_in, a.tokens_out
    FROM captions c
    CROSS JOIN captions d
    CROSS JOIN comparisons a ON a.first_id = c.id AND a.second_id = d.id
    CROSS JOIN labelers b ON b.id = a.labeler_id
    CROSS JOIN prompt_prefixes p ON p.id = a.prompt_prefix_id
    WHERE c.text = ? AND d.text = ? AND b.model = ? AND a.answer IS NOT NULL
    ORDER BY a.status = 'labelled' DESC, a.id DESC"""

_ANSWERS = {1: ANSWERS, 2: ANSWERS_OF_PAIRS}
"""By the number of captions that were asked about."""


class StoredAnswer(NamedTuple):
    """One question and its raw answer; the fields are those of `AnnotationRecord`."""

    prompt_prefix: str
    prompt_suffix: str
    answer: str
    logprobs: Mapping[str, float] | None
    model: str
    tokens_in: int | None
    tokens_out: int | None


class AnswerReader(Reading):
    """The answers in a store, open for reading; a service may be writing to it. For one thread.

    Opening and every method raise `StoreError`, whose message says what to do (no such file, damaged, newer schema).
    """

    def models(self) -> list[str]:
        """Returns the models, as labelers name them, that ever answered; sorted."""
        with store_errors(self.path):
            return [row[0] for row in self._connection.execute(MODELS).fetchall()]

    def answers(self, captions: Sequence[bytes], model: str) -> list[StoredAnswer]:
        """Returns the model's answers about one caption, or about two in this order.

        Those with a label come first, and of each kind the newest first.

        Failed requests have no answer, and a person's override is none either.
        """
        with store_errors(self.path):
            rows = self._connection.execute(_ANSWERS[len(captions)], (*captions, model)).fetchall()
        return [
            StoredAnswer(prefix, suffix, answer, None if logprobs is None else json.loads(logprobs), *rest)
            for prefix, suffix, answer, logprobs, *rest in rows
        ]
