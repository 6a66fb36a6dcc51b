//! Between the wire's messages and the domain's types, and from the domain's errors to gRPC statuses.
//!
//! The only place that names status codes for errors of the domain.

use std::time::{Duration, SystemTime};

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::export::{self, FileError, FileExport, FileRequest, Options, Places, Progress};
use crate::model::{
    Definition, Details, Encoding, Evaluation, FileTypes, InferredType, Outcome, Position, ProjectRoot,
    ProjectSettings, Range, Selector, SymbolKind,
};
use crate::proto;
use crate::pyright::supervisor::{LeaseError, State, Summary};
use crate::snapshot::{Change, Delta, Form, LookupError, Recorded};
use crate::store::{Snapshot, StoreError};
use crate::update::UpdateError;
use crate::workspace::git::GitError;
use crate::workspace::paths::{AllowedRoots, PathError};

/// How long a caller who was turned away should wait.
const RETRY: Duration = Duration::from_secs(1);
/// The platforms that Pyright knows.
const PLATFORMS: [&str; 3] = ["Linux", "Darwin", "Windows"];

/// A status that names the field at fault.
pub(super) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Status {
    let (field, reason) = (field.into(), reason.into());
    let details = ErrorDetails::with_bad_request_violation(&field, &reason);
    Status::with_error_details(Code::InvalidArgument, format!("{field}: {reason}"), details)
}

/// A status for a path that a field named.
pub(super) fn path_status(field: &str, error: &PathError) -> Status {
    let reason = error.to_string();
    let mut details = ErrorDetails::with_bad_request_violation(field, &reason);
    let code = match error {
        PathError::Empty
        | PathError::NotAbsolute(_)
        | PathError::NotBelowRoot(_)
        | PathError::NotAFolder(_)
        | PathError::NotAFile(_) => Code::InvalidArgument,
        PathError::LeavesRoot(_) | PathError::NotAllowed(_) => Code::PermissionDenied,
        PathError::NotFound(path) => {
            details.set_resource_info("path", path.to_string_lossy(), "", &reason);
            Code::NotFound
        }
        PathError::Unreadable(..) => Code::FailedPrecondition,
    };
    Status::with_error_details(code, format!("{field}: {reason}"), details)
}

/// A status for a project that would have to be open.
pub(super) fn not_open(root: &ProjectRoot) -> Status {
    let reason = format!("{root} is not open");
    let details = ErrorDetails::with_resource_info("project", root.to_string(), "", &reason);
    Status::with_error_details(Code::NotFound, format!("project_root: {reason}"), details)
}

/// A status for what is not there.
fn not_found(kind: &str, name: &str, reason: String) -> Status {
    let details = ErrorDetails::with_resource_info(kind, name, "", &reason);
    Status::with_error_details(Code::NotFound, reason, details)
}

fn failed_precondition(kind: &str, subject: &str, reason: String) -> Status {
    let details = ErrorDetails::with_precondition_failure_violation(kind, subject, &reason);
    Status::with_error_details(Code::FailedPrecondition, reason, details)
}

/// A status for a server that keeps nothing.
pub(super) fn not_kept() -> Status {
    let reason = "the server keeps nothing, and so has no snapshots: start it without --store none".into();
    failed_precondition("STORE", "--store", reason)
}

/// A status for a project of which nothing is kept.
pub(super) fn no_snapshots(project_id: &str) -> Status {
    not_found("project", project_id, format!("there is no snapshot of the project {project_id}"))
}

/// A status for two snapshots that can't be compared.
pub(super) fn other_form(difference: &str) -> Status {
    let reason = format!("the snapshots were exported otherwise, and can't be compared: {difference}");
    failed_precondition("FORM", "to", reason)
}

/// A status for what the store can't do.
pub(super) fn store_status(error: &StoreError) -> Status {
    let reason = error.to_string();
    match error {
        StoreError::Unavailable(_) => {
            Status::with_error_details(Code::Unavailable, reason, ErrorDetails::with_retry_info(Some(RETRY)))
        }
        StoreError::Full(_) => Status::resource_exhausted(reason),
        StoreError::Corrupt(_) => Status::data_loss(reason),
        StoreError::Conflict { .. } | StoreError::Missing(_) => Status::aborted(reason),
        StoreError::NotFound(id) => not_found("snapshot", id, reason),
        StoreError::Newer(_) => failed_precondition("STORE", "--store", reason),
        StoreError::Invalid(_) => Status::invalid_argument(reason),
    }
}

