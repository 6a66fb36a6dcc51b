//! Contents by key, each stored once, compressed, however many snapshots refer to it and however many keys stand for it.

use std::collections::{HashMap, HashSet};

use futures_util::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use sqlx::any::AnyRow;
use sqlx::query::Query;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

use super::database::{Held, in_time, list, once, rows};
use super::notes::Table;
use super::{Key, Store, StoreError, is_stale, now};
use crate::blocking::blocking;

/// Keys looked up by one statement.
pub(super) const LOOKUP: usize = 100;
/// Contents read by one statement, and decompressed by one thread.
const READ: usize = 128;
/// Statements that read for one stream at once.
const PARALLEL: usize = 4;
/// Contents written by one statement.
const WRITE: usize = 64;
/// Of a blob that no content says.
const LONE: &str = "NOT EXISTS (SELECT 1 FROM contents WHERE blob = blobs.id)";
/// The level that zstd itself prefers.
const LEVEL: i32 = 3;

/// A content to be stored.
#[derive(Debug)]
pub(super) struct Packed {
    key: Key,
    /// Of what it says.
    digest: [u8; 32],
    content: Vec<u8>,
    /// Compressed; none where the store had that already.
    data: Option<Vec<u8>>,
}

impl Packed {
    fn compress(&mut self, compressor: &mut Compressor<'_>) -> Result<(), StoreError> {
        let failed = |error: std::io::Error| StoreError::Invalid(format!("a content can't be compressed: {error}"));
        self.data = Some(compressor.compress(&self.content).map_err(failed)?);
        Ok(())
    }
}

impl Store {
    /// Which of these are kept. Does not count as use.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and [`StoreError::Corrupt`].
    pub async fn contains(&self, keys: &[Key]) -> Result<HashSet<Key>, StoreError> {
        in_time(async {
            let mut held = self.database.acquire().await?;
            let known = known(&mut held, keys).await?;
            held.release();
            Ok(known)
        })
        .await
    }

    /// Those of these contents that are kept.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and [`StoreError::Corrupt`].
    pub async fn get(&self, keys: &[Key]) -> Result<HashMap<Key, Vec<u8>>, StoreError> {
        in_time(self.stream(keys).try_collect()).await
    }

    /// The same one by one, in no particular order, so that they need not be in memory all at once.
    pub fn stream(&self, keys: &[Key]) -> impl Stream<Item = Result<(Key, Vec<u8>), StoreError>> + Send + use<> {
        let store = self.clone();
        let parts: Vec<_> = keys.chunks(READ).map(<[Key]>::to_vec).collect();
        stream::iter(parts)
            .map(move |part| {
                let store = store.clone();
                async move { in_time(store.read(part)).await }
            })
            .buffer_unordered(PARALLEL)
            .map_ok(|contents| stream::iter(contents).map(Ok))
            .try_flatten()
    }

    /// Keeps these contents. What is kept under a key already stays.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Full`] and [`StoreError::Corrupt`].
    pub async fn put(&self, contents: Vec<(Key, Vec<u8>)>) -> Result<(), StoreError> {
        if contents.is_empty() {
            return Ok(());
        }
        let mut packed = self.pack(contents).await?;
        in_time(async {
            let mut held = self.database.begin().await?;
            write(&mut held, &mut packed).await?;
            held.commit().await
        })
        .await?;
        self.trim().await;
        Ok(())
    }

    /// Compresses, on as many threads as the machine runs at once, what the store does not have yet; of a key's contents
    /// the first counts.
    pub(super) async fn pack(&self, mut contents: Vec<(Key, Vec<u8>)>) -> Result<Vec<Packed>, StoreError> {
        let mut seen = HashSet::new();
        contents.retain(|(key, _)| seen.insert(*key));
        if contents.is_empty() {
            return Ok(Vec::new());
        }
        let digest = |(key, content): (Key, Vec<u8>)| {
            let digest = Sha256::digest(&content).into();
            Ok(Packed { key, digest, content, data: None })
        };
        let contents = in_parts(contents, move |part| part.into_iter().map(digest).collect()).await?;
        let there = in_time(async {
            let mut held = self.database.acquire().await?;
            let there = blobs(&mut held, &contents).await?;
            held.release();
            Ok(there)
        });
        let there = there.await?;
        in_parts(contents, move |mut part| {
            let mut compressor = compressor()?;
            let mut new = part.iter_mut().filter(|packed| !there.contains(&packed.digest));
            new.try_for_each(|packed| packed.compress(&mut compressor))?;
            Ok(part)
        })
        .await
    }

