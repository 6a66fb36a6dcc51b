//! What changed, by Git and by digests, on real repositories: both have to say what a comparison of all bytes says.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use pyrightd::model::Digest;
use pyrightd::workspace::changes::{Changes, Seen, by_digest};
use pyrightd::workspace::git::{GitError, Kind, Repository, matters_to_types};
use pyrightd::workspace::paths::AllowedRoots;

/// A folder with a repository, and the `git` program with nobody's settings.
struct Checkout {
    _folder: Option<tempfile::TempDir>,
    top: PathBuf,
}

impl Checkout {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().canonicalize().unwrap();
        let checkout = Self { _folder: Some(folder), top };
        checkout.git(&["init", "--quiet", "--initial-branch=main"]);
        checkout
    }

    fn at(top: &Path) -> Self {
        Self { _folder: None, top: top.canonicalize().unwrap() }
    }

    fn inner(&self, name: &str) -> Self {
        std::fs::create_dir_all(self.top.join(name)).unwrap();
        Self::at(&self.top.join(name))
    }

    fn try_git(&self, arguments: &[&str]) -> std::process::Output {
        Command::new("git")
            .args(["-c", "protocol.file.allow=always", "-c", "gc.auto=0"])
            .args(arguments)
            .current_dir(&self.top)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", &self.top)
            .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null"), ("LC_ALL", "C")])
            .envs([("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@b"), ("GIT_COMMITTER_NAME", "a")])
            .env("GIT_COMMITTER_EMAIL", "a@b")
            .output()
            .unwrap()
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = self.try_git(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.top.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.top.join(name)).unwrap();
    }

    /// Commits all that is there, and gives the commit's id.
    fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message=x"]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn repository(&self) -> Repository {
        Repository::discover(&self.top, &self.allowed()).unwrap()
    }

    fn allowed(&self) -> AllowedRoots {
        allow(&[&self.top])
    }

    fn since(&self, commit: &str) -> (Vec<String>, Vec<String>) {
        pair(self.repository().changes_since(commit, &sources).unwrap())
    }

    fn uncommitted(&self) -> (Vec<String>, Vec<String>) {
        pair(self.repository().uncommitted(&sources).unwrap())
    }
}

fn allow(folders: &[&Path]) -> AllowedRoots {
    AllowedRoots::new(&folders.iter().map(|folder| folder.to_path_buf()).collect::<Vec<_>>()).unwrap()
}

fn pair(changes: Changes) -> (Vec<String>, Vec<String>) {
    (changes.changed, changes.deleted)
}

fn is_source(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "py" || extension == "pyi")
}

