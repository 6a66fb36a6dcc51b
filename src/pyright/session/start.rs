//! From a process to a session that is ready: the handshake, the project's files found, a probe answered.

use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, Once, OnceLock};

use lsp_types::notification::{Initialized, Notification as _};
use lsp_types::request::{HoverRequest, Initialize, Request as _};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::limit::ConcurrencyLimit;

use super::{Document, Limits, Session, SessionError};
use crate::blocking::blocking;
use crate::lsp::multiplexer::{Ended, Multiplexer, Options};
use crate::model::{Digest, EngineMode, Position, ProjectRoot, ProjectSettings};
use crate::pyright::batch::{self, Check, Table};
use crate::pyright::bridge;
use crate::pyright::host::Host;
use crate::pyright::install::Engine;
use crate::pyright::process::{Launch, Process};
use crate::pyright::protocol::{markdown, position_parameters, uri};
use crate::workspace::configuration::discover;
use crate::workspace::paths::AllowedRoots;
use crate::workspace::tree::{identity, places};
use crate::workspace::watch::Watcher;

/// The longest message taken from the engine, in bytes.
const MAX_MESSAGE: usize = 64 << 20;
/// A document that is never on disk; dotted, so that no import can name it.
const PROBE: &str = ".pyrightd-probe.py";
/// So that a release that is asked by hovers is logged once, not for each project.
static TOLD_OF_HOVERS: Once = Once::new();
/// Counts engines that became ready.
const STARTS: &str = "pyrightd_engine_starts_total";

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
    pub engine: &'a Engine,
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

        let (configuration, environment) = discover(root.path(), &settings, &roots);
        let folders = places(&root, &settings, &configuration, &environment);
        let (watching, allowed) = (Arc::clone(&watcher), Arc::clone(&roots));
        // While Node starts. Pyright looks for files only after the handshake, so that no change is missed between.
        let scanning = tracker.spawn(blocking(move || watching.scan(folders, &allowed)));

        let launch = Launch {
            engine: engine.clone(),
            environment: environment.clone(),
            max_heap_mib: limits.max_heap_mib,
            preload: bridge::preload(&settings, configuration.venv().is_some(), limits.mode != EngineMode::Hover),
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
            configuration,
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
}
