//! One conversation with one Pyright process: the handshake, the server's own requests, and what it knows of the disk.
//!
//! A [`Session`] that [`Session::start`] returns is ready: initialized, configured, the project's files found, and a
//! probe answered. Before each call, [`Session::refresh`] makes the engine's view equal to the disk. What to do when a
//! process dies is left to `supervisor`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lsp_types::notification::{
    DidChangeConfiguration, DidChangeTextDocument, DidChangeWatchedFiles, DidCloseTextDocument, DidOpenTextDocument,
    Exit, Initialized, Notification,
};
use lsp_types::request::{GotoDefinition, HoverRequest, Initialize, Request, Shutdown};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, Semaphore, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::limit::ConcurrencyLimit;
use tower::{Service as _, ServiceExt as _};

use super::batch::{self, Answer, Check, Evaluated, Exported, Extras, Files, Imports, ImportsTold, Table, Told};
use super::bridge;
use super::host::{Facts, Host};
use super::process::{Launch, Process};
use super::protocol::{from_lsp, locations, markdown, position_parameters, raw, uri};
use crate::blocking::blocking;
use crate::lsp::codec;
use crate::lsp::multiplexer::{Call, CallError, Ended, Multiplexer, Options};
use crate::model::{Digest, EngineMode, Evaluation, Position, ProjectRoot, ProjectSettings};
use crate::workspace::environment::Environment;
use crate::workspace::paths::AllowedRoots;
use crate::workspace::scope::Scope;
use crate::workspace::tree::{Tree, identity, places};
use crate::workspace::watch::{Subscription, Watcher};

/// The longest message taken from the engine, in bytes.
const MAX_MESSAGE: usize = 64 << 20;
/// How long one caller's locations are asked for before others that wait for the engine's view to change get their turn.
const TURN: Duration = Duration::from_millis(500);
/// The same for a text that is not on disk, which everybody else has to wait for: taking it up again costs the most.
const OVERLAY_TURN: Duration = Duration::from_secs(2);
/// How long a stopping engine may take to say good-bye.
const GOODBYE: Duration = Duration::from_secs(2);
/// JSON-RPC codes for "cancelled" and "content modified": the engine dropped the request for reasons of its own.
const DROPPED: [i64; 3] = [-32800, -32801, -32802];
/// A document that is never on disk; dotted, so that no import can name it.
const PROBE: &str = ".pyrightd-probe.py";
/// So that a release that is asked by hovers is logged once, not for each project.
static TOLD_OF_HOVERS: Once = Once::new();
/// Counts engines that became ready.
const STARTS: &str = "pyrightd_engine_starts_total";
/// How often the engine is told of a file of which it holds other bytes than the disk.
const MAX_REMINDERS: u32 = 2;

/// How engines are run; the same for all projects.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Requests under way at once to one engine.
    pub max_in_flight: usize,
    /// How long a silent engine that owes an answer is waited for.
    pub stall: Duration,
    /// How long a start, or a new look at the project's files, may take.
    pub start: Duration,
    /// Upper bound of an engine's heap, in MiB; none leaves it to Node.
    pub max_heap_mib: Option<u32>,
    /// Whether a whole file is answered in one call.
    pub mode: EngineMode,
    /// What may show in answers that are given so.
    pub evaluation: Evaluation,
    /// Upper bound of what is kept in memory of each project's evaluated files, in bytes.
    pub max_kept: u64,
}

/// Why a session can't answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The process is gone; its successor may answer.
    #[error("the engine's process ended")]
    Disconnected,
    /// The process ended while this was asked of it.
    #[error("the engine's process ended while it was asked")]
    DiedAsking,
    /// The text is not what is on disk, or no longer.
    #[error("the file changed")]
    Outdated,
    /// The caller's token was cancelled.
    #[error("the call was cancelled")]
    Cancelled,
    /// The engine was asked to do what it can't.
    #[error("the engine did not start: {0}")]
    Start(String),
}

/// A text to ask about.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its absolute path.
    pub path: PathBuf,
    /// All of it, a byte order mark included.
    pub text: Arc<str>,
    /// Of its bytes.
    pub digest: Digest,
    /// The text is not what is on disk.
    pub overlay: bool,
}