fn sources(path: &str, kind: Kind) -> bool {
    kind == Kind::Folder || is_source(path)
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn both(changed: &[&str], deleted: &[&str]) -> (Vec<String>, Vec<String>) {
    (names(changed), names(deleted))
}

/// Gives a file other bytes of the same length, and its old times.
fn change_unseen(path: &Path, text: &str) {
    let modified = std::fs::metadata(path).unwrap().modified().unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    std::io::Write::write_all(&mut &file, text.as_bytes()).unwrap();
    file.set_modified(modified).unwrap();
}

#[test]
fn staged_unstaged_and_untracked_files_are_told_alike() {
    let it = Checkout::new();
    for name in ["a.py", "b.py", "c.pyi", "kept.py", "moved.py", "mode.py", "folder/d.py", "text.txt", "typed.py"] {
        it.write(name, format!("{name} = 1\n"));
    }
    let first = it.commit();
    assert_eq!(it.repository().head(), Some(first.clone()));
    assert_eq!(it.uncommitted(), both(&[], &[]));

    it.write("a.py", "x = 2\n");
    it.write("b.py", "x = 2\n");
    it.git(&["add", "b.py"]);
    it.git(&["rm", "--quiet", "c.pyi"]);
    it.remove("folder/d.py");
    it.git(&["mv", "moved.py", "Moved.py"]);
    it.write("new.py", "");
    it.write("text.txt", "other");
    it.git(&["rm", "--quiet", "--cached", "typed.py"]);
    std::fs::set_permissions(it.top.join("mode.py"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let expected = both(&["Moved.py", "a.py", "b.py", "new.py"], &["c.pyi", "folder/d.py", "moved.py"]);
    assert_eq!(it.uncommitted(), expected);
    assert_eq!(it.since(&first), expected);

    // Committed or not makes no difference to what changed since the first commit.
    it.commit();
    assert_eq!(it.since(&first), expected);
    assert_eq!(it.uncommitted(), both(&[], &[]));

    // Staged, then changed back on disk: the disk counts.
    let kept = std::fs::read(it.top.join("kept.py")).unwrap();
    it.write("kept.py", "staged");
    it.git(&["add", "kept.py"]);
    it.write("kept.py", kept);
    assert_eq!(it.uncommitted(), both(&[], &[]));
}

#[test]
fn ignored_files_are_told_only_if_tracked() {
    let it = Checkout::new();
    it.write(".gitignore", "gen_*.py\nbuild/\n!gen_not.py\n/wide/*\n");
    it.write("package/.gitignore", "local.py\n");
    it.write(".git/info/exclude", "mine.py\n");
    it.write("gen_tracked.py", "1");
    it.write("build/tracked.py", "1");
    it.write("wide/tracked.py", "1");
    it.git(&["add", "--force", "gen_tracked.py", "build/tracked.py", "wide/tracked.py"]);
    it.commit();
    for name in ["gen_a.py", "gen_not.py", "build/b.py", "build/deep/b.py", "wide/c.py", "package/local.py", "local.py"]
    {
        it.write(name, "2");
    }
    it.write("mine.py", "2");
    it.write("other/build/x.py", "2");
    assert_eq!(it.uncommitted(), both(&["gen_not.py", "local.py"], &[]));
    it.write("gen_tracked.py", "22");
    it.write("build/tracked.py", "22");
    it.remove("wide/tracked.py");
    assert_eq!(
        it.uncommitted(),
        both(&["build/tracked.py", "gen_not.py", "gen_tracked.py", "local.py"], &["wide/tracked.py"])
    );
    // What the commit has is compared, though it is ignored and no longer tracked.
    it.git(&["rm", "--quiet", "--cached", "-r", "build", "gen_tracked.py"]);
    it.write("gen_tracked.py", "1");
    assert_eq!(it.uncommitted(), both(&["build/tracked.py", "gen_not.py", "local.py"], &["wide/tracked.py"]));

    // A project in an ignored folder is not Git's: nobody could say what changed.
    it.write("build/project/a.py", "1");
    it.git(&["commit", "--quiet", "--message=x"]);
    let inner = it.top.join("build/project");
    let repository = Repository::discover(&inner, &it.allowed()).unwrap();
    assert_eq!(repository.uncommitted(&sources), Err(GitError::NoRepository(inner)));
}

#[test]
fn a_root_below_the_work_tree_hears_of_its_own_files() {
    let it = Checkout::new();
    it.write("outside.py", "1");
    it.write("a/b/in.py", "1");
    it.write("a/b/c/deep.py", "1");
    it.write("a/bc/beside.py", "1");
    let first = it.commit();
    for name in ["outside.py", "a/b/c/deep.py", "a/bc/beside.py", "a/b/new.py"] {
        it.write(name, "22");
    }
    it.remove("a/b/in.py");
    let inner = it.top.join("a/b");
    let repository = Repository::discover(&inner, &it.allowed()).unwrap();
    let changes = repository.changes_since(&first, &sources).unwrap();
    assert_eq!(pair(changes), both(&["c/deep.py", "new.py"], &["in.py"]));
    let only = |path: &str, kind: Kind| kind == Kind::File || path != "c";
    assert_eq!(pair(repository.changes_since(&first, &only).unwrap()), both(&["new.py"], &["in.py"]));
    // A repository above the allowed roots is none.
    let error = Repository::discover(&inner, &allow(&[&inner])).unwrap_err();
    assert_eq!(error, GitError::NoRepository(inner));
    // Nor is a folder that the commit does not know a mistake.
    let new = it.inner("a/new");
    new.write("n.py", "1");
    let repository = Repository::discover(&new.top, &it.allowed()).unwrap();
    assert_eq!(pair(repository.changes_since(&first, &sources).unwrap()), both(&["n.py"], &[]));
}

#[test]
fn commits_are_named_as_git_names_them() {
    let it = Checkout::new();
    assert_eq!(it.repository().head(), None);
    it.write("a.py", "1");
    assert_eq!(it.uncommitted(), both(&["a.py"], &[]));
    it.git(&["add", "a.py"]);
    assert_eq!(it.uncommitted(), both(&["a.py"], &[]));
    assert_eq!(it.repository().changes_since("HEAD", &sources), Err(GitError::NoSuchCommit("HEAD".to_owned())));
    let first = it.commit();
    it.git(&["tag", "--annotate", "v1", "--message=x"]);
    it.git(&["branch", "feature/x"]);
    it.write("b.py", "1");
    it.commit();
    it.git(&["pack-refs", "--all"]);
    it.git(&["repack", "-adq"]);
    for name in [&first, &first[..8], "v1", "feature/x", "HEAD~1", "HEAD^", "refs/tags/v1", "main~1"] {
        assert_eq!(it.since(name), both(&["b.py"], &[]), "{name}");
    }
    let tree = it.git(&["rev-parse", "HEAD^{tree}"]);
    for name in [
        "",
        "nothing",
        "0123456789012345678901234567890123456789",
        "HEAD~9",
        "HEAD:a.py",
        &tree,
        "v1..HEAD",
        "-x",
        "a\0b",
    ] {
        let error = it.repository().changes_since(name, &sources).unwrap_err();
        assert_eq!(error, GitError::NoSuchCommit(name.to_owned()));
    }

    let shallow = tempfile::tempdir().unwrap();
    let (from, to) = (format!("file://{}", it.top.display()), shallow.path().join("s"));
    it.git(&["clone", "--quiet", "--depth=1", &from, to.to_str().unwrap()]);
    let shallow = Checkout::at(&to);
    assert_eq!(shallow.uncommitted(), both(&[], &[]));
    assert_eq!(shallow.repository().changes_since(&first, &sources), Err(GitError::NotFetched(first)));
}

#[test]
fn only_a_work_tree_counts() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().canonicalize().unwrap();
    let discover = |path: &Path| Repository::discover(path, &allow(&[&top]));
    assert_eq!(discover(&top).unwrap_err(), GitError::NoRepository(top.clone()));
    let it = Checkout::at(&top);
    it.git(&["init", "--quiet", "--bare", "bare.git"]);
    assert_eq!(discover(&top.join("bare.git")).unwrap_err(), GitError::NoRepository(top.join("bare.git")));
    it.git(&["init", "--quiet", "tree"]);
    it.git(&["-C", "tree", "config", "core.bare", "true"]);
    assert!(matches!(discover(&top.join("tree")).unwrap_err(), GitError::NoRepository(_)));
    it.write("broken/.git", "gitdir: ../nowhere\n");
    assert!(matches!(discover(&top.join("broken")).unwrap_err(), GitError::NoRepository(_)));
    it.git(&["init", "--quiet", "damaged"]);
    it.write("damaged/.git/config", "[core\n");
    assert!(matches!(discover(&top.join("damaged")).unwrap_err(), GitError::Unreadable(_)));
}

#[test]
fn a_linked_work_tree_has_its_own_index_and_head() {
    let it = Checkout::new();
    let main = it.inner("main");
    main.git(&["init", "--quiet", "--initial-branch=main"]);
    main.write("a.py", "1");
    let first = main.commit();
    main.git(&["worktree", "add", "--quiet", "-b", "other", "../linked"]);
    let linked = Checkout::at(&it.top.join("linked"));
    linked.write("b.py", "1");
    linked.git(&["add", "--all"]);
    linked.git(&["commit", "--quiet", "--message=x"]);
    linked.write("a.py", "22");
    let repository = Repository::discover(&linked.top, &it.allowed()).unwrap();
    assert_eq!(pair(repository.changes_since(&first, &sources).unwrap()), both(&["a.py", "b.py"], &[]));
    assert_eq!(pair(repository.uncommitted(&sources).unwrap()), both(&["a.py"], &[]));
    assert_eq!(main.uncommitted(), both(&[], &[]));
    // Its objects lie with the main one.
    let error = Repository::discover(&linked.top, &allow(&[&linked.top])).unwrap_err();
    assert!(matches!(error, GitError::NotAllowed(_)), "{error}");
    // The same for objects that are borrowed from elsewhere.
    main.git(&["clone", "--quiet", "--shared", ".", "../borrows"]);
    let borrows = it.top.join("borrows");
    assert!(matches!(Repository::discover(&borrows, &allow(&[&borrows])).unwrap_err(), GitError::NotAllowed(_)));
    assert!(Repository::discover(&borrows, &it.allowed()).is_ok());
}

#[test]
fn submodules_are_compared_with_the_commit_that_is_recorded() {
    let it = Checkout::new();
    let origin = Checkout::new();
    origin.write("lib.py", "1");
    origin.write("gone.py", "1");
    origin.write("pkg/deep.py", "1");
    origin.commit();
    it.write("a.py", "1");
    it.git(&["submodule", "--quiet", "add", origin.top.to_str().unwrap(), "libs/sub"]);
    let first = it.commit();
    assert_eq!(it.since(&first), both(&[], &[]));

    let sub = it.inner("libs/sub");
    sub.write(".gitignore", "no.py\n");
    sub.write("no.py", "1");
    sub.write("lib.py", "22");
    sub.write("new.py", "1");
    sub.remove("gone.py");
    let expected = both(&["libs/sub/lib.py", "libs/sub/new.py"], &["libs/sub/gone.py"]);
    assert_eq!(it.since(&first), expected);
    sub.commit();
    assert_eq!(it.since(&first), expected);
    let inside = Repository::discover(&sub.top, &it.allowed()).unwrap();
    assert_eq!(pair(inside.uncommitted(&sources).unwrap()), both(&[], &[]));
    // A root in the submodule is the submodule's.
    let inside = Repository::discover(&sub.top.join("pkg"), &it.allowed()).unwrap();
    assert_eq!(inside.head().unwrap(), sub.git(&["rev-parse", "HEAD"]));
    let second = it.commit();
    assert_eq!(it.since(&second), both(&[], &[]));
    assert_eq!(it.since(&first), expected);

    // The submodule is no longer checked out: its files went.
    it.git(&["submodule", "--quiet", "deinit", "--force", "--all"]);
    let all = ["libs/sub/gone.py", "libs/sub/lib.py", "libs/sub/pkg/deep.py"];
    assert_eq!(it.since(&first), both(&[], &all));
    it.git(&["rm", "--quiet", "libs/sub"]);
    assert_eq!(it.since(&first), both(&[], &all));

    // A recorded commit that nobody has: all files are new.
    let away = it.git(&["rev-parse", "HEAD"]);
    it.git(&["reset", "--quiet", "--hard", &second]);
    it.git(&["submodule", "--quiet", "update", "--init"]);
    it.git(&["update-index", "--cacheinfo", &format!("160000,{away},libs/sub")]);
    it.git(&["commit", "--quiet", "--message=x"]);
    assert_eq!(it.uncommitted(), both(&["libs/sub/lib.py", "libs/sub/new.py", "libs/sub/pkg/deep.py"], &[]));
}

#[test]
fn other_repositories_in_the_folder_are_new_by_their_own_rules() {
    let it = Checkout::new();
    it.write(".gitignore", "ignored/\n");
    it.write("a.py", "1");
    it.commit();
    let nested = it.inner("nested");
    nested.git(&["init", "--quiet"]);
    nested.write(".gitignore", "no.py\n");
    nested.write("no.py", "1");
    nested.write("yes.py", "1");
    nested.commit();
    let ignored = it.inner("ignored");
    ignored.git(&["init", "--quiet"]);
    ignored.write("x.py", "1");
    assert_eq!(it.uncommitted(), both(&["nested/yes.py"], &[]));
    // What was a plain folder of the commit is compared with it still.
    it.write("plain/p.py", "1");
    it.write("plain/q.py", "1");
    it.git(&["add", "plain"]);
    it.git(&["commit", "--quiet", "--message=x"]);
    it.inner("plain").git(&["init", "--quiet"]);
    it.write("plain/q.py", "22");
    assert_eq!(it.uncommitted(), both(&["nested/yes.py", "plain/q.py"], &[]));
}

#[test]
fn links_are_read_through() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("o.py"), "1").unwrap();
    let it = Checkout::new();
    let link = |to: &str, name: &str| symlink(to, it.top.join(name)).unwrap();
    it.write("real/a.py", "1");
    it.write("real/b.txt", "1");
    it.write("file.py", "1");
    it.write("becomes.py", "1");
    link("real/a.py", "to_a.py");
    link("real/b.txt", "to_text.py");
    link("real", "alias");
    link("alias/../alias/a.py", "through.py");
    link("to_a.py", "chain.py");
    link("nowhere.py", "broken.py");
    link(outside.path().join("o.py").to_str().unwrap(), "out.py");
    link("loop.py", "loop.py");
    let first = it.commit();
    assert_eq!(it.since(&first), both(&[], &[]));

    it.write("nowhere.py", "1");
    assert_eq!(it.since(&first), both(&["broken.py", "nowhere.py"], &[]));
    it.remove("nowhere.py");
    it.write("real/b.txt", "22");
    assert_eq!(it.since(&first), both(&["to_text.py"], &[]));
    it.write("real/a.py", "22");
    let through = ["chain.py", "real/a.py", "through.py", "to_a.py", "to_text.py"];
    assert_eq!(it.since(&first), both(&through, &[]));
    it.git(&["checkout", "--quiet", "."]);

    // A link in a file's place, and a file in a link's: the bytes count.
    it.remove("file.py");
    link("becomes.py", "file.py");
    it.remove("to_a.py");
    it.write("to_a.py", "1");
    assert_eq!(it.since(&first), both(&[], &[]));
    it.remove("becomes.py");
    assert_eq!(it.since(&first), both(&[], &["becomes.py", "file.py"]));
    it.remove("broken.py");
    it.write("broken.py", "1");
    it.remove("out.py");
    assert_eq!(it.since(&first), both(&["broken.py"], &["becomes.py", "file.py", "out.py"]));
    // A folder that became a link holds no files, as links to folders are not followed.
    std::fs::rename(it.top.join("real"), it.top.join("elsewhere")).unwrap();
    link("elsewhere", "real");
    let (changed, deleted) = it.since(&first);
    assert!(changed.contains(&"elsewhere/a.py".to_owned()), "{changed:?}");
    assert!(deleted.contains(&"real/a.py".to_owned()), "{deleted:?}");
}

