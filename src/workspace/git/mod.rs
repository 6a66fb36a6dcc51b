//! What changed in a project's folder, according to Git.
//!
//! Objects, index, configuration, and ignore and attribute files are read in this process, and nothing is written.
//! No program is ever run: not Git, and none that a repository's configuration names. `then` reads what a commit
//! holds, `now` what the disk holds. Without Git, `changes` does the same by digests.

mod now;
mod then;

use std::path::{Path, PathBuf};

use gix::sec::Trust;

use super::changes::Changes;
use super::configuration::Configuration;
use super::paths::AllowedRoots;
use super::scope::Scope;
use super::tree;

/// Why Git can't say what changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GitError {
    /// No work tree holds the project, or the one that does lies above the allowed roots.
    #[error("{} is in no Git work tree below an allowed root", .0.display())]
    NoRepository(PathBuf),
    /// The repository keeps something where the server may not read.
    #[error("the repository uses {}, which is not below an allowed root; the server's --allow-root names those", .0.display())]
    NotAllowed(PathBuf),
    /// No such revision, more than one, or no commit.
    #[error("{0:?} does not name one commit")]
    NoSuchCommit(String),
    /// As [`GitError::NoSuchCommit`], where the history ends early.
    #[error("{0:?} does not name one commit here, and the clone is shallow: fetch more of its history")]
    NotFetched(String),
    /// The repository is damaged, in a format that is not known, or the operating system refuses it.
    #[error("the repository can't be read: {0}")]
    Unreadable(String),
}

impl GitError {
    fn unreadable(error: impl std::fmt::Display) -> Self {
        Self::Unreadable(error.to_string())
    }
}

/// What a path that a filter is asked about is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Without it, the file is left out.
    File,
    /// Without it, all that is below is left out, and not looked at.
    Folder,
}

/// The Git work tree that holds a project.
#[derive(Debug)]
pub struct Repository {
    shared: gix::ThreadSafeRepository,
    root: PathBuf,
    work_tree: PathBuf,
    allowed: AllowedRoots,
}

impl Repository {
    /// The innermost work tree that holds a project's canonical root: its own folder, or one above it.
    ///
    /// A submodule's or a linked work tree's own repository is taken, not the one around it. Blocks on the file system.
    ///
    /// # Errors
    /// Where there is none or it is bare, where it keeps something outside the allowed roots, or it can't be read.
    pub fn discover(root: &Path, allowed: &AllowedRoots) -> Result<Self, GitError> {
        for work_tree in root.ancestors().take_while(|folder| allowed.hold(folder)) {
            if let Some(repository) = open(work_tree, allowed)? {
                return Ok(Self {
                    shared: repository.into_sync(),
                    root: root.to_owned(),
                    work_tree: work_tree.to_owned(),
                    allowed: allowed.clone(),
                });
            }
        }
        Err(GitError::NoRepository(root.to_owned()))
    }

    /// The hex id of the commit that is checked out; none before the first one. Blocks on the file system.
    #[must_use]
    pub fn head(&self) -> Option<String> {
        let repository = self.shared.to_thread_local();
        repository.head_id().ok().map(|id| id.to_string())
    }

    /// The wanted files below the project's root whose bytes on disk are not those of a commit, which any of Git's names
    /// for a commit may name.
    ///
    /// Staged or not makes no difference, and neither do modes. An untracked file counts as new unless it is ignored;
    /// a tracked one counts even so. What the disk does not have is deleted, be it because of a sparse checkout. Bytes
    /// that only Git's own conversions (line endings, encodings, `$Id$`) keep apart from the commit's are the same;
    /// drivers are never run, so a file that needs one is the same only as long as the index vouches for it.
    ///
    /// Links are read through, as Pyright does; of one that leads out of the work tree, its text is compared. One that
    /// leads to a file of the work tree which the commit, or its submodule, does not have counts as new.
    /// Files of submodules are compared with the commit that the superproject's commit records. Where that commit can't
    /// be read, and in other repositories below the root, all files are new. Only the repository's own ignore rules
    /// count, not those of the user or the machine. Paths that are no UTF-8 are left out: no caller could name them.
    ///
    /// Blocks on the file system.
    ///
    /// # Errors
    /// Where the commit is not there, or the repository can't be read.
    pub fn changes_since(&self, commit: &str, wanted: &dyn Fn(&str, Kind) -> bool) -> Result<Changes, GitError> {
        let repository = self.shared.to_thread_local();
        let tree = then::tree_of(&repository, commit)?;
        self.changes(repository, Some(tree), wanted)
    }