/// What was asked about a text came to.
#[derive(Debug, Default)]
pub struct Asked {
    /// In the order of the places.
    pub answers: Vec<Answer>,
    /// The part of the call in which some of its requests were with the engine, or waited for a permit; none where what
    /// was told before was at hand.
    pub engine: Duration,
    /// All that was told of the file, where nothing but its bytes and those of what it imports can show in it.
    pub evaluated: Option<Arc<Evaluated>>,
}

/// One ready engine. Shared by all its callers.
#[derive(Debug)]
pub struct Session {
    root: ProjectRoot,
    settings: ProjectSettings,
    environment: Environment,
    roots: Arc<AllowedRoots>,
    multiplexer: Multiplexer,
    requests: ConcurrencyLimit<Multiplexer>,
    permits: Arc<Semaphore>,
    /// Held shared while files are asked about as they are on disk, and alone while the engine's view changes.
    view: Arc<RwLock<()>>,
    /// Held while changes on disk are adopted.
    adopting: Arc<tokio::sync::Mutex<()>>,
    /// How many turns use each open document.
    open: tokio::sync::Mutex<HashMap<PathBuf, usize>>,
    tree: Arc<Mutex<Tree>>,
    /// Of the root folder, by which a folder put in its place is told.
    identity: Option<(u64, u64)>,
    watcher: Arc<Watcher>,
    touched: Subscription,
    facts: watch::Receiver<Facts>,
    limits: Limits,
    tracker: TaskTracker,
    /// Cancelled when the process is gone, or has to go.
    condemned: CancellationToken,
    waiting: AtomicU32,
    served: AtomicBool,
    lost: AtomicBool,
    /// The process's temporary files.
    scratch: PathBuf,
    /// The bridge works with this engine.
    batch: OnceLock<bool>,
    /// Files that the bridge has evaluated.
    evaluated: Table,
}

/// What is needed to start a session.
#[derive(Debug)]
pub struct Start<'a> {
    /// The project.
    pub root: ProjectRoot,
    /// What its caller said of it.
    pub settings: ProjectSettings,
    /// Where its paths may lead.
    pub roots: Arc<AllowedRoots>,
    /// What to run.
    pub engine: &'a super::install::Engine,
    /// How.
    pub limits: Limits,
    /// Tells of changes.
    pub watcher: Arc<Watcher>,
    /// Runs its tasks.
    pub tracker: TaskTracker,
}

impl Session {
    /// Starts a process and returns once it can serve, with the process and, later, why its connection ended.
    ///
    /// # Errors
    /// [`SessionError::Start`] where it can't be started or is not ready in time.
    ///
    /// # Cancel safety
    /// Dropped half-way, the process is killed.
    pub async fn start(start: Start<'_>) -> Result<(Arc<Self>, Process, oneshot::Receiver<Ended>), SessionError> {
        let limits = start.limits.clone();
        let root = start.root.clone();
        tokio::time::timeout(limits.start, Self::begin(start)).await.unwrap_or_else(|_| {
            Err(SessionError::Start(format!("{root} was not ready after {} s", limits.start.as_secs())))
        })
    }

