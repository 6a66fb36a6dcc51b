//! What is kept is told again, and never where anything that it depends on is another: an export that begins from what
//! is kept equals one by a new process that keeps nothing.

use std::collections::BTreeMap;
use std::path::Path;

use pyrightd::proto::export_files_response::Result as Message;
use pyrightd::proto::{Detail, ExportFilesRequest, ExportOptions, FileExport, Selector};

use crate::harness::{Project, Server, eventually, is_batch, package, select, text, type_of};

/// All files of a project, by path, and how many of them were kept.
async fn told(server: &Server, root: &Path) -> (BTreeMap<String, FileExport>, usize) {
    let details = vec![Detail::Hover.into(), Detail::Documentation.into(), Detail::Definitions.into()];
    let request = ExportFilesRequest {
        project_root: text(root),
        default_selector: Selector::Names.into(),
        options: Some(ExportOptions { details, ..ExportOptions::default() }),
        ..ExportFilesRequest::default()
    };
    let files = server.files(request).await.unwrap().into_iter().filter_map(|message| match message {
        Message::File(file) => Some(file),
        _ => None,
    });
    let files: Vec<FileExport> = files.collect();
    let cached = files.iter().filter(|file| file.cached).count();
    let plain = files.into_iter().map(|file| {
        let path = file.path.clone();
        (path, FileExport { cached: false, elapsed: None, engine_elapsed: None, ..file })
    });
    (plain.collect(), cached)
}

#[track_caller]
fn assert_same(told: &BTreeMap<String, FileExport>, expected: &BTreeMap<String, FileExport>, after: &str) {
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
    ("no such module", |root| std::fs::remove_file(root.join("logging.py")).unwrap(), true),
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
        true,
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
    let mut some = 0;
    for (after, edit, spares) in EDITS {
        edit(&root);
        let fresh = Server::start_with(&[&root], &["--store", "none"]);
        let (expected, _) = told(&fresh, &root).await;
        let (again, cached) = told(&server, &root).await;
        assert_same(&again, &expected, after);
        if after == "nothing" || after == "a touch" {
            assert_eq!(cached, expected.len(), "{after}");
        }
        assert!(!spares || cached > 0, "all was exported again after {after}");
        some += usize::from(cached > 0 && cached < expected.len());
        // Another process with the same store tells the same, without an engine where all is kept by now.
        let all = eventually("all files to be kept", async || {
            let (all, cached) = told(&server, &root).await;
            (cached == all.len()).then_some(all)
        })
        .await;
        assert_same(&all, &expected, after);
    }
    assert!(some > 8, "after {some} edits alone, some files were exported and some were not");

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
    let file = server.file(&other, select("flask/views.py", Selector::Names)).await.unwrap();
    assert!(!type_of(&file, "View").is_empty());
}
