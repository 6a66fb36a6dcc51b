//! Bad input of every kind: each gets its status or outcome, with details that name the field at fault.

use std::path::Path;
use std::process::Command;

use pyrightd::proto::export_files_response::Result as Message;
use pyrightd::proto::{
    CloseProjectRequest, ExportFilesRequest, ExportLocationsRequest, ExportOptions, FileExport, FileLocations,
    OpenProjectRequest, Outcome, Position, ProjectSettings, Selector,
};
use tonic::{Code, Status};
use tonic_types::{RpcStatusExt as _, StatusExt as _};

use crate::harness::{Project, Server, at, repository, select, text, type_of};

/// The field that a status blames.
fn field_of(status: &Status) -> String {
    let details = status.get_details_bad_request().unwrap_or_else(|| panic!("no field in {status:?}"));
    let [violation] = &details.field_violations[..] else { panic!("{details:?}") };
    assert!(!violation.description.is_empty() && status.message().contains(&violation.description), "{status:?}");
    violation.field.clone()
}

#[tokio::test]
async fn every_call_refuses_a_root_that_is_none() {
    let (project, forbidden) = (Project::new(&[("a.py", "x = int()\n")]), Project::new(&[("a.py", "x = int()\n")]));
    std::os::unix::fs::symlink(forbidden.root(), project.root().join("link")).unwrap();
    let server = Server::start(&[&project.root()]);
    let below = |path: &str| text(&project.root().join(path));
    for (root, code) in [
        (String::new(), Code::InvalidArgument),
        ("relative/root".into(), Code::InvalidArgument),
        (".".into(), Code::InvalidArgument),
        (below("a.py"), Code::InvalidArgument),
        (below("missing"), Code::NotFound),
        (below("a.py/below"), Code::NotFound),
        (text(&forbidden.root()), Code::PermissionDenied),
        // Whether it exists is not told.
        (text(&forbidden.root().join("missing")), Code::PermissionDenied),
        (text(&forbidden.root().join("a.py")), Code::PermissionDenied),
        (below("link"), Code::PermissionDenied),
        (below(".."), Code::PermissionDenied),
        ("/".into(), Code::PermissionDenied),
    ] {
        let file = Some(select("a.py", Selector::Names));
        let one = ExportLocationsRequest { project_root: root.clone(), file: file.clone(), options: None };
        let many =
            ExportFilesRequest { project_root: root.clone(), files: file.into_iter().collect(), ..Default::default() };
        let open = OpenProjectRequest { project_root: root.clone(), settings: None };
        let close = CloseProjectRequest { project_root: root.clone() };
        let statuses = [
            server.export().await.export_locations(one).await.unwrap_err(),
            server.files(many).await.unwrap_err(),
            server.projects().await.open_project(open).await.unwrap_err(),
            server.projects().await.close_project(close).await.unwrap_err(),
        ];
        for status in statuses {
            assert_eq!((status.code(), field_of(&status).as_str()), (code, "project_root"), "{root}: {status:?}");
            let resource = status.get_details_resource_info().map(|resource| resource.resource_name);
            assert_eq!(resource, (code == Code::NotFound).then_some(root.clone()), "{root}");
        }
    }
    assert_eq!(server.list().await, [], "nothing was started for any of them");
}

