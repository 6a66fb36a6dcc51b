//! Engines that die, hang, lie or babble: who waits is answered by a successor, or told why not.

use std::path::Path;

use pyrightd::proto::export_files_response::Result as Message;
use pyrightd::proto::{ExportFilesRequest, OpenProjectRequest, ProjectState, Selector};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::fault::Engine;
use crate::harness::{LONG, Project, Server, at, gone, select, signal, text, type_of};

fn project() -> Project {
    Project::new(&[("base.py", "value = [1]\n"), ("good.py", "from base import value\n\ngood = value\n")])
}

async fn is_answered(server: &Server, root: &Path) {
    let file = server.file(root, select("good.py", Selector::Names)).await.unwrap();
    assert_eq!(type_of(&file, "good"), "list[int]");
}

/// Many lines, so that exporting it takes a while.
fn long_file() -> String {
    let mut text = String::from("class Item:\n    def price(self, count: int):\n        return [count] * 2\n\n");
    for number in 0..1500 {
        text += &format!("name{number} = Item().price({number})\n");
    }
    text
}

#[tokio::test]
async fn who_waits_for_an_engine_that_is_killed_is_answered_by_its_successor() {
    let project = project();
    project.write("long.py", long_file());
    let server = Server::start(&[&project.root()]);
    let root = project.root();
    is_answered(&server, &root).await;
    let before = server.listed(&root).await.unwrap();

    let calls = async {
        tokio::join!(
            server.file(&root, select("long.py", Selector::Declarations)),
            server.file(&root, select("long.py", Selector::Names)),
            server.files(ExportFilesRequest {
                project_root: text(&root),
                default_selector: Selector::Names.into(),
                ..ExportFilesRequest::default()
            }),
        )
    };
    let killing = async {
        server.listed_like(&root, |project| project.in_flight > 0).await;
        signal(before.process_id, "KILL");
    };
    let ((declarations, names, files), ()) = tokio::join!(calls, killing);
    for file in [declarations.unwrap(), names.unwrap()] {
        assert_eq!(type_of(&file, "name1499"), "list[int]");
        assert!(file.types.iter().all(|inferred| !inferred.r#type.is_empty()));
    }
    let Some(Message::Summary(summary)) = files.unwrap().pop() else { panic!("no summary") };
    assert_eq!((summary.files, summary.failed_files), (3, 0));
    assert_eq!(summary.typed, summary.locations);
    let after = server.listed(&root).await.unwrap();
    assert_eq!(after.generation, before.generation + 1);
    assert_ne!(after.process_id, before.process_id);
    gone(before.process_id).await;
}

#[tokio::test]
async fn an_idle_engine_that_is_killed_again_and_again_is_replaced_each_time() {
    let project = project();
    let server = Server::start(&[&project.root()]);
    let root = project.root();
    for round in 1..=5 {
        is_answered(&server, &root).await;
        // What is kept in memory is told before the death is noticed.
        let listed = server.listed_like(&root, |listed| listed.generation == round && listed.process_id != 0).await;
        signal(listed.process_id, "KILL");
        gone(listed.process_id).await;
    }
    is_answered(&server, &root).await;
}

#[tokio::test]
async fn a_file_on_which_engines_hang_is_given_up_and_the_others_are_exported() {
    let engine = Engine::new("exports.asked = (message, wire) => wire.isAsked(message, 'bad.py');");
    // Longer than a busy machine's engine is silent at its start, where the same time counts.
    a_deadly_file_is_reported_and_the_others_go_on(&engine, &["--stall-timeout", "8s"]).await;
}

#[tokio::test]
async fn a_file_on_which_engines_die_is_given_up_and_the_others_are_exported() {
    let engine = Engine::new("exports.asked = (message, wire) => wire.isAsked(message, 'bad.py') && process.abort();");
    a_deadly_file_is_reported_and_the_others_go_on(&engine, &[]).await;
}

async fn a_deadly_file_is_reported_and_the_others_go_on(engine: &Engine, flags: &[&str]) {
    let project = project();
    project.write("bad.py", "bad = 1\n");
    let root = project.root();
    let server = Server::start_with(&[&root], &[&["--engine-dir", engine.dir()], flags].concat());
    let request = ExportFilesRequest {
        project_root: text(&root),
        default_selector: Selector::Names.into(),
        ..ExportFilesRequest::default()
    };
    let messages = server.files(request).await.unwrap();
    let mut files = messages.iter().filter_map(|message| match message {
        Message::File(file) => Some(file),
        _ => None,
    });
    let (bad, base, good) = (files.next().unwrap(), files.next().unwrap(), files.next().unwrap());
    assert_eq!((bad.path.as_str(), bad.error.as_ref().unwrap().code), ("bad.py", Code::Internal as i32));
    assert!(bad.types.is_empty());
    assert_eq!((type_of(base, "value"), type_of(good, "good")), ("list[int]", "list[int]"));
    assert_eq!(server.listed(&root).await.unwrap().generation, 3, "two died of it");
    is_answered(&server, &root).await;
}

#[tokio::test]
async fn an_engine_that_never_becomes_ready_makes_calls_unavailable() {
    let engine = Engine::new("exports.asked = () => true;");
    is_broken(&engine, &["--start-timeout", "2s"]).await;
}

#[tokio::test]
async fn an_engine_that_dies_at_its_start_makes_calls_unavailable() {
    let engine = Engine::new("process.exit(1);");
    is_broken(&engine, &[]).await;
}

async fn is_broken(engine: &Engine, flags: &[&str]) {
    let project = project();
    let root = project.root();
    let server = Server::start_with(&[&root], &[&["--engine-dir", engine.dir()], flags].concat());
    let broken = |status: Status| {
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.get_details_retry_info().unwrap().retry_delay.unwrap() < LONG);
    };
    let open = OpenProjectRequest { project_root: text(&root), settings: None };
    let mut projects = server.projects().await;
    let (first, second, opened) = tokio::join!(
        server.file(&root, select("good.py", Selector::Names)),
        server.files(ExportFilesRequest {
            project_root: text(&root),
            default_selector: Selector::Names.into(),
            ..ExportFilesRequest::default()
        }),
        projects.open_project(open),
    );
    broken(first.unwrap_err());
    broken(second.unwrap_err());
    broken(opened.unwrap_err());
    assert_eq!(server.listed(&root).await.unwrap().state(), ProjectState::Broken);
}

/// Does this at the first hover over `good.py`, once, and expects the call to be answered nonetheless.
async fn survives(fault: &str) {
    let engine = Engine::new(&format!(
        "exports.asked = (message, wire) => {{
            if (!wire.isAsked(message, 'good.py') || !wire.once('fault')) return false;
            {fault};
            return true;
        }};"
    ));
    let project = project();
    let root = project.root();
    let server = Server::start_with(&[&root], &["--engine-dir", engine.dir()]);
    is_answered(&server, &root).await;
    assert_eq!(server.listed(&root).await.unwrap().generation, 2, "{fault}");
}

