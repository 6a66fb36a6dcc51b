//! Which files have other bytes than those of which digests are known, without a word from Git.
//!
//! Which files there are is told by the caller; how Git sees it is left to `git`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::parallel::in_parallel;
use super::tree::Stamp;
use crate::model::Digest;

/// The coarsest steps in which a file system that is in use tells time: FAT's.
const GRAIN: Duration = Duration::from_secs(2);

/// Files of a project, relative to its root with `/` between the parts, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New, or with other bytes.
    pub changed: Vec<String>,
    /// No longer there.
    pub deleted: Vec<String>,
}

impl Changes {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.deleted.is_empty()
    }
}

/// Digests that were read before, by the stamps that the files had then; one for each project.
///
/// A stamp counts only if it was already old when the file was read: until then, other bytes could get the same one.
#[derive(Debug, Default)]
pub struct Seen(Mutex<HashMap<PathBuf, (Stamp, Digest)>>);

impl Seen {
    /// The digest of a file's bytes, by its stamp where that tells.
    ///
    /// None where there is no readable file. Blocks on the file system.
    #[must_use]
    pub fn digest(&self, path: &Path) -> Option<Digest> {
        let stamp = stamp(path)?;
        if let Some((before, digest)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(path)
            && *before == stamp
        {
            return Some(digest.clone());
        }
        let moment = SystemTime::now();
        let digest = Digest::of(&std::fs::read(path).ok()?);
        let settled = stamp.is_older_than(moment, GRAIN) && self::stamp(path) == Some(stamp);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if settled {
            seen.insert(path.to_owned(), (stamp, digest.clone()));
        } else {
            seen.remove(path);
        }
        Some(digest)
    }
}

/// Compares the files that are `present` below a root, by their absolute paths, with the `known` ones, by their relative
/// paths. Blocks on the file system.
///
/// Bytes are read through symbolic links. A present file that can't be read counts as changed, since nobody can say that
/// it did not. Paths that are no UTF-8 are left out: no caller could name them.
pub fn by_digest(
    root: &Path,
    known: impl IntoIterator<Item = (String, Digest)>,
    present: impl IntoIterator<Item = PathBuf>,
    seen: &Seen,
) -> Changes {
    let mut known: BTreeMap<String, Digest> = known.into_iter().collect();
    let present = present.into_iter().filter_map(|path| {
        let name = path.strip_prefix(root).ok()?.to_str()?.to_owned();
        let digest = known.remove(&name);
        Some((name, path, digest))
    });
    let present: Vec<_> = present.collect();
    let states = in_parallel(&present, |(_, path, before)| match before {
        None => path.is_file().then_some(false),
        Some(before) => match seen.digest(path) {
            Some(now) => Some(now == *before),
            None => path.is_file().then_some(false),
        },
    });
    let mut changes = Changes { changed: Vec::new(), deleted: known.into_keys().collect() };
    for ((name, _, before), is_same) in present.into_iter().zip(states) {
        match is_same {
            Some(false) => changes.changed.push(name),
            // It went between being listed and being looked at.
            None if before.is_some() => changes.deleted.push(name),
            _ => {}
        }
    }
    changes.changed.sort();
    changes.deleted.sort();
    let mut seen = seen.0.lock().unwrap_or_else(PoisonError::into_inner);
    for name in &changes.deleted {
        seen.remove(&root.join(name));
    }
    changes
}

fn stamp(path: &Path) -> Option<Stamp> {
    std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|metadata| Stamp::of(&metadata))
}
