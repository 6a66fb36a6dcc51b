//! Notes of what was used, written some time after: who reads waits for no writer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::query::Query;
use tokio_util::task::TaskTracker;

use super::contents::LOOKUP;
use super::database::{Held, in_time, list, once};
use super::{Store, StoreError, now};

/// How long a note waits for others to be written with it.
const GATHER: Duration = Duration::from_secs(2);

/// What is removed by its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Contents,
    Snapshots,
}

/// Notes that are still to be written; lost with the process, they cost nothing but an earlier end of what they are about.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    waiting: Arc<Mutex<BTreeSet<(Table, i64)>>>,
    writing: TaskTracker,
}

impl Notes {
    fn take(&self) -> BTreeSet<(Table, i64)> {
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Store {
    /// Has it noted soon that these rows were used.
    pub(super) fn note(&self, table: Table, ids: impl IntoIterator<Item = i64>) {
        let mut waiting = self.notes.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = waiting.is_empty();
        waiting.extend(ids.into_iter().map(|id| (table, id)));
        if is_first && !waiting.is_empty() {
            let store = self.clone();
            self.notes.writing.spawn(async move {
                tokio::time::sleep(GATHER).await;
                store.write_notes().await;
            });
        }
    }

    /// Writes what is noted by now; no answer depends on whether that works.
    pub(super) async fn write_notes(&self) {
        let notes = self.notes.take();
        if notes.is_empty() {
            return;
        }
        let written = in_time(async {
            let mut held = self.database.begin().await?;
            write(&mut held, notes).await?;
            held.commit().await
        });
        if let Err(error) = written.await {
            tracing::debug!(%error, "the store could not note what was used");
        }
    }

    /// The same inside a transaction.
    pub(super) async fn write_notes_in(&self, held: &mut Held) -> Result<(), StoreError> {
        write(held, self.notes.take()).await
    }
}

async fn write(held: &mut Held, notes: BTreeSet<(Table, i64)>) -> Result<(), StoreError> {
    for (table, name, id) in [(Table::Contents, "contents", "id"), (Table::Snapshots, "snapshots", "number")] {
        let ids: Vec<i64> = notes.iter().filter(|(of, _)| *of == table).map(|(_, id)| *id).collect();
        for part in ids.chunks(LOOKUP) {
            let sql = format!("UPDATE {name} SET used_at = $1 WHERE {id} IN {}", list(2, part.len()));
            part.iter().fold(once(&sql).bind(now()), Query::bind).execute(held.on()).await?;
        }
    }
    Ok(())
}
