//! Which files a project's own configuration counts as its sources.

use std::path::{Component, Path};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde_json::Value;

use super::configuration::Configuration;

/// The `include` and `exclude` of a configuration.
#[derive(Debug, Default)]
pub struct Scope {
    include: Option<GlobSet>,
    exclude: Option<GlobSet>,
}

impl Scope {
    /// What a configuration says.
    #[must_use]
    pub fn of(configuration: &Configuration) -> Self {
        let globs = |key: &str| configuration.list(key).and_then(|(folder, specs)| globs(folder, specs));
        Self { include: globs("include"), exclude: globs("exclude") }
    }

    /// Whether a file, by its absolute path, is one of the project's sources.
    #[must_use]
    pub fn holds(&self, file: &Path) -> bool {
        self.include.as_ref().is_none_or(|include| include.is_match(file))
            && !self.exclude.as_ref().is_some_and(|exclude| exclude.is_match(file))
    }
}

/// Each names files, or folders with all that is below them: `**` stands for any folders, `*` and `?` within a name.
fn globs(folder: &Path, specs: &[Value]) -> Option<GlobSet> {
    // Pyright leaves out what is not relative to the configuration's folder.
    let specs: Vec<&str> = specs.iter().filter_map(Value::as_str).filter(|spec| !spec.starts_with('/')).collect();
    if specs.is_empty() {
        return None;
    }
    let mut set = GlobSetBuilder::new();
    for spec in specs {
        let (mut folder, mut rest) = (folder, Vec::new());
        for part in Path::new(spec).components() {
            match part {
                Component::ParentDir if rest.pop().is_none() => folder = folder.parent().unwrap_or(folder),
                // Brackets and braces are plain letters to Pyright.
                Component::Normal(part) => {
                    rest.push(part.to_str()?.replace('[', "[[]").replace('{', "[{]").replace('}', "[}]"));
                }
                _ => {}
            }
        }
        let pattern = [vec![globset::escape(folder.to_str()?.trim_end_matches('/'))], rest].concat().join("/");
        for pattern in [format!("{pattern}/**"), pattern] {
            set.add(GlobBuilder::new(&pattern).literal_separator(true).backslash_escape(false).build().ok()?);
        }
    }
    set.build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held<'a>(root: &Path, files: &[&'a str]) -> Vec<&'a str> {
        let scope = Scope::of(&Configuration::read(root, &|_| true));
        files.iter().copied().filter(|file| scope.holds(&root.join(file))).collect()
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

        // What is extended says it of its own folder.
        std::fs::create_dir_all(root.join("src/conf[1]")).unwrap();
        std::fs::write(root.join("src/conf[1]/base.json"), "{ \"include\": [\"../../tests\", \"../gen\"] }").unwrap();
        std::fs::write(root.join("pyrightconfig.json"), "{ \"extends\": \"src/conf[1]/base.json\" }").unwrap();
        assert_eq!(held(root, &files), ["src/gen/c.py", "tests/d.py"]);
    }
}
