//! From a path that a caller names to a file that it may read, and the file's bytes.
//!
//! Which roots are allowed is decided here; who may call is not.

use std::io;
use std::path::{Component, Path, PathBuf};

use crate::model::ProjectRoot;

/// Why a path that a caller named can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The caller named nothing.
    #[error("it is empty")]
    Empty,
    /// A project root has to be absolute.
    #[error("{} is not an absolute path", .0.display())]
    NotAbsolute(PathBuf),
    /// A file's path has to be relative to its root and stay below it.
    #[error("{} is not a relative path below the project root, with '/' between its parts and no '..'", .0.display())]
    NotBelowRoot(PathBuf),
    /// A symbolic link leads out of the root.
    #[error("{} is a symbolic link that leads out of the project root", .0.display())]
    LeavesRoot(PathBuf),
    /// No allowed root holds it.
    #[error("{} is not below an allowed root; the server's --allow-root names those", .0.display())]
    NotAllowed(PathBuf),
    /// There is nothing there.
    #[error("{} does not exist", .0.display())]
    NotFound(PathBuf),
    /// Not a folder where one is needed.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// Not a regular file where one is needed.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// The operating system refuses it.
    #[error("{} can't be read: {}", .0.display(), .1)]
    Unreadable(PathBuf, String),
}

impl PathError {
    fn from_io(path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::NotFound(path.to_owned()),
            _ => Self::Unreadable(path.to_owned(), error.to_string()),
        }
    }
}

/// The folders below which projects may lie. None are, unless named.
#[derive(Clone, Debug, Default)]
pub struct AllowedRoots(Vec<PathBuf>);

