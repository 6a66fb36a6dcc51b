//! Exporting types: of one file, or of many as a stream of events.
//!
//! Domain types in, domain types out. How they came over the wire, and how the engine runs, is left to others.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::model::{
    Definition, Details, Digest, Encoding, Evaluation, InferredType, Outcome, Position, ProjectRoot, Range, Selector,
    Symbol,
};
use crate::position::SourceText;
use crate::pyright::batch::{Answer, Extras};
use crate::pyright::infer::infer;
use crate::pyright::registry::Registry;
use crate::pyright::session::{Document, SessionError};
use crate::pyright::supervisor::{Lease, LeaseError};
use crate::workspace::names;
use crate::workspace::paths::{self, PathError};

/// The largest file that Pyright reads, in bytes; see `maxSourceFileSize` in its `sourceFile.ts`.
const MAX_FILE: u64 = 50 * 1024 * 1024;
/// How often a file that changes while it is asked about is begun anew.
const MAX_CHANGES: u32 = 3;
/// After this many engines died on a file, it is not tried again.
const MAX_DEATHS: u32 = 2;
/// Files that are read ahead of the engine.
const READ_AHEAD: usize = 2;
/// Files that are with the engine at once, so that it has work while an answer is read and sent on.
const UNDER_WAY: usize = 2;
/// At most one progress event in this time.
const PROGRESS: Duration = Duration::from_millis(250);
/// Other files' texts kept for converting definitions' columns, per file asked about.
const MAX_TEXTS: usize = 64;

/// One file and what to say of it.
#[derive(Clone, Debug)]
pub struct FileRequest {
    /// Relative to the root.
    pub path: String,
    /// Where to look.
    pub places: Places,
    /// A text to use instead of the one on disk.
    pub content: Option<String>,
    /// What the file's digest has to be.
    pub expected: Option<String>,
}

/// A path as it was asked for, and the request, if that could be read.
pub type NamedRequest = (String, Result<FileRequest, FileError>);

/// Which places of a file are asked about.
#[derive(Clone, Debug)]
pub enum Places {
    /// These.
    At(Vec<Position>),
    /// All names of a kind.
    Selected(Selector),
}

/// How answers are to look.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The unit of all columns.
    pub encoding: Encoding,
    /// What to return besides.
    pub details: Details,
    /// Requests of this call under way at once.
    pub window: usize,
}

/// A file's answer.
#[derive(Debug)]
pub struct FileExport {
    /// Of the bytes that were analysed.
    pub digest: Digest,
    /// In the order asked for.
    pub types: Vec<InferredType>,
    /// What may show in them.
    pub evaluation: Evaluation,
    /// From the request's turn to its answer.
    pub elapsed: Duration,
    /// The part of that in which requests were with the engine.
    pub engine_elapsed: Duration,
}

/// Why a file as a whole was not exported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The request itself is wrong.
    #[error("{reason}")]
    Request {
        /// Within the file's message.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The path leads nowhere it may.
    #[error("{0}")]
    Path(#[from] PathError),
    /// Types are told of text in UTF-8 alone.
    #[error("the file is not UTF-8: byte {0} begins no character")]
    NotUtf8(usize),
    /// The engine reads no file of this size.
    #[error("the file has {0} bytes; at most {MAX_FILE} are read")]
    TooLarge(u64),
    /// The caller's locations are of other bytes.
    #[error(
        "the file's SHA-256 is {actual}, not the expected one: its bytes changed, or locations were taken from others"
    )]
    DigestDiffers {
        /// Of the bytes on disk.
        actual: String,
    },
    /// It was not the same for long enough to be asked about.
    #[error("the file changed {MAX_CHANGES} times while it was asked about; ask again when it is quiet")]
    KeepsChanging,
    /// Engines die on it.
    #[error("Pyright's process ended {MAX_DEATHS} times while it was asked about this file; the server's log has more")]
    Deadly,
    /// There is no engine.
    #[error("{0}")]
    Lease(#[from] LeaseError),
}

/// What a stream of files tells.
#[derive(Debug)]
pub enum Event {
    /// A file is done.
    File {
        /// As it was asked for.
        path: String,
        /// How it turned out.
        result: Result<FileExport, FileError>,
    },
    /// How far it is.
    Progress(Progress),
}

/// How far a stream of files is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Done.
    pub files_done: usize,
    /// Asked for.
    pub files_total: usize,
    /// In files that are done.
    pub locations_done: usize,
    /// In files that are done or read.
    pub locations_total: usize,
}

