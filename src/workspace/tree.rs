//! The files on which a project's types depend, and what became of them since they were last looked at.
//!
//! When to look is left to `watch`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::configuration::Configuration;
use super::environment::{Environment, is_environment};
use super::parallel::in_parallel;
use super::paths::AllowedRoots;
use crate::model::{ProjectRoot, ProjectSettings};

/// A project whose links lead to more folders than this is not followed through all of them.
const MAX_PLACES: usize = 1000;
/// Folders that hold no sources of a project, by name; those that begin with a dot hold none either.
const SKIPPED: [&str; 2] = ["node_modules", "__pycache__"];

/// A folder and all that is below it, but for what [`is_skipped`] names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A canonical path.
    pub folder: PathBuf,
    /// Installed packages rather than the project's own sources.
    pub packages: bool,
}

/// What happened to the files of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Sources of the project with other bytes, but in the same place.
    pub edited: Vec<PathBuf>,
    /// Files or folders came or went, or a configuration or an installed package changed: imports may resolve otherwise.
    pub structural: bool,
    /// What an engine looks at once and never again: an installed package became typed, or is no longer, or a link to
    /// a folder came or went.
    pub lasting: bool,
}

impl Changes {
    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.edited.is_empty() && !self.structural && !self.lasting
    }
}

/// What was touched since the last look.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    /// Files and folders that may have come, gone or changed.
    pub paths: BTreeSet<PathBuf>,
    /// More than `paths` may have been touched: everything has to be looked at.
    pub everything: bool,
}

/// What the file system says of a file's bytes without reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    inode: u64,
}

impl Stamp {
    pub(super) fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        }
    }

    /// Whether a change after `moment` would have another stamp, on a file system that tells times apart by `grain`.
    pub(super) fn is_older_than(&self, moment: SystemTime, grain: Duration) -> bool {
        let since = moment.checked_sub(grain).and_then(|moment| moment.duration_since(SystemTime::UNIX_EPOCH).ok());
        since.is_some_and(|since| {
            let limit = (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), i64::from(since.subsec_nanos()));
            self.modified < limit && self.changed < limit
        })
    }
}

/// The files and folders of some places, as they were last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    places: Vec<Place>,
    files: BTreeMap<PathBuf, Stamp>,
    /// Symbolic links among them: what they lead to can change without a word.
    linked_files: BTreeSet<PathBuf>,
    /// Symbolic links to folders, and where they lead. They are not followed: that is a place of its own.
    links: BTreeMap<PathBuf, PathBuf>,
    /// Those that a walk comes to: an import finds one even where it holds no file that matters.
    folders: BTreeSet<PathBuf>,
}

impl Tree {
    /// Looks at everything below these places. Blocks on the file system.
    #[must_use]
    pub fn scan(places: Vec<Place>) -> Self {
        let mut tree = Self {
            places,
            files: BTreeMap::new(),
            linked_files: BTreeSet::new(),
            links: BTreeMap::new(),
            folders: BTreeSet::new(),
        };
        tree.read();
        tree
    }

    /// The same with the places that links lead to. Blocks on the file system.
    #[must_use]
    pub fn scan_linked(mut places: Vec<Place>, allowed: &AllowedRoots) -> Self {
        loop {
            let tree = Self::scan(places.clone());
            let linked = tree.linked_places(allowed);
            if linked.is_empty() {
                return tree;
            }
            places.extend(linked);
        }
    }

    fn read(&mut self) {
        let mut folders: Vec<(PathBuf, bool)> = self.places.iter().map(|place| (place.folder.clone(), true)).collect();
        while !folders.is_empty() {
            let read = in_parallel(&folders, |(folder, is_top)| Folder::read(folder, *is_top));
            for (folder, (path, _)) in read.into_iter().zip(std::mem::take(&mut folders)) {
                let Some(folder) = folder else { continue };
                self.folders.insert(path);
                self.files.extend(folder.files);
                self.linked_files.extend(folder.linked_files);
                self.links.extend(folder.links);
                folders.extend(folder.folders.into_iter().map(|folder| (folder, false)));
            }
        }
    }

