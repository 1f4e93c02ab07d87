"""Mutes: captions of which a person wants that they earn nothing, whatever any reward model makes of them.

A mute is an override that says "unhelpful" and more, so that whoever knows no mutes is told of an unhelpful caption. It
is in force, is taken back and is beaten by a newer override like any other; `labels.muted` says whether one is.
"""

_MUTED = "ADD COLUMN muted INTEGER NOT NULL DEFAULT 0 CHECK (muted IN (0, 1))"

# As the first schema's, which is in `schema`; columns by name, so that the next one that is added has a default.
_REFRESH_LABEL = """
    UPDATE change_counter SET value = value + 1;
    INSERT OR REPLACE INTO labels (labeler_id, caption_id, status, helpful, p_helpful, score, source, annotation_id,
        override_id, updated_at, change, muted)
    SELECT NEW.labeler_id, NEW.caption_id,
        CASE WHEN o.id IS NOT NULL THEN 'labelled' ELSE coalesce(a.status, 'failed') END,
        CASE WHEN o.id IS NOT NULL THEN o.helpful ELSE a.helpful END,
        CASE WHEN o.id IS NULL THEN a.p_helpful END,
        CASE WHEN o.id IS NULL THEN a.score END,
        CASE WHEN o.id IS NULL THEN 'llm' ELSE 'human' END,
        a.id, o.id, {time}, (SELECT value FROM change_counter), coalesce(o.muted, 0)
    FROM (SELECT 1)
    LEFT JOIN annotations a ON a.id = (
        SELECT id FROM annotations WHERE labeler_id = NEW.labeler_id AND caption_id = NEW.caption_id
        ORDER BY status = 'labelled' DESC, id DESC LIMIT 1)
    LEFT JOIN overrides o ON o.id = (
        SELECT id FROM overrides
        WHERE labeler_id = NEW.labeler_id AND caption_id = NEW.caption_id AND revoked_at IS NULL
        ORDER BY id DESC LIMIT 1);
"""

_EVENTS = {
    "annotation_added": ("INSERT ON annotations", "NEW.created_at"),
    "override_added": ("INSERT ON overrides", "NEW.created_at"),
    "override_changed": ("UPDATE ON overrides", "coalesce(NEW.revoked_at, NEW.created_at)"),
}

MUTES: tuple[str, ...] = (
    f"ALTER TABLE overrides {_MUTED}",
    f"ALTER TABLE labels {_MUTED}",
    *(f"DROP TRIGGER {name}" for name in _EVENTS),
    *(
        f"CREATE TRIGGER {name} AFTER {event} BEGIN {_REFRESH_LABEL.format(time=time)} END"
        for name, (event, time) in _EVENTS.items()
    ),
)
"""The migration."""

MUTES_FOR_READERS: tuple[str, ...] = (
    "CREATE VIEW overrides AS SELECT *, 0 AS muted FROM main.overrides",
    "CREATE VIEW labels AS SELECT *, 0 AS muted FROM main.labels",
)
"""For readers of older stores: views of the same names that stand before the tables."""
