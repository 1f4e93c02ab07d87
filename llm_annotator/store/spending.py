"""What asking has cost a store, so that a budget outlives the service that spends it."""

import sqlite3
from typing import NamedTuple

SPENDING = (
    """CREATE TABLE spending (
        model TEXT PRIMARY KEY,
        requests INTEGER NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, cost REAL NOT NULL
    ) STRICT, WITHOUT ROWID""",
)
"""Table by model. `cost` is in the currency of the prices that were set then, 0 without any."""

SPENT_BEFORE = """INSERT INTO spending
    SELECT model, sum(attempts), coalesce(sum(tokens_in), 0), coalesce(sum(tokens_out), 0), 0.0 FROM (
        SELECT model, attempts, tokens_in, tokens_out FROM annotations
        UNION ALL SELECT model, attempts, tokens_in, tokens_out FROM comparisons)
    GROUP BY model"""
"""What the answers of a store cost that kept no account."""

_TOTAL = """SELECT coalesce(sum(requests), 0), coalesce(sum(tokens_in), 0), coalesce(sum(tokens_out), 0), total(cost)
    FROM spending"""

_ADD = """INSERT INTO spending VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (model) DO UPDATE SET requests = requests + excluded.requests,
    tokens_in = tokens_in + excluded.tokens_in, tokens_out = tokens_out + excluded.tokens_out,
    cost = cost + excluded.cost"""


class Spent(NamedTuple):
    """Requests, tokens as the servers counted them, money in the currency of the prices."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0

    def plus(self, other: "Spent") -> "Spent":
        """Returns the sum."""
        return Spent(
            self.requests + other.requests,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.cost + other.cost,
        )


def read_spent(connection: sqlite3.Connection) -> Spent:
    """Returns what was spent on all models."""
    return Spent(*connection.execute(_TOTAL).fetchone())


def put_spent(connection: sqlite3.Connection, model: str, spent: Spent) -> None:
    """Adds to what was spent on a model, in the transaction under way."""
    connection.execute(_ADD, (model, *spent))