/// A status for a file that can't be looked up in a snapshot.
pub(super) fn lookup_status(error: &LookupError) -> Status {
    let reason = error.to_string();
    match error {
        LookupError::NoFile(path) => not_found("path", path, reason),
        LookupError::Failed(_) => failed_precondition("EXPORT", "file.path", reason),
        LookupError::DigestDiffers { .. } => failed_precondition("DIGEST", "file.expected_sha256", reason),
        LookupError::Overlay => invalid("file.content", reason),
        LookupError::OtherSelector(_) => invalid("file.selector", reason),
    }
}

/// A status for what Git can't tell.
pub(super) fn git_status(error: &GitError) -> Status {
    let reason = error.to_string();
    match error {
        GitError::NoSuchCommit(name) | GitError::NotFetched(name) => not_found("commit", name, reason),
        GitError::NoRepository(_) | GitError::NotAllowed(_) | GitError::Unreadable(_) => {
            failed_precondition("GIT", "project_root", reason)
        }
    }
}

/// A status for a snapshot that was not made.
pub(super) fn update_status(error: &UpdateError) -> Status {
    match error {
        UpdateError::Lease(error) => lease_status(error),
        UpdateError::Store(error) => store_status(error),
        UpdateError::OtherProject { .. } => invalid("base_snapshot_id", error.to_string()),
        UpdateError::KeepsChanging => {
            let details = ErrorDetails::with_retry_info(Some(RETRY));
            Status::with_error_details(Code::Aborted, error.to_string(), details)
        }
    }
}

/// A status for a project without an engine.
pub(super) fn lease_status(error: &LeaseError) -> Status {
    let (code, delay) = match error {
        LeaseError::Broken { retry_after, .. } => (Code::Unavailable, (*retry_after).max(RETRY)),
        LeaseError::Overloaded(_) => (Code::ResourceExhausted, RETRY),
        LeaseError::Closing => (Code::Unavailable, RETRY),
    };
    Status::with_error_details(code, error.to_string(), ErrorDetails::with_retry_info(Some(delay)))
}

/// A status for a file that was not exported.
pub(super) fn file_status(error: &FileError) -> Status {
    let precondition = |kind: &str, subject: &str| failed_precondition(kind, subject, error.to_string());
    match error {
        FileError::Request { field, reason } => invalid(*field, reason),
        FileError::Path(error) => path_status("file.path", error),
        FileError::NotUtf8(_) => precondition("ENCODING", "file.path"),
        FileError::TooLarge(_) => precondition("SIZE", "file.path"),
        FileError::DigestDiffers { .. } => precondition("DIGEST", "file.expected_sha256"),
        FileError::KeepsChanging => {
            let details = ErrorDetails::with_retry_info(Some(RETRY));
            Status::with_error_details(Code::Aborted, error.to_string(), details)
        }
        FileError::Recorded(_) => precondition("EXPORT", "file.path"),
        FileError::Deadly => Status::internal(error.to_string()),
        FileError::Lease(error) => lease_status(error),
    }
}

/// The same as a message within an answer.
fn status_message(status: &Status) -> tonic_types::Status {
    // A status with details carries itself, whole, in that form.
    tonic_types::Status::decode(status.details()).ok().filter(|message| message.code != 0).unwrap_or_else(|| {
        tonic_types::Status { code: status.code().into(), message: status.message().to_owned(), details: Vec::new() }
    })
}

/// A file's request.
///
/// `default` serves where it names neither locations nor a selector.
pub(super) fn file_request(file: proto::FileLocations, default: Option<Selector>) -> Result<FileRequest, FileError> {
    let proto::FileLocations { path, locations, selector, content, expected_sha256 } = file;
    let selector = selector_of(selector).map_err(|reason| FileError::Request { field: "file.selector", reason })?;
    let places = if !locations.is_empty() {
        Places::At(locations.into_iter().map(position_of).collect())
    } else if let Some(selector) = selector.or(default) {
        Places::Selected(selector)
    } else {
        let reason =
            "there is nothing to export: name locations, or set a selector to have the server pick them".into();
        return Err(FileError::Request { field: "file.locations", reason });
    };
    let expected = (!expected_sha256.is_empty()).then_some(expected_sha256);
    if let Some(expected) = &expected
        && (expected.len() != 64 || !expected.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        let reason = "a SHA-256 is 64 hexadecimal digits".into();
        return Err(FileError::Request { field: "file.expected_sha256", reason });
    }
    Ok(FileRequest { path, places, content, expected })
}