#[test]
fn a_file_and_a_folder_may_take_each_others_place() {
    let it = Checkout::new();
    it.write("a.py", "1");
    it.write("b.py/inner.py", "1");
    let first = it.commit();
    it.remove("a.py");
    it.write("a.py/inner.py", "1");
    std::fs::remove_dir_all(it.top.join("b.py")).unwrap();
    it.write("b.py", "1");
    assert_eq!(it.since(&first), both(&["a.py/inner.py", "b.py"], &["a.py", "b.py/inner.py"]));
}

#[test]
fn names_are_bytes_that_are_text() {
    let it = Checkout::new();
    let odd = [
        "line\nbreak.py",
        "space in it.py",
        "tab\t.py",
        "\"quoted\".py",
        "weiß/中.py",
        "e\u{301}.py",
        "é.py",
        "A.py",
        "a.py",
    ];
    for name in odd {
        it.write(name, "1");
    }
    let first = it.commit();
    assert_eq!(it.since(&first), both(&[], &[]));
    for name in odd {
        it.write(name, "22");
    }
    let mut expected = names(&odd);
    expected.sort();
    assert_eq!(it.since(&first).0, expected);
    it.remove("A.py");
    it.remove("line\nbreak.py");
    assert_eq!(it.since(&first).1, names(&["A.py", "line\nbreak.py"]));
    // No caller could name this one.
    std::fs::write(it.top.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff.py")), "1")
        .unwrap();
    assert_eq!(it.since(&first).0.len(), odd.len() - 2);
}

#[test]
fn the_index_may_be_in_any_state() {
    let it = Checkout::new();
    for name in ["a.py", "b.py", "sparse/s.py", "both.py"] {
        it.write(name, "1");
    }
    let first = it.commit();
    // Promised, and not in any commit.
    it.write("promised.py", "");
    it.git(&["add", "--intent-to-add", "promised.py"]);
    assert_eq!(it.since(&first), both(&["promised.py"], &[]));
    it.git(&["rm", "--quiet", "--cached", "promised.py"]);
    it.remove("promised.py");
    // Never looked at by Git.
    it.git(&["update-index", "--assume-unchanged", "a.py"]);
    it.git(&["update-index", "--skip-worktree", "b.py"]);
    it.write("a.py", "22");
    it.write("b.py", "22");
    assert_eq!(it.since(&first), both(&["a.py", "b.py"], &[]));
    it.git(&["update-index", "--no-assume-unchanged", "a.py"]);
    it.git(&["update-index", "--no-skip-worktree", "b.py"]);
    it.git(&["checkout", "--quiet", "."]);
    // In conflict.
    it.git(&["checkout", "--quiet", "-b", "side"]);
    it.write("both.py", "side\n");
    it.commit();
    it.git(&["checkout", "--quiet", "main"]);
    it.write("both.py", "main\n");
    it.commit();
    assert!(!it.try_git(&["merge", "side"]).status.success());
    assert_eq!(it.uncommitted(), both(&["both.py"], &[]));
    it.git(&["merge", "--abort"]);
    // Split in two files.
    it.git(&["update-index", "--split-index"]);
    it.write("b.py", "333");
    it.git(&["add", "b.py"]);
    assert_eq!(it.uncommitted(), both(&["b.py"], &[]));
    it.git(&["update-index", "--no-split-index"]);
    it.git(&["reset", "--quiet", "--hard"]);
    // Sparse: what is not on disk is deleted.
    it.git(&["sparse-checkout", "set", "--cone", "--sparse-index", "nothing"]);
    assert_eq!(it.uncommitted(), both(&[], &["sparse/s.py"]));
    it.git(&["sparse-checkout", "disable"]);
    assert_eq!(it.uncommitted(), both(&[], &[]));
    // Not there at all: every file is read.
    it.remove(".git/index");
    assert_eq!(it.uncommitted(), both(&[], &[]));
    it.write("a.py", "22");
    assert_eq!(it.uncommitted(), both(&["a.py"], &[]));
    it.write(".git/index", "no index");
    assert!(matches!(it.repository().uncommitted(&sources), Err(GitError::Unreadable(_))));
}

#[test]
fn gits_own_conversions_are_no_change() {
    let it = Checkout::new();
    it.write(
        ".gitattributes",
        "dos.py text eol=crlf\nid.py ident\nraw.py -text\nwide.py working-tree-encoding=UTF-16LE\n",
    );
    for name in ["dos.py", "raw.py", "auto.py"] {
        it.write(name, "x = 1\ny = 2\n");
    }
    it.write("id.py", "# $Id$\n");
    it.write("wide.py", "x\0\n\0");
    let first = it.commit();
    for name in ["dos.py", "raw.py", "auto.py"] {
        it.write(name, "x = 1\r\ny = 2\r\n");
    }
    it.write("id.py", "# $Id: 0123 $\n");
    it.write("wide.py", "x\0\n\0");
    assert_eq!(it.since(&first), both(&["auto.py", "raw.py"], &[]));
    it.git(&["config", "core.autocrlf", "true"]);
    assert_eq!(it.since(&first), both(&["raw.py"], &[]));
    it.write("dos.py", "x = 1\r\ny = 3\r\n");
    it.write("id.py", "# $Id: 0123 $ \n");
    it.write("wide.py", "y\0\n\0");
    assert_eq!(it.since(&first), both(&["dos.py", "id.py", "raw.py", "wide.py"], &[]));
}

#[test]
fn a_change_within_a_tick_of_the_clock_is_seen() {
    for _ in 0..20 {
        let it = Checkout::new();
        it.write("a.py", "1");
        it.write("b.py", "1");
        let first = it.commit();
        it.write("a.py", "2");
        assert_eq!(it.since(&first), both(&["a.py"], &[]));
        change_unseen(&it.top.join("b.py"), "2");
        assert_eq!(it.since(&first), both(&["a.py", "b.py"], &[]));
    }
}

#[test]
fn the_index_vouches_only_for_files_older_than_itself() {
    let it = Checkout::new();
    let (file, index) = (it.top.join("a.py"), it.top.join(".git/index"));
    it.write("a.py", "1");
    let first = it.commit();
    it.write("a.py", "2");
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
    it.git(&["add", "a.py"]);
    // An index that says of the file as it is now that it has the bytes that it had.
    let id = |spec: &str| it.git(&["rev-parse", spec]).parse::<gix::ObjectId>().unwrap();
    let (before, after) = (id("HEAD:a.py"), id(":a.py"));
    let mut bytes = std::fs::read(&index).unwrap();
    let at = bytes.windows(20).position(|window| window == after.as_slice()).unwrap();
    bytes[at..at + 20].copy_from_slice(before.as_slice());
    let end = bytes.len() - 20;
    bytes[end..].fill(0);
    std::fs::write(&index, bytes).unwrap();
    assert_eq!(it.since(&first), both(&[], &[]), "a file that the index vouches for is not read");
    std::fs::File::options().write(true).open(&index).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(it.since(&first), both(&["a.py"], &[]));
}

#[test]
fn no_program_is_run_and_nothing_is_written() {
    let it = Checkout::new();
    let marks = tempfile::tempdir().unwrap();
    let origin = Checkout::new();
    origin.write("lib.py", "1");
    origin.commit();
    it.write(".gitattributes", "*.py filter=evil diff=evil merge=evil text=auto\n");
    it.write("a.py", "1\n");
    it.write("b.py", "1\n");
    it.git(&["submodule", "--quiet", "add", origin.top.to_str().unwrap(), "sub"]);
    let first = it.commit();
    let program = marks.path().join("program");
    let text = format!("#!/bin/sh\nbasename \"$1\" >>{}/ran\ncat\n", marks.path().display());
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let keys = [
        "core.fsmonitor",
        "core.hooksPath",
        "core.sshCommand",
        "core.gitProxy",
        "core.editor",
        "core.pager",
        "core.askPass",
        "core.alternateRefsCommand",
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "diff.external",
        "diff.evil.command",
        "diff.evil.textconv",
        "merge.evil.driver",
        "credential.helper",
        "gpg.program",
        "sequence.editor",
        "remote.origin.uploadpack",
        "uploadpack.packObjectsHook",
        "submodule.sub.update",
        "alias.status",
    ];
    for folder in [&it.top, &it.top.join("sub")] {
        let checkout = Checkout::at(folder);
        for key in keys {
            let prefix = if key == "submodule.sub.update" || key == "alias.status" { "!" } else { "" };
            checkout.git(&["config", key, &format!("{prefix}{} {key}", program.display())]);
        }
        checkout.git(&["config", "filter.evil.required", "true"]);
        checkout.git(&["config", "core.untrackedCache", "true"]);
    }
    // A promisor would be asked for objects that are missing.
    it.git(&["config", "extensions.partialClone", "origin"]);
    it.git(&["config", "remote.origin.url", &format!("ext::{} ext", program.display())]);
    it.git(&["config", "remote.origin.promisor", "true"]);
    it.git(&["config", "protocol.ext.allow", "always"]);
    it.git(&["config", "include.path", marks.path().join("more").to_str().unwrap()]);
    for hook in ["post-index-change", "fsmonitor-watchman", "query-watchman", "post-checkout", "reference-transaction"]
    {
        std::fs::copy(&program, it.top.join(".git/hooks").join(hook)).unwrap();
    }
    let _ = std::fs::remove_file(marks.path().join("ran"));
    it.write("a.py", "22\r\n");
    it.write("b.py", "1\r\n");
    it.write("c.py", "22\n");
    it.write("sub/lib.py", "22");
    let before = listed(&it.top.join(".git"));
    assert_eq!(it.since(&first), both(&["a.py", "c.py", "sub/lib.py"], &[]));
    assert_eq!(it.uncommitted(), both(&["a.py", "c.py", "sub/lib.py"], &[]));
    let missing = "0123456789012345678901234567890123456789";
    assert!(it.repository().changes_since(missing, &sources).is_err());
    assert!(!marks.path().join("ran").exists(), "{}", std::fs::read_to_string(marks.path().join("ran")).unwrap());
    assert_eq!(listed(&it.top.join(".git")), before);
    // The program would have told, had Git itself looked.
    it.try_git(&["status"]);
    assert!(marks.path().join("ran").exists());
}

/// All files below a folder, and when they were written.
fn listed(top: &Path) -> BTreeMap<PathBuf, std::time::SystemTime> {
    let mut files = BTreeMap::new();
    let mut rest = vec![top.to_owned()];
    while let Some(folder) = rest.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                rest.push(entry.path());
            }
            files.insert(entry.path(), std::fs::symlink_metadata(entry.path()).unwrap().modified().unwrap());
        }
    }
    files
}

