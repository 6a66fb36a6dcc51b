//! What configures Pyright for a project: the files that say it, and the folders that they name.
//!
//! Which files those are is Pyright's own rule. Of what they say, only that is read on which it depends which files matter;
//! all else is Pyright's own to read.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::environment::{Environment, has_packages};
use super::paths::AllowedRoots;
use super::tree::is_reached;
use crate::model::ProjectSettings;

const JSON: &str = "pyrightconfig.json";
const TOML: &str = "pyproject.toml";
/// Keys by which a configuration has other files, or other folders than the project's, count.
const LEADING: [&str; 8] =
    ["extends", "executionEnvironments", "extraPaths", "stubPath", "typingsPath", "typeshedPath", "venv", "venvPath"];

/// A project's configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configuration {
    /// The file that Pyright begins with, then each that the one before extends, with what it says. What Pyright can't
    /// understand is its text.
    files: Vec<(PathBuf, Value)>,
    /// Folders that it has imports looked for in, in the order in which it names them; none for one that is not there.
    folders: Vec<Option<PathBuf>>,
    /// The virtual environment that it names.
    venv: Option<PathBuf>,
    /// It has imports looked for in more folders than are known here, all of them below the project or `folders`.
    is_wide: bool,
    /// It names what can't be looked at.
    is_blind: bool,
}

impl Configuration {
    /// Reads that of a canonical root. What it names is looked at only where `allowed` says so of the canonical path. Blocks
    /// on the file system.
    #[must_use]
    pub fn read(root: &Path, allowed: &dyn Fn(&Path) -> bool) -> Self {
        let mut this = Self::default();
        let mut first = [JSON, TOML].map(|name| root.join(name)).into_iter().find(|path| path.exists());
        // A pyproject.toml that says nothing of Pyright has the folders above looked through.
        while let Some(file) = first {
            let above = file.parent().and_then(Path::parent).filter(|_| is_toml(&file));
            this.follow(file.clone(), allowed);
            if this.values().next().is_some() {
                break;
            }
            first = above.and_then(|above| nearest(above, JSON).or_else(|| nearest(above, TOML)));
        }
        this.find_folders(root, allowed);
        this
    }

    /// Reads a file, and those that it extends.
    fn follow(&mut self, mut file: PathBuf, allowed: &dyn Fn(&Path) -> bool) {
        loop {
            let Some(value) = parse(&file) else { return };
            let base = value["extends"].as_str().map(|base| (joined(folder_of(&file), base), is_plain(base)));
            if let Value::String(text) = &value {
                // Perhaps Pyright understands what is not understood here.
                self.is_blind |= LEADING.iter().any(|key| text.contains(key));
            }
            self.files.push((file, value));
            let Some((base, is_plain)) = base else { return };
            // Pyright, too, ends a circle here.
            if self.files.iter().any(|(known, _)| *known == base) {
                return;
            }
            if !is_plain || !allowed(&base.canonicalize().unwrap_or_else(|_| base.clone())) {
                self.is_blind = true;
                return;
            }
            file = base;
        }
    }

    fn find_folders(&mut self, root: &Path, allowed: &dyn Fn(&Path) -> bool) {
        let mut named: Vec<(PathBuf, String)> = Vec::new();
        for (folder, value) in self.values() {
            let environments = value["executionEnvironments"].as_array().into_iter().flatten();
            let roots = environments.clone().filter(|environment| environment.is_object());
            let roots = roots.map(|environment| environment["root"].as_str().unwrap_or_default());
            let extra = std::iter::once(value).chain(environments).filter_map(|value| value["extraPaths"].as_array());
            let extra = extra.flatten().filter_map(Value::as_str).filter(|path| !path.trim().is_empty());
            let stubs = ["stubPath", "typingsPath"].iter().filter_map(|key| value[key].as_str());
            named.extend(roots.chain(extra).chain(stubs).map(|path| (folder.to_owned(), path.to_owned())));
        }
        for (folder, path) in named {
            self.name_folder(root, &folder, &path, allowed);
        }
        let typeshed = self.last("typeshedPath").filter(|(_, path)| !path.is_empty());
        if let Some(typeshed) = typeshed.map(|(folder, path)| joined(folder, path)) {
            self.is_wide = true;
            self.is_blind |= !is_reached(root, &typeshed);
        }
        if let (Some((folder, path)), Some((_, name))) = (self.last("venvPath"), self.last("venv")) {
            let venv = joined(&joined(folder, path), name);
            if !is_plain(path) || !allowed(&venv.canonicalize().unwrap_or_else(|_| venv.clone())) {
                self.is_blind = true;
            } else if has_packages(&venv) {
                self.venv = Some(venv);
            }
        }
    }

