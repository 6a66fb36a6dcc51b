//! Contents by key: each is stored once, compressed, however many snapshots refer to it.

use std::collections::{HashMap, HashSet};

use futures_util::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use sqlx::Row as _;
use sqlx::any::AnyRow;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

use super::database::{Held, in_time, list, once, rows};
use super::{Key, Store, StoreError, Table, is_stale, now};
use crate::blocking::blocking;

/// Keys looked up by one statement.
pub(super) const LOOKUP: usize = 100;
/// Contents read by one statement, and decompressed by one thread.
const READ: usize = 128;
/// Statements that read for one stream at once.
const PARALLEL: usize = 4;
/// Contents written by one statement.
const WRITE: usize = 64;
/// The level that zstd itself prefers.
const LEVEL: i32 = 3;

/// A content as it is stored.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) key: Key,
    length: i64,
    data: Vec<u8>,
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
        let packed = pack(contents).await?;
        in_time(async {
            let mut held = self.database.begin().await?;
            write(&mut held, &packed).await?;
            held.commit().await
        })
        .await?;
        self.trim().await;
        Ok(())
    }

    async fn read(&self, keys: Vec<Key>) -> Result<Vec<(Key, Vec<u8>)>, StoreError> {
        let sql = format!("SELECT key, data, length, used_at, id FROM contents WHERE key IN {}", list(1, keys.len()));
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
        self.touch(Table::Contents, stale).await;
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

pub(super) async fn write(held: &mut Held, contents: &[Packed]) -> Result<(), StoreError> {
    for part in contents.chunks(WRITE) {
        let sql = format!(
            "INSERT INTO contents (key, length, size, used_at, data) VALUES {} \
             ON CONFLICT (key) DO UPDATE SET used_at = excluded.used_at",
            rows(1, part.len(), 5)
        );
        let query = part.iter().fold(once(&sql), |query, content| {
            let size = i64::try_from(content.data.len()).unwrap_or(i64::MAX);
            query.bind(&content.key.0[..]).bind(content.length).bind(size).bind(now()).bind(&content.data[..])
        });
        query.execute(held.on()).await?;
    }
    Ok(())
}

/// Compresses on as many threads as the machine runs at once; of a key's contents the first counts.
pub(super) async fn pack(mut contents: Vec<(Key, Vec<u8>)>) -> Result<Vec<Packed>, StoreError> {
    let mut seen = HashSet::new();
    contents.retain(|(key, _)| seen.insert(*key));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = contents.len().div_ceil(threads).max(1);
    let mut parts = Vec::new();
    while !contents.is_empty() {
        let part = contents.split_off(contents.len().saturating_sub(share));
        parts.push(blocking(move || {
            let mut compressor = compressor().map_err(|error| StoreError::Unavailable(error.to_string()))?;
            part.into_iter().map(|(key, data)| pack_one(&mut compressor, key, &data)).collect()
        }));
    }
    let packed: Vec<Vec<_>> = futures_util::future::try_join_all(parts).await?;
    Ok(packed.into_iter().flatten().collect())
}

fn compressor() -> std::io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(LEVEL)?;
    // What the disk did to the bytes shows when they are read.
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    Ok(compressor)
}

fn pack_one(compressor: &mut Compressor<'_>, key: Key, data: &[u8]) -> Result<Packed, StoreError> {
    let failed = |error: std::io::Error| StoreError::Invalid(format!("a content can't be compressed: {error}"));
    let length = i64::try_from(data.len()).unwrap_or(i64::MAX);
    Ok(Packed { key, length, data: compressor.compress(data).map_err(failed)? })
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
