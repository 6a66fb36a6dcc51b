//! Which files a project's own configuration counts as its sources.
//!
//! Only `include` and `exclude` are read here; all else in the configuration is Pyright's own to read.

use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde_json::Value;

/// The `include` and `exclude` of `pyrightconfig.json`, else of `pyproject.toml`.
#[derive(Debug, Default)]
pub struct Scope {
    include: Option<GlobSet>,
    exclude: Option<GlobSet>,
}

impl Scope {
    /// Reads the configuration in a root; what can't be read counts as absent, as it does for Pyright.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let json = read(&root.join("pyrightconfig.json")).and_then(|text| parse_json(&text));
        let toml = || parse_toml(&read(&root.join("pyproject.toml"))?);
        let settings = json.or_else(toml).unwrap_or_default();
        Self { include: globs(&settings["include"]), exclude: globs(&settings["exclude"]) }
    }

    /// Whether a file, relative to the root, is one of the project's sources.
    #[must_use]
    pub fn holds(&self, file: &Path) -> bool {
        self.include.as_ref().is_none_or(|include| include.is_match(file))
            && !self.exclude.as_ref().is_some_and(|exclude| exclude.is_match(file))
    }
}

/// What can configure Pyright for a root: in the root, or else in the nearest folder above that has such a file. Each comes
/// with how many folders above that is; one that can't be understood is its text.
#[must_use]
pub fn configurations(root: &Path) -> Vec<(usize, Value)> {
    let nearest = |name: &str, parse: fn(&str) -> Option<Value>| {
        let mut found =
            root.ancestors().enumerate().filter_map(|(depth, folder)| Some((depth, read(&folder.join(name))?)));
        let (depth, text) = found.next()?;
        Some((depth, parse(&text).unwrap_or(Value::String(text))))
    };
    [nearest("pyrightconfig.json", parse_json), nearest("pyproject.toml", parse_toml)].into_iter().flatten().collect()
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The part of a `pyproject.toml` that is Pyright's.
fn parse_toml(text: &str) -> Option<Value> {
    let table: Value = toml::from_str(text).ok()?;
    Some(table["tool"]["pyright"].clone())
}

/// JSON with comments and trailing commas.
fn parse_json(text: &str) -> Option<Value> {
    jsonc_parser::parse_to_serde_value(text, &jsonc_parser::ParseOptions::default()).ok()
}

/// Each names files, or folders with all that is below them: `**` stands for any folders, `*` and `?` within a name.
fn globs(value: &Value) -> Option<GlobSet> {
    let specs: Vec<&str> = value.as_array()?.iter().filter_map(Value::as_str).collect();
    if specs.is_empty() {
        return None;
    }
    let mut set = GlobSetBuilder::new();
    for spec in specs {
        let spec = spec.trim_start_matches("./").trim_end_matches('/');
        let spec = if spec == "." || spec.is_empty() { "**" } else { spec };
        for pattern in [spec.to_owned(), format!("{spec}/**")] {
            // Brackets and braces are plain letters to Pyright.
            let plain = pattern.replace('[', "[[]").replace('{', "[{]").replace('}', "[}]");
            set.add(GlobBuilder::new(&plain).literal_separator(true).backslash_escape(false).build().ok()?);
        }
    }
    set.build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held<'a>(root: &Path, files: &[&'a str]) -> Vec<&'a str> {
        let scope = Scope::read(root);
        files.iter().copied().filter(|file| scope.holds(Path::new(file))).collect()
    }

    #[test]
    fn the_projects_own_configuration_says_what_its_sources_are() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let files = ["a.py", "src/b.py", "src/gen/c.py", "src/x_pb2.py", "tests/d.py", "lib[1]/e.py"];
        assert_eq!(held(root, &files), files);

        let toml = "[tool.pyright]\ninclude = ['src', './lib[1]/']\nexclude = ['**/gen', '**/*_pb2.py']\n";
        std::fs::write(root.join("pyproject.toml"), toml).unwrap();
        assert_eq!(held(root, &files), ["src/b.py", "lib[1]/e.py"]);

        let json = "{ // it wins\n \"exclude\": [\"src\", \"t*\",], }";
        std::fs::write(root.join("pyrightconfig.json"), json).unwrap();
        assert_eq!(held(root, &files), ["a.py", "lib[1]/e.py"]);

        std::fs::write(root.join("pyrightconfig.json"), "{}").unwrap();
        assert_eq!(held(root, &files), files);
    }
}