    fn name_folder(&mut self, root: &Path, folder: &Path, path: &str, allowed: &dyn Fn(&Path) -> bool) {
        // Of a pattern, that is known below which all lies that it can name.
        let pattern = path.find(['*', '?']);
        let fixed = pattern.map(|begin| path[..begin].rfind(['/', '\\']).map_or("", |end| &path[..=end]));
        self.is_wide |= pattern.is_some();
        let folder = joined(folder, fixed.unwrap_or(path));
        let found = folder.canonicalize();
        let canonical = found.as_deref().unwrap_or(&folder);
        // What lies above the project would make all its files count as packages.
        let is_above = root != canonical && root.starts_with(canonical);
        self.is_blind |= !is_plain(path) || !allowed(canonical) || is_above || canonical.is_file();
        let is_seen = found.is_ok() && allowed(canonical) && !is_above && canonical.is_dir();
        self.folders.push(is_seen.then(|| canonical.to_owned()));
    }

    /// What is in force, with the folders against which paths in it are meant: what is extended comes last.
    fn values(&self) -> impl DoubleEndedIterator<Item = (&Path, &Value)> {
        let is_understood = |(_, value): &&(PathBuf, Value)| value.is_object();
        self.files.iter().filter(is_understood).map(|(file, value)| (folder_of(file), value))
    }

    fn last(&self, key: &str) -> Option<(&Path, &str)> {
        self.values().find_map(|(folder, value)| Some((folder, value[key].as_str()?)))
    }

    /// A list in the file that wins, with the folder against which paths in it are meant.
    #[must_use]
    pub fn list(&self, key: &str) -> Option<(&Path, &[Value])> {
        self.values().find_map(|(folder, value)| Some((folder, value[key].as_array()?.as_slice())))
    }

    /// The files, and what they say.
    #[must_use]
    pub fn files(&self) -> &[(PathBuf, Value)] {
        &self.files
    }

    /// Folders in which it has imports looked for, and that may be looked at; none for one that is not there.
    #[must_use]
    pub fn folders(&self) -> &[Option<PathBuf>] {
        &self.folders
    }

    /// The virtual environment that it names, if packages are in it.
    #[must_use]
    pub fn venv(&self) -> Option<&Path> {
        self.venv.as_deref()
    }

    /// Whether it has imports looked for in more folders than [`Configuration::folders`], though all below what is looked at.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        self.is_wide
    }

    /// Whether types can depend on what can't be looked at.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.is_blind
    }

    /// Whether another differs in more than the files in the root itself, and in folders that are reached from there: of
    /// those the watch over the root tells.
    #[must_use]
    pub fn differs_elsewhere(&self, other: &Self, root: &Path) -> bool {
        let elsewhere = |this: &Self| -> Vec<(PathBuf, Value)> {
            let is_elsewhere = |(file, _): &&(PathBuf, Value)| *file != root.join(JSON) && *file != root.join(TOML);
            this.files.iter().filter(is_elsewhere).cloned().collect()
        };
        let unreached = |this: &Self| -> Vec<PathBuf> {
            let folders = this.folders.iter().flatten();
            folders.filter(|folder| !is_reached(root, folder)).cloned().collect()
        };
        self.folders != other.folders && unreached(self) != unreached(other)
            || self.venv != other.venv
            || elsewhere(self) != elsewhere(other)
    }
}

