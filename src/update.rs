//! Snapshots made, and brought up to date: only what can have changed since the base is exported again.
//!
//! What a file's result depends on is told by `results`; exporting, by `export`. What two snapshots differ in is left to
//! `snapshot`, and how they are stored to `store`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use tokio::sync::mpsc;

use crate::blocking::blocking;
use crate::export::{Event, Exporter, FileError, FileExport, FileRequest, NamedRequest, Options, Places};
use crate::model::{Digest, FileTypes, Outcome, ProjectRoot, Selector};
use crate::pyright::batch::Extras;
use crate::pyright::registry::Registry;
use crate::pyright::session::Session;
use crate::pyright::supervisor::LeaseError;
use crate::results::{Keys, Look, Results, Sought};
use crate::snapshot::{Delta, Form, Recorded, diff, recorded_digest};
use crate::store::{Base, Key, NewSnapshot, Snapshot, SnapshotFile, Store, StoreError};
use crate::workspace::git::Repository;
use crate::workspace::paths::AllowedRoots;

/// How often an update is begun anew where the project changes meanwhile.
const MAX_CHANGES: u32 = 5;
/// Files of which it is stored together what they were told.
const BATCH: usize = 64;
/// Files that are told of while others are stored.
const AHEAD: usize = 16;

/// Which files are exported again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Those that changed, and those whose types can have changed with them.
    #[default]
    Dependents,
    /// Those that changed alone.
    ChangedOnly,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Update {
    /// The project's folder.
    pub root: ProjectRoot,
    /// What its snapshots are found by.
    pub project_id: String,
    /// The snapshot to begin from; none for the project's latest, if there is one.
    pub base: Option<String>,
    /// What is exported again.
    pub scope: Scope,
    /// Which names.
    pub selector: Selector,
    /// How they are told.
    pub options: Options,
    /// Only these files, by their paths relative to the root, each once; none for all of the project.
    pub only: Option<Vec<String>>,
    /// Also tell of files that are as they were.
    pub tell_all: bool,
}

/// A snapshot, and how it came about.
#[derive(Clone, Debug)]
pub struct Updated {
    /// The new snapshot.
    pub snapshot: Snapshot,
    /// The one it was made from.
    pub base: Option<Snapshot>,
    /// Files with other bytes than in the base, or that are not in it.
    pub changed: Vec<String>,
    /// Files that were exported again though their bytes are the same.
    pub dependent: Vec<String>,
    /// Files of the base that are no longer there.
    pub deleted: Vec<String>,
    /// What is told otherwise than in the base; none where that is told in another form.
    pub delta: Option<Delta>,
}

/// Why there is no new snapshot.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// There is no engine.
    #[error("{0}")]
    Lease(#[from] LeaseError),
    /// The store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The base is another project's.
    #[error("snapshot {id} is of project {project_id}, not of this one")]
    OtherProject {
        /// The base.
        id: String,
        /// Whose it is.
        project_id: String,
    },
    /// The project was not the same for long enough.
    #[error("the project changed {MAX_CHANGES} times while it was exported; update again when it is quiet")]
    KeepsChanging,
}

/// Makes snapshots.
#[derive(Debug)]
pub struct Updater {
    exporter: Arc<Exporter>,
    registry: Arc<Registry>,
    results: Arc<Results>,
    roots: Arc<AllowedRoots>,
    /// One update of a project at a time: the next begins from what the one before made.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// What one attempt knows of the project.
struct Attempt {
    look: Arc<Look>,
    keys: Keys,
    /// Of some files it is not known what they depend on, and no engine was asked.
    lacks: bool,
    /// The files that are told of, by their paths relative to the root.
    sources: BTreeMap<String, PathBuf>,
    base: Option<Snapshot>,
    /// The base's files, by path.
    before: BTreeMap<String, SnapshotFile>,
}

impl Attempt {
    /// Where these files are, of those that were looked at. Others, such as a named one that is nowhere, have no keys.
    fn seen<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> Vec<PathBuf> {
        let paths = names.into_iter().map(|name| &self.sources[name]);
        paths.filter(|path| self.look.holds(path)).cloned().collect()
    }

    /// Whether a file of the base is as it would be exported now, as far as that is known.
    fn stands(&self, file: &SnapshotFile, form: Form) -> bool {
        recorded_key(&self.keys, &self.sources[&file.path], form) == Some(file.key)
    }

