//! Keeps the store within its bound, by removing what was not used for the longest.

use sqlx::Row as _;

use super::contents;
use super::database::{Held, in_time};
use super::snapshots::remove;
use super::{Store, StoreError};

/// Contents removed at once.
const BATCH: usize = 1000;

impl Store {
    /// Removes contents that no snapshot refers to, then snapshots, until what is left is within the bound. A
    /// project's latest snapshot stays. What was saved before stays saved where this fails.
    pub(super) async fn trim(&self) {
        if let Some(max) = self.max_bytes
            && let Err(error) = in_time(self.trim_to(max)).await
        {
            tracing::warn!(%error, "the store could not be brought within its bound; it is tried after the next write");
        }
    }

    async fn trim_to(&self, max: u64) -> Result<(), StoreError> {
        let mut held = self.database.begin().await?;
        let mut removed = false;
        // Whether there may be some that no snapshot refers to; those of removed ones go with them.
        let mut contents = true;
        loop {
            let used = self.database.used(&mut held).await?;
            if used <= max {
                break;
            }
            self.write_notes_in(&mut held).await?;
            contents = contents && remove_contents(&mut held, used - max).await?;
            if !contents && !remove_snapshot(&mut held).await? {
                tracing::warn!(used, max, "the projects' latest snapshots alone are more than the store's bound");
                break;
            }
            removed = true;
        }
        held.commit().await?;
        if removed { self.database.shrink().await } else { Ok(()) }
    }
}

/// Removes this much of the contents that no snapshot refers to; false where there are none.
async fn remove_contents(held: &mut Held, excess: u64) -> Result<bool, StoreError> {
    let sql = "SELECT contents.id, blobs.size FROM contents JOIN blobs ON blobs.id = contents.blob \
         WHERE NOT EXISTS (SELECT 1 FROM entries WHERE content = contents.id) \
         ORDER BY contents.used_at, contents.id LIMIT $1";
    let limit = i64::try_from(BATCH).unwrap_or(i64::MAX);
    let mut ids: Vec<i64> = Vec::new();
    let mut freed = 0;
    for row in sqlx::query(sql).bind(limit).fetch_all(held.on()).await? {
        if freed >= excess {
            break;
        }
        ids.push(row.try_get(0)?);
        freed += u64::try_from(row.try_get::<i64, _>(1)?).unwrap_or(0);
    }
    if ids.is_empty() {
        return Ok(false);
    }
    contents::remove(held, &ids).await?;
    Ok(true)
}

/// Removes one snapshot that is not its project's latest; false where there is none.
async fn remove_snapshot(held: &mut Held) -> Result<bool, StoreError> {
    let sql = "SELECT number FROM snapshots WHERE EXISTS (SELECT 1 FROM snapshots AS later \
         WHERE later.project_id = snapshots.project_id AND later.number > snapshots.number) \
         ORDER BY used_at, number LIMIT 1";
    let oldest: Option<i64> = sqlx::query_scalar(sql).fetch_optional(held.on()).await?;
    if let Some(number) = oldest {
        remove(held, number).await?;
    }
    Ok(oldest.is_some())
}
