//! From a server's settings to its end: starts, stops, what it logs, and that it leaves nothing behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pyrightd::proto::{ExportFilesRequest, ExportLocationsRequest, ListProjectsRequest, Selector};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::fault::Engine;
use crate::harness::{LONG, Project, Server, at, engine_cache, gone, select, signal, text, type_of};

fn project() -> Project {
    Project::new(&[("short.py", "short = [1]\n"), ("slow.py", "slow = [1]\n")])
}

/// Answers for `slow.py` only once the test says so by a file.
const SLOW: &str = "const fs = require('fs');
    exports.asked = (message, wire) => {
        if (!wire.isAsked(message, 'slow.py')) return false;
        const poll = setInterval(() => {
            if (!fs.existsSync(__dirname + '/answer')) return;
            clearInterval(poll);
            wire.ask(message);
        }, 5);
        return true;
    };";

fn let_it_answer(engine: &Engine) {
    std::fs::write(Path::new(engine.dir()).join("node_modules/pyright/answer"), "").unwrap();
}

async fn stops_when_calls_have_ended(name: &str) {
    let project = project();
    let root = project.root();
    let engine = Engine::new(SLOW);
    let temporary = tempfile::tempdir().unwrap();
    let mut command = Server::command(&[&root], &["--engine-dir", engine.dir()]);
    command.env("TMPDIR", temporary.path());
    let mut server = Server::from_command(command);
    let channel = server.channel().await;
    let mut health = HealthClient::new(channel.clone());
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);

    let mut client = server.export().await;
    let file = Some(select("slow.py", Selector::Names));
    let request = ExportLocationsRequest { project_root: text(&root), file, options: None };
    let call = tokio::task::spawn(async move { client.export_locations(request).await });
    let pid = server.listed_like(&root, |project| project.in_flight > 0).await.process_id;
    server.signal(name);
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    let mut projects = pyrightd::proto::project_service_client::ProjectServiceClient::new(channel);
    let refused = projects.list_projects(ListProjectsRequest {}).await.unwrap_err();
    // The second is what the client makes of a connection that is closed under its request.
    assert!(matches!(refused.code(), Code::Unavailable | Code::Cancelled), "{refused}");

    let_it_answer(&engine);
    let answer = call.await.unwrap().unwrap().into_inner().file.unwrap();
    assert_eq!(type_of(&answer, "slow"), "list[int]");
    assert_eq!(server.wait().code(), Some(0));
    gone(pid).await;
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "temporary files are left");
}

#[tokio::test]
async fn sigterm_lets_calls_end_and_refuses_new_ones() {
    stops_when_calls_have_ended("TERM").await;
}

#[tokio::test]
async fn sigint_lets_calls_end_and_refuses_new_ones() {
    stops_when_calls_have_ended("INT").await;
}

#[tokio::test]
async fn nothing_holds_a_stop_beyond_the_grace_period() {
    let project = project();
    let root = project.root();
    let engine = Engine::new(SLOW);
    let mut server = Server::start_with(&[&root], &["--engine-dir", engine.dir(), "--grace-period", "1s"]);
    let mut watch =
        HealthClient::new(server.channel().await).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    // A reader that is stuck: more than its buffers hold is on its way.
    let files = (0..20_000).map(|_| select("missing.py", Selector::Names)).collect();
    let request = ExportFilesRequest { project_root: text(&root), files, ..ExportFilesRequest::default() };
    let mut stuck = server.export().await.export_files(request).await.unwrap().into_inner();
    stuck.message().await.unwrap().unwrap();
    let mut client = server.export().await;
    let file = Some(select("slow.py", Selector::Names));
    let request = ExportLocationsRequest { project_root: text(&root), file, options: None };
    let endless = tokio::task::spawn(async move { client.export_locations(request).await });
    let pid = server.listed_like(&root, |project| project.in_flight > 0).await.process_id;

    let signalled = Instant::now();
    server.signal("TERM");
    assert_eq!(endless.await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert_eq!(server.wait().code(), Some(0));
    assert!(signalled.elapsed() < LONG / 4);
    gone(pid).await;
}

#[tokio::test]
async fn a_killed_server_leaves_no_engine_behind() {
    let project = project();
    let server = Server::start(&[&project.root()]);
    server.file(&project.root(), at("short.py", &[(0, 0)])).await.unwrap();
    let pid = server.listed(&project.root()).await.unwrap().process_id;
    signal(server.pid(), "KILL");
    gone(pid).await;
}

#[tokio::test]
async fn a_project_that_is_idle_is_stopped_and_starts_anew() {
    let project = project();
    let root = project.root();
    let server = Server::start_with(&[&root], &["--idle-timeout", "1s"]);
    server.file(&root, at("short.py", &[(0, 0)])).await.unwrap();
    let pid = server.listed(&root).await.map(|project| project.process_id);
    server.wait_for_log(|line| line["message"] == "the project is closed");
    if let Some(pid) = pid {
        gone(pid).await;
    }
    let file = server.file(&root, at("short.py", &[(0, 0)])).await.unwrap();
    assert_eq!(type_of(&file, "short"), "list[int]");
}

#[tokio::test]
async fn two_servers_that_start_at_once_install_the_engine_once() {
    let project = project();
    let root = project.root();
    let cache = tempfile::tempdir().unwrap();
    let start = || {
        let command = Server::command(&[&root], &[]);
        let arguments: Vec<_> = command
            .get_args()
            .map(|argument| if argument == engine_cache() { cache.path().as_os_str() } else { argument })
            .collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pyrightd"));
        command.args(arguments);
        tokio::task::spawn_blocking(|| Server::from_command(command))
    };
    let (one, other) = tokio::join!(start(), start());
    let servers = [one.unwrap(), other.unwrap()];
    let installed = |server: &Server| {
        let installs =
            |line: &&serde_json::Value| line["message"].as_str().is_some_and(|said| said.starts_with("installing"));
        server.log().iter().filter(installs).count()
    };
    assert_eq!(servers.iter().map(installed).sum::<usize>(), 1);
    for server in &servers {
        let file = server.file(&root, at("short.py", &[(0, 0)])).await.unwrap();
        assert_eq!(type_of(&file, "short"), "list[int]");
    }
    let left = std::fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut left: Vec<_> = left.collect();
    left.sort();
    assert!(left.len() == 2 && left[0].starts_with("engine-") && left[1] == "install.lock", "{left:?}");
}

/// What a command says as it fails, which it has to do by itself.
fn failure(mut command: Command) -> String {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let end = Instant::now() + LONG;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > end {
            child.kill().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let output = child.wait_with_output().unwrap();
    assert!(status.is_some_and(|status| !status.success()), "it did not fail");
    String::from_utf8(output.stderr).unwrap()
}

fn serve(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyrightd"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--cache-dir"]).arg(engine_cache()).args(flags);
    command
}