    async fn read(&self, keys: Vec<Key>) -> Result<Vec<(Key, Vec<u8>)>, StoreError> {
        let sql = format!(
            "SELECT contents.key, blobs.data, blobs.length, contents.used_at, contents.id FROM contents \
             JOIN blobs ON blobs.id = contents.blob WHERE contents.key IN {}",
            list(1, keys.len())
        );
        let mut held = self.database.acquire().await?;
        let query = keys.iter().fold(once(&sql), |query, key| query.bind(&key.0[..]));
        let rows = query.fetch_all(held.on()).await?;
        held.release();
        let mut stale = Vec::new();
        for row in &rows {
            if is_stale(row.try_get(3)?) {
                stale.push(row.try_get(4)?);
            }
        }
        self.note(Table::Contents, stale);
        blocking(move || {
            let mut decompressor = Decompressor::new().map_err(|error| StoreError::Unavailable(error.to_string()))?;
            rows.iter().map(|row| unpack(&mut decompressor, row)).collect()
        })
        .await
    }
}

/// Those of the keys that are stored.
pub(super) async fn known(held: &mut Held, keys: &[Key]) -> Result<HashSet<Key>, StoreError> {
    let mut known = HashSet::with_capacity(keys.len());
    for part in keys.chunks(LOOKUP) {
        let sql = format!("SELECT key FROM contents WHERE key IN {}", list(1, part.len()));
        let query = part.iter().fold(once(&sql), |query, key| query.bind(&key.0[..]));
        for row in query.fetch_all(held.on()).await? {
            known.insert(key(row.try_get(0)?)?);
        }
    }
    Ok(known)
}

/// Which of what these say is stored, by its digests.
async fn blobs(held: &mut Held, contents: &[Packed]) -> Result<HashSet<[u8; 32]>, StoreError> {
    let mut there = HashSet::with_capacity(contents.len());
    for part in contents.chunks(LOOKUP) {
        let sql = format!("SELECT digest FROM blobs WHERE digest IN {}", list(1, part.len()));
        let query = part.iter().fold(once(&sql), |query, packed| query.bind(&packed.digest[..]));
        for row in query.fetch_all(held.on()).await? {
            there.insert(key(row.try_get(0)?)?.0);
        }
    }
    Ok(there)
}

/// Stores contents, inside a transaction.
pub(super) async fn write(held: &mut Held, contents: &mut [Packed]) -> Result<(), StoreError> {
    for part in contents.chunks_mut(WRITE) {
        if !write_part(held, part).await? {
            // Something that was there when they were packed has been removed since.
            let there = blobs(held, part).await?;
            let mut compressor = compressor()?;
            let mut gone = part.iter_mut().filter(|packed| !there.contains(&packed.digest));
            gone.try_for_each(|packed| packed.compress(&mut compressor))?;
            write_part(held, part).await?;
        }
    }
    Ok(())
}

