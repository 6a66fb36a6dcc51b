//! Many callers on one project: each in its turn, none beyond the limits, none at the cost of memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pyrightd::proto::export_files_response::Result as Message;
use pyrightd::proto::export_service_client::ExportServiceClient;
use pyrightd::proto::{ExportFilesRequest, ExportLocationsRequest, ExportOptions, FileLocations, Outcome, Selector};
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::harness::fault::Engine;
use crate::harness::{Project, Server, at, eventually, is_batch, package, select, text, type_of};

fn whole(root: &Path) -> ExportFilesRequest {
    ExportFilesRequest {
        project_root: text(root),
        default_selector: Selector::Names.into(),
        ..ExportFilesRequest::default()
    }
}

/// Files with many names each.
fn many_files(count: usize) -> Project {
    let project = Project::new(&[]);
    for file in 0..count {
        let names = (0..50).map(|name| format!("name{name} = [{file}, 'text']\n")).collect::<String>();
        project.write(&format!("file{file:03}.py"), names);
    }
    project
}

#[tokio::test]
async fn a_small_call_is_answered_in_its_turn_while_a_whole_project_is_exported() {
    let root = package("rich");
    let server = Server::start(&[&root]);
    let mut stream = server.export().await.export_files(whole(&root)).await.unwrap().into_inner();
    let read = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&read);
    let (first, begun) = tokio::sync::oneshot::channel();
    let reading = tokio::task::spawn(async move {
        let mut first = Some(first);
        while let Some(message) = stream.message().await.unwrap() {
            match message.result.unwrap() {
                Message::File(_) => count.fetch_add(1, Ordering::Relaxed),
                Message::Progress(_) => continue,
                Message::Summary(_) => panic!("the whole was exported before the small calls were answered"),
            };
            first.take().map(|first| first.send(()));
        }
    });
    begun.await.unwrap();
    let before = read.load(Ordering::Relaxed);
    for _ in 0..5 {
        let file = server.file(&root, at("rich/errors.py", &[(0, 6)])).await.unwrap();
        assert_eq!(type_of(&file, "ConsoleError"), "type[ConsoleError]");
    }
    let meanwhile = read.load(Ordering::Relaxed) - before;
    assert!(meanwhile < 30, "{meanwhile} files were exported while five small calls waited");
    assert!(!reading.is_finished());
    reading.abort();
}

#[tokio::test]
async fn many_callers_get_their_own_answers() {
    let project = Project::new(&[]);
    for file in 0..40 {
        project.write(&format!("file{file}.py"), format!("class Own{file}: ...\nseen = [Own{file}()]\n"));
    }
    let root = project.root();
    let server = Server::start(&[&root]);
    let client = server.export().await;
    let calls = (0..80).map(|call| {
        let (mut client, root) = (client.clone(), text(&root));
        tokio::task::spawn(async move {
            let file = select(&format!("file{}.py", call % 40), Selector::Names);
            let request = ExportLocationsRequest { project_root: root, file: Some(file), options: None };
            client.export_locations(request).await.unwrap().into_inner().file.unwrap()
        })
    });
    for (call, answer) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(type_of(&answer.await.unwrap(), "seen"), format!("list[Own{}]", call % 40));
    }
    assert_eq!(server.listed(&root).await.unwrap().generation, 1, "one engine for all");
}

/// Notes how many answers the engine owes at most, and gives none before it owes as many as `expect` said last.
const COUNTING: &str = "const owed = new Set();
    const held = [];
    let most = 0;
    const expected = () => Number(require('fs').readFileSync(`${__dirname}/../../expected`, 'utf8'));
    exports.asked = (message, wire) => {
        // Others are asked about while the engine starts.
        if (!wire.isQuestion(message) || !/file\\d+\\.py/.test(JSON.stringify(message.params))) return false;
        owed.add(message.id);
        if (owed.size > most) wire.note('most', { most: most = owed.size });
        if (most < expected()) return false;
        for (const message of held.splice(0)) {
            owed.delete(message.id);
            wire.answer(message);
        }
    };
    exports.answered = (message) => {
        if (!owed.has(message.id) || most >= expected()) return void owed.delete(message.id);
        return held.push(message) > 0;
    };";

fn expect(engine: &Engine, owed: u64) {
    std::fs::write(Path::new(engine.dir()).join("expected"), owed.to_string()).unwrap();
}

