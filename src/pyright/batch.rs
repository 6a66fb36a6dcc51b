//! A whole file answered by the bridge in one call, and the bounded table of files that were evaluated.
//!
//! Sending the requests, and seeing to it that the engine looks at the right bytes, is left to `session`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::protocol::{from_lsp, path_of, uri};
use crate::model::{Digest, Position, Range};

/// Methods that the bridge adds; see `bridge/requests.cjs`.
pub const EXPORT: &str = "pyrightd/export";
/// Tells whether the bridge works with this release.
pub const CHECK: &str = "pyrightd/check";
/// Tells what files import.
pub const IMPORTS: &str = "pyrightd/imports";
/// Tells which files depend on others.
pub const DEPENDENTS: &str = "pyrightd/dependents";

/// An answer that is not one text for all its names: the engine failed there.
const FAILED: i64 = -1;

/// What to tell of each name beside its type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// The hover with documentation.
    pub documentation: bool,
    /// Where the name is declared.
    pub definitions: bool,
}

impl Extras {
    /// Whether any of it is told of the sources that stubs stand for.
    #[must_use]
    pub fn reach_sources(self) -> bool {
        self.documentation || self.definitions
    }

    /// Whether all that `other` asks for is told.
    #[must_use]
    pub fn cover(self, other: Self) -> bool {
        (self.documentation || !other.documentation) && (self.definitions || !other.definitions)
    }
}

/// What the engine says of a place.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The hover's Markdown and the extent of what it is about; none where there is nothing to say.
    pub hover: Option<(Arc<str>, Range)>,
    /// The hover's Markdown with documentation, where that is another.
    pub documented: Option<Arc<str>>,
    /// Where it is declared.
    pub definitions: Vec<(PathBuf, Range)>,
    /// The engine answered with an error.
    pub failed: bool,
}

/// The parameters of an export; without places, of the whole file.
#[must_use]
pub fn export_parameters(path: &Path, digest: &Digest, places: Option<&[Position]>, extras: Extras) -> Value {
    let positions =
        places.map(|places| places.iter().map(|place| [place.line, place.character]).collect::<Vec<[u32; 2]>>());
    let mut parameters = json!({
        "uri": uri(path),
        "sha256": digest.as_str(),
        "documentation": extras.documentation,
        "definitions": extras.definitions,
    });
    if let Some(positions) = positions {
        parameters["positions"] = json!(positions);
    }
    parameters
}

/// What the bridge says of itself.
#[derive(Debug, Deserialize)]
pub struct Check {
    /// All that it relies on is there, and its answers are those of hovers.
    pub works: bool,
    /// Why it does not.
    pub reason: Option<String>,
}

/// Files, as the bridge names them.
#[derive(Debug, Deserialize)]
pub struct Files {
    uris: Vec<String>,
}

impl Files {
    /// Their paths.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.uris.iter().filter_map(|uri| path_of(uri))
    }
}

/// What a file imports.
#[derive(Clone, Debug)]
pub struct Imports {
    /// The file.
    pub path: PathBuf,
    /// Of the bytes that the engine holds of it.
    pub digest: Digest,
    /// The modules as it names them; see [`crate::workspace::shape::Module`].
    pub names: Vec<String>,
    /// The files that the engine takes for them.
    pub files: Vec<PathBuf>,
    /// The sources that stubs among them stand for, or the file itself: documentation and definitions are told of those.
    pub sources: Vec<PathBuf>,
}

/// The bridge's answer about what files import.
#[derive(Debug, Deserialize)]
pub struct ImportsTold {
    uris: Vec<String>,
    files: Vec<FileTold>,
}

#[derive(Debug, Deserialize)]
struct FileTold {
    file: usize,
    sha256: String,
    names: Vec<String>,
    imports: Vec<usize>,
    sources: Vec<usize>,
}