    /// Links to files that lead to others than when they were looked at, or to other bytes. Nobody tells of those where
    /// they lead out of all places. Blocks on the file system.
    #[must_use]
    pub fn moved_links(&self) -> Vec<PathBuf> {
        self.linked_files.iter().filter(|path| stamp(path).as_ref() != self.files.get(*path)).cloned().collect()
    }

    /// The places.
    #[must_use]
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// All files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }

    /// All folders, whatever they hold.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.folders.iter().map(PathBuf::as_path)
    }

    /// Symbolic links to folders, and where they lead.
    pub fn links(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.links.iter().map(|(link, target)| (link.as_path(), target.as_path()))
    }

    /// Whether a file is among them.
    #[must_use]
    pub fn holds(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    /// What differs from another look at the same places: files with other stamps, and whether any came or went.
    #[must_use]
    pub fn differences(&self, other: &Self) -> (BTreeSet<PathBuf>, bool) {
        let touched = self.files.iter().filter(|(path, stamp)| other.files.get(*path).is_some_and(|now| now != *stamp));
        let is_other = self.places != other.places
            || self.links != other.links
            || self.folders != other.folders
            || !self.files.keys().eq(other.files.keys());
        (touched.flat_map(|(path, _)| std::iter::once(path.clone()).chain(self.aliases(path))).collect(), is_other)
    }

    /// Paths that lead to a file through a link to a folder: by such a one, an import may have found it.
    fn aliases(&self, file: &Path) -> impl Iterator<Item = PathBuf> {
        self.links.iter().filter_map(|(link, target)| Some(link.join(file.strip_prefix(target).ok()?)))
    }

    /// Allowed folders outside all places that links lead to: an import may go through them.
    #[must_use]
    pub fn linked_places(&self, allowed: &AllowedRoots) -> Vec<Place> {
        let mut linked = if self.places.len() > MAX_PLACES { Vec::new() } else { self.linked_outside() };
        // What lies above the project would make all its files count as packages.
        linked.retain(|place| allowed.hold(&place.folder) && !self.places[0].folder.starts_with(&place.folder));
        linked
    }

    /// Where links lead, if that is outside all places: an import may go through them.
    #[must_use]
    fn linked_outside(&self) -> Vec<Place> {
        let targets: BTreeSet<_> = self.links.values().cloned().collect();
        let outside = |target: &PathBuf| !self.places.iter().any(|place| is_reached(&place.folder, target));
        targets.into_iter().filter(outside).map(|folder| Place { folder, packages: true }).collect()
    }

    /// The project's own sources, in order.
    pub fn sources(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path).filter(|path| is_source(path) && !self.is_package(path))
    }

    /// Looks at what was touched, and says what became of it. Blocks on the file system.
    pub fn look(&mut self, touched: &Touched) -> Changes {
        let mut changes = self.look_anew(touched);
        let aliases: Vec<PathBuf> = changes.edited.iter().flat_map(|file| self.aliases(file)).collect();
        changes.edited.extend(aliases);
        changes
    }

    fn look_anew(&mut self, touched: &Touched) -> Changes {
        let mut changes = Changes::default();
        if touched.everything {
            let now = Self::scan(self.places.clone());
            for (path, stamp) in &now.files {
                match self.files.get(path) {
                    Some(before) if before == stamp => {}
                    before => self.note(path, before.is_some(), &mut changes),
                }
            }
            for path in self.files.keys().filter(|path| !now.files.contains_key(*path)) {
                self.note(path, false, &mut changes);
            }
            changes.lasting |= now.links != self.links;
            changes.structural |= now.folders != self.folders;
            *self = now;
            return changes;
        }
        for path in &touched.paths {
            self.look_at(path, &mut changes);
        }
        changes
    }

    fn look_at(&mut self, path: &Path, changes: &mut Changes) {
        // Of what is left out, another watch may have told.
        let is_walked = self.is_top(path) || path.parent().is_some_and(|folder| self.enter(folder, changes));
        let link = if is_walked { linked_folder(path) } else { None };
        if self.links.get(path) != link.as_ref() {
            changes.lasting = true;
            match &link {
                Some(target) => self.links.insert(path.to_owned(), target.clone()),
                None => self.links.remove(path),
            };
        }
        if link.is_some() {
            return;
        }
        let known = self.files.contains_key(path);
        match if is_walked && matters(path) { stamp(path) } else { None } {
            Some(stamp) => {
                self.note(path, known, changes);
                self.keep(path, stamp);
            }
            None if known => {
                self.note(path, false, changes);
                self.drop_file(path);
            }
            None => {}
        }
        self.look_below(path, changes);
        if is_walked {
            self.enter(path, changes);
        }
    }

    /// A folder that was moved takes its files along, and another in its place brings its own, without a word of each.
    fn look_below(&mut self, folder: &Path, changes: &mut Changes) {
        let is_below = |path: &&PathBuf| path.starts_with(folder);
        let files = self.files.range::<Path, _>((Bound::Excluded(folder), Bound::Unbounded)).map(|(file, _)| file);
        for file in files.take_while(is_below).cloned().collect::<Vec<_>>() {
            let now = stamp(&file);
            if now.as_ref() == self.files.get(&file) {
                continue;
            }
            self.note(&file, now.is_some(), changes);
            match now {
                Some(now) => self.keep(&file, now),
                None => self.drop_file(&file),
            }
        }
        let links = self.links.range(folder.to_owned()..).map(|(link, _)| link);
        for link in links.take_while(is_below).cloned().collect::<Vec<_>>() {
            if linked_folder(&link).as_ref() != self.links.get(&link) {
                changes.lasting = true;
                self.links.remove(&link);
            }
        }
        let folders = self.folders.range(folder.to_owned()..).take_while(is_below);
        for gone in folders.filter(|folder| !is_folder(folder)).cloned().collect::<Vec<_>>() {
            changes.structural = true;
            self.folders.remove(&gone);
        }
    }

    /// Whether a walk comes to a folder; one that it did not come to before is noted.
    fn enter(&mut self, folder: &Path, changes: &mut Changes) -> bool {
        if self.folders.contains(folder) {
            return true;
        }
        let is_walked = is_folder(folder)
            && (self.is_top(folder)
                || !is_skipped(folder) && folder.parent().is_some_and(|parent| self.enter(parent, changes)));
        if is_walked {
            changes.structural = true;
            self.folders.insert(folder.to_owned());
        }
        is_walked
    }

    fn is_top(&self, folder: &Path) -> bool {
        self.places.iter().any(|place| place.folder == folder)
    }

    fn keep(&mut self, file: &Path, stamp: Stamp) {
        self.files.insert(file.to_owned(), stamp);
        if file.is_symlink() {
            self.linked_files.insert(file.to_owned());
        } else {
            self.linked_files.remove(file);
        }
    }

    fn drop_file(&mut self, file: &Path) {
        self.files.remove(file);
        self.linked_files.remove(file);
    }

    /// Notes a file that changed, or, where it was not `known` before or no longer is, came or went.
    fn note(&self, path: &Path, known: bool, changes: &mut Changes) {
        changes.lasting |= path.file_name().is_some_and(|name| name == "py.typed") && !known && self.is_package(path);
        if known && is_source(path) && !self.is_package(path) {
            changes.edited.push(path.to_owned());
        } else {
            changes.structural = true;
        }
    }

    fn is_package(&self, path: &Path) -> bool {
        self.places
            .iter()
            .filter(|place| path.starts_with(&place.folder))
            .max_by_key(|place| place.folder.as_os_str().len())
            .is_some_and(|place| place.packages)
    }
}

