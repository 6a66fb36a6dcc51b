//! One look at all that a project's types can depend on: its files, the packages it may import, and its configuration.
//!
//! What the files import is left to the module above.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use super::graph::Node;
use super::keys::{Depended, Keys};
use crate::model::{Digest, ProjectRoot, ProjectSettings};
use crate::pyright::bridge;
use crate::pyright::install::Engine;
use crate::workspace::changes::Seen;
use crate::workspace::code;
use crate::workspace::configuration::{Configuration, discover};
use crate::workspace::environment::Environment;
use crate::workspace::paths::AllowedRoots;
use crate::workspace::scope::Scope;
use crate::workspace::shape::{Candidate, Finder, Module, Shape};
use crate::workspace::tree::{Tree, besides, identity};

/// Counts up whenever keys are made of something else.
const VERSION: u8 = 4;
/// Modules that Pyright imports into every file.
const ALWAYS: [&str; 3] = ["__builtins__", "builtins", "_typeshed._type_checker_internals"];
/// Folders below a root in which Pyright looks for imports too.
const CUSTOMARY: [&str; 2] = ["src", "typings"];

/// What is found out for each look, whatever was touched.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Grounds {
    root: ProjectRoot,
    /// By which a folder put in the root's place is told.
    identity: Option<(u64, u64)>,
    settings: ProjectSettings,
    pub(super) environment: Environment,
    /// Of files outside of all places, too, which nobody tells of.
    pub(super) configuration: Configuration,
}

impl Grounds {
    /// Finds them out. Blocks on the file system.
    pub(super) fn find(root: &ProjectRoot, settings: &ProjectSettings, allowed: &AllowedRoots) -> Self {
        let (configuration, environment) = discover(root.path(), settings, allowed);
        Self {
            identity: identity(root.path()),
            environment,
            configuration,
            root: root.clone(),
            settings: settings.clone(),
        }
    }
}

/// A look at a project.
#[derive(Debug)]
pub struct Look {
    grounds: Grounds,
    tree: Tree,
    shape: Arc<Shape>,
    seen: Arc<Seen>,
    /// Where Pyright and its stubs are.
    engine: PathBuf,
    /// The standard library's stubs, unless a module of the project's stands in for one of theirs.
    standard: Option<PathBuf>,
    /// Which engine tells of it, if its results hold.
    version: Option<String>,
    /// Of all that is the same for every file; none where types can depend on what is not looked at.
    common: Option<[u8; 32]>,
    /// What was found out of its files.
    known: Mutex<Known>,
}

/// What was found out of the files that were looked at, as far as it was asked for. Their bytes were read after the look.
#[derive(Debug, Default)]
struct Known {
    nodes: HashMap<PathBuf, Arc<Node>>,
    keys: Keys,
}

impl Look {
    /// A look at these files. Blocks on the file system.
    pub(super) fn new(grounds: Grounds, tree: Tree, engine: &Engine, is_isolated: bool, seen: Arc<Seen>) -> Self {
        let shape = Arc::new(Shape::of(tree.files(), tree.folders()));
        let engine_folder = engine.server.parent().unwrap_or(&engine.server).to_owned();
        let mut look = Self {
            grounds,
            tree,
            shape,
            seen,
            engine: engine_folder,
            standard: None,
            version: is_isolated.then(|| engine.version.clone()),
            common: None,
            known: Mutex::default(),
        };
        let stubs = engine.standard_stubs();
        look.standard = (!look.shadows(&stubs)).then_some(stubs);
        look.common = look.common();
        look
    }

    /// The next look, at the files as they are by now.
    pub(super) fn anew(&self, tree: Tree, engine: &Engine) -> Self {
        Self::new(self.grounds.clone(), tree, engine, self.version.is_some(), Arc::clone(&self.seen))
    }

    /// The next look, at the files as they are by now, where only the bytes of these sources can be others.
    pub(super) fn after(&self, tree: Tree, edited: &[PathBuf]) -> Self {
        // What each file imports is as it was; what it depends on through others is to be put together anew.
        let mut nodes = self.lock().nodes.clone();
        for path in edited {
            nodes.remove(path);
        }
        Self {
            grounds: self.grounds.clone(),
            tree,
            shape: Arc::clone(&self.shape),
            seen: Arc::clone(&self.seen),
            engine: self.engine.clone(),
            standard: self.standard.clone(),
            version: self.version.clone(),
            common: self.common,
            known: Mutex::new(Known { nodes, keys: Keys::default() }),
        }
    }

    pub(super) fn grounds(&self) -> &Grounds {
        &self.grounds
    }

    pub(super) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The project.
    #[must_use]
    pub fn root(&self) -> &ProjectRoot {
        &self.grounds.root
    }

    /// How the project was opened.
    #[must_use]
    pub fn settings(&self) -> &ProjectSettings {
        &self.grounds.settings
    }

