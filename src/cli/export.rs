//! `pyrightd export`: asks a server for types and prints them.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tonic::transport::Channel;

use crate::proto;
use crate::proto::export_files_response::Result as Message;
use crate::proto::export_service_client::ExportServiceClient;
use crate::proto::project_service_client::ProjectServiceClient;

/// What to export, and how to print it.
#[derive(Args, Clone, Debug)]
pub struct ExportArguments {
    /// A project's folder, a folder in it, or a Python file
    pub path: PathBuf,
    /// Which names, where no locations are given
    #[arg(long, value_enum, default_value_t = Select::Names)]
    pub select: Select,
    /// A location, as `FILE:LINE:COL` with both counted from one, in characters; may be given often
    #[arg(long, value_name = "FILE:LINE:COL", num_args = 1..)]
    pub at: Vec<String>,
    /// How types are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Details to print besides
    #[arg(long, value_enum, value_delimiter = ',')]
    pub details: Vec<Detail>,
    /// The project's root [default: the nearest folder above PATH with pyproject.toml, pyrightconfig.json or .git]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// A virtual environment whose packages imports resolve through [default: the configuration's, else .venv or venv in the root]
    #[arg(long, value_name = "DIR")]
    pub venv: Option<PathBuf>,
    /// Ask this running server instead of starting one in this process; paths are then the server's
    #[arg(long, value_name = "ADDR")]
    pub server: Option<String>,
}

/// Which names are picked.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Select {
    /// Every identifier
    Names,
    /// Functions, classes, parameters and assigned variables
    Declarations,
}

/// How types are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns, a block a file; lines and columns count from one
    Table,
    /// One JSON document with all files; lines and characters count from zero
    Json,
    /// One JSON object a type, a line each; lines and characters count from zero
    Ndjson,
}

/// What is printed besides.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Detail {
    /// The code of the hover
    Hover,
    /// The docstring
    Documentation,
    /// Where the name is declared
    Definitions,
}

impl Select {
    pub(super) fn selector(self) -> proto::Selector {
        match self {
            Self::Names => proto::Selector::Names,
            Self::Declarations => proto::Selector::Declarations,
        }
    }
}

/// With columns in characters, as a person counts.
pub(super) fn options(details: &[Detail]) -> proto::ExportOptions {
    let details = details.iter().map(|detail| match detail {
        Detail::Hover => proto::Detail::Hover.into(),
        Detail::Documentation => proto::Detail::Documentation.into(),
        Detail::Definitions => proto::Detail::Definitions.into(),
    });
    let position_encoding = proto::PositionEncoding::Utf32.into();
    proto::ExportOptions { position_encoding, details: details.collect(), max_in_flight: 0 }
}

/// Exports over this channel and prints to `output`. True if every file could be exported.
///
/// # Errors
/// Where the request is wrong, the server refuses it, or nothing can be printed.
pub async fn run(
    channel: Channel,
    arguments: &ExportArguments,
    root: &Path,
    output: &mut (impl Write + Send),
) -> anyhow::Result<bool> {
    let project_root = root.to_str().context("the project's path is not UTF-8")?.to_owned();
    if let Some(venv) = &arguments.venv {
        let venv = std::path::absolute(venv)?.to_str().context("the environment's path is not UTF-8")?.to_owned();
        let settings = Some(proto::ProjectSettings { venv, ..proto::ProjectSettings::default() });
        let request = proto::OpenProjectRequest { project_root: project_root.clone(), settings };
        ProjectServiceClient::new(channel.clone()).open_project(request).await.map_err(told)?;
    }
    let request = proto::ExportFilesRequest {
        project_root,
        files: files(arguments, root)?,
        default_selector: arguments.select.selector().into(),
        options: Some(options(&arguments.details)),
        save_as_project_id: String::new(),
    };
    let mut client = ExportServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    let mut messages = client.export_files(request).await.map_err(told)?.into_inner();
    let bar = progress_bar();
    let mut printer = Printer { format: arguments.format, first: true, output };
    let mut complete = true;
    while let Some(message) = messages.message().await.map_err(told)? {
        match message.result {
            Some(Message::File(file)) => {
                bar.inc(1);
                complete &= file.error.is_none();
                bar.suspend(|| printer.file(&file))?;
            }
            Some(Message::Progress(progress)) => bar.set_length(progress.files_total.into()),
            Some(Message::Summary(summary)) => {
                bar.finish_and_clear();
                printer.end(&summary)?;
            }
            None => {}
        }
    }
    Ok(complete)
}