    async fn begin(start: Start<'_>) -> Result<(Arc<Self>, Process, oneshot::Receiver<Ended>), SessionError> {
        let Start { root, settings, roots, engine, limits, watcher, tracker } = start;
        let failed = |what: &str, error: &dyn std::fmt::Display| SessionError::Start(format!("{what}: {error}"));

        let environment = discover(&root, &settings, &roots);
        let folders = places(&root, &settings, &environment);
        let (watching, allowed) = (Arc::clone(&watcher), Arc::clone(&roots));
        // While Node starts. Pyright looks for files only after the handshake, so that no change is missed between.
        let scanning = tracker.spawn(blocking(move || watching.scan(folders, &allowed)));

        let launch = Launch {
            engine: engine.clone(),
            environment: environment.clone(),
            max_heap_mib: limits.max_heap_mib,
            preload: bridge::preload(&settings, limits.mode != EngineMode::Hover),
        };
        let (process, stdin, stdout) =
            Process::start(&launch, &tracker).map_err(|error| failed("starting the process", &error))?;
        let (touched, tree) = scanning.await.map_err(|error| failed("reading the project", &error))?;
        let (host, facts) =
            Host::new(root.clone(), &settings).map_err(|error| failed("finding the interpreter", &error))?;
        let options = Options {
            max_message: MAX_MESSAGE,
            stall: limits.stall,
            cancellation_folder: Some(process.cancellation_folder()),
        };
        let (ended_sender, ended) = oneshot::channel();
        let multiplexer = Multiplexer::start(stdout, stdin, host, options, &tracker, ended_sender);
        let permits = Arc::new(Semaphore::new(limits.max_in_flight.min(Semaphore::MAX_PERMITS)));
        let session = Self {
            requests: ConcurrencyLimit::with_semaphore(multiplexer.clone(), Arc::clone(&permits)),
            permits,
            identity: identity(root.path()),
            view: Arc::default(),
            adopting: Arc::default(),
            open: tokio::sync::Mutex::default(),
            tree: Arc::new(Mutex::new(tree)),
            condemned: CancellationToken::new(),
            waiting: AtomicU32::new(0),
            served: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            scratch: process.scratch().to_owned(),
            batch: OnceLock::new(),
            evaluated: Table::new(limits.max_kept),
            root,
            settings,
            environment,
            roots,
            multiplexer,
            watcher,
            touched,
            facts,
            limits,
            tracker,
        };
        if let Err(error) = session.handshake().await {
            // Such as a library that Node misses on this machine.
            let words = process.last_words().await.map(|words| format!("; its last words: {words}"));
            let reason = match error {
                SessionError::Start(reason) => reason,
                other => other.to_string(),
            };
            return Err(SessionError::Start(reason + &words.unwrap_or_default()));
        }
        Ok((Arc::new(session), process, ended))
    }

    async fn handshake(&self) -> Result<(), SessionError> {
        let root = uri(self.root.path());
        let capabilities = json!({
            "workspace": {
                "configuration": true,
                "workspaceFolders": true,
                "didChangeWatchedFiles": { "dynamicRegistration": true, "relativePatternSupport": true },
            },
            "textDocument": {
                "hover": { "contentFormat": ["markdown"] },
                "definition": { "linkSupport": false },
                // A client that pulls diagnostics, and then never does, keeps the checker from running at all.
                "diagnostic": { "dynamicRegistration": true },
            },
        });
        let parameters = json!({
            // With an id here, the engine's watchdog ends it where that process can't be seen, as in a container.
            "processId": null,
            "rootUri": root,
            "workspaceFolders": [{ "uri": root, "name": "project" }],
            "capabilities": capabilities,
        });
        self.call_directly::<Value>(Initialize::METHOD, &parameters).await?;
        self.notify(Initialized::METHOD, &json!({})).await?;
        // An answer given before the files are found would be lost.
        self.files_found_after(0).await?;
        self.probe().await
    }

    /// Asks for a type that is known, of a document that is not on disk, and whether the bridge works.
    async fn probe(&self) -> Result<(), SessionError> {
        let text = bridge::SAMPLE;
        let document = Document {
            path: self.root.path().join(PROBE),
            text: text.into(),
            digest: Digest::of(text.as_bytes()),
            overlay: true,
        };
        self.open(&document).await?;
        let position = position_parameters(&uri(&document.path), Position::default());
        let hover: Option<lsp_types::Hover> = self.call_directly(HoverRequest::METHOD, &position).await?;
        let batch = match self.limits.mode {
            EngineMode::Hover => Ok(false),
            mode => self.check_bridge(&document, mode).await,
        };
        self.close(&document).await?;
        let batch = batch?;
        let _ = self.batch.set(batch);
        metrics::describe_counter!(STARTS, "Engines that became ready, by how they are asked: batch or hover.");
        metrics::counter!(STARTS, "asked" => if batch { "batch" } else { "hover" }).increment(1);
        match hover.map(markdown) {
            Some(text) if text.contains("answer: int") => Ok(()),
            other => Err(SessionError::Start(format!("the engine does not know the type of a number: {other:?}"))),
        }
    }

    /// Whether the bridge works with this engine, by what it says itself.
    async fn check_bridge(&self, sample: &Document, mode: EngineMode) -> Result<bool, SessionError> {
        let parameters = json!({ "uri": uri(&sample.path) });
        let reason = match self.call_directly::<Check>(batch::CHECK, &parameters).await {
            Ok(Check { works: true, .. }) => return Ok(true),
            Ok(Check { reason, .. }) => reason.unwrap_or_default(),
            // Another language server has no such request.
            Err(SessionError::Start(reason)) => reason,
            Err(error) => return Err(error),
        };
        if mode == EngineMode::Batch {
            return Err(SessionError::Start(format!(
                "whole files can't be answered in one call, as --engine-mode=batch wants it: {reason}"
            )));
        }
        TOLD_OF_HOVERS.call_once(|| {
            tracing::warn!(%reason, "this release of Pyright is asked by one hover for each location, which is slower");
        });
        Ok(false)
    }

