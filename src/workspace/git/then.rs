//! The files that a commit holds below a project's root, submodules included.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use gix::ObjectId;
use gix::bstr::{BStr, BString, ByteSlice as _};
use gix::objs::tree::EntryKind;

use super::super::paths::AllowedRoots;
use super::{GitError, Kind};

/// More links than this one after the other lead nowhere, as for the operating system.
const MOST_LINKS: usize = 40;

/// What a commit has at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// A blob.
    File(ObjectId),
    /// A symbolic link, its text, and the blob that it led to, if the commit has one there.
    Link { text: ObjectId, leads_to: Option<ObjectId> },
}

/// By paths relative to the project's root.
#[derive(Debug, Default)]
pub(super) struct Committed {
    pub(super) files: HashMap<String, Then>,
    /// All folders that have been looked into.
    pub(super) folders: HashSet<String>,
}

/// The tree of the commit that a revision names.
pub(super) fn tree_of(repository: &gix::Repository, revision: &str) -> Result<ObjectId, GitError> {
    let missing = || {
        let is_shallow = repository.is_shallow().unwrap_or(false);
        let error = if is_shallow { GitError::NotFetched } else { GitError::NoSuchCommit };
        error(revision.to_owned())
    };
    let found = repository.rev_parse_single(revision).map_err(|_| missing())?;
    let commit = found.object().and_then(gix::Object::peel_to_commit).map_err(|_| missing())?;
    Ok(commit.tree_id().map_err(GitError::unreadable)?.detach())
}

/// Reads the wanted files below `before`, which is where the project's root lies in the work tree.
pub(super) fn read(
    repository: &gix::Repository,
    tree: ObjectId,
    before: &Path,
    root: &Path,
    allowed: &AllowedRoots,
    wanted: &dyn Fn(&str, Kind) -> bool,
) -> Result<Committed, GitError> {
    let mut committed = Committed::default();
    let before = gix::path::into_bstr(before).map_err(GitError::unreadable)?.into_owned();
    let Some((EntryKind::Tree, start)) = find(repository, tree, before.as_bstr())? else { return Ok(committed) };
    let mut parts = vec![Part { repository: repository.clone(), tree, top: String::new(), before }];
    let mut rest = vec![(0, start, String::new())];
    while let Some((number, id, folder)) = rest.pop() {
        let object = parts[number].repository.find_object(id).map_err(GitError::unreadable)?.detach();
        let mut inner = Vec::new();
        for entry in gix::objs::TreeRefIter::from_bytes(&object.data, id.kind()) {
            let entry = entry.map_err(GitError::unreadable)?;
            let Some(path) = joined(&folder, entry.filename) else { continue };
            let id = entry.oid.to_owned();
            match entry.mode.kind() {
                EntryKind::Tree if wanted(&path, Kind::Folder) => rest.push((number, id, path)),
                EntryKind::Blob | EntryKind::BlobExecutable if wanted(&path, Kind::File) => {
                    committed.files.insert(path, Then::File(id));
                }
                EntryKind::Link if wanted(&path, Kind::File) => {
                    if let Some(then) = parts[number].link(&path, id)? {
                        committed.files.insert(path, then);
                    }
                }
                EntryKind::Commit if wanted(&path, Kind::Folder) => inner.push((path, id)),
                _ => {}
            }
        }
        committed.folders.insert(folder);
        for (path, id) in inner {
            committed.folders.insert(path.clone());
            let Some(repository) = parts[number].submodule(&path, root, allowed) else { continue };
            let Ok(tree) = tree_of(&repository, &id.to_string()) else { continue };
            rest.push((parts.len(), tree, path.clone()));
            parts.push(Part { repository, tree, top: format!("{path}/"), before: BString::default() });
        }
    }
    Ok(committed)
}

/// One repository's share of a commit.
struct Part {
    repository: gix::Repository,
    tree: ObjectId,
    /// What its paths begin with, seen from the project's root.
    top: String,
    /// Where the project's root lies in its work tree.
    before: BString,
}

impl Part {
    /// A path as this repository names it.
    fn own(&self, path: &str) -> BString {
        let path = path.strip_prefix(&self.top).unwrap_or(path);
        if self.before.is_empty() { path.into() } else { format!("{}/{path}", self.before).into() }
    }

