//! Results that hold: what files were told to be, kept under keys made of all that it depends on.
//!
//! A key says nothing of where a project lies, when it was asked about, or by whom: who has the same files, packages,
//! configuration and release of Pyright has the same keys. How results are kept is left to `store`.

mod graph;
mod keeping;
mod keys;
mod look;
mod projects;
mod recorded;

use std::sync::Arc;

use moka::sync::Cache;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::keeping::Told;
pub use self::keys::{Keys, Sought};
pub use self::look::Look;
use self::projects::Projects;
pub use self::recorded::Digests;
use self::recorded::Remembered;
use crate::model::{Digest, ProjectRoot, ProjectSettings};
use crate::pyright::batch::{Evaluated, Extras};
use crate::pyright::install::Engine;
use crate::store::{Keeper, Key};
use crate::workspace::paths::AllowedRoots;
use crate::workspace::watch::Watcher;

/// What is remembered of files' imports, in bytes.
const REMEMBERED: u64 = 16 << 20;

/// What is kept of results, for all projects.
#[derive(Debug)]
pub struct Results {
    keeper: Keeper,
    projects: Arc<Projects>,
    /// What tells results.
    version: String,
    /// What was read from the store of files' imports, or written there.
    remembered: Cache<Key, Arc<str>>,
    recorded: Remembered,
    later: mpsc::Sender<Told>,
    stop: CancellationToken,
}

impl Results {
    /// Kept in this store, as this engine tells them; none of other evaluations are, since they depend on more than files.
    /// What is kept beside calls is kept by a task on `tracker`, until [`Results::stop`].
    #[must_use]
    pub fn start(
        keeper: Keeper,
        engine: Engine,
        is_isolated: bool,
        roots: Arc<AllowedRoots>,
        watcher: Arc<Watcher>,
        tracker: &TaskTracker,
    ) -> Arc<Self> {
        let evaluation = if is_isolated { "isolated" } else { "shared" };
        let version = format!("{}, {evaluation}", engine.version);
        let stop = CancellationToken::new();
        let projects = Projects::new(roots, engine, is_isolated, watcher, tracker.clone(), stop.clone());
        let projects = Arc::new(projects);
        let weigher = |_: &Key, text: &Arc<str>| u32::try_from(text.len() + 64).unwrap_or(u32::MAX);
        let remembered = Cache::builder().max_capacity(REMEMBERED).weigher(weigher).build();
        let (later, told) = mpsc::channel(keeping::WAITING);
        let results =
            Arc::new(Self { keeper, projects, version, remembered, recorded: Remembered::default(), later, stop });
        tracker.spawn(Arc::clone(&results).keep_all(told, results.stop.clone()));
        results
    }

    /// Keeps what an engine told, soon. Waits where much is to be kept already.
    pub async fn keep_later(&self, told: Told) {
        // Where none is kept any more, the program ends.
        let _ = self.later.send(told).await;
    }

    /// Keeps what is still to be kept, and then no more.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Where they are kept.
    #[must_use]
    pub fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// A look at a project as it is now on disk.
    pub async fn look(&self, root: &ProjectRoot, settings: &ProjectSettings) -> Arc<Look> {
        self.projects.look(root, settings).await
    }

    /// Another look at the same project, opened in the same way.
    pub async fn look_again(&self, look: &Look) -> Arc<Look> {
        self.look(look.root(), look.settings()).await
    }

    /// What tells results: types depend on it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The key of a file's result in some form.
    #[must_use]
    pub fn recorded_key(result: Key, form: &[u8]) -> Key {
        key("recorded", &[&result.0, form])
    }

    /// The key of what depends on more than files: what it says.
    #[must_use]
    pub fn content_key(content: &[u8]) -> Key {
        key("content", &[content])
    }

    /// What was told of a file's bytes, from the bytes that were kept.
    #[must_use]
    pub fn read(look: &Look, kept: &[u8], digest: Digest, extras: Extras) -> Option<Evaluated> {
        Evaluated::from_bytes(kept, digest, extras, |name| look.path(name))
    }

    /// The same to be kept; none where the engine failed in places, since it may not fail again.
    #[must_use]
    pub fn write(look: &Look, evaluated: &Evaluated) -> Option<Vec<u8>> {
        evaluated.is_whole().then(|| evaluated.to_bytes(|path| look.name(path)))
    }
}

/// A digest of these parts, for a purpose.
fn key(purpose: &str, parts: &[&[u8]]) -> Key {
    let mut hash = Sha256::new();
    for part in std::iter::once(purpose.as_bytes()).chain(parts.iter().copied()) {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    Key(hash.finalize().into())
}
