//! What bringing a snapshot up to date costs after each kind of change, measured on a copy of a project.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;

use super::calls::Spread;
use super::project::Project;
use super::report::Machine;
use super::service::{Caller, Kept, Launch, Service, Updated};
use super::ways::{Library, Way};
use crate::model::Evaluation;
use crate::pyright::install::Engine;
use crate::workspace::tree::{Place, Tree};

/// Updates and calls of each kind.
const TIMES: usize = 20;
/// Processes in which nothing changed.
const FRESH: usize = 5;
/// Files of which some are sought that nobody imports.
const TRIED: usize = 30;
/// How many of those are changed in turn.
const LEAVES: usize = 5;
/// Files of which one is sought that half the project imports.
const HUBS: usize = 6;
/// Times that such a file is changed.
const HUB_TIMES: usize = 3;
/// Files of the project in which changes are detected; they are written for it.
const DETECTED: usize = 10_000;
/// How long a project has been quiet before it counts as warm: by then it is watched.
const QUIET: Duration = Duration::from_secs(3);

/// What was measured, where, and how it came out.
#[derive(Debug, Serialize)]
pub(super) struct Updates {
    machine: Machine,
    projects: Vec<Incremental>,
    detection: Detection,
}

/// The figures of one project.
#[derive(Debug, Serialize)]
struct Incremental {
    project: String,
    files: usize,
    names: usize,
    /// A plain client's hovers everywhere, one at a time, ready but cold; none where they were left out.
    hovers_milliseconds: Option<f64>,
    /// An update without a base, into an empty store, the engine's start included.
    first_milliseconds: f64,
    updates: Vec<UpdateFigures>,
    hub: Option<HubFigures>,
    growth: Vec<Growth>,
    read: ReadFigures,
}

/// Updates of one kind.
#[derive(Debug, Serialize)]
struct UpdateFigures {
    after: &'static str,
    #[serde(flatten)]
    times: Spread,
}

/// A file that many others import, directly or through others.
#[derive(Debug, Serialize)]
struct HubFigures {
    file: String,
    /// How many files were exported again.
    exported: usize,
    update_milliseconds: f64,
    /// An export of the same files after the same change, in a warm process that keeps nothing.
    export_milliseconds: f64,
}

/// What one more snapshot adds to the store.
#[derive(Debug, Serialize)]
struct Growth {
    after: &'static str,
    /// Before it, and with it.
    bytes: [u64; 2],
}

#[derive(Debug, Serialize)]
struct ReadFigures {
    types: u64,
    milliseconds: f64,
}

/// How long it takes to say what changed in a large project.
#[derive(Debug, Serialize)]
struct Detection {
    files: usize,
    /// Since the last commit, by Git; none where there is no such program to make one.
    by_git: Option<Spread>,
    /// Since a snapshot, by digests.
    by_digest: Spread,
}

impl Updates {
    /// Measures these projects, and what a library's hovers take beside.
    pub(super) async fn measure(
        engine: &Engine,
        launch: &Launch,
        projects: &[Arc<Project>],
        hovers: Option<Library>,
    ) -> anyhow::Result<Self> {
        let mut figures = Vec::with_capacity(projects.len());
        for project in projects {
            figures.push(Incremental::measure(engine, launch, project, hovers).await?);
        }
        let detection = Detection::measure(launch).await?;
        Ok(Self { machine: Machine::this(engine), projects: figures, detection })
    }

    /// As tables and lists for people.
    pub(super) fn markdown(&self) -> String {
        let mut text = format!("{}\n", self.machine);
        self.projects.iter().for_each(|project| project.write(&mut text));
        self.detection.write(&mut text);
        text.push_str(COUNTED);
        text
    }
}

/// What the figures are of; part of the output, so that they are not quoted for more.
const COUNTED: &str = "
## What is counted

- Each time is of one call over loopback, from the request to the last message. A new process's begins when it listens;
  no engine is started in it.
- A changed file gets one more function at its end. Warm means that the project's Pyright runs and the project is watched.
- Files that nobody imports are five arbitrary ones, changed in turn.
- The file that others import is, of half a dozen arbitrary ones, the one on which nearest to half the project depends. Exporting
  those files alone is measured in a second process that has exported the whole project before the same change. Both are
  the median of three, in turns.
- The store is SQLite's, with one snapshot and what was told for it before the next; its size is that of its files while no
  process has it open.
";

