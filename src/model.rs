//! The domain's own types: what is asked, what is known of a place, how a file's export turned out.
//!
//! Pure data. The wire format is left to `grpc`, the engine's text to `pyright::infer`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The canonical, absolute folder of one project, below a root that the server allows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProjectRoot(Arc<Path>);

impl ProjectRoot {
    /// Wraps a path that the caller has made canonical and checked.
    #[must_use]
    pub fn new(canonical: &Path) -> Self {
        Self(canonical.into())
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl std::fmt::Display for ProjectRoot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.display().fmt(formatter)
    }
}

/// A zero-based place in a text; what `character` counts is said where it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Lines end with `\n`, `\r\n` or a lone `\r`, as in the Language Server Protocol.
    pub line: u32,
    /// Units from the line's start.
    pub character: u32,
}

/// From start up to, and not including, end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first place.
    pub start: Position,
    /// The place after the last.
    pub end: Position,
}

/// The unit in which a column counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// Bytes of UTF-8.
    Utf8,
    /// UTF-16 code units, the Language Server Protocol's default.
    #[default]
    Utf16,
    /// Unicode code points.
    Utf32,
}

/// Which names are picked where a caller names no locations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Selector {
    /// Functions, classes, parameters and assigned variables.
    Declarations,
    /// Every identifier.
    Names,
}

/// What could be said of one location.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The engine named a type.
    Typed,
    /// A valid place with nothing to type.
    NoType,
    /// The place lies outside the file.
    InvalidLocation,
    /// The engine did not answer.
    Failed,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SymbolKind {
    /// Not known, such as a name from an import that does not resolve.
    #[default]
    Unspecified,
    /// A variable, an attribute, or a key.
    Variable,
    /// A name in capitals or declared `Final`.
    Constant,
    /// A function's parameter.
    Parameter,
    /// A function.
    Function,
    /// A function of a class.
    Method,
    /// A property or another descriptor.
    Property,
    /// A class.
    Class,
    /// A module or package.
    Module,
    /// A type variable or parameter specification.
    TypeParameter,
    /// A type alias.
    TypeAlias,
}

/// What to return beside each location's type, name, kind and range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// The code that the engine's hover shows.
    pub hover: bool,
    /// The docstring as Markdown.
    pub documentation: bool,
    /// Where the name is declared.
    pub definitions: bool,
}

/// What the engine says of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Symbol {
    /// What the name stands for.
    pub kind: SymbolKind,
    /// The type as Pyright prints it.
    pub type_text: String,
    /// The code of the hover, without its fence.
    pub hover: String,
    /// The docstring as Markdown; empty where there is none.
    pub documentation: String,
}

/// Where a name is declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Relative to the project root where it lies below it, absolute otherwise.
    pub path: PathBuf,
    /// In the caller's unit.
    pub range: Range,
}

/// What is known of one location.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InferredType {
    /// The location as asked for, in the caller's unit.
    pub location: Position,
    /// How it turned out.
    pub outcome: Outcome,
    /// The extent of the name found there, in the caller's unit; unset unless typed.
    pub range: Option<Range>,
    /// The name as the source spells it.
    pub name: String,
    /// What the engine said; empty unless typed.
    pub symbol: Symbol,
    /// Where the name is declared, if asked for.
    pub definitions: Vec<Definition>,
}

/// What is known of a file: its types, in the order asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTypes {
    /// Of the bytes that were analysed.
    pub digest: Digest,
    /// One for each location.
    pub types: Vec<InferredType>,
    /// What may show in them.
    pub evaluation: Evaluation,
}

/// What a caller says of a project's Python environment; by default all is left to the project's own configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectSettings {
    /// Such as `3.12`; overrides the project's configuration.
    pub python_version: Option<String>,
    /// `Linux`, `Darwin` or `Windows`; overrides the project's configuration.
    pub python_platform: Option<String>,
    /// A virtual environment's folder.
    pub venv: Option<PathBuf>,
    /// Folders in which imports are looked for besides.
    pub extra_paths: Vec<PathBuf>,
    /// A folder of stub files.
    pub stub_path: Option<PathBuf>,
}

/// How an engine is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineMode {
    /// A whole file in one call where that works with the engine's release, else by hovers.
    #[default]
    Auto,
    /// A whole file in one call; with a release where that does not work, no project is served.
    Batch,
    /// One hover for each location.
    Hover,
}

/// What may show in answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evaluation {
    /// A file's bytes, those of what it imports, and nothing that was asked before.
    #[default]
    Isolated,
    /// What was asked before too, as in an editor.
    Shared,
}

/// The hex SHA-256 of a file's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest(String);

impl Digest {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(format!("{:x}", sha2::Sha256::digest(bytes)))
    }

    /// One that was written in hex; none where that is no SHA-256.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_digest.then(|| Self(text.to_ascii_lowercase()))
    }

    /// As hex, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