#[test]
fn what_matters_to_types_is_more_than_sources() {
    let it = Checkout::new();
    let first = it.commit();
    let there = [
        "a.py",
        "b.pyi",
        "py.typed",
        "pyproject.toml",
        "pyrightconfig.json",
        "text.txt",
        ".tox/x.py",
        "node_modules/x.py",
        "env/pyvenv.cfg",
        "env/lib/x.py",
        "pkg/__pycache__/x.py",
        "pkg/py.typed",
    ];
    for name in there {
        it.write(name, "");
    }
    let changes = it.repository().changes_since(&first, &matters_to_types(&it.top)).unwrap();
    let expected = names(&["a.py", "b.pyi", "pkg/py.typed", "py.typed", "pyproject.toml", "pyrightconfig.json"]);
    assert_eq!(changes.changed, expected);
}

#[test]
fn digests_are_kept_only_while_a_stamp_tells() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let seen = Seen::default();
    let path = root.join("a.py");
    for round in 0..50 {
        let text = format!("{:02}", round);
        std::fs::write(&path, &text).unwrap();
        assert_eq!(seen.digest(&path), Some(Digest::of(text.as_bytes())));
    }
    assert_eq!(seen.digest(&root), None);
    assert_eq!(seen.digest(&root.join("missing.py")), None);
    std::fs::write(root.join("new.py"), "").unwrap();
    symlink("a.py", root.join("link.py")).unwrap();
    let known = ["a.py", "gone.py", "link.py", "listed.py"].map(|name| (name.to_owned(), Digest::of(b"49")));
    let present = ["a.py", "new.py", "link.py", "listed.py", "vanished.py"].map(|name| root.join(name));
    let changes = by_digest(&root, known.clone(), present.clone(), &seen);
    assert_eq!(pair(changes), both(&["new.py"], &["gone.py", "listed.py"]));
    std::fs::write(&path, "50").unwrap();
    let changes = by_digest(&root, known, present, &seen);
    assert_eq!(pair(changes), both(&["a.py", "link.py", "new.py"], &["gone.py", "listed.py"]));
}

