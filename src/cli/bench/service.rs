//! A `pyrightd serve` of its own for each figure, so that nothing of the client's is in its time or memory.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;

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

/// How services are started.
#[derive(Debug)]
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

impl Service {
    /// Starts one on a free port and returns once it listens.
    pub(super) async fn start(launch: &Launch, evaluation: Evaluation) -> anyhow::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "it is this very program that is started")]
        let mut command = Command::new(&launch.executable);
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]);
        // The address is logged by `app`; a line for each call would cost time that nobody asked for.
        command.args(["--log", "warn,pyrightd::app=info", "--evaluation"]);
        command.arg(match evaluation {
            Evaluation::Isolated => "isolated",
            Evaluation::Shared => "shared",
        });
        // What was kept before would be no measure of the engine.
        command.args(&launch.flags).args(["--store", "none"]).arg("--allow-root").args(&launch.roots);
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
            exports: ExportServiceClient::new(channel).max_decoding_message_size(usize::MAX),
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
            project_root: project.text()?,
            default_selector: proto::Selector::Names.into(),
            options: Some(proto::ExportOptions { details, ..proto::ExportOptions::default() }),
            ..proto::ExportFilesRequest::default()
        };
        let mut messages = self.exports.export_files(request).await?.into_inner();
        while let Some(message) = messages.message().await? {
            if let Some(Message::Summary(summary)) = message.result {
                let (asked, told) = (project.names() as u64, summary.locations);
                anyhow::ensure!(told == asked, "hovers are about {asked} locations, but the service tells of {told}");
                return Ok(summary.typed);
            }
        }
        anyhow::bail!("the export ended without a summary")
    }

    /// Takes some locations of one file.
    pub(super) async fn file(&mut self, project: &Project, file: proto::FileLocations) -> anyhow::Result<()> {
        let request = proto::ExportLocationsRequest { project_root: project.text()?, file: Some(file), options: None };
        self.exports.export_locations(request).await?;
        Ok(())
    }
}
