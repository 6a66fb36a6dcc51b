//! What is asked about: a project's files, and every identifier in them.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::model::{Digest, Encoding, Position, Selector};
use crate::position::SourceText;
use crate::proto;
use crate::workspace::configuration::Configuration;
use crate::workspace::names;
use crate::workspace::scope::Scope;
use crate::workspace::tree::{Place, Tree};

/// A project that is not changed while it is measured.
#[derive(Debug)]
pub(super) struct Project {
    pub(super) name: String,
    /// Its canonical root.
    pub(super) root: PathBuf,
    pub(super) files: Vec<File>,
}

/// One of its source files.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    /// As the service is asked for it.
    pub(super) relative: String,
    /// Where its identifiers begin, in UTF-16 units.
    pub(super) names: Vec<Position>,
}

impl Project {
    /// Reads what the service itself would choose for `SELECTOR_NAMES`.
    pub(super) fn read(root: &Path) -> anyhow::Result<Self> {
        let scope = Scope::of(&Configuration::read(root, &|_| true));
        let tree = Tree::scan(vec![Place { folder: root.to_owned(), packages: false }]);
        let mut files = Vec::new();
        for path in tree.sources() {
            let relative = path.strip_prefix(root)?;
            let Ok(text) = std::fs::read_to_string(path) else { continue };
            if !scope.holds(path) {
                continue;
            }
            let source = SourceText::new(text);
            let names = names::select(source.text(), Selector::Names);
            files.push(File {
                path: path.to_owned(),
                relative: relative.to_str().context("a path is not UTF-8")?.to_owned(),
                names: names.iter().map(|name| source.position(name.start, Encoding::Utf16)).collect(),
            });
        }
        let name = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let project = Self { name, root: root.to_owned(), files };
        anyhow::ensure!(project.names() > 0, "{} holds no Python names", root.display());
        Ok(project)
    }

    /// How many identifiers there are.
    pub(super) fn names(&self) -> usize {
        self.files.iter().map(|file| file.names.len()).sum()
    }

    /// The root as a message names it.
    pub(super) fn text(&self) -> anyhow::Result<String> {
        Ok(self.root.to_str().context("the project's path is not UTF-8")?.to_owned())
    }

    /// The file whose number of names is nearest to this one.
    pub(super) fn file_of(&self, names: usize) -> anyhow::Result<&File> {
        self.named().min_by_key(|file| file.names.len().abs_diff(names)).context("the project has no names")
    }

    /// The files with names, in an order that is arbitrary but always the same.
    pub(super) fn shuffled(&self) -> Vec<&File> {
        let mut files: Vec<&File> = self.named().collect();
        files.sort_by_cached_key(|file| Digest::of(file.relative.as_bytes()).as_str().to_owned());
        files
    }

    fn named(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| !file.names.is_empty())
    }
}

impl File {
    /// At most so many of its names, evenly spread and `shift` names onwards, as locations to ask for.
    pub(super) fn locations(&self, count: usize, shift: usize) -> proto::FileLocations {
        let (total, count) = (self.names.len(), count.min(self.names.len()));
        let place = |index: usize| {
            let Position { line, character } = self.names[(shift + index * total / count) % total];
            proto::Position { line, character }
        };
        let locations = (0..count).map(place).collect();
        proto::FileLocations { path: self.relative.clone(), locations, ..proto::FileLocations::default() }
    }

    /// All of its names, chosen by the service.
    pub(super) fn all(&self) -> proto::FileLocations {
        let selector = proto::Selector::Names.into();
        proto::FileLocations { path: self.relative.clone(), selector, ..proto::FileLocations::default() }
    }
}
