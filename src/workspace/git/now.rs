//! The files on disk, and which of them differ from what a commit holds.

use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use gix::ObjectId;
use gix::bstr::{BStr, BString, ByteSlice as _};
use gix::filter::plumbing::Pipeline;
use gix::filter::plumbing::pipeline::{CrlfRoundTripCheck, convert::ToGitOutcome};
use gix::index::entry::{Flags, Mode, Stage};
use gix::worktree::stack::state::{attributes, ignore};

use super::super::changes::Changes;
use super::super::parallel::in_parallel;
use super::super::paths::AllowedRoots;
use super::then::{Committed, Then};
use super::{GitError, Kind};

/// How long before the index was written a file may have changed without the file system's clock telling.
const GRAIN: Duration = Duration::from_millis(20);

/// One repository's share of the disk.
struct Part {
    repository: gix::Repository,
    index: gix::index::State,
    /// When the index was written, less what the clock may hide.
    written: (i64, i64),
    /// How much of a path, seen from the project's root, leads to its work tree.
    cut: usize,
    /// Where the project's root lies in its work tree, with a `/` at the end.
    before: BString,
}

/// A file of the commit that may still be there.
struct Candidate {
    name: String,
    /// The name in its own repository.
    own: BString,
    part: usize,
    then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Same,
    Gone,
    Other,
    /// Other than this blob, but for what Git's conversions may say.
    Unlike(ObjectId),
}

/// Compares what is on disk with what was committed.
pub(super) fn compare(
    repository: gix::Repository,
    before: &Path,
    root: &Path,
    allowed: &AllowedRoots,
    mut committed: Committed,
    wanted: &dyn Fn(&str, Kind) -> bool,
) -> Result<Changes, GitError> {
    let work_tree = root.ancestors().nth(before.components().count()).unwrap_or(root);
    let mut before = gix::path::into_bstr(before).map_err(GitError::unreadable)?.into_owned();
    if !before.is_empty() {
        before.push(b'/');
    }
    let mut changes = Changes::default();
    let mut candidates = Vec::new();
    let mut parts = vec![Part::new(repository, 0, before)?];
    let mut nested = vec![(0, String::new(), false)];
    while let Some((number, top, is_ignored)) = nested.pop() {
        let part = &parts[number];
        let mut found = Vec::new();
        let mut ignores = part
            .repository
            .excludes(&part.index, None, ignore::Source::WorktreeThenIdMappingIfNotSkipped)
            .map_err(GitError::unreadable)?;
        let mut is_excluded = |path: &BStr, mode: Mode| {
            let place = ignores.at_entry(path, Some(mode)).map_err(GitError::unreadable)?;
            Ok::<_, GitError>(place.is_excluded())
        };
        let above = part.before.trim_end_with(|letter| letter == '/').as_bstr();
        if !above.is_empty() && committed.files.is_empty() && !part.tracks_below("") && is_excluded(above, Mode::DIR)? {
            return Err(GitError::NoRepository(root.to_owned()));
        }
        let mut rest = vec![(top, is_ignored)];
        while let Some((folder, is_ignored)) = rest.pop() {
            // A folder that went while it was walked is deleted; one that may not be read holds nothing for Pyright.
            let Ok(entries) = std::fs::read_dir(root.join(&folder)) else { continue };
            for entry in entries.filter_map(Result::ok) {
                let (Ok(kind), Ok(name)) = (entry.file_type(), entry.file_name().into_string()) else { continue };
                if name == ".git" {
                    continue;
                }
                let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                if kind.is_dir() {
                    if !wanted(&path, Kind::Folder) {
                        continue;
                    }
                    let is_tracked = part.tracks_below(&path) || part.tracks(&path);
                    let is_ignored = !is_tracked && (is_ignored || is_excluded(part.own(&path).as_bstr(), Mode::DIR)?);
                    if is_ignored && !committed.folders.contains(&path) {
                        continue;
                    }
                    match super::open(&root.join(&path), allowed) {
                        Ok(Some(repository)) => found.push((repository, path, is_ignored)),
                        // What can't be opened as a repository is a folder like others.
                        _ => rest.push((path, is_ignored)),
                    }
                } else if (kind.is_file() || kind.is_symlink()) && wanted(&path, Kind::File) {
                    if let Some(then) = committed.files.remove(&path) {
                        candidates.push(Candidate { own: part.own(&path), name: path, part: number, then });
                    } else if (part.tracks(&path)
                        || !is_ignored && !is_excluded(part.own(&path).as_bstr(), Mode::FILE)?)
                        && (kind.is_file() || root.join(&path).is_file())
                    {
                        changes.changed.push(path);
                    }
                }
            }
        }
        for (repository, path, is_ignored) in found {
            nested.push((parts.len(), path.clone(), is_ignored));
            parts.push(Part::new(repository, path.len() + 1, BString::default())?);
        }
    }

    changes.deleted = committed.files.into_keys().collect();
    let views: Vec<_> = parts.iter().map(|part| part.view(work_tree)).collect();
    let states = in_parallel(&candidates, |candidate| views[candidate.part].judge(root, candidate));
    let mut conversions: Vec<Option<Conversions<'_>>> = parts.iter().map(|_| None).collect();
    for (candidate, state) in candidates.into_iter().zip(states) {
        let is_same = match state {
            State::Same => true,
            State::Gone => {
                changes.deleted.push(candidate.name);
                continue;
            }
            State::Other => false,
            State::Unlike(id) => {
                let part = &parts[candidate.part];
                if conversions[candidate.part].is_none() {
                    conversions[candidate.part] = Conversions::new(part);
                }
                let stored = conversions[candidate.part]
                    .as_mut()
                    .and_then(|conversions| conversions.stored(&root.join(&candidate.name), candidate.own.as_bstr()));
                stored == Some(id)
            }
        };
        if !is_same {
            changes.changed.push(candidate.name);
        }
    }
    changes.changed.sort();
    changes.deleted.sort();
    Ok(changes)
}

