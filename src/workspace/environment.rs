//! The Python environment that a project's third-party imports resolve through.
//!
//! It is read from the virtual environment's files; the interpreter in it is never run.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where packages are found, and for which Python. The same files give the same value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The virtual environment's folder.
    pub prefix: Option<PathBuf>,
    /// `site-packages` folders, then what `.pth` files in them add, in the order of the search.
    pub packages: Vec<PathBuf>,
    /// Major, minor and micro, as `pyvenv.cfg` says.
    pub version: Option<[u32; 3]>,
    /// The sources of the standard library of the Python that the environment was made from, where they are there.
    pub standard_library: Option<PathBuf>,
}

/// The names that a project's own virtual environment goes by.
const CUSTOMARY: [&str; 2] = [".venv", "venv"];
/// A longer `.pth` or `pyvenv.cfg` is no such file.
const MAX_FILE: u64 = 64 * 1024;

impl Environment {
    /// The environment in `venv`, else in the root's `.venv` or `venv`, else none.
    ///
    /// What `.pth` files name is taken only where `allowed` says so.
    #[must_use]
    pub fn discover(root: &Path, venv: Option<&Path>, allowed: &dyn Fn(&Path) -> bool) -> Self {
        let Some(prefix) = venv.map(Path::to_owned).or_else(|| {
            CUSTOMARY.iter().map(|name| root.join(name)).find(|folder| folder.join("pyvenv.cfg").is_file())
        }) else {
            return Self::default();
        };
        let mut packages = Vec::new();
        for folder in site_packages(&prefix) {
            let added = paths_of_pth_files(&folder, allowed);
            push_new(&mut packages, folder);
            for path in added {
                push_new(&mut packages, path);
            }
        }
        let configuration = Configuration::read(&prefix);
        let standard_library = configuration.standard_library();
        Self { version: configuration.version, prefix: Some(prefix), packages, standard_library }
    }
}

/// Whether a folder has packages as a virtual environment does.
#[must_use]
pub fn has_packages(prefix: &Path) -> bool {
    !site_packages(prefix).is_empty()
}

/// Whether a folder is a virtual environment of some kind, whose packages are no sources of the project. Only that is
/// looked for of which `may_hold` does not say that the folder holds nothing by that name.
#[must_use]
pub fn is_environment(folder: &Path, may_hold: impl Fn(&str) -> bool) -> bool {
    let markers = ["pyvenv.cfg", "conda-meta", "bin/activate", "Scripts/activate"];
    markers.iter().any(|path| may_hold(path.split('/').next().unwrap_or(path)) && folder.join(path).exists())
}

fn push_new(paths: &mut Vec<PathBuf>, path: PathBuf) {
    if !paths.contains(&path) {
        paths.push(path);
    }
}

/// `lib/python3.N/site-packages` and its kin, canonical, so that `lib64` links count once.
fn site_packages(prefix: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for lib in ["lib", "lib64", "Lib"] {
        let lib = prefix.join(lib);
        let mut folders = vec![lib.join("site-packages")];
        folders.extend(
            sorted_entries(&lib)
                .into_iter()
                .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3")))
                .map(|path| path.join("site-packages")),
        );
        for folder in folders {
            if let Ok(folder) = folder.canonicalize()
                && folder.is_dir()
            {
                push_new(&mut found, folder);
            }
        }
    }
    found
}

fn sorted_entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn read_small(path: &Path) -> Option<String> {
    let length = std::fs::metadata(path).ok()?.len();
    (length <= MAX_FILE).then(|| std::fs::read_to_string(path).ok())?
}

/// The folders that `.pth` files add; their `import` lines are code, and not run.
fn paths_of_pth_files(folder: &Path, allowed: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    sorted_entries(folder)
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "pth"))
        .filter_map(|path| read_small(path))
        .flat_map(|text| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>())
        .filter(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with("import "))
        .filter_map(|line| folder.join(line).canonicalize().ok())
        .filter(|path| path.is_dir())
        .filter(|path| {
            let taken = allowed(path);
            if !taken {
                tracing::debug!(path = %path.display(), "a .pth file names a folder outside the allowed roots; it is left out");
            }
            taken
        })
        .collect()
}

/// What `pyvenv.cfg` says.
#[derive(Default)]
struct Configuration {
    /// From `version = 3.12.4` (venv) or `version_info = 3.12.4.final.0` (virtualenv).
    version: Option<[u32; 3]>,
    /// The folder of the interpreter that the environment was made from.
    home: Option<PathBuf>,
}

impl Configuration {
    fn read(prefix: &Path) -> Self {
        let mut configuration = Self::default();
        for line in read_small(&prefix.join("pyvenv.cfg")).unwrap_or_default().lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            match key.trim() {
                "version" | "version_info" => configuration.version = version(value.trim()),
                "home" => configuration.home = Some(value.trim().into()),
                _ => {}
            }
        }
        configuration
    }

    fn standard_library(&self) -> Option<PathBuf> {
        let [major, minor, _] = self.version?;
        let library = self.home.as_ref()?.parent()?.join(format!("lib/python{major}.{minor}"));
        library.join("os.py").is_file().then_some(library)
    }
}

fn version(text: &str) -> Option<[u32; 3]> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    Some([parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_environment_without_running_it() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        assert_eq!(Environment::discover(&root, None, &|_| true), Environment::default());

        let site = root.join(".venv/lib/python3.12/site-packages");
        let (inside, outside) = (root.join("src"), tempfile::tempdir().unwrap());
        for folder in [&site, &inside] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let base = root.join("base/lib/python3.12");
        std::fs::create_dir_all(&base).unwrap();
        let configuration = format!("home = {}\nversion = 3.12.4\n", root.join("base/bin").display());
        std::fs::write(root.join(".venv/pyvenv.cfg"), configuration).unwrap();
        let outside_line = outside.path().display();
        std::fs::write(
            site.join("a.pth"),
            format!("# note\nimport os; os.abort()\n../../../../src\n{outside_line}\nnowhere\n"),
        )
        .unwrap();

        let found = Environment::discover(&root, None, &|path| path.starts_with(&root));
        assert_eq!(
            found,
            Environment {
                prefix: Some(root.join(".venv")),
                packages: vec![site.clone(), inside],
                version: Some([3, 12, 4]),
                standard_library: None,
            }
        );
        std::fs::write(base.join("os.py"), "").unwrap();
        assert_eq!(Environment::discover(&root, None, &|_| false).standard_library, Some(base));
        assert!(is_environment(&root.join(".venv"), |_| true) && !is_environment(&site, |_| true));

        std::fs::write(root.join(".venv/pyvenv.cfg"), "version_info = 3.13.0rc1.final.0\n").unwrap();
        assert_eq!(Environment::discover(&root, None, &|_| false).version, Some([3, 13, 0]));
    }
}
