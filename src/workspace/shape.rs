//! Which modules there are in which folders: all that an import can find, without a word of what is in the files.
//!
//! How Pyright chooses among them is its own to say. Here it is only seen to that two trees in which an import finds the
//! same candidates look the same, and two in which it does not look different.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::model::Digest;

/// What stands in for a module of some name in a folder.
const SOURCE: u8 = 1;
const STUB: u8 = 1 << 1;
const FOLDER: u8 = 1 << 2;
const NATIVE: u8 = 1 << 3;
const PACKAGE: u8 = 1 << 4;
const STUB_PACKAGE: u8 = 1 << 5;
const TYPED: u8 = 1 << 6;
/// A folder with a module somewhere below.
const HOLDER: u8 = 1 << 7;
/// What a folder of stubs for a package has at its name's end.
const STUBS: &str = "-stubs";

/// The modules of some folders.
#[derive(Clone, Debug, Default)]
pub struct Shape(Node);

#[derive(Clone, Debug, Default)]
struct Node {
    /// What there is of this name, and what there is of it in folders of stubs for a package.
    kinds: [u8; 2],
    children: BTreeMap<Box<str>, Node>,
}

/// A module as an import names it: `..package.module:symbol,other`.
///
/// It has leading dots where the import is relative. After the colon is what is imported from it, `*` for all; those may
/// be modules too.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    dots: usize,
    parts: &'a str,
    symbols: Option<&'a str>,
}

impl<'a> Module<'a> {
    /// Reads it.
    #[must_use]
    pub fn new(name: &'a str) -> Self {
        let (path, symbols) = name.split_once(':').map_or((name, None), |(path, symbols)| (path, Some(symbols)));
        let parts = path.trim_start_matches('.');
        Self { dots: path.len() - parts.len(), parts, symbols }
    }
}

impl Shape {
    /// Of these files and folders, by their absolute paths. Files that no import can find are left out.
    #[must_use]
    pub fn of<'a>(files: impl Iterator<Item = &'a Path>, folders: impl Iterator<Item = &'a Path>) -> Self {
        let mut shape = Self::default();
        for file in files {
            shape.add(file);
        }
        for folder in folders {
            shape.add_folder(folder, FOLDER);
        }
        shape
    }

    fn add(&mut self, file: &Path) {
        let Some(name) = file.file_name().and_then(|name| name.to_str()) else { return };
        let Some(folder) = file.parent() else { return };
        let (module, kind) = match name {
            "__init__.py" => (None, PACKAGE),
            "__init__.pyi" => (None, STUB_PACKAGE),
            "py.typed" => (None, TYPED),
            _ => match name.rsplit_once('.') {
                Some((module, "py")) => (Some(module), SOURCE),
                Some((module, "pyi")) => (Some(module), STUB),
                Some((module, "so" | "pyd" | "dylib")) => (Some(module.split('.').next().unwrap_or(module)), NATIVE),
                _ => return,
            },
        };
        let Some((mut node, in_stubs)) = self.add_folder(folder, FOLDER | HOLDER) else { return };
        if let Some(module) = module {
            node = node.children.entry(module.into()).or_default();
        }
        node.kinds[in_stubs] |= kind;
    }

    /// Its node, and whether that stands for a folder of stubs; none where no import can name it.
    fn add_folder(&mut self, folder: &Path, kinds: u8) -> Option<(&mut Node, usize)> {
        let mut node = &mut self.0;
        let mut in_stubs = 0;
        for part in folder.components() {
            let Component::Normal(part) = part else { continue };
            let part = part.to_str()?;
            let plain = part.strip_suffix(STUBS);
            in_stubs |= usize::from(plain.is_some());
            let name = plain.unwrap_or(part);
            // Most are there already.
            if !node.children.contains_key(name) {
                node.children.insert(name.into(), Node::default());
            }
            node = node.children.get_mut(name)?;
            node.kinds[in_stubs] |= kinds;
        }
        Some((node, in_stubs))
    }

    /// What stands beside a file under its own name, and what its folder is.
    pub fn beside(&self, file: &Path, tell: &mut impl FnMut(Candidate<'_>)) {
        let Some(folder) = file.parent() else { return };
        let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        self.below(folder, Module { dots: 1, parts: stem, symbols: None }, tell);
    }

    /// Tells `tell` what an import of a module can find in a folder; with each that is marked as typed comes its path.
    pub fn below(&self, folder: &Path, module: Module<'_>, tell: &mut impl FnMut(Candidate<'_>)) {
        let mut node = &self.0;
        for part in folder.components() {
            let Component::Normal(part) = part else { continue };
            let child = part.to_str().and_then(|part| node.children.get(part.strip_suffix(STUBS).unwrap_or(part)));
            let Some(child) = child else { return tell(Candidate::Nothing) };
            node = child;
        }
        let mut path = folder.to_owned();
        if module.parts.is_empty() {
            node.tell(&path, tell);
        }
        for part in module.parts.split('.').filter(|part| !part.is_empty()) {
            let Some(child) = node.children.get(part) else { return tell(Candidate::Nothing) };
            path.push(part);
            child.tell(&path, tell);
            node = child;
        }
        match module.symbols {
            None => {}
            Some("*") => {
                for (name, child) in &node.children {
                    tell(Candidate::Named(name));
                    child.tell(&path.join(&**name), tell);
                }
            }
            Some(symbols) => {
                for symbol in symbols.split(',') {
                    match node.children.get(symbol) {
                        Some(child) => child.tell(&path.join(symbol), tell),
                        None => tell(Candidate::Nothing),
                    }
                }
            }
        }
    }
}

