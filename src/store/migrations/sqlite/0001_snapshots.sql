-- Opaque bytes, compressed, by the key of what they say.
CREATE TABLE contents (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    length INTEGER NOT NULL, -- before compression
    size INTEGER NOT NULL,
    used_at INTEGER NOT NULL, -- here and below: microseconds since 1970, UTC
    data BLOB NOT NULL
);
CREATE INDEX contents_by_use ON contents (used_at);

CREATE TABLE snapshots (
    number INTEGER PRIMARY KEY AUTOINCREMENT, -- in the order of saving
    id TEXT NOT NULL UNIQUE,
    project_id TEXT NOT NULL,
    engine TEXT NOT NULL,
    commit_id TEXT,
    details BLOB NOT NULL,
    files INTEGER NOT NULL,
    types INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    used_at INTEGER NOT NULL
);
CREATE INDEX snapshots_by_project ON snapshots (project_id, number);

-- A file as snapshots list it; those in which it is the same share it, so that each costs two numbers a file.
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    content INTEGER NOT NULL REFERENCES contents,
    path TEXT NOT NULL,
    types INTEGER NOT NULL,
    UNIQUE (content, path, types)
);

CREATE TABLE snapshot_files (
    snapshot INTEGER NOT NULL REFERENCES snapshots ON DELETE CASCADE,
    entry INTEGER NOT NULL REFERENCES entries ON DELETE CASCADE,
    PRIMARY KEY (snapshot, entry)
) WITHOUT ROWID;
CREATE INDEX snapshot_files_by_entry ON snapshot_files (entry);
