-- What contents say, compressed, each once: several keys often stand for the same, such as where a file was told again
-- since another changed on which it depends, and came out as it was.
CREATE TABLE blobs (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE, -- SHA-256 of what was compressed
    length INTEGER NOT NULL, -- before compression
    size INTEGER NOT NULL,
    data BLOB NOT NULL
);
-- What they were compressed from is not known here; a key is as good a name, but found by nothing that is written later.
INSERT INTO blobs (id, digest, length, size, data) SELECT id, key, length, size, data FROM contents;

ALTER TABLE contents ADD COLUMN blob INTEGER REFERENCES blobs;
UPDATE contents SET blob = id;
CREATE INDEX contents_by_blob ON contents (blob);
ALTER TABLE contents DROP COLUMN data;
ALTER TABLE contents DROP COLUMN size;
ALTER TABLE contents DROP COLUMN length;
