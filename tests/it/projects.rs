//! Opening, closing and listing projects: one process for each root, with its settings, and nothing left behind.

use std::sync::Arc;

use pyrightd::proto::{
    ExportFilesRequest, ExportLocationsRequest, OpenProjectRequest, ProjectSettings, ProjectState, Selector,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::harness::{LONG, Project, Server, eventually, is_running, package, select, text, type_of};

#[tokio::test]
async fn an_open_project_is_listed_with_all_that_is_known_of_it() {
    let project = Project::new(&[("a.py", "x = int()\n"), ("b.py", "y = 2\n")]);
    let server = Server::start(&[&project.root()]);
    assert_eq!(server.list().await, []);
    let settings = ProjectSettings { python_version: "3.12".into(), ..ProjectSettings::default() };
    let opened = server.open(&project.root(), settings.clone()).await.unwrap();
    assert_eq!(opened.project_root, text(&project.root()));
    assert_eq!(opened.state(), ProjectState::Ready);
    assert_eq!(opened.settings, Some(settings));
    assert!(opened.engine.starts_with("pyright 1.1.414 on node "), "{}", opened.engine);
    assert!(is_running(opened.process_id));
    assert!(opened.resident_bytes > 10 << 20, "{}", opened.resident_bytes);
    assert_eq!((opened.generation, opened.source_files), (1, 2));
    assert_eq!((opened.in_flight, opened.waiting), (0, 0));

    let [listed] = &server.list().await[..] else { panic!("one is open") };
    assert!(listed.last_used_at.unwrap().seconds >= opened.last_used_at.unwrap().seconds);
    assert_eq!((listed.process_id, listed.generation), (opened.process_id, opened.generation));
    let again = server.open(&project.root(), opened.settings.unwrap()).await.unwrap();
    assert_eq!((again.process_id, again.generation), (opened.process_id, 1));
}

#[tokio::test]
async fn many_callers_at_once_share_one_process() {
    let project = Project::new(&[("a.py", "x = int()\n")]);
    let server = Arc::new(Server::start(&[&project.root()]));
    let callers: Vec<_> = (0..50)
        .map(|number| {
            let (server, root) = (Arc::clone(&server), project.root());
            tokio::spawn(async move {
                if number % 2 == 0 {
                    let opened = server.open(&root, ProjectSettings::default()).await.unwrap();
                    Some((opened.process_id, opened.generation))
                } else {
                    let file = server.file(&root, select("a.py", Selector::Names)).await.unwrap();
                    assert_eq!(type_of(&file, "x"), "int");
                    None
                }
            })
        })
        .collect();
    let mut seen = Vec::new();
    for caller in callers {
        seen.extend(caller.await.unwrap());
    }
    seen.dedup();
    let [listed] = &server.list().await[..] else { panic!("one is open") };
    assert_eq!(seen, [(listed.process_id, 1)]);
    let ready = |line: &serde_json::Value| line["message"] == "the engine is ready";
    assert_eq!(server.log().into_iter().filter(ready).count(), 1);
}

#[tokio::test]
async fn two_roots_have_two_processes() {
    let (one, two) = (Project::new(&[("a.py", "x = int()\n")]), Project::new(&[("a.py", "x = str()\n")]));
    let server = Server::start(&[&one.root(), &two.root()]);
    for (project, expected) in [(&one, "int"), (&two, "str")] {
        let file = server.file(&project.root(), select("a.py", Selector::Names)).await.unwrap();
        assert_eq!(type_of(&file, "x"), expected);
    }
    let listed = server.list().await;
    let mut roots = [text(&one.root()), text(&two.root())];
    roots.sort();
    assert_eq!(listed.iter().map(|project| project.project_root.as_str()).collect::<Vec<_>>(), roots);
    assert_ne!(listed[0].process_id, listed[1].process_id);

    server.close(&one.root()).await.unwrap();
    let listed = server.list().await;
    assert_eq!(listed.iter().map(|project| project.project_root.clone()).collect::<Vec<_>>(), [text(&two.root())]);
}

#[tokio::test]
async fn one_root_by_two_names_is_one_project() {
    let project = Project::new(&[("real/a.py", "x = int()\n")]);
    let (real, link) = (project.root().join("real"), project.root().join("link"));
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let server = Server::start(&[&project.root()]);
    let mut opened = Vec::new();
    for name in [text(&real), text(&link), format!("{}/../link/.", text(&real))] {
        let request = OpenProjectRequest { project_root: name, settings: None };
        let project = server.projects().await.open_project(request).await.unwrap().into_inner().project.unwrap();
        opened.push((project.project_root, project.process_id));
    }
    opened.dedup();
    assert_eq!(opened.len(), 1, "{opened:?}");
    assert_eq!(opened[0].0, text(&real));
}

#[tokio::test]
async fn other_settings_open_a_project_anew() {
    let source = "import sys\nx = int() if sys.version_info >= (3, 12) else str()\n";
    let project = Project::new(&[("a.py", source)]);
    let server = Server::start(&[&project.root()]);
    let settings = |version: &str| ProjectSettings { python_version: version.into(), ..ProjectSettings::default() };
    let new = server.open(&project.root(), settings("3.12")).await.unwrap();
    let old = server.open(&project.root(), settings("3.9")).await.unwrap();
    assert_ne!(new.process_id, old.process_id);
    assert_eq!(old.settings, Some(settings("3.9")));
    assert!(!is_running(new.process_id));
    assert_eq!((new.generation, old.generation), (1, 2));
    let file = server.file(&project.root(), select("a.py", Selector::Names)).await.unwrap();
    assert_eq!(type_of(&file, "x"), "str");
}

#[tokio::test]
async fn settings_survive_the_idle_stop_and_not_a_close() {
    let source = "import sys\nx = int() if sys.version_info >= (3, 12) else str()\n";
    let project = Project::new(&[("a.py", source)]);
    let server = Server::start_with(&[&project.root()], &["--idle-timeout", "1s"]);
    let settings = ProjectSettings { python_version: "3.9".into(), ..ProjectSettings::default() };
    let opened = server.open(&project.root(), settings.clone()).await.unwrap();
    eventually("an empty list", async || server.list().await.is_empty().then_some(())).await;
    assert!(!is_running(opened.process_id));

    let x = async || {
        let file = server.file(&project.root(), select("a.py", Selector::Names)).await.unwrap();
        type_of(&file, "x").to_owned()
    };
    assert_eq!(x().await, "str", "as it was opened");
    // Nothing is found where it fell idle meanwhile: its settings are forgotten all the same.
    let _ = server.close(&project.root()).await;
    assert_eq!(x().await, "int");
}

#[tokio::test]
async fn closing_ends_the_process_once() {
    let project = Project::new(&[("a.py", "x = int()\n")]);
    let server = Server::start(&[&project.root()]);
    assert_eq!(server.close(&project.root()).await.unwrap_err().code(), Code::NotFound);
    let opened = server.open(&project.root(), ProjectSettings::default()).await.unwrap();
    server.close(&project.root()).await.unwrap();
    assert!(!is_running(opened.process_id));
    assert_eq!(server.list().await, []);
    assert_eq!(server.close(&project.root()).await.unwrap_err().code(), Code::NotFound);
    let anew = server.open(&project.root(), ProjectSettings::default()).await.unwrap();
    assert_eq!((opened.generation, anew.generation), (1, 2));
}

#[tokio::test]
async fn closing_waits_for_calls_under_way() {
    let rich = package("rich");
    let server = Arc::new(Server::start(&[&rich]));
    let files = ["rich/color.py", "rich/console.py"].map(|path| select(path, Selector::Declarations));
    let request = ExportFilesRequest { project_root: text(&rich), files: files.into(), ..Default::default() };
    let mut stream = server.export().await.export_files(request).await.unwrap().into_inner();
    let first = stream.message().await.unwrap();
    assert!(first.is_some());

    let closing = tokio::spawn({
        let (server, rich) = (Arc::clone(&server), rich.clone());
        async move { server.close(&rich).await }
    });
    let (mut files, mut summary) = (1, None);
    while let Some(message) = stream.message().await.unwrap() {
        use pyrightd::proto::export_files_response::Result::{File, Progress, Summary};
        match message.result.unwrap() {
            File(file) => files += i32::from(file.error.is_none()),
            Summary(last) => summary = Some(last),
            Progress(_) => {}
        }
    }
    assert_eq!((files, summary.unwrap().failed_files), (2, 0));
    closing.await.unwrap().unwrap();
    assert_eq!(server.list().await, []);
}

#[tokio::test]
async fn a_call_made_while_a_project_closes_is_answered_by_a_new_process() {
    let project = Project::new(&[("a.py", "x = int()\n")]);
    let server = Arc::new(Server::start(&[&project.root()]));
    let root = project.root();
    let before = server.open(&root, ProjectSettings::default()).await.unwrap();
    let (closed, file) = tokio::join!(server.close(&root), server.file(&root, select("a.py", Selector::Names)));
    closed.unwrap();
    assert_eq!(type_of(&file.unwrap(), "x"), "int");
    // Whichever came first, the process that was closed is gone.
    assert!(!is_running(before.process_id));
}

#[tokio::test]
async fn nothing_runs_after_the_servers_end() {
    let (one, two) = (Project::new(&[("a.py", "x = int()\n")]), Project::new(&[("a.py", "x = int()\n")]));
    let mut server = Server::start(&[&one.root(), &two.root()]);
    let mut processes = Vec::new();
    for project in [&one, &two] {
        processes.push(server.open(&project.root(), ProjectSettings::default()).await.unwrap().process_id);
    }
    assert!(processes.iter().all(|&process| is_running(process)));
    server.signal("TERM");
    assert!(server.wait().success());
    assert!(!processes.iter().any(|&process| is_running(process)));
}

// The log is waited for on this thread, while others carry the news that the reader has gone.
#[tokio::test(flavor = "multi_thread")]
async fn more_calls_than_a_project_takes_are_told_to_come_later() {
    let rich = package("rich");
    let server = Server::start_with(&[&rich], &["--max-calls", "1"]);
    let file = select("rich/console.py", Selector::Names);
    let request = ExportFilesRequest { project_root: text(&rich), files: vec![file], ..Default::default() };
    let stream = server.export().await.export_files(request).await.unwrap();
    // It is under way once the engine is at work on it.
    server.listed_like(&rich, |project| project.in_flight > 0).await;
    let one = select("rich/__init__.py", Selector::Names);
    let refused = server.file(&rich, one.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let delay = refused.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(!delay.is_zero() && delay < LONG, "{delay:?}");
    assert_eq!(server.open(&rich, ProjectSettings::default()).await.unwrap_err().code(), Code::ResourceExhausted);
    drop(stream);
    // Once its reader has gone, the call is over.
    server.wait_for_log(|line| line["method"] == "ExportFiles" && line["code"] == "Cancelled");
    server.file(&rich, one).await.unwrap();
}

#[tokio::test]
async fn a_cache_folder_may_be_named_relative_to_the_working_folder() {
    let project = Project::new(&[("a.py", "x = int()\n")]);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pyrightd"));
    command
        .current_dir(crate::harness::repository())
        .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json", "--cache-dir", "target/engine"])
        .arg("--allow-root")
        .arg(project.root());
    let server = Server::from_command(command);
    let request = ExportLocationsRequest {
        project_root: text(&project.root()),
        file: Some(select("a.py", Selector::Names)),
        options: None,
    };
    let answer = server.export().await.export_locations(request).await.unwrap().into_inner();
    assert_eq!(type_of(&answer.file.unwrap(), "x"), "int");
}