fn most(engine: &Engine) -> u64 {
    engine.notes().iter().filter_map(|note| note["most"].as_u64()).max().unwrap_or_default()
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_the_server_allows() {
    let (project, engine) = (many_files(10), Engine::new(COUNTING));
    let root = project.root();
    expect(&engine, 3);
    let server = Server::start_with(&[&root], &["--engine-dir", engine.dir(), "--max-in-flight", "3"]);
    let exports = async { tokio::join!(server.files(whole(&root)), server.files(whole(&root))) };
    let mut exports = std::pin::pin!(exports);
    let (mut highest, mut samples) = (0, 0);
    let (one, other) = loop {
        tokio::select! {
            ended = &mut exports => break ended,
            listed = server.listed(&root) => {
                let in_flight = listed.map_or(0, |listed| listed.in_flight);
                assert!(in_flight <= 3, "{in_flight} in flight");
                (highest, samples) = (highest.max(in_flight), samples + 1);
            }
        }
    };
    one.unwrap();
    other.unwrap();
    assert!(highest > 0 && samples > 1, "{highest} was the highest of {samples} samples");
    assert_eq!(most(&engine), 3);
}

#[tokio::test]
async fn no_more_requests_of_a_call_are_under_way_than_it_asks_for() {
    let (project, engine) = (many_files(2), Engine::new(COUNTING));
    let root = project.root();
    // Else the first call would answer the others.
    let server = Server::start_with(&[&root], &["--engine-dir", engine.dir(), "--max-kept", "0", "--store", "none"]);
    // Whole files are asked about two at a time.
    let expected = if is_batch() { [(1, 1), (4, 2), (1000, 2)] } else { [(1, 1), (4, 4), (1000, 10)] };
    for (max_in_flight, expected) in expected {
        expect(&engine, expected);
        let options = Some(ExportOptions { max_in_flight, ..ExportOptions::default() });
        server.files(ExportFilesRequest { options, ..whole(&root) }).await.unwrap();
        assert_eq!(most(&engine), expected, "with {max_in_flight} asked for");
    }
}

#[tokio::test]
async fn a_stream_waits_for_its_reader_and_goes_on_where_it_was() {
    let project = many_files(100);
    let root = project.root();
    let server = Server::start(&[&root]);
    let options = ExportOptions { details: vec![1, 2], ..ExportOptions::default() };
    // Each file many times, so that the whole is far more than the buffers on its way hold.
    let files: Vec<FileLocations> =
        (0..400).map(|file| select(&format!("file{:03}.py", file % 100), Selector::Names)).collect();
    let request = ExportFilesRequest { files: files.clone(), options: Some(options), ..whole(&root) };
    let endpoint = Channel::from_shared(format!("http://{}", server.address)).unwrap();
    // As small as other clients' are; this one's would hold it all.
    let endpoint = endpoint.initial_stream_window_size(1 << 16).initial_connection_window_size(1 << 16);
    let mut client = ExportServiceClient::new(endpoint.connect().await.unwrap());
    let mut stream = client.export_files(request).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    let resident = || pyrightd::pyright::process::resident_bytes(server.pid()).unwrap();
    // Quiet for long, and not just between two files.
    let quiet = AtomicU32::new(0);
    eventually("the stream to wait for its reader", async || {
        let idle = server.listed(&root).await?.in_flight == 0;
        let before = quiet.load(Ordering::Relaxed);
        quiet.store(if idle { before + 1 } else { 0 }, Ordering::Relaxed);
        (idle && before >= 25).then_some(())
    })
    .await;
    let before = resident();
    for _ in 0..200 {
        assert_eq!(server.listed(&root).await.unwrap().in_flight, 0);
    }
    assert!(resident() < before + (8 << 20), "{before} bytes grew to {}", resident());
    assert!(!server.log().iter().any(|line| line["method"] == "ExportFiles"), "the stream has ended unread");

    let mut paths = vec!["file000.py".to_owned()];
    let summary = loop {
        match stream.message().await.unwrap().unwrap().result.unwrap() {
            Message::File(file) => {
                assert!(file.types.iter().all(|inferred| inferred.outcome() == Outcome::Typed));
                paths.push(file.path);
            }
            Message::Progress(_) => {}
            Message::Summary(summary) => break summary,
        }
    };
    assert!(stream.message().await.unwrap().is_none());
    assert_eq!(summary.files, 400);
    assert_eq!(paths, files.into_iter().map(|file| file.path).collect::<Vec<_>>());
}

#[tokio::test]
async fn calls_beyond_the_most_are_turned_away_and_told_when_to_come_back() {
    let project = many_files(5);
    let engine = Engine::new(
        "const held = new Set();
        exports.asked = (message, wire) => {
            if (wire.isAsked(message, 'file000.py')) return held.add(message.id);
            if (message.method !== '$/cancelRequest' || !held.delete(message.params.id)) return false;
            wire.answer({ id: message.params.id, error: { code: -32800, message: 'cancelled' } });
            return true;
        };",
    );
    let root = project.root();
    let server = Server::start_with(&[&root], &["--engine-dir", engine.dir(), "--max-calls", "2"]);
    let mut client = server.export().await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let options = Some(ExportOptions { max_in_flight: 1, ..ExportOptions::default() });
        let request = ExportFilesRequest { options, ..whole(&root) };
        streams.push(client.export_files(request).await.unwrap().into_inner());
    }
    server.listed_like(&root, |project| project.in_flight == 2).await;
    let turned_away = server.file(&root, select("file001.py", Selector::Names)).await.unwrap_err();
    assert_eq!(turned_away.code(), Code::ResourceExhausted, "{turned_away}");
    assert!(turned_away.get_details_retry_info().unwrap().retry_delay.is_some());
    let stream = server.files(whole(&root)).await.unwrap_err();
    assert_eq!(stream.code(), Code::ResourceExhausted, "{stream}");
    drop(streams.pop());
    eventually("a place", async || server.file(&root, select("file001.py", Selector::Names)).await.ok()).await;
}