/// A part of what an import can find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidate<'a> {
    /// No module of that name.
    Nothing,
    /// One of all the modules in a package.
    Named(&'a str),
    /// What there is of a name, as an opaque number.
    Kinds(u16),
    /// The folder of a package that is marked as typed.
    Typed(&'a Path),
}

impl Candidate<'_> {
    /// Whether it is more than a folder without modules, which stands in for nothing that is found elsewhere.
    #[must_use]
    pub fn is_module(self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Kinds(kinds) => kinds.to_be_bytes().iter().any(|kinds| kinds & !FOLDER != 0),
            Self::Named(_) | Self::Typed(_) => true,
        }
    }
}

impl Node {
    fn tell(&self, path: &Path, tell: &mut impl FnMut(Candidate<'_>)) {
        tell(Candidate::Kinds(u16::from_be_bytes(self.kinds)));
        let [plain, stubs] = self.kinds.map(|kinds| kinds & TYPED != 0);
        if plain {
            tell(Candidate::Typed(path));
        }
        if stubs {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(STUBS);
            tell(Candidate::Typed(&path.with_file_name(name)));
        }
    }
}

/// Finds what imports can find, as one digest; each module is looked for once in each folder, since files that are near to
/// each other import the same.
pub struct Finder<'a, F> {
    shape: &'a Shape,
    /// Where all imports are looked for.
    folders: Vec<PathBuf>,
    /// The digest of what marks a package as typed.
    mark: F,
    found: HashMap<String, HashMap<PathBuf, [u8; 32]>>,
}

impl<'a, F: Fn(&Path) -> Option<Digest>> Finder<'a, F> {
    /// Finds in these folders, and in those that hold the files. `mark` tells the digest of a file.
    #[must_use]
    pub fn new(shape: &'a Shape, folders: Vec<PathBuf>, mark: F) -> Self {
        Self { shape, folders, mark, found: HashMap::new() }
    }

    /// Of all that a file's imports of these modules can find, and of what stands beside the file under its own name.
    pub fn find<'b>(&mut self, file: &Path, modules: impl Iterator<Item = &'b str>) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.shape.beside(file, &mut |candidate| tell(candidate, &self.mark, &mut hash));
        for name in modules {
            let module = Module::new(name);
            match module.dots {
                0 => hash.update(self.absolute(file.parent(), name, module)),
                dots => {
                    if let Some(folder) = file.ancestors().nth(dots) {
                        hash.update(self.relative(folder, name, module));
                    }
                }
            }
        }
        hash.finalize().into()
    }

    /// From a file's folder, or from none. Where nothing else is found, the file's own folder is tried, and those above it.
    fn absolute(&mut self, folder: Option<&Path>, name: &str, module: Module<'_>) -> [u8; 32] {
        let place = folder.unwrap_or(Path::new(""));
        if let Some(found) = self.known(place, name) {
            return found;
        }
        let mut hash = Sha256::new();
        if let Some(folder) = folder {
            hash.update(self.absolute(folder.parent(), name, module));
            self.shape.below(folder, module, &mut |candidate| tell(candidate, &self.mark, &mut hash));
        } else {
            for folder in &self.folders {
                self.shape.below(folder, module, &mut |candidate| tell(candidate, &self.mark, &mut hash));
            }
        }
        self.keep(place, name, hash)
    }

    /// In the folder that an import's dots lead to.
    fn relative(&mut self, folder: &Path, name: &str, module: Module<'_>) -> [u8; 32] {
        if let Some(found) = self.known(folder, name) {
            return found;
        }
        let mut hash = Sha256::new();
        self.shape.below(folder, module, &mut |candidate| tell(candidate, &self.mark, &mut hash));
        self.keep(folder, name, hash)
    }

    fn known(&self, folder: &Path, name: &str) -> Option<[u8; 32]> {
        self.found.get(name)?.get(folder).copied()
    }

    fn keep(&mut self, folder: &Path, name: &str, hash: Sha256) -> [u8; 32] {
        let found = hash.finalize().into();
        self.found.entry(name.to_owned()).or_default().insert(folder.to_owned(), found);
        found
    }
}