#[tokio::test]
async fn no_root_is_allowed_unless_named() {
    let project = Project::new(&[("a.py", "x = int()\n")]);
    let server = Server::start(&[]);
    let refused = server.file(&project.root(), select("a.py", Selector::Names)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

/// What is wrong with a file, and what is said of it: the field at fault, or the kind of precondition.
fn bad_files(project: &Project) -> Vec<(FileLocations, Code, &'static str)> {
    let outside = project.root().parent().unwrap().join("outside.py");
    std::os::unix::fs::symlink(repository().join("Cargo.toml"), project.root().join("link.py")).unwrap();
    std::os::unix::fs::symlink("nowhere.py", project.root().join("dangling.py")).unwrap();
    project.write("latin.py", b"x = '\xe9'\n");
    project.write("folder.py/a.py", "x = int()\n");
    std::fs::File::create(project.root().join("huge.py")).unwrap().set_len(51 << 20).unwrap();
    assert!(Command::new("mkfifo").arg(project.root().join("pipe.py")).status().unwrap().success());

    let names = |path: &str| select(path, Selector::Names);
    let expecting = |digest: &str| FileLocations { expected_sha256: digest.into(), ..names("a.py") };
    let overlay = |path: &str| FileLocations { content: Some("x = int()\n".into()), ..names(path) };
    vec![
        (names(""), Code::InvalidArgument, "file.path"),
        (names("../outside.py"), Code::InvalidArgument, "file.path"),
        (names("folder.py/../a.py"), Code::InvalidArgument, "file.path"),
        (names(&text(&outside)), Code::InvalidArgument, "file.path"),
        (names(&text(&project.root().join("a.py"))), Code::InvalidArgument, "file.path"),
        (names("a.py\0"), Code::InvalidArgument, "file.path"),
        (names("folder.py"), Code::InvalidArgument, "file.path"),
        (names("."), Code::InvalidArgument, "file.path"),
        (names("pipe.py"), Code::InvalidArgument, "file.path"),
        (names("link.py"), Code::PermissionDenied, "file.path"),
        (names("missing.py"), Code::NotFound, "file.path"),
        (names("a.py/below.py"), Code::NotFound, "file.path"),
        (names("dangling.py"), Code::NotFound, "file.path"),
        (overlay("../outside.py"), Code::InvalidArgument, "file.path"),
        (overlay("folder.py"), Code::InvalidArgument, "file.path"),
        (overlay("link.py"), Code::PermissionDenied, "file.path"),
        (at("a.py", &[]), Code::InvalidArgument, "file.locations"),
        (FileLocations { selector: 99, ..names("a.py") }, Code::InvalidArgument, "file.selector"),
        (FileLocations { selector: -1, ..at("a.py", &[(0, 0)]) }, Code::InvalidArgument, "file.selector"),
        (expecting("12"), Code::InvalidArgument, "file.expected_sha256"),
        (expecting(&"g".repeat(64)), Code::InvalidArgument, "file.expected_sha256"),
        (expecting(&"0".repeat(64)), Code::FailedPrecondition, "DIGEST"),
        (names("latin.py"), Code::FailedPrecondition, "ENCODING"),
        (names("huge.py"), Code::FailedPrecondition, "SIZE"),
    ]
}

#[tokio::test]
async fn a_bad_file_is_a_status_that_says_what_is_wrong() {
    let project = Project::new(&[("a.py", "x = int()\n")]);
    let bad = bad_files(&project);
    let server = Server::start(&[&project.root()]);
    for (file, code, blamed) in bad {
        let status = server.file(&project.root(), file.clone()).await.unwrap_err();
        assert_eq!(status.code(), code, "{file:?}: {status:?}");
        if code == Code::FailedPrecondition {
            let failure = status.get_details_precondition_failure().unwrap();
            assert_eq!(failure.violations[0].r#type, blamed, "{file:?}");
        } else {
            assert_eq!(field_of(&status), blamed, "{file:?}");
        }
        assert_eq!(status.get_details_resource_info().is_some(), code == Code::NotFound, "{file:?}");
    }
}

#[tokio::test]
async fn a_bad_file_does_not_stop_the_others() {
    let project = Project::new(&[("a.py", "x = int()\n"), ("b.py", "y = str()\n")]);
    let bad = bad_files(&project);
    let server = Server::start(&[&project.root()]);
    let mut files = vec![select("a.py", Selector::Names)];
    files.extend(bad.iter().map(|(file, ..)| file.clone()));
    files.push(select("b.py", Selector::Names));
    let asked: Vec<_> = files.iter().map(|file| file.path.clone()).collect();
    let request = ExportFilesRequest { project_root: text(&project.root()), files, ..Default::default() };
    let mut messages = server.files(request).await.unwrap();
    let Some(Message::Summary(summary)) = messages.pop() else { panic!("the summary comes last") };
    assert_eq!((summary.files as usize, summary.failed_files as usize), (bad.len() + 2, bad.len()));
    assert_eq!((summary.locations, summary.typed), (4, 4));

    let files: Vec<FileExport> = messages
        .into_iter()
        .filter_map(|message| if let Message::File(file) = message { Some(file) } else { None })
        .collect();
    assert_eq!(files.iter().map(|file| file.path.clone()).collect::<Vec<_>>(), asked);
    assert_eq!((type_of(&files[0], "x"), type_of(files.last().unwrap(), "y")), ("int", "str"));
    for (file, (asked, code, blamed)) in files[1..].iter().zip(bad) {
        let error = file.error.as_ref().unwrap();
        assert_eq!((Code::from(error.code), file.types.len()), (code, 0), "{asked:?}: {error:?}");
        let details = error.get_error_details();
        let told = match details.bad_request() {
            Some(request) => request.field_violations[0].field.clone(),
            None => details.precondition_failure().unwrap().violations[0].r#type.clone(),
        };
        assert_eq!(told, blamed, "{asked:?}");
    }
}

#[tokio::test]
async fn a_digest_is_compared_in_any_case() {
    let project = Project::new(&[("a.py", "x = int()\n")]);
    let server = Server::start(&[&project.root()]);
    let names = select("a.py", Selector::Names);
    let digest = server.file(&project.root(), names.clone()).await.unwrap().sha256;
    assert_eq!(digest, sha256(&project.root().join("a.py")));
    for expected_sha256 in [digest.clone(), digest.to_uppercase()] {
        let file = FileLocations { expected_sha256, ..names.clone() };
        assert_eq!(type_of(&server.file(&project.root(), file).await.unwrap(), "x"), "int");
    }
    project.write("a.py", "xx = int()\n");
    let changed = FileLocations { expected_sha256: digest.clone(), ..names.clone() };
    let status = server.file(&project.root(), changed).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    // With a text of the caller's own, that is what the digest is of.
    let overlay = FileLocations { expected_sha256: digest.clone(), content: Some("x = int()\n".into()), ..names };
    assert_eq!(server.file(&project.root(), overlay).await.unwrap().sha256, digest);
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

#[tokio::test]
async fn unknown_values_of_options_are_refused_by_name() {
    let project = Project::new(&[("a.py", "x = int()\n")]);
    let server = Server::start(&[&project.root()]);
    let options = |position_encoding, details| ExportOptions { position_encoding, details, max_in_flight: 0 };
    for (options, field) in [
        (options(99, vec![]), "options.position_encoding"),
        (options(-1, vec![]), "options.position_encoding"),
        (options(0, vec![1, 99]), "options.details[1]"),
        (options(0, vec![-1]), "options.details[0]"),
    ] {
        let names = select("a.py", Selector::Names);
        let one = server.file_with(&project.root(), names.clone(), options.clone()).await.unwrap_err();
        let request = ExportFilesRequest {
            project_root: text(&project.root()),
            files: vec![names],
            options: Some(options),
            ..Default::default()
        };
        let many = server.files(request).await.unwrap_err();
        for status in [one, many] {
            assert_eq!((status.code(), field_of(&status).as_str()), (Code::InvalidArgument, field));
        }
    }
}

#[tokio::test]
async fn a_call_that_names_no_file_or_no_names_is_refused() {
    let project = Project::new(&[("a.py", "x = int()\n")]);
    let server = Server::start(&[&project.root()]);
    let project_root = text(&project.root());
    let request = ExportLocationsRequest { project_root: project_root.clone(), file: None, options: None };
    let status = server.export().await.export_locations(request).await.unwrap_err();
    assert_eq!((status.code(), field_of(&status).as_str()), (Code::InvalidArgument, "file"));
    for default_selector in [0, 99] {
        let request = ExportFilesRequest { project_root: project_root.clone(), default_selector, ..Default::default() };
        let status = server.files(request).await.unwrap_err();
        assert_eq!((status.code(), field_of(&status).as_str()), (Code::InvalidArgument, "default_selector"));
    }
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused_by_name() {
    let (project, forbidden) = (Project::new(&[("a.py", "x = int()\n")]), Project::new(&[("bin/activate", "")]));
    let server = Server::start(&[&project.root()]);
    let settings = ProjectSettings::default;
    let (root, outside) = (text(&project.root()), text(&forbidden.root()));
    let missing = text(&project.root().join("missing"));
    for (settings, code, field) in [
        (ProjectSettings { python_version: "4.0".into(), ..settings() }, Code::InvalidArgument, "python_version"),
        (ProjectSettings { python_version: "3".into(), ..settings() }, Code::InvalidArgument, "python_version"),
        (ProjectSettings { python_platform: "linux".into(), ..settings() }, Code::InvalidArgument, "python_platform"),
        (ProjectSettings { venv: root.clone(), ..settings() }, Code::InvalidArgument, "venv"),
        (ProjectSettings { venv: ".venv".into(), ..settings() }, Code::InvalidArgument, "venv"),
        (ProjectSettings { venv: missing.clone(), ..settings() }, Code::NotFound, "venv"),
        (ProjectSettings { venv: outside.clone(), ..settings() }, Code::PermissionDenied, "venv"),
        (
            ProjectSettings { extra_paths: vec![root.clone(), missing.clone()], ..settings() },
            Code::NotFound,
            "extra_paths[1]",
        ),
        (
            ProjectSettings { extra_paths: vec![outside.clone()], ..settings() },
            Code::PermissionDenied,
            "extra_paths[0]",
        ),
        (ProjectSettings { stub_path: outside.clone(), ..settings() }, Code::PermissionDenied, "stub_path"),
    ] {
        let status = server.open(&project.root(), settings).await.unwrap_err();
        assert_eq!((status.code(), field_of(&status)), (code, format!("settings.{field}")));
    }
    assert_eq!(server.list().await, []);
}

#[tokio::test]
async fn two_hundred_thousand_locations_in_one_file_are_answered_each() {
    let lines: String = (0..50).map(|number| format!("x{number} = int()\n")).collect();
    let project = Project::new(&[("a.py", &lines)]);
    let server = Server::start(&[&project.root()]);
    // One in four lies outside: a line behind the end, or a column.
    let place = |number: u32| match number % 8 {
        0 => (51 + number, 0),
        4 => (number % 50, 100),
        _ => (number % 50, 0),
    };
    let places: Vec<_> = (0..200_000).map(place).collect();
    let file = server.file(&project.root(), at("a.py", &places)).await.unwrap();
    assert_eq!(file.types.len(), places.len());
    for (inferred, (line, character)) in file.types.iter().zip(places) {
        assert_eq!(inferred.location, Some(Position { line, character }));
        if line < 50 && character == 0 {
            assert_eq!((inferred.outcome(), inferred.r#type.as_str()), (Outcome::Typed, "int"));
            assert_eq!(inferred.name, format!("x{line}"));
        } else {
            assert_eq!(inferred.outcome(), Outcome::InvalidLocation);
        }
    }
}

#[tokio::test]
async fn messages_beyond_the_limits_are_refused_and_the_server_goes_on() {
    let project = Project::new(&[("a.py", "x = int()\n"), ("b.py", "y = int()\n")]);
    let flags = ["--max-message-in", "4KiB", "--max-message-out", "4KiB"];
    let server = Server::start_with(&[&project.root()], &flags);
    let places = |count| at("a.py", &vec![(0, 0); count]);

    let too_large_in = server.file(&project.root(), places(5000)).await.unwrap_err();
    assert_eq!(too_large_in.code(), Code::OutOfRange, "{too_large_in:?}");
    let too_large_out = server.file(&project.root(), places(500)).await.unwrap_err();
    assert_eq!(too_large_out.code(), Code::ResourceExhausted, "{too_large_out:?}");

    let files = vec![places(500), select("b.py", Selector::Names)];
    let request = ExportFilesRequest { project_root: text(&project.root()), files, ..Default::default() };
    let messages = server.files(request).await.unwrap();
    let [Message::File(large), Message::File(small)] = &messages[..2] else { panic!("{messages:?}") };
    let error = large.error.as_ref().unwrap();
    assert_eq!((large.path.as_str(), Code::from(error.code)), ("a.py", Code::ResourceExhausted));
    assert!(error.message.contains("--max-message-out"), "{}", error.message);
    assert_eq!(type_of(small, "y"), "int");
    assert!(server.file(&project.root(), places(50)).await.is_ok());
}
