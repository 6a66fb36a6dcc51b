//! Answers are about the bytes on disk at the time of the call, or about the overlay that came with it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use pyrightd::proto::export_files_response::Result as Message;
use pyrightd::proto::export_service_client::ExportServiceClient;
use pyrightd::proto::{ExportFilesRequest, ExportLocationsRequest, FileExport, FileLocations, ProjectState, Selector};
use tonic::transport::Channel;

use crate::harness::{Project, Server, at, select, text, type_of};

/// A project, its server, and one connection.
struct Fixture {
    project: Project,
    server: Server,
    client: ExportServiceClient<Channel>,
}

impl Fixture {
    async fn new(files: &[(&str, &str)]) -> Self {
        Self::with(files, &[]).await
    }

    /// With flags for its server.
    async fn with(files: &[(&str, &str)], flags: &[&str]) -> Self {
        let project = Project::new(files);
        let server = Server::start_with(&[&project.root()], flags);
        let client = server.export().await;
        Self { project, server, client }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.project.root().join(name)
    }

    async fn export(&self, file: FileLocations) -> FileExport {
        export(&self.client, &self.project.root(), file).await
    }

    /// The type of `seen`, the name that all these tests ask for.
    async fn seen(&self, file: &str) -> String {
        let file = self.export(select(file, Selector::Names)).await;
        // The last one, since the first may be an import's.
        file.types.iter().rfind(|inferred| inferred.name == "seen").unwrap().r#type.clone()
    }

    async fn assert_seen(&self, expected: &str, after: &str) {
        assert_eq!(self.seen("main.py").await, expected, "after: {after}");
    }
}

async fn export(client: &ExportServiceClient<Channel>, root: &Path, file: FileLocations) -> FileExport {
    let request = ExportLocationsRequest { project_root: text(root), file: Some(file), options: None };
    client.clone().export_locations(request).await.unwrap().into_inner().file.unwrap()
}

/// Numbers that look random, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

#[tokio::test]
async fn after_each_of_many_edits_a_chain_of_importing_files_is_seen_anew() {
    const TYPES: [&str; 5] = ["int", "str", "bytes", "float", "bool"];
    const WRAPS: [&str; 3] = ["", "[]", "{}"];
    let wrap_type = |wrap: &str, inner: &str| match wrap {
        "[]" => format!("list[{inner}]"),
        "{}" => format!("dict[str, {inner}]"),
        _ => inner.to_owned(),
    };
    let middle = |wrap: &str, from: &str| match wrap {
        "[]" => format!("from {from} import seen as before\nseen = [before]\n"),
        "{}" => format!("from {from} import seen as before\nseen = {{'key': before}}\n"),
        _ => format!("from {from} import seen as before\nseen = before\n"),
    };
    let base = |name: &str| format!("def make() -> {name}: ...\nseen = make()\n");
    let fixture = Fixture::new(&[
        ("base.py", &base("int")),
        ("package/__init__.py", &middle("", "base")),
        ("package/inner.py", &middle("", "package")),
        ("main.py", &middle("", "package.inner")),
    ])
    .await;
    let (mut numbers, mut kind, mut wrapped) = (Numbers(1), 0, [0; 3]);
    let chain = [("package/__init__.py", "base"), ("package/inner.py", "package"), ("main.py", "package.inner")];
    for round in 0..50 {
        let edited = numbers.below(4) as usize;
        let (path, new_text) = if edited == 3 {
            kind = (kind + 1) % TYPES.len();
            ("base.py", base(TYPES[kind]))
        } else {
            wrapped[edited] = (wrapped[edited] + 1) % WRAPS.len();
            (chain[edited].0, middle(WRAPS[wrapped[edited]], chain[edited].1))
        };
        fixture.project.write(path, new_text);
        let mut expected = TYPES[kind].to_owned();
        let mut all = vec![expected.clone()];
        for wrap in wrapped {
            expected = wrap_type(WRAPS[wrap], &expected);
            all.push(expected.clone());
        }
        // Any of them first, so that none has to wait for another to make it right.
        let files = ["base.py", chain[0].0, chain[1].0, chain[2].0];
        for offset in 0..4 {
            let index = (round + offset) % 4;
            assert_eq!(
                fixture.seen(files[index]).await,
                all[index],
                "{} in round {round}, {path} edited",
                files[index]
            );
        }
    }
}