/// One thing that somebody does to a checkout.
#[derive(Clone, Debug)]
enum Edit {
    Write(usize, u8),
    Remove(usize),
    Rename(usize, usize),
    Link(usize, usize),
    Unseen(usize, u8),
    Stage(usize),
    Untrack(usize),
    StageAll,
    Commit,
    Stash,
    Refresh,
}

const NAMES: [&str; 12] = [
    "a.py",
    "b.pyi",
    "gen_a.py",
    "gen_b.py",
    "pkg/a.py",
    "pkg/gen_c.py",
    "pkg/deep/a.py",
    "build/a.py",
    "build/deep/b.py",
    "text.txt",
    "ä b.py",
    "other/a.py",
];

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let name = || 0..NAMES.len();
    let edit = prop_oneof![
        6 => (name(), 0u8..4).prop_map(|(name, byte)| Edit::Write(name, byte)),
        2 => name().prop_map(Edit::Remove),
        2 => (name(), name()).prop_map(|(from, to)| Edit::Rename(from, to)),
        1 => (name(), name()).prop_map(|(to, name)| Edit::Link(to, name)),
        2 => (name(), 0u8..4).prop_map(|(name, byte)| Edit::Unseen(name, byte)),
        2 => name().prop_map(Edit::Stage),
        1 => name().prop_map(Edit::Untrack),
        1 => Just(Edit::StageAll),
        2 => Just(Edit::Commit),
        1 => Just(Edit::Stash),
        1 => Just(Edit::Refresh),
    ];
    proptest::collection::vec(edit, 1..20)
}