/// A status as words for a person.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(super) fn told(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{} ({:?})", status.message(), status.code())
}

fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} files, {elapsed}");
    ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The files to name in the request; none means the whole project.
fn files(arguments: &ExportArguments, root: &Path) -> anyhow::Result<Vec<proto::FileLocations>> {
    if !arguments.at.is_empty() {
        let mut places = BTreeMap::<String, Vec<proto::Position>>::new();
        for text in &arguments.at {
            let (file, position) = location(text).with_context(|| format!("--at {text} is not FILE:LINE:COL"))?;
            places.entry(relative(root, &file)?).or_default().push(position);
        }
        let file = |(path, locations)| proto::FileLocations { path, locations, ..proto::FileLocations::default() };
        return Ok(places.into_iter().map(file).collect());
    }
    let path = std::path::absolute(&arguments.path)?;
    let path = path.canonicalize().unwrap_or(path);
    if path == root {
        return Ok(Vec::new());
    }
    let named = |path: PathBuf| -> anyhow::Result<proto::FileLocations> {
        Ok(proto::FileLocations { path: relative(root, &path)?, ..proto::FileLocations::default() })
    };
    if path.is_dir() {
        let place = crate::workspace::tree::Place { folder: path.clone(), packages: false };
        let tree = crate::workspace::tree::Tree::scan(vec![place]);
        let files: Vec<_> = tree.sources().map(|file| named(file.to_owned())).collect::<Result<_, _>>()?;
        if files.is_empty() {
            bail!("{} holds no Python files", path.display());
        }
        return Ok(files);
    }
    Ok(vec![named(path)?])
}

fn location(text: &str) -> Option<(PathBuf, proto::Position)> {
    let (rest, column) = text.rsplit_once(':')?;
    let (file, line) = rest.rsplit_once(':')?;
    let from_one = |number: &str| number.parse::<u32>().ok()?.checked_sub(1);
    Some((file.into(), proto::Position { line: from_one(line)?, character: from_one(column)? }))
}

/// As seen from the root, whether it was named from there or from the working folder.
fn relative(root: &Path, file: &Path) -> anyhow::Result<String> {
    let absolute = std::path::absolute(file)?;
    let absolute = absolute.canonicalize().unwrap_or(absolute);
    let relative = match absolute.strip_prefix(root) {
        Ok(relative) => relative,
        Err(_) if file.is_relative() => file,
        Err(_) => bail!("{} is not below the project's root {}", file.display(), root.display()),
    };
    Ok(relative.to_str().context("a path is not UTF-8")?.to_owned())
}

/// Prints files, one after the other.
pub(super) struct Printer<'a, W> {
    pub(super) format: Format,
    pub(super) first: bool,
    pub(super) output: &'a mut W,
}

/// One type, as JSON.
#[derive(Serialize)]
pub(super) struct Type<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    line: u32,
    character: u32,
    outcome: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    kind: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    #[serde(rename = "type")]
    text: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    hover: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    documentation: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    definitions: Vec<Defined<'a>>,
}

#[derive(Serialize)]
struct Defined<'a> {
    path: &'a str,
    line: u32,
    character: u32,
}

#[derive(Serialize)]
struct File<'a> {
    path: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    sha256: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    types: Vec<Type<'a>>,
}

impl<'a> Type<'a> {
    pub(super) fn new(path: Option<&'a str>, inferred: &'a proto::InferredType) -> Self {
        let start = inferred.location.unwrap_or_default();
        let definitions = inferred.definitions.iter().map(|definition| {
            let start = definition.range.and_then(|range| range.start).unwrap_or_default();
            Defined { path: &definition.path, line: start.line, character: start.character }
        });
        Self {
            path,
            line: start.line,
            character: start.character,
            outcome: short(inferred.outcome().as_str_name(), "OUTCOME_"),
            name: &inferred.name,
            kind: kind(inferred),
            text: &inferred.r#type,
            hover: &inferred.hover,
            documentation: &inferred.documentation,
            definitions: definitions.collect(),
        }
    }
}

