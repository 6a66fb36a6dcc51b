//! `pyrightd snapshot`: has a server save a project's types, and prints what is kept of them.

use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;
use tonic::transport::Channel;

use super::export::{Detail, Format, Printer, Select, Type, kind, options, told};
use crate::proto;
use crate::proto::delete_snapshots_request::Which;
use crate::proto::diff_snapshots_response::Result as Differs;
use crate::proto::get_snapshot_response::Result as Got;
use crate::proto::snapshot_ref::Ref;
use crate::proto::snapshot_service_client::SnapshotServiceClient;
use crate::proto::update_snapshot_response::Result as Updated;

/// Snapshots asked for at once.
const PAGE: i32 = 1000;

/// What to do with snapshots, and by which server.
#[derive(Args, Clone, Debug)]
pub struct SnapshotArguments {
    /// What to do.
    #[command(subcommand)]
    pub command: SnapshotCommand,
    /// Ask this running server instead of starting one in this process; paths are then the server's
    #[arg(long, value_name = "ADDR", global = true)]
    pub server: Option<String>,
    /// Print one JSON object a line; lines and characters count from zero
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do with snapshots. REF is a snapshot's id, or a project's for its latest; a folder's path is its project's id.
#[derive(Clone, Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Save a project's types; only what changed since its latest snapshot is exported again
    Update {
        /// The project's folder
        path: PathBuf,
        /// The project's id [default: the folder's canonical path]
        #[arg(long, value_name = "ID")]
        project_id: Option<String>,
        /// Which files are exported again
        #[arg(long, value_enum, default_value_t = Scope::Dependents)]
        scope: Scope,
        /// Which names
        #[arg(long, value_enum, default_value_t = Select::Names)]
        select: Select,
        /// Details to save besides
        #[arg(long, value_enum, value_delimiter = ',')]
        details: Vec<Detail>,
    },
    /// List the snapshots of a project, or of all, newest first
    List {
        /// A project's id, or its folder
        project: Option<String>,
    },
    /// Print the types in a snapshot
    Show {
        /// A snapshot's id, or a project's for its latest
        #[arg(value_name = "REF")]
        snapshot: String,
        /// Files, as seen from the project's root [default: all]
        paths: Vec<String>,
    },
    /// Print which types were added (+), removed (-) and modified (~)
    Diff {
        /// A snapshot's id, or a project's for its latest
        from: String,
        /// The same [default: the latest snapshot of the project that FROM is of]
        to: Option<String>,
    },
    /// Delete a snapshot, or all but the latest of a project
    Delete {
        /// A snapshot's id
        #[arg(required_unless_present = "keep", conflicts_with = "keep")]
        id: Option<String>,
        /// How many stay of which project
        #[arg(long, num_args = 2, value_names = ["N", "PROJECT"])]
        keep: Option<Vec<String>>,
    },
    /// Print the stored types at places, without asking Pyright
    Lookup {
        /// A snapshot's id, or a project's for its latest
        #[arg(value_name = "REF")]
        snapshot: String,
        /// A file, as seen from the project's root
        file: String,
        /// Places, both counted from one, with columns in the snapshot's unit: characters where `update` saved it
        #[arg(value_name = "LINE:COL", required = true)]
        places: Vec<String>,
    },
}

/// Which files an update exports again.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Scope {
    /// Changed files, and those whose types could change with them
    Dependents,
    /// Changed files only; types in files that import them can be out of date
    ChangedOnly,
}