#[tokio::test]
async fn files_that_come_and_go_are_seen() {
    let fixture = Fixture::new(&[("main.py", "from part import make\nseen = make()\n")]).await;
    fixture.assert_seen("Unknown", "the start").await;
    for round in 0..4 {
        fixture.project.write("part.py", "def make() -> int: ...\n");
        fixture.assert_seen("int", &format!("part.py was added in round {round}")).await;
        fixture.project.write("part.pyi", "def make() -> str: ...\n");
        fixture.assert_seen("str", &format!("a stub was put beside it in round {round}")).await;
        std::fs::remove_file(fixture.path("part.pyi")).unwrap();
        fixture.assert_seen("int", &format!("the stub was deleted in round {round}")).await;
        std::fs::rename(fixture.path("part.py"), fixture.path("other.py")).unwrap();
        fixture.assert_seen("Unknown", &format!("part.py was renamed in round {round}")).await;
        std::fs::rename(fixture.path("other.py"), fixture.path("part.py")).unwrap();
        fixture.assert_seen("int", &format!("it was renamed back in round {round}")).await;
        std::fs::remove_file(fixture.path("part.py")).unwrap();
        fixture.assert_seen("Unknown", &format!("part.py was deleted in round {round}")).await;
    }
}

#[tokio::test]
async fn folders_that_come_and_go_are_seen() {
    let fixture = Fixture::new(&[("main.py", "from part.deep.file import make\nseen = make()\n")]).await;
    fixture.assert_seen("Unknown", "the start").await;
    fixture.project.write("new/__init__.py", "");
    fixture.project.write("new/deep/__init__.py", "");
    fixture.project.write("new/deep/file.py", "def make() -> int: ...\n");
    fixture.assert_seen("Unknown", "a package of another name came").await;
    std::fs::rename(fixture.path("new"), fixture.path("part")).unwrap();
    fixture.assert_seen("int", "the package was renamed").await;
    fixture.project.write("part/deep/file.py", "def make() -> str: ...\n");
    fixture.assert_seen("str", "a file in the renamed package was edited").await;
    std::fs::rename(fixture.path("part/deep"), fixture.path("part/shallow")).unwrap();
    fixture.assert_seen("Unknown", "a folder in it was renamed").await;
    std::fs::rename(fixture.path("part/shallow"), fixture.path("part/deep")).unwrap();
    fixture.assert_seen("str", "it was renamed back").await;
    std::fs::remove_dir_all(fixture.path("part")).unwrap();
    fixture.assert_seen("Unknown", "the package was deleted").await;
    let outside = Project::new(&[("deep/file.py", "def make() -> bytes: ...\n")]);
    std::fs::rename(outside.root().join("deep"), fixture.path("deep")).unwrap();
    std::fs::create_dir(fixture.path("part")).unwrap();
    std::fs::rename(fixture.path("deep"), fixture.path("part/deep")).unwrap();
    fixture.assert_seen("bytes", "a folder was moved in from outside").await;
}