/// Folders besides the root in which imports are looked for, each once.
#[must_use]
pub fn besides(settings: &ProjectSettings, configuration: &Configuration, environment: &Environment) -> Vec<PathBuf> {
    let configured = configuration.folders().iter().flatten();
    let settings = settings.extra_paths.iter().chain(&settings.stub_path);
    let mut found = BTreeSet::new();
    let all = settings.chain(configured).chain(&environment.packages);
    all.filter(|folder| found.insert(*folder)).cloned().collect()
}

/// The project's own files, and all else that it may import.
#[must_use]
pub fn places(
    root: &ProjectRoot,
    settings: &ProjectSettings,
    configuration: &Configuration,
    environment: &Environment,
) -> Vec<Place> {
    let own = Place { folder: root.path().to_owned(), packages: false };
    let besides = besides(settings, configuration, environment).into_iter();
    // What is reached from the root anyway belongs to the project.
    let besides = besides.filter(|folder| !is_reached(root.path(), folder));
    std::iter::once(own).chain(besides.map(|folder| Place { folder, packages: true })).collect()
}

/// Whether a folder below a place is left out.
#[must_use]
pub fn is_skipped(folder: &Path) -> bool {
    is_skipped_by_name(folder) || is_environment(folder, |_| true)
}

fn is_skipped_by_name(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || SKIPPED.contains(&name.as_ref())
}

