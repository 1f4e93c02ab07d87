"""Schema of the store, as numbered migrations: migration N (counted from 1) brings `PRAGMA user_version` to N.

A migration that was released is never edited; a change of the schema is a new one at the end. Each is a tuple of
single statements, so that all of them run inside one transaction.

What is in force for a caption is stated in `_REFRESH_LABEL`, which `muting` replaced: the newest override that was not
taken back, else the newest annotation with a label, else the newest annotation. Triggers keep that in `labels`, so each
read is a look-up, and any program that adds an annotation or an override keeps it right. Labels of captions that are
asked about by parts follow in the same way, or soon: see `combining`.

Of an ordered pair of captions the newest comparison with a label is in force, else the newest one; nobody overrules
those, so the view `comparisons_in_force` says it. A comparison that is not in force is no news to anyone.
"""

import sqlite3
from collections.abc import Sequence

from llm_annotator.errors import StoreCorrupt, StoreNewerSchema
from llm_annotator.store.combining import PARTS, PARTS_FOR_READERS
from llm_annotator.store.muting import MUTES, MUTES_FOR_READERS
from llm_annotator.store.recombining import RECOMBINING
from llm_annotator.store.spending import SPENDING, SPENT_BEFORE

APPLICATION_ID = 0x4F4E4941
"""`PRAGMA application_id` of a store: "ONIA"."""

Migration = tuple[str, ...]

_REFRESH_LABEL = """
    UPDATE change_counter SET value = value + 1;
    INSERT OR REPLACE INTO labels
    SELECT NEW.labeler_id, NEW.caption_id,
        CASE WHEN o.id IS NOT NULL THEN 'labelled' ELSE coalesce(a.status, 'failed') END,
        CASE WHEN o.id IS NOT NULL THEN o.helpful ELSE a.helpful END,
        CASE WHEN o.id IS NULL THEN a.p_helpful END,
        CASE WHEN o.id IS NULL THEN a.score END,
        CASE WHEN o.id IS NULL THEN 'llm' ELSE 'human' END,
        a.id, o.id, {time}, (SELECT value FROM change_counter)
    FROM (SELECT 1)
    LEFT JOIN annotations a ON a.id = (
        SELECT id FROM annotations WHERE labeler_id = NEW.labeler_id AND caption_id = NEW.caption_id
        ORDER BY status = 'labelled' DESC, id DESC LIMIT 1)
    LEFT JOIN overrides o ON o.id = (
        SELECT id FROM overrides
        WHERE labeler_id = NEW.labeler_id AND caption_id = NEW.caption_id AND revoked_at IS NULL
        ORDER BY id DESC LIMIT 1);
"""


def _trigger(name: str, event: str, time: str) -> str:
    return f"CREATE TRIGGER {name} AFTER {event} BEGIN {_REFRESH_LABEL.format(time=time)} END"


