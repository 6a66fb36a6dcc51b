//! The ways in which a project's types are learned, each measured in processes of its own.

use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::process::Command;

use super::project::Project;
use super::service::{Launch, Service};
use crate::cli::plain::PlainClient;
use crate::model::{Evaluation, Position};
use crate::pyright::install::Engine;
use crate::pyright::interpreter;
use crate::workspace::environment::Environment;

/// One way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A plain client's hovers at every identifier, so many under way at once, by a Pyright that finds the standard
    /// library of a Python, or blank sources in its place, as the service's does.
    Hovers { in_flight: usize, library: Library },
    /// The `pyright` command's own check, which tells no types.
    Check,
    /// One export of every identifier by this service.
    Service { evaluation: Evaluation, documentation: bool },
}

/// What a plain client's Pyright finds where the standard library's sources should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Library {
    /// What is there, as in an editor.
    Sources,
    /// Nothing to read.
    Blank,
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hovers { in_flight, library } => {
                match in_flight {
                    1 => formatter.write_str("hovers, one at a time"),
                    _ => write!(formatter, "hovers, {in_flight} in flight"),
                }?;
                formatter.write_str(if *library == Library::Blank { ", blank library" } else { "" })
            }
            Self::Check => formatter.write_str("pyright's check"),
            Self::Service { evaluation, documentation } => {
                formatter.write_str(match evaluation {
                    Evaluation::Isolated => "pyrightd, isolated",
                    Evaluation::Shared => "pyrightd, shared",
                })?;
                formatter.write_str(if *documentation { ", with documentation" } else { "" })
            }
        }
    }
}

/// One project by one way.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// From the start of the first process.
    pub(super) whole: Duration,
    /// From when the engine was ready, but had answered nothing about the project. A check has no such moment.
    pub(super) ready: Option<Duration>,
    /// Identifiers of which something was told.
    pub(super) told: Option<u64>,
    /// The service's resident memory at its highest, in bytes.
    pub(super) peak_bytes: Option<u64>,
}

impl Way {
    /// Measures it.
    pub(super) async fn run(
        self,
        engine: &Engine,
        executable: &Path,
        launch: &Launch,
        project: &Project,
    ) -> anyhow::Result<Run> {
        match self {
            Self::Hovers { in_flight, library } => {
                let sources = launch.standard_library.as_deref().filter(|_| library == Library::Sources);
                hovers(engine, executable, project, in_flight, sources).await
            }
            Self::Check => check(engine, executable, project).await,
            Self::Service { evaluation, documentation } => export(launch, project, evaluation, documentation).await,
        }
    }
}

async fn hovers(
    engine: &Engine,
    executable: &Path,
    project: &Project,
    in_flight: usize,
    standard_library: Option<&Path>,
) -> anyhow::Result<Run> {
    let files: Vec<(&Path, &[Position])> =
        project.files.iter().map(|file| (file.path.as_path(), file.names.as_slice())).collect();
    let begun = Instant::now();
    let client = PlainClient::start(engine, &project.root, executable, standard_library).await?;
    let ready = Instant::now();
    let told = client.count_hovers(&files, in_flight).await?;
    let (whole, ready) = (begun.elapsed(), ready.elapsed());
    client.stop().await;
    Ok(Run { whole, ready: Some(ready), told: Some(told), peak_bytes: None })
}

async fn export(
    launch: &Launch,
    project: &Project,
    evaluation: Evaluation,
    documentation: bool,
) -> anyhow::Result<Run> {
    let begun = Instant::now();
    let service = Service::start(launch, evaluation).await?;
    let mut caller = service.connect().await?;
    caller.open(project).await?;
    let ready = Instant::now();
    let told = caller.export(project, documentation).await?;
    let (whole, ready) = (begun.elapsed(), ready.elapsed());
    let peak_bytes = service.peak_bytes();
    service.stop().await?;
    Ok(Run { whole, ready: Some(ready), told: Some(told), peak_bytes })
}

/// The command as it comes, without the flags that the service has Node started with.
///
/// It sees what the service's engine sees: nothing of this process's environment, no Python but this program in its
/// stead, which names the packages of the project's virtual environment. With or without errors found, it has checked.
async fn check(engine: &Engine, executable: &Path, project: &Project) -> anyhow::Result<Run> {
    let scratch = tempfile::tempdir()?;
    let environment = Environment::discover(&project.root, None, &|_| true);
    #[expect(clippy::disallowed_methods, reason = "the command is here to be measured; nothing is asked of it")]
    let mut command = Command::new(&engine.node);
    command.arg(&engine.command).arg("-p").arg(&project.root).arg("--pythonpath").arg(executable).arg("--outputjson");
    command
        .env_clear()
        .env("TMPDIR", scratch.path())
        .env("HOME", scratch.path())
        .env(interpreter::VARIABLE, interpreter::answers(&environment, scratch.path().to_owned()))
        .current_dir(scratch.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let begun = Instant::now();
    let output = command.output().await?;
    let whole = begun.elapsed();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the check of {} failed: {}", project.name, output.status))?;
    let (checked, files) = (&report["summary"]["filesAnalyzed"], project.files.len());
    anyhow::ensure!(*checked == files, "the check is of {checked} files, but there are {files}");
    Ok(Run { whole, ready: None, told: None, peak_bytes: None })
}
