//! Every identifier of a whole package: what the service answers is what a plain language client is answered.

use std::path::Path;

use pyrightd::cli::plain::PlainClient;
use pyrightd::model::Position;
use pyrightd::proto::export_files_response::Result as Message;
use pyrightd::proto::{Detail, ExportFilesRequest, ExportOptions, Outcome, Selector};
use pyrightd::pyright::install;

use crate::harness::{Server, engine_cache, package, text};

/// One difference in so many names is taken: types that depend on what was asked before, by Pyright's own way.
const NAMES_FOR_A_DIFFERENCE: usize = 3000;

#[tokio::test(flavor = "multi_thread")]
async fn hovers_in_rich_are_those_of_a_plain_client() {
    hovers_are_those_of_a_plain_client("rich", 30_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hovers_in_flask_are_those_of_a_plain_client() {
    hovers_are_those_of_a_plain_client("flask", 10_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hovers_in_werkzeug_are_those_of_a_plain_client() {
    hovers_are_those_of_a_plain_client("werkzeug", 25_000).await;
}

async fn hovers_are_those_of_a_plain_client(name: &str, names: usize) {
    let root = package(name);
    let server = Server::start(&[&root]);
    let request = ExportFilesRequest {
        project_root: text(&root),
        default_selector: Selector::Names.into(),
        options: Some(ExportOptions {
            details: vec![Detail::Hover.into(), Detail::Documentation.into()],
            ..ExportOptions::default()
        }),
        ..ExportFilesRequest::default()
    };
    let mut places = Vec::new();
    let mut answers = Vec::new();
    for message in server.files(request).await.unwrap() {
        let Message::File(file) = message else { continue };
        assert_eq!(file.error, None, "{}", file.path);
        for inferred in file.types {
            let location = inferred.location.unwrap();
            let position = Position { line: location.line, character: location.character };
            places.push((root.join(&file.path), position));
            answers.push(inferred);
        }
    }
    drop(server);
    assert!(places.len() > names, "{name} has more names than {}", places.len());

    let engine = install::ensure(&engine_cache()).unwrap();
    let client = PlainClient::start(&engine, &root, Path::new(env!("CARGO_BIN_EXE_pyrightd")), None).await.unwrap();
    let mut files: Vec<_> = places.iter().map(|(path, _)| path.clone()).collect();
    files.dedup();
    for file in files {
        client.open(&file).await.unwrap();
    }
    let hovers = client.hovers(&places, 1).await.unwrap();
    client.stop().await;

    let mut differences = Vec::new();
    for ((place, answer), hover) in places.iter().zip(&answers).zip(hovers) {
        let expected = hover.as_deref().unwrap_or_default();
        let same = match answer.outcome() {
            Outcome::Typed => {
                let code = format!("```python\n{}\n```", answer.hover);
                expected.starts_with(&code) && expected.trim_end().ends_with(answer.documentation.trim_end())
            }
            Outcome::NoType => !expected.starts_with("```python\n"),
            _ => false,
        };
        if !same {
            differences.push(format!(
                "{place:?}\n  service: {:?} {}\n  client: {expected}",
                answer.outcome(),
                answer.hover
            ));
        }
    }
    println!("{} of {} names differ\n{}", differences.len(), places.len(), differences.join("\n"));
    assert!(differences.len() <= places.len() / NAMES_FOR_A_DIFFERENCE, "{}", differences.join("\n"));
}
