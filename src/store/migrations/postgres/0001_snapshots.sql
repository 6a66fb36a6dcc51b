-- Opaque bytes, compressed, by the key of what they say.
CREATE TABLE contents (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key BYTEA NOT NULL UNIQUE,
    length BIGINT NOT NULL, -- before compression
    size BIGINT NOT NULL,
    used_at BIGINT NOT NULL, -- here and below: microseconds since 1970, UTC
    data BYTEA NOT NULL
);
-- It is compressed already.
ALTER TABLE contents ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE INDEX contents_by_use ON contents (used_at);

CREATE TABLE snapshots (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- in the order of saving
    id TEXT NOT NULL UNIQUE,
    project_id TEXT NOT NULL,
    engine TEXT NOT NULL,
    commit_id TEXT,
    details BYTEA NOT NULL,
    files BIGINT NOT NULL,
    types BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    used_at BIGINT NOT NULL
);
CREATE INDEX snapshots_by_project ON snapshots (project_id, number);

-- A file as snapshots list it; those in which it is the same share it, so that each costs two numbers a file.
CREATE TABLE entries (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    content BIGINT NOT NULL REFERENCES contents,
    path TEXT NOT NULL,
    types BIGINT NOT NULL,
    UNIQUE (content, path, types)
);

CREATE TABLE snapshot_files (
    snapshot BIGINT NOT NULL REFERENCES snapshots ON DELETE CASCADE,
    entry BIGINT NOT NULL REFERENCES entries ON DELETE CASCADE,
    PRIMARY KEY (snapshot, entry)
);
CREATE INDEX snapshot_files_by_entry ON snapshot_files (entry);