    /// Whether it is known what these files depend on.
    fn knows(&self, paths: &[PathBuf], form: Form) -> bool {
        paths.iter().all(|path| self.keys.of(path, extras(form)).is_some())
    }
}

/// What becomes of each file.
#[derive(Default)]
struct Plan {
    /// As they stand in the base.
    files: Vec<SnapshotFile>,
    changed: Vec<String>,
    /// Of the base, with the same bytes; others that they depend on may have changed.
    same: Vec<SnapshotFile>,
    deleted: Vec<String>,
}

/// What the new snapshot holds so far.
#[derive(Default)]
struct Made {
    files: Vec<SnapshotFile>,
    /// Against the base.
    delta: Delta,
    /// What is still to be stored.
    contents: Vec<(Key, Vec<u8>)>,
}

impl Made {
    /// Takes over files as they stand in the base.
    async fn stand(
        &mut self,
        update: &Update,
        store: &Store,
        files: Vec<SnapshotFile>,
        events: &mpsc::Sender<Event>,
    ) -> Result<(), StoreError> {
        if update.tell_all {
            tell(store, &files, events).await?;
        }
        self.files.extend(files);
        Ok(())
    }
}

impl Updater {
    /// Makes snapshots of what these tell.
    #[must_use]
    pub fn new(
        exporter: Arc<Exporter>,
        registry: Arc<Registry>,
        results: Arc<Results>,
        roots: Arc<AllowedRoots>,
    ) -> Self {
        Self { exporter, registry, results, roots, turns: Mutex::default() }
    }

