//! A call's time spans all of it; a caller who leaves leaves nothing under way.

use std::path::Path;
use std::time::Duration;

use pyrightd::proto::{ExportFilesRequest, ExportLocationsRequest, Selector};
use tonic::{Code, Request};

use crate::harness::fault::Engine;
use crate::harness::{Project, Server, at, eventually, is_batch, select, text, type_of};

const SOON: Duration = Duration::from_millis(1500);

/// What is told of `long.py` is not kept, so that it takes its time again and again.
const UNKEPT: [&str; 4] = ["--max-kept", "0", "--store", "none"];

fn project() -> Project {
    let names = if is_batch() { 8000 } else { 2000 };
    let long = (0..names).map(|number| format!("name{number} = [{number}, 'text']\n")).collect::<String>();
    Project::new(&[("long.py", &long), ("short.py", "short = [1]\n")])
}

/// For one file.
fn one(root: &Path, path: &str, timeout: Option<Duration>) -> Request<ExportLocationsRequest> {
    let file = Some(select(path, Selector::Names));
    let mut request = Request::new(ExportLocationsRequest { project_root: text(root), file, options: None });
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    request
}

/// For all files, several times, so that it does not end on its own.
fn many(root: &Path, timeout: Option<Duration>) -> Request<ExportFilesRequest> {
    let files = (0..500).map(|_| select("long.py", Selector::Names)).collect();
    let mut request =
        Request::new(ExportFilesRequest { project_root: text(root), files, ..ExportFilesRequest::default() });
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    request
}

/// What the server says of how a call ended; a client may lose patience a moment before it hears that.
fn code_in_log(server: &Server, method: &str) -> String {
    let line = server.wait_for_log(|line| line["message"] == "call" && line["method"] == method);
    line["code"].as_str().unwrap().to_owned()
}

async fn is_quiet_and_answers(server: &Server, root: &Path) {
    server.listed_like(root, |project| project.in_flight == 0 && project.waiting == 0).await;
    let file = server.file(root, at("short.py", &[(0, 0)])).await.unwrap();
    assert_eq!(type_of(&file, "short"), "list[int]");
    assert_eq!(server.listed(root).await.unwrap().generation, 1, "the engine is the same");
}

#[tokio::test]
async fn a_deadline_spans_the_engines_start() {
    let project = project();
    let engine = Engine::new("exports.asked = () => true;");
    let root = project.root();
    let server = Server::start_with(&[&root], &["--engine-dir", engine.dir()]);
    let status = server.export().await.export_locations(one(&root, "short.py", Some(SOON))).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
    assert_eq!(code_in_log(&server, "ExportLocations"), "DeadlineExceeded");
    let mut stream = server.export().await.export_files(many(&root, Some(SOON))).await.unwrap().into_inner();
    let status = stream.message().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert_eq!(code_in_log(&server, "ExportFiles"), "DeadlineExceeded");
}

#[tokio::test]
async fn a_deadline_ends_a_call_that_is_under_way() {
    let project = project();
    let engine = Engine::new("exports.asked = (message, wire) => wire.isAsked(message, 'long.py');");
    let root = project.root();
    let server = Server::start_with(&[&root], &["--engine-dir", engine.dir()]);
    server.file(&root, at("short.py", &[(0, 0)])).await.unwrap();
    let status = server.export().await.export_locations(one(&root, "long.py", Some(SOON))).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
    assert_eq!(code_in_log(&server, "ExportLocations"), "Ok", "the first");
    server.wait_for_log(|line| line["method"] == "ExportLocations" && line["code"] == "DeadlineExceeded");
}

#[tokio::test]
async fn a_deadline_ends_a_stream_and_its_work() {
    let project = project();
    let root = project.root();
    let server = Server::start_with(&[&root], &UNKEPT);
    server.file(&root, at("short.py", &[(0, 0)])).await.unwrap();
    let mut stream = server.export().await.export_files(many(&root, Some(SOON))).await.unwrap().into_inner();
    let status = loop {
        match stream.message().await {
            Ok(message) => assert!(message.is_some(), "it ended by itself"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert_eq!(code_in_log(&server, "ExportFiles"), "DeadlineExceeded");
    is_quiet_and_answers(&server, &root).await;
}

#[tokio::test]
async fn a_caller_who_leaves_leaves_nothing_under_way() {
    let project = project();
    let root = project.root();
    let server = Server::start_with(&[&root], &UNKEPT);
    let mut client = server.export().await;
    for _ in 0..3 {
        let call = client.export_locations(one(&root, "long.py", None));
        tokio::select! {
            answer = call => panic!("answered before its caller left: {:?}", answer.map(|_| ())),
            _ = server.listed_like(&root, |project| project.in_flight > 0) => {}
        }
        is_quiet_and_answers(&server, &root).await;
    }
    for read in 0..3 {
        let mut stream = client.export_files(many(&root, None)).await.unwrap().into_inner();
        for _ in 0..read {
            stream.message().await.unwrap().unwrap();
        }
        server.listed_like(&root, |project| project.in_flight > 0).await;
        drop(stream);
        is_quiet_and_answers(&server, &root).await;
    }
    eventually("six calls to be logged as cancelled", async || {
        let cancelled = |line: &&serde_json::Value| line["message"] == "call" && line["code"] == "Cancelled";
        (server.log().iter().filter(cancelled).count() == 6).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_cancellation_reaches_the_engine_and_holds_its_permit_until_answered() {
    let project = project();
    let engine = Engine::new(
        "const fs = require('fs');
        const held = [];
        exports.asked = (message, wire) => {
            if (wire.isAsked(message, 'long.py')) {
                held.push(message.id);
                return true;
            }
            if (message.method !== '$/cancelRequest') return false;
            const file = wire.cancellationFile(message.params.id);
            wire.note('cancelled', { id: message.params.id, file: fs.existsSync(file), held: held.length });
            const poll = setInterval(() => {
                if (!fs.existsSync(__dirname + '/answer')) return;
                clearInterval(poll);
                wire.answer({ id: message.params.id, error: { code: -32800, message: 'cancelled' } });
                const gone = setInterval(() => {
                    if (fs.existsSync(file)) return;
                    clearInterval(gone);
                    wire.note('gone', { id: message.params.id });
                }, 5);
            }, 5);
            return true;
        };",
    );
    let root = project.root();
    let server = Server::start_with(&[&root], &["--engine-dir", engine.dir(), "--max-in-flight", "2"]);
    let (mut client, mut other) = (server.export().await, server.export().await);
    tokio::select! {
        _ = client.export_locations(one(&root, "long.py", None)) => panic!("nobody answered"),
        // Of whole files, each call has one request under way.
        _ = other.export_locations(one(&root, "long.py", None)) => panic!("nobody answered"),
        _ = server.listed_like(&root, |project| project.in_flight == 2) => {}
    }
    let count = |kind: &'static str| {
        let engine = &engine;
        async move || (engine.notes().iter().filter(|note| note["kind"] == kind).count() == 2).then_some(())
    };
    eventually("both requests to be cancelled", count("cancelled")).await;
    for note in engine.notes() {
        assert_eq!((&note["file"], &note["held"]), (&true.into(), &2.into()), "{note}");
    }
    assert_eq!(server.listed(&root).await.unwrap().in_flight, 2, "until the engine has answered");
    std::fs::write(Path::new(engine.dir()).join("node_modules/pyright/answer"), "").unwrap();
    eventually("both files to be gone", count("gone")).await;
    is_quiet_and_answers(&server, &root).await;
    assert_eq!(engine.notes().len(), 4, "each is cancelled once: {:?}", engine.notes());
}