/// Whether a walk from `top` comes to `folder`.
#[must_use]
pub fn is_reached(top: &Path, folder: &Path) -> bool {
    folder.starts_with(top) && !folder.ancestors().take_while(|ancestor| *ancestor != top).any(is_skipped)
}

/// What is in one folder.
#[derive(Debug, Default)]
struct Folder {
    /// Those that matter.
    files: Vec<(PathBuf, Stamp)>,
    /// Links among them.
    linked_files: Vec<PathBuf>,
    /// Links to folders, and where they lead.
    links: Vec<(PathBuf, PathBuf)>,
    /// Those that are not left out by their names.
    folders: Vec<PathBuf>,
}

impl Folder {
    /// Reads it; none where it is no folder, or is left out by what is in it, which the top of a place is not.
    fn read(folder: &Path, is_top: bool) -> Option<Self> {
        let mut this = Self::default();
        // One that may not be read is there all the same.
        let Ok(entries) = std::fs::read_dir(folder) else { return is_folder(folder).then_some(this) };
        let entries: Vec<_> = entries.filter_map(|entry| entry.ok().map(|entry| (entry.file_name(), entry))).collect();
        if !is_top && is_environment(folder, |marker| entries.iter().any(|(name, _)| name == marker)) {
            return None;
        }
        for (name, entry) in entries {
            let Ok(kind) = entry.file_type() else { continue };
            let path = folder.join(&name);
            if kind.is_dir() {
                if !is_skipped_by_name(&path) {
                    this.folders.push(path);
                }
            } else if let Some(target) = kind.is_symlink().then(|| linked_folder(&path)).flatten() {
                this.links.push((path, target));
            } else if matters(&path) {
                // By the folder that is open already, unless a link leads elsewhere.
                let metadata = if kind.is_symlink() { std::fs::metadata(&path) } else { entry.metadata() };
                if let Some(metadata) = metadata.ok().filter(std::fs::Metadata::is_file) {
                    this.linked_files.extend(kind.is_symlink().then(|| path.clone()));
                    this.files.push((path, Stamp::of(&metadata)));
                }
            }
        }
        Some(this)
    }
}

/// Where a link to a folder leads.
fn linked_folder(path: &Path) -> Option<PathBuf> {
    let is_wanted = path.is_symlink() && path.is_dir() && !is_skipped(path);
    is_wanted.then(|| path.canonicalize().ok())?
}

fn is_folder(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// Through a symbolic link, as the engine reads it.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    Some(Stamp::of(&metadata))
}

/// By what a folder is told from another one that is put in its place.
#[must_use]
pub fn identity(folder: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(folder).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// A Python source or stub.
#[must_use]
pub fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "py" || extension == "pyi")
}

