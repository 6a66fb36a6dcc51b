//! Snapshots are saved by exports, and brought up to date.

use pyrightd::proto::export_files_response::Result as Message;
use pyrightd::proto::update_snapshot_response::Result as Updated;
use pyrightd::proto::{ExportFilesRequest, FileLocations, Selector, UpdateSnapshotRequest};
use tonic::Code;

use crate::edits::{Files, plain, recorded, snapshots};
use crate::harness::{Project, Server, at, select, text, type_of};

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
    let update = UpdateSnapshotRequest {
        project_root: text(&root),
        project_id: "mine".into(),
        selector: Selector::Names.into(),
        ..UpdateSnapshotRequest::default()
    };
    let mut stream = snapshots(&server).await.update_snapshot(update).await.unwrap().into_inner();
    let summary = loop {
        if let Updated::Summary(summary) = stream.message().await.unwrap().unwrap().result.unwrap() {
            break summary;
        }
    };
    assert_eq!((summary.changed_files, summary.dependent_files), (vec!["a.py".into(), "c.py".into()], vec![]));
    assert_eq!(summary.deleted_files, ["../out.py", ".hidden/d.py", "gone.py"]);
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