/// A selector; none where it is unspecified.
pub(super) fn selector_of(value: i32) -> Result<Option<Selector>, String> {
    match proto::Selector::try_from(value) {
        Ok(proto::Selector::Unspecified) => Ok(None),
        Ok(proto::Selector::Declarations) => Ok(Some(Selector::Declarations)),
        Ok(proto::Selector::Names) => Ok(Some(Selector::Names)),
        Err(_) => Err(format!("{value} is no value of pyrightd.v1.Selector")),
    }
}

/// How answers are to look.
pub(super) fn options_of(options: Option<&proto::ExportOptions>, max_in_flight: usize) -> Result<Options, Status> {
    let options = options.cloned().unwrap_or_default();
    let encoding = encoding_of("options.position_encoding", options.position_encoding)?;
    let mut details = Details::default();
    for (index, value) in options.details.into_iter().enumerate() {
        match proto::Detail::try_from(value) {
            Ok(proto::Detail::Unspecified) => {}
            Ok(proto::Detail::Hover) => details.hover = true,
            Ok(proto::Detail::Documentation) => details.documentation = true,
            Ok(proto::Detail::Definitions) => details.definitions = true,
            Err(_) => {
                let reason = format!("{value} is no value of pyrightd.v1.Detail");
                return Err(invalid(format!("options.details[{index}]"), reason));
            }
        }
    }
    let window = match options.max_in_flight {
        0 => max_in_flight,
        wanted => usize::try_from(wanted).unwrap_or(max_in_flight).min(max_in_flight),
    };
    Ok(Options { encoding, details, window })
}

/// The unit of columns that a field names.
pub(super) fn encoding_of(field: &str, value: i32) -> Result<Encoding, Status> {
    match proto::PositionEncoding::try_from(value) {
        Ok(proto::PositionEncoding::Unspecified | proto::PositionEncoding::Utf16) => Ok(Encoding::Utf16),
        Ok(proto::PositionEncoding::Utf8) => Ok(Encoding::Utf8),
        Ok(proto::PositionEncoding::Utf32) => Ok(Encoding::Utf32),
        Err(_) => Err(invalid(field, format!("{value} is no value of pyrightd.v1.PositionEncoding"))),
    }
}

/// A project's settings, with their paths made canonical and checked.
pub(super) fn settings_of(
    settings: Option<proto::ProjectSettings>,
    roots: &AllowedRoots,
) -> Result<ProjectSettings, Status> {
    let settings = settings.unwrap_or_default();
    let folder = |field: &str, named: &str| roots.folder(named).map_err(|error| path_status(field, &error));
    let named = |text: String| (!text.is_empty()).then_some(text);
    let python_version = named(settings.python_version);
    if let Some(version) = &python_version {
        let minor = version.strip_prefix("3.").and_then(|minor| minor.parse::<u8>().ok());
        if minor.is_none() {
            return Err(invalid("settings.python_version", format!("{version:?} is no version such as \"3.12\"")));
        }
    }
    let python_platform = named(settings.python_platform);
    if let Some(platform) = &python_platform
        && !PLATFORMS.contains(&platform.as_str())
    {
        return Err(invalid("settings.python_platform", format!("{platform:?} is none of {}", PLATFORMS.join(", "))));
    }
    let venv = named(settings.venv).map(|path| folder("settings.venv", &path)).transpose()?;
    if let Some(venv) = &venv
        && !crate::workspace::environment::is_environment(venv, |_| true)
    {
        return Err(invalid("settings.venv", format!("{} is no virtual environment", venv.display())));
    }
    let extra_paths = settings
        .extra_paths
        .iter()
        .enumerate()
        .map(|(index, path)| folder(&format!("settings.extra_paths[{index}]"), path))
        .collect::<Result<_, _>>()?;
    let stub_path = named(settings.stub_path).map(|path| folder("settings.stub_path", &path)).transpose()?;
    Ok(ProjectSettings { python_version, python_platform, venv, extra_paths, stub_path })
}

