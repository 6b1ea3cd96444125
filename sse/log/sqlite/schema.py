"""The tables of a SQLite log, and what is added to a file that an older program has made.

``events`` is the log. What is added later must not disturb older programs that use the same file meanwhile, as they do
during a rolling update: they neither see nor need it. But they trim (the oldest rows of the whole log) without keeping
the books that are below. So each trim of ours counts twice, in ``removed`` as they know it and in ``known``; if the two
differ, an older program has trimmed, and the books start over.

``meta`` has one integer for each name:

    trimmed      the highest position trimmed by the last program that did
    gone         the highest position trimmed by a program that keeps books
    removed      rows removed, by whichever program
    known        rows removed that the books know of
    began        where this log began, 0 if it was trimmed by an older program before that was noted
    coarse       of any channel, records up to here may have been trimmed without a mark of their own
    counted      records up to here are in ``channels``
    classes      the rules by which channels were classed (``retain``)
    lost, checkpoints, erased, rewritten: see ``place``, ``upkeep`` and ``erase``
"""

from __future__ import annotations

import sqlite3
from typing import Final

# ``position`` is the rowid, so an index on ``channel`` alone is sorted by channel, then position: one channel's
# replay reads that channel. A publish's positions follow each other, so ``first`` and ``count`` tell them all.
_CREATE_FIRST: Final = (
    "CREATE TABLE events (position INTEGER PRIMARY KEY, channel TEXT NOT NULL, event TEXT, retry INTEGER,"
    " data TEXT NOT NULL)",
    "CREATE INDEX events_by_channel ON events (channel)",
    "CREATE TABLE publishes (key TEXT PRIMARY KEY, digest BLOB NOT NULL, first INTEGER NOT NULL,"
    " count INTEGER NOT NULL, created INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX publishes_by_age ON publishes (created)",
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
)

# ``channels``: records, events and bytes as far as ``counted``; ``first``: no record of the channel is below it;
# ``gone``: the highest position trimmed of it, 0 for none; ``class``: the number of its rule, NULL before it is known.
_CREATE_ADDED: Final = (
    "CREATE TABLE IF NOT EXISTS traces (first INTEGER PRIMARY KEY, last INTEGER, parent TEXT)",
    "CREATE TABLE IF NOT EXISTS closed (channel TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS channels (channel TEXT PRIMARY KEY, records INTEGER NOT NULL, events INTEGER NOT NULL,"
    " bytes INTEGER NOT NULL, first INTEGER, gone INTEGER NOT NULL, class INTEGER) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS channels_by_first ON channels (class, first)",
    "CREATE INDEX IF NOT EXISTS channels_by_records ON channels (class, records)",
    "CREATE INDEX IF NOT EXISTS channels_empty ON channels (gone) WHERE records = 0",
    "CREATE TABLE IF NOT EXISTS notes (kind TEXT, name TEXT, value TEXT NOT NULL, expires INTEGER NOT NULL,"
    " PRIMARY KEY (kind, name)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS notes_by_expiry ON notes (expires)",
)
#: Those that hold the log. (``traces`` are for followers of this minute.)
FIRST_TABLES: Final = ("events", "publishes", "meta")
ADDED_TABLES: Final = ("closed", "channels", "notes")
TABLES: Final = FIRST_TABLES + ADDED_TABLES

_HAS_BOOKS: Final = "SELECT 1 FROM meta WHERE name = 'known'"
_OPEN_BOOKS: Final = """
    INSERT OR IGNORE INTO meta
    WITH was AS (
        SELECT (SELECT value FROM meta WHERE name = 'trimmed') AS trimmed,
               (SELECT value FROM meta WHERE name = 'removed') AS removed)
    SELECT 'known', removed FROM was
    UNION ALL SELECT 'began', CASE removed WHEN 0 THEN trimmed ELSE 0 END FROM was
    UNION ALL SELECT 'coarse', CASE removed WHEN 0 THEN 0 ELSE trimmed END FROM was
    UNION ALL SELECT 'gone', 0 UNION ALL SELECT 'counted', 0 UNION ALL SELECT 'classes', 0
"""

#: The newest position ever given out, as an expression. (If the newest record was trimmed, it is not the newest row.)
LATEST: Final = (
    "max(ifnull((SELECT max(position) FROM events), 0), (SELECT value FROM meta WHERE name = 'trimmed'))"
)


def create(database: sqlite3.Connection, created: int) -> None:
    """Make the tables of a log that begins at this position, within the caller's transaction."""
    for statement in _CREATE_FIRST:
        database.execute(statement)
    marks = [("trimmed", created), ("removed", 0), ("checkpoints", 0)]
    database.executemany("INSERT INTO meta VALUES (?, ?)", marks)


def complete(database: sqlite3.Connection) -> None:
    """Add what the file lacks, if anything. May be repeated after an error. Raises ``sqlite3.Error``."""
    for statement in _CREATE_ADDED:
        database.execute(statement)
    if database.execute(_HAS_BOOKS).fetchone() is None:
        database.execute(_OPEN_BOOKS)
