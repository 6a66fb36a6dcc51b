//! Learns from the operating system which files are touched, and when all that was touched so far has been told.
//!
//! One watcher serves all projects. What a touched file means is left to `tree`.
//!
//! Events arrive some time after the change they tell of. To know that none is outstanding, [`Watcher::barrier`]
//! makes a file of its own below a watched folder: the kernel keeps events in order, so once that file's event has
//! come, all earlier changes have been told (the way of Watchman's cookies).

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::oneshot;

use super::paths::AllowedRoots;
use super::tree::{Place, Touched, Tree, is_skipped};

/// After this long without an answer the kernel's word is no longer relied upon.
const BARRIER: Duration = Duration::from_secs(5);
/// Touched paths kept apart for one subscription; more of them count as everything.
const MAX_TOUCHED: usize = 50_000;

/// The one watcher of this process.
#[derive(Debug)]
pub struct Watcher {
    router: mpsc::Sender<ToRouter>,
    cookies: Arc<Cookies>,
    /// Removed with this value; the router's thread may outlive it.
    _folder: tempfile::TempDir,
}

#[derive(Debug)]
struct Cookies {
    folder: PathBuf,
    next: AtomicU64,
    waiting: Mutex<HashMap<OsString, oneshot::Sender<()>>>,
}

/// What was touched below some folders, collected until it is asked for. Dropping it ends the watch.
#[derive(Debug)]
pub struct Subscription {
    id: u64,
    touched: Arc<Mutex<Touched>>,
    /// The folders can't be watched, so that everything has to be looked at each time.
    blind: bool,
    router: mpsc::Sender<ToRouter>,
}

#[derive(Debug)]
enum ToRouter {
    Event(notify::Result<notify::Event>),
    Subscribe { id: u64, tops: Vec<PathBuf>, touched: Arc<Mutex<Touched>>, done: mpsc::SyncSender<notify::Result<()>> },
    Unsubscribe(u64),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watcher {
    /// Starts watching nothing yet.
    ///
    /// # Errors
    /// Where the operating system gives no watcher, or no temporary folder can be made.
    pub fn start() -> notify::Result<Self> {
        let folder = tempfile::Builder::new().prefix("pyrightd-watch-").tempdir()?;
        let cookies =
            Arc::new(Cookies { folder: folder.path().to_owned(), next: AtomicU64::new(0), waiting: Mutex::default() });
        // Unbounded, since the sender is the thread that reads the kernel's queue: would it wait for the router,
        // the router could not add a watch through it. The router outruns the kernel, whose own queue is bounded.
        let (router, messages) = mpsc::channel();
        let events = router.clone();
        let mut watcher = notify::recommended_watcher(move |event| {
            let _ = events.send(ToRouter::Event(event));
        })?;
        watcher.watch(&cookies.folder, RecursiveMode::NonRecursive)?;
        let state =
            Router { watcher, watched: BTreeSet::new(), subscribers: HashMap::new(), cookies: Arc::clone(&cookies) };
        std::thread::Builder::new()
            .name("watch".into())
            .spawn(move || state.run(&messages))
            .map_err(notify::Error::io)?;
        Ok(Self { router, cookies, _folder: folder })
    }

    /// Watches these folders and all below them that may hold sources. Blocks on the file system.
    ///
    /// Where the operating system refuses (its limit on watches, most often), the subscription says each time that
    /// everything may have been touched.
    #[must_use]
    pub fn subscribe(&self, tops: Vec<PathBuf>) -> Subscription {
        let id = self.cookies.next.fetch_add(1, Ordering::Relaxed);
        let touched = Arc::<Mutex<Touched>>::default();
        let (done, answer) = mpsc::sync_channel(1);
        let sent = self.router.send(ToRouter::Subscribe { id, tops, touched: Arc::clone(&touched), done });
        let watched = sent.is_ok().then(|| answer.recv().ok()).flatten();
        let blind = !matches!(watched, Some(Ok(())));
        if let Some(Err(error)) = watched {
            tracing::warn!(%error, "the project can't be watched; all its files are looked at for each call instead");
        }
        Subscription { id, touched, blind, router: self.router.clone() }
    }

    /// Watches these places and the allowed ones that links in them lead to, and reads what is there. Blocks on the file
    /// system.
    #[must_use]
    pub fn scan(&self, mut places: Vec<Place>, allowed: &AllowedRoots) -> (Subscription, Tree) {
        loop {
            // Watched first and read then: what changes from here on is told of.
            let subscription = self.subscribe(places.iter().map(|place| place.folder.clone()).collect());
            let tree = Tree::scan(places.clone());
            let linked = tree.linked_places(allowed);
            if linked.is_empty() {
                return (subscription, tree);
            }
            places.extend(linked);
        }
    }

    /// Returns once all changes made before the call have reached their subscriptions.
    ///
    /// # Errors
    /// [`Lost`] where the operating system does not tell of a change in good time. Then nothing is known.
    pub async fn barrier(&self) -> Result<(), Lost> {
        let name = OsString::from(self.cookies.next.fetch_add(1, Ordering::Relaxed).to_string());
        let path = self.cookies.folder.join(&name);
        let (seen, wait) = oneshot::channel();
        lock(&self.cookies.waiting).insert(name.clone(), seen);
        let told = match std::fs::File::create(&path) {
            Ok(_) => matches!(tokio::time::timeout(BARRIER, wait).await, Ok(Ok(()))),
            Err(_) => false,
        };
        lock(&self.cookies.waiting).remove(&name);
        let _ = std::fs::remove_file(&path);
        if told { Ok(()) } else { Err(Lost) }
    }
}

/// The operating system did not tell of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system does not tell of changes to files")]
pub struct Lost;

impl Subscription {
    /// Whether [`Subscription::take`] would say anything.
    #[must_use]
    pub fn is_touched(&self) -> bool {
        let touched = lock(&self.touched);
        self.blind || touched.everything || !touched.paths.is_empty()
    }

