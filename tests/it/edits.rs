//! After any edit, exports that begin from what is kept, and snapshots that are brought up to date, equal an export by a
//! new process that keeps nothing; and not all is exported again for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use pyrightd::proto::diff_snapshots_response::Result as Differs;
use pyrightd::proto::export_files_response::Result as Message;
use pyrightd::proto::get_snapshot_response::Result as Got;
use pyrightd::proto::snapshot_ref::Ref;
use pyrightd::proto::snapshot_service_client::SnapshotServiceClient;
use pyrightd::proto::update_snapshot_response::Result as Updated;
use pyrightd::proto::{
    DeltaStats, Detail, DiffSnapshotsRequest, ExportFilesRequest, ExportOptions, FileExport, GetSnapshotRequest,
    Outcome, Selector, SnapshotRef, TypeChange, UpdateScope, UpdateSnapshotRequest, UpdateSummary,
};
use pyrightd::workspace::tree::{Place, Tree};
use tonic::transport::Channel;

use crate::harness::{Project, Server, eventually, is_batch, package, select, text};

pub(crate) type Files = BTreeMap<String, FileExport>;

/// All that can be told beside types, which depends on more than those.
const ALL: &[Detail] = &[Detail::Hover, Detail::Documentation, Detail::Definitions];
/// What is told of types alone.
const TYPES: &[Detail] = &[Detail::Hover];

fn options(details: &[Detail]) -> Option<ExportOptions> {
    let details = details.iter().map(|&detail| detail.into()).collect();
    Some(ExportOptions { details, ..ExportOptions::default() })
}

/// A file without what is another each time.
pub(crate) fn plain(file: FileExport) -> (String, FileExport) {
    (file.path.clone(), FileExport { cached: false, elapsed: None, engine_elapsed: None, ..file })
}

/// All files of a project, by path, and how many of them were kept.
async fn told(server: &Server, root: &Path, details: &[Detail]) -> (Files, usize) {
    let request = ExportFilesRequest {
        project_root: text(root),
        default_selector: Selector::Names.into(),
        options: options(details),
        ..ExportFilesRequest::default()
    };
    let files = server.files(request).await.unwrap().into_iter().filter_map(|message| match message {
        Message::File(file) => Some(file),
        _ => None,
    });
    let files: Vec<FileExport> = files.collect();
    let cached = files.iter().filter(|file| file.cached).count();
    (files.into_iter().map(plain).collect(), cached)
}

/// Brings the project's snapshot up to date, and tells which files were exported again.
async fn update(server: &Server, root: &Path, scope: UpdateScope, details: &[Detail]) -> (UpdateSummary, Files) {
    let request = UpdateSnapshotRequest {
        project_root: text(root),
        project_id: "flask".into(),
        selector: Selector::Names.into(),
        scope: scope.into(),
        options: options(details),
        ..UpdateSnapshotRequest::default()
    };
    let mut stream = snapshots(server).await.update_snapshot(request).await.unwrap().into_inner();
    let mut files = Vec::new();
    loop {
        match stream.message().await.unwrap().unwrap().result.unwrap() {
            Updated::File(file) => files.push(plain(file)),
            Updated::Summary(summary) => return (summary, files.into_iter().collect()),
        }
    }
}