impl ImportsTold {
    /// File by file, without those whose parts don't fit each other, and without files that `is_lasting` does not name.
    pub fn files(self, is_lasting: impl Fn(&Path) -> bool) -> Vec<Imports> {
        let paths: Vec<Option<PathBuf>> = self.uris.iter().map(|uri| path_of(uri)).collect();
        let path = |index: usize| paths.get(index).cloned().flatten();
        let lasting = |indexes: Vec<usize>| {
            let files = indexes.into_iter().map(path).collect::<Option<Vec<_>>>()?;
            Some(files.into_iter().filter(|path| is_lasting(path)).collect())
        };
        let file = |FileTold { file, sha256, names, imports, sources }: FileTold| {
            let (files, sources) = (lasting(imports)?, lasting(sources)?);
            Some(Imports { path: path(file)?, digest: Digest::from_hex(&sha256)?, names, files, sources })
        };
        self.files.into_iter().filter_map(file).collect()
    }
}

/// Whether the engine could tell, as the bridge says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Told {
    /// It did.
    Told,
    /// The project does not hold the file.
    Unknown,
    /// It holds other bytes of it.
    Changed,
}

/// The bridge's answer to an export.
#[derive(Debug, Deserialize)]
pub struct Exported {
    /// Whether there is more.
    pub state: Told,
    #[serde(default)]
    texts: Vec<Arc<str>>,
    #[serde(default)]
    places: Vec<i64>,
    definitions: Option<Vec<Vec<lsp_types::Location>>>,
}

/// What was told of a file's names, in their order.
#[derive(Debug)]
pub struct Evaluated {
    digest: Digest,
    extras: Extras,
    texts: Vec<Arc<str>>,
    names: Vec<Name>,
    definitions: Vec<Vec<(PathBuf, Range)>>,
}

/// The same, to be kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    texts: Vec<Arc<str>>,
    names: Vec<Name>,
    /// Names of the files that definitions are in.
    files: Vec<String>,
    definitions: Vec<Vec<(u32, Range)>>,
}

/// One name and the indexes of its texts; none where the engine failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Name {
    range: Range,
    text: Option<u32>,
    documented: u32,
}

impl Evaluated {
    /// Reads the bridge's answer about these bytes; none where its parts don't fit each other.
    ///
    /// Definitions are left out where `is_lasting` says so of their path.
    #[must_use]
    pub fn read(
        exported: Exported,
        digest: Digest,
        extras: Extras,
        is_lasting: impl Fn(&Path) -> bool,
    ) -> Option<Self> {
        let Exported { texts, places, definitions, .. } = exported;
        let numbers = if extras.documentation { 6 } else { 5 };
        let index = |number: i64| u32::try_from(number).ok().filter(|&index| (index as usize) < texts.len());
        let mut names = Vec::with_capacity(places.len() / numbers);
        for place in places.chunks(numbers) {
            let [start_line, start, end_line, end, text, ..] = *place else { return None };
            let position = |line: i64, character: i64| {
                Some(Position { line: u32::try_from(line).ok()?, character: u32::try_from(character).ok()? })
            };
            let range = Range { start: position(start_line, start)?, end: position(end_line, end)? };
            let text = if text == FAILED { None } else { Some(index(text)?) };
            let documented = match (place.get(5), text) {
                (Some(&documented), Some(_)) => index(documented)?,
                (_, text) => text.unwrap_or_default(),
            };
            names.push(Name { range, text, documented });
        }
        let definitions = definitions.unwrap_or_default().into_iter().map(|found| {
            let place = |location: lsp_types::Location| {
                let path = path_of(location.uri.as_str()).filter(|path| is_lasting(path))?;
                Some((path, from_lsp(location.range)))
            };
            found.into_iter().filter_map(place).collect()
        });
        let definitions: Vec<_> = definitions.collect();
        let fits = !extras.definitions || definitions.len() == names.len();
        fits.then_some(Self { digest, extras, texts, names, definitions })
    }

    /// What was told at a place. A name's end belongs to it, unless another begins there.
    ///
    /// More than `extras` may have been told; it is left out.
    #[must_use]
    pub fn at(&self, place: Position, extras: Extras) -> Answer {
        let after = self.names.partition_point(|name| name.range.start <= place);
        let Some(index) = after.checked_sub(1).filter(|&index| place <= self.names[index].range.end) else {
            return Answer::default();
        };
        let name = &self.names[index];
        let Some(text) = name.text else {
            return Answer { failed: true, ..Answer::default() };
        };
        Answer {
            hover: Some((Arc::clone(&self.texts[text as usize]), name.range)),
            documented: (name.documented != text).then(|| Arc::clone(&self.texts[name.documented as usize])),
            definitions: self.definitions.get(index).filter(|_| extras.definitions).cloned().unwrap_or_default(),
            failed: false,
        }
    }