/// Answers exports from the registry's engines.
#[derive(Debug)]
pub struct Exporter {
    registry: Arc<Registry>,
}

impl Exporter {
    /// An exporter over these engines.
    #[must_use]
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }

    /// A hold on a project, for one call.
    ///
    /// # Errors
    /// As [`Registry::lease`].
    pub async fn lease(&self, root: &ProjectRoot) -> Result<Lease, LeaseError> {
        self.registry.lease(root).await
    }

    /// The types of one file.
    ///
    /// # Errors
    /// Each [`FileError`].
    ///
    /// # Cancel safety
    /// Dropped, it leaves nothing under way.
    pub async fn file(
        &self,
        lease: &Lease,
        root: &ProjectRoot,
        request: FileRequest,
        options: Options,
    ) -> Result<FileExport, FileError> {
        let begun = Instant::now();
        let request = Arc::new(request);
        let loaded = load(root.clone(), Arc::clone(&request), options.encoding).await;
        answer(lease, root, request, loaded, options, begun).await
    }

    /// The types of many files, each sent as soon as it is ready. A file that fails does not stop the others.
    ///
    /// Ends early where nobody receives.
    ///
    /// # Cancel safety
    /// Dropped, it leaves nothing under way.
    pub async fn files(
        &self,
        lease: &Lease,
        root: &ProjectRoot,
        requests: Vec<NamedRequest>,
        options: Options,
        events: &mpsc::Sender<Event>,
    ) -> Progress {
        let mut progress = Progress { files_total: requests.len(), ..Progress::default() };
        let mut told = Instant::now();
        // By hovers, one file's fill the call's share of the engine.
        let batch = lease.session().await.is_ok_and(|session| session.is_batch());
        let under_way = if batch { UNDER_WAY.min(options.window).max(1) } else { 1 };
        let options = Options { window: options.window / under_way, ..options };
        let mut answers = std::pin::pin!(
            futures_util::stream::iter(requests)
                .map(|(path, request)| async {
                    let loaded = match request {
                        Ok(request) => {
                            let request = Arc::new(request);
                            let loaded = load(root.clone(), Arc::clone(&request), options.encoding).await;
                            Ok((request, loaded))
                        }
                        Err(error) => Err(error),
                    };
                    (path, loaded)
                })
                .buffered(READ_AHEAD)
                .map(|(path, loaded)| async {
                    let (request, loaded) = match loaded {
                        Ok(loaded) => loaded,
                        Err(error) => return (path, 0, Err(error)),
                    };
                    let locations = loaded.as_ref().map_or(0, |loaded| loaded.targets.len());
                    (path, locations, answer(lease, root, request, loaded, options, Instant::now()).await)
                })
                .buffered(under_way)
        );
        while let Some((path, locations, result)) = answers.next().await {
            progress.locations_total += locations;
            progress.files_done += 1;
            progress.locations_done += result.as_ref().map_or(0, |file| file.types.len());
            if events.send(Event::File { path, result }).await.is_err() {
                break;
            }
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                if events.send(Event::Progress(progress)).await.is_err() {
                    break;
                }
            }
        }
        progress
    }

    /// Requests for every source file of a project, in order.
    ///
    /// # Errors
    /// Where there is no engine.
    pub async fn whole_project(
        &self,
        lease: &Lease,
        root: &ProjectRoot,
        selector: Selector,
    ) -> Result<Vec<NamedRequest>, LeaseError> {
        let sources = loop {
            let session = lease.session().await?;
            if session.refresh().await.is_ok() {
                break session.sources();
            }
        };
        let requests = sources.iter().filter_map(|path| {
            let path = path.strip_prefix(root.path()).ok()?.to_str()?.to_owned();
            let places = Places::Selected(selector);
            Some((path.clone(), Ok(FileRequest { path, places, content: None, expected: None })))
        });
        Ok(requests.collect())
    }
}

/// A file's text and the places in it to ask about.
#[derive(Debug)]
struct Loaded {
    path: PathBuf,
    digest: Digest,
    source: Arc<SourceText>,
    targets: Vec<Target>,
}

/// One place: as the caller gave it, and its offset in bytes; none where it lies outside.
#[derive(Clone, Copy, Debug)]
struct Target {
    location: Position,
    offset: Option<usize>,
}