#[tokio::test]
async fn folders_without_sources_that_come_and_go_are_seen() {
    let fixture = Fixture::new(&[("main.py", "import part\n"), ("inner.py", "import part.inner\n")]).await;
    // Of the last part of the name: what is not found has no type.
    let found = async |file: &str| fixture.export(select(file, Selector::Names)).await.types.pop().unwrap().r#type;
    let assert_found = async |outer: &str, inner: &str, after: &str| {
        assert_eq!((&*found("main.py").await, &*found("inner.py").await), (outer, inner), "after: {after}");
    };
    let (outer, inner) = ("Module(\"part\")", "Module(\"inner\")");
    assert_found("", "", "the start").await;
    for round in 0..2 {
        std::fs::create_dir(fixture.path("part")).unwrap();
        assert_found(outer, "", &format!("an empty folder came in round {round}")).await;
        fixture.project.write("part/inner/data.txt", "x");
        assert_found(outer, inner, "one in it with data alone came").await;
        fixture.project.write("part/inner/__pycache__/a.pyc", "x");
        std::fs::rename(fixture.path("part"), fixture.path("other")).unwrap();
        assert_found("", "", "they were renamed").await;
        std::fs::rename(fixture.path("other"), fixture.path("part")).unwrap();
        assert_found(outer, inner, "they were renamed back").await;
        std::fs::remove_dir_all(fixture.path("part/inner")).unwrap();
        assert_found(outer, "", "the inner one went").await;
        std::fs::remove_dir(fixture.path("part")).unwrap();
        assert_found("", "", "they went").await;
    }
    // As a checkout leaves it that deletes the last module.
    fixture.project.write("part/a.py", "");
    fixture.project.write("part/__pycache__/a.pyc", "");
    std::fs::remove_file(fixture.path("part/a.py")).unwrap();
    assert_found(outer, "", "a folder lost its last module").await;
    std::fs::remove_dir_all(fixture.path("part")).unwrap();
    assert_found("", "", "what was left went").await;
}

#[tokio::test]
async fn native_modules_that_come_and_go_are_seen() {
    let fixture = Fixture::new(&[
        (".venv/pyvenv.cfg", "version = 3.12.4\n"),
        (".venv/lib/python3.12/site-packages/part/__init__.py", "def make() -> int: ...\n"),
        ("main.py", "from part import make\nseen = make()\n"),
    ])
    .await;
    fixture.assert_seen("int", "the start").await;
    fixture.project.write("part.so", "");
    fixture.assert_seen("Unknown", "a native module stands in for the package").await;
    std::fs::remove_file(fixture.path("part.so")).unwrap();
    fixture.assert_seen("int", "it went").await;
}

#[tokio::test]
async fn a_file_replaced_by_rename_is_seen() {
    let fixture = Fixture::new(&[("part.py", ""), ("main.py", "from part import make\nseen = make()\n")]).await;
    fixture.assert_seen("Unknown", "the start").await;
    for (round, kind) in ["int", "str", "float", "bytes"].into_iter().cycle().take(12).enumerate() {
        fixture.project.write("part.py.new", format!("def make() -> {kind}: ...\n"));
        std::fs::rename(fixture.path("part.py.new"), fixture.path("part.py")).unwrap();
        fixture.assert_seen(kind, &format!("round {round}")).await;
    }
}

#[tokio::test]
async fn a_changed_configuration_is_heeded() {
    let fixture = Fixture::new(&[(
        "main.py",
        "import sys\nfrom part import make\nif sys.version_info >= (3, 9):\n    def pick() -> int: ...\nelse:\n    def pick() -> str: ...\nseen = (pick(), make())\n",
    ), ("lib/part.py", "def make() -> bytes: ...\n")])
    .await;
    fixture.assert_seen("tuple[int, Unknown]", "the start").await;
    fixture.project.write("pyproject.toml", "[tool.pyright]\npythonVersion = '3.8'\n");
    fixture.assert_seen("tuple[str, Unknown]", "a pyproject.toml came").await;
    fixture.project.write("pyproject.toml", "[tool.pyright]\npythonVersion = '3.8'\nextraPaths = ['lib']\n");
    fixture.assert_seen("tuple[str, bytes]", "it was edited").await;
    fixture.project.write("lib/part.py", "def make() -> float: ...\n");
    fixture.assert_seen("tuple[str, float]", "a file below extraPaths was edited").await;
    fixture.project.write("pyrightconfig.json", "{ \"pythonVersion\": \"3.12\" }");
    fixture.assert_seen("tuple[int, Unknown]", "a pyrightconfig.json came").await;
    fixture.project.write("pyrightconfig.json", "{ \"pythonVersion\": \"3.7\" }");
    fixture.assert_seen("tuple[str, Unknown]", "it was edited").await;
    std::fs::remove_file(fixture.path("pyrightconfig.json")).unwrap();
    fixture.assert_seen("tuple[str, float]", "it was deleted").await;
    std::fs::remove_file(fixture.path("pyproject.toml")).unwrap();
    fixture.assert_seen("tuple[int, Unknown]", "pyproject.toml was deleted too").await;
}