    /// What was touched since it was last asked.
    #[must_use]
    pub fn take(&self) -> Touched {
        let mut touched = std::mem::take(&mut *lock(&self.touched));
        touched.everything |= self.blind;
        touched
    }

    /// Says that these may have been touched, of which the operating system doesn't tell.
    pub fn note(&self, paths: Vec<PathBuf>) {
        lock(&self.touched).paths.extend(paths);
    }

    /// Says that everything may have been touched.
    pub fn distrust(&self) {
        lock(&self.touched).everything = true;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let _ = self.router.send(ToRouter::Unsubscribe(self.id));
    }
}

#[derive(Debug)]
struct Subscriber {
    tops: Vec<PathBuf>,
    touched: Arc<Mutex<Touched>>,
}

struct Router {
    watcher: RecommendedWatcher,
    /// Each folder under watch.
    watched: BTreeSet<PathBuf>,
    subscribers: HashMap<u64, Subscriber>,
    cookies: Arc<Cookies>,
}

impl Router {
    /// Ends when the [`Watcher`], all subscriptions and the operating system's watcher are gone.
    fn run(mut self, messages: &mpsc::Receiver<ToRouter>) {
        while let Ok(message) = messages.recv() {
            match message {
                ToRouter::Event(Ok(event)) => self.route(&event),
                ToRouter::Event(Err(error)) => {
                    tracing::warn!(%error, "watching files failed; everything is looked at anew");
                    self.distrust_all();
                }
                ToRouter::Subscribe { id, tops, touched, done } => {
                    let result = tops.iter().try_for_each(|top| self.watch_below(top, &mut |_| ()));
                    self.subscribers.insert(id, Subscriber { tops, touched });
                    let _ = done.send(result);
                }
                ToRouter::Unsubscribe(id) => {
                    if let Some(subscriber) = self.subscribers.remove(&id) {
                        for top in subscriber.tops {
                            self.forget_below(&top, |router, folder| !router.is_wanted(folder));
                        }
                    }
                }
            }
        }
    }

    fn route(&mut self, event: &notify::Event) {
        if event.need_rescan() {
            tracing::warn!("the operating system lost count of changed files; everything is looked at anew");
            return self.distrust_all();
        }
        if matches!(event.kind, EventKind::Access(_)) && !event.paths.iter().any(|path| self.is_cookie(path)) {
            return;
        }
        let from = matches!(event.kind, EventKind::Modify(ModifyKind::Name(RenameMode::From)));
        let gone = from || matches!(event.kind, EventKind::Remove(_));
        // Told again, together, after `From` and `To` were told apart.
        let both = matches!(event.kind, EventKind::Modify(ModifyKind::Name(RenameMode::Both)));
        for path in &event.paths {
            if self.is_cookie(path) {
                let waiting = path.file_name().and_then(|name| lock(&self.cookies.waiting).remove(name));
                if let Some(seen) = waiting {
                    let _ = seen.send(());
                }
                continue;
            }
            self.touch(path);
            if gone {
                self.forget_below(path, |_, _| true);
                // A folder that was moved away tells by its old path of what becomes of it later, when another may stand
                // there that was told of before.
                self.look_into_new_folder(path);
            } else if !both && !matches!(event.kind, EventKind::Modify(ModifyKind::Data(_))) {
                self.look_into_new_folder(path);
            }
        }
    }

    fn is_cookie(&self, path: &Path) -> bool {
        path.parent() == Some(&self.cookies.folder)
    }

    /// A new folder is watched first and read then, so that nothing in it is missed.
    fn look_into_new_folder(&mut self, path: &Path) {
        let is_folder = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
        if !is_folder || self.watched.contains(path) || is_skipped(path) || !self.is_wanted(path) {
            return;
        }
        let mut found = Vec::new();
        if let Err(error) = self.watch_below(path, &mut |path| found.push(path)) {
            tracing::warn!(%error, path = %path.display(), "a new folder can't be watched; everything is looked at anew");
            self.distrust_all();
        }
        for file in found {
            self.touch(&file);
        }
    }