/// A file whose bytes or presence can change a type. A native module stands in for what an import would find elsewhere.
pub(super) fn matters(path: &Path) -> bool {
    is_source(path)
        || path
            .extension()
            .is_some_and(|extension| ["pth", "so", "pyd", "dylib"].iter().any(|wanted| extension == *wanted))
        || path
            .file_name()
            .is_some_and(|name| name == "py.typed" || name == "pyrightconfig.json" || name == "pyproject.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touched(paths: &[PathBuf]) -> Touched {
        Touched { paths: paths.iter().cloned().collect(), everything: false }
    }

    /// Looks at the touched paths, and by a second tree at everything: both must say the same.
    fn look(tree: &mut Tree, other: &mut Tree, paths: &[PathBuf]) -> Changes {
        let changes = tree.look(&touched(paths));
        let mut all = other.look(&Touched { everything: true, ..Touched::default() });
        all.edited.sort();
        assert_eq!(changes, all);
        assert_eq!(tree.files, other.files);
        assert_eq!(tree.links, other.links);
        assert_eq!(tree.folders, other.folders);
        changes
    }

    #[test]
    fn tells_edits_from_changes_of_structure() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        let write = |name: &str, text: &str| {
            std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            std::fs::write(at(name), text).unwrap();
        };
        for name in
            ["a.py", "package/b.pyi", "notes.txt", ".hidden/c.py", "node_modules/d.py", "env/pyvenv.cfg", "env/e.py"]
        {
            write(name, "");
        }
        write(".venv/lib/site-packages/f.py", "");
        let places = vec![
            Place { folder: root.clone(), packages: false },
            Place { folder: at(".venv/lib/site-packages"), packages: true },
        ];
        let mut tree = Tree::scan(places.clone());
        let mut other = Tree::scan(places);
        assert_eq!(tree.sources().collect::<Vec<_>>(), [at("a.py"), at("package/b.pyi")]);
        assert!(look(&mut tree, &mut other, &[]).is_empty());

        let edited = |name: &str| Changes { edited: vec![at(name)], ..Changes::default() };
        let structural = Changes { structural: true, ..Changes::default() };
        write("a.py", "x = 1\n");
        assert_eq!(look(&mut tree, &mut other, &[at("a.py")]), edited("a.py"));
        write("notes.txt", "more");
        assert!(look(&mut tree, &mut other, &[at("notes.txt"), at("gone.py")]).is_empty());
        write("new.py", "");
        assert_eq!(look(&mut tree, &mut other, &[at("new.py")]), structural);
        std::fs::rename(at("new.py"), at("a.py")).unwrap();
        assert_eq!(
            look(&mut tree, &mut other, &[at("new.py"), at("a.py")]),
            Changes { edited: vec![at("a.py")], ..structural.clone() }
        );
        write(".venv/lib/site-packages/f.py", "x = 1\n");
        assert_eq!(look(&mut tree, &mut other, &[at(".venv/lib/site-packages/f.py")]), structural);
        let typed = at(".venv/lib/site-packages/py.typed");
        write(".venv/lib/site-packages/py.typed", "");
        let lasting = Changes { lasting: true, ..structural.clone() };
        assert_eq!(look(&mut tree, &mut other, std::slice::from_ref(&typed)), lasting);
        write(".venv/lib/site-packages/py.typed", "partial\n");
        assert_eq!(look(&mut tree, &mut other, std::slice::from_ref(&typed)), structural);
        std::fs::remove_file(&typed).unwrap();
        assert_eq!(look(&mut tree, &mut other, std::slice::from_ref(&typed)), lasting);
        write("py.typed", "");
        assert_eq!(look(&mut tree, &mut other, &[at("py.typed")]), structural);
        write("pyproject.toml", "");
        assert_eq!(look(&mut tree, &mut other, &[at("pyproject.toml")]), structural);
        std::fs::rename(at("package"), at(".package")).unwrap();
        assert_eq!(look(&mut tree, &mut other, &[at("package"), at(".package")]), structural);
        assert_eq!(tree.sources().collect::<Vec<_>>(), [at("a.py")]);

        // Another folder in the place of one: what is in it is told of, and what was in the other is not.
        write("package/c.py", "");
        write("package/d.py", "");
        assert_eq!(look(&mut tree, &mut other, &[at("package/c.py"), at("package/d.py")]), structural);
        write(".other/d.py", "x = 1\n");
        std::fs::rename(at("package"), at(".third")).unwrap();
        std::fs::rename(at(".other"), at("package")).unwrap();
        let both = Changes { edited: vec![at("package/d.py")], ..structural.clone() };
        assert_eq!(look(&mut tree, &mut other, &[at("package")]), both);
        assert_eq!(tree.sources().collect::<Vec<_>>(), [at("a.py"), at("package/d.py")]);
    }

    #[test]
    fn folders_without_files_that_matter_are_known() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        let write = |name: &str| {
            std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            std::fs::write(at(name), "").unwrap();
        };
        write("package/a.py");
        write("package/__pycache__/a.pyc");
        write("data/notes.txt");
        let places = vec![Place { folder: root.clone(), packages: false }];
        let (mut tree, mut other) = (Tree::scan(places.clone()), Tree::scan(places));
        assert_eq!(tree.folders().collect::<Vec<_>>(), [root.clone(), at("data"), at("package")]);

        let structural = Changes { structural: true, ..Changes::default() };
        let mut seen = |names: &[&str]| {
            let before = tree.clone();
            let changes = look(&mut tree, &mut other, &names.iter().map(|name| at(name)).collect::<Vec<_>>());
            assert_eq!(before.differences(&tree).1, changes.structural, "{names:?}");
            changes
        };
        std::fs::create_dir_all(at("empty/inner")).unwrap();
        assert_eq!(seen(&["empty", "empty/inner"]), structural);
        assert!(seen(&["empty", "empty/inner"]).is_empty());
        write("empty/notes.txt");
        std::fs::create_dir_all(at("empty/__pycache__/deep")).unwrap();
        write("empty/__pycache__/deep/b.py");
        std::fs::create_dir(at(".hidden")).unwrap();
        // Such events come where what is left out here is watched for another.
        assert!(seen(&["empty/notes.txt", "empty/__pycache__/deep/b.py", "empty/__pycache__", ".hidden"]).is_empty());
        std::fs::rename(at("empty"), at("renamed")).unwrap();
        assert_eq!(seen(&["empty", "renamed", "renamed/inner"]), structural);
        std::fs::remove_dir(at("renamed/inner")).unwrap();
        std::fs::write(at("renamed/inner"), "").unwrap();
        assert_eq!(seen(&["renamed/inner"]), structural);
        std::fs::remove_dir_all(at("renamed")).unwrap();
        assert_eq!(seen(&["renamed"]), structural);
        // The last module goes, the folder stays.
        std::fs::remove_file(at("package/a.py")).unwrap();
        assert_eq!(seen(&["package/a.py"]), structural);
        std::fs::remove_dir_all(at("package")).unwrap();
        assert_eq!(seen(&["package"]), structural);
        write("new/deep/b.py");
        assert_eq!(seen(&["new/deep/b.py"]), structural);
        write("native.cpython-312-x86_64-linux-gnu.so");
        assert_eq!(seen(&["native.cpython-312-x86_64-linux-gnu.so"]), structural);
    }

    #[test]
    fn a_link_to_a_folder_outside_is_a_place_of_its_own() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (root, outside) = (root.path().canonicalize().unwrap(), outside.path().canonicalize().unwrap());
        std::fs::create_dir(root.join("inner")).unwrap();
        std::fs::write(outside.join("a.py"), "").unwrap();
        let place = |folder: &Path, packages| Place { folder: folder.to_owned(), packages };
        let link = |target: &Path, name: &str| std::os::unix::fs::symlink(target, root.join(name)).unwrap();
        link(&root.join("inner"), "inside");
        link(&root.join("nowhere"), "broken");

        let mut tree = Tree::scan(vec![place(&root, false)]);
        let mut other = Tree::scan(vec![place(&root, false)]);
        assert_eq!(tree.linked_outside(), []);
        let lasting = Changes { lasting: true, ..Changes::default() };
        link(&outside, "out");
        assert_eq!(look(&mut tree, &mut other, &[root.join("out")]), lasting);
        assert!(look(&mut tree, &mut other, &[root.join("out")]).is_empty());
        assert_eq!(tree.linked_outside(), [place(&outside, true)]);
        assert_eq!(tree.sources().count(), 0);
        std::fs::remove_file(root.join("out")).unwrap();
        assert_eq!(look(&mut tree, &mut other, &[root.join("out")]), lasting);
        assert_eq!(Tree::scan(vec![place(&root, false), place(&outside, true)]).linked_outside(), []);
    }
}
