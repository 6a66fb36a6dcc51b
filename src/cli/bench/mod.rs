//! `pyrightd bench`: this service against a plain client's hovers and the `pyright` command's check, all in one run.
//!
//! Here is what is measured, and in which order; how, and how it is told, is left to the files below.

mod calls;
mod incremental;
mod project;
mod report;
mod service;
mod ways;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;

use self::calls::Calls;
use self::incremental::Updates;
use self::project::Project;
use self::report::Figures;
use self::service::Launch;
use self::ways::{Library, Run, Way};
use crate::model::Evaluation;
use crate::pyright::install::Engine;

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct BenchArguments {
    /// The projects' folders; calls in a warm process are measured in the largest
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Requests that the plain client keeps in flight, beside one at a time
    #[arg(long, default_value = "32", value_name = "N")]
    pub in_flight: std::num::NonZeroUsize,
    /// Measure updates of snapshots instead, on copies of the projects
    #[arg(long, conflicts_with_all = ["rounds", "svg"])]
    pub incremental: bool,
    /// Leave out hovers, which take the longest
    #[arg(long)]
    pub without_hovers: bool,
    /// The Python whose standard library's sources an editor's Pyright reads; without one there are no such hovers
    #[arg(long, default_value = "python3", value_name = "PROGRAM")]
    pub python: PathBuf,
    /// How often all is measured, but for hovers that read sources, once; the figures are the medians
    #[arg(long, default_value = "1", value_name = "N")]
    pub rounds: std::num::NonZeroUsize,
    /// Also write the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also draw them as an SVG chart
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// Measures projects with these canonical roots, and prints the figures. Services are started with `flags` besides, by
/// which they should run `engine`.
///
/// # Errors
/// Where a client, a service or the command fails.
pub async fn run(
    engine: &Engine,
    flags: Vec<OsString>,
    arguments: &BenchArguments,
    roots: &[PathBuf],
    output: &mut impl Write,
) -> anyhow::Result<()> {
    let executable = std::env::current_exe()?;
    let mut projects =
        roots.iter().map(|root| Project::read(root).map(Arc::new)).collect::<anyhow::Result<Vec<_>>>()?;
    projects.sort_by_key(|project| project.files.len());
    let largest = projects.last().context("no project was named")?;
    let standard_library = standard_library(&arguments.python).await;
    let ways = ways(arguments, standard_library.is_some());
    let launch = Launch { executable: executable.clone(), flags, roots: roots.to_owned(), standard_library };

    let write = |path: &Path, text: String| std::fs::write(path, text).with_context(|| path.display().to_string());
    if arguments.incremental {
        let library = ways.iter().find_map(|way| match way {
            Way::Hovers { library, .. } => Some(*library),
            _ => None,
        });
        let figures = Updates::measure(engine, &launch, &projects, library).await?;
        output.write_all(figures.markdown().as_bytes())?;
        if let Some(path) = &arguments.json {
            write(path, serde_json::to_string_pretty(&figures)?)?;
        }
        return Ok(());
    }

    let rounds = arguments.rounds.get();
    let mut runs: Vec<Vec<Vec<Run>>> = vec![vec![Vec::new(); ways.len()]; projects.len()];
    let mut calls: Vec<Calls> = Vec::new();
    for round in 0..rounds {
        for (project, runs) in projects.iter().zip(&mut runs) {
            // Each round begins with another way, so that none is always first or last.
            for turn in 0..ways.len() {
                let index = (turn + round) % ways.len();
                if round > 0 && matches!(ways[index], Way::Hovers { library: Library::Sources, .. }) {
                    continue;
                }
                eprint!("round {} of {rounds}: {}, {} … ", round + 1, project.name, ways[index]);
                let run = ways[index].run(engine, &executable, &launch, project).await?;
                eprintln!("{:.1} s", run.whole.as_secs_f64());
                runs[index].push(run);
            }
        }
        eprintln!("round {} of {rounds}: calls in a warm process, {} …", round + 1, largest.name);
        calls.push(Calls::measure(&launch, largest).await?);
    }

    let figures = Figures::new(engine, arguments.in_flight.get(), &projects, &ways, &runs, &calls);
    output.write_all(figures.markdown().as_bytes())?;
    if let Some(path) = &arguments.json {
        write(path, serde_json::to_string_pretty(&figures)?)?;
    }
    if let Some(path) = &arguments.svg {
        write(path, figures.chart())?;
    }
    Ok(())
}

/// All ways, in the order in which they are told of.
fn ways(arguments: &BenchArguments, has_sources: bool) -> Vec<Way> {
    let libraries: &[Library] = match (arguments.without_hovers, has_sources) {
        (true, _) => &[],
        (false, true) => &[Library::Sources, Library::Blank],
        (false, false) => &[Library::Blank],
    };
    let in_flight = [1, arguments.in_flight.get()];
    let hovers = libraries.iter().flat_map(|&library| in_flight.map(|in_flight| Way::Hovers { in_flight, library }));
    let service = |evaluation, documentation| Way::Service { evaluation, documentation };
    let others = [
        Way::Check,
        service(Evaluation::Shared, false),
        service(Evaluation::Isolated, false),
        service(Evaluation::Isolated, true),
    ];
    hovers.chain(others).collect()
}

/// The folder of a Python's standard library, by its own word.
async fn standard_library(python: &Path) -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "whoever measures names the program, and no project is near")]
    let mut command = tokio::process::Command::new(python);
    let told = command.args(["-I", "-c", "import os; print(os.path.dirname(os.__file__))"]).output().await.ok()?;
    let folder = PathBuf::from(String::from_utf8(told.stdout).ok()?.trim());
    folder.join("os.py").is_file().then_some(folder)
}