    /// What a link is; none if it leads to a folder, as links to folders are not followed.
    fn link(&self, path: &str, text: ObjectId) -> Result<Option<Then>, GitError> {
        let mut place = self.own(path);
        let mut id = text;
        for _ in 0..MOST_LINKS {
            // The text is missing in a clone without blobs; whether it changed can still be told by its id.
            let Ok(target) = self.repository.find_object(id) else { break };
            let Some(next) = self.resolve(place.as_bstr(), target.data.as_bstr())? else { break };
            match find(&self.repository, self.tree, next.as_bstr())? {
                Some((EntryKind::Blob | EntryKind::BlobExecutable, id)) => {
                    return Ok(Some(Then::Link { text, leads_to: Some(id) }));
                }
                Some((EntryKind::Tree | EntryKind::Commit, _)) => return Ok(None),
                Some((EntryKind::Link, further)) => (place, id) = (next, further),
                None => break,
            }
        }
        Ok(Some(Then::Link { text, leads_to: None }))
    }

    /// Where a link at `place` leads, as a path in this repository, through links to folders; none if out of it.
    fn resolve(&self, place: &BStr, target: &BStr) -> Result<Option<BString>, GitError> {
        if target.starts_with(b"/") {
            return Ok(None);
        }
        let mut done: Vec<BString> = place.split_str("/").map(BString::from).collect();
        done.pop();
        let mut rest: Vec<BString> = target.rsplit_str("/").map(BString::from).collect();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            match name.as_slice() {
                b"" | b"." => {}
                b".." => {
                    if done.pop().is_none() {
                        return Ok(None);
                    }
                }
                _ => {
                    done.push(name);
                    let here = gix::bstr::join("/", &done);
                    let is_last = rest.is_empty();
                    if !is_last
                        && let Some((EntryKind::Link, id)) = find(&self.repository, self.tree, here.as_bstr())?
                        && let Ok(target) = self.repository.find_object(id)
                    {
                        links += 1;
                        if links > MOST_LINKS || target.data.starts_with(b"/") {
                            return Ok(None);
                        }
                        done.pop();
                        rest.extend(target.data.rsplit_str("/").map(BString::from));
                    }
                }
            }
        }
        Ok(Some(gix::bstr::join("/", &done).into()))
    }

    /// The repository of a submodule: in its folder, else where the superproject keeps it while it is not checked out.
    fn submodule(&self, path: &str, root: &Path, allowed: &AllowedRoots) -> Option<gix::Repository> {
        let folder = root.join(path);
        let is_real = folder.canonicalize().is_ok_and(|canonical| canonical == folder);
        if is_real && let Ok(Some(repository)) = super::open(&folder, allowed) {
            return Some(repository);
        }
        let (_, id) = find(&self.repository, self.tree, ".gitmodules".into()).ok().flatten()?;
        let text = self.repository.find_object(id).ok()?;
        let config = self.repository.config_snapshot();
        let modules = gix::submodule::File::from_bytes(&text.data, PathBuf::new(), config.plumbing()).ok()?;
        let own = self.own(path);
        let name = modules.name_by_path(own.as_bstr())?.to_str().ok()?;
        let kept = self.repository.git_dir().join("modules").canonicalize().ok()?;
        let folder = kept.join(name).canonicalize().ok()?;
        folder.starts_with(&kept).then(|| super::open_as_is(&folder, allowed).ok())?
    }
}

/// What a tree has at a path, which is the tree itself if empty.
fn find(repository: &gix::Repository, tree: ObjectId, path: &BStr) -> Result<Option<(EntryKind, ObjectId)>, GitError> {
    if path.is_empty() {
        return Ok(Some((EntryKind::Tree, tree)));
    }
    let tree = repository.find_tree(tree).map_err(GitError::unreadable)?;
    let entry = tree.lookup_entry(path.split_str("/")).map_err(GitError::unreadable)?;
    Ok(entry.map(|entry| (entry.mode().kind(), entry.object_id())))
}

/// A path below a folder; none for a name that can't be one on disk.
fn joined(folder: &str, name: &BStr) -> Option<String> {
    let name = name.to_str().ok()?;
    if matches!(name, "" | "." | ".." | ".git") || name.contains('/') {
        return None;
    }
    Some(if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") })
}