    /// Whether another look finds all as it was.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || {
            let (touched, is_other) = self.differences(other);
            touched.is_empty() && !is_other
        }
    }

    /// Digests that were read before.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// What is known of what these files depend on, where what is to be `sought` was.
    pub(super) fn known(&self, files: &[PathBuf], sought: impl Fn(&Depended) -> bool) -> Keys {
        let known = self.lock();
        let found = files.iter().filter_map(|path| {
            let depended = known.keys.0.get(path).filter(|depended| sought(depended))?;
            Some((path.clone(), depended.clone()))
        });
        Keys(found.collect())
    }

    /// What is known of these files themselves, and of which nothing is.
    pub(super) fn nodes(&self, files: HashSet<PathBuf>) -> (Vec<(PathBuf, Arc<Node>)>, Vec<PathBuf>) {
        let known = self.lock();
        let (mut found, mut missing) = (Vec::with_capacity(files.len()), Vec::new());
        for path in files {
            match known.nodes.get(&path) {
                Some(node) => found.push((path, Arc::clone(node))),
                None => missing.push(path),
            }
        }
        (found, missing)
    }

    /// Adds what was found out of files.
    pub(super) fn know(&self, nodes: impl Iterator<Item = (PathBuf, Arc<Node>)>, keys: &Keys) {
        let mut known = self.lock();
        known.nodes.extend(nodes);
        known.keys.0.extend(keys.0.iter().map(|(path, key)| (path.clone(), key.clone())));
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a file is among those that were looked at.
    #[must_use]
    pub fn holds(&self, path: &Path) -> bool {
        self.tree.holds(path)
    }

    /// The project's own source files, in order.
    #[must_use]
    pub fn sources(&self) -> Vec<PathBuf> {
        let scope = Scope::of(&self.grounds.configuration);
        let is_own = |path: &&Path| path.starts_with(self.root().path()) && scope.holds(path);
        self.tree.sources().filter(is_own).map(Path::to_owned).collect()
    }

    /// Files that were touched from this look to another, and whether more than their bytes can be otherwise.
    #[must_use]
    pub fn differences(&self, other: &Self) -> (BTreeSet<PathBuf>, bool) {
        let (touched, is_other) = self.tree.differences(&other.tree);
        (touched, is_other || self.common != other.common)
    }

    /// Of all that every file's types depend on; none where they can depend on what is not looked at.
    #[must_use]
    pub fn shared(&self) -> Option<[u8; 32]> {
        self.common
    }

    /// The digest of a file's bytes, as far as it can change; none where it can't be read. Blocks on the file system.
    #[must_use]
    pub fn digest(&self, path: &Path) -> Option<Digest> {
        // What comes with Pyright is known by its release.
        if path.starts_with(&self.engine) { Some(Digest::of(b"")) } else { self.seen.digest(path) }
    }

    /// The digest of a file's code, if its bytes still have this digest. Blocks on the file system.
    pub(super) fn code(&self, path: &Path, digest: &Digest) -> Option<Digest> {
        if self.is_engine(path) {
            return Some(digest.clone());
        }
        let bytes = std::fs::read(path).ok().filter(|bytes| Digest::of(bytes) == *digest)?;
        Some(code::digest(&bytes))
    }

    /// Whether a file can't have been touched since the look without a word: it was looked at, or comes with Pyright or with
    /// the environment's Python, which go by their releases.
    pub(super) fn is_sure_of(&self, path: &Path) -> bool {
        let library = &self.grounds.environment.standard_library;
        self.holds(path) || self.is_engine(path) || library.as_ref().is_some_and(|library| path.starts_with(library))
    }

    /// Whether a file comes with Pyright.
    #[must_use]
    pub fn is_engine(&self, path: &Path) -> bool {
        path.starts_with(&self.engine)
    }

    /// Whether all that a file depends on comes with Pyright: it is one of the standard library's stubs.
    #[must_use]
    pub fn is_standard(&self, path: &Path) -> bool {
        self.standard.as_ref().is_some_and(|stubs| path.starts_with(stubs))
    }

    /// Whether there is a module that Pyright could take for one of these stubs, which import each other.
    fn shadows(&self, stubs: &Path) -> bool {
        let Ok(entries) = std::fs::read_dir(stubs) else { return true };
        let folders = self.import_folders();
        let (packages, own): (Vec<&Path>, Vec<&Path>) = folders
            .iter()
            .map(PathBuf::as_path)
            .partition(|folder| self.grounds.environment.packages.iter().any(|other| other == folder));
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let names: Vec<String> = names.map(|name| name.split('.').next().unwrap_or_default().to_owned()).collect();
        let is_there = |folders: &[&Path], name: &str| {
            let mut is_there = false;
            let mut tell = |candidate: Candidate<'_>| is_there |= candidate.is_module();
            for folder in folders {
                self.shape.below(folder, Module::new(name), &mut tell);
            }
            is_there
        };
        // Installed packages come after the stubs, so that this one, which is often there, stands in for nothing.
        let is_common = |name: &String| *name == "typing_extensions";
        names.iter().any(|name| is_there(&own, name))
            || names.iter().any(|name| !is_common(name) && is_there(&packages, name))
    }

    /// A file's name that is the same wherever the project, its environment and Pyright lie.
    #[must_use]
    pub fn name(&self, path: &Path) -> String {
        let named = self.named_folders().find_map(|(name, folder)| {
            let rest = path.strip_prefix(folder).ok()?;
            Some(format!("{name}/{}", rest.display()))
        });
        named.unwrap_or_else(|| path.display().to_string())
    }

    /// The file of such a name.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        if name.starts_with('/') {
            return Some(name.into());
        }
        let (folder, rest) = name.split_once('/')?;
        self.named_folders().find(|(name, _)| name == folder).map(|(_, path)| path.join(rest))
    }

    /// Folders within others come first.
    fn named_folders(&self) -> impl Iterator<Item = (String, &Path)> {
        let places = self.tree.places().iter().enumerate().rev();
        let places = places.map(|(index, place)| (format!("place{index}"), place.folder.as_path()));
        let library =
            self.grounds.environment.standard_library.iter().map(|folder| ("library".to_owned(), folder.as_path()));
        std::iter::once(("pyright".to_owned(), self.engine.as_path())).chain(library).chain(places)
    }

    /// Of a file and the modules that it names, all that imports of them can find: files that no other tell of are the same.
    /// Reads what marks packages as typed.
    pub(super) fn finder(&self) -> Finder<'_, impl Fn(&Path) -> Option<Digest>> {
        Finder::new(&self.shape, self.import_folders(), |path| self.digest(path))
    }

    /// Of all that a file's imports of these modules can find, one name a line.
    pub(super) fn find(
        finder: &mut Finder<'_, impl Fn(&Path) -> Option<Digest>>,
        file: &Path,
        names: &str,
    ) -> [u8; 32] {
        finder.find(file, ALWAYS.into_iter().chain(names.lines()))
    }

    fn import_folders(&self) -> Vec<PathBuf> {
        let Grounds { settings, configuration, environment, .. } = &self.grounds;
        let customary = CUSTOMARY.iter().map(|name| self.root().path().join(name));
        let besides = besides(settings, configuration, environment).into_iter().chain(customary);
        let mut folders: Vec<PathBuf> = self.tree.places().iter().map(|place| place.folder.clone()).collect();
        // Those that are reached from the root are no places.
        for folder in besides {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        folders
    }

    /// As [`Look::name`], also of what is above the root: by how far.
    fn name_upwards(&self, path: &Path) -> String {
        let above = self.root().path().ancestors().enumerate();
        let mut named = above.filter_map(|(depth, folder)| Some((depth, path.strip_prefix(folder).ok()?)));
        named.next().map_or_else(|| path.display().to_string(), |(depth, rest)| format!("{depth}/{}", rest.display()))
    }

    fn common(&self) -> Option<[u8; 32]> {
        let version = self.version.as_ref()?;
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update(bytes.len().to_be_bytes());
            hash.update(bytes);
        };
        part(&[VERSION]);
        part(version.as_bytes());
        part(bridge::digest().as_str().as_bytes());
        let ProjectSettings { python_version, python_platform, venv, extra_paths, stub_path } = self.settings();
        let paths: Vec<String> = extra_paths.iter().chain(stub_path).map(|path| self.name(path)).collect();
        let Environment { version, packages, standard_library, .. } = &self.grounds.environment;
        let packages: Vec<String> = packages.iter().map(|path| self.name(path)).collect();
        let said = (python_version, python_platform, venv.is_some(), stub_path.is_some(), paths);
        let (has_library, is_plain) = (standard_library.is_some(), self.standard.is_some());
        part(format!("{said:?} {version:?} {packages:?} {has_library} {is_plain}").as_bytes());
        let configuration = &self.grounds.configuration;
        if configuration.is_blind() {
            return None;
        }
        for (file, value) in configuration.files() {
            part(self.name_upwards(file).as_bytes());
            part(value.to_string().as_bytes());
        }
        let folders = configuration.folders().iter();
        let folders: Vec<_> = folders.map(|folder| folder.as_ref().map(|folder| self.name(folder))).collect();
        part(format!("{folders:?} {}", configuration.venv().is_some()).as_bytes());
        let mut leads = configuration.is_wide();
        for (link, target) in self.tree.links() {
            leads = true;
            part(self.name(link).as_bytes());
            part(self.name(target).as_bytes());
        }
        if leads {
            // Where imports are looked for is not known here, so that each file that comes or goes can matter.
            self.tree.files().chain(self.tree.folders()).for_each(|path| part(self.name(path).as_bytes()));
        }
        Some(hash.finalize().into())
    }
}