    /// Exports what can have changed since the base, and saves the whole as a new snapshot. Each file that was exported
    /// again is sent as soon as it is ready.
    ///
    /// # Errors
    /// Each [`UpdateError`]. A file that can't be exported is recorded as such, and fails nothing else.
    ///
    /// # Cancel safety
    /// Dropped, it saves no snapshot and leaves nothing under way; what was exported is kept.
    pub async fn update(&self, update: &Update, events: &mpsc::Sender<Event>) -> Result<Updated, UpdateError> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(update.project_id.clone()).or_default())
        };
        let _turn = turn.lock().await;
        let store = self.results.keeper().store().await?;
        for _ in 0..MAX_CHANGES {
            let attempt = self.begin(update, &store).await?;
            match self.finish(update, &store, attempt, events).await {
                Ok(Some(updated)) => return Ok(updated),
                // Files changed meanwhile, or somebody else saved a snapshot: what was exported is at hand.
                Ok(None) | Err(UpdateError::Store(StoreError::Conflict { .. } | StoreError::Missing(_))) => {}
                Err(error) => return Err(error),
            }
        }
        Err(UpdateError::KeepsChanging)
    }

    /// The snapshot to begin from, with its files by their paths.
    async fn base(
        &self,
        update: &Update,
        store: &Store,
    ) -> Result<(Option<Snapshot>, BTreeMap<String, SnapshotFile>), UpdateError> {
        let base = match &update.base {
            Some(id) => Some(store.snapshot(id).await?.ok_or_else(|| StoreError::NotFound(id.clone()))?),
            None => store.latest(&update.project_id).await?,
        };
        let Some(base) = base else { return Ok((None, BTreeMap::new())) };
        if base.project_id != update.project_id {
            return Err(UpdateError::OtherProject { id: base.id, project_id: base.project_id });
        }
        let files = store.files(&base.id, None).await?;
        Ok((Some(base), files.into_iter().map(|file| (file.path.clone(), file)).collect()))
    }

    async fn begin(&self, update: &Update, store: &Store) -> Result<Attempt, UpdateError> {
        let settings = self.registry.settings(&update.root);
        let (base, look) = tokio::join!(self.base(update, store), self.results.look(&update.root, &settings));
        let (base, before) = base?;
        let sources: BTreeMap<String, PathBuf> = if let Some(names) = &update.only {
            names.iter().map(|name| (name.clone(), update.root.path().join(name))).collect()
        } else {
            let name = |path: PathBuf| Some((path.strip_prefix(update.root.path()).ok()?.to_str()?.to_owned(), path));
            look.sources().into_iter().filter_map(name).collect()
        };
        let mut attempt = Attempt { look, keys: Keys::default(), lacks: true, sources, base, before };
        let paths = attempt.seen(attempt.sources.keys());
        attempt.keys = self.keys(update, &attempt.look, &paths, None).await?.unwrap_or_default();
        attempt.lacks = !attempt.knows(&paths, form(update));
        Ok(attempt)
    }

    /// What these files depend on, in the form that is wanted.
    async fn keys(
        &self,
        update: &Update,
        look: &Arc<Look>,
        files: &[PathBuf],
        engine: Option<&Arc<Session>>,
    ) -> Result<Option<Keys>, StoreError> {
        let with_sources = extras(form(update)).reach_sources();
        self.results.keys(look, Sought { files, with_sources, spoilt: &HashSet::new() }, engine).await
    }

    /// Has an engine tell what files import, where that is not known. False where the project changed meanwhile.
    async fn learn(&self, update: &Update, attempt: &mut Attempt) -> Result<bool, UpdateError> {
        if attempt.look.shared().is_some() {
            let paths = attempt.seen(attempt.sources.keys());
            let engine = self.engine(&update.root).await?;
            let Some(keys) = self.keys(update, &attempt.look, &paths, Some(&engine)).await? else { return Ok(false) };
            attempt.keys = keys;
        }
        attempt.lacks = false;
        Ok(true)
    }

    /// An engine whose view is the disk's.
    async fn engine(&self, root: &ProjectRoot) -> Result<Arc<Session>, LeaseError> {
        let lease = self.registry.lease(root).await?;
        loop {
            let session = lease.session().await?;
            if session.refresh().await.is_ok() {
                return Ok(session);
            }
        }
    }

    /// What becomes of each file, as far as it shows in bytes and in what is known of imports.
    async fn plan(&self, update: &Update, store: &Store, attempt: &Attempt) -> Result<Plan, UpdateError> {
        let Attempt { look, sources, before, .. } = attempt;
        let deleted = before.keys().filter(|name| !sources.contains_key(*name)).cloned().collect();
        let mut plan = Plan { deleted, ..Plan::default() };
        let mut differ = Vec::new();
        for name in sources.keys() {
            match before.get(name) {
                Some(file) if attempt.stands(file, form(update)) => plan.files.push(file.clone()),
                Some(file) => differ.push(file),
                None => plan.changed.push(name.clone()),
            }
        }
        let digests = digests(store, &differ).await?;
        let now = Arc::clone(look);
        let paths: Vec<PathBuf> = differ.iter().map(|file| sources[&file.path].clone()).collect();
        let digest = move |path: &PathBuf| now.holds(path).then(|| now.digest(path)).flatten();
        let now = blocking(move || paths.iter().map(digest).collect::<Vec<_>>()).await;
        for (file, now) in differ.into_iter().zip(now) {
            match now {
                Some(now) if digests.get(&file.key) == Some(&now) => plan.same.push(file.clone()),
                _ => plan.changed.push(file.path.clone()),
            }
        }
        plan.changed.sort();
        Ok(plan)
    }

    /// Carries a plan out, and saves the snapshot; none where the project changed meanwhile.
    async fn finish(
        &self,
        update: &Update,
        store: &Store,
        mut attempt: Attempt,
        events: &mpsc::Sender<Event>,
    ) -> Result<Option<Updated>, UpdateError> {
        let Plan { files, changed, same, deleted } = self.plan(update, store, &attempt).await?;
        let mut made = Made::default();
        made.stand(update, store, files, events).await?;
        // What a changed file imports can only be told by an engine, which is asked while it exports that file: of others,
        // it shows then whether they are exported again.
        if !self.again(update, store, &mut attempt, &changed, events, &mut made).await? {
            return Ok(None);
        }
        let is_same_form = attempt.base.is_some() && is_comparable(attempt.base.as_ref(), form(update));
        let stays = |file: &SnapshotFile| {
            attempt.stands(file, form(update)) || update.scope == Scope::ChangedOnly && is_same_form
        };
        let (files, dependent): (Vec<_>, Vec<_>) = same.into_iter().partition(stays);
        let dependent: Vec<String> = dependent.into_iter().map(|file| file.path).collect();
        made.stand(update, store, files, events).await?;
        if !self.again(update, store, &mut attempt, &dependent, events, &mut made).await? {
            return Ok(None);
        }
        let Made { files, mut delta, contents } = made;
        for before in recorded(store, deleted.iter().filter_map(|name| attempt.before.get(name))).await?.values() {
            delta = delta + Delta::of(&diff(Some(before), None));
        }
        if !self.is_as_it_was(update, &attempt.look).await {
            return Ok(None);
        }
        let base = attempt.base;
        let delta = Some(delta).filter(|_| is_comparable(base.as_ref(), form(update)));
        let snapshot = NewSnapshot {
            project_id: update.project_id.clone(),
            engine: self.results.version().to_owned(),
            commit: self.commit(&update.root).await,
            details: form(update).to_bytes(),
            types: files.iter().map(|file| u64::from(file.types)).sum(),
            files,
            base: match &update.base {
                Some(_) => Base::Any,
                None => Base::Latest(base.as_ref().map(|base| base.id.clone())),
            },
        };
        let snapshot = store.save(snapshot, contents).await?;
        Ok(Some(Updated { snapshot, base, changed, dependent, deleted, delta }))
    }

    /// Exports files again and records what is told; false where the project changed meanwhile.
    async fn again(
        &self,
        update: &Update,
        store: &Store,
        attempt: &mut Attempt,
        names: &[String],
        events: &mpsc::Sender<Event>,
        made: &mut Made,
    ) -> Result<bool, UpdateError> {
        // Recorded while the next are exported, so that the engine is never without work.
        let (sender, told) = mpsc::channel(AHEAD);
        let exporting = self.export(update, names, sender);
        let recording = self.record(update, store, attempt, told, events, made);
        let (exported, is_recorded) = tokio::join!(exporting, recording);
        exported?;
        is_recorded
    }

    /// Whether the project is as it was when it was looked at.
    async fn is_as_it_was(&self, update: &Update, look: &Look) -> bool {
        let now = self.results.look(&update.root, &self.registry.settings(&update.root)).await;
        look.is_same(&now)
    }

    /// Exports these files.
    async fn export(&self, update: &Update, names: &[String], told: mpsc::Sender<Event>) -> Result<(), UpdateError> {
        let request = |name: &String| {
            let places = Places::Selected(update.selector);
            (name.clone(), Ok(FileRequest { path: name.clone(), places, content: None, expected: None }))
        };
        let requests: Vec<NamedRequest> = names.iter().map(request).collect();
        if requests.is_empty() {
            return Ok(());
        }
        let access = self.exporter.access(&update.root, &requests, update.options).await?;
        self.exporter.files(&access, requests, update.options, &told).await;
        Ok(())
    }

    /// Records what is told, and sends it on; false where the project changed meanwhile.
    async fn record(
        &self,
        update: &Update,
        store: &Store,
        attempt: &mut Attempt,
        mut told: mpsc::Receiver<Event>,
        events: &mpsc::Sender<Event>,
        made: &mut Made,
    ) -> Result<bool, UpdateError> {
        // A first snapshot's files are better exported first: they are read for that anyway.
        if attempt.lacks && attempt.base.is_some() && !self.learn(update, attempt).await? {
            return Ok(false);
        }
        loop {
            let mut some = Vec::with_capacity(BATCH);
            while some.len() < BATCH
                && let Some(event) = told.recv().await
            {
                if let Event::File { path, result } = &event {
                    some.push((path.clone(), result.clone()));
                }
                let _ = events.send(event).await;
            }
            if some.is_empty() {
                return Ok(true);
            }
            let told = attempt.seen(some.iter().map(|(name, _)| name));
            if !attempt.knows(&told, form(update)) && !self.learn(update, attempt).await? {
                return Ok(false);
            }
            let before: Vec<Key> =
                some.iter().filter_map(|(name, _)| attempt.before.get(name)).map(|file| file.key).collect();
            let before = store.get(&before).await?;
            for (name, told) in some {
                let before = attempt.before.get(&name).and_then(|file| before.get(&file.key).cloned());
                let (file, after) = to_record(update, attempt, name, told)?;
                let (bytes, of_file) = blocking(move || compare(before.as_deref(), &after)).await;
                made.delta = made.delta + of_file;
                let key = file.key.unwrap_or_else(|| Results::content_key(&bytes));
                made.contents.push((key, bytes));
                made.files.push(SnapshotFile { path: file.path, key, types: file.types });
            }
            // What is left at the end is saved with the snapshot.
            if made.contents.len() >= BATCH {
                if !self.is_as_it_was(update, &attempt.look).await {
                    return Ok(false);
                }
                store.put(std::mem::take(&mut made.contents)).await?;
            }
        }
    }

    /// The project's commit, where it is a Git work tree.
    async fn commit(&self, root: &ProjectRoot) -> Option<String> {
        let (root, roots) = (root.clone(), Arc::clone(&self.roots));
        blocking(move || Repository::discover(root.path(), &roots).ok()?.head()).await
    }
}