/// Does it over this channel and prints to `output`. True if every file is there.
///
/// # Errors
/// Where the request is wrong, the server refuses it, or nothing can be printed.
pub async fn run(
    channel: Channel,
    arguments: &SnapshotArguments,
    output: &mut (impl Write + Send),
) -> anyhow::Result<bool> {
    let client = SnapshotServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    let mut session = Session { client, json: arguments.json, output };
    let complete = match &arguments.command {
        SnapshotCommand::Update { path, project_id, scope, select, details } => {
            let path = path.to_str().context("the project's path is not UTF-8")?.to_owned();
            let scope = match scope {
                Scope::Dependents => proto::UpdateScope::Dependents,
                Scope::ChangedOnly => proto::UpdateScope::ChangedOnly,
            };
            let request = proto::UpdateSnapshotRequest {
                project_id: project_id.clone().unwrap_or_else(|| path.clone()),
                project_root: path,
                base_snapshot_id: String::new(),
                scope: scope.into(),
                selector: select.selector().into(),
                options: Some(options(details)),
            };
            session.update(request).await?
        }
        SnapshotCommand::List { project } => {
            session.list(project.as_deref().map(project_id).unwrap_or_default()).await?;
            true
        }
        SnapshotCommand::Show { snapshot, paths } => session.show(reference(snapshot), paths.clone()).await?,
        SnapshotCommand::Diff { from, to } => {
            session.diff(from, to.as_deref()).await?;
            true
        }
        SnapshotCommand::Delete { id, keep } => {
            session.delete(id.as_deref(), keep.as_deref()).await?;
            true
        }
        SnapshotCommand::Lookup { snapshot, file, places } => session.look_up(snapshot, file, places).await?,
    };
    session.output.flush()?;
    Ok(complete)
}

struct Session<'a, W> {
    client: SnapshotServiceClient<Channel>,
    json: bool,
    output: &'a mut W,
}