fn apply(it: &Checkout, edit: &Edit) {
    let path = |name: usize| it.top.join(NAMES[name]);
    let make_folder = |name: usize| std::fs::create_dir_all(path(name).parent().unwrap()).unwrap();
    match *edit {
        Edit::Write(name, byte) => {
            let _ = std::fs::remove_file(path(name));
            it.write(NAMES[name], [byte]);
        }
        Edit::Remove(name) => drop(std::fs::remove_file(path(name))),
        Edit::Rename(from, to) => {
            make_folder(to);
            drop(std::fs::rename(path(from), path(to)));
        }
        Edit::Link(to, name) => {
            make_folder(name);
            let _ = std::fs::remove_file(path(name));
            let up = "../".repeat(NAMES[name].matches('/').count());
            symlink(format!("{up}{}", NAMES[to]), path(name)).unwrap();
        }
        Edit::Unseen(name, byte) if path(name).is_file() => {
            change_unseen(&path(name), std::str::from_utf8(&[byte]).unwrap());
        }
        Edit::Unseen(..) => {}
        Edit::Stage(name) => drop(it.try_git(&["add", "--force", NAMES[name]])),
        Edit::Untrack(name) => drop(it.try_git(&["rm", "--quiet", "--cached", NAMES[name]])),
        Edit::StageAll => drop(it.git(&["add", "--all"])),
        Edit::Commit => drop(it.git(&["commit", "--quiet", "--allow-empty", "--message=x"])),
        Edit::Stash => drop(it.try_git(&["stash", "--quiet"])),
        Edit::Refresh => drop(it.try_git(&["status"])),
    }
}