fn form(update: &Update) -> Form {
    Form { selector: update.selector, encoding: update.options.encoding, details: update.options.details }
}

fn extras(form: Form) -> Extras {
    Extras { documentation: form.details.documentation, definitions: form.details.definitions }
}

/// Under which key it is stored what is told of a file in a form, where that depends on nothing but files.
fn recorded_key(keys: &Keys, path: &Path, form: Form) -> Option<Key> {
    Some(Results::recorded_key(keys.of(path, extras(form))?, &form.to_bytes()))
}

/// Whether what a base tells is in this form; no base tells nothing in any.
fn is_comparable(base: Option<&Snapshot>, form: Form) -> bool {
    base.is_none_or(|base| Form::from_bytes(&base.details) == Some(form))
}

/// A file that was exported.
struct Exported {
    path: String,
    /// None where it may turn out otherwise the next time: it then goes by what it was.
    key: Option<Key>,
    types: u32,
}

/// What is recorded of a file that was exported.
fn to_record(
    update: &Update,
    attempt: &Attempt,
    path: String,
    told: Result<FileExport, FileError>,
) -> Result<(Exported, Recorded), UpdateError> {
    let Attempt { keys, sources, .. } = attempt;
    let source = &sources[&path];
    match told {
        Ok(FileExport { file, .. }) => {
            let holds = keys.digest(source) == Some(&file.digest) && is_whole(&file);
            let key = recorded_key(keys, source, form(update)).filter(|_| holds);
            let types = u32::try_from(file.types.len()).unwrap_or(u32::MAX);
            Ok((Exported { path, key, types }, Recorded::Types(file)))
        }
        Err(FileError::Lease(error)) => Err(error.into()),
        Err(error) => Ok((Exported { path, key: None, types: 0 }, Recorded::Failed(error.to_string()))),
    }
}