impl AllowedRoots {
    /// Makes the named folders canonical.
    ///
    /// # Errors
    /// For a folder that is not there, or is none.
    pub fn new(folders: &[PathBuf]) -> Result<Self, PathError> {
        folders.iter().map(|folder| canonical_folder(folder)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a canonical path lies below one of them.
    #[must_use]
    pub fn hold(&self, canonical: &Path) -> bool {
        self.0.iter().any(|root| canonical.starts_with(root))
    }

    /// The folders.
    pub fn iter(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(PathBuf::as_path)
    }

    /// The project root that a caller names.
    ///
    /// Whether a folder exists is told only of those below an allowed root.
    ///
    /// # Errors
    /// Where it is relative, not allowed, not there, or no folder.
    pub fn project(&self, named: &str) -> Result<ProjectRoot, PathError> {
        self.folder(named).map(|path| ProjectRoot::new(&path))
    }

    /// A folder that a caller names, canonical.
    ///
    /// # Errors
    /// As for [`AllowedRoots::project`].
    pub fn folder(&self, named: &str) -> Result<PathBuf, PathError> {
        if named.is_empty() {
            return Err(PathError::Empty);
        }
        let path = Path::new(named);
        if !path.is_absolute() {
            return Err(PathError::NotAbsolute(path.to_owned()));
        }
        match canonical_folder(path) {
            Ok(canonical) if self.hold(&canonical) => Ok(canonical),
            Err(error) if self.hold(&lexical(path)) => Err(error),
            _ => Err(PathError::NotAllowed(path.to_owned())),
        }
    }
}

/// The canonical path of a file named relative to its project's root.
///
/// # Errors
/// Where it is absolute, has `..`, leads out of the root, is not there, or is no regular file.
pub fn resolve(root: &ProjectRoot, named: &str) -> Result<PathBuf, PathError> {
    let path = below(root, named)?;
    let canonical = path.canonicalize().map_err(|error| PathError::from_io(&path, &error))?;
    if !canonical.starts_with(root.path()) {
        return Err(PathError::LeavesRoot(path));
    }
    match std::fs::metadata(&canonical) {
        Ok(metadata) if metadata.is_file() => Ok(path),
        Ok(_) => Err(PathError::NotAFile(path)),
        Err(error) => Err(PathError::from_io(&path, &error)),
    }
}

/// The path of a file whose text the caller brings along: it need not be there, but its folder must not lead out.
///
/// # Errors
/// Where it is absolute, has `..`, leads out of the root, or is a folder.
pub fn resolve_overlay(root: &ProjectRoot, named: &str) -> Result<PathBuf, PathError> {
    match resolve(root, named) {
        Err(PathError::NotFound(path)) => {
            let nearest = path.ancestors().skip(1).find_map(|ancestor| ancestor.canonicalize().ok());
            if nearest.is_some_and(|ancestor| ancestor.starts_with(root.path())) {
                Ok(path)
            } else {
                Err(PathError::LeavesRoot(path))
            }
        }
        resolved => resolved,
    }
}

fn below(root: &ProjectRoot, named: &str) -> Result<PathBuf, PathError> {
    if named.is_empty() {
        return Err(PathError::Empty);
    }
    let relative = Path::new(named);
    let mut path = root.path().to_owned();
    for component in relative.components() {
        match component {
            Component::Normal(part) if !named.contains('\0') => path.push(part),
            Component::CurDir => {}
            _ => return Err(PathError::NotBelowRoot(relative.to_owned())),
        }
    }
    Ok(path)
}

fn canonical_folder(path: &Path) -> Result<PathBuf, PathError> {
    let canonical = path.canonicalize().map_err(|error| PathError::from_io(path, &error))?;
    if canonical.is_dir() { Ok(canonical) } else { Err(PathError::NotAFolder(path.to_owned())) }
}

/// The path without `.` and `..`, as far as its text tells.
fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_allowed_roots_are_told_of() {
        let outer = tempfile::tempdir().unwrap();
        let outer = outer.path().canonicalize().unwrap();
        let allowed = outer.join("allowed");
        std::fs::create_dir_all(allowed.join("project")).unwrap();
        std::fs::create_dir_all(outer.join("allowed-not")).unwrap();
        std::fs::write(allowed.join("file"), "").unwrap();
        std::os::unix::fs::symlink(&outer, allowed.join("out")).unwrap();
        let roots = AllowedRoots::new(std::slice::from_ref(&allowed)).unwrap();
        let name = |tail: &str| format!("{}/{tail}", outer.display());

        assert_eq!(roots.project(&name("allowed/project/../project/")).unwrap().path(), allowed.join("project"));
        assert!(roots.project(&name("allowed")).is_ok());
        assert_eq!(roots.project(""), Err(PathError::Empty));
        assert!(matches!(roots.project("project"), Err(PathError::NotAbsolute(_))));
        assert!(matches!(roots.project(&name("allowed-not")), Err(PathError::NotAllowed(_))));
        assert!(matches!(roots.project(&name("missing")), Err(PathError::NotAllowed(_))));
        assert!(matches!(roots.project(&name("allowed/../missing")), Err(PathError::NotAllowed(_))));
        assert!(matches!(roots.project(&name("allowed/out")), Err(PathError::NotAllowed(_))));
        assert!(matches!(roots.project(&name("allowed/missing")), Err(PathError::NotFound(_))));
        assert!(matches!(roots.project(&name("allowed/file")), Err(PathError::NotAFolder(_))));
        assert!(matches!(AllowedRoots::default().project(&name("allowed")), Err(PathError::NotAllowed(_))));
    }

    #[test]
    fn files_stay_below_their_root() {
        let outer = tempfile::tempdir().unwrap();
        let outer = outer.path().canonicalize().unwrap();
        let root = outer.join("root");
        std::fs::create_dir_all(root.join("package")).unwrap();
        for file in ["outside.py", "root/a.py", "root/package/b.py"] {
            std::fs::write(outer.join(file), "").unwrap();
        }
        let link = |to: &Path, from: &str| std::os::unix::fs::symlink(to, root.join(from)).unwrap();
        link(&outer.join("outside.py"), "leaves.py");
        link(&outer, "up");
        link(&root.join("a.py"), "stays.py");
        let root = ProjectRoot::new(&root);

        assert_eq!(resolve(&root, "./package/b.py").unwrap(), root.path().join("package/b.py"));
        assert_eq!(resolve(&root, "stays.py").unwrap(), root.path().join("stays.py"));
        for named in ["../outside.py", "/etc/passwd", "package/../../outside.py", "package/../a.py", "a\0.py"] {
            assert!(matches!(resolve(&root, named), Err(PathError::NotBelowRoot(_))), "{named}");
            assert!(matches!(resolve_overlay(&root, named), Err(PathError::NotBelowRoot(_))), "{named}");
        }
        for named in ["leaves.py", "up/outside.py"] {
            assert!(matches!(resolve(&root, named), Err(PathError::LeavesRoot(_))), "{named}");
            assert!(matches!(resolve_overlay(&root, named), Err(PathError::LeavesRoot(_))), "{named}");
        }
        assert!(matches!(resolve_overlay(&root, "up/new.py"), Err(PathError::LeavesRoot(_))));
        assert!(matches!(resolve(&root, "missing.py"), Err(PathError::NotFound(_))));
        assert!(matches!(resolve(&root, "a.py/b.py"), Err(PathError::NotFound(_))));
        assert!(matches!(resolve(&root, "package"), Err(PathError::NotAFile(_))));
        assert!(matches!(resolve(&root, ""), Err(PathError::Empty)));
        assert_eq!(resolve_overlay(&root, "new/c.py").unwrap(), root.path().join("new/c.py"));
    }
}