#[tokio::test]
async fn what_a_configuration_names_beside_the_project_is_seen() {
    let project = Project::new(&[
        ("base.json", "{ \"extraPaths\": [\"shared\"], \"pythonVersion\": \"3.8\" }"),
        ("shared/part.py", "def make() -> int: ...\n"),
        ("envs/dev/lib/python3.12/site-packages/lib.py", "def make() -> bytes: ...\n"),
        ("app/pyrightconfig.json", "{ \"extends\": \"../base.json\" }"),
        (
            "app/main.py",
            "import sys\nfrom part import make\nfrom lib import make as other\nif sys.version_info >= (3, 9):\n    \
             def pick() -> int: ...\nelse:\n    def pick() -> str: ...\nseen = (pick(), make(), other())\n",
        ),
    ]);
    let root = project.root().join("app");
    let server = Server::start(&[&project.root()]);
    let assert_seen = async |expected: &str, after: &str| {
        let file = server.file(&root, select("main.py", Selector::Names)).await.unwrap();
        assert_eq!(type_of(&file, "seen"), format!("tuple[{expected}]"), "after: {after}");
    };
    assert_seen("str, int, Unknown", "the start").await;
    for kind in ["bytes", "float"] {
        project.write("shared/part.py", format!("def make() -> {kind}: ...\n"));
        assert_seen(&format!("str, {kind}, Unknown"), "an edit in the named folder").await;
    }
    std::fs::remove_file(project.root().join("shared/part.py")).unwrap();
    assert_seen("str, Unknown, Unknown", "a module of it went").await;
    project.write("base.json", "{ \"extraPaths\": [\"other\", \"app/.aside\"], \"pythonVersion\": \"3.12\" }");
    assert_seen("int, Unknown, Unknown", "an edit of what is extended").await;
    project.write("app/.aside/part.py", "def make() -> complex: ...\n");
    assert_seen("int, complex, Unknown", "a named folder came that has a dot").await;
    project.write("app/.aside/part.py", "def make() -> float: ...\n");
    assert_seen("int, float, Unknown", "an edit in it").await;
    project.write("other/part.py", "def make() -> str: ...\n");
    assert_seen("int, str, Unknown", "the first named folder came").await;
    project.write("base.json", "{ \"extends\": \"deep/base.toml\", \"venvPath\": \"envs\", \"venv\": \"dev\" }");
    assert_seen("int, Unknown, bytes", "a virtual environment was named").await;
    project.write("envs/dev/lib/python3.12/site-packages/lib.py", "def make() -> bool: ...\n");
    assert_seen("int, Unknown, bool", "an edited package in it").await;
    project.write("deep/base.toml", "[tool.pyright]\npythonVersion = '3.7'\nextraPaths = ['../other']\n");
    assert_seen("str, str, bool", "what is extended came").await;
    project.write("app/pyrightconfig.json", "{}");
    assert_seen("int, Unknown, Unknown", "nothing is extended").await;
    assert_eq!(server.listed(&root).await.unwrap().state(), ProjectState::Ready);
}