    /// Waits until the engine has found the project's files once more than `before` times.
    async fn files_found_after(&self, before: u64) -> Result<(), SessionError> {
        let mut facts = self.facts.clone();
        facts.wait_for(|facts| facts.scans > before).await.map(|_| ()).map_err(|_| SessionError::Disconnected)
    }

    /// What its caller said of the project.
    #[must_use]
    pub fn settings(&self) -> &ProjectSettings {
        &self.settings
    }

    /// Whether a whole file is answered in one call.
    #[must_use]
    pub fn is_batch(&self) -> bool {
        self.batch.get().copied().unwrap_or_default()
    }

    /// What may show in its answers.
    #[must_use]
    pub fn evaluation(&self) -> Evaluation {
        if self.is_batch() { self.limits.evaluation } else { Evaluation::Shared }
    }

    /// How many source files the engine found.
    #[must_use]
    pub fn source_files(&self) -> u32 {
        self.facts.borrow().source_files
    }

    /// Requests that the engine is at work on.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        let taken = self.limits.max_in_flight.saturating_sub(self.permits.available_permits());
        u32::try_from(taken).unwrap_or(u32::MAX)
    }

    /// Requests that wait for a permit.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether any caller's request was answered.
    #[must_use]
    pub fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// Whether it can still be asked, as far as it knows by itself: its connection may be gone before the process is.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !self.condemned.is_cancelled() && !self.lost.load(Ordering::Relaxed)
    }

    /// Cancelled when the process has to be replaced.
    #[must_use]
    pub fn condemned(&self) -> &CancellationToken {
        &self.condemned
    }

    /// The project's own source files, absolute, in order, as of the last [`Session::refresh`].
    #[must_use]
    pub fn sources(&self) -> Vec<PathBuf> {
        let scope = Scope::read(self.root.path());
        let tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
        let is_own = |path: &&Path| path.strip_prefix(self.root.path()).is_ok_and(|path| scope.holds(path));
        tree.sources().filter(is_own).map(Path::to_owned).collect()
    }

    /// Makes the engine's view equal to the disk as it is at the time of the call.
    ///
    /// # Errors
    /// [`SessionError::Disconnected`] where the process is gone, or has to be replaced for the view to be right.
    ///
    /// # Cancel safety
    /// What was begun is done nonetheless.
    pub async fn refresh(self: &Arc<Self>) -> Result<(), SessionError> {
        if self.watcher.barrier().await.is_err() {
            self.touched.distrust();
        }
        if self.condemned.is_cancelled() {
            return Err(SessionError::Disconnected);
        }
        let session = Arc::clone(self);
        let outdated = blocking(move || {
            session.touched.note(session.tree.lock().unwrap_or_else(PoisonError::into_inner).moved_links());
            discover(&session.root, &session.settings, &session.roots) != session.environment
                || identity(session.root.path()) != session.identity
        });
        if outdated.await {
            tracing::info!(root = %self.root, "the project's Python environment is another one; its engine is replaced");
            self.condemned.cancel();
            return Err(SessionError::Disconnected);
        }
        // Who finds nothing touched since another is at it must not go on before that is done.
        let turn = Arc::clone(&self.adopting).lock_owned().await;
        if self.condemned.is_cancelled() {
            return Err(SessionError::Disconnected);
        }
        if !self.touched.is_touched() {
            return Ok(());
        }
        let session = Arc::clone(self);
        let adopted = self.tracker.spawn(async move {
            let _turn = turn;
            let result = session.adopt_changes().await;
            if result.is_err() {
                session.condemned.cancel();
            }
            result
        });
        adopted.await.unwrap_or(Err(SessionError::Disconnected))
    }

    /// Tells the engine what was touched, while nobody asks.
    async fn adopt_changes(&self) -> Result<(), SessionError> {
        let _alone = self.view.write().await;
        // Taken only now, so that who comes meanwhile waits here too.
        let touched = self.touched.take();
        let tree = Arc::clone(&self.tree);
        let changes = blocking(move || tree.lock().unwrap_or_else(PoisonError::into_inner).look(&touched)).await;
        if changes.lasting {
            tracing::info!(root = %self.root, "a package is typed otherwise, or a link leads elsewhere; the engine is replaced");
            return Err(SessionError::Disconnected);
        }
        if changes.structural {
            self.evaluated.clear();
            tracing::debug!(root = %self.root, "files came or went; the engine looks for them anew");
            let before = self.facts.borrow().scans;
            self.notify(DidChangeConfiguration::METHOD, &json!({ "settings": null })).await?;
            tokio::time::timeout(self.limits.start, self.files_found_after(before))
                .await
                .unwrap_or(Err(SessionError::Disconnected))
        } else {
            self.drop_dependents(&changes.edited).await;
            self.edited(&changes.edited).await
        }
    }

    /// Drops what was told of these files and of all that import them. Nobody asks meanwhile.
    async fn drop_dependents(&self, edited: &[PathBuf]) {
        if edited.is_empty() || !self.is_batch() {
            return;
        }
        let uris: Vec<_> = edited.iter().map(|path| uri(path)).collect();
        match self.call_directly::<Files>(batch::DEPENDENTS, &json!({ "uris": uris })).await {
            Ok(files) => files.paths().for_each(|path| self.evaluated.drop_file(&path)),
            Err(_) => self.evaluated.clear(),
        }
    }

    async fn edited(&self, paths: &[PathBuf]) -> Result<(), SessionError> {
        if paths.is_empty() {
            return Ok(());
        }
        tracing::debug!(root = %self.root, files = paths.len(), "the engine is told of edited files");
        let changes: Vec<_> = paths.iter().map(|path| json!({ "uri": uri(path), "type": 2 })).collect();
        self.notify(DidChangeWatchedFiles::METHOD, &json!({ "changes": changes })).await
    }

    /// What these files import, as far as the engine holds them. They are read for it, but not evaluated.
    ///
    /// # Errors
    /// As [`Session::ask`].
    ///
    /// # Cancel safety
    /// As [`Session::ask`].
    pub async fn imports(self: &Arc<Self>, paths: &[PathBuf]) -> Result<Vec<Imports>, SessionError> {
        let cancelled = CancellationToken::new();
        let _guard = cancelled.clone().drop_guard();
        let session = Arc::clone(self);
        let parameters = json!({ "uris": paths.iter().map(|path| uri(path)).collect::<Vec<_>>() });
        let asking = async move {
            let _view = session.hold_view(false).await;
            if !session.is_usable() {
                return Err(SessionError::Disconnected);
            }
            let told = session.request::<ImportsTold>(batch::IMPORTS, &parameters, &cancelled).await?;
            Ok(told.map(|told| told.files(|path| session.is_lasting(path))).unwrap_or_default())
        };
        let asking = tracing::Instrument::in_current_span(asking);
        self.tracker.spawn(asking).await.unwrap_or(Err(SessionError::Disconnected))
    }

    /// What the engine says of each place, in the order asked. By hovers, at most `window` of them are under way at once.
    ///
    /// With `alone`, nobody else's request is under way at the same time.
    ///
    /// # Errors
    /// [`SessionError::DiedAsking`] where the process ended with some of them under way,
    /// [`SessionError::Disconnected`] where it ended otherwise, and [`SessionError::Outdated`] where the file changed.
    ///
    /// # Cancel safety
    /// Dropped, it drops what waits, cancels what is under way towards the engine, and keeps the permits of that
    /// until the engine has answered.
    pub async fn ask(
        self: &Arc<Self>,
        document: Document,
        places: Vec<Position>,
        extras: Extras,
        window: usize,
        alone: bool,
    ) -> Result<Asked, SessionError> {
        let cancelled = CancellationToken::new();
        let _guard = cancelled.clone().drop_guard();
        let session = Arc::clone(self);
        let asking = async move {
            if session.is_batch() {
                let answered = session.export(&document, &places, extras, alone, &cancelled).await?;
                if let Some(answered) = answered {
                    return Ok(answered);
                }
                tracing::warn!(file = %document.path.display(), "the file is asked about by hovers");
            }
            let (answers, engine) =
                session.take_turns(&document, &places, extras, window.max(1), alone, &cancelled).await?;
            Ok(Asked { answers, engine, evaluated: None })
        };
        let asking = tracing::Instrument::in_current_span(asking);
        self.tracker.spawn(asking).await.unwrap_or(Err(SessionError::Disconnected))
    }

    /// What was told of a text before, if that covers what is asked for. [`Session::refresh`] makes it hold.
    #[must_use]
    pub fn at_hand(&self, document: &Document, extras: Extras) -> Option<Arc<Evaluated>> {
        if document.overlay {
            return None;
        }
        self.evaluated.get(&document.path, &document.digest, extras)
    }

    /// The answers by one call; none where the bridge could not.
    async fn export(
        &self,
        document: &Document,
        places: &[Position],
        extras: Extras,
        alone: bool,
        cancelled: &CancellationToken,
    ) -> Result<Option<Asked>, SessionError> {
        let Document { path, digest, overlay, .. } = document;
        let told = |evaluated: &Evaluated| places.iter().map(|&place| evaluated.at(place, extras)).collect();
        let isolated = self.limits.evaluation == Evaluation::Isolated;
        if let Some(kept) = self.at_hand(document, extras) {
            return Ok(Some(Asked { answers: told(&kept), engine: Duration::ZERO, evaluated: Some(kept) }));
        }
        let _view = tokio::select! {
            () = cancelled.cancelled() => return Err(SessionError::Cancelled),
            () = self.condemned.cancelled() => return Err(SessionError::Disconnected),
            view = self.hold_view(alone || *overlay) => view,
        };
        // It died of who held the view before; that death is not this file's.
        if !self.is_usable() {
            return Err(SessionError::Disconnected);
        }
        if !overlay && !is_on_disk(document).await {
            return Err(SessionError::Outdated);
        }
        let parameters = batch::export_parameters(path, digest, (!isolated).then_some(places), extras);
        let begun = Instant::now();
        let mut open = *overlay;
        if open {
            self.open(document).await?;
        }
        let mut reminders = 0;
        let exported = loop {
            let exported = match self.request::<Exported>(batch::EXPORT, &parameters, cancelled).await {
                Ok(Ok(exported)) => exported,
                Ok(Err(())) => break Ok(None),
                Err(SessionError::Disconnected) => break Err(SessionError::DiedAsking),
                Err(error) => break Err(error),
            };
            match exported.state {
                Told::Told => break Ok(Some(exported)),
                // Such as one that the project's configuration excludes.
                Told::Unknown if !open => {
                    self.open(document).await?;
                    open = true;
                }
                // The watcher has not told of it yet, or never will.
                Told::Changed if !open && reminders < MAX_REMINDERS => {
                    self.edited(std::slice::from_ref(path)).await?;
                    reminders += 1;
                }
                Told::Unknown | Told::Changed => break Ok(None),
            }
        };
        if open {
            self.close(document).await?;
        }
        let read = |exported| Evaluated::read(exported, digest.clone(), extras, |path| self.is_lasting(path));
        let Some(evaluated) = exported?.and_then(read) else {
            return Ok(None);
        };
        let answers = told(&evaluated);
        let evaluated = (isolated && !overlay).then(|| Arc::new(evaluated));
        if let Some(evaluated) = &evaluated {
            self.evaluated.keep(path.clone(), Arc::clone(evaluated));
        }
        let engine = begun.elapsed();
        tracing::debug!(
            file = %path.display(),
            places = places.len(),
            milliseconds = engine.as_secs_f64() * 1000.0,
            "the engine answered in one call"
        );
        Ok(Some(Asked { answers, engine, evaluated }))
    }

    async fn take_turns(
        &self,
        document: &Document,
        places: &[Position],
        extras: Extras,
        window: usize,
        alone: bool,
        cancelled: &CancellationToken,
    ) -> Result<(Vec<Answer>, Duration), SessionError> {
        let alone = alone || document.overlay;
        let mut answers = vec![Answer::default(); places.len()];
        let (mut next, mut engine) = (0, Duration::ZERO);
        let length = if document.overlay { OVERLAY_TURN } else { TURN };
        while next < places.len() {
            let _view = tokio::select! {
                () = cancelled.cancelled() => return Err(SessionError::Cancelled),
                () = self.condemned.cancelled() => return Err(SessionError::Disconnected),
                view = self.hold_view(alone) => view,
            };
            if !self.is_usable() {
                return Err(SessionError::Disconnected);
            }
            // Others ask about the file itself, or what imports it, as it is on disk. The view is held: if the file
            // changes from here on, who asks about the new bytes waits for this turn to end.
            if !document.overlay && !is_on_disk(document).await {
                return Err(SessionError::Outdated);
            }
            self.open(document).await?;
            let begun = Instant::now();
            let end = begun + length;
            let asked = self.turn(document, places, extras, &mut answers, &mut next, window, end, cancelled).await;
            engine += begun.elapsed();
            let closed = self.close(document).await;
            asked.and(closed)?;
        }
        tracing::debug!(
            file = %document.path.display(),
            places = places.len(),
            milliseconds = engine.as_secs_f64() * 1000.0,
            "the engine answered"
        );
        Ok((answers, engine))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one turn of the loop above, apart only to close the document always"
    )]
    async fn turn(
        &self,
        document: &Document,
        places: &[Position],
        extras: Extras,
        answers: &mut [Answer],
        next: &mut usize,
        window: usize,
        end: Instant,
        cancelled: &CancellationToken,
    ) -> Result<(), SessionError> {
        let uri = uri(&document.path);
        let first = *next;
        let mut under_way = FuturesUnordered::new();
        let mut result = Ok(());
        loop {
            while result.is_ok() && *next < places.len() && under_way.len() < window {
                if cancelled.is_cancelled() {
                    result = Err(SessionError::Cancelled);
                } else if *next > first && Instant::now() >= end {
                    break;
                } else {
                    let (index, place) = (*next, places[*next]);
                    let uri = &uri;
                    under_way.push(async move { (index, self.ask_place(uri, place, extras, cancelled).await) });
                    *next += 1;
                }
            }
            match under_way.next().await {
                Some((index, Ok(answer))) => answers[index] = answer,
                Some((_, Err(SessionError::Disconnected))) => result = Err(SessionError::DiedAsking),
                Some((_, Err(error))) => result = Err(error),
                None => return result,
            }
        }
    }

    async fn ask_place(
        &self,
        uri: &str,
        place: Position,
        extras: Extras,
        cancelled: &CancellationToken,
    ) -> Result<Answer, SessionError> {
        let parameters = position_parameters(uri, place);
        let mut answer = Answer::default();
        match self.request::<Option<lsp_types::Hover>>(HoverRequest::METHOD, &parameters, cancelled).await? {
            Ok(hover) => {
                answer.hover = hover.and_then(|hover| {
                    let range = hover.range?;
                    Some((markdown(hover).into(), from_lsp(range)))
                });
            }
            Err(()) => answer.failed = true,
        }
        if extras.definitions && answer.hover.is_some() {
            match self
                .request::<Option<lsp_types::GotoDefinitionResponse>>(GotoDefinition::METHOD, &parameters, cancelled)
                .await?
            {
                Ok(found) => {
                    answer.definitions = found.map(locations).unwrap_or_default();
                    answer.definitions.retain(|(path, _)| self.is_lasting(path));
                }
                Err(()) => answer.failed = true,
            }
        }
        Ok(answer)
    }

    /// Whether a path outlives the process. What stands in for the standard library's sources does not.
    fn is_lasting(&self, path: &Path) -> bool {
        !path.starts_with(&self.scratch)
    }

    /// One request through the concurrency limit. The inner error is the engine's own answer.
    async fn request<T: DeserializeOwned>(
        &self,
        method: &'static str,
        parameters: &Value,
        cancelled: &CancellationToken,
    ) -> Result<Result<T, ()>, SessionError> {
        let parameters = raw(parameters);
        // What the engine dropped for reasons of its own is asked for once more.
        for attempt in 0..2 {
            let mut requests = self.requests.clone();
            {
                let _waiting = Count::up(&self.waiting);
                tokio::select! {
                    biased;
                    () = cancelled.cancelled() => return Err(SessionError::Cancelled),
                    ready = requests.ready() => ready.map_err(|_| self.lost())?,
                };
            }
            let call = Call { method, params: parameters.clone(), cancelled: cancelled.clone() };
            match requests.call(call).await {
                Ok(result) => {
                    self.served.store(true, Ordering::Relaxed);
                    return Ok(codec::read(&result).map_err(|error| {
                        tracing::warn!(%error, method, "the engine's answer can't be read");
                    }));
                }
                Err(CallError::Cancelled) => return Err(SessionError::Cancelled),
                Err(CallError::Disconnected) => return Err(self.lost()),
                Err(CallError::Answered(error)) if attempt == 0 && DROPPED.contains(&error.code) => {}
                Err(CallError::Answered(error)) => {
                    // Its message may quote the source.
                    tracing::warn!(code = error.code, method, "the engine answered with an error");
                    return Ok(Err(()));
                }
            }
        }
        Ok(Err(()))
    }

    /// A request of the session's own, outside the limit.
    async fn call_directly<T: DeserializeOwned>(
        &self,
        method: &'static str,
        parameters: &Value,
    ) -> Result<T, SessionError> {
        let call = Call { method, params: raw(parameters), cancelled: CancellationToken::new() };
        let result = self
            .multiplexer
            .clone()
            .oneshot(call)
            .await
            .map_err(|error| SessionError::Start(format!("{method}: {error}")))?;
        serde_json::from_str(result.get()).map_err(|error| SessionError::Start(format!("{method}: {error}")))
    }

    async fn notify(&self, method: &str, parameters: &impl Serialize) -> Result<(), SessionError> {
        self.multiplexer.clone().notify(method, parameters).await.map_err(|_| self.lost())
    }

    /// Notes that the connection is gone, so that nobody is given this session any more.
    fn lost(&self) -> SessionError {
        self.lost.store(true, Ordering::Relaxed);
        SessionError::Disconnected
    }

    async fn hold_view(&self, alone: bool) -> View {
        let view = Arc::clone(&self.view);
        if alone { View::Alone(view.write_owned().await) } else { View::Shared(view.read_owned().await) }
    }

    /// Opens a document unless another turn has. Without that, the engine would tokenize it again for each request.
    async fn open(&self, document: &Document) -> Result<(), SessionError> {
        // Held while the notice is sent, so that nobody asks before it.
        let mut open = self.open.lock().await;
        let users = open.entry(document.path.clone()).or_insert(0);
        if *users == 0 {
            let uri = uri(&document.path);
            let item = json!({ "uri": uri, "languageId": "python", "version": 1, "text": &*document.text });
            self.notify(DidOpenTextDocument::METHOD, &json!({ "textDocument": item })).await?;
            if document.overlay {
                // Only a change makes the engine infer anew what depends on this text.
                let change = json!({
                    "textDocument": { "uri": uri, "version": 2 },
                    "contentChanges": [{ "text": &*document.text }],
                });
                self.notify(DidChangeTextDocument::METHOD, &change).await?;
            }
        }
        *users += 1;
        Ok(())
    }

    async fn close(&self, document: &Document) -> Result<(), SessionError> {
        let mut open = self.open.lock().await;
        let Some(users) = open.get_mut(&document.path) else { return Ok(()) };
        *users -= 1;
        if *users > 0 {
            return Ok(());
        }
        open.remove(&document.path);
        let identifier = json!({ "textDocument": { "uri": uri(&document.path) } });
        self.notify(DidCloseTextDocument::METHOD, &identifier).await
    }

    /// Asks the engine to end, and gives it a moment to.
    pub async fn say_goodbye(&self, process: &mut Process) {
        self.condemned.cancel();
        let goodbye = async {
            if self.call_directly::<Value>(Shutdown::METHOD, &Value::Null).await.is_ok() {
                let _ = self.notify(Exit::METHOD, &Value::Null).await;
                process.wait().await;
            }
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}

/// A hold on the engine's view, until it is dropped.
#[expect(dead_code, reason = "held for its end alone")]
enum View {
    Shared(OwnedRwLockReadGuard<()>),
    Alone(OwnedRwLockWriteGuard<()>),
}

/// Counts one more until it is dropped.
struct Count<'a>(&'a AtomicU32);

impl<'a> Count<'a> {
    fn up(counter: &'a AtomicU32) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn discover(root: &ProjectRoot, settings: &ProjectSettings, roots: &AllowedRoots) -> Environment {
    Environment::discover(root.path(), settings.venv.as_deref(), &|path| roots.hold(path))
}

async fn is_on_disk(document: &Document) -> bool {
    tokio::fs::read(&document.path).await.is_ok_and(|bytes| bytes == document.text.as_bytes())
}
