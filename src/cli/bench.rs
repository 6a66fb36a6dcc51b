//! `pyrightd bench`: a plain client's hovers, one at a time and many in flight, against this service.
//!
//! Every figure is of a Pyright process of its own, ready but cold, all in one run on one machine.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use tonic::transport::Channel;

use super::chart;
use super::plain::PlainClient;
use crate::model::{Encoding, Position, Selector};
use crate::position::SourceText;
use crate::proto;
use crate::proto::export_files_response::Result as Message;
use crate::proto::export_service_client::ExportServiceClient;
use crate::proto::project_service_client::ProjectServiceClient;
use crate::pyright::install::Engine;
use crate::workspace::names;
use crate::workspace::tree::{Place, Tree};

/// Calls that need nothing of the engine, for their median.
const EMPTY_CALLS: usize = 500;

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct BenchArguments {
    /// A project's folder
    pub path: PathBuf,
    /// Requests that the plain client keeps in flight, beside one at a time
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub in_flight: usize,
    /// How many locations, each in a row of its own; the word `all` for every identifier
    #[arg(long, value_delimiter = ',', default_value = "10,20,50,100,all", value_name = "N,…")]
    pub counts: Vec<Count>,
    /// Also write the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also draw them as an SVG chart
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// A number of locations, or all.
#[derive(Clone, Copy, Debug)]
pub struct Count(Option<usize>);

impl std::str::FromStr for Count {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" { Ok(Self(None)) } else { text.parse().map(|count| Self(Some(count))) }
    }
}

/// The figures of one run.
#[derive(Debug, Serialize)]
struct Figures {
    project: String,
    files: usize,
    locations: usize,
    engine: String,
    cores: usize,
    in_flight: usize,
    rows: Vec<Row>,
    empty_call_p50_microseconds: f64,
    empty_call_p99_microseconds: f64,
}

/// One number of locations, three ways; in seconds.
#[derive(Debug, Serialize)]
struct Row {
    locations: usize,
    one_at_a_time: f64,
    in_flight: f64,
    service: f64,
    /// The part of `service` in which requests were with the engine.
    service_engine: f64,
}