/// A snapshot's files.
pub(crate) async fn recorded(server: &Server, id: &str) -> Files {
    let snapshot = Some(SnapshotRef { r#ref: Some(Ref::SnapshotId(id.into())) });
    let request = GetSnapshotRequest { snapshot, paths: Vec::new() };
    let mut stream = snapshots(server).await.get_snapshot(request).await.unwrap().into_inner();
    let mut files = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        match message.result.unwrap() {
            Got::File(file) => files.push(plain(file)),
            Got::Snapshot(_) => {}
        }
    }
    files.into_iter().collect()
}

/// What differs from one snapshot to another, and how much.
async fn differences(server: &Server, from: &str, to: &str) -> (Vec<TypeChange>, DeltaStats) {
    let snapshot = |id: &str| Some(SnapshotRef { r#ref: Some(Ref::SnapshotId(id.into())) });
    let request = DiffSnapshotsRequest { from: snapshot(from), to: snapshot(to) };
    let mut stream = snapshots(server).await.diff_snapshots(request).await.unwrap().into_inner();
    let mut changes = Vec::new();
    loop {
        match stream.message().await.unwrap().unwrap().result.unwrap() {
            Differs::Change(change) => changes.push(change),
            Differs::Stats(stats) => return (changes, stats),
        }
    }
}

/// How often each type stands in each file.
type Counts = BTreeMap<(String, String, i32, String), i64>;

fn counts(files: &Files) -> Counts {
    let mut counts = Counts::new();
    for (path, file) in files {
        for inferred in file.types.iter().filter(|inferred| inferred.outcome() == Outcome::Typed) {
            *counts
                .entry((path.clone(), inferred.name.clone(), inferred.kind, inferred.r#type.clone()))
                .or_default() += 1;
        }
    }
    counts
}

fn apply(changes: &[TypeChange], counts: &mut Counts) {
    for change in changes {
        for (inferred, by) in [(&change.before, -1), (&change.after, 1)] {
            let Some(inferred) = inferred else { continue };
            let key = (change.path.clone(), inferred.name.clone(), inferred.kind, inferred.r#type.clone());
            *counts.entry(key).or_default() += by;
        }
    }
    counts.retain(|_, count| *count != 0);
}

pub(crate) async fn snapshots(server: &Server) -> SnapshotServiceClient<Channel> {
    SnapshotServiceClient::new(server.channel().await).max_decoding_message_size(usize::MAX)
}

#[track_caller]
fn assert_same(told: &Files, expected: &Files, after: &str) {
    assert!(told.keys().eq(expected.keys()), "{after}");
    for (path, file) in told {
        for (told, expected) in file.types.iter().zip(&expected[path].types) {
            assert_eq!(told, expected, "{path} after {after}");
        }
        assert_eq!(file, &expected[path], "{path} after {after}");
    }
}

/// Copies a package's sources.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn append(root: &Path, file: &str, text: &str) {
    let path = root.join(file);
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::write(path, old + text).unwrap();
}

fn replace(root: &Path, file: &str, from: &str, to: &str) {
    let path = root.join(file);
    let old = std::fs::read_to_string(&path).unwrap();
    assert!(old.contains(from), "{file} has no {from}");
    std::fs::write(path, old.replacen(from, to, 1)).unwrap();
}

/// An edit, and whether it leaves the results of some files as they were.
type Edit = (&'static str, fn(&Path), bool);

const EDITS: [Edit; 24] = [
    ("nothing", |_| (), true),
    ("a comment in a leaf", |root| append(root, "flask/views.py", "# more\n"), true),
    ("a body in a leaf", |root| append(root, "flask/__main__.py", "extra = [1, 'x']\n"), true),
    ("a touch", |root| replace(root, "flask/views.py", "# more\n", "# more\n"), true),
    (
        "a signature that many use",
        |root| replace(root, "flask/helpers.py", "def get_debug_flag() -> bool:", "def get_debug_flag() -> int:"),
        true,
    ),
    (
        "a new module that nobody imports",
        |root| append(root, "flask/fresh.py", "from .app import Flask\nmade = Flask\n"),
        true,
    ),
    (
        "an import of a folder without sources",
        |root| {
            append(root, "flask/fresh.py", "import bare\nfolder = bare\n");
            std::fs::create_dir_all(root.join("bare/__pycache__")).unwrap();
        },
        true,
    ),
    ("no such folder", |root| std::fs::remove_dir_all(root.join("bare")).unwrap(), true),
    ("a circle of imports", |root| append(root, "flask/globals.py", "from .fresh import made\nagain = made\n"), true),
    (
        "a renamed module",
        |root| std::fs::rename(root.join("flask/fresh.py"), root.join("flask/other.py")).unwrap(),
        true,
    ),
    (
        "the end of the circle",
        |root| replace(root, "flask/globals.py", "from .fresh import made\nagain = made\n", ""),
        true,
    ),
    ("a stub beside a source", |root| append(root, "flask/signals.pyi", "template_rendered: int\n"), true),
    ("another stub", |root| append(root, "flask/signals.pyi", "request_started: str\n"), true),
    ("no stub", |root| std::fs::remove_file(root.join("flask/signals.pyi")).unwrap(), true),
    (
        "a module in place of one of the standard library's",
        |root| append(root, "logging.py", "def getLogger(name: int) -> int: ...\n"),
        false,
    ),
    ("another such module", |root| append(root, "logging.py", "Logger = int\n"), false),
    ("no such module", |root| std::fs::remove_file(root.join("logging.py")).unwrap(), false),
    (
        "a package without its first file",
        |root| std::fs::rename(root.join("flask/json/__init__.py"), root.join("flask/json/first.py")).unwrap(),
        true,
    ),
    (
        "a package again",
        |root| std::fs::rename(root.join("flask/json/first.py"), root.join("flask/json/__init__.py")).unwrap(),
        true,
    ),
    (
        "a moved module",
        |root| std::fs::rename(root.join("flask/sansio/scaffold.py"), root.join("flask/scaffold.py")).unwrap(),
        true,
    ),
    ("a configuration", |root| append(root, "pyrightconfig.json", "{ \"pythonVersion\": \"3.9\" }\n"), false),
    (
        "an installed package",
        |root| {
            let site = root.join(".venv/lib/python3.12/site-packages/werkzeug");
            std::fs::create_dir_all(&site).unwrap();
            std::fs::write(root.join(".venv/pyvenv.cfg"), "version = 3.12.4\n").unwrap();
            copy(&package("werkzeug").join("werkzeug"), &site);
        },
        false,
    ),
    (
        "an edited package",
        |root| append(root, ".venv/lib/python3.12/site-packages/werkzeug/utils.py", "def redirect() -> int: ...\n"),
        true,
    ),
    (
        "another branch",
        |root| {
            std::fs::remove_dir_all(root.join("flask")).unwrap();
            std::fs::remove_file(root.join("pyrightconfig.json")).unwrap();
            std::fs::remove_dir_all(root.join(".venv")).unwrap();
            std::fs::create_dir(root.join("flask")).unwrap();
            copy(&package("flask").join("flask"), &root.join("flask"));
        },
        false,
    ),
];

/// A project whose snapshot follows its edits.
struct Followed {
    root: PathBuf,
    allowed: PathBuf,
    details: &'static [Detail],
    server: Server,
    /// The latest snapshot.
    last: String,
    /// What that tells, by its base and all deltas since.
    types: Counts,
}

/// How many files were exported again, and how many there are.
struct Share {
    again: usize,
    all: usize,
}

impl Followed {
    /// A project with a snapshot, by a server that keeps everything in this folder, and the files as they are told.
    async fn begin(root: &Path, state: &Path, details: &'static [Detail]) -> (Self, Files) {
        Self::begin_below(root, root, state, details).await
    }

    /// With a folder above the project allowed.
    async fn begin_below(allowed: &Path, root: &Path, state: &Path, details: &'static [Detail]) -> (Self, Files) {
        // Nothing is kept in memory, so that all depends on the store.
        let server = Server::start_with(&[allowed], &["--state-dir", state.to_str().unwrap(), "--max-kept", "0"]);
        let first = eventually("all files to be kept", async || {
            let (first, cached) = told(&server, root, details).await;
            (cached == first.len()).then_some(first)
        })
        .await;
        let (base, exported) = update(&server, root, UpdateScope::Dependents, details).await;
        assert_eq!(base.base_snapshot_id, "");
        assert_same(&exported, &first, "the first update");
        let last = base.snapshot.unwrap().snapshot_id;
        let types = counts(&recorded(&server, &last).await);
        (Self { root: root.to_owned(), allowed: allowed.to_owned(), details, server, last, types }, first)
    }

    /// Brings the snapshot up to date, and compares all that is told with what a new process tells.
    async fn follow(&mut self, after: &str) -> Share {
        let Self { root, allowed, details, server, .. } = self;
        let fresh = Server::start_with(&[&*allowed], &["--store", "none"]);
        let (expected, _) = told(&fresh, root, details).await;
        let (summary, exported) = update(server, root, UpdateScope::Dependents, details).await;
        let snapshot = summary.snapshot.unwrap();
        assert_same(&recorded(server, &snapshot.snapshot_id).await, &expected, after);
        assert_same(&told(server, root, details).await.0, &expected, after);

        let again = summary.changed_files.len() + summary.dependent_files.len();
        assert_eq!(again, exported.len(), "{after}");
        assert!(exported.iter().all(|(path, file)| expected[path] == *file), "{after}");

        let (changes, stats) = differences(server, &self.last, &snapshot.snapshot_id).await;
        assert_eq!(summary.delta, Some(stats), "{after}");
        apply(&changes, &mut self.types);
        assert_eq!(self.types, counts(&expected), "{after}");
        self.last = snapshot.snapshot_id;
        Share { again, all: expected.len() }
    }
}

fn flask(project: &Project) -> PathBuf {
    let root = project.root();
    std::fs::create_dir(root.join("flask")).unwrap();
    copy(&package("flask").join("flask"), &root.join("flask"));
    root
}

#[tokio::test]
async fn after_any_edit_an_export_is_that_of_a_new_process() {
    if !is_batch() {
        return;
    }
    let project = Project::new(&[]);
    let root = flask(&project);
    let state = tempfile::tempdir().unwrap();
    let (mut followed, first) = Followed::begin(&root, state.path(), ALL).await;
    let mut some = 0;
    for (after, edit, spares) in EDITS {
        edit(&root);
        let Share { again, all } = followed.follow(after).await;
        if matches!(after, "nothing" | "a touch") {
            assert_eq!(again, 0, "{after}");
        }
        assert!(!spares || again < all, "all was exported again after {after}");
        some += usize::from(again > 0 && again < all);
    }
    assert!(some > 8, "after {some} edits alone, some files were exported and some were not");

    // Of changed files alone, what depends on them stays as it was.
    replace(&root, "flask/helpers.py", "def get_debug_flag() -> bool:", "def get_debug_flag() -> bytes:");
    let (summary, exported) = update(&followed.server, &root, UpdateScope::ChangedOnly, ALL).await;
    assert_eq!((summary.changed_files, summary.dependent_files.len()), (vec!["flask/helpers.py".into()], 0));
    assert_eq!(exported.len(), 1);
    replace(&root, "flask/helpers.py", "def get_debug_flag() -> bytes:", "def get_debug_flag() -> bool:");

    // Elsewhere, and in a new process, the same project needs no engine.
    let elsewhere = Project::new(&[]);
    let other = flask(&elsewhere);
    let server = Server::start_with(&[&other], &["--state-dir", state.path().to_str().unwrap()]);
    let (again, cached) = told(&server, &other, ALL).await;
    assert_eq!(cached, again.len());
    assert!(server.list().await.is_empty(), "an engine was started");
    assert_same(&again, &first, "a restart elsewhere");
    assert!(server.file(&other, select("flask/views.py", Selector::Names)).await.unwrap().cached);
}

#[tokio::test]
async fn what_links_to_folders_lead_to_is_followed() {
    if !is_batch() {
        return;
    }
    let project = Project::new(&[
        ("inner/a.py", "made = 1\n"),
        ("main.py", "from link.a import made\nfrom link.later import other\nseen = (made, other)\n"),
    ]);
    let (root, state) = (project.root(), tempfile::tempdir().unwrap());
    let (mut followed, _) = Followed::begin(&root, state.path(), ALL).await;
    std::os::unix::fs::symlink(root.join("inner"), root.join("link")).unwrap();
    assert!(followed.follow("a link to a folder").await.again > 0);
    project.write("inner/later.py", "other = 'x'\n");
    assert!(followed.follow("a module behind it").await.again > 0);
    project.write("inner/a.py", "made = 1.5\n");
    assert!(followed.follow("an edit behind it").await.again > 0);
    std::fs::remove_file(root.join("link")).unwrap();
    assert!(followed.follow("no link").await.again > 0);
}

/// Projects beside each other, one of which imports from a folder that another's configuration names.
fn shelves() -> Project {
    Project::new(&[
        ("base.json", "{ \"extraPaths\": [\"shared\"], \"pythonVersion\": \"3.12\" }"),
        ("shared/part.py", "def make() -> int: ...\n"),
        ("app/pyrightconfig.json", "{ \"extends\": \"../base.json\" }"),
        ("app/main.py", "from part import make\nseen = make()\n"),
        ("app/later.py", "import late\nfound = late.made\n"),
        ("app/alone.py", "import sys\nnew = 1 if sys.version_info >= (3, 10) else 'x'\n"),
    ])
}

#[tokio::test]
async fn what_a_configuration_names_beside_the_project_is_followed() {
    if !is_batch() {
        return;
    }
    let (project, state) = (shelves(), tempfile::tempdir().unwrap());
    let (top, root) = (project.root(), project.root().join("app"));
    let (mut followed, _) = Followed::begin_below(&top, &root, state.path(), ALL).await;
    project.write("shared/part.py", "def make() -> str: ...\n");
    assert_eq!(followed.follow("an edit in the named folder").await.again, 1);
    std::fs::create_dir(top.join("shared/late")).unwrap();
    assert_eq!(followed.follow("a folder without sources in it").await.again, 1);
    project.write("shared/late.py", "made = 1\n");
    assert_eq!(followed.follow("a module in it").await.again, 1);
    project.write("shared/unused.py", "made = 1\n");
    assert_eq!(followed.follow("a module that nobody imports").await.again, 0);
    project.write("base.json", "{ \"extraPaths\": [\"shared\"], \"pythonVersion\": \"3.9\" }");
    assert_eq!(followed.follow("an edit of what is extended").await.again, 3);
    project.write("base.json", "{ \"extraPaths\": [\"other\"], \"pythonVersion\": \"3.9\" }");
    assert_eq!(followed.follow("a folder that is not there").await.again, 3);
    project.write("other/late.py", "made = b'x'\n");
    followed.follow("a folder that came").await;

    // Where the named folder is not allowed, nothing is kept; where it is, no engine is needed, elsewhere and in a new process.
    let elsewhere = shelves();
    let other = elsewhere.root().join("app");
    let flags = ["--state-dir", state.path().to_str().unwrap(), "--max-kept", "0"];
    let narrow = Server::start_with(&[&other], &flags);
    let (expected, _) = told(&narrow, &other, ALL).await;
    assert_eq!(told(&narrow, &other, ALL).await.1, 0);
    let server = Server::start_with(&[&elsewhere.root()], &flags);
    let (again, cached) = told(&server, &other, ALL).await;
    assert_eq!(cached, again.len());
    assert!(server.list().await.is_empty(), "an engine was started");
    assert_same(&again, &expected, "a restart elsewhere");
}

/// What is done to a project: which kind of edit, and by which of all files, places and texts.
#[derive(Clone, Copy, Debug)]
struct Step {
    kind: Kind,
    file: prop::sample::Index,
    other: prop::sample::Index,
    number: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Signature,
    Body,
    Comment,
    Touch,
    Add,
    Delete,
    Rename,
    Move,
    Stub,
    NoStub,
    Import,
    NoImport,
    Branch,
}

/// A line that a step adds, and another takes away.
const IMPORT: &str = "  # of a step\n";

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use Kind::{Add, Body, Branch, Comment, Delete, Import, Move, NoImport, NoStub, Rename, Signature, Stub, Touch};
    let kind = prop::sample::select(vec![
        Signature, Signature, Body, Comment, Touch, Add, Delete, Rename, Move, Stub, Stub, NoStub, Import, Import,
        NoImport, Branch,
    ]);
    let step = (kind, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u16>());
    prop::collection::vec(step.prop_map(|(kind, file, other, number)| Step { kind, file, other, number }), 12)
}

impl Step {
    /// Does it, and tells what it was; none where there is nothing to do it to. `branch` is what else is checked out.
    fn apply(self, root: &Path, branch: &Path) -> Option<String> {
        let tree = Tree::scan(vec![Place { folder: root.to_owned(), packages: false }]);
        let files: Vec<&Path> = tree.sources().collect();
        let chosen = |index: prop::sample::Index, is_wanted: &dyn Fn(&str) -> bool| {
            let wanted = files.iter().filter(|file| is_wanted(file.to_str().unwrap())).collect::<Vec<_>>();
            (!wanted.is_empty()).then(|| index.get(&wanted).to_path_buf())
        };
        let is_module = |file: &str| file.ends_with(".py") && !file.ends_with("/__init__.py");
        let name = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let module = |path: &Path| {
            let module = path.strip_prefix(root).unwrap().with_extension("");
            let parts: Vec<&str> = module.iter().map(|part| part.to_str().unwrap()).collect();
            parts.join(".").trim_end_matches(".__init__").to_owned()
        };
        let Self { kind, number, .. } = self;
        let types = ["int", "str", "'list[bytes]'", "'dict[str, None]'"];
        let kind_of_value = types[usize::from(number) % types.len()];
        let told = match kind {
            Kind::Signature | Kind::Body | Kind::Comment => {
                let file = chosen(self.file, &|file| file.ends_with(".py"))?;
                let mut lines: Vec<String> = read(&file).lines().map(str::to_owned).collect();
                let is_signature = |line: &str| line.trim_start().starts_with("def ") && line.ends_with("):");
                let is_typed = |line: &str| line.trim_start().starts_with("def ") && line.contains(") -> ");
                let places: Vec<usize> = (0..lines.len())
                    .filter(|&at| is_signature(&lines[at]) || is_typed(&lines[at]) && lines[at].ends_with(':'))
                    .collect();
                if kind == Kind::Comment {
                    lines.insert(0, format!("# comment {number}"));
                } else {
                    let at = *(!places.is_empty()).then(|| self.other.get(&places))?;
                    let line = lines[at].clone();
                    if kind == Kind::Signature {
                        let head = line.split_once(") -> ").map_or(&line[..line.len() - 2], |(head, _)| head);
                        lines[at] = format!("{head}) -> {kind_of_value}:");
                    } else {
                        let indent = line.len() - line.trim_start().len() + 4;
                        lines.insert(at + 1, format!("{:indent$}inner_{number} = [{number}]", ""));
                    }
                }
                std::fs::write(&file, lines.join("\n") + "\n").unwrap();
                name(&file)
            }
            Kind::Touch => {
                let file = chosen(self.file, &|_| true)?;
                std::fs::write(&file, read(&file)).unwrap();
                name(&file)
            }
            Kind::Add => {
                let other = chosen(self.other, &|file| file.ends_with(".py"))?;
                let file = root.join(format!("flask/added{number}.py"));
                let text = format!("from {} import *\n\ndef added() -> {kind_of_value}: ...\n", module(&other));
                std::fs::write(&file, text).unwrap();
                format!("{}, which imports {}", name(&file), name(&other))
            }
            Kind::Delete => {
                let file = chosen(self.file, &is_module)?;
                std::fs::remove_file(&file).unwrap();
                name(&file)
            }
            Kind::Rename | Kind::Move => {
                let file = chosen(self.file, &is_module)?;
                let to = match kind {
                    Kind::Rename => file.with_file_name(format!("renamed{number}.py")),
                    // Into a package, out of one, or into a folder that is none.
                    _ => root
                        .join(["flask/json", "flask", "flask/apart"][usize::from(number) % 3])
                        .join(file.file_name()?),
                };
                std::fs::create_dir_all(to.parent()?).unwrap();
                std::fs::rename(&file, &to).unwrap();
                format!("{} to {}", name(&file), name(&to))
            }
            Kind::Stub => {
                let file = chosen(self.file, &|file| file.ends_with(".py"))?.with_extension("pyi");
                let text = format!(
                    "from typing import Any\ndef __getattr__(name: str) -> Any: ...\nfrom_stub: {kind_of_value}\n"
                );
                std::fs::write(&file, text).unwrap();
                name(&file)
            }
            Kind::NoStub => {
                let file = chosen(self.file, &|file| file.ends_with(".pyi"))?;
                std::fs::remove_file(&file).unwrap();
                name(&file)
            }
            Kind::Import => {
                let (file, other) = (chosen(self.file, &|file| file.ends_with(".py"))?, chosen(self.other, &|_| true)?);
                let text = format!("{}from {} import *{IMPORT}", read(&file), module(&other));
                std::fs::write(&file, text).unwrap();
                format!("of {} by {}", name(&other), name(&file))
            }
            Kind::NoImport => {
                let file = chosen(self.file, &|file| read(Path::new(file)).ends_with(IMPORT))?;
                let text = read(&file);
                let kept = text.trim_end_matches(IMPORT).rfind('\n').map_or(0, |end| end + 1);
                std::fs::write(&file, &text[..kept]).unwrap();
                name(&file)
            }
            Kind::Branch => {
                let aside = branch.with_extension("aside");
                std::fs::rename(root.join("flask"), &aside).unwrap();
                std::fs::rename(branch, root.join("flask")).unwrap();
                std::fs::rename(aside, branch).unwrap();
                "another".into()
            }
        };
        Some(format!("{kind:?}: {told}"))
    }
}

/// Each sequence can be had again by its number: `PYRIGHTD_TEST_SEED` asks for another one.
#[tokio::test]
async fn after_random_edits_an_update_is_an_export_by_a_new_process() {
    if !is_batch() {
        return;
    }
    #[expect(clippy::disallowed_methods, reason = "no setting of the program, but of this test")]
    let seed = std::env::var("PYRIGHTD_TEST_SEED").map_or(1, |seed| seed.parse::<u64>().unwrap());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let steps = steps().new_tree(&mut runner).unwrap().current();

    let project = Project::new(&[]);
    let root = flask(&project);
    let (aside, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Another branch begins as the same.
    let branch = aside.path().join("branch");
    std::fs::create_dir(&branch).unwrap();
    copy(&root.join("flask"), &branch);
    let (mut followed, _) =
        Followed::begin(&root, state.path(), if seed.is_multiple_of(2) { ALL } else { TYPES }).await;
    let (mut sum, mut done) = (Share { again: 0, all: 0 }, Vec::new());
    for step in steps {
        let Some(told) = step.apply(&root, &branch) else { continue };
        done.push(told);
        let after = format!("seed {seed}: {}", done.join("; "));
        let Share { again, all } = followed.follow(&after).await;
        if matches!(step.kind, Kind::Touch) {
            assert_eq!(again, 0, "{after}");
        }
        sum = Share { again: sum.again + again, all: sum.all + all };
    }
    assert!(done.len() > 5, "{done:?}");
    assert!(sum.again * 10 < sum.all * 9, "{} of {} files were exported again: {done:?}", sum.again, sum.all);
}
