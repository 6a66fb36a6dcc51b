//! `pyrightd doctor`: tries what a server needs, and says what is wrong and what to do.

use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::task::TaskTracker;

use crate::model::{ProjectRoot, ProjectSettings};
use crate::pyright::install::Engine;
use crate::pyright::session::{Limits, Session, Start};
use crate::workspace::configuration::discover;
use crate::workspace::paths::AllowedRoots;
use crate::workspace::tree::{Place, Tree};
use crate::workspace::watch::Watcher;

/// The findings so far.
#[derive(Debug)]
pub struct Report<W> {
    output: W,
    faults: u32,
}

impl<W: Write> Report<W> {
    /// A report without findings.
    pub fn new(output: W) -> Self {
        Self { output, faults: 0 }
    }

    /// How many things are wrong.
    pub fn faults(&self) -> u32 {
        self.faults
    }

    /// Writes a finding down, and gives back what was found if it is right.
    ///
    /// # Errors
    /// Where nothing can be written.
    pub fn check<T, E: Display>(
        &mut self,
        what: &str,
        finding: Result<T, E>,
        right: impl FnOnce(&T) -> String,
    ) -> std::io::Result<Option<T>> {
        match finding {
            Ok(found) => {
                writeln!(self.output, "ok      {what}: {}", right(&found))?;
                Ok(Some(found))
            }
            Err(fault) => {
                self.faults += 1;
                writeln!(self.output, "WRONG   {what}: {fault}")?;
                Ok(None)
            }
        }
    }

    /// Writes down something that is no fault but worth knowing.
    ///
    /// # Errors
    /// Where nothing can be written.
    pub fn note(&mut self, what: &str, note: &str) -> std::io::Result<()> {
        writeln!(self.output, "note    {what}: {note}")
    }
}

/// Tries an engine on a project of its own: it has to start, and to know a type.
///
/// # Errors
/// Where nothing can be written.
pub async fn engine<W: Write>(report: &mut Report<W>, engine: &Engine, limits: Limits) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path().canonicalize()?;
    let Some(watcher) = report.check("file watching", Watcher::start(), |_| "works".into())? else {
        return Ok(());
    };
    let begun = Instant::now();
    let tracker = TaskTracker::new();
    let start = Start {
        root: ProjectRoot::new(&root),
        settings: ProjectSettings::default(),
        roots: Arc::new(AllowedRoots::new(std::slice::from_ref(&root))?),
        engine,
        limits,
        watcher: Arc::new(watcher),
        tracker,
    };
    let started = Session::start(start).await;
    let started = report.check("a Pyright process", started, |_| {
        format!("ready, and right about a first type, after {:.1} s", begun.elapsed().as_secs_f64())
    })?;
    if let Some((session, mut process, _ended)) = started {
        session.say_goodbye(&mut process).await;
        process.kill().await;
    }
    Ok(())
}

/// Looks at one allowed root as if it were a project's.
///
/// # Errors
/// Where nothing can be written.
pub fn root<W: Write>(report: &mut Report<W>, folder: &Path) -> anyhow::Result<()> {
    let what = format!("root {}", folder.display());
    let roots = AllowedRoots::new(&[folder.to_owned()]);
    let Some(roots) = report.check(&what, roots, |_| "is a folder".into())? else { return Ok(()) };
    let Some(root) = roots.iter().next() else { return Ok(()) };
    let files = Tree::scan(vec![Place { folder: root.to_owned(), packages: false }]).sources().count();
    report.note(&what, &format!("{files} Python files"))?;
    let (_, environment) = discover(root, &ProjectSettings::default(), &roots);
    let packages = match &environment.prefix {
        Some(prefix) => format!("packages are read from {}", prefix.display()),
        None => {
            "no .venv or venv: third-party imports resolve to what Pyright brings along, unless a caller names a venv"
                .into()
        }
    };
    report.note(&what, &packages)?;
    Ok(())
}
