//! One conversation with one Pyright process: the handshake, the server's own requests, and what it knows of the disk.
//!
//! A [`Session`] that [`Session::start`] returns is ready: initialized, configured, the project's files found, and a
//! probe answered. Before each call, [`Session::refresh`] makes the engine's view equal to the disk. What to do when a
//! process dies is left to `supervisor`.

mod hovers;
mod start;
mod view;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use lsp_types::notification::{Exit, Notification as _};
use lsp_types::request::{Request as _, Shutdown};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{RwLock, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::limit::ConcurrencyLimit;
use tower::{Service as _, ServiceExt as _};

pub use self::start::Start;
use self::view::is_on_disk;
use super::batch::{self, Answer, Evaluated, Exported, Extras, Imports, ImportsTold, Table, Told};
use super::host::Facts;
use super::process::Process;
use super::protocol::{raw, uri};
use crate::lsp::codec;
use crate::lsp::multiplexer::{Call, CallError, Multiplexer};
use crate::model::{Digest, EngineMode, Evaluation, Position, ProjectRoot, ProjectSettings};
use crate::workspace::configuration::Configuration;
use crate::workspace::environment::Environment;
use crate::workspace::paths::AllowedRoots;
use crate::workspace::tree::Tree;
use crate::workspace::watch::{Subscription, Watcher};

/// How long a stopping engine may take to say good-bye.
const GOODBYE: Duration = Duration::from_secs(2);
/// JSON-RPC codes for "cancelled" and "content modified": the engine dropped the request for reasons of its own.
const DROPPED: [i64; 3] = [-32800, -32801, -32802];
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
    /// As it was at the start.
    configuration: Configuration,
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

impl Session {
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

    /// What these files import, as far as the engine holds them, and what these sources do that stubs stand for. They are
    /// read for it, but not evaluated.
    ///
    /// # Errors
    /// As [`Session::ask`].
    ///
    /// # Cancel safety
    /// As [`Session::ask`].
    pub async fn imports(self: &Arc<Self>, paths: &[&Path], sources: &[&Path]) -> Result<Vec<Imports>, SessionError> {
        let cancelled = CancellationToken::new();
        let _guard = cancelled.clone().drop_guard();
        let session = Arc::clone(self);
        let uris = |paths: &[&Path]| paths.iter().map(|path| uri(path)).collect::<Vec<_>>();
        let parameters = json!({ "uris": uris(paths), "sources": uris(sources) });
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