impl Part {
    fn new(repository: gix::Repository, cut: usize, before: BString) -> Result<Self, GitError> {
        // Not the snapshot that gix keeps: within a tick of the clock, that may be of an earlier index.
        let index: gix::index::State = if repository.index_path().exists() {
            repository.open_index().map_err(GitError::unreadable)?.into_parts().0
        } else {
            gix::index::State::new(repository.object_hash())
        };
        let written = index.timestamp();
        let (mut seconds, mut nanoseconds) = (written.unix_seconds(), i64::from(written.nanoseconds()));
        nanoseconds -= i64::from(GRAIN.subsec_nanos());
        if nanoseconds < 0 {
            (seconds, nanoseconds) = (seconds - 1, nanoseconds + 1_000_000_000);
        }
        Ok(Self { repository, index, written: (seconds, nanoseconds), cut, before })
    }

    /// A path as this repository names it.
    fn own(&self, path: &str) -> BString {
        [self.before.as_slice(), path.get(self.cut..).unwrap_or_default().as_bytes()].concat().into()
    }

    /// Whether the index has the path, be it in conflict, or as a submodule.
    fn tracks(&self, path: &str) -> bool {
        self.index.entry_range(self.own(path).as_bstr()).is_some()
    }

    /// Whether the index has something below a folder.
    fn tracks_below(&self, folder: &str) -> bool {
        let mut prefix = self.own(folder);
        if !folder.is_empty() {
            prefix.push(b'/');
        }
        self.index.prefixed_entries_range(prefix.as_bstr()).is_some_and(|range| !range.is_empty())
    }

    fn view<'part>(&'part self, work_tree: &'part Path) -> View<'part> {
        View { work_tree, index: &self.index, written: self.written, hash: self.repository.object_hash() }
    }
}

/// What many threads may look at.
struct View<'part> {
    /// The outermost work tree.
    work_tree: &'part Path,
    index: &'part gix::index::State,
    written: (i64, i64),
    hash: gix::hash::Kind,
}