#[test]
fn without_npm_it_says_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyrightd"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--cache-dir"]).arg(cache.path()).env("PATH", "/nonexistent");
    let said = failure(command);
    for word in ["npm was not found", "install Node.js", "--engine-dir"] {
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn settings_that_are_wrong_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, toml: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, toml).unwrap();
        text(&path)
    };
    let (unknown, broken) = (file("unknown.toml", "max-in-fligth = 3\n"), file("broken.toml", "max-calls = \n"));
    let (period, missing) = (file("period.toml", "idle-timeout = 'soon'\n"), text(&folder.path().join("missing.toml")));
    for (flags, words) in [
        (&["--max-in-flight", "0"][..], &["--max-in-flight", "at least 1"][..]),
        (&["--max-calls", "many"], &["--max-calls", "many"]),
        (&["--idle-timeout", "soon"], &["--idle-timeout", "soon"]),
        (&["--listen", "nowhere"], &["--listen", "nowhere"]),
        (&["--listen", "192.0.2.1:1"], &["192.0.2.1:1"]),
        (&["--log-format", "xml"], &["--log-format", "xml", "json"]),
        (&["--allow-root", "/nonexistent"], &["--allow-root", "/nonexistent", "does not exist"]),
        (&["--engine-dir", text(folder.path()).as_str()], &["holds no engine", "langserver.index.js"]),
        (&["--config", &unknown], &["unknown.toml", "max-in-fligth", "max-in-flight"]),
        (&["--config", &broken], &["broken.toml", "line 1"]),
        (&["--config", &period], &["period.toml", "idle-timeout"]),
        (&["--config", &missing], &["missing.toml", "No such file"]),
    ] {
        // A flag may be given but once.
        let mut command = serve(&[]);
        if flags[0] == "--listen" {
            command = Command::new(env!("CARGO_BIN_EXE_pyrightd"));
            command.args(["serve", "--cache-dir"]).arg(engine_cache());
        }
        command.args(flags);
        let said = failure(command);
        for word in words {
            assert!(said.contains(word), "{flags:?}: no {word:?} in {said}");
        }
    }
    let mut command = serve(&[]);
    command.env("PYRIGHTD_MAX_CALLS", "none");
    let said = failure(command);
    assert!(said.contains("none") && said.contains("max-calls"), "{said}");
}

#[tokio::test]
async fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let project = project();
    let root = project.root();
    let engine = Engine::new(SLOW);
    project.write(
        "pyrightd.toml",
        format!(
            "listen = '127.0.0.1:0'\nallow-root = ['{}']\nlog-format = 'json'\nmax-in-flight = 2\nengine-dir = '{}'\n",
            root.display(),
            engine.dir()
        ),
    );
    for (variable, flag, expected) in [(None, None, 2), (Some("3"), None, 3), (Some("3"), Some("4"), 4)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pyrightd"));
        command.args(["serve", "--config"]).arg(root.join("pyrightd.toml"));
        command.envs(variable.map(|value| ("PYRIGHTD_MAX_IN_FLIGHT", value)));
        command.args(flag.map(|value| ["--max-in-flight", value]).into_iter().flatten());
        let server = Server::from_command(command);
        project.write("slow.py", "a = b = c = d = e = f = 1\n");
        let calls = ["slow.py"; 6].map(|path| server.file(&root, select(path, Selector::Names)));
        tokio::select! {
            _ = futures_util::future::join_all(calls) => panic!("nobody answered"),
            _ = server.listed_like(&root, |project| project.in_flight == expected && project.waiting > 0) => {}
        }
    }
}

