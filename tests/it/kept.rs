//! What is kept is told again, and never where anything that it depends on is another: exports that begin from what is
//! kept, and snapshots that are brought up to date, equal an export by a new process that keeps nothing.

use std::collections::BTreeMap;
use std::path::Path;

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
use tonic::Code;
use tonic::transport::Channel;

use crate::harness::{Project, Server, eventually, is_batch, package, select, text, type_of};

type Files = BTreeMap<String, FileExport>;

fn options() -> Option<ExportOptions> {
    let details = vec![Detail::Hover.into(), Detail::Documentation.into(), Detail::Definitions.into()];
    Some(ExportOptions { details, ..ExportOptions::default() })
}

/// A file without what is another each time.
fn plain(file: FileExport) -> (String, FileExport) {
    (file.path.clone(), FileExport { cached: false, elapsed: None, engine_elapsed: None, ..file })
}

/// All files of a project, by path, and how many of them were kept.
async fn told(server: &Server, root: &Path) -> (Files, usize) {
    let request = ExportFilesRequest {
        project_root: text(root),
        default_selector: Selector::Names.into(),
        options: options(),
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
async fn update(server: &Server, root: &Path, scope: UpdateScope) -> (UpdateSummary, Files) {
    let request = UpdateSnapshotRequest {
        project_root: text(root),
        project_id: "flask".into(),
        selector: Selector::Names.into(),
        scope: scope.into(),
        options: options(),
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
async fn recorded(server: &Server, id: &str) -> Files {
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

async fn snapshots(server: &Server) -> SnapshotServiceClient<Channel> {
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

const EDITS: [Edit; 22] = [
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

#[tokio::test]
async fn after_any_edit_an_export_is_that_of_a_new_process() {
    if !is_batch() {
        return;
    }
    let project = Project::new(&[]);
    let root = project.root();
    std::fs::create_dir(root.join("flask")).unwrap();
    copy(&package("flask").join("flask"), &root.join("flask"));
    let state = tempfile::tempdir().unwrap();
    let flags = ["--state-dir", state.path().to_str().unwrap()];
    // Nothing is kept in memory, so that all depends on the store.
    let server = Server::start_with(&[&root], &[&flags[..], &["--max-kept", "0"]].concat());
    let first = eventually("all files to be kept", async || {
        let (first, cached) = told(&server, &root).await;
        (cached == first.len()).then_some(first)
    })
    .await;
    let (base, exported) = update(&server, &root, UpdateScope::Dependents).await;
    assert_eq!(base.base_snapshot_id, "");
    assert_same(&exported, &first, "the first update");
    let mut last = base.snapshot.unwrap().snapshot_id;
    let mut types = counts(&recorded(&server, &last).await);
    let mut some = 0;
    for (after, edit, spares) in EDITS {
        edit(&root);
        let fresh = Server::start_with(&[&root], &["--store", "none"]);
        let (expected, _) = told(&fresh, &root).await;
        let (summary, exported) = update(&server, &root, UpdateScope::Dependents).await;
        let snapshot = summary.snapshot.unwrap();
        assert_same(&recorded(&server, &snapshot.snapshot_id).await, &expected, after);
        assert_same(&told(&server, &root).await.0, &expected, after);

        let again = summary.changed_files.len() + summary.dependent_files.len();
        assert_eq!(again, exported.len(), "{after}");
        assert!(exported.iter().all(|(path, file)| expected[path] == *file), "{after}");
        if matches!(after, "nothing" | "a touch") {
            assert_eq!(again, 0, "{after}");
        }
        assert!(!spares || again < expected.len(), "all was exported again after {after}");
        some += usize::from(again > 0 && again < expected.len());

        let (changes, stats) = differences(&server, &last, &snapshot.snapshot_id).await;
        assert_eq!(summary.delta, Some(stats), "{after}");
        apply(&changes, &mut types);
        assert_eq!(types, counts(&expected), "{after}");
        last = snapshot.snapshot_id;
    }
    assert!(some > 8, "after {some} edits alone, some files were exported and some were not");

    // Of changed files alone, what depends on them stays as it was.
    replace(&root, "flask/helpers.py", "def get_debug_flag() -> bool:", "def get_debug_flag() -> bytes:");
    let (summary, exported) = update(&server, &root, UpdateScope::ChangedOnly).await;
    assert_eq!((summary.changed_files, summary.dependent_files.len()), (vec!["flask/helpers.py".into()], 0));
    assert_eq!(exported.len(), 1);
    replace(&root, "flask/helpers.py", "def get_debug_flag() -> bytes:", "def get_debug_flag() -> bool:");

    // Elsewhere, and in a new process, the same project needs no engine.
    let elsewhere = Project::new(&[]);
    let other = elsewhere.root();
    std::fs::create_dir(other.join("flask")).unwrap();
    copy(&package("flask").join("flask"), &other.join("flask"));
    let server = Server::start_with(&[&other], &flags);
    let (again, cached) = told(&server, &other).await;
    assert_eq!(cached, again.len());
    assert!(server.list().await.is_empty(), "an engine was started");
    assert_same(&again, &first, "a restart elsewhere");
    assert!(server.file(&other, select("flask/views.py", Selector::Names)).await.unwrap().cached);
}

#[tokio::test]
async fn an_export_is_saved_as_a_snapshot_and_updates_begin_from_it() {
    let project = Project::new(&[("a.py", "number = 1\n"), ("b.py", "from a import number\nseen = [number]\n")]);
    let root = project.root();
    let server = Server::start(&[&root]);
    let request = ExportFilesRequest {
        project_root: text(&root),
        default_selector: Selector::Names.into(),
        save_as_project_id: "mine".into(),
        ..ExportFilesRequest::default()
    };
    let export = async || {
        let (mut files, mut summary) = (Vec::new(), None);
        for message in server.files(request.clone()).await.unwrap() {
            match message {
                Message::File(file) => files.push(plain(file)),
                Message::Summary(told) => summary = Some(told),
                Message::Progress(_) => {}
            }
        }
        (files.into_iter().collect::<Files>(), summary.unwrap())
    };
    let (files, summary) = export().await;
    assert_eq!(recorded(&server, &summary.snapshot_id).await, files);
    assert_eq!((files.len(), summary.files), (2, 2));
    project.write("a.py", "number = 'one'\n");
    let (files, newer) = export().await;
    assert_ne!(newer.snapshot_id, summary.snapshot_id);
    assert_eq!(recorded(&server, &newer.snapshot_id).await, files);
    assert_eq!(type_of(&files["b.py"], "seen"), "list[str]");

    // Two at once: one begins from what the other made, or each from the same; both are whole.
    project.write("a.py", "number = 1.5\n");
    let update = async || {
        let request = UpdateSnapshotRequest {
            project_root: text(&root),
            project_id: "mine".into(),
            selector: Selector::Names.into(),
            ..UpdateSnapshotRequest::default()
        };
        let mut stream = snapshots(&server).await.update_snapshot(request).await.unwrap().into_inner();
        loop {
            if let Updated::Summary(summary) = stream.message().await.unwrap().unwrap().result.unwrap() {
                return summary;
            }
        }
    };
    let (one, other) = tokio::join!(update(), update());
    let ids = [&one, &other].map(|summary| summary.snapshot.clone().unwrap().snapshot_id);
    assert_eq!(recorded(&server, &ids[0]).await, recorded(&server, &ids[1]).await);
    assert_eq!(type_of(&recorded(&server, &ids[0]).await["b.py"], "seen"), "list[float]");
    let bases = [&one, &other].map(|summary| summary.base_snapshot_id.clone());
    assert!(bases.contains(&newer.snapshot_id) && (bases.contains(&ids[0]) || bases.contains(&ids[1])), "{bases:?}");
}

#[tokio::test]
async fn updates_that_make_no_sense_are_turned_away() {
    let project = Project::new(&[("a.py", "number = 1\n")]);
    let root = project.root();
    let server = Server::start(&[&root]);
    let good = UpdateSnapshotRequest {
        project_root: text(&root),
        project_id: "mine".into(),
        selector: Selector::Names.into(),
        ..UpdateSnapshotRequest::default()
    };
    let cases = [
        (
            UpdateSnapshotRequest { project_root: "/nowhere".into(), ..good.clone() },
            Code::PermissionDenied,
            "project_root",
        ),
        (UpdateSnapshotRequest { project_id: String::new(), ..good.clone() }, Code::InvalidArgument, "project_id"),
        (UpdateSnapshotRequest { selector: 0, ..good.clone() }, Code::InvalidArgument, "selector"),
        (UpdateSnapshotRequest { scope: 9, ..good.clone() }, Code::InvalidArgument, "scope"),
        (UpdateSnapshotRequest { base_snapshot_id: "gone".into(), ..good.clone() }, Code::NotFound, "gone"),
    ];
    let status_of = async |server: &Server, request| match snapshots(server).await.update_snapshot(request).await {
        Ok(stream) => stream.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    };
    for (request, code, word) in cases {
        let status = status_of(&server, request).await;
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(word), "{status}");
    }
    let status = server
        .files(ExportFilesRequest {
            project_root: text(&root),
            files: vec![select("a.py", Selector::Names)],
            save_as_project_id: "mine".into(),
            ..ExportFilesRequest::default()
        })
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message().contains("save_as_project_id")),
        (Code::InvalidArgument, true),
        "{status}"
    );
    let keeps_nothing = Server::start_with(&[&root], &["--store", "none"]);
    assert_eq!(status_of(&keeps_nothing, good).await.code(), Code::FailedPrecondition);
}