/// The sources that can be read below a folder, and their bytes.
fn sources_in(top: &Path) -> BTreeMap<String, Vec<u8>> {
    listed(top)
        .into_keys()
        .filter_map(|path| {
            let name = path.strip_prefix(top).unwrap().to_str()?.to_owned();
            let counts = is_source(&name) && !name.starts_with(".git/") && path.is_file();
            counts.then(|| (name, std::fs::read(&path).unwrap()))
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn git_and_digests_and_all_bytes_say_the_same(before in edits(), after in edits()) {
        let it = Checkout::new();
        it.write(".gitignore", "gen_*.py\nbuild/\n");
        for edit in &before {
            apply(&it, edit);
        }
        let first = it.commit();
        // What the commit holds is what a checkout of it has on disk.
        let aside = tempfile::tempdir().unwrap();
        let aside = aside.path().canonicalize().unwrap();
        it.git(&["worktree", "add", "--quiet", "--detach", aside.join("w").to_str().unwrap(), &first]);
        let then = sources_in(&aside.join("w"));
        let seen = Seen::default();
        for edit in &after {
            apply(&it, edit);
            let now = sources_in(&it.top);
            let told = it.git(&["-c", "core.quotePath=false", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
            let told: Vec<&str> = told.split('\0').collect();
            let tracked_then = it.git(&["ls-tree", "-r", "-z", "--name-only", &first]);
            let tracked_then: Vec<&str> = tracked_then.split('\0').collect();
            let counts = |name: &str| told.contains(&name) || tracked_then.contains(&name);
            let differs = |name: &str| then.get(name) != now.get(name);
            let changed = now.keys().filter(|name| counts(name) && differs(name)).cloned().collect();
            // A link that led nowhere is in the commit, and can go.
            let is_gone = |name: &str| {
                let text = |top: &Path| std::fs::read_link(top.join(name)).ok();
                !now.contains_key(name) && (then.contains_key(name) || text(&aside.join("w")) != text(&it.top))
            };
            let listed_then = tracked_then.iter().filter(|name| is_source(name) && is_gone(name));
            let mut deleted: Vec<_> = listed_then.map(|name| (*name).to_owned()).collect();
            deleted.sort();
            let expected = Changes { changed, deleted };

            prop_assert_eq!(&it.repository().changes_since(&first, &sources).unwrap(), &expected);
            let expected = Changes { deleted: expected.deleted.into_iter().filter(|name| then.contains_key(name)).collect(), ..expected };
            let known = then.iter().map(|(name, bytes)| (name.clone(), Digest::of(bytes)));
            let present = now.keys().filter(|name| counts(name)).map(|name| it.top.join(name));
            prop_assert_eq!(&by_digest(&it.top, known, present, &seen), &expected);
        }
    }
}