/// Runs calls of each kind on a project whose every name, text and comment is told by one word.
async fn calls_with_a_secret(format: &str) -> (Vec<String>, PathBuf) {
    const SECRET: &str = "zanzibar";
    let project = Project::new(&[
        ("one.py", &format!("# {SECRET}\ndef {SECRET}({SECRET}_x: int):\n    '''{SECRET}'''\n    return '{SECRET}'\n")),
        ("broken.py", &format!("import {SECRET}\nclass {SECRET}(:\n  {SECRET} = '{SECRET}\n")),
    ]);
    let root = project.root();
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = Server::command(&[&root], &["--log", "trace"]);
    // The harness reads JSON alone.
    let arguments: Vec<_> = command
        .get_args()
        .map(|argument| if argument == "json" { format.as_ref() } else { argument })
        .map(ToOwned::to_owned)
        .collect();
    command = Command::new(env!("CARGO_BIN_EXE_pyrightd"));
    command.args(arguments).stdin(Stdio::null()).stderr(log.reopen().unwrap());
    let mut child = Stopped(command.spawn().unwrap());
    let lines = || std::fs::read_to_string(log.path()).unwrap();
    let port = crate::harness::eventually("the address", async || {
        let lines = lines();
        let line = lines.lines().find(|line| line.contains("listening"))?;
        let port = line.split("127.0.0.1:").nth(1)?;
        Some(port.chars().take_while(char::is_ascii_digit).collect::<String>())
    })
    .await;
    let channel = tonic::transport::Channel::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
    let mut client = pyrightd::proto::export_service_client::ExportServiceClient::new(channel.connect().await.unwrap());
    let file = |path: &str, content: Option<&str>| {
        let file = select(path, Selector::Names);
        let file = pyrightd::proto::FileLocations { content: content.map(Into::into), ..file };
        let mut request =
            Request::new(ExportLocationsRequest { project_root: text(&root), file: Some(file), options: None });
        request.metadata_mut().insert("x-request-id", "id-of-one".parse().unwrap());
        request
    };
    let answer = client.export_locations(file("one.py", None)).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "id-of-one");
    assert_eq!(
        type_of(&answer.into_inner().file.unwrap(), SECRET),
        format!("({SECRET}_x: int) -> Literal['{SECRET}']")
    );
    client.export_locations(file("one.py", Some(&format!("{SECRET} = 1\n")))).await.unwrap();
    let missing = client.export_locations(file("missing.py", None)).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let request = ExportFilesRequest {
        project_root: text(&root),
        default_selector: Selector::Names.into(),
        ..ExportFilesRequest::default()
    };
    let mut stream = client.export_files(request).await.unwrap().into_inner();
    while stream.message().await.unwrap().is_some() {}
    signal(child.0.id(), "TERM");
    assert!(child.0.wait().unwrap().success());
    let lines = lines();
    assert!(!lines.contains(SECRET), "{lines}");
    (lines.lines().map(str::to_owned).collect(), root)
}

/// A process that is killed with this value.
struct Stopped(std::process::Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_log_has_a_line_for_each_call_as_json() {
    let (lines, root) = calls_with_a_secret("json").await;
    let lines: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let calls: Vec<_> = lines.iter().filter(|line| line["message"] == "call").collect();
    let told = |key: &str| calls.iter().map(|call| call[key].clone()).collect::<Vec<_>>();
    assert_eq!(told("method"), ["ExportLocations", "ExportLocations", "ExportLocations", "ExportFiles"]);
    assert_eq!(told("code"), ["Ok", "Ok", "NotFound", "Ok"]);
    assert!(told("root").iter().all(|named| *named == text(&root)));
    assert_eq!(told("files"), [1, 1, 0, 2]);
    assert_eq!(told("failed_files"), [0, 0, 0, 0]);
    for call in &calls {
        let outcomes = ["typed", "no_type", "invalid", "failed"].map(|key| call[key].as_u64().unwrap());
        assert_eq!(call["locations"], outcomes.iter().sum::<u64>());
        assert!(call["milliseconds"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(calls[0]["span"]["request_id"], "id-of-one");
    assert!(!calls[3]["span"]["request_id"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn the_log_has_a_line_for_each_call_as_text() {
    let (lines, root) = calls_with_a_secret("text").await;
    let calls: Vec<_> = lines.iter().filter(|line| line.contains("method=")).collect();
    assert_eq!(calls.len(), 4, "{calls:#?}");
    for word in ["id-of-one", "ExportLocations", "code=Ok", "files=1", "typed=", &text(&root)] {
        assert!(calls[0].contains(word), "no {word} in {}", calls[0]);
    }
    assert!(calls[3].contains("ExportFiles") && calls[3].contains("files=2"), "{}", calls[3]);
}