#[tokio::test]
async fn packages_installed_into_a_virtual_environment_are_seen() {
    const SITE: &str = ".venv/lib/python3.12/site-packages";
    let fixture = Fixture::new(&[("main.py", "from lib import make\nseen = make()\n")]).await;
    fixture.assert_seen("Unknown", "the start").await;
    std::fs::create_dir_all(fixture.path(SITE)).unwrap();
    fixture.project.write(".venv/pyvenv.cfg", "version = 3.12.4\n");
    fixture.assert_seen("Unknown", "an environment without packages came").await;
    fixture.project.write(&format!("{SITE}/lib/__init__.py"), "def make():\n    return [1]\n");
    fixture.assert_seen("list[int]", "a package was installed").await;
    fixture.project.write(&format!("{SITE}/lib/__init__.py"), "from .part import make as make\n");
    fixture.project.write(&format!("{SITE}/lib/part.py"), "def make():\n    return str(1)\n");
    fixture.assert_seen("str", "the package was changed").await;
    fixture.project.write(&format!("{SITE}/lib-stubs/__init__.pyi"), "def make() -> float: ...\n");
    fixture.assert_seen("float", "stubs for it were installed").await;
    std::fs::remove_dir_all(fixture.path(&format!("{SITE}/lib-stubs"))).unwrap();
    fixture.assert_seen("str", "the stubs were uninstalled").await;
    fixture.project.write("editable/lib/__init__.py", "def make() -> bytes: ...\n");
    std::fs::remove_dir_all(fixture.path(&format!("{SITE}/lib"))).unwrap();
    fixture.assert_seen("Unknown", "the package was uninstalled").await;
    fixture.project.write(&format!("{SITE}/lib.pth"), text(&fixture.path("editable")));
    fixture.assert_seen("bytes", "it was installed as editable").await;
    fixture.project.write("editable/lib/__init__.py", "def make() -> bool: ...\n");
    fixture.assert_seen("bool", "the editable package was edited").await;
    std::fs::remove_dir_all(fixture.path(".venv")).unwrap();
    fixture.assert_seen("Unknown", "the environment was deleted").await;
    assert_eq!(fixture.server.listed(&fixture.project.root()).await.unwrap().state(), ProjectState::Ready);
}

#[tokio::test]
async fn a_py_typed_file_makes_a_package_be_taken_at_its_word() {
    const LIB: &str = ".venv/lib/python3.12/site-packages/lib";
    let fixture = Fixture::new(&[
        (".venv/pyvenv.cfg", "version = 3.12.4\n"),
        (&format!("{LIB}/__init__.py"), "def make(value):\n    return [value]\n"),
        ("main.py", "from lib import make\nseen = make(str(1))\n"),
    ])
    .await;
    fixture.assert_seen("list[str]", "the start").await;
    fixture.project.write(&format!("{LIB}/py.typed"), "");
    fixture.assert_seen("list[Unknown]", "py.typed came: nothing is inferred from the call's arguments").await;
    std::fs::remove_file(fixture.path(&format!("{LIB}/py.typed"))).unwrap();
    fixture.assert_seen("list[str]", "py.typed went").await;
}

