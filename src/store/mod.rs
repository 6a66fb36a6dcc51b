//! What is kept: contents by key, and snapshots of whole projects that refer to them, in SQLite or PostgreSQL.
//!
//! What a content says, and when a snapshot is due, is left to its users: to the store they are bytes.

mod bound;
mod contents;
mod database;
mod error;
mod keeper;
mod notes;
mod snapshots;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use database::Database;
use notes::Notes;
use snapshots::Lists;

pub use database::Location;
pub use error::StoreError;
pub use keeper::Keeper;
pub use snapshots::{Base, NewSnapshot, Page, Snapshot, SnapshotFile};

/// What was used within this time counts as used just now, so that a read seldom writes.
const COARSE: Duration = Duration::from_secs(60);
/// How long a store that is closed may take to note what was used.
const LAST_NOTES: Duration = Duration::from_secs(1);

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
    notes: Notes,
}

impl Store {
    /// Opens what is kept there, made or brought to the newest schema first. With `max_bytes`, what was not used for
    /// the longest is removed whenever there is more; SQLite's log of what is being written comes on top.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Full`], [`StoreError::Newer`], [`StoreError::Corrupt`], and
    /// [`StoreError::Invalid`] for a location that is none.
    pub async fn open(location: &Location, max_bytes: Option<u64>) -> Result<Self, StoreError> {
        let store = Self {
            database: Arc::new(Database::open(location).await?),
            max_bytes,
            lists: Lists::default(),
            notes: Notes::default(),
        };
        store.trim().await;
        Ok(store)
    }

    /// Closes the connections, once the calls under way have ended or a few seconds have passed.
    pub async fn close(&self) {
        let _ = tokio::time::timeout(LAST_NOTES, self.write_notes()).await;
        self.database.close().await;
    }
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
