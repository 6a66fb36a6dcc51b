//! Exporting types: of one file, or of many as a stream of events.
//!
//! Domain types in, domain types out. How they came over the wire, and how the engine runs, is left to others.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::{OnceCell, mpsc};
use tokio::time::Instant;

use crate::blocking::blocking;
use crate::model::{
    Definition, Details, Digest, Encoding, Evaluation, FileTypes, InferredType, Outcome, Position, ProjectRoot,
    ProjectSettings, Range, Selector, Symbol,
};
use crate::position::SourceText;
use crate::pyright::batch::{Answer, Evaluated, Extras};
use crate::pyright::infer::infer;
use crate::pyright::registry::Registry;
use crate::pyright::session::{Asked, Document, Session, SessionError};
use crate::pyright::supervisor::{Lease, LeaseError};
use crate::results::{Look, Results, Sought, Told};
use crate::store::{Key, StoreError};
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
#[derive(Clone, Debug)]
pub struct FileExport {
    /// What is known of it.
    pub file: FileTypes,
    /// The engine did no work for it: it had been told before.
    pub cached: bool,
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
    /// It could not be exported when its project's snapshot was made.
    #[error("{0}")]
    Recorded(String),
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

/// Answers exports from what is kept, and else from the registry's engines.
#[derive(Debug)]
pub struct Exporter {
    registry: Arc<Registry>,
    results: Option<Arc<Results>>,
}

/// How one call gets at a project's types.
#[derive(Debug)]
pub struct Access {
    root: ProjectRoot,
    settings: ProjectSettings,
    extras: Extras,
    /// A hold on the engine, once there is one.
    lease: OnceCell<Lease>,
    /// What is kept of the files that were named, once it was looked for.
    kept: OnceCell<Option<Kept>>,
}

/// What is kept of some of a project's files, as they were at one time.
#[derive(Debug)]
struct Kept {
    look: Arc<Look>,
    /// By their absolute paths: the key, and what it tells beside the types.
    found: HashMap<PathBuf, (Key, Extras, Digest)>,
}

impl Exporter {
    /// An exporter over these engines.
    #[must_use]
    pub fn new(registry: Arc<Registry>, results: Option<Arc<Results>>) -> Self {
        Self { registry, results }
    }

    /// What a call that asks for this needs. An engine is started for it if something is not kept.
    ///
    /// # Errors
    /// As [`Registry::lease`].
    pub async fn access(
        &self,
        root: &ProjectRoot,
        requests: &[NamedRequest],
        options: Options,
    ) -> Result<Access, LeaseError> {
        let access = self.begin(root, options)?;
        let is_kept = |kept: &Kept, request: &NamedRequest| match request {
            (_, Ok(FileRequest { content: Some(_), .. })) => false,
            (path, Ok(_)) => kept.found.contains_key(&root.path().join(path)),
            (_, Err(_)) => true,
        };
        let paths = requests.iter().filter(|(_, request)| request.as_ref().is_ok_and(|file| file.content.is_none()));
        let paths: Vec<PathBuf> = paths.map(|(path, _)| root.path().join(path)).collect();
        let kept = self.look_up(&access, &paths).await;
        if !kept.as_ref().is_some_and(|kept| requests.iter().all(|request| is_kept(kept, request))) {
            self.lease(&access).await?.session().await?;
        }
        access.kept.set(kept).unwrap_or_default();
        Ok(access)
    }

    /// Begins a call, with a hold on the engine that runs.
    fn begin(&self, root: &ProjectRoot, options: Options) -> Result<Access, LeaseError> {
        let Details { documentation, definitions, .. } = options.details;
        let lease = OnceCell::new_with(self.registry.lease_open(root)?);
        let settings = self.registry.settings(root);
        let extras = Extras { documentation, definitions };
        Ok(Access { root: root.clone(), settings, extras, lease, kept: OnceCell::new() })
    }

