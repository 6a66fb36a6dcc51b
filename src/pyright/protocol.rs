//! Between the domain's types and those of the Language Server Protocol.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::model::{Position, Range};

/// A path as the engine is given it.
#[must_use]
pub fn uri(path: &Path) -> String {
    url::Url::from_file_path(path).map(String::from).unwrap_or_default()
}

/// The path that the engine names; none where it is no file's.
#[must_use]
pub fn path_of(uri: &str) -> Option<PathBuf> {
    url::Url::from_str(uri).ok()?.to_file_path().ok()
}

/// JSON that is written once.
#[must_use]
pub fn raw(value: &Value) -> Box<RawValue> {
    to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Where a request is about.
#[must_use]
pub fn position_parameters(uri: &str, Position { line, character }: Position) -> Value {
    json!({ "textDocument": { "uri": uri }, "position": { "line": line, "character": character } })
}

/// A range in the domain's type.
#[must_use]
pub fn from_lsp(range: lsp_types::Range) -> Range {
    let position = |position: lsp_types::Position| Position { line: position.line, character: position.character };
    Range { start: position(range.start), end: position(range.end) }
}

/// A hover's whole text.
#[must_use]
pub fn markdown(hover: lsp_types::Hover) -> String {
    use lsp_types::{HoverContents, MarkedString};
    let marked = |string| match string {
        MarkedString::String(text) => text,
        MarkedString::LanguageString(code) => format!("```{}\n{}\n```\n", code.language, code.value),
    };
    match hover.contents {
        HoverContents::Markup(markup) => markup.value,
        HoverContents::Scalar(string) => marked(string),
        HoverContents::Array(strings) => strings.into_iter().map(marked).collect(),
    }
}

/// The files and ranges that a definition request names.
#[must_use]
pub fn locations(response: lsp_types::GotoDefinitionResponse) -> Vec<(PathBuf, Range)> {
    use lsp_types::GotoDefinitionResponse::{Array, Link, Scalar};
    let found: Vec<(lsp_types::Uri, lsp_types::Range)> = match response {
        Scalar(location) => vec![(location.uri, location.range)],
        Array(locations) => locations.into_iter().map(|location| (location.uri, location.range)).collect(),
        Link(links) => links.into_iter().map(|link| (link.target_uri, link.target_selection_range)).collect(),
    };
    found.into_iter().filter_map(|(uri, range)| Some((path_of(uri.as_str())?, from_lsp(range)))).collect()
}