    /// As [`Repository::changes_since`] the commit that is checked out; before the first one, everything is new.
    ///
    /// # Errors
    /// Where the repository can't be read.
    pub fn uncommitted(&self, wanted: &dyn Fn(&str, Kind) -> bool) -> Result<Changes, GitError> {
        let repository = self.shared.to_thread_local();
        let is_unborn = repository.head().map_err(GitError::unreadable)?.is_unborn();
        let tree = if is_unborn { None } else { Some(then::tree_of(&repository, "HEAD")?) };
        self.changes(repository, tree, wanted)
    }

    fn changes(
        &self,
        repository: gix::Repository,
        tree: Option<gix::ObjectId>,
        wanted: &dyn Fn(&str, Kind) -> bool,
    ) -> Result<Changes, GitError> {
        let before = self.root.strip_prefix(&self.work_tree).map_err(GitError::unreadable)?;
        let committed = match tree {
            Some(tree) => then::read(&repository, tree, before, &self.root, &self.allowed, wanted)?,
            None => then::Committed::default(),
        };
        now::compare(repository, before, &self.root, &self.allowed, committed, wanted)
    }
}

/// The files on which types depend: sources, stubs, markers of typed packages, and Pyright's configuration, in folders
/// where Pyright looks for sources.
pub fn matters_to_types(root: &Path) -> impl Fn(&str, Kind) -> bool {
    let root = root.to_owned();
    move |path, kind| match kind {
        Kind::File => tree::matters(Path::new(path)),
        Kind::Folder => !tree::is_skipped(&root.join(path)),
    }
}

/// The project's own sources, as its configuration names them.
pub fn sources(root: &Path, allowed: &AllowedRoots) -> impl Fn(&str, Kind) -> bool {
    let scope = Scope::of(&Configuration::read(root, &|path| allowed.hold(path)));
    let root = root.to_owned();
    move |path, kind| match kind {
        Kind::File => tree::is_source(Path::new(path)) && scope.holds(&root.join(path)),
        Kind::Folder => !tree::is_skipped(&root.join(path)),
    }
}

/// The repository of which this canonical folder is the work tree's top, if it is one.
fn open(work_tree: &Path, allowed: &AllowedRoots) -> Result<Option<gix::Repository>, GitError> {
    if gix::discover::is_git(&work_tree.join(".git")).is_err() {
        return Ok(None);
    }
    let repository = open_as_is(work_tree, allowed)?;
    let own = repository.workdir().and_then(|folder| folder.canonicalize().ok());
    if own.as_deref() == Some(work_tree) {
        Ok(Some(repository))
    } else {
        Err(GitError::NoRepository(work_tree.to_owned()))
    }
}

/// Opens a work tree or a Git folder, such that its configuration is not trusted with more than plain values: no paths,
/// no commands, no other files; and no environment variable counts.
fn open_as_is(folder: &Path, allowed: &AllowedRoots) -> Result<gix::Repository, GitError> {
    let options = gix::open::Options::isolated().with(Trust::Reduced);
    let repository = options.open(folder).map_err(GitError::unreadable)?.to_thread_local();
    let objects = repository.objects.store_ref().path().to_owned();
    let alternates = gix::odb::alternate::resolve(objects.clone(), folder).map_err(GitError::unreadable)?;
    let mut places = vec![repository.git_dir().to_owned(), repository.common_dir().to_owned(), objects];
    places.extend(alternates);
    for place in places {
        let canonical = folder.join(&place).canonicalize().map_err(GitError::unreadable)?;
        if !allowed.hold(&canonical) {
            return Err(GitError::NotAllowed(place));
        }
    }
    Ok(repository)
}