impl View<'_> {
    fn judge(&self, root: &Path, candidate: &Candidate) -> State {
        let path = root.join(&candidate.name);
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { return State::Gone };
        if metadata.is_symlink() {
            return self.judge_link(&path, candidate.then);
        }
        if !metadata.is_file() {
            return State::Gone;
        }
        let (Then::File(id) | Then::Link { leads_to: Some(id), .. }) = candidate.then else { return State::Other };
        if self.vouches(candidate.own.as_bstr(), id, &metadata) {
            return State::Same;
        }
        self.judge_bytes(&path, id)
    }

    fn judge_link(&self, path: &Path, then: Then) -> State {
        let text = std::fs::read_link(path).unwrap_or_default();
        let has_same_text =
            matches!(then, Then::Link { text: id, .. } if self.blob(text.as_os_str().as_bytes()) == Some(id));
        let is_file = path.is_file();
        let is_inside = is_file && path.canonicalize().is_ok_and(|target| target.starts_with(self.work_tree));
        match then {
            // It led out of the work tree, of which Git knows nothing, or nowhere, and does so still.
            Then::Link { leads_to: None, .. } if has_same_text && !is_inside => State::Same,
            Then::File(id) | Then::Link { leads_to: Some(id), .. } if is_inside => self.judge_bytes(path, id),
            _ if is_file => State::Other,
            _ => State::Gone,
        }
    }

    fn judge_bytes(&self, path: &Path, id: ObjectId) -> State {
        match std::fs::read(path) {
            Ok(bytes) if self.blob(&bytes) == Some(id) => State::Same,
            Ok(_) => State::Unlike(id),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => State::Gone,
            Err(_) => State::Other,
        }
    }

    fn blob(&self, bytes: &[u8]) -> Option<ObjectId> {
        gix::objs::compute_hash(self.hash, gix::objs::Kind::Blob, bytes).ok()
    }

    /// Whether the index says that a file, untouched since, had this blob's bytes.
    fn vouches(&self, path: &BStr, id: ObjectId, metadata: &Metadata) -> bool {
        let Some(entry) = self.index.entry_by_path_and_stage(path, Stage::Unconflicted) else { return false };
        let is_whole = entry.id == id && !entry.flags.contains(Flags::INTENT_TO_ADD);
        // Git writes no size for what it could not be sure of.
        let is_sure = entry.stat.size > 0 || id == ObjectId::empty_blob(self.hash);
        is_whole
            && matches!(entry.mode, Mode::FILE | Mode::FILE_EXECUTABLE)
            && is_sure
            && is_as_recorded(&entry.stat, metadata)
            && (metadata.mtime(), metadata.mtime_nsec()) < self.written
    }
}

/// Whether a file has the stamp in the index, which keeps the lower 32 bits of each number.
fn is_as_recorded(stat: &gix::index::entry::Stat, metadata: &Metadata) -> bool {
    let low = |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default();
    let is_at = |time: gix::index::entry::stat::Time, seconds: i64, nanoseconds: i64| {
        time.secs == low(seconds.cast_unsigned()) && i64::from(time.nsecs) == nanoseconds
    };
    stat.size == low(metadata.len())
        && stat.ino == low(metadata.ino())
        && is_at(stat.mtime, metadata.mtime(), metadata.mtime_nsec())
        && is_at(stat.ctime, metadata.ctime(), metadata.ctime_nsec())
}

/// Git's own conversions from what is on disk to what is committed; drivers are left out.
struct Conversions<'part> {
    pipeline: Pipeline,
    attributes: gix::AttributeStack<'part>,
    hash: gix::hash::Kind,
}

impl<'part> Conversions<'part> {
    /// None where the configuration makes no sense: then bytes are compared as they are.
    fn new(part: &'part Part) -> Option<Self> {
        let mut options = gix::filter::Pipeline::options(&part.repository).ok()?;
        // These are the programs that a repository may name.
        options.drivers.clear();
        options.crlf_roundtrip_check = CrlfRoundTripCheck::Skip;
        let source = attributes::Source::WorktreeThenIdMapping;
        let attributes = part.repository.attributes_only(&part.index, source).ok()?;
        let hash = part.repository.object_hash();
        let pipeline = Pipeline::new(gix::command::Context::default(), hash, options);
        Some(Self { pipeline, attributes, hash })
    }

    /// The blob as which a file would be committed.
    fn stored(&mut self, file: &Path, path: &BStr) -> Option<ObjectId> {
        let bytes = std::fs::read(file).ok()?;
        let place = self.attributes.at_entry(path, None).ok()?;
        let mut match_attributes = |_: &BStr, found: &mut gix::attrs::search::Outcome| {
            place.matching_attributes(found);
        };
        let path = gix::path::from_bstr(path).ok()?;
        match self.pipeline.convert_to_git(bytes.as_slice(), &path, &mut match_attributes, &mut |_| Ok(None)).ok()? {
            ToGitOutcome::Buffer(stored) => gix::objs::compute_hash(self.hash, gix::objs::Kind::Blob, stored).ok(),
            // Nothing to convert, and what would come from a program is not taken.
            ToGitOutcome::Unchanged(_) | ToGitOutcome::Process(_) => None,
        }
    }
}
