//! Whole files in one call, or hovers: which is chosen, who is told, and that both say the same.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use pyrightd::proto::{Detail, Evaluation, ExportOptions, FileExport, OpenProjectRequest, ProjectState, Selector};
use tonic::Code;

use crate::harness::fault::{Engine, older_engine};
use crate::harness::{Project, Server, select, text, type_of};

const MAIN: &str = "from library import area, Box\n\n\
    def double(value=2):\n    '''Twice.'''\n    return area(value) * 2\n\n\
    total = 0\ntotal += double()\nbox = Box('a')\nsize = box.size\n";
const LIBRARY: &str = "class Box:\n    '''A box.'''\n\n    def __init__(self, name):\n        self.name = name\n        self.size = len(name)\n\n\
    def area(width: float) -> float:\n    '''How much.'''\n    return width ** 2\n";

fn project() -> Project {
    Project::new(&[("main.py", MAIN), ("library.py", LIBRARY)])
}

async fn told(server: &Server, project: &Project) -> FileExport {
    let details = [Detail::Hover, Detail::Documentation, Detail::Definitions].map(Into::into).to_vec();
    let options = ExportOptions { details, ..ExportOptions::default() };
    server.file_with(&project.root(), select("main.py", Selector::Names), options).await.unwrap()
}

#[tokio::test]
async fn each_mode_and_way_says_the_same_and_says_which_it_was() {
    let project = project();
    let root = project.root();
    let mut all = Vec::new();
    for (flags, batch, evaluation) in [
        (["--engine-mode", "auto", "--evaluation", "isolated"], true, Evaluation::Isolated),
        (["--engine-mode", "batch", "--evaluation", "isolated"], true, Evaluation::Isolated),
        (["--engine-mode", "batch", "--evaluation", "shared"], true, Evaluation::Shared),
        (["--engine-mode", "hover", "--evaluation", "isolated"], false, Evaluation::Shared),
    ] {
        let server = Server::start_with(&[&root], &flags);
        let file = told(&server, &project).await;
        assert_eq!(file.evaluation(), evaluation, "{flags:?}");
        let listed = server.listed(&root).await.unwrap();
        assert_eq!((listed.batch, listed.evaluation()), (batch, evaluation), "{flags:?}");
        all.push(file.types);
    }
    assert!(all.iter().all(|types| *types == all[0]), "{all:#?}");
    assert!(all[0].len() > 10);
}

#[tokio::test]
async fn a_release_that_the_bridge_does_not_fit_is_asked_by_hovers_and_that_is_said_once() {
    let (first, second) = (project(), project());
    let engine = older_engine();
    let flags = ["--engine-dir", &engine, "--engine-mode", "auto", "--metrics-listen", "127.0.0.1:0"];
    let server = Server::start_with(&[&first.root(), &second.root()], &flags);
    for project in [&first, &second] {
        let file = told(&server, project).await;
        assert_eq!(type_of(&file, "size"), "int");
        assert_eq!(type_of(&file, "double"), "(value: int = 2) -> float");
        assert_eq!(file.evaluation(), Evaluation::Shared);
        let listed = server.listed(&project.root()).await.unwrap();
        assert!(!listed.batch && listed.engine.contains("1.1.411"), "{listed:?}");
    }
    let said = server.log().iter().filter(|line| line["level"] == "WARN" && line["reason"].is_string()).count();
    assert_eq!(said, 1, "{:?}", server.log());
    let metrics = metrics(&server);
    assert!(metrics.contains("\npyrightd_engine_starts_total{asked=\"hover\"} 2\n"), "{metrics}");
    assert!(!metrics.contains("\"batch\""), "{metrics}");
}

/// What Prometheus would read.
fn metrics(server: &Server) -> String {
    let serving = server.wait_for_log(|line| line["message"] == "serving metrics");
    let mut connection = TcpStream::connect(serving["metrics"].as_str().unwrap()).unwrap();
    connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    answer
}

#[tokio::test]
async fn a_release_that_the_bridge_does_not_fit_is_not_served_where_whole_files_are_wanted() {
    let project = project();
    let root = project.root();
    let server = Server::start_with(&[&root], &["--engine-dir", &older_engine(), "--engine-mode", "batch"]);
    let open = OpenProjectRequest { project_root: text(&root), settings: None };
    let status = server.projects().await.open_project(open).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("--engine-mode=batch"), "{status}");
    assert_eq!(server.listed(&root).await.unwrap().state(), ProjectState::Broken);
}

#[tokio::test]
async fn an_engine_without_the_bridges_requests_is_asked_by_hovers() {
    let project = project();
    let engine = Engine::new(
        "exports.asked = (message, wire) => {
            if (message.method !== 'pyrightd/check') return false;
            wire.answer({ id: message.id, error: { code: -32601, message: 'Unhandled method' } });
            return true;
        };",
    );
    let root = project.root();
    let server = Server::start_with(&[&root], &["--engine-dir", engine.dir(), "--engine-mode", "auto"]);
    assert_eq!(type_of(&told(&server, &project).await, "size"), "int");
    assert!(!server.listed(&root).await.unwrap().batch);
}

#[tokio::test]
async fn a_file_that_the_bridge_can_not_tell_is_asked_about_by_hovers() {
    let project = project();
    let engine = Engine::new(
        "exports.asked = (message, wire) => {
            if (message.method !== 'pyrightd/export') return false;
            wire.answer({ id: message.id, error: { code: -32603, message: 'it failed' } });
            return true;
        };",
    );
    let root = project.root();
    let server = Server::start_with(&[&root], &["--engine-dir", engine.dir(), "--engine-mode", "auto"]);
    assert_eq!(type_of(&told(&server, &project).await, "size"), "int");
    assert!(server.listed(&root).await.unwrap().batch);
}

#[tokio::test]
async fn what_was_told_is_kept_until_what_it_depends_on_changes() {
    let project = Project::new(&[
        ("base.py", "def make(): return [1]\n"),
        ("middle.py", "from base import make\n"),
        ("top.py", "from middle import make\nseen = make()\n"),
        ("other.py", "seen = ['']\n"),
    ]);
    let engine = Engine::new(
        "exports.asked = (message, wire) =>
            message.method === 'pyrightd/export' && wire.note('asked', { file: message.params.uri.split('/').at(-1) });",
    );
    let root = project.root();
    // Kept in memory, that is.
    let flags = ["--engine-dir", engine.dir(), "--engine-mode", "batch", "--store", "none"];
    let server = Server::start_with(&[&root], &flags);
    let seen = async |path: &str| {
        type_of(&server.file(&root, select(path, Selector::Names)).await.unwrap(), "seen").to_owned()
    };
    let asked = || engine.notes().iter().map(|note| note["file"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    for _ in 0..3 {
        assert_eq!((seen("top.py").await, seen("other.py").await), ("list[int]".into(), "list[str]".into()));
    }
    assert_eq!(asked(), ["top.py", "other.py"], "each once");
    project.write("base.py", "def make(): return [b'']\n");
    assert_eq!((seen("top.py").await, seen("other.py").await), ("list[bytes]".into(), "list[str]".into()));
    assert_eq!(asked(), ["top.py", "other.py", "top.py"], "the other does not depend on it");
    project.write("new.py", "");
    assert_eq!((seen("top.py").await, seen("other.py").await), ("list[bytes]".into(), "list[str]".into()));
    assert_eq!(asked().len(), 5, "a module that came can change any import");
}