    fn is_wanted(&self, path: &Path) -> bool {
        self.subscribers.values().any(|subscriber| subscriber.tops.iter().any(|top| path.starts_with(top)))
    }

    /// Watches a folder and those below it; `found` gets what is in them.
    ///
    /// Each folder is read after its watch stands: what comes later is told of by the watch.
    fn watch_below(&mut self, top: &Path, found: &mut dyn FnMut(PathBuf)) -> notify::Result<()> {
        let mut folders = vec![top.to_owned()];
        while let Some(folder) = folders.pop() {
            match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {}
                // It went as quickly as it came.
                Err(_) if !folder.exists() => continue,
                Err(error) => return Err(error),
            }
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !is_skipped(&path) {
                    folders.push(path.clone());
                }
                found(path);
            }
            self.watched.insert(folder);
        }
        Ok(())
    }

    fn forget_below(&mut self, top: &Path, forgotten: impl Fn(&Self, &Path) -> bool) {
        let below: Vec<_> = self
            .watched
            .range(top.to_owned()..)
            .take_while(|path| path.starts_with(top))
            .filter(|path| forgotten(self, path))
            .cloned()
            .collect();
        for folder in below {
            self.watched.remove(&folder);
            let _ = self.watcher.unwatch(&folder);
        }
    }

    fn touch(&mut self, path: &Path) {
        for subscriber in self.subscribers.values() {
            if subscriber.tops.iter().any(|top| path.starts_with(top)) {
                let mut touched = lock(&subscriber.touched);
                if touched.paths.len() >= MAX_TOUCHED {
                    touched.everything = true;
                    touched.paths.clear();
                } else if !touched.everything {
                    touched.paths.insert(path.to_owned());
                }
            }
        }
    }

    fn distrust_all(&mut self) {
        for subscriber in self.subscribers.values() {
            lock(&subscriber.touched).everything = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[tokio::test]
    async fn after_the_barrier_every_earlier_change_is_known() {
        let watcher = Watcher::start().unwrap();
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        write(&root.join("package/a.py"), "");
        let subscription = watcher.subscribe(vec![root.clone()]);
        watcher.barrier().await.unwrap();
        assert!(!subscription.is_touched());

        for round in 0..200 {
            let file = root.join(format!("new{round}/deep/er/b.py"));
            write(&file, "");
            watcher.barrier().await.unwrap();
            let touched = subscription.take().paths;
            assert!(touched.contains(&file), "round {round}: {touched:?}");
            write(&file, "x = 1\n");
            watcher.barrier().await.unwrap();
            assert!(subscription.take().paths.contains(&file), "round {round}, edited");
        }

        let moved = root.join("moved");
        std::fs::rename(root.join("package"), &moved).unwrap();
        watcher.barrier().await.unwrap();
        let touched = subscription.take().paths;
        assert!(touched.contains(&root.join("package")) && touched.contains(&moved.join("a.py")), "{touched:?}");
        write(&moved.join("a.py"), "x = 1\n");
        watcher.barrier().await.unwrap();
        assert!(subscription.take().paths.contains(&moved.join("a.py")));
        std::fs::remove_dir_all(&moved).unwrap();
        watcher.barrier().await.unwrap();
        assert!(subscription.take().paths.contains(&moved.join("a.py")));
        assert!(!subscription.is_touched());
    }

    #[tokio::test]
    async fn a_folder_that_is_put_in_anothers_place_is_watched() {
        let watcher = Watcher::start().unwrap();
        let (root, aside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (root, aside) = (root.path().canonicalize().unwrap(), aside.path().canonicalize().unwrap());
        for folder in [root.join("package"), aside.join("other")] {
            write(&folder.join("below/a.py"), "");
        }
        let one = watcher.subscribe(vec![root.clone()]);
        let two = watcher.subscribe(vec![root.clone()]);
        for round in 0..200 {
            std::fs::rename(root.join("package"), aside.join("third")).unwrap();
            std::fs::rename(aside.join("other"), root.join("package")).unwrap();
            std::fs::rename(aside.join("third"), aside.join("other")).unwrap();
            watcher.barrier().await.unwrap();
            assert!(one.take().paths.contains(&root.join("package/below/a.py")), "round {round}");
            for name in ["package", "package/below"] {
                let file = root.join(name).join(format!("new{round}.py"));
                write(&file, "");
                watcher.barrier().await.unwrap();
                for subscription in [&one, &two] {
                    let touched = subscription.take().paths;
                    assert!(touched.contains(&file), "round {round}, {name}: {touched:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn subscriptions_share_folders_and_end_apart() {
        let watcher = Watcher::start().unwrap();
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        write(&root.join("sub/a.py"), "");
        let outer = watcher.subscribe(vec![root.clone()]);
        let inner = watcher.subscribe(vec![root.join("sub")]);
        drop(inner);
        write(&root.join("sub/a.py"), "1");
        watcher.barrier().await.unwrap();
        assert!(outer.take().paths.contains(&root.join("sub/a.py")));
    }
}
