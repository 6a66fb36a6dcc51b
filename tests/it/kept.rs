//! Snapshots are saved by exports, and brought up to date.

use std::path::Path;
use std::process::Command;

use pyrightd::proto::export_files_response::Result as Message;
use pyrightd::proto::snapshot_ref::Ref;
use pyrightd::proto::update_snapshot_response::Result as Updated;
use pyrightd::proto::{
    Detail, ExportFilesRequest, ExportOptions, FileLocations, GetSnapshotRequest, Selector, SnapshotRef,
    UpdateSnapshotRequest, UpdateSummary,
};
use sha2::{Digest as _, Sha256};
use tonic::{Code, Status};

use crate::edits::{Files, plain, recorded, snapshots};
use crate::harness::postgres::Postgres;
use crate::harness::{Project, Server, at, is_batch, select, text, type_of};

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
    let (one, other) = tokio::join!(update(&server, &root), update(&server, &root));
    let (one, other) = (one.unwrap(), other.unwrap());
    let ids = [&one, &other].map(|summary| summary.snapshot.clone().unwrap().snapshot_id);
    assert_eq!(recorded(&server, &ids[0]).await, recorded(&server, &ids[1]).await);
    assert_eq!(type_of(&recorded(&server, &ids[0]).await["b.py"], "seen"), "list[float]");
    let bases = [&one, &other].map(|summary| summary.base_snapshot_id.clone());
    assert!(bases.contains(&newer.snapshot_id) && (bases.contains(&ids[0]) || bases.contains(&ids[1])), "{bases:?}");
}

#[tokio::test]
async fn comments_show_in_no_other_file_unless_definitions_are_told() {
    let base = "def named(value):\n    return [value]\n";
    let project = Project::new(&[("base.py", base), ("seen.py", "import base\nseen = base.named(1)\n")]);
    let root = project.root();
    let server = Server::start(&[&root]);
    let dependent = async |project_id: &str, details: &[Detail]| {
        let summary = update_with(&server, &root, project_id, details).await.unwrap();
        let files = recorded(&server, &summary.snapshot.as_ref().unwrap().snapshot_id).await;
        let fresh = Server::start(&[&root]);
        let again = update_with(&fresh, &root, project_id, details).await.unwrap();
        assert_eq!(recorded(&fresh, &again.snapshot.as_ref().unwrap().snapshot_id).await, files);
        summary.dependent_files
    };
    let both = async || (dependent("plain", &[]).await, dependent("defined", &[Detail::Definitions]).await);
    both().await;
    project.write("base.py", format!("# Why.\n\n{base}"));
    let told = both().await;
    project.write("base.py", base.replace("[value]", "(value, value)"));
    let (plain, _) = both().await;
    if is_batch() {
        assert_eq!(told, (Vec::new(), vec!["seen.py".to_owned()]));
        assert_eq!(plain, ["seen.py"]);
    }
}

