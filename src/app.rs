//! Wiring: from settings to a running server, and from a signal to its end.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::admin::Admin;
use crate::config::{Config, EngineMode, Evaluation, StoreUrl, user_cache, user_state};
use crate::export::Exporter;
use crate::grpc::Services;
use crate::pyright::install::{self, Engine};
use crate::pyright::registry::Registry;
use crate::pyright::session::Limits;
use crate::pyright::supervisor::Common;
use crate::results::Results;
use crate::store::{Keeper, Location};
use crate::update::Updater;
use crate::workspace::paths::AllowedRoots;
use crate::workspace::watch::Watcher;

/// What a stopping server still sends: the last frames of calls that have ended.
const LAST_FRAMES: Duration = Duration::from_millis(200);

/// The engine that the settings name, or the installed one. Blocks, for seconds where it is installed first.
///
/// # Errors
/// Where there is none, saying what to do.
pub fn engine(config: &Config) -> anyhow::Result<Engine> {
    // Engines run in a folder of their own, where a relative path would lead elsewhere.
    let absolute = |folder: &Path| {
        std::path::absolute(folder).with_context(|| format!("{} can't be made absolute", folder.display()))
    };
    if let Some(folder) = &config.engine_dir {
        return Ok(install::find(&absolute(folder)?)?);
    }
    let cache = config
        .cache_dir
        .clone()
        .or_else(user_cache)
        .context("there is no cache folder to install Pyright into: set HOME, or name one by --cache-dir")?;
    Ok(install::ensure(&absolute(&cache)?)?)
}

/// Where the settings have results and snapshots kept; none where that is nowhere.
#[must_use]
pub fn store_location(config: &Config) -> Option<Location> {
    match &config.store {
        Some(StoreUrl::None) => None,
        Some(StoreUrl::Postgres(url)) => Some(Location::Postgres(url.clone())),
        None => config.state_dir.clone().or_else(user_state).map(Location::Sqlite),
    }
}

/// How the settings have engines run.
#[must_use]
pub fn limits(config: &Config) -> Limits {
    Limits {
        max_in_flight: config.max_in_flight,
        stall: config.stall_timeout,
        start: config.start_timeout,
        max_heap_mib: config.engine_heap_mib,
        mode: config.engine_mode.into(),
        evaluation: config.evaluation.into(),
        max_kept: config.max_kept,
    }
}

/// A server that is bound to its address and ready to run.
#[derive(Debug)]
pub struct App {
    config: Config,
    listener: TcpListener,
    services: Services,
    admin: Option<Admin>,
    tracker: TaskTracker,
}

impl App {
    /// Finds the engine and binds the address. No project is opened yet.
    ///
    /// # Errors
    /// Each with what to do about it.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let roots =
            Arc::new(AllowedRoots::new(&config.allow_root).context("--allow-root names a folder that can't be used")?);
        if roots.iter().next().is_none() {
            tracing::warn!("no root is allowed, so that every export will be refused; name some by --allow-root");
        }
        let admin = match config.metrics_listen {
            Some(address) => Some(Admin::bind(address).await?),
            None => None,
        };
        let finding = config.clone();
        let engine = tokio::task::spawn_blocking(move || engine(&finding)).await??;
        tracing::info!(engine = engine.version, "the engine was found");
        let tracker = TaskTracker::new();
        let watcher = Arc::new(Watcher::start().context("files can't be watched")?);
        let results = match store_location(&config) {
            Some(location) => {
                let keeper = Keeper::open(location, Some(config.store_max_bytes)).await?;
                let is_isolated = config.evaluation == Evaluation::Isolated && config.engine_mode != EngineMode::Hover;
                let (roots, watcher) = (Arc::clone(&roots), Arc::clone(&watcher));
                Some(Results::start(keeper, engine.clone(), is_isolated, roots, watcher, &tracker))
            }
            None => None,
        };
        let registry = Arc::new(Registry::new(Common {
            engine,
            limits: limits(&config),
            roots: Arc::clone(&roots),
            watcher,
            idle: config.idle_timeout,
            max_calls: config.max_calls,
            tracker: tracker.clone(),
        }));
        let exporter = Arc::new(Exporter::new(Arc::clone(&registry), results.clone()));
        let updater = results.as_ref().map(|results| {
            let (exporter, registry) = (Arc::clone(&exporter), Arc::clone(&registry));
            Arc::new(Updater::new(exporter, registry, Arc::clone(results), Arc::clone(&roots)))
        });
        let services = Services {
            exporter,
            results,
            updater,
            registry,
            roots,
            max_in_flight: config.max_in_flight,
            max_message_in: config.max_message_in,
            max_message_out: config.max_message_out,
            calls: TaskTracker::new(),
            draining: CancellationToken::new(),
            abandoned: CancellationToken::new(),
        };
        let listener =
            TcpListener::bind(config.listen).await.with_context(|| format!("can't listen on {}", config.listen))?;
        Ok(Self { config, listener, services, admin, tracker })
    }

    /// Where it listens; the port is known even if the settings left it open.
    ///
    /// # Errors
    /// Where the operating system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` resolves, then drains: no new calls, those under way end, engines say good-bye.
    ///
    /// # Errors
    /// Where the transport fails.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { config, listener, services, admin, tracker } = self;
        let (routes, reporter) = services.routes().await?;
        let stopped = CancellationToken::new();
        let _stopped = stopped.clone().drop_guard();
        if let Some(admin) = admin {
            let serving = admin.run(stopped.clone());
            tracker.spawn(async {
                if let Err(error) = serving.await {
                    tracing::error!(%error, "metrics are served no more");
                }
            });
        }
        tracing::info!(address = %listener.local_addr()?, version = env!("CARGO_PKG_VERSION"), "listening");
        let server = Server::builder()
            .http2_keepalive_interval(Some(config.keep_alive_interval))
            .http2_keepalive_timeout(Some(config.keep_alive_timeout))
            .add_routes(routes)
            .serve_with_incoming_shutdown(
                // Small answers are not held back for more to send along.
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                services.draining.clone().cancelled_owned(),
            );
        let drained = async {
            stop.await;
            tracing::info!("stopping: calls under way may end");
            services.drain(&reporter, config.grace_period).await;
            // Streams that never end, such as a health watch, would keep the transport waiting.
            tokio::time::sleep(LAST_FRAMES).await;
        };
        let transport = tokio::select! {
            ended = server => ended,
            () = drained => Ok(()),
        };
        if let Some(results) = &services.results {
            results.stop();
        }
        services.registry.close_all().await;
        stopped.cancel();
        tracker.close();
        if tokio::time::timeout(config.grace_period, tracker.wait()).await.is_err() {
            tracing::warn!("some work did not end in time");
        }
        if let Some(results) = &services.results {
            results.keeper().close().await;
        }
        tracing::info!("stopped");
        Ok(transport?)
    }
}

/// Resolves on SIGTERM or SIGINT.
///
/// # Errors
/// Where signals can't be received.
pub fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The nearest folder at or above a path that looks like a project's root; else the path's own folder.
#[must_use]
pub fn project_root_of(path: &Path) -> std::path::PathBuf {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    let marks = ["pyrightconfig.json", "pyproject.toml", ".git"];
    folder
        .ancestors()
        .find(|ancestor| marks.iter().any(|mark| ancestor.join(mark).exists()))
        .unwrap_or(folder)
        .to_owned()
}