/// False where not all is stored, since what one says is neither given nor there.
async fn write_part(held: &mut Held, part: &[Packed]) -> Result<bool, StoreError> {
    let new: Vec<_> = part.iter().filter_map(|packed| Some((packed, packed.data.as_ref()?))).collect();
    if !new.is_empty() {
        let sql = format!(
            "INSERT INTO blobs (digest, length, size, data) VALUES {} ON CONFLICT DO NOTHING",
            rows(1, new.len(), 4)
        );
        let number = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        let query = new.iter().fold(once(&sql), |query, (Packed { digest, content, .. }, data)| {
            query.bind(&digest[..]).bind(number(content.len())).bind(number(data.len())).bind(&data[..])
        });
        query.execute(held.on()).await?;
    }
    let sql = format!(
        "WITH given (key, digest, used_at) AS (VALUES {}) INSERT INTO contents (key, blob, used_at) \
         SELECT given.key, blobs.id, given.used_at FROM given JOIN blobs ON blobs.digest = given.digest WHERE TRUE \
         ON CONFLICT (key) DO UPDATE SET used_at = excluded.used_at",
        rows(1, part.len(), 3)
    );
    let query = part
        .iter()
        .fold(once(&sql), |query, Packed { key, digest, .. }| query.bind(&key.0[..]).bind(&digest[..]).bind(now()));
    let is_all = query.execute(held.on()).await?.rows_affected() == part.len() as u64;
    if !new.is_empty() {
        // What was given for a key that stands for something else already.
        let sql = format!("DELETE FROM blobs WHERE digest IN {} AND {LONE}", list(1, new.len()));
        let query = new.iter().fold(once(&sql), |query, (packed, _)| query.bind(&packed.digest[..]));
        query.execute(held.on()).await?;
    }
    Ok(is_all)
}

/// Removes contents of which nobody has a file, and what only they said, inside a transaction.
pub(super) async fn remove(held: &mut Held, ids: &[i64]) -> Result<(), StoreError> {
    for part in ids.chunks(LOOKUP) {
        let sql = format!(
            "DELETE FROM contents WHERE id IN {} \
             AND NOT EXISTS (SELECT 1 FROM entries WHERE content = contents.id) RETURNING blob",
            list(1, part.len())
        );
        let removed = part.iter().fold(once(&sql), Query::bind).fetch_all(held.on()).await?;
        if removed.is_empty() {
            continue;
        }
        let sql = format!("DELETE FROM blobs WHERE id IN {} AND {LONE}", list(1, removed.len()));
        let query = removed
            .iter()
            .try_fold(once(&sql), |query, row| Ok::<_, StoreError>(query.bind(row.try_get::<i64, _>(0)?)));
        query?.execute(held.on()).await?;
    }
    Ok(())
}

/// Works on parts of these, on as many threads as the machine runs at once.
async fn in_parts<T: Send + 'static, R: Send + 'static>(
    mut all: Vec<T>,
    work: impl Fn(Vec<T>) -> Result<Vec<R>, StoreError> + Clone + Send + 'static,
) -> Result<Vec<R>, StoreError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = all.len().div_ceil(threads).max(1);
    let mut parts = Vec::new();
    while !all.is_empty() {
        let part = all.split_off(all.len().saturating_sub(share));
        let work = work.clone();
        parts.push(blocking(move || work(part)));
    }
    let done: Vec<Vec<_>> = futures_util::future::try_join_all(parts).await?;
    Ok(done.into_iter().flatten().collect())
}

fn compressor() -> Result<Compressor<'static>, StoreError> {
    let compressor = || {
        let mut compressor = Compressor::new(LEVEL)?;
        // What the disk did to the bytes shows when they are read.
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok::<_, std::io::Error>(compressor)
    };
    compressor().map_err(|error| StoreError::Unavailable(error.to_string()))
}

fn unpack(decompressor: &mut Decompressor<'_>, row: &AnyRow) -> Result<(Key, Vec<u8>), StoreError> {
    let key = key(row.try_get(0)?)?;
    let length = usize::try_from(row.try_get::<i64, _>(2)?).unwrap_or(0);
    let data = decompressor.decompress(row.try_get(1)?, length).ok().filter(|data| data.len() == length);
    Ok((key, data.ok_or_else(|| StoreError::Corrupt(format!("the content {key:?} can't be read")))?))
}

pub(super) fn key(bytes: &[u8]) -> Result<Key, StoreError> {
    let bytes = bytes.try_into().map_err(|_| StoreError::Corrupt("a key has another length".into()))?;
    Ok(Key(bytes))
}
