//! A `pyrightd serve` of its own for each figure, so that nothing of the client's is in its time or memory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use process_wrap::tokio::ChildWrapper as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::SignalKind;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;

use super::project::Project;
use crate::model::Evaluation;
use crate::proto;
use crate::proto::export_files_response::Result as Message;
use crate::proto::export_service_client::ExportServiceClient;
use crate::proto::project_service_client::ProjectServiceClient;
use crate::proto::snapshot_service_client::SnapshotServiceClient;

/// How services are started.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    /// This program.
    pub(super) executable: PathBuf,
    /// Further flags.
    pub(super) flags: Vec<OsString>,
    /// What they allow.
    pub(super) roots: Vec<PathBuf>,
    /// The sources that a plain client's Pyright finds.
    pub(super) standard_library: Option<PathBuf>,
}

/// A running service. Dropped, it is told to end; [`Service::stop`] waits for that too.
#[derive(Debug)]
pub(super) struct Service {
    child: Child,
    address: String,
    log: TaskTracker,
}

impl Launch {
    /// The same, with one more folder allowed.
    pub(super) fn with_root(&self, root: PathBuf) -> Self {
        let mut launch = self.clone();
        launch.roots.push(root);
        launch
    }
}

/// Where a service keeps what its engines tell.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kept<'a> {
    /// Nowhere: what was kept before would be no measure of the engine.
    Nowhere,
    /// In this folder.
    In(&'a Path),
}

/// A snapshot made by [`Caller::update`].
#[derive(Clone, Debug)]
pub(super) struct Updated {
    pub(super) elapsed: Duration,
    /// Its id.
    pub(super) snapshot: String,
    /// How many files had other bytes.
    pub(super) changed: usize,
    /// Files that were exported again for what they depend on.
    pub(super) dependent: Vec<String>,
}

impl Service {
    /// Starts one on a free port, which keeps nothing, and returns once it listens.
    pub(super) async fn start(launch: &Launch, evaluation: Evaluation) -> anyhow::Result<Self> {
        Self::start_keeping(launch, evaluation, Kept::Nowhere).await
    }

    /// The same, with what was kept there before.
    pub(super) async fn start_keeping(launch: &Launch, evaluation: Evaluation, kept: Kept<'_>) -> anyhow::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "it is this very program that is started")]
        let mut command = Command::new(&launch.executable);
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]);
        // The address is logged by `app`; a line for each call would cost time that nobody asked for.
        command.args(["--log", "warn,pyrightd::app=info", "--evaluation"]);
        command.arg(match evaluation {
            Evaluation::Isolated => "isolated",
            Evaluation::Shared => "shared",
        });
        command.args(&launch.flags);
        match kept {
            Kept::Nowhere => command.args(["--store", "none"]),
            Kept::In(folder) => command.arg("--state-dir").arg(folder),
        };
        command.arg("--allow-root").args(&launch.roots);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().context("the service has no standard error")?;
        let mut service = Self { child, address: String::new(), log: TaskTracker::new() };
        let mut lines = BufReader::new(stderr).lines();
        service.address = loop {
            let line = lines.next_line().await?.context("the service ended before it listened")?;
            match address(&line) {
                Some(address) => break address,
                None => echo(&line),
            }
        };
        // Read to its end, since a pipe that is full would stop the service.
        service.log.spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                echo(&line);
            }
        });
        Ok(service)
    }

    /// A connection of its own to it.
    pub(super) async fn connect(&self) -> anyhow::Result<Caller> {
        let channel = Channel::from_shared(format!("http://{}", self.address))?.connect().await?;
        Ok(Caller {
            projects: ProjectServiceClient::new(channel.clone()),
            exports: ExportServiceClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            snapshots: SnapshotServiceClient::new(channel).max_decoding_message_size(usize::MAX),
        })
    }

    /// Its resident memory at its highest so far, in bytes; none where the system does not tell.
    pub(super) fn peak_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        peak.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    }

    /// Ends it and its engines, and waits until they are gone.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.terminate()?;
        self.child.wait().await?;
        self.log.close();
        self.log.wait().await;
        Ok(())
    }

    /// Asks it to end; one that has ended already is none to ask.
    fn terminate(&self) -> std::io::Result<()> {
        self.child.signal(SignalKind::terminate().as_raw_value())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Killed, it would leave its engines behind.
        let _ = self.terminate();
    }
}

/// Where it listens, if this line of its log says so.
fn address(line: &str) -> Option<String> {
    let said: serde_json::Value = serde_json::from_str(line).ok()?;
    (said["message"] == "listening").then(|| said["address"].as_str().map(str::to_owned))?
}

/// Passes on what tells of trouble.
fn echo(line: &str) {
    if !line.contains(r#""level":"INFO""#) {
        eprintln!("pyrightd serve: {line}");
    }
}