#[tokio::test]
async fn documentation_follows_the_sources_of_stubs_and_types_do_not() {
    let project = Project::new(&[
        ("seen.py", "import pack\nfrom pack import named\nseen = named(pack.VALUE)\n"),
        ("apart.py", "apart = 1\n"),
        (".venv/pyvenv.cfg", "version = 3.12.4\n"),
        (".venv/lib/python3.12/site-packages/pack/__init__.pyi", "VALUE: int\ndef named(value: int) -> str: ...\n"),
        (".venv/lib/python3.12/site-packages/pack/__init__.py", "from ._own import named\nVALUE = 1\n"),
        (".venv/lib/python3.12/site-packages/pack/_own.py", "def named(value):\n    '''The first.'''\n"),
    ]);
    let root = project.root();
    let documented = async |server: &Server| {
        let summary = update_with(server, &root, "documented", &[Detail::Documentation]).await.unwrap();
        let files = recorded(server, &summary.snapshot.as_ref().unwrap().snapshot_id).await;
        let named = files["seen.py"].types.iter().find(|told| told.name == "named").unwrap();
        (named.documentation.clone(), files, summary)
    };
    let server = Server::start(&[&root]);
    let (first, ..) = documented(&server).await;
    assert_eq!(first, "The first.");
    update(&server, &root).await.unwrap();
    if is_batch() {
        for again in [update(&server, &root).await.unwrap(), documented(&server).await.2] {
            assert_eq!((again.changed_files, again.dependent_files), (vec![], vec![]));
        }
    }

    project.write(".venv/lib/python3.12/site-packages/pack/_own.py", "def named(value):\n    '''The second.'''\n");
    let (second, files, summary) = documented(&server).await;
    assert_eq!(second, "The second.");
    let fresh = Server::start(&[&root]);
    assert_eq!(documented(&fresh).await.1, files);
    if is_batch() {
        assert_eq!(summary.dependent_files, ["seen.py"]);
        assert_eq!(update(&server, &root).await.unwrap().dependent_files, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_list_of_files_is_saved_as_it_is_and_the_rest_follows() {
    let project = Project::new(&[
        ("a.py", "number = 1\n"),
        ("b.py", "from a import number\nseen = [number]\n"),
        ("c.py", "from b import seen\nfirst = seen[0]\n"),
        (".hidden/d.py", "aside = 'x'\n"),
    ]);
    let root = project.root();
    let server = Server::start(&[&root]);
    let export = async || {
        let request = ExportFilesRequest {
            project_root: text(&root),
            files: ["b.py", "gone.py", ".hidden/d.py", "../out.py"].map(|path| select(path, Selector::Names)).into(),
            save_as_project_id: "mine".into(),
            ..ExportFilesRequest::default()
        };
        let messages = server.files(request).await.unwrap();
        let snapshot = messages.iter().find_map(|message| match message {
            Message::Summary(summary) => Some(summary.snapshot_id.clone()),
            _ => None,
        });
        let files = messages.into_iter().filter_map(|message| match message {
            Message::File(file) => Some(plain(file)),
            _ => None,
        });
        (files.collect::<Files>(), snapshot.unwrap())
    };
    for round in ["int", "bytes"] {
        let (files, snapshot) = export().await;
        assert_eq!(files.keys().collect::<Vec<_>>(), ["../out.py", ".hidden/d.py", "b.py", "gone.py"]);
        assert_eq!(type_of(&files["b.py"], "seen"), format!("list[{round}]"));
        assert_eq!(type_of(&files[".hidden/d.py"], "aside"), "Literal['x']");
        let failed = |path: &str| files[path].error.is_some();
        assert!(failed("gone.py") && failed("../out.py") && !failed("b.py"));
        let kept = recorded(&server, &snapshot).await;
        assert_eq!(kept["b.py"], files["b.py"]);
        assert!(kept["gone.py"].error.is_some() && kept.len() == 4, "{kept:?}");
        project.write("a.py", "number = b'x'\n");
    }
    let summary = update(&server, &root).await.unwrap();
    assert_eq!(summary.changed_files, ["a.py", "c.py"]);
    // By hovers, all that is told can depend on what was asked before.
    assert_eq!(summary.dependent_files.is_empty(), is_batch());
    assert_eq!(summary.deleted_files, ["../out.py", ".hidden/d.py", "gone.py"]);
}

/// Brings the snapshot of `mine` up to date.
async fn update(server: &Server, root: &Path) -> Result<UpdateSummary, Status> {
    update_with(server, root, "mine", &[]).await
}

async fn update_with(
    server: &Server,
    root: &Path,
    project_id: &str,
    details: &[Detail],
) -> Result<UpdateSummary, Status> {
    let details = details.iter().map(|&detail| detail.into()).collect();
    let request = UpdateSnapshotRequest {
        project_root: text(root),
        project_id: project_id.into(),
        selector: Selector::Names.into(),
        options: Some(ExportOptions { details, ..ExportOptions::default() }),
        ..UpdateSnapshotRequest::default()
    };
    let mut stream = snapshots(server).await.update_snapshot(request).await?.into_inner();
    loop {
        if let Updated::Summary(summary) = stream.message().await?.unwrap().result.unwrap() {
            return Ok(summary);
        }
    }
}

/// Whether exports go on, of a file that nobody asked about before.
async fn exports(server: &Server, project: &Project, name: &str) {
    project.write(name, "answer = [1.5]\n");
    let file = server.file(&project.root(), select(name, Selector::Names)).await.unwrap();
    assert_eq!(type_of(&file, "answer"), "list[float]");
}

#[tokio::test]
async fn on_a_full_disk_updates_fail_and_nothing_that_was_saved_is_lost() {
    let project = Project::new(&[("a.py", "number = 1\n")]);
    let root = project.root();
    // In kilobytes. Ignored, the signal at a file's limit of size leaves the write to fail.
    let inner = Server::command(&[&root], &[]);
    let mut command = Command::new("bash");
    command.args(["-c", "trap '' XFSZ; ulimit -f 400; exec \"$@\"", "bash"]).arg(inner.get_program());
    command.args(inner.get_args());
    let server = Server::from_command(command);
    let saved = update(&server, &root).await.unwrap().snapshot.unwrap().snapshot_id;
    let before = recorded(&server, &saved).await;

    // Such text does not compress.
    let names = (0..20_000_u64).map(|number| format!("{:x} = 1\n", Sha256::digest(number.to_le_bytes())));
    project.write("large.py", names.map(|line| format!("x{line}")).collect::<String>());
    let status = update(&server, &root).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    exports(&server, &project, "b.py").await;
    assert_eq!(recorded(&server, &saved).await, before);
    std::fs::remove_file(root.join("large.py")).unwrap();
    assert_eq!(update(&server, &root).await.unwrap().changed_files, ["b.py"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_share_a_database_and_exports_go_on_without_it() {
    if !is_batch() {
        return;
    }
    let mut postgres = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let url = postgres.new_database().await;
    let files = [("a.py", "number = 1\n"), ("b.py", "from a import number\nseen = [number]\n")];
    let (project, elsewhere) = (Project::new(&files), Project::new(&files));
    let (root, other) = (project.root(), elsewhere.root());
    let one = Server::start_with(&[&root], &["--store", &url]);
    let two = Server::start_with(&[&other], &["--store", &url]);
    let first = update(&one, &root).await.unwrap();
    let second = update(&two, &other).await.unwrap();
    assert_eq!((first.changed_files.len(), second.changed_files.len()), (2, 0));
    assert_eq!(second.base_snapshot_id, first.snapshot.unwrap().snapshot_id);
    assert!(two.list().await.is_empty(), "an engine was started for what the other had told");
    let saved = second.snapshot.unwrap().snapshot_id;
    let before = recorded(&one, &saved).await;

    tokio::task::block_in_place(|| postgres.stop());
    exports(&one, &project, "c.py").await;
    assert_eq!(update(&one, &root).await.unwrap_err().code(), Code::Unavailable);
    let snapshot = Some(SnapshotRef { r#ref: Some(Ref::SnapshotId(saved.clone())) });
    let reading = snapshots(&one).await.get_snapshot(GetSnapshotRequest { snapshot, paths: Vec::new() }).await;
    let status = match reading {
        Ok(stream) => stream.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    tokio::task::block_in_place(|| postgres.resume());
    assert_eq!(recorded(&one, &saved).await, before);
    assert_eq!(update(&one, &root).await.unwrap().changed_files, ["c.py"]);
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
    let named = select("a.py", Selector::Names);
    let expected = FileLocations { expected_sha256: "0".repeat(64), ..named.clone() };
    let overlay = FileLocations { content: Some(String::new()), ..named.clone() };
    let none = FileLocations { selector: 0, ..named.clone() };
    for (files, word) in [
        (vec![at("a.py", &[(0, 0)])], "files[0].locations"),
        (vec![named.clone(), overlay], "files[1].content"),
        (vec![expected], "files[0].expected_sha256"),
        (vec![named.clone(), named.clone()], "files[1].path"),
        (vec![named, select("b.py", Selector::Declarations)], "save_as_project_id"),
        (vec![none], "default_selector"),
    ] {
        let project_root = text(&root);
        let save_as_project_id = "mine".into();
        let request = ExportFilesRequest { project_root, files, save_as_project_id, ..ExportFilesRequest::default() };
        let status = server.files(request).await.unwrap_err();
        assert_eq!((status.code(), status.message().contains(word)), (Code::InvalidArgument, true), "{status}");
    }
    let keeps_nothing = Server::start_with(&[&root], &["--store", "none"]);
    assert_eq!(status_of(&keeps_nothing, good).await.code(), Code::FailedPrecondition);
}