_V1: Migration = (
    "CREATE TABLE captions (id INTEGER PRIMARY KEY, text BLOB NOT NULL UNIQUE, first_seen_at REAL NOT NULL) STRICT",
    """CREATE TABLE labelers (
        id TEXT PRIMARY KEY, spec TEXT NOT NULL, model TEXT NOT NULL, created_at REAL NOT NULL
    ) STRICT""",
    "CREATE TABLE prompt_prefixes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT",
    """CREATE TABLE annotations (
        id INTEGER PRIMARY KEY,
        labeler_id TEXT NOT NULL REFERENCES labelers (id),
        caption_id INTEGER NOT NULL REFERENCES captions (id),
        status TEXT NOT NULL CHECK (status IN ('labelled', 'unparsed', 'failed')),
        helpful INTEGER CHECK (helpful IN (0, 1)),
        p_helpful REAL, score REAL,
        prompt_prefix_id INTEGER NOT NULL REFERENCES prompt_prefixes (id),
        prompt_suffix TEXT NOT NULL,
        answer TEXT, logprobs TEXT,
        model TEXT NOT NULL, backend TEXT NOT NULL,
        tokens_in INTEGER, tokens_out INTEGER, latency_s REAL,
        attempts INTEGER NOT NULL, detail TEXT NOT NULL, created_at REAL NOT NULL,
        CHECK ((status = 'labelled') = (helpful IS NOT NULL))
    ) STRICT""",
    "CREATE INDEX annotations_of_caption ON annotations (caption_id, labeler_id)",
    """CREATE TABLE overrides (
        id INTEGER PRIMARY KEY,
        caption_id INTEGER NOT NULL REFERENCES captions (id),
        labeler_id TEXT NOT NULL REFERENCES labelers (id),
        helpful INTEGER NOT NULL CHECK (helpful IN (0, 1)),
        note TEXT NOT NULL, author TEXT NOT NULL, created_at REAL NOT NULL, revoked_at REAL
    ) STRICT""",
    "CREATE INDEX overrides_of_caption ON overrides (caption_id, labeler_id)",
    "CREATE TABLE change_counter (value INTEGER NOT NULL) STRICT",
    "INSERT INTO change_counter VALUES (0)",
    """CREATE TABLE labels (
        labeler_id TEXT NOT NULL, caption_id INTEGER NOT NULL,
        status TEXT NOT NULL, helpful INTEGER, p_helpful REAL, score REAL, source TEXT NOT NULL,
        annotation_id INTEGER, override_id INTEGER, updated_at REAL NOT NULL, change INTEGER NOT NULL,
        PRIMARY KEY (labeler_id, caption_id)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX labels_by_change ON labels (labeler_id, change)",
    _trigger("annotation_added", "INSERT ON annotations", "NEW.created_at"),
    _trigger("override_added", "INSERT ON overrides", "NEW.created_at"),
    _trigger("override_changed", "UPDATE ON overrides", "coalesce(NEW.revoked_at, NEW.created_at)"),
    """CREATE TABLE runs (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, goal TEXT NOT NULL, config TEXT NOT NULL,
        labeler_id TEXT REFERENCES labelers (id), created_at REAL NOT NULL
    ) STRICT""",
    """CREATE TABLE occurrences (
        run_id TEXT NOT NULL REFERENCES runs (id), caption_id INTEGER NOT NULL REFERENCES captions (id),
        count INTEGER NOT NULL, episode_count INTEGER,
        first_step INTEGER NOT NULL, last_step INTEGER NOT NULL, reward_sum REAL NOT NULL,
        PRIMARY KEY (run_id, caption_id)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX occurrences_of_caption ON occurrences (caption_id)",
    """CREATE TABLE transitions (
        id INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL REFERENCES runs (id), caption_id INTEGER NOT NULL REFERENCES captions (id),
        env_step INTEGER NOT NULL, frames BLOB NOT NULL
    ) STRICT""",
    "CREATE INDEX transitions_of_caption ON transitions (caption_id, run_id)",
)

_V2_FOR_READERS: Migration = (
    """CREATE TABLE comparisons (
        id INTEGER PRIMARY KEY,
        labeler_id TEXT NOT NULL REFERENCES labelers (id),
        first_id INTEGER NOT NULL REFERENCES captions (id),
        second_id INTEGER NOT NULL REFERENCES captions (id),
        status TEXT NOT NULL CHECK (status IN ('labelled', 'unparsed', 'failed')),
        first_better INTEGER CHECK (first_better IN (0, 1)),
        p_first REAL, score REAL,
        prompt_prefix_id INTEGER NOT NULL REFERENCES prompt_prefixes (id),
        prompt_suffix TEXT NOT NULL,
        answer TEXT, logprobs TEXT,
        model TEXT NOT NULL, backend TEXT NOT NULL,
        tokens_in INTEGER, tokens_out INTEGER, latency_s REAL,
        attempts INTEGER NOT NULL, detail TEXT NOT NULL, created_at REAL NOT NULL,
        change INTEGER,
        CHECK ((status = 'labelled') = (first_better IS NOT NULL))
    ) STRICT""",
    """CREATE VIEW comparisons_in_force AS SELECT * FROM comparisons x WHERE x.id = (
        SELECT id FROM comparisons
        WHERE labeler_id = x.labeler_id AND first_id = x.first_id AND second_id = x.second_id
        ORDER BY status = 'labelled' DESC, id DESC LIMIT 1)""",
)

_V2: Migration = (
    *_V2_FOR_READERS,
    "CREATE INDEX comparisons_of_pair ON comparisons (first_id, second_id, labeler_id)",
    "CREATE INDEX comparisons_by_change ON comparisons (labeler_id, change)",
    """CREATE TRIGGER comparison_added AFTER INSERT ON comparisons BEGIN
        UPDATE change_counter SET value = value + 1;
        UPDATE comparisons SET change = (SELECT value FROM change_counter) WHERE id = NEW.id;
    END""",
)

_TOTALS_OF_CAPTIONS = """SELECT caption_id, sum(count) AS count, sum(episode_count) AS episode_count,
    min(first_step) AS first_step, max(last_step) AS last_step, total(reward_sum) AS reward_sum
    FROM occurrences"""

# Not INSERT OR REPLACE: what a statement that fires a trigger does about a conflict holds inside the trigger too.
_FORGET_TOTALS = "DELETE FROM caption_totals WHERE caption_id = NEW.caption_id;"
_REFRESH_TOTALS = f"INSERT INTO caption_totals {_TOTALS_OF_CAPTIONS} WHERE caption_id = NEW.caption_id;"

# What captions came to over all runs. Adding up the rows of 100k captions takes longer than a page may.
_TOTALS: Migration = (
    """CREATE TABLE caption_totals (
        caption_id INTEGER PRIMARY KEY REFERENCES captions (id),
        count INTEGER NOT NULL, episode_count INTEGER,
        first_step INTEGER NOT NULL, last_step INTEGER NOT NULL, reward_sum REAL NOT NULL
    ) STRICT""",
    f"INSERT INTO caption_totals {_TOTALS_OF_CAPTIONS} GROUP BY caption_id",
    f"CREATE TRIGGER occurrence_added AFTER INSERT ON occurrences BEGIN {_FORGET_TOTALS} {_REFRESH_TOTALS} END",
    f"CREATE TRIGGER occurrence_changed AFTER UPDATE ON occurrences BEGIN {_FORGET_TOTALS} {_REFRESH_TOTALS} END",
)
_TOTALS_FOR_READERS: Migration = (f"CREATE VIEW caption_totals AS {_TOTALS_OF_CAPTIONS} GROUP BY caption_id",)

_SCORES: Migration = (
    """CREATE TABLE model_scores (
        run_id TEXT NOT NULL REFERENCES runs (id), caption_id INTEGER NOT NULL REFERENCES captions (id),
        env_step INTEGER NOT NULL, score REAL NOT NULL,
        PRIMARY KEY (run_id, caption_id, env_step)
    ) STRICT, WITHOUT ROWID""",
)

# What runs sampled for people to look at: a moment has a place among those of its caption and run.
_SAMPLED: Migration = (
    *_SCORES,
    "CREATE INDEX model_scores_of_caption ON model_scores (caption_id)",
    "ALTER TABLE transitions ADD COLUMN slot INTEGER",
    "CREATE UNIQUE INDEX transitions_by_slot ON transitions (run_id, caption_id, slot)",
)

MIGRATIONS: tuple[Migration, ...] = (_V1, _V2, _TOTALS, _SAMPLED, PARTS, (*SPENDING, SPENT_BEFORE), MUTES, RECOMBINING)

_FOR_READERS: tuple[Migration, ...] = (
    (),
    _V2_FOR_READERS,
    _TOTALS_FOR_READERS,
    _SCORES,
    PARTS_FOR_READERS,
    SPENDING,
    MUTES_FOR_READERS,
    (),
)
"""What each migration adds that is read, tables and views alone."""


def stand_in(connection: sqlite3.Connection, version: int) -> None:
    """Gives a reader of an older store the tables that it lacks, empty and for this connection alone."""
    for migration in _FOR_READERS[version:]:
        for statement in migration:
            connection.execute(statement.replace("CREATE ", "CREATE TEMP ", 1))


def check_schema(connection: sqlite3.Connection, path: str, *, newest: int = len(MIGRATIONS)) -> int:
    """Returns the schema number of a store, 0 for an empty file.

    Raises:
        StoreCorrupt: the file is a database of some other program.
        StoreNewerSchema: a later version of oni-jax wrote it.
    """
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application_id != APPLICATION_ID and (tables or application_id):
        raise StoreCorrupt(f"{path} is a database, but not an annotation store: choose another file")
    if version > newest:
        raise StoreNewerSchema(
            f"{path} has schema {version}, this version of oni-jax knows schemas up to {newest}: "
            "upgrade oni-jax, or choose another file"
        )
    return version


def migrate(connection: sqlite3.Connection, path: str, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Brings the store to the newest schema; all missing migrations in one transaction, or none of them."""
    if check_schema(connection, path, newest=len(migrations)) == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Again, now that no other process can be migrating.
        version = check_schema(connection, path, newest=len(migrations))
        for migration in migrations[version:]:
            for statement in migration:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