    /// Whether the engine failed nowhere.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.names.iter().all(|name| name.text.is_some())
    }

    /// Of the bytes that it was told of.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What is told of each name beside its type.
    #[must_use]
    pub fn extras(&self) -> Extras {
        self.extras
    }

    /// As bytes to be kept, in which files go by names that the caller gives them.
    #[must_use]
    pub fn to_bytes(&self, name: impl Fn(&Path) -> String) -> Vec<u8> {
        let mut files = Vec::new();
        let mut indexes: HashMap<&Path, u32> = HashMap::new();
        let mut index_of = |path| {
            *indexes.entry(path).or_insert_with(|| {
                files.push(name(path));
                u32::try_from(files.len() - 1).unwrap_or(u32::MAX)
            })
        };
        let definitions = self.definitions.iter();
        let definitions = definitions.map(|found| found.iter().map(|(path, range)| (index_of(path), *range)).collect());
        let definitions = definitions.collect();
        let kept = Kept { texts: self.texts.clone(), names: self.names.clone(), files, definitions };
        postcard::to_stdvec(&kept).unwrap_or_default()
    }

    /// What was told of bytes with this digest, from what [`Self::to_bytes`] made; none where it is damaged, or a file's
    /// name can't be told.
    #[must_use]
    pub fn from_bytes(
        bytes: &[u8],
        digest: Digest,
        extras: Extras,
        path: impl Fn(&str) -> Option<PathBuf>,
    ) -> Option<Self> {
        let Kept { texts, names, files, definitions } = postcard::from_bytes(bytes).ok()?;
        let files = files.iter().map(|name| path(name)).collect::<Option<Vec<_>>>()?;
        let place = |(file, range)| Some((files.get(usize::try_from(file).ok()?)?.clone(), range));
        let definitions: Vec<Vec<_>> = definitions
            .into_iter()
            .map(|found: Vec<(u32, Range)>| found.into_iter().map(place).collect())
            .collect::<Option<_>>()?;
        let is_text = |index: u32| (index as usize) < texts.len();
        let fits =
            names.iter().all(|name: &Name| name.text.is_none_or(|text| is_text(text) && is_text(name.documented)))
                && (!extras.definitions || definitions.len() == names.len());
        fits.then_some(Self { digest, extras, texts, names, definitions })
    }

    /// Roughly what it takes in memory, in bytes.
    fn size(&self) -> usize {
        let texts: usize = self.texts.iter().map(|text| text.len() + 32).sum();
        let definitions: usize = self.definitions.iter().flatten().map(|(path, _)| path.as_os_str().len() + 64).sum();
        texts + definitions + self.names.len() * size_of::<Name>() + self.definitions.len() * 24
    }
}

/// Files that were evaluated, each for itself, and whose answers hold. The least used go first where room is short.
#[derive(Debug)]
pub struct Table(Cache<PathBuf, Arc<Evaluated>>);

impl Table {
    /// A table of at most so many bytes.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        let weigher = |path: &PathBuf, evaluated: &Arc<Evaluated>| {
            u32::try_from(path.as_os_str().len() + evaluated.size()).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(max_bytes).weigher(weigher).build())
    }

    /// What was told of these bytes of a file, if it covers what is asked for.
    #[must_use]
    pub fn get(&self, path: &Path, digest: &Digest, extras: Extras) -> Option<Arc<Evaluated>> {
        self.0.get(path).filter(|kept| kept.digest == *digest && kept.extras.cover(extras))
    }

    /// Keeps what was told.
    pub fn keep(&self, path: PathBuf, evaluated: Arc<Evaluated>) {
        self.0.insert(path, evaluated);
    }

    /// Drops what was told of a file.
    pub fn drop_file(&self, path: &Path) {
        self.0.invalidate(path);
    }

    /// Drops all.
    pub fn clear(&self) {
        self.0.invalidate_all();
    }
}