/// An enum value's name without its prefix, in lower case.
fn short(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase()
}

pub(super) fn kind(inferred: &proto::InferredType) -> String {
    match inferred.kind() {
        proto::SymbolKind::Unspecified => String::new(),
        kind => short(kind.as_str_name(), "SYMBOL_KIND_"),
    }
}

impl<W: Write> Printer<'_, W> {
    pub(super) fn file(&mut self, file: &proto::FileExport) -> anyhow::Result<()> {
        let error = file.error.as_ref().map(|error| error.message.as_str());
        match self.format {
            Format::Table => self.table(file)?,
            Format::Ndjson => {
                for inferred in &file.types {
                    serde_json::to_writer(&mut *self.output, &Type::new(Some(&file.path), inferred))?;
                    writeln!(self.output)?;
                }
            }
            Format::Json => {
                let types = file.types.iter().map(|inferred| Type::new(None, inferred)).collect();
                write!(self.output, "{}", if self.first { "{\"files\":[\n" } else { ",\n" })?;
                serde_json::to_writer(
                    &mut *self.output,
                    &File { path: &file.path, sha256: &file.sha256, error, types },
                )?;
            }
        }
        self.first = false;
        if let Some(error) = error {
            eprintln!("pyrightd: {}: {error}", file.path);
        }
        Ok(())
    }

    fn table(&mut self, file: &proto::FileExport) -> anyhow::Result<()> {
        let rows: Vec<[String; 4]> = file
            .types
            .iter()
            .map(|inferred| {
                let start = inferred.location.unwrap_or_default();
                let place = format!("{}:{}", start.line + 1, start.character + 1);
                let what = match inferred.outcome() {
                    proto::Outcome::Typed => inferred.r#type.clone(),
                    outcome => format!("({})", short(outcome.as_str_name(), "OUTCOME_").replace('_', " ")),
                };
                [place, kind(inferred), inferred.name.clone(), what]
            })
            .collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let (place, kind, name) = (width(0), width(1), width(2).min(40));
        writeln!(self.output, "{}{}", if self.first { "" } else { "\n" }, file.path)?;
        for (row, inferred) in rows.iter().zip(&file.types) {
            writeln!(self.output, "  {:>place$}  {:kind$}  {:name$}  {}", row[0], row[1], row[2], row[3])?;
            for definition in &inferred.definitions {
                let start = definition.range.and_then(|range| range.start).unwrap_or_default();
                writeln!(self.output, "      {}:{}:{}", definition.path, start.line + 1, start.character + 1)?;
            }
            for line in inferred.hover.lines().chain(inferred.documentation.lines()) {
                writeln!(self.output, "      {line}")?;
            }
        }
        Ok(())
    }

    fn end(&mut self, summary: &proto::ExportSummary) -> anyhow::Result<()> {
        if self.format == Format::Json {
            let counts = serde_json::json!({
                "files": summary.files,
                "failed_files": summary.failed_files,
                "locations": summary.locations,
                "typed": summary.typed,
            });
            write!(self.output, "{}\n],\"summary\":{counts}}}\n", if self.first { "{\"files\":[" } else { "" })?;
        }
        self.output.flush()?;
        let seconds =
            summary.elapsed.and_then(|elapsed| std::time::Duration::try_from(elapsed).ok()).unwrap_or_default();
        eprintln!(
            "{} of {} locations typed, in {} files, in {:.1} s",
            summary.typed,
            summary.locations,
            summary.files,
            seconds.as_secs_f64()
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_count_from_one() {
        let (file, position) = location("src/a b.py:3:1").unwrap();
        assert_eq!(file, Path::new("src/a b.py"));
        assert_eq!((position.line, position.character), (2, 0));
        for wrong in ["a.py", "a.py:1", "a.py:0:1", "a.py:1:0", "a.py:x:1"] {
            assert!(location(wrong).is_none(), "{wrong}");
        }
    }
}
