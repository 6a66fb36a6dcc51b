//! Looks at projects, and at one that was looked at before only where it was touched since.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::look::{Grounds, Look};
use crate::blocking::blocking;
use crate::model::{ProjectRoot, ProjectSettings};
use crate::pyright::install::Engine;
use crate::workspace::changes::Seen;
use crate::workspace::paths::AllowedRoots;
use crate::workspace::tree::{Tree, places};
use crate::workspace::watch::{Subscription, Watcher};

/// A project that nobody asked about for so long is forgotten, and no longer watched.
const IDLE: Duration = Duration::from_secs(1800);
/// How long after the first look a project is watched; an update that finds all as it was is done by then.
const CALM: Duration = Duration::from_secs(1);
/// Projects that are known at once.
const MOST: u64 = 1000;

/// All projects that were looked at.
#[derive(Debug)]
pub(super) struct Projects {
    roots: Arc<AllowedRoots>,
    engine: Engine,
    is_isolated: bool,
    watcher: Arc<Watcher>,
    known: Cache<ProjectRoot, Arc<Mutex<Known>>>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// What is known of a project from one look to the next.
#[derive(Debug, Default)]
struct Known {
    /// Digests that were read before.
    seen: Arc<Seen>,
    watched: Option<Watched>,
    /// It is about to be watched.
    is_awaited: bool,
}

/// The last look at a project, and what was touched since.
#[derive(Debug)]
struct Watched {
    look: Arc<Look>,
    touched: Subscription,
}

impl Projects {
    /// Of projects below these roots, as this engine sees them. They come to be watched by tasks on `tracker`, until `stop`.
    pub(super) fn new(
        roots: Arc<AllowedRoots>,
        engine: Engine,
        is_isolated: bool,
        watcher: Arc<Watcher>,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let known = Cache::builder().max_capacity(MOST).time_to_idle(IDLE).build();
        Self { roots, engine, is_isolated, watcher, known, tracker, stop }
    }

    /// A look at a project as it is on disk at the time of the call, or later. One at which nothing was touched since the
    /// last is the same.
    pub(super) async fn look(self: &Arc<Self>, root: &ProjectRoot, settings: &ProjectSettings) -> Arc<Look> {
        let is_told = self.watcher.barrier().await.is_ok();
        let known = self.known.get_with(root.clone(), Arc::default);
        let (projects, root, settings) = (Arc::clone(self), root.clone(), settings.clone());
        let (look, is_watched) = blocking(move || projects.look_now(&known, &root, &settings, is_told)).await;
        if !is_watched {
            let watching = Arc::clone(self).watch(Arc::clone(&look));
            self.tracker.spawn(self.stop.clone().run_until_cancelled_owned(watching));
        }
        look
    }

    /// The look, and whether the project is watched from here on, or about to be.
    fn look_now(
        &self,
        known: &Mutex<Known>,
        root: &ProjectRoot,
        settings: &ProjectSettings,
        is_told: bool,
    ) -> (Arc<Look>, bool) {
        let grounds = Grounds::find(root, settings, &self.roots);
        let (seen, is_watched) = {
            // Who comes meanwhile has less to look at afterwards.
            let mut known = lock(known);
            let watched = known.watched.take().and_then(|watched| watched.next(&grounds, &self.engine, is_told));
            if let Some(watched) = watched {
                let look = Arc::clone(&watched.look);
                known.watched = Some(watched);
                return (look, true);
            }
            (Arc::clone(&known.seen), std::mem::replace(&mut known.is_awaited, true))
        };
        let tree = Tree::scan_linked(places(root, settings, &grounds.configuration, &grounds.environment), &self.roots);
        (Arc::new(Look::new(grounds, tree, &self.engine, self.is_isolated, seen)), is_watched)
    }

    /// Begins to watch a project that was looked at. To do so takes several times as long as to look, for which nobody
    /// should wait.
    async fn watch(self: Arc<Self>, look: Arc<Look>) {
        tokio::time::sleep(CALM).await;
        let Some(known) = self.known.get(look.root()) else { return };
        blocking(move || {
            let grounds = Grounds::find(look.root(), look.settings(), &self.roots);
            let places = places(look.root(), look.settings(), &grounds.configuration, &grounds.environment);
            let (touched, tree) = self.watcher.scan(places, &self.roots);
            let seen = Arc::clone(&lock(&known).seen);
            let look = Arc::new(Look::new(grounds, tree, &self.engine, self.is_isolated, seen));
            let mut known = lock(&known);
            known.watched = Some(Watched { look, touched });
            known.is_awaited = false;
        })
        .await;
    }
}

impl Watched {
    /// The next, if it can be told from this one: only what was touched is looked at.
    fn next(self, grounds: &Grounds, engine: &Engine, is_told: bool) -> Option<Self> {
        let Self { look, touched } = self;
        if look.grounds() != grounds {
            return None;
        }
        if !is_told {
            touched.distrust();
        }
        touched.note(look.tree().moved_links());
        if !touched.is_touched() {
            return Some(Self { look, touched });
        }
        let mut tree = look.tree().clone();
        let since = touched.take();
        let changes = tree.look(&since);
        if changes.lasting {
            return None;
        }
        let look = match changes {
            changes if changes.is_empty() => look,
            // Of which files were edited, stamps alone are too weak a word.
            changes if !changes.structural && !since.everything => Arc::new(look.after(tree, &changes.edited)),
            _ => Arc::new(look.anew(tree, engine)),
        };
        Some(Self { look, touched })
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}