async fn load(root: ProjectRoot, request: Arc<FileRequest>, encoding: Encoding) -> Result<Loaded, FileError> {
    let loaded = tokio::task::spawn_blocking(move || load_now(&root, &request, encoding));
    loaded.await.unwrap_or_else(|error| {
        Err(FileError::Request { field: "", reason: format!("reading the file failed: {error}") })
    })
}

fn load_now(root: &ProjectRoot, request: &FileRequest, encoding: Encoding) -> Result<Loaded, FileError> {
    let (path, bytes) = if let Some(content) = &request.content {
        (paths::resolve_overlay(root, &request.path)?, content.clone().into_bytes())
    } else {
        let path = paths::resolve(root, &request.path)?;
        let bytes = read(&path)?;
        (path, bytes)
    };
    let digest = Digest::of(&bytes);
    if let Some(expected) = &request.expected
        && !expected.eq_ignore_ascii_case(digest.as_str())
    {
        return Err(FileError::DigestDiffers { actual: digest.as_str().to_owned() });
    }
    let text = String::from_utf8(bytes).map_err(|error| FileError::NotUtf8(error.utf8_error().valid_up_to()))?;
    let source = SourceText::new(text);
    let targets = match &request.places {
        Places::At(locations) => {
            locations.iter().map(|&location| Target { location, offset: source.offset(location, encoding) }).collect()
        }
        Places::Selected(selector) => names::select(source.text(), *selector)
            .into_iter()
            .map(|range| Target { location: source.position(range.start, encoding), offset: Some(range.start) })
            .collect(),
    };
    Ok(Loaded { path, digest, source: Arc::new(source), targets })
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let unreadable = |error: std::io::Error| PathError::Unreadable(path.to_owned(), error.to_string());
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > MAX_FILE {
        return Err(FileError::TooLarge(length));
    }
    Ok(std::fs::read(path).map_err(unreadable)?)
}

/// Asks the engine, as often as it takes for the answer to be about the bytes on disk.
async fn answer(
    lease: &Lease,
    root: &ProjectRoot,
    request: Arc<FileRequest>,
    mut loaded: Result<Loaded, FileError>,
    options: Options,
    begun: Instant,
) -> Result<FileExport, FileError> {
    let (mut changes, mut deaths, mut engine_elapsed) = (0, 0, Duration::ZERO);
    let mut evaluation = Evaluation::default();
    let Details { documentation, definitions, .. } = options.details;
    let extras = Extras { documentation, definitions };
    loop {
        let file = loaded?;
        let places = distinct_places(&file);
        let answers = if places.is_empty() {
            Some(Vec::new())
        } else {
            let session = lease.session().await?;
            let text = file.source.text().into();
            let digest = file.digest.clone();
            let document = Document { path: file.path.clone(), text, digest, overlay: request.content.is_some() };
            evaluation = session.evaluation();
            let asked = match session.refresh().await {
                // A death is this file's only if nothing else was asked at the time.
                Ok(()) => session.ask(document, places.clone(), extras, options.window, deaths > 0).await,
                Err(error) => Err(error),
            };
            match asked {
                Ok((answers, engine)) => {
                    engine_elapsed += engine;
                    Some(answers)
                }
                Err(SessionError::Outdated) => None,
                Err(SessionError::DiedAsking) => {
                    deaths += 1;
                    if deaths == MAX_DEATHS {
                        return Err(FileError::Deadly);
                    }
                    tracing::warn!(path = request.path, "the engine died while it was asked about this file");
                    loaded = Ok(file);
                    continue;
                }
                Err(_) => {
                    loaded = Ok(file);
                    continue;
                }
            }
        };
        if let Some(answers) = answers
            && (request.content.is_some() || is_unchanged(&file).await)
        {
            let types = compose(root, &file, &places, answers, options).await;
            return Ok(FileExport { digest: file.digest, types, evaluation, elapsed: begun.elapsed(), engine_elapsed });
        }
        changes += 1;
        if changes == MAX_CHANGES {
            return Err(FileError::KeepsChanging);
        }
        loaded = load(root.clone(), Arc::clone(&request), options.encoding).await;
    }
}

/// Whether the file's bytes are those that were read.
async fn is_unchanged(file: &Loaded) -> bool {
    let (path, digest) = (file.path.clone(), file.digest.clone());
    let same = tokio::task::spawn_blocking(move || read(&path).is_ok_and(|bytes| Digest::of(&bytes) == digest));
    same.await.unwrap_or(false)
}