/// Measures and prints a table to `output`. The server behind `channel` must allow the project and run `engine`.
///
/// # Errors
/// Where a client or the server fails.
pub async fn run(
    channel: Channel,
    engine: &Engine,
    arguments: &BenchArguments,
    root: &Path,
    output: &mut impl std::io::Write,
) -> anyhow::Result<()> {
    let (files, places) = places(root);
    anyhow::ensure!(!places.is_empty(), "{} holds no Python names", root.display());
    let mut figures = Figures {
        project: root.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        files,
        locations: places.len(),
        engine: engine.version.clone(),
        cores: std::thread::available_parallelism().map_or(1, Into::into),
        in_flight: arguments.in_flight,
        rows: Vec::new(),
        empty_call_p50_microseconds: 0.0,
        empty_call_p99_microseconds: 0.0,
    };
    for Count(count) in &arguments.counts {
        let chosen = spread(&places, count.unwrap_or(places.len()));
        eprintln!("measuring {} locations …", chosen.len());
        let one_at_a_time = plain(engine, root, &chosen, 1).await?.as_secs_f64();
        let in_flight = plain(engine, root, &chosen, arguments.in_flight).await?.as_secs_f64();
        let (service, service_engine) = service(&channel, root, &chosen).await?;
        let (service, service_engine) = (service.as_secs_f64(), service_engine.as_secs_f64());
        figures.rows.push(Row { locations: chosen.len(), one_at_a_time, in_flight, service, service_engine });
    }
    eprintln!("measuring {EMPTY_CALLS} empty calls …");
    let empty = empty_calls(&channel, root, &places[0].0).await?;
    figures.empty_call_p50_microseconds = empty[EMPTY_CALLS / 2].as_secs_f64() * 1e6;
    figures.empty_call_p99_microseconds = empty[EMPTY_CALLS * 99 / 100].as_secs_f64() * 1e6;

    output.write_all(table(&figures).as_bytes())?;
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&figures)?).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &arguments.svg {
        std::fs::write(path, picture(&figures)).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

type Places = Vec<(PathBuf, Position)>;

/// Every identifier of a project, in the engine's columns.
fn places(root: &Path) -> (usize, Places) {
    let tree = Tree::scan(vec![Place { folder: root.to_owned(), packages: false }]);
    let (mut files, mut places) = (0, Vec::new());
    for path in tree.sources() {
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        files += 1;
        let source = SourceText::new(text);
        let names = names::select(source.text(), Selector::Names);
        places.extend(names.iter().map(|name| (path.to_owned(), source.position(name.start, Encoding::Utf16))));
    }
    (files, places)
}

/// So many of them, evenly spread.
fn spread(places: &Places, count: usize) -> Places {
    let count = count.min(places.len());
    (0..count).map(|index| places[index * places.len() / count].clone()).collect()
}

async fn plain(engine: &Engine, root: &Path, places: &Places, in_flight: usize) -> anyhow::Result<Duration> {
    let mut client = PlainClient::start(engine, root, &std::env::current_exe()?).await?;
    let mut paths: Vec<_> = places.iter().map(|(path, _)| path).collect();
    paths.dedup();
    let begun = Instant::now();
    for path in paths {
        client.open(path).await?;
    }
    client.hovers(places, in_flight).await?;
    let elapsed = begun.elapsed();
    client.stop().await;
    Ok(elapsed)
}

async fn service(channel: &Channel, root: &Path, places: &Places) -> anyhow::Result<(Duration, Duration)> {
    let project_root = root.to_str().context("the project's path is not UTF-8")?.to_owned();
    let mut projects = ProjectServiceClient::new(channel.clone());
    let open = proto::OpenProjectRequest { project_root: project_root.clone(), settings: None };
    projects.open_project(open).await?;
    let mut files: Vec<proto::FileLocations> = Vec::new();
    for (path, position) in places {
        let path = path.strip_prefix(root)?.to_str().context("a path is not UTF-8")?;
        if files.last().is_none_or(|file| file.path != path) {
            files.push(proto::FileLocations { path: path.to_owned(), ..proto::FileLocations::default() });
        }
        let location = proto::Position { line: position.line, character: position.character };
        files.last_mut().context("a file was pushed")?.locations.push(location);
    }
    let request =
        proto::ExportFilesRequest { project_root: project_root.clone(), files, ..proto::ExportFilesRequest::default() };
    let mut client = ExportServiceClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
    let begun = Instant::now();
    let mut messages = client.export_files(request).await?.into_inner();
    let mut engine = Duration::ZERO;
    while let Some(message) = messages.message().await? {
        if let Some(Message::Summary(summary)) = message.result {
            engine = summary.engine_elapsed.and_then(|part| part.try_into().ok()).unwrap_or_default();
        }
    }
    let elapsed = begun.elapsed();
    // The next figure is of a cold process too.
    projects.close_project(proto::CloseProjectRequest { project_root }).await?;
    Ok((elapsed, engine))
}

/// Calls about a place outside a file: all of a call but the engine's work. Sorted.
async fn empty_calls(channel: &Channel, root: &Path, path: &Path) -> anyhow::Result<Vec<Duration>> {
    let project_root = root.to_str().context("the project's path is not UTF-8")?.to_owned();
    let open = proto::OpenProjectRequest { project_root: project_root.clone(), settings: None };
    ProjectServiceClient::new(channel.clone()).open_project(open).await?;
    let path = path.strip_prefix(root)?.to_str().context("a path is not UTF-8")?.to_owned();
    let locations = vec![proto::Position { line: u32::MAX, character: 0 }];
    let file = Some(proto::FileLocations { path, locations, ..proto::FileLocations::default() });
    let request = proto::ExportLocationsRequest { project_root, file, options: None };
    let mut client = ExportServiceClient::new(channel.clone());
    let mut times = Vec::with_capacity(EMPTY_CALLS);
    for _ in 0..EMPTY_CALLS {
        let begun = Instant::now();
        client.export_locations(request.clone()).await?;
        times.push(begun.elapsed());
    }
    times.sort();
    Ok(times)
}

/// The figures as a Markdown table.
fn table(figures: &Figures) -> String {
    let Figures { project, files, locations, engine, cores, in_flight, rows, .. } = figures;
    let mut text = format!("{project}: {files} files, {locations} locations; {engine}; {cores} cores\n\n");
    let _ = writeln!(
        text,
        "| locations | hover, one at a time | hover, {in_flight} in flight | pyrightd | of that, engine | one at a time / pyrightd | in flight / pyrightd |"
    );
    text.push_str("|---:|---:|---:|---:|---:|---:|---:|\n");
    for row in rows {
        let _ = writeln!(
            text,
            "| {} | {:.2} s | {:.2} s | {:.2} s | {:.1} % | {:.2} | {:.2} |",
            row.locations,
            row.one_at_a_time,
            row.in_flight,
            row.service,
            row.service_engine / row.service * 100.0,
            row.one_at_a_time / row.service,
            row.in_flight / row.service,
        );
    }
    let _ = writeln!(
        text,
        "\nA call that needs nothing of the engine: p50 {:.0} µs, p99 {:.0} µs",
        figures.empty_call_p50_microseconds, figures.empty_call_p99_microseconds
    );
    text
}

fn picture(figures: &Figures) -> String {
    let groups: Vec<chart::Group> = figures
        .rows
        .iter()
        .map(|row| (row.locations.to_string(), vec![row.one_at_a_time, row.in_flight, row.service]))
        .collect();
    let in_flight = format!("hover, {} in flight", figures.in_flight);
    let title = format!("{}: seconds for so many locations ({})", figures.project, figures.engine);
    chart::bars(&title, "s", &["hover, one at a time", &in_flight, "pyrightd"], &groups)
}