impl<W: Write> Session<'_, W> {
    async fn update(&mut self, request: proto::UpdateSnapshotRequest) -> anyhow::Result<bool> {
        let mut messages = self.client.update_snapshot(request).await.map_err(told)?.into_inner();
        let bar = progress();
        let mut complete = true;
        while let Some(message) = messages.message().await.map_err(told)? {
            match message.result {
                Some(Updated::File(file)) => {
                    bar.inc(1);
                    if let Some(error) = &file.error {
                        complete = false;
                        bar.suspend(|| eprintln!("pyrightd: {}: {}", file.path, error.message));
                    }
                }
                Some(Updated::Summary(summary)) => {
                    bar.finish_and_clear();
                    self.updated(summary)?;
                }
                None => {}
            }
        }
        Ok(complete)
    }

    fn updated(&mut self, summary: proto::UpdateSummary) -> anyhow::Result<()> {
        let delta = summary.delta.unwrap_or_default();
        let snapshot = summary.snapshot.unwrap_or_default();
        if self.json {
            return self.line(&json!({
                "snapshot": of_snapshot(&snapshot),
                "base_snapshot_id": summary.base_snapshot_id,
                "changed_files": summary.changed_files,
                "dependent_files": summary.dependent_files,
                "deleted_files": summary.deleted_files,
                "delta": of_delta(delta),
            }));
        }
        writeln!(self.output, "{}", snapshot.snapshot_id)?;
        let elapsed = summary.elapsed.and_then(|elapsed| Duration::try_from(elapsed).ok()).unwrap_or_default();
        eprintln!(
            "{} types in {} files; {} changed, {} dependent and {} deleted files; {}; in {:.1} s",
            snapshot.types,
            snapshot.files,
            summary.changed_files.len(),
            summary.dependent_files.len(),
            summary.deleted_files.len(),
            totals(delta),
            elapsed.as_secs_f64()
        );
        Ok(())
    }

    async fn list(&mut self, project_id: String) -> anyhow::Result<()> {
        let mut request = proto::ListSnapshotsRequest { project_id, page_size: PAGE, page_token: String::new() };
        loop {
            let page = self.client.list_snapshots(request.clone()).await.map_err(told)?.into_inner();
            for snapshot in page.snapshots {
                if self.json {
                    self.line(&of_snapshot(&snapshot))?;
                    continue;
                }
                let proto::Snapshot { snapshot_id, project_id, files, types, commit, .. } = &snapshot;
                let when = saved_at(&snapshot);
                let commit = commit.get(..12).unwrap_or(commit);
                writeln!(
                    self.output,
                    "{snapshot_id}  {when}  {files:>6} files  {types:>8} types  {commit:12}  {project_id}"
                )?;
            }
            if page.next_page_token.is_empty() {
                return Ok(());
            }
            request.page_token = page.next_page_token;
        }
    }

    async fn show(&mut self, snapshot: proto::SnapshotRef, paths: Vec<String>) -> anyhow::Result<bool> {
        let request = proto::GetSnapshotRequest { snapshot: Some(snapshot), paths };
        let mut messages = self.client.get_snapshot(request).await.map_err(told)?.into_inner();
        let mut complete = true;
        let mut printer = printer(self.json, self.output);
        while let Some(message) = messages.message().await.map_err(told)? {
            if let Some(Got::File(file)) = message.result {
                complete &= file.error.is_none();
                printer.file(&file)?;
            }
        }
        Ok(complete)
    }

    async fn diff(&mut self, from: &str, to: Option<&str>) -> anyhow::Result<()> {
        let from = reference(from);
        let to = match to {
            Some(to) => reference(to),
            None => by_project(self.snapshot(from.clone()).await?.project_id),
        };
        let request = proto::DiffSnapshotsRequest { from: Some(from), to: Some(to) };
        let mut messages = self.client.diff_snapshots(request).await.map_err(told)?.into_inner();
        let mut path = None;
        while let Some(message) = messages.message().await.map_err(told)? {
            match message.result {
                Some(Differs::Change(change)) if self.json => {
                    let side = |inferred: &'_ Option<proto::InferredType>| {
                        let inferred = inferred.as_ref()?;
                        Some(serde_json::to_value(Type::new(None, inferred)))
                    };
                    let (before, after) = (side(&change.before).transpose()?, side(&change.after).transpose()?);
                    self.line(&json!({ "path": change.path, "before": before, "after": after }))?;
                }
                Some(Differs::Change(change)) => {
                    if path.as_ref() != Some(&change.path) {
                        let gap = if path.is_some() { "\n" } else { "" };
                        writeln!(self.output, "{gap}{}", change.path)?;
                    }
                    writeln!(self.output, "  {}", in_words(&change))?;
                    path = Some(change.path);
                }
                Some(Differs::Stats(stats)) if self.json => self.line(&json!({ "stats": of_delta(stats) }))?,
                Some(Differs::Stats(stats)) => {
                    writeln!(self.output, "{}{}", if path.is_some() { "\n" } else { "" }, totals(stats))?;
                }
                None => {}
            }
        }
        Ok(())
    }

    async fn delete(&mut self, id: Option<&str>, keep: Option<&[String]>) -> anyhow::Result<()> {
        let which = match (id, keep) {
            (Some(id), _) => Which::SnapshotId(id.to_owned()),
            (None, Some([count, project])) => {
                let count = count.parse().with_context(|| format!("{count} is no number of snapshots"))?;
                Which::KeepLatest(proto::KeepLatest { project_id: project_id(project), count })
            }
            _ => bail!("name a snapshot, or how many are kept"),
        };
        let request = proto::DeleteSnapshotsRequest { which: Some(which) };
        let deleted = self.client.delete_snapshots(request).await.map_err(told)?.into_inner().deleted;
        if self.json {
            return self.line(&json!({ "deleted": deleted }));
        }
        eprintln!("{deleted} deleted");
        Ok(())
    }

    async fn look_up(&mut self, snapshot: &str, file: &str, places: &[String]) -> anyhow::Result<bool> {
        let locations = places.iter().map(|text| place(text).with_context(|| format!("{text} is not LINE:COL")));
        let locations = locations.collect::<anyhow::Result<_>>()?;
        let snapshot = self.snapshot(reference(snapshot)).await?;
        let file = proto::FileLocations { path: file.to_owned(), locations, ..proto::FileLocations::default() };
        let request = proto::LookupTypesRequest {
            position_encoding: snapshot.position_encoding,
            snapshot: Some(by_id(snapshot.snapshot_id)),
            files: vec![file],
        };
        let files = self.client.lookup_types(request).await.map_err(told)?.into_inner().files;
        let mut printer = printer(self.json, self.output);
        files.iter().try_for_each(|file| printer.file(file))?;
        Ok(files.iter().all(|file| file.error.is_none()))
    }

    /// The snapshot that a reference stands for.
    async fn snapshot(&mut self, snapshot: proto::SnapshotRef) -> anyhow::Result<proto::Snapshot> {
        let request = proto::GetSnapshotRequest { snapshot: Some(snapshot), paths: Vec::new() };
        // It comes first, and the rest is not waited for.
        let mut messages = self.client.get_snapshot(request).await.map_err(told)?.into_inner();
        match messages.message().await.map_err(told)?.and_then(|message| message.result) {
            Some(Got::Snapshot(snapshot)) => Ok(snapshot),
            _ => bail!("the server did not tell of the snapshot first"),
        }
    }

    fn line(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        serde_json::to_writer(&mut *self.output, value)?;
        Ok(writeln!(self.output)?)
    }
}

