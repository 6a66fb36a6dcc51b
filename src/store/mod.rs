//! What is kept: contents by key, and snapshots of whole projects that refer to them, in SQLite or PostgreSQL.
//!
//! What a content says, and when a snapshot is due, is left to its users: to the store they are bytes.

mod bound;
mod contents;
mod database;
mod error;
mod keeper;
mod snapshots;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use database::Database;
use snapshots::Lists;
use sqlx::query::Query;

pub use database::Location;
pub use error::StoreError;
pub use keeper::Keeper;
pub use snapshots::{Base, NewSnapshot, Page, Snapshot, SnapshotFile};

/// What was used within this time counts as used just now, so that a read seldom writes.
const COARSE: Duration = Duration::from_secs(60);
/// How long a read waits to note that something was used.
const NOTE: Duration = Duration::from_secs(1);

/// What a content is known by: a digest of all that it depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; 32]);

/// A handle on what is kept; clones share its connections. Several processes may open the same.
///
/// Each call takes a bounded time, and holds its connection no longer. None leaves anything half-written, whether it
/// fails, is dropped, or dies with the process: all are safe to cancel.
#[derive(Clone, Debug)]
pub struct Store {
    database: Arc<Database>,
    max_bytes: Option<u64>,
    lists: Lists,
}

impl Store {
    /// Opens what is kept there, made or brought to the newest schema first. With `max_bytes`, what was not used for
    /// the longest is removed whenever there is more; SQLite's log of what is being written comes on top.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Full`], [`StoreError::Newer`], [`StoreError::Corrupt`], and
    /// [`StoreError::Invalid`] for a location that is none.
    pub async fn open(location: &Location, max_bytes: Option<u64>) -> Result<Self, StoreError> {
        let store = Self { database: Arc::new(Database::open(location).await?), max_bytes, lists: Lists::default() };
        store.trim().await;
        Ok(store)
    }

    /// Closes the connections, once the calls under way have ended or a few seconds have passed.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Notes that these rows were used; what is read does not depend on whether that works.
    async fn touch(&self, table: Table, ids: Vec<i64>) {
        let note = async {
            let (name, id) = match table {
                Table::Contents => ("contents", "id"),
                Table::Snapshots => ("snapshots", "number"),
            };
            let sql = format!("UPDATE {name} SET used_at = $1 WHERE {id} IN {}", database::list(2, ids.len()));
            let mut held = self.database.begin().await?;
            ids.iter().fold(database::once(&sql).bind(now()), Query::bind).execute(held.on()).await?;
            held.commit().await
        };
        if !ids.is_empty()
            && let Err(error) = tokio::time::timeout(NOTE, note).await.unwrap_or(Ok::<_, StoreError>(()))
        {
            tracing::debug!(%error, "the store could not note what was used");
        }
    }
}

/// What is removed by its use.
#[derive(Clone, Copy, Debug)]
enum Table {
    Contents,
    Snapshots,
}

/// Microseconds since 1970, as the columns of times have them.
fn now() -> i64 {
    micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Whether its last use is long enough ago to be noted anew.
fn is_stale(used_at: i64) -> bool {
    used_at < now() - micros(COARSE)
}