/// What configures a canonical root that was opened with these settings, and the environment through which its imports
/// resolve: the caller's, else the one that is configured, else the customary. Blocks on the file system.
#[must_use]
pub fn discover(root: &Path, settings: &ProjectSettings, roots: &AllowedRoots) -> (Configuration, Environment) {
    let allowed = |path: &Path| roots.hold(path);
    let configuration = Configuration::read(root, &allowed);
    let venv = settings.venv.as_deref().or(configuration.venv());
    let environment = Environment::discover(root, venv, &allowed);
    (configuration, environment)
}

fn nearest(folder: &Path, name: &str) -> Option<PathBuf> {
    folder.ancestors().map(|folder| folder.join(name)).find(|path| path.exists())
}

fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(file)
}

fn is_toml(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "toml")
}

/// Whether a path is one as it stands, without what only some programs make of it.
fn is_plain(path: &str) -> bool {
    !path.starts_with('~') && !path.contains('$') && !path.contains("://")
}

/// A path that a configuration in a folder names, without `.` and `..`, as Pyright reads it.
fn joined(folder: &Path, path: &str) -> PathBuf {
    let mut joined = PathBuf::new();
    for part in folder.join(path.replace('\\', "/")).components() {
        match part {
            Component::ParentDir => drop(joined.pop()),
            Component::CurDir => {}
            part => joined.push(part),
        }
    }
    joined
}

/// What a file says, or its text where that can't be understood; none where it says nothing.
fn parse(file: &Path) -> Option<Value> {
    let text = std::fs::read_to_string(file).ok()?;
    let value = if is_toml(file) {
        toml::from_str(&text).ok().map(|table: Value| table["tool"]["pyright"].clone())
    } else {
        parse_json(&text)
    };
    let value = value.unwrap_or(Value::String(text));
    (!value.is_null()).then_some(value)
}