fn tell(candidate: Candidate<'_>, mark: &impl Fn(&Path) -> Option<Digest>, hash: &mut Sha256) {
    match candidate {
        Candidate::Nothing => hash.update([0]),
        Candidate::Kinds(kinds) => {
            hash.update([1]);
            hash.update(kinds.to_be_bytes());
        }
        Candidate::Named(name) => {
            hash.update([2]);
            hash.update(name);
            hash.update([0]);
        }
        Candidate::Typed(folder) => {
            hash.update([3]);
            hash.update(mark(&folder.join("py.typed")).as_ref().map_or("", Digest::as_str));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of these files, and of folders where a name ends with a slash.
    fn shape_of(names: &[&str]) -> Shape {
        let (folders, files): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.ends_with('/'));
        Shape::of(files.into_iter().map(Path::new), folders.into_iter().map(Path::new))
    }

    /// What `/p/a/f.py` finds for a name.
    fn found(files: &[&str], name: &str) -> [u8; 32] {
        let shape = shape_of(files);
        let mut finder = Finder::new(&shape, vec!["/p".into(), "/site".into()], |_| None);
        // What others found before makes no difference.
        let found = finder.find(Path::new("/p/a/f.py"), std::iter::once(name));
        let names = ["b", name, ".", "missing.module"];
        finder.find(Path::new("/p/a/g/h.py"), names.into_iter());
        assert_eq!(finder.find(Path::new("/p/a/f.py"), std::iter::once(name)), found);
        found
    }

    /// What marks packages as typed, as far as an import of a name asks for it.
    fn marks(files: &[&str], name: &str) -> Vec<PathBuf> {
        let shape = shape_of(files);
        let asked = std::cell::RefCell::default();
        let mark = |path: &Path| {
            Vec::push(&mut asked.borrow_mut(), path.to_owned());
            None
        };
        Finder::new(&shape, vec!["/p".into(), "/site".into()], mark)
            .find(Path::new("/p/a/f.py"), std::iter::once(name));
        let mut asked = asked.into_inner();
        asked.dedup();
        asked
    }

    #[test]
    fn what_an_import_can_find_shows_and_nothing_else_does() {
        let base = ["/p/a/f.py", "/p/b/__init__.py", "/p/b/c.py", "/site/d.py"];
        let with = |more: &'static str| [base.as_slice(), &[more]].concat();
        for (name, seen, unseen) in [
            ("b", "/p/b.py", "/p/b/e.py"),
            ("b", "/site/b-stubs/__init__.pyi", "/site/e-stubs/__init__.pyi"),
            ("b", "/p/b/py.typed", "/p/a/py.typed"),
            ("b", "/p/a/b.py", "/p/z/b.py"),
            ("b", "/p/b/__init__.pyi", "/p/c/__init__.pyi"),
            ("b.c", "/p/b/c.pyi", "/p/b/e.pyi"),
            ("b.e", "/p/b/e.cpython-312-x86_64-linux-gnu.so", "/p/b/f.cpython-312-x86_64-linux-gnu.so"),
            ("b:e", "/p/b/e/f.py", "/p/b/f/e.py"),
            ("b:*", "/p/b/e.py", "/p/e.py"),
            (".:e", "/p/a/e.py", "/p/e.py"),
            (".", "/p/a/__init__.py", "/p/a/e.py"),
            ("..e", "/p/e.py", "/site/e.py"),
            ("bare", "/p/bare/", "/p/other/"),
            ("b:bare", "/p/b/bare/", "/p/bare/"),
            ("b", "/site/b/", "/p/b/"),
            ("b", "/site/b-stubs/", "/site/e-stubs/"),
            ("missing.module", "/site/missing/__init__.py", "/site/other/missing.py"),
        ] {
            assert_ne!(found(&base, name), found(&with(seen), name), "{name} and {seen}");
            assert_eq!(found(&base, name), found(&with(unseen), name), "{name} and {unseen}");
        }
        assert_eq!(marks(&with("/p/b/py.typed"), "b"), [Path::new("/p/b/py.typed")]);
        assert_eq!(marks(&with("/site/d-stubs/py.typed"), "d"), [Path::new("/site/d-stubs/py.typed")]);
    }

    #[test]
    fn what_stands_beside_a_file_shows() {
        let beside = |files: &[&str]| {
            let mut told = Vec::new();
            let shape = shape_of(files);
            shape.beside(Path::new("/p/f.py"), &mut |candidate| told.push(format!("{candidate:?}")));
            told
        };
        assert_ne!(beside(&["/p/f.py"]), beside(&["/p/f.py", "/p/f.pyi"]));
        assert_eq!(beside(&["/p/f.py"]), beside(&["/p/f.py", "/p/g.pyi"]));
    }
}