/// A file's answer as a message.
pub(super) fn file_message(path: String, result: Result<FileExport, FileError>) -> proto::FileExport {
    match result {
        Ok(FileExport { file, cached, elapsed, engine_elapsed }) => proto::FileExport {
            cached,
            elapsed: duration_message(elapsed),
            engine_elapsed: duration_message(engine_elapsed),
            ..types_message(path, file)
        },
        Err(error) => failed_file_message(path, &file_status(&error)),
    }
}

/// What is known of a file, as a message.
pub(super) fn types_message(path: String, file: FileTypes) -> proto::FileExport {
    let FileTypes { digest, types, evaluation } = file;
    proto::FileExport {
        path,
        sha256: digest.as_str().to_owned(),
        types: types.into_iter().map(type_message).collect(),
        evaluation: evaluation_message(evaluation).into(),
        ..proto::FileExport::default()
    }
}

/// What a snapshot records of a file, as a message.
pub(super) fn recorded_message(path: String, recorded: Recorded) -> proto::FileExport {
    match recorded.types() {
        Ok(file) => proto::FileExport { cached: true, ..types_message(path, file) },
        Err(error) => failed_file_message(path, &lookup_status(&error)),
    }
}

/// A snapshot, as a message.
pub(super) fn snapshot_message(snapshot: Snapshot) -> proto::Snapshot {
    // One whose form is damaged can still be listed, and deleted.
    let form = Form::from_bytes(&snapshot.details);
    let details = form.map(|form| form.details).unwrap_or_default();
    let details = [
        (details.hover, proto::Detail::Hover),
        (details.documentation, proto::Detail::Documentation),
        (details.definitions, proto::Detail::Definitions),
    ];
    proto::Snapshot {
        snapshot_id: snapshot.id,
        project_id: snapshot.project_id,
        created_at: Some(timestamp_message(snapshot.created_at)),
        files: snapshot.files,
        types: snapshot.types,
        engine: snapshot.engine,
        commit: snapshot.commit.unwrap_or_default(),
        selector: form.map_or(0, |form| selector_message(form.selector).into()),
        position_encoding: form.map_or(0, |form| encoding_message(form.encoding).into()),
        details: details.into_iter().filter_map(|(is_set, detail)| is_set.then_some(detail.into())).collect(),
    }
}

/// A type that changed, as a message.
pub(super) fn change_message(path: String, change: Change<'_>) -> proto::TypeChange {
    let side = |inferred: Option<&InferredType>| inferred.cloned().map(type_message);
    proto::TypeChange { path, before: side(change.before), after: side(change.after) }
}

/// How many types changed, as a message.
pub(super) fn delta_message(Delta { added, removed, modified }: Delta) -> proto::DeltaStats {
    proto::DeltaStats { added, removed, modified }
}

fn selector_message(selector: Selector) -> proto::Selector {
    match selector {
        Selector::Declarations => proto::Selector::Declarations,
        Selector::Names => proto::Selector::Names,
    }
}

/// A unit of columns, as a message.
pub(super) fn encoding_message(encoding: Encoding) -> proto::PositionEncoding {
    match encoding {
        Encoding::Utf8 => proto::PositionEncoding::Utf8,
        Encoding::Utf16 => proto::PositionEncoding::Utf16,
        Encoding::Utf32 => proto::PositionEncoding::Utf32,
    }
}

/// A file that failed, as a message.
pub(super) fn failed_file_message(path: String, status: &Status) -> proto::FileExport {
    proto::FileExport { path, error: Some(status_message(status)), ..proto::FileExport::default() }
}

/// How far a stream is, as a message.
pub(super) fn progress_message(progress: Progress) -> proto::ExportProgress {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    proto::ExportProgress {
        files_done: count(progress.files_done),
        files_total: count(progress.files_total),
        locations_done: progress.locations_done as u64,
        locations_total: progress.locations_total as u64,
    }
}