/// JSON with comments and trailing commas, and nothing else that Pyright would not read.
fn parse_json(text: &str) -> Option<Value> {
    let options = jsonc_parser::ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    jsonc_parser::parse_to_serde_value(text, &options).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A project in a folder of its own, with these files beside and in it.
    fn top(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().canonicalize().unwrap();
        for (name, text) in files {
            let path = top.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        (folder, top)
    }

    fn files(configuration: &Configuration, top: &Path) -> Vec<String> {
        let name = |(file, _): &(PathBuf, Value)| file.strip_prefix(top).unwrap().display().to_string();
        configuration.files().iter().map(name).collect()
    }

    #[test]
    fn what_a_configuration_extends_is_followed() {
        let (_folder, top) = top(&[
            ("p/pyrightconfig.json", "{ \"extends\": \"../base/one.json\", \"extraPaths\": [\"lib\", \"../gone\"] }"),
            ("base/one.json", "{ // more\n \"extends\": \"../two.toml\", \"extraPaths\": [\"deep\", \"../shelf\"] }"),
            (
                "two.toml",
                "[tool.pyright]\nextends = 'p/pyrightconfig.json'\nstubPath = 'stubs'\nvenv = 'v'\nvenvPath='.'\n",
            ),
            ("p/lib/a.py", ""),
            ("base/deep/b.py", ""),
            ("shelf/c.py", ""),
            ("stubs/d.pyi", ""),
        ]);
        let root = top.join("p");
        let read = || Configuration::read(&root, &|path| path.starts_with(&top));
        let first = read();
        assert_eq!(files(&first, &top), ["p/pyrightconfig.json", "base/one.json", "two.toml"]);
        let found = ["p/lib", "", "base/deep", "shelf", "stubs"].map(|name| Some(name).filter(|name| !name.is_empty()));
        assert_eq!(first.folders(), found.map(|name| name.map(|name| top.join(name))));
        assert_eq!((first.venv(), first.is_blind(), first.is_wide()), (None, false, false));

        std::fs::create_dir(top.join("gone")).unwrap();
        std::fs::create_dir_all(top.join("v/lib/python3.12/site-packages")).unwrap();
        let second = read();
        assert_eq!((&second.folders()[1], second.venv()), (&Some(top.join("gone")), Some(&*top.join("v"))));
        assert!(second.differs_elsewhere(&first, &root) && !second.differs_elsewhere(&read(), &root));
        std::fs::write(root.join("pyrightconfig.json"), "{ \"extraPaths\": [] }").unwrap();
        assert_eq!(files(&read(), &top), ["p/pyrightconfig.json"]);

        // Only what is allowed is looked at.
        std::fs::write(root.join("pyrightconfig.json"), "{ \"extends\": \"../base/one.json\" }").unwrap();
        let inside = Configuration::read(&root, &|path| path.starts_with(&root));
        assert_eq!((files(&inside, &top), inside.is_blind()), (vec!["p/pyrightconfig.json".into()], true));
    }

    #[test]
    fn the_folders_above_count_where_a_pyproject_says_nothing_of_pyright() {
        let (_folder, top) = top(&[
            ("pyrightconfig.json", "{}"),
            ("a/pyproject.toml", "[tool.pyright]\nextraPaths = ['x']\n"),
            ("a/b/pyproject.toml", "[project]\n"),
            ("a/b/c/main.py", ""),
        ]);
        let read = |name: &str| files(&Configuration::read(&top.join(name), &|_| true), &top);
        assert_eq!(read("a/b/c"), [""; 0]);
        assert_eq!(read("a/b"), ["pyrightconfig.json"]);
        assert_eq!(read("a"), ["a/pyproject.toml"]);
        std::fs::remove_file(top.join("pyrightconfig.json")).unwrap();
        assert_eq!(read("a/b"), ["a/pyproject.toml"]);
    }

    #[test]
    fn what_can_not_be_looked_at_is_told() {
        let (_folder, top) = top(&[("p/main.py", ""), ("shelf/a.py", ""), ("p/libs/b/c.py", "")]);
        let root = top.join("p");
        let read = |text: &str| {
            std::fs::write(root.join("pyrightconfig.json"), text).unwrap();
            let configuration = Configuration::read(&root, &|path| path.starts_with(&top));
            (configuration.is_blind(), configuration.is_wide())
        };
        for text in [
            "{ \"extraPaths\": [\"..\"] }",
            "{ \"extraPaths\": [\"/usr\"] }",
            "{ \"extraPaths\": [\"/*\"] }",
            "{ \"extraPaths\": [\"../*\"] }",
            "{ \"extraPaths\": [\"~/lib\"] }",
            "{ \"extraPaths\": [\"main.py\"] }",
            "{ \"stubPath\": \"${env:HOME}/lib\" }",
            "{ \"executionEnvironments\": [{ \"root\": \"../../x\" }] }",
            "{ \"extends\": \"/usr/base.json\" }",
            "{ \"venvPath\": \"/usr\", \"venv\": \"v\" }",
            "{ extraPaths: [] }",
        ] {
            assert!(read(text).0, "{text}");
        }
        assert!(read("{ \"typeshedPath\": \"../shelf\" }").0);
        assert_eq!(read("{ \"typeshedPath\": \"libs\" }"), (false, true));
        for pattern in ["*", "libs/*", "../shelf/?/b"] {
            assert_eq!(read(&format!("{{ \"extraPaths\": [\"{pattern}\"] }}")), (false, true), "{pattern}");
        }
        assert_eq!(read("{ \"extraPaths\": [\"../shelf\", \".\"], \"executionEnvironments\": [{}] }"), (false, false));
        assert_eq!(read("not understood"), (false, false));
    }
}
