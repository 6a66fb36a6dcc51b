//! Where imports are found, and for which Python: environments, `.pth` files, a caller's and a project's settings.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use pyrightd::proto::{ProjectSettings, Selector};
use tonic::Code;

use crate::harness::fault::Engine;
use crate::harness::{Project, Server, select, text, type_of};

const USES: &str = "import thing\nmade = thing.make()\n";

/// Puts a virtual environment with one package into a project. Were its interpreter run, it would leave a mark.
fn environment(project: &Project, folder: &str, type_text: &str) {
    project.write(&format!("{folder}/pyvenv.cfg"), "home = /usr/bin\nversion = 3.11.4\n");
    project.write(
        &format!("{folder}/lib/python3.11/site-packages/thing/__init__.py"),
        format!("def make() -> {type_text}: ...\n"),
    );
    let mark = project.root().join("interpreter-ran");
    for name in ["python", "python3"] {
        let interpreter = format!("{folder}/bin/{name}");
        project.write(&interpreter, format!("#!/bin/sh\ntouch '{}'\n", mark.display()));
        let path = project.root().join(interpreter);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

async fn made(server: &Server, root: &Path) -> String {
    let file = server.file(root, select("a.py", Selector::Names)).await.unwrap();
    type_of(&file, "made").to_owned()
}

#[tokio::test]
async fn a_projects_own_environment_is_read_and_not_run() {
    for folder in [".venv", "venv"] {
        let project = Project::new(&[("a.py", USES)]);
        environment(&project, folder, "bytes");
        let server = Server::start(&[&project.root()]);
        assert_eq!(made(&server, &project.root()).await, "bytes", "{folder}");
        assert!(!project.root().join("interpreter-ran").exists(), "{folder}");
    }
}

#[tokio::test]
async fn a_callers_environment_comes_before_the_projects_own() {
    let (project, elsewhere) = (Project::new(&[("a.py", USES)]), Project::new(&[]));
    environment(&project, ".venv", "bytes");
    project.write("pyrightconfig.json", r#"{"venvPath": ".", "venv": ".venv"}"#);
    environment(&elsewhere, "environments/one", "complex");
    let server = Server::start(&[&project.root(), &elsewhere.root()]);
    let venv = text(&elsewhere.root().join("environments/one"));
    let settings = ProjectSettings { venv: venv.clone(), ..ProjectSettings::default() };
    let opened = server.open(&project.root(), settings).await.unwrap();
    assert_eq!(opened.settings.unwrap().venv, venv);
    assert_eq!(made(&server, &project.root()).await, "complex");
    for root in [project.root(), elsewhere.root()] {
        assert!(!root.join("interpreter-ran").exists());
    }
}

#[tokio::test]
async fn a_pth_file_adds_folders_below_allowed_roots_alone() {
    let source = "import thing, inside, outside\nmade = thing.make()\nnear = inside.value\nfar = outside.value\n";
    let project = Project::new(&[("a.py", source), ("libraries/inside.py", "value = int()\n")]);
    let elsewhere = Project::new(&[("outside.py", "value = int()\n")]);
    environment(&project, ".venv", "bytes");
    let mark = project.root().join("pth-ran");
    let lines = format!(
        "# where libraries are\nimport os; os.mkdir('{}')\n../../../../libraries\n{}\n",
        mark.display(),
        elsewhere.root().display()
    );
    project.write(".venv/lib/python3.11/site-packages/libraries.pth", lines);
    for (roots, far) in [(&[project.root()][..], "Unknown"), (&[project.root(), elsewhere.root()], "int")] {
        let server = Server::start(&roots.iter().map(|root| root.as_path()).collect::<Vec<_>>());
        let file = server.file(&project.root(), select("a.py", Selector::Names)).await.unwrap();
        assert_eq!(["made", "near", "far"].map(|name| type_of(&file, name)), ["bytes", "int", far]);
        assert!(!mark.exists());
    }
}

#[tokio::test]
async fn a_callers_version_and_platform_win_over_the_projects_configuration() {
    let source = "\
import sys
if sys.version_info >= (3, 12):
    version = str()
else:
    version = int()
if sys.platform == 'win32':
    platform = bytes()
elif sys.platform == 'darwin':
    platform = float()
else:
    platform = int()
found_version = version
found_platform = platform
";
    let configuration = r#"{ "pythonVersion": "3.9", "pythonPlatform": "Windows" }"#;
    let project = Project::new(&[("a.py", source), ("pyrightconfig.json", configuration)]);
    let server = Server::start(&[&project.root()]);
    for (python_version, python_platform, expected) in [
        ("", "", ["int", "bytes"]),
        ("3.13", "", ["str", "bytes"]),
        ("", "Darwin", ["int", "float"]),
        ("3.12", "Linux", ["str", "int"]),
        ("3.11", "Windows", ["int", "bytes"]),
    ] {
        let settings = ProjectSettings {
            python_version: python_version.into(),
            python_platform: python_platform.into(),
            ..ProjectSettings::default()
        };
        server.open(&project.root(), settings).await.unwrap();
        let file = server.file(&project.root(), select("a.py", Selector::Names)).await.unwrap();
        let found = ["found_version", "found_platform"].map(|name| type_of(&file, name));
        assert_eq!(found, expected, "{python_version:?} {python_platform:?}");
    }
}

#[tokio::test]
async fn an_environments_version_holds_where_nobody_says_otherwise() {
    let source = "import sys\nif sys.version_info >= (3, 12):\n    version = str()\nelse:\n    version = int()\nmade = version\n";
    let project = Project::new(&[("a.py", source)]);
    let server = Server::start(&[&project.root()]);
    assert_eq!(made(&server, &project.root()).await, "str", "Pyright's default");
    server.close(&project.root()).await.unwrap();
    environment(&project, ".venv", "bytes");
    assert_eq!(made(&server, &project.root()).await, "int", "the environment's 3.11");
}

#[tokio::test]
async fn a_callers_paths_win_over_the_projects_configuration() {
    let source = "import thing, stubbed\nmade = thing.make()\nstub = stubbed.value\n";
    let configuration = r#"{ "extraPaths": ["theirs"], "stubPath": "their_stubs" }"#;
    let project = Project::new(&[
        ("a.py", source),
        ("pyrightconfig.json", configuration),
        ("theirs/thing.py", "def make() -> bytes: ...\n"),
        ("their_stubs/stubbed.pyi", "value: bytes\n"),
    ]);
    let elsewhere =
        Project::new(&[("paths/thing.py", "def make() -> complex: ...\n"), ("stubs/stubbed.pyi", "value: complex\n")]);
    let server = Server::start(&[&project.root(), &elsewhere.root()]);
    let settings = ProjectSettings {
        extra_paths: vec![text(&elsewhere.root().join("paths"))],
        stub_path: text(&elsewhere.root().join("stubs")),
        ..ProjectSettings::default()
    };
    for (settings, expected) in [(ProjectSettings::default(), "bytes"), (settings, "complex")] {
        server.open(&project.root(), settings).await.unwrap();
        let file = server.file(&project.root(), select("a.py", Selector::Names)).await.unwrap();
        assert_eq!(["made", "stub"].map(|name| type_of(&file, name)), [expected; 2]);
    }
}

#[tokio::test]
async fn a_projects_code_never_runs() {
    let project = Project::new(&[("a.py", "import json, sys\nmade = len(sys.argv)\n")]);
    let mark = project.root().join("code-ran");
    for name in ["sitecustomize.py", "usercustomize.py", "json.py", "sys.py", "site.py", "conftest.py"] {
        project.write(name, format!("import os\nos.mkdir({:?})\n", text(&mark)));
    }
    environment(&project, ".venv", "bytes");
    let server = Server::start(&[&project.root()]);
    assert_eq!(made(&server, &project.root()).await, "int");
    assert!(!mark.exists() && !project.root().join("interpreter-ran").exists());
}

#[tokio::test]
async fn a_release_without_a_place_for_a_callers_settings_is_not_asked() {
    let project = Project::new(&[("a.py", "x = int()\n")]);
    let root = project.root();
    // Not Pyright itself, as far as the script can see that is loaded before it.
    let engine = Engine::new("");
    let server = Server::start_with(&[&root], &["--engine-dir", engine.dir()]);
    let settings = ProjectSettings { python_version: "3.9".into(), ..ProjectSettings::default() };
    let refused = server.open(&root, settings).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("A caller's settings can't be set"), "{}", refused.message());
    server.open(&root, ProjectSettings::default()).await.unwrap();
    let file = server.file(&root, select("a.py", Selector::Names)).await.unwrap();
    assert_eq!(type_of(&file, "x"), "int");
}