impl Incremental {
    /// Measures one project.
    async fn measure(
        engine: &Engine,
        launch: &Launch,
        original: &Project,
        hovers: Option<Library>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let store = tempfile::tempdir()?;
        let kept = Kept::In(store.path());
        let launch = launch.with_root(folder.path().canonicalize()?);
        let project = copy(original, &folder.path().canonicalize()?)?;
        let say = |what: &str| eprintln!("{}: {what} …", project.name);
        let hovers = match hovers {
            Some(library) => {
                say("hovers");
                let way = Way::Hovers { in_flight: 1, library };
                way.run(engine, &launch.executable, &launch, &project).await?.ready
            }
            None => None,
        };

        say("the first update");
        let service = Service::start_keeping(&launch, Evaluation::Isolated, kept).await?;
        let mut caller = service.connect().await?;
        let first = caller.update(&project).await?;
        say("files that nobody imports");
        caller.open(&project).await?;
        let leaves = leaves(&mut caller, &project).await?;
        tokio::time::sleep(QUIET).await;
        let mut alone = Vec::with_capacity(TIMES);
        for leaf in leaves.iter().cycle().take(TIMES) {
            alone.push(leaf.edit()?.update(&mut caller, &project).await?.elapsed);
        }
        say("nothing, warm");
        let mut warm = Vec::with_capacity(TIMES);
        for _ in 0..TIMES {
            warm.push(nothing(&mut caller, &project).await?);
        }
        say("a file that others import");
        let hub = hub(&mut caller, &launch, &project).await?;
        drop(caller);
        service.stop().await?;

        say("nothing, in new processes");
        let mut fresh = Vec::with_capacity(FRESH);
        for _ in 0..FRESH {
            let service = Service::start_keeping(&launch, Evaluation::Isolated, kept).await?;
            fresh.push(nothing(&mut service.connect().await?, &project).await?);
            service.stop().await?;
        }

        say("the store's growth");
        let store = tempfile::tempdir()?;
        let kept = Kept::In(store.path());
        let service = Service::start_keeping(&launch, Evaluation::Isolated, kept).await?;
        service.connect().await?.update(&project).await?;
        service.stop().await?;
        let before = bytes(store.path())?;
        let service = Service::start_keeping(&launch, Evaluation::Isolated, kept).await?;
        let mut caller = service.connect().await?;
        let updated = leaves[0].edit()?.update(&mut caller, &project).await?;
        let begun = Instant::now();
        let types = caller.read(&updated.snapshot).await?;
        let read = ReadFigures { types, milliseconds: milliseconds(begun.elapsed()) };
        drop(caller);
        service.stop().await?;
        let after = bytes(store.path())?;
        let mut growth = vec![Growth { after: "a change in a file that nobody imports", bytes: [before, after] }];
        if let Some(HubFigures { file, .. }) = &hub {
            let service = Service::start_keeping(&launch, Evaluation::Isolated, kept).await?;
            let edited = Edited { path: project.root.join(file) };
            edited.edit()?.update(&mut service.connect().await?, &project).await?;
            service.stop().await?;
            let bytes = [after, bytes(store.path())?];
            growth.push(Growth { after: "a change in the file that others import", bytes });
        }

        let figures = |after, times| Spread::of(times).map(|times| UpdateFigures { after, times });
        let kinds = [
            figures("nothing changed, in a new process with a filled store", fresh),
            figures("nothing changed, warm", warm),
            figures("a change in a file that nobody imports, warm", alone),
        ];
        Ok(Self {
            project: project.name.clone(),
            files: project.files.len(),
            names: project.names(),
            hovers_milliseconds: hovers.map(milliseconds),
            first_milliseconds: milliseconds(first.elapsed),
            updates: kinds.into_iter().flatten().collect(),
            hub,
            growth,
            read,
        })
    }

