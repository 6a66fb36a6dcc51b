-- What contents say, compressed, each once: several keys often stand for the same, such as where a file was told again
-- since another changed on which it depends, and came out as it was.
CREATE TABLE blobs (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest BYTEA NOT NULL UNIQUE, -- SHA-256 of what was compressed
    length BIGINT NOT NULL, -- before compression
    size BIGINT NOT NULL,
    data BYTEA NOT NULL
);
-- It is compressed already.
ALTER TABLE blobs ALTER COLUMN data SET STORAGE EXTERNAL;
-- What they were compressed from is not known here; a key is as good a name, but found by nothing that is written later.
INSERT INTO blobs (digest, length, size, data) SELECT key, length, size, data FROM contents;

ALTER TABLE contents ADD COLUMN blob BIGINT REFERENCES blobs;
UPDATE contents SET blob = blobs.id FROM blobs WHERE blobs.digest = contents.key;
ALTER TABLE contents ALTER COLUMN blob SET NOT NULL;
CREATE INDEX contents_by_blob ON contents (blob);
ALTER TABLE contents DROP COLUMN data, DROP COLUMN size, DROP COLUMN length;