/// A project, as a message.
pub(super) fn project_message(summary: &Summary) -> proto::Project {
    use proto::ProjectState;
    let session = match &summary.state {
        State::Ready(session) => Some(session),
        _ => None,
    };
    let state = match &summary.state {
        State::Starting => ProjectState::Starting,
        State::Ready(_) => ProjectState::Ready,
        State::Restarting => ProjectState::Restarting,
        State::Broken { .. } => ProjectState::Broken,
        State::Stopping | State::Stopped => ProjectState::Stopping,
    };
    let settings = &summary.settings;
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    proto::Project {
        project_root: text(summary.root.path()),
        state: state.into(),
        settings: Some(proto::ProjectSettings {
            python_version: settings.python_version.clone().unwrap_or_default(),
            python_platform: settings.python_platform.clone().unwrap_or_default(),
            venv: settings.venv.as_deref().map(text).unwrap_or_default(),
            extra_paths: settings.extra_paths.iter().map(|path| text(path)).collect(),
            stub_path: settings.stub_path.as_deref().map(text).unwrap_or_default(),
        }),
        engine: summary.version.clone(),
        batch: session.is_some_and(|session| session.is_batch()),
        process_id: summary.process.unwrap_or_default(),
        resident_bytes: summary.resident_bytes.unwrap_or_default(),
        generation: summary.generation,
        source_files: session.map_or(0, |session| session.source_files()),
        in_flight: session.map_or(0, |session| session.in_flight()),
        waiting: session.map_or(0, |session| session.waiting()),
        last_used_at: Some(timestamp_message(summary.last_used)),
        evaluation: session.map_or(0, |session| evaluation_message(session.evaluation()).into()),
    }
}

/// A duration, as a message.
pub(super) fn duration_message(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

fn timestamp_message(time: SystemTime) -> prost_types::Timestamp {
    time.into()
}

fn type_message(inferred: InferredType) -> proto::InferredType {
    let InferredType { location, outcome, range, name, symbol, definitions } = inferred;
    let outcome = match outcome {
        Outcome::Typed => proto::Outcome::Typed,
        Outcome::NoType => proto::Outcome::NoType,
        Outcome::InvalidLocation => proto::Outcome::InvalidLocation,
        Outcome::Failed => proto::Outcome::Failed,
    };
    proto::InferredType {
        location: Some(position_message(location)),
        outcome: outcome.into(),
        range: range.map(range_message),
        name,
        kind: kind_message(symbol.kind).into(),
        r#type: symbol.type_text,
        hover: symbol.hover,
        documentation: symbol.documentation,
        definitions: definitions.into_iter().map(definition_message).collect(),
    }
}

fn evaluation_message(evaluation: Evaluation) -> proto::Evaluation {
    match evaluation {
        Evaluation::Isolated => proto::Evaluation::Isolated,
        Evaluation::Shared => proto::Evaluation::Shared,
    }
}

fn kind_message(kind: SymbolKind) -> proto::SymbolKind {
    match kind {
        SymbolKind::Unspecified => proto::SymbolKind::Unspecified,
        SymbolKind::Variable => proto::SymbolKind::Variable,
        SymbolKind::Constant => proto::SymbolKind::Constant,
        SymbolKind::Parameter => proto::SymbolKind::Parameter,
        SymbolKind::Function => proto::SymbolKind::Function,
        SymbolKind::Method => proto::SymbolKind::Method,
        SymbolKind::Property => proto::SymbolKind::Property,
        SymbolKind::Class => proto::SymbolKind::Class,
        SymbolKind::Module => proto::SymbolKind::Module,
        SymbolKind::TypeParameter => proto::SymbolKind::TypeParameter,
        SymbolKind::TypeAlias => proto::SymbolKind::TypeAlias,
    }
}

fn definition_message(Definition { path, range }: Definition) -> proto::Definition {
    proto::Definition { path: path.to_string_lossy().into_owned(), range: Some(range_message(range)) }
}

fn range_message(Range { start, end }: Range) -> proto::Range {
    proto::Range { start: Some(position_message(start)), end: Some(position_message(end)) }
}

fn position_message(Position { line, character }: Position) -> proto::Position {
    proto::Position { line, character }
}

fn position_of(proto::Position { line, character }: proto::Position) -> Position {
    Position { line, character }
}

/// A stream's last word, as a message.
pub(super) fn summary_message(tally: &super::call::Tally, elapsed: Duration) -> proto::ExportSummary {
    proto::ExportSummary {
        files: tally.files,
        failed_files: tally.failed_files,
        cached_files: tally.cached_files,
        locations: tally.locations,
        typed: tally.typed,
        elapsed: duration_message(elapsed),
        snapshot_id: String::new(),
        engine_elapsed: duration_message(tally.engine),
    }
}

/// An event of a stream, as a message; the tally counts it.
pub(super) fn event_message(event: export::Event) -> proto::export_files_response::Result {
    match event {
        export::Event::File { path, result } => proto::export_files_response::Result::File(file_message(path, result)),
        export::Event::Progress(progress) => proto::export_files_response::Result::Progress(progress_message(progress)),
    }
}