    /// As a table and a list for people.
    fn write(&self, text: &mut String) {
        let Self { project, files, names, hovers_milliseconds, first_milliseconds, updates, hub, growth, read } = self;
        let ratio = |time: f64| match hovers_milliseconds {
            Some(hovers) => format!("{:.0}", hovers / time),
            None => String::new(),
        };
        let _ = writeln!(text, "\n## {project}: {files} files, {names} names\n");
        text.push_str("| update after | p50 | p95 | hovers take, times as long |\n|---|---:|---:|---:|\n");
        for UpdateFigures { after, times: Spread { calls, p50, p95, .. } } in updates {
            let _ = writeln!(text, "| {after} ({calls}) | {p50:.1} ms | {p95:.1} ms | {} |", ratio(*p50));
        }
        let first = *first_milliseconds;
        let _ = writeln!(text, "| no base, an empty store | {first:.0} ms | | {} |\n", ratio(first));
        if let Some(hovers) = hovers_milliseconds {
            let _ = writeln!(text, "- hovers one at a time: {:.1} s", hovers / 1e3);
        }
        if let Some(HubFigures { file, exported, update_milliseconds, export_milliseconds }) = hub {
            let _ = writeln!(
                text,
                "- a change in {file}: {exported} files exported again in {update_milliseconds:.0} ms; exporting those \
                 alone takes {export_milliseconds:.0} ms; {:.2}",
                update_milliseconds / export_milliseconds
            );
        }
        for Growth { after: change, bytes } in growth {
            let [before, after] = bytes.map(|bytes| f64::from(u32::try_from(bytes >> 10).unwrap_or(u32::MAX)));
            let _ = writeln!(
                text,
                "- a snapshot after {change}: {before:.0} to {after:.0} KiB of store, {:+.2} %",
                (after - before) / before * 100.0
            );
        }
        let ReadFigures { types, milliseconds } = read;
        let rate = f64::from(u32::try_from(*types).unwrap_or(u32::MAX)) / milliseconds * 1e3;
        let _ = writeln!(text, "- reading a snapshot of {types} types: {milliseconds:.0} ms, {rate:.0} types a second");
    }
}

impl Detection {
    /// Measures it in a project that is written for it, after a change to one file each time.
    async fn measure(launch: &Launch) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let root = folder.path().canonicalize()?;
        let files = write_project(&root)?;
        let has_git = commit(&root).await;
        let launch = launch.with_root(root.clone());
        let mut project = Project::read(&root)?;
        project.name = "written".into();
        let say = |what: &str| eprintln!("{DETECTED} files: {what} …");
        say("the first update");
        let store = tempfile::tempdir()?;
        let service = Service::start_keeping(&launch, Evaluation::Isolated, Kept::In(store.path())).await?;
        let mut caller = service.connect().await?;
        let updated = caller.update(&project).await?;
        say("changes");
        tokio::time::sleep(QUIET).await;
        let edited = Edited { path: root.join(&project.files[0].relative) };
        let by_digest = detect(&mut caller, &project, &edited, Some(&updated.snapshot)).await?;
        let by_git = if has_git { detect(&mut caller, &project, &edited, None).await? } else { Vec::new() };
        drop(caller);
        service.stop().await?;
        let by_digest = Spread::of(by_digest).context("no call was measured")?;
        Ok(Self { files, by_git: Spread::of(by_git), by_digest })
    }

    /// As a list for people.
    fn write(&self, text: &mut String) {
        let _ = writeln!(text, "\n## What changed in {} files, warm\n", self.files);
        for (how, spread) in [("since a commit, by Git", self.by_git), ("since a snapshot", Some(self.by_digest))] {
            if let Some(Spread { calls, p50, p95, .. }) = spread {
                let _ = writeln!(text, "- {how}: p50 {p50:.0} ms, p95 {p95:.0} ms ({calls} calls)");
            }
        }
    }
}

/// Times of calls, before each of which a file changes; the first, which finds nothing at hand, is not among them.
async fn detect(
    caller: &mut Caller,
    project: &Project,
    edited: &Edited,
    snapshot: Option<&str>,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(TIMES);
    for _ in 0..=TIMES {
        edited.edit()?;
        let begun = Instant::now();
        let changed = caller.changes(project, snapshot).await?;
        times.push(begun.elapsed());
        anyhow::ensure!(changed == 1, "one file changed, but {changed} are told of");
    }
    Ok(times.split_off(1))
}

/// An update that has nothing to do.
async fn nothing(caller: &mut Caller, project: &Project) -> anyhow::Result<Duration> {
    let Updated { elapsed, changed, dependent, .. } = caller.update(project).await?;
    anyhow::ensure!((changed, dependent.len()) == (0, 0), "{changed} files changed, though nobody touched any");
    Ok(elapsed)
}

/// A file that is changed again and again: each time, one more function stands at its end.
struct Edited {
    path: PathBuf,
}

impl Edited {
    fn edit(&self) -> anyhow::Result<&Self> {
        let mut text = std::fs::read_to_string(&self.path)?;
        let number = text.len();
        let _ = write!(text, "\n\ndef bench_{number}(value: int = {number}) -> list[int]:\n    return [value]\n");
        std::fs::write(&self.path, text)?;
        Ok(self)
    }

    async fn update(&self, caller: &mut Caller, project: &Project) -> anyhow::Result<Updated> {
        let updated = caller.update(project).await?;
        anyhow::ensure!(updated.changed == 1, "{} files changed instead of one", updated.changed);
        Ok(updated)
    }
}