#[tokio::test]
async fn an_engine_that_writes_no_frames_is_replaced() {
    survives("wire.raw('Segmentation fault (core dumped)\\r\\n\\r\\n')").await;
    survives("wire.raw('Content-Length: 7\\r\\n\\r\\n{\"id\":}')").await;
}

#[tokio::test]
async fn an_engine_that_announces_a_huge_frame_is_replaced() {
    survives("wire.raw('Content-Length: 99999999999\\r\\n\\r\\n{')").await;
}

#[tokio::test]
async fn an_engine_that_dies_in_the_middle_of_a_frame_is_replaced() {
    survives("process.stdout.write('Content-Length: 70\\r\\n\\r\\n{\"id\":', () => process.abort())").await;
}

#[tokio::test]
async fn an_engine_that_closes_its_output_is_replaced() {
    survives("process.stdout.end(); setInterval(() => {}, 1000)").await;
}

#[tokio::test]
async fn no_answer_is_lost_to_an_engine_that_has_not_found_its_files_yet() {
    let engine = Engine::new(
        "let found = false;
        exports.answered = (message, wire) => {
            if (message.id !== undefined && wire.isQuestion({ method: wire.methodOf(message.id) }) && !found) {
                wire.note('lost');
                message.result = null;
            }
            if (!String(message.params?.message).startsWith('Found ')) return false;
            setTimeout(() => { found = true; wire.answer(message); }, 1000);
            return true;
        };",
    );
    let project = project();
    let root = project.root();
    let server = Server::start_with(&[&root], &["--engine-dir", engine.dir()]);
    tokio::join!(is_answered(&server, &root), is_answered(&server, &root));
    assert_eq!(engine.notes().len(), 0);
}

#[tokio::test]
async fn what_the_engine_drops_for_reasons_of_its_own_is_asked_for_once_more() {
    let engine = Engine::new(
        "exports.asked = (message, wire) => {
            if (!wire.isAsked(message, 'good.py') || !wire.once('dropped')) return false;
            wire.answer({ id: message.id, error: { code: -32801, message: 'content modified' } });
            return true;
        };",
    );
    let project = project();
    let root = project.root();
    let server = Server::start_with(&[&root], &["--engine-dir", engine.dir()]);
    let file = server.file(&root, at("good.py", &[(2, 0)])).await.unwrap();
    assert_eq!(type_of(&file, "good"), "list[int]");
    assert_eq!(server.listed(&root).await.unwrap().generation, 1);
}

#[tokio::test]
async fn an_engine_that_floods_its_error_output_is_drained() {
    let engine = Engine::new(
        "exports.asked = (message, wire) => {
            if (!wire.isAsked(message, 'good.py') || !wire.once('flood')) return false;
            const fs = require('fs');
            fs.writeSync(2, 'x'.repeat(5000) + '\\n');
            fs.writeSync(2, Buffer.from([0xff, 0xfe, 0x0a]));
            // Blocks where nobody reads the pipe, and fails where it is closed.
            process.stderr._handle?.setBlocking?.(true);
            for (let line = 0; line < 3000; line++) process.stderr.write(`line ${line} ${'y'.repeat(100)}\\n`);
            process.stderr.write('the last of it\\n');
            return false;
        };",
    );
    let project = project();
    let root = project.root();
    let server = Server::start_with(&[&root], &["--engine-dir", engine.dir()]);
    is_answered(&server, &root).await;
    server.wait_for_log(|line| line["message"] == "engine: the last of it");
    assert_eq!(server.listed(&root).await.unwrap().generation, 1);
}
