//! Of which bytes snapshots tell, remembered from one call to the next.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use moka::sync::Cache;

use super::Results;
use crate::model::Digest;
use crate::snapshot::recorded_digest;
use crate::store::{Key, SnapshotFile, StoreError};

/// What is remembered, in bytes.
const REMEMBERED: u64 = 16 << 20;

/// Files of a snapshot by their paths, with the digests of their bytes; none for those that could not be exported.
pub type Digests = Arc<[(String, Option<Digest>)]>;

/// Those of snapshots that were asked about, by their ids.
#[derive(Debug)]
pub(super) struct Remembered(Cache<String, Digests>);

impl Default for Remembered {
    fn default() -> Self {
        let weigh = |_: &String, digests: &Digests| {
            let bytes = digests.iter().map(|(path, _)| path.len() + 150).sum::<usize>();
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(REMEMBERED).weigher(weigh).build())
    }
}

impl Results {
    /// Of which bytes a snapshot tells.
    ///
    /// # Errors
    /// Those of the store; [`StoreError::NotFound`] where there is no such snapshot any more.
    pub async fn digests(&self, snapshot: &str) -> Result<Digests, StoreError> {
        let store = self.keeper().store().await?;
        if let Some(digests) = self.recorded.0.get(snapshot) {
            // It may have been deleted since; changed, never.
            return match store.snapshot(snapshot).await? {
                Some(_) => Ok(digests),
                None => Err(StoreError::NotFound(snapshot.to_owned())),
            };
        }
        let files = store.files(snapshot, None).await?;
        let keys: Vec<Key> = files.iter().map(|file| file.key).collect::<HashSet<_>>().into_iter().collect();
        let mut digests: HashMap<Key, Option<Digest>> = HashMap::with_capacity(keys.len());
        let mut contents = std::pin::pin!(store.stream(&keys));
        while let Some((key, bytes)) = contents.try_next().await? {
            let digest = recorded_digest(&bytes);
            digests.insert(key, digest.ok_or_else(|| StoreError::Corrupt("a file's digest can't be read".into()))?);
        }
        if digests.len() < keys.len() {
            return Err(store.lacking(snapshot).await);
        }
        let digest = |file: SnapshotFile| Some((file.path, digests.get(&file.key)?.clone()));
        let digests: Digests = files.into_iter().filter_map(digest).collect();
        self.recorded.0.insert(snapshot.to_owned(), Arc::clone(&digests));
        Ok(digests)
    }
}