#[tokio::test]
async fn another_branch_is_seen_after_its_checkout() {
    let fixture = Fixture::new(&[("main.py", "from package.last import make\nseen = make()\n")]).await;
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=one", "-C"]);
        let output = command.arg(fixture.project.root()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let commit = |kind: &str, step: usize| {
        for number in (0..300).step_by(step) {
            let next = number + step;
            let from = if next < 300 { format!("from package.file{next} import make\n") } else { String::new() };
            let own = if next < 300 { String::new() } else { format!("def make() -> {kind}: ...\n") };
            fixture.project.write(&format!("package/file{number}.py"), from + &own);
        }
        fixture.project.write("package/last.py", "from package.file0 import make\n");
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", kind]);
    };
    git(&["init", "--quiet"]);
    commit("int", 3);
    git(&["checkout", "--quiet", "-b", "two"]);
    git(&["rm", "-r", "--quiet", "package"]);
    commit("str", 5);
    fixture.assert_seen("str", "the start").await;
    for (branch, expected) in [("one", "int"), ("two", "str"), ("one", "int"), ("two", "str")] {
        git(&["checkout", "--quiet", branch]);
        fixture.assert_seen(expected, branch).await;
    }
}

#[tokio::test]
async fn a_project_folder_that_is_replaced_by_another_is_seen() {
    let parent = Project::new(&[
        ("one/main.py", "from part import make\nseen = make()\n"),
        ("one/part.py", "def make() -> int: ...\n"),
        ("two/main.py", "from part import make\nseen = [make()]\n"),
        ("two/part.py", "def make() -> str: ...\n"),
    ]);
    let (one, two) = (parent.root().join("one"), parent.root().join("two"));
    let server = Server::start(&[&parent.root()]);
    let client = server.export().await;
    let seen = async || type_of(&export(&client, &one, select("main.py", Selector::Names)).await, "seen").to_owned();
    assert_eq!(seen().await, "int");
    for expected in ["list[str]", "int", "list[str]", "int"] {
        std::fs::rename(&one, parent.root().join("away")).unwrap();
        std::fs::rename(&two, &one).unwrap();
        std::fs::rename(parent.root().join("away"), &two).unwrap();
        assert_eq!(seen().await, expected);
        std::fs::write(one.join("part.py"), "def make() -> float: ...\n").unwrap();
        assert_eq!(seen().await, expected.replace("int", "float").replace("str", "float"));
        let own = if expected == "int" { "int" } else { "str" };
        std::fs::write(one.join("part.py"), format!("def make() -> {own}: ...\n")).unwrap();
        assert_eq!(seen().await, expected);
    }
}

/// Long enough for its export to take several turns, and of a type that its first line decides.
/// Ends with the name `last`.
fn long_file(kind: &str) -> String {
    let mut text = format!("def make() -> {kind}: ...\nseen = make()\n");
    for number in 0..1500 {
        text += &format!("name{number} = (make(), seen)\n");
    }
    text + "last = (make(), seen)\n"
}

#[tokio::test]
async fn who_asks_after_an_edit_is_not_answered_from_the_text_of_who_asked_before() {
    let files = [("long.py", &*long_file("int")), ("main.py", "from long import make\nseen = make()\n")];
    // Nothing is kept, so that the long file takes its time again and again.
    let fixture = Fixture::with(&files, &["--max-kept", "0", "--store", "none"]).await;
    fixture.assert_seen("int", "the start").await;
    for kind in ["str", "bytes", "float"] {
        let long = fixture.export(select("long.py", Selector::Names));
        let short = async {
            let root = fixture.project.root();
            fixture.server.listed_like(&root, |project| project.in_flight > 0).await;
            fixture.project.write("long.py", long_file(kind));
            for round in 0..2 {
                let file = fixture.export(at("long.py", &[(1, 0)])).await;
                assert_eq!(type_of(&file, "seen"), kind, "round {round}");
                fixture.assert_seen(kind, "its import was edited").await;
            }
        };
        let (long, ()) = tokio::join!(long, short);
        assert_eq!(type_of(&long, "last"), format!("tuple[{kind}, {kind}]"));
    }
}

#[tokio::test]
async fn while_files_are_edited_each_answer_is_of_the_bytes_it_names() {
    const KINDS: [&str; 4] = ["int", "str", "bytes", "float"];
    let of = |kind: &str, file: usize| {
        let mut text = format!("# {kind} {file}\ndef make() -> {kind}: ...\nseen = make()\n");
        for number in 0..60 {
            text += &format!("name{number} = [seen]\n");
        }
        text
    };
    let digest = |text: &str| pyrightd::model::Digest::of(text.as_bytes()).as_str().to_owned();
    let project = Project::new(&[]);
    let mut kinds = HashMap::new();
    for file in 0..30 {
        project.write(&format!("file{file}.py"), of("int", file));
        for kind in KINDS {
            kinds.insert(digest(&of(kind, file)), kind);
        }
    }
    let root = project.root();
    let server = Server::start(&[&root]);
    let mut client = server.export().await;
    let request = ExportFilesRequest {
        project_root: text(&root),
        default_selector: Selector::Names.into(),
        ..ExportFilesRequest::default()
    };
    let mut stream = client.export_files(request).await.unwrap().into_inner();
    let (mut numbers, mut files) = (Numbers(2), 0);
    while let Some(message) = stream.message().await.unwrap() {
        let Some(Message::File(file)) = message.result else { continue };
        files += 1;
        assert!(file.error.is_none(), "{file:?}");
        let kind = kinds[&file.sha256];
        assert_eq!(type_of(&file, "seen"), kind, "{}", file.path);
        assert_eq!(type_of(&file, "name59"), format!("list[{kind}]"), "{}", file.path);
        for _ in 0..5 {
            let edited = numbers.below(30) as usize;
            // By rename, since a file that is being written is, for a moment, any part of its text.
            project.write("next", of(KINDS[numbers.below(4) as usize], edited));
            std::fs::rename(root.join("next"), root.join(format!("file{edited}.py"))).unwrap();
        }
    }
    assert_eq!(files, 30);
}

#[tokio::test]
async fn edits_behind_a_link_to_a_folder_are_seen() {
    let shelf =
        Project::new(&[("parts/make.py", "def make() -> int: ...\n"), ("other/make.py", "def make() -> str: ...\n")]);
    let project = Project::new(&[("main.py", "from parts.make import make\nseen = make()\n")]);
    let link = |target: &str| {
        let _ = std::fs::remove_file(project.root().join("parts"));
        std::os::unix::fs::symlink(shelf.root().join(target), project.root().join("parts")).unwrap();
    };
    link("parts");
    let server = Server::start(&[&project.root(), &shelf.root()]);
    let seen = async || {
        let file = server.file(&project.root(), at("main.py", &[(1, 0)])).await.unwrap();
        type_of(&file, "seen").to_owned()
    };
    assert_eq!(seen().await, "int");
    for kind in ["bytes", "float"] {
        shelf.write("parts/make.py", format!("def make() -> {kind}: ...\n"));
        assert_eq!(seen().await, kind);
    }
    link("other");
    assert_eq!(seen().await, "str");
    shelf.write("other/make.py", "def make() -> complex: ...\n");
    assert_eq!(seen().await, "complex");
}

#[tokio::test]
async fn an_overlay_is_seen_by_its_own_call_alone() {
    let on_disk = "def make() -> int: ...\nseen = make()\n";
    let fixture = Fixture::new(&[("part.py", on_disk), ("main.py", "from part import make\nseen = make()\n")]).await;
    fixture.assert_seen("int", "the start").await;
    let overlay = |path: &str, content: String| FileLocations {
        path: path.into(),
        content: Some(content),
        ..select(path, Selector::Names)
    };
    for round in 0..2 {
        let with_overlay = fixture.export(overlay("part.py", long_file("str")));
        let beside = async {
            for _ in 0..5 {
                fixture.assert_seen("int", "another call's overlay").await;
                assert_eq!(fixture.seen("part.py").await, "int");
            }
        };
        let small = fixture.export(overlay("part.py", "def seen() -> bytes: ...\n".into()));
        let (seen, small, ()) = tokio::join!(with_overlay, small, beside);
        assert_eq!(type_of(&seen, "seen"), "str", "round {round}");
        assert_eq!(type_of(&seen, "name1499"), "tuple[str, str]");
        assert_eq!(type_of(&small, "seen"), "() -> bytes");
        fixture.assert_seen("int", "the overlay is over").await;
        assert_eq!(fixture.seen("part.py").await, "int");
    }
    assert_eq!(std::fs::read_to_string(fixture.path("part.py")).unwrap(), on_disk);
}

#[tokio::test]
async fn an_overlay_of_a_new_file_leaves_nothing_behind() {
    let fixture =
        Fixture::new(&[("main.py", "from fresh import make\nseen = make()\n"), ("part.py", "value = 1\n")]).await;
    fixture.assert_seen("Unknown", "the start").await;
    let content = "from part import value\nseen = [value]\n";
    for _ in 0..3 {
        let overlay = FileLocations { content: Some(content.into()), ..select("fresh.py", Selector::Names) };
        let file = fixture.export(overlay).await;
        assert_eq!(type_of(&file, "seen"), "list[int]");
        fixture.assert_seen("Unknown", "the overlay is over").await;
    }
    assert!(!fixture.path("fresh.py").exists());
    let listed = std::fs::read_dir(fixture.project.root()).unwrap().count();
    assert_eq!(listed, 2);
    fixture.project.write("fresh.py", "def make() -> str: ...\n");
    fixture.assert_seen("str", "the file came to be").await;
}

#[tokio::test]
async fn all_who_ask_at_once_after_an_edit_see_it() {
    let base = |kind: &str| format!("def make() -> {kind}: ...\n");
    let fixture = Fixture::with(
        &[("base.py", &base("int")), ("main.py", "from base import make\nseen = make()\n")],
        &["--store", "none"],
    )
    .await;
    for round in 0..20 {
        let kind = ["str", "bytes", "float", "int"][round % 4];
        fixture.project.write("base.py", base(kind));
        let asked = (0..4).map(|_| fixture.seen("main.py"));
        for seen in futures_util::future::join_all(asked).await {
            assert_eq!(seen, kind, "round {round}");
        }
    }
}