fn printer<W>(json: bool, output: &mut W) -> Printer<'_, W> {
    Printer { format: if json { Format::Ndjson } else { Format::Table }, first: true, output }
}

fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {pos} files, {elapsed}");
    ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

/// A snapshot's id is a UUID; all else names a project.
fn reference(text: &str) -> proto::SnapshotRef {
    if uuid::Uuid::try_parse(text).is_ok() { by_id(text.to_owned()) } else { by_project(project_id(text)) }
}

fn by_id(id: String) -> proto::SnapshotRef {
    proto::SnapshotRef { r#ref: Some(Ref::SnapshotId(id)) }
}

fn by_project(project_id: String) -> proto::SnapshotRef {
    proto::SnapshotRef { r#ref: Some(Ref::ProjectId(project_id)) }
}

/// A project's id as it is, or that of a folder that is named by a path, such as `.`.
fn project_id(text: &str) -> String {
    let is_path = text.contains('/') || text == "." || text == "..";
    let canonical = is_path.then(|| Path::new(text).canonicalize().ok()).flatten();
    canonical.and_then(|path| path.to_str().map(str::to_owned)).unwrap_or_else(|| text.to_owned())
}

fn place(text: &str) -> Option<proto::Position> {
    let (line, column) = text.split_once(':')?;
    let from_one = |number: &str| number.parse::<u32>().ok()?.checked_sub(1);
    Some(proto::Position { line: from_one(line)?, character: from_one(column)? })
}

/// As `~ 3:1 count: int -> float`.
fn in_words(change: &proto::TypeChange) -> String {
    let place = |inferred: &proto::InferredType| {
        let start = inferred.location.unwrap_or_default();
        format!("{}:{}", start.line + 1, start.character + 1)
    };
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => {
            let kinds = if before.kind == after.kind {
                String::new()
            } else {
                format!(" ({} now {})", kind(before), kind(after))
            };
            format!("~ {} {}: {} -> {}{kinds}", place(after), after.name, before.r#type, after.r#type)
        }
        (Some(before), None) => format!("- {} {}: {}", place(before), before.name, before.r#type),
        (None, Some(after)) => format!("+ {} {}: {}", place(after), after.name, after.r#type),
        (None, None) => String::new(),
    }
}

fn totals(proto::DeltaStats { added, removed, modified }: proto::DeltaStats) -> String {
    format!("{added} added, {removed} removed, {modified} modified")
}

fn of_delta(proto::DeltaStats { added, removed, modified }: proto::DeltaStats) -> serde_json::Value {
    json!({ "added": added, "removed": removed, "modified": modified })
}

fn saved_at(snapshot: &proto::Snapshot) -> String {
    let time = snapshot.created_at.and_then(|time| SystemTime::try_from(time).ok());
    humantime::format_rfc3339_seconds(time.unwrap_or(SystemTime::UNIX_EPOCH)).to_string()
}

fn of_snapshot(snapshot: &proto::Snapshot) -> serde_json::Value {
    let details = snapshot.details().map(|detail| detail.as_str_name()).collect::<Vec<_>>();
    json!({
        "snapshot_id": snapshot.snapshot_id,
        "project_id": snapshot.project_id,
        "created_at": saved_at(snapshot),
        "files": snapshot.files,
        "types": snapshot.types,
        "engine": snapshot.engine,
        "commit": snapshot.commit,
        "selector": snapshot.selector().as_str_name(),
        "position_encoding": snapshot.position_encoding().as_str_name(),
        "details": details,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_snapshots_id_or_a_projects() {
        let id = "0198c0de-0000-7000-8000-000000000000";
        assert_eq!(reference(id), by_id(id.into()));
        assert_eq!(reference("mine"), by_project("mine".into()));
        assert_eq!(reference("/no/where"), by_project("/no/where".into()));
        let here = Path::new(".").canonicalize().unwrap();
        assert_eq!(reference("./."), by_project(here.to_str().unwrap().into()));
    }

    #[test]
    fn places_count_from_one() {
        assert_eq!(place("3:1"), Some(proto::Position { line: 2, character: 0 }));
        for wrong in ["", "3", "0:1", "1:0", "a:1", "1:2:3"] {
            assert_eq!(place(wrong), None, "{wrong}");
        }
    }
}