/// One connection.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    projects: ProjectServiceClient<Channel>,
    exports: ExportServiceClient<Channel>,
    snapshots: SnapshotServiceClient<Channel>,
}

impl Caller {
    /// Has a project's engine started, and waits until it is ready.
    pub(super) async fn open(&mut self, project: &Project) -> anyhow::Result<()> {
        let request = proto::OpenProjectRequest { project_root: project.text()?, settings: None };
        let opened = self.projects.open_project(request).await?.into_inner().project.unwrap_or_default();
        if !opened.batch {
            eprintln!("note: with this engine, pyrightd asks by one hover for each location, and evaluation is shared");
        }
        Ok(())
    }

    /// Takes every identifier of the project, and counts those with a type.
    pub(super) async fn export(&mut self, project: &Project, documentation: bool) -> anyhow::Result<u64> {
        let details = if documentation { vec![proto::Detail::Documentation.into()] } else { Vec::new() };
        let request = proto::ExportFilesRequest {
            options: Some(proto::ExportOptions { details, ..proto::ExportOptions::default() }),
            ..export_request(project)?
        };
        let summary = self.export_all(request).await?;
        let (asked, told) = (project.names() as u64, summary.locations);
        anyhow::ensure!(told == asked, "hovers are about {asked} locations, but the service tells of {told}");
        Ok(summary.typed)
    }

    /// Takes every identifier of these files.
    pub(super) async fn export_some(&mut self, project: &Project, paths: Vec<String>) -> anyhow::Result<()> {
        let file = |path: String| proto::FileLocations { path, ..proto::FileLocations::default() };
        let files = paths.into_iter().map(file).collect();
        let request = proto::ExportFilesRequest { files, ..export_request(project)? };
        self.export_all(request).await?;
        Ok(())
    }

    async fn export_all(&mut self, request: proto::ExportFilesRequest) -> anyhow::Result<proto::ExportSummary> {
        let mut messages = self.exports.export_files(request).await?.into_inner();
        while let Some(message) = messages.message().await? {
            if let Some(Message::Summary(summary)) = message.result {
                return Ok(summary);
            }
        }
        anyhow::bail!("the export ended without a summary")
    }

    /// Brings the project's snapshot up to date.
    pub(super) async fn update(&mut self, project: &Project) -> anyhow::Result<Updated> {
        let begun = Instant::now();
        let request = proto::UpdateSnapshotRequest {
            project_root: project.text()?,
            project_id: project.name.clone(),
            selector: proto::Selector::Names.into(),
            ..proto::UpdateSnapshotRequest::default()
        };
        let mut messages = self.snapshots.update_snapshot(request).await?.into_inner();
        while let Some(message) = messages.message().await? {
            if let Some(proto::update_snapshot_response::Result::Summary(summary)) = message.result {
                return Ok(Updated {
                    elapsed: begun.elapsed(),
                    snapshot: summary.snapshot.unwrap_or_default().snapshot_id,
                    changed: summary.changed_files.len(),
                    dependent: summary.dependent_files,
                });
            }
        }
        anyhow::bail!("the update ended without a summary")
    }

    /// Reads a whole snapshot, and counts its types.
    pub(super) async fn read(&mut self, snapshot: &str) -> anyhow::Result<u64> {
        let reference = proto::SnapshotRef { r#ref: Some(proto::snapshot_ref::Ref::SnapshotId(snapshot.to_owned())) };
        let request = proto::GetSnapshotRequest { snapshot: Some(reference), paths: Vec::new() };
        let mut messages = self.snapshots.get_snapshot(request).await?.into_inner();
        let mut types = 0;
        while let Some(message) = messages.message().await? {
            if let Some(proto::get_snapshot_response::Result::File(file)) = message.result {
                types += file.types.len() as u64;
            }
        }
        Ok(types)
    }

    /// Counts the sources that changed since a snapshot, or since the last commit.
    pub(super) async fn changes(&mut self, project: &Project, snapshot: Option<&str>) -> anyhow::Result<usize> {
        let since = snapshot.map(|id| proto::detect_changes_request::Since::SnapshotId(id.to_owned()));
        let request = proto::DetectChangesRequest { project_root: project.text()?, since };
        let changes = self.projects.detect_changes(request).await?.into_inner();
        Ok(changes.changed.len() + changes.deleted.len())
    }

    /// Takes some locations of one file.
    pub(super) async fn file(&mut self, project: &Project, file: proto::FileLocations) -> anyhow::Result<()> {
        let request = proto::ExportLocationsRequest { project_root: project.text()?, file: Some(file), options: None };
        self.exports.export_locations(request).await?;
        Ok(())
    }
}

fn export_request(project: &Project) -> anyhow::Result<proto::ExportFilesRequest> {
    Ok(proto::ExportFilesRequest {
        project_root: project.text()?,
        default_selector: proto::Selector::Names.into(),
        ..proto::ExportFilesRequest::default()
    })
}