/// Files on which no others depend.
async fn leaves(caller: &mut Caller, project: &Project) -> anyhow::Result<Vec<Edited>> {
    let mut leaves = Vec::new();
    for file in project.shuffled().into_iter().take(TRIED) {
        let edited = Edited { path: file.path.clone() };
        if edited.edit()?.update(caller, project).await?.dependent.is_empty() {
            leaves.push(edited);
        }
        if leaves.len() == LEAVES {
            break;
        }
    }
    anyhow::ensure!(!leaves.is_empty(), "each of {TRIED} files of {} is imported by others", project.name);
    Ok(leaves)
}

/// Of some files, the one on which nearest to half the project depends; none where hardly any other depends on any.
async fn hub(caller: &mut Caller, launch: &Launch, project: &Project) -> anyhow::Result<Option<HubFigures>> {
    let half = project.files.len() / 2;
    let mut nearest: Option<(usize, &str, Edited)> = None;
    for file in project.shuffled().into_iter().rev().take(HUBS) {
        let edited = Edited { path: file.path.clone() };
        let exported = 1 + edited.edit()?.update(caller, project).await?.dependent.len();
        let is_nearer = |other: &(usize, &str, Edited)| exported.abs_diff(half) < other.0.abs_diff(half);
        if nearest.as_ref().is_none_or(is_nearer) {
            nearest = Some((exported, &file.relative, edited));
        }
        if exported.abs_diff(half) < half / 3 {
            break;
        }
    }
    let Some((2.., file, edited)) = nearest else { return Ok(None) };
    let other = Service::start(launch, Evaluation::Isolated).await?;
    let mut exporting = other.connect().await?;
    exporting.open(project).await?;
    exporting.export_some(project, project.files.iter().map(|file| file.relative.clone()).collect()).await?;
    let (mut updates, mut exports, mut exported) = (Vec::new(), Vec::new(), 0);
    for _ in 0..HUB_TIMES {
        let Updated { elapsed, dependent: mut paths, .. } = edited.edit()?.update(caller, project).await?;
        updates.push(elapsed);
        paths.push(file.to_owned());
        exported = paths.len();
        let begun = Instant::now();
        exporting.export_some(project, paths).await?;
        exports.push(begun.elapsed());
    }
    drop(exporting);
    other.stop().await?;
    let times = Spread::of(updates).zip(Spread::of(exports));
    Ok(times.map(|(update, export)| HubFigures {
        file: file.to_owned(),
        exported,
        update_milliseconds: update.p50,
        export_milliseconds: export.p50,
    }))
}

/// All that a project's types depend on, in another place, where it can be changed.
fn copy(project: &Project, to: &Path) -> anyhow::Result<Project> {
    let tree = Tree::scan(vec![Place { folder: project.root.clone(), packages: false }]);
    for path in tree.files() {
        let copied = to.join(path.strip_prefix(&project.root)?);
        std::fs::create_dir_all(copied.parent().unwrap_or(to))?;
        std::fs::copy(path, copied)?;
    }
    for name in [".venv", "venv"] {
        let environment = project.root.join(name);
        if environment.is_dir() {
            std::os::unix::fs::symlink(environment, to.join(name))?;
        }
    }
    Ok(Project { name: project.name.clone(), ..Project::read(to)? })
}

/// Writes packages of modules each of which imports the next. Returns how many.
fn write_project(root: &Path) -> anyhow::Result<usize> {
    const MODULES: usize = 100;
    for package in 0..DETECTED / MODULES {
        let folder = root.join(format!("package{package}"));
        std::fs::create_dir(&folder)?;
        for module in 0..MODULES {
            let next = (module + 1) % MODULES;
            let import = if next == 0 { String::new() } else { format!("from .module{next} import Value\n") };
            let text = format!("{import}\n\nclass Value:\n    number = {module}\n");
            std::fs::write(folder.join(format!("module{module}.py")), text)?;
        }
    }
    Ok(DETECTED)
}

/// Commits all of a folder; false where that can't be done.
async fn commit(root: &Path) -> bool {
    let commands: [&[&str]; 3] = [
        &["init", "--quiet"],
        &["add", "--all"],
        &["-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "--quiet", "--message=all"],
    ];
    for arguments in commands {
        #[expect(
            clippy::disallowed_methods,
            reason = "the folder was just written here, and nobody's settings are in it"
        )]
        let mut git = tokio::process::Command::new("git");
        let done = git.arg("-C").arg(root).args(arguments).stdin(std::process::Stdio::null()).status().await;
        if !done.is_ok_and(|status| status.success()) {
            return false;
        }
    }
    true
}

fn bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        sum += entry?.metadata()?.len();
    }
    Ok(sum)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