/// The places to ask the engine about: each once, in the file's order.
fn distinct_places(file: &Loaded) -> Vec<Position> {
    let mut offsets: Vec<usize> = file.targets.iter().filter_map(|target| target.offset).collect();
    offsets.sort_unstable();
    offsets.dedup();
    offsets.into_iter().map(|offset| file.source.engine_position(offset)).collect()
}

async fn compose(
    root: &ProjectRoot,
    file: &Loaded,
    places: &[Position],
    answers: Vec<Answer>,
    options: Options,
) -> Vec<InferredType> {
    let mut texts = Texts { root, file, options, others: HashMap::new() };
    let mut known: HashMap<Position, InferredType> = HashMap::with_capacity(places.len());
    for (place, answer) in places.iter().zip(answers) {
        known.insert(*place, texts.inferred(answer).await);
    }
    file.targets
        .iter()
        .map(|target| {
            let inferred = target.offset.map(|offset| known.get(&file.source.engine_position(offset)).cloned());
            match inferred {
                Some(Some(inferred)) => InferredType { location: target.location, ..inferred },
                Some(None) => empty(target.location, Outcome::Failed),
                None => empty(target.location, Outcome::InvalidLocation),
            }
        })
        .collect()
}

fn empty(location: Position, outcome: Outcome) -> InferredType {
    InferredType {
        location,
        outcome,
        range: None,
        name: String::new(),
        symbol: Symbol::default(),
        definitions: Vec::new(),
    }
}

/// Converts what the engine says into the caller's columns, for which it needs the texts.
struct Texts<'a> {
    root: &'a ProjectRoot,
    file: &'a Loaded,
    options: Options,
    others: HashMap<PathBuf, Option<Arc<SourceText>>>,
}

impl Texts<'_> {
    async fn inferred(&mut self, answer: Answer) -> InferredType {
        let nowhere = Position::default();
        let Some((markdown, range)) = answer.hover else {
            return empty(nowhere, if answer.failed { Outcome::Failed } else { Outcome::NoType });
        };
        let source = &self.file.source;
        let name = match (source.engine_offset(range.start), source.engine_offset(range.end)) {
            (Some(start), Some(end)) => source.text().get(start..end).unwrap_or_default(),
            _ => "",
        };
        let Some(mut symbol) = infer(&markdown, name) else {
            return empty(nowhere, Outcome::NoType);
        };
        let details = self.options.details;
        if !details.hover {
            symbol.hover.clear();
        }
        if !details.documentation {
            symbol.documentation.clear();
        } else if let Some(documented) = answer.documented.and_then(|markdown| infer(&markdown, name)) {
            symbol.documentation = documented.documentation;
        }
        let range = Some(to_caller(source, range, self.options.encoding));
        let mut definitions = Vec::with_capacity(answer.definitions.len());
        for (path, range) in answer.definitions {
            definitions.push(self.definition(path, range).await);
        }
        let outcome = if answer.failed { Outcome::Failed } else { Outcome::Typed };
        InferredType { location: nowhere, outcome, range, name: name.to_owned(), symbol, definitions }
    }

    async fn definition(&mut self, path: PathBuf, range: Range) -> Definition {
        let range = match self.text(&path).await {
            Some(text) => to_caller(&text, range, self.options.encoding),
            None => range,
        };
        let path = path.strip_prefix(self.root.path()).map(Path::to_owned).unwrap_or(path);
        Definition { path, range }
    }

    async fn text(&mut self, path: &Path) -> Option<Arc<SourceText>> {
        if path == self.file.path {
            return Some(Arc::clone(&self.file.source));
        }
        if let Some(known) = self.others.get(path) {
            return known.clone();
        }
        if self.others.len() >= MAX_TEXTS {
            self.others.clear();
        }
        let reading = path.to_owned();
        let text = tokio::task::spawn_blocking(move || {
            let text = String::from_utf8(read(&reading).ok()?).ok()?;
            Some(Arc::new(SourceText::new(text)))
        });
        let text = text.await.ok().flatten();
        self.others.insert(path.to_owned(), text.clone());
        text
    }
}

fn to_caller(text: &SourceText, range: Range, encoding: Encoding) -> Range {
    let convert = |position| text.engine_offset(position).map_or(position, |offset| text.position(offset, encoding));
    Range { start: convert(range.start), end: convert(range.end) }
}