/// What is recorded of these files, by path.
async fn recorded<'a>(
    store: &Store,
    files: impl Iterator<Item = &'a SnapshotFile>,
) -> Result<HashMap<String, Recorded>, StoreError> {
    let files: Vec<&SnapshotFile> = files.collect();
    let keys: Vec<Key> = files.iter().map(|file| file.key).collect();
    let contents = store.get(&keys).await?;
    let recorded =
        files.into_iter().filter_map(|file| Some((file.path.clone(), Recorded::from_bytes(contents.get(&file.key)?)?)));
    Ok(recorded.collect())
}

/// Whether the engine failed nowhere; where it did, it may not the next time.
fn is_whole(file: &FileTypes) -> bool {
    file.types.iter().all(|inferred| inferred.outcome != Outcome::Failed)
}

/// The digests of the bytes that these files had, by their contents' keys; none of those that could not be exported.
async fn digests(store: &Store, files: &[&SnapshotFile]) -> Result<HashMap<Key, Digest>, StoreError> {
    let keys: Vec<Key> = files.iter().map(|file| file.key).collect();
    let digests = store
        .stream(&keys)
        .try_filter_map(async |(key, bytes)| Ok(recorded_digest(&bytes).flatten().map(|digest| (key, digest))));
    digests.try_collect().await
}

/// A file's record as bytes, and what it tells otherwise than the one before.
fn compare(before: Option<&[u8]>, after: &Recorded) -> (Vec<u8>, Delta) {
    let bytes = after.to_bytes();
    let delta = match before {
        Some(before) if before == bytes => Delta::default(),
        before => Delta::of(&diff(before.and_then(Recorded::from_bytes).as_ref(), Some(after))),
    };
    (bytes, delta)
}

/// Sends files as they are recorded.
async fn tell(store: &Store, files: &[SnapshotFile], events: &mpsc::Sender<Event>) -> Result<(), StoreError> {
    for files in files.chunks(BATCH) {
        let mut recorded = recorded(store, files.iter()).await?;
        for file in files {
            let result = match recorded.remove(&file.path) {
                Some(Recorded::Types(file)) => {
                    Ok(FileExport { file, cached: true, elapsed: Duration::ZERO, engine_elapsed: Duration::ZERO })
                }
                Some(Recorded::Failed(reason)) => Err(FileError::Recorded(reason)),
                None => return Err(StoreError::Missing(vec![file.key])),
            };
            let _ = events.send(Event::File { path: file.path.clone(), result }).await;
        }
    }
    Ok(())
}