    /// The hold on the engine, which is started if none runs.
    async fn lease<'a>(&self, access: &'a Access) -> Result<&'a Lease, LeaseError> {
        access.lease.get_or_try_init(|| self.registry.lease(&access.root)).await
    }

    /// What is kept of these files; none where nothing can be.
    async fn look_up(&self, access: &Access, paths: &[PathBuf]) -> Option<Kept> {
        let results = self.results.as_ref()?;
        let look = results.look(&access.root, &access.settings).await;
        let found = async {
            // What was told with more beside it will do.
            let sought = Sought { files: paths, with_sources: true, spoilt: &HashSet::new() };
            let keys = results.keys(&look, sought, None).await?.unwrap_or_default();
            let all = Extras { documentation: true, definitions: true };
            let wanted = [access.extras, all];
            let wanted = paths.iter().flat_map(|path| wanted.map(|extras| (path, extras)));
            let wanted: Vec<_> = wanted
                .filter_map(|(path, extras)| Some((path, keys.of(path, extras)?, extras, keys.digest(path)?)))
                .collect();
            let sought: Vec<Key> = wanted.iter().map(|(_, key, ..)| *key).collect();
            let there = results.keeper().store().await?.contains(&sought).await?;
            let mut found = HashMap::new();
            for (path, key, extras, digest) in wanted.into_iter().filter(|(_, key, ..)| there.contains(key)) {
                found.entry(path.clone()).or_insert((key, extras, digest.clone()));
            }
            Ok::<_, StoreError>(found)
        };
        let found = found.await.unwrap_or_else(|error| {
            results.keeper().warn(&error);
            HashMap::new()
        });
        Some(Kept { look, found })
    }

    /// What is kept of a file's bytes.
    async fn kept(&self, access: &Access, document: &Document) -> Option<Arc<Evaluated>> {
        let results = self.results.as_ref().filter(|_| !document.overlay)?;
        let paths = [document.path.clone()];
        let kept = access.kept.get_or_init(|| self.look_up(access, &paths)).await.as_ref()?;
        let (key, extras, digest) = kept.found.get(&document.path)?;
        if *digest != document.digest {
            return None;
        }
        let content = async { results.keeper().store().await?.get(&[*key]).await }.await;
        let content = content.map_err(|error| results.keeper().warn(&error)).ok()?;
        Results::read(&kept.look, content.get(key)?, digest.clone(), *extras).map(Arc::new)
    }

    /// Has what an engine told kept.
    async fn keep(&self, access: &Access, document: &Document, asked: &Asked, engine: Arc<Session>) {
        let Some(results) = &self.results else { return };
        let (Some(evaluated), Some(Some(kept))) = (&asked.evaluated, access.kept.get()) else { return };
        if asked.engine > Duration::ZERO {
            let (evaluated, path) = (Arc::clone(evaluated), document.path.clone());
            results.keep_later(Told { look: Arc::clone(&kept.look), path, evaluated, engine }).await;
        }
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
        root: &ProjectRoot,
        request: FileRequest,
        options: Options,
    ) -> Result<FileExport, FileError> {
        let begun = Instant::now();
        let access = self.begin(root, options)?;
        let request = Arc::new(request);
        let loaded = load(root.clone(), Arc::clone(&request), options.encoding).await;
        self.answer(&access, request, loaded, options, begun).await
    }

    /// The types of many files, each sent as soon as it is ready. A file that fails does not stop the others.
    ///
    /// Ends early where nobody receives.
    ///
    /// # Cancel safety
    /// Dropped, it leaves nothing under way.
    pub async fn files(
        &self,
        access: &Access,
        requests: Vec<NamedRequest>,
        options: Options,
        events: &mpsc::Sender<Event>,
    ) -> Progress {
        let root = &access.root;
        let mut progress = Progress { files_total: requests.len(), ..Progress::default() };
        let mut told = Instant::now();
        // By hovers, one file's fill the call's share of the engine.
        let batch = match access.lease.get() {
            Some(lease) => lease.session().await.is_ok_and(|session| session.is_batch()),
            None => true,
        };
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
                    let answered = self.answer(access, request, loaded, options, Instant::now()).await;
                    (path, locations, answered)
                })
                .buffered(under_way)
        );
        while let Some((path, locations, result)) = answers.next().await {
            progress.locations_total += locations;
            progress.files_done += 1;
            progress.locations_done += result.as_ref().map_or(0, |export| export.file.types.len());
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
    /// Where there is no engine, but one is needed to tell.
    pub async fn whole_project(&self, root: &ProjectRoot, selector: Selector) -> Result<Vec<NamedRequest>, LeaseError> {
        let sources = if let Some(results) = &self.results {
            results.look(root, &self.registry.settings(root)).await.sources()
        } else {
            let lease = self.registry.lease(root).await?;
            loop {
                let session = lease.session().await?;
                if session.refresh().await.is_ok() {
                    break session.sources();
                }
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
    // Whatever one file does to its reading, it does not spoil the others.
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

/// What is known of a document's places, and how that came.
struct Answered {
    asked: Asked,
    evaluation: Evaluation,
}

impl Exporter {
    /// Answers, as often as it takes for that to be about the bytes on disk.
    async fn answer(
        &self,
        access: &Access,
        request: Arc<FileRequest>,
        mut loaded: Result<Loaded, FileError>,
        options: Options,
        begun: Instant,
    ) -> Result<FileExport, FileError> {
        let (mut changes, mut deaths, mut engine_elapsed) = (0, 0, Duration::ZERO);
        loop {
            let file = loaded?;
            let places = distinct_places(&file);
            let text = file.source.text().into();
            let digest = file.digest.clone();
            let document = Document { path: file.path.clone(), text, digest, overlay: request.content.is_some() };
            let answered = match self.places(access, &document, &places, options, deaths > 0).await? {
                Ok(answered) => Some(answered),
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
            };
            if let Some(Answered { asked, evaluation }) = answered
                && (request.content.is_some() || is_unchanged(&file).await)
            {
                engine_elapsed += asked.engine;
                let types = compose(&access.root, &file, &places, asked.answers, options).await;
                let file = FileTypes { digest: file.digest, types, evaluation };
                let cached = engine_elapsed == Duration::ZERO;
                return Ok(FileExport { file, cached, elapsed: begun.elapsed(), engine_elapsed });
            }
            changes += 1;
            if changes == MAX_CHANGES {
                return Err(FileError::KeepsChanging);
            }
            loaded = load(access.root.clone(), Arc::clone(&request), options.encoding).await;
        }
    }

    /// What is known of a document's places: told before, or kept, or else by the engine. The inner error is a session's.
    async fn places(
        &self,
        access: &Access,
        document: &Document,
        places: &[Position],
        options: Options,
        alone: bool,
    ) -> Result<Result<Answered, SessionError>, LeaseError> {
        let extras = access.extras;
        let told = |evaluated: Arc<Evaluated>| {
            let answers = places.iter().map(|&place| evaluated.at(place, extras)).collect();
            let asked = Asked { answers, engine: Duration::ZERO, evaluated: Some(evaluated) };
            Ok(Ok(Answered { asked, evaluation: Evaluation::Isolated }))
        };
        if let Some(lease) = access.lease.get() {
            let session = lease.session().await?;
            if places.is_empty() {
                return Ok(Ok(Answered { asked: Asked::default(), evaluation: session.evaluation() }));
            }
            if let Err(error) = session.refresh().await {
                return Ok(Err(error));
            }
            if let Some(evaluated) = session.at_hand(document, extras) {
                return told(evaluated);
            }
        }
        if let Some(evaluated) = self.kept(access, document).await {
            return told(evaluated);
        }
        let session = self.lease(access).await?.session().await?;
        if let Err(error) = session.refresh().await {
            return Ok(Err(error));
        }
        let evaluation = session.evaluation();
        // A death is this file's only if nothing else was asked at the time.
        let asked = session.ask(document.clone(), places.to_vec(), extras, options.window, alone).await;
        Ok(match asked {
            Ok(asked) => {
                self.keep(access, document, &asked, session).await;
                Ok(Answered { asked, evaluation })
            }
            Err(error) => Err(error),
        })
    }
}

/// Whether the file's bytes are those that were read.
async fn is_unchanged(file: &Loaded) -> bool {
    let (path, digest) = (file.path.clone(), file.digest.clone());
    blocking(move || read(&path).is_ok_and(|bytes| Digest::of(&bytes) == digest)).await
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
        let text = blocking(move || {
            let text = String::from_utf8(read(&reading).ok()?).ok()?;
            Some(Arc::new(SourceText::new(text)))
        });
        let text = text.await;
        self.others.insert(path.to_owned(), text.clone());
        text
    }
}

fn to_caller(text: &SourceText, range: Range, encoding: Encoding) -> Range {
    let convert = |position| text.engine_offset(position).map_or(position, |offset| text.position(offset, encoding));
    Range { start: convert(range.start), end: convert(range.end) }
}
