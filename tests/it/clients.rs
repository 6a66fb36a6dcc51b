//! Clients that others wrote, in Go and Python: they learn the contract by reflection and are answered.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::{Project, Server, repository, text};

/// What is served beside the contract; reflection of each kind lists itself and not the other.
const COMMON: [&str; 2] = ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"];
const CONTRACT: [&str; 3] = ["pyrightd.v1.ExportService", "pyrightd.v1.ProjectService", "pyrightd.v1.SnapshotService"];

fn client(name: &str) -> PathBuf {
    let installed = Command::new(repository().join("tests/clients/install")).status().unwrap();
    assert!(installed.success(), "the clients could not be installed from PyPI");
    repository().join("target/clients/bin").join(name)
}

fn start() -> (Project, Server) {
    let project = Project::new(&[("a.py", "from b import y\nx = y\n"), ("b.py", "y = [1]\n")]);
    let server = Server::start(&[&project.root()]);
    (project, server)
}

fn run(command: &mut Command) -> Output {
    // The server is on this machine, whatever lies between it and others.
    command.env("NO_PROXY", "*").output().unwrap()
}

/// What a client printed; it must have succeeded.
fn printed(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// JSON values, one after the other.
fn values(text: &str) -> Vec<Value> {
    serde_json::Deserializer::from_str(text).into_iter().collect::<Result<_, _>>().unwrap()
}

fn of_one_file(project: &Project) -> String {
    json!({ "project_root": project.root(), "file": { "path": "a.py", "selector": "SELECTOR_NAMES" } }).to_string()
}

fn of_all_files(project: &Project) -> String {
    json!({ "project_root": project.root(), "default_selector": "SELECTOR_NAMES" }).to_string()
}

/// Name and type of each thing in a file's answer.
fn types(file: &Value) -> Vec<(&str, &str)> {
    let types = file["types"].as_array().unwrap_or_else(|| panic!("{file}"));
    types.iter().map(|inferred| (inferred["name"].as_str().unwrap(), inferred["type"].as_str().unwrap())).collect()
}

const TYPES_OF_A: [(&str, &str); 4] =
    [("b", "Module(\"b\")"), ("y", "list[int]"), ("x", "list[int]"), ("y", "list[int]")];

/// Both files, each once, and the summary as the last.
fn check_stream(messages: &[Value]) {
    let files: Vec<_> = messages.iter().filter(|message| !message["file"].is_null()).collect();
    let paths: Vec<_> = files.iter().map(|message| &message["file"]["path"]).collect();
    assert_eq!(paths, ["a.py", "b.py"]);
    assert_eq!(types(&files[0]["file"]), TYPES_OF_A);
    assert_eq!(messages.last().unwrap()["summary"]["files"], 2);
}

#[test]
fn grpcurl_calls_by_reflection_of_the_older_kind() {
    let (project, server) = start();
    let tell = |arguments: &[&str]| {
        let mut command = Command::new(client("grpcurl"));
        printed(run(command.args(["-plaintext", &server.address]).args(arguments)))
    };
    let listed = tell(&["list"]);
    for service in CONTRACT.iter().chain(&COMMON) {
        assert!(listed.lines().any(|line| line == *service), "{service} is not in {listed}");
    }
    let described = tell(&["describe", "pyrightd.v1.Outcome"]);
    assert!(described.contains("OUTCOME_NO_TYPE = 2"), "{described}");

    let grpcurl = |data: &str, method: &str| {
        let mut command = Command::new(client("grpcurl"));
        run(command.args(["-plaintext", "-d", data, &server.address, method]))
    };
    let one = printed(grpcurl(&of_one_file(&project), "pyrightd.v1.ExportService/ExportLocations"));
    assert_eq!(types(&values(&one)[0]["file"]), TYPES_OF_A);
    let many = printed(grpcurl(&of_all_files(&project), "pyrightd.v1.ExportService/ExportFiles"));
    check_stream(&values(&many));
    let projects = printed(grpcurl("{}", "pyrightd.v1.ProjectService/ListProjects"));
    assert_eq!(values(&projects)[0]["projects"][0]["projectRoot"], text(&project.root()));
    let health = printed(grpcurl("{}", "grpc.health.v1.Health/Check"));
    assert_eq!(values(&health)[0]["status"], "SERVING");

    let refused = grpcurl(r#"{ "project_root": "relative" }"#, "pyrightd.v1.ExportService/ExportLocations");
    let refused = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.contains("Code: InvalidArgument") && refused.contains("BadRequest"), "{refused}");
    assert!(refused.contains("project_root"), "the details are readable: {refused}");
}

#[test]
fn buf_curl_calls_by_reflection_of_both_kinds() {
    let (project, server) = start();
    for reflection in ["grpc-v1", "grpc-v1alpha"] {
        let buf = |data: &str, method: &str| {
            let mut command = Command::new(client("buf"));
            command.args(["curl", "--protocol", "grpc", "--http2-prior-knowledge", "--reflect-protocol", reflection]);
            run(command.args(["--data", data]).arg(format!("http://{}/{method}", server.address)))
        };
        let one = printed(buf(&of_one_file(&project), "pyrightd.v1.ExportService/ExportLocations"));
        assert_eq!(types(&values(&one)[0]["file"]), TYPES_OF_A, "{reflection}");
        let many = printed(buf(&of_all_files(&project), "pyrightd.v1.ExportService/ExportFiles"));
        check_stream(&values(&many));
        let projects = printed(buf("{}", "pyrightd.v1.ProjectService/ListProjects"));
        assert_eq!(values(&projects)[0]["projects"].as_array().unwrap().len(), 1, "{reflection}");

        let refused = buf(r#"{ "project_root": "relative" }"#, "pyrightd.v1.ExportService/ExportLocations");
        assert_eq!(refused.status.code(), Some(3 << 3), "buf tells INVALID_ARGUMENT so");
        let refused: Value = serde_json::from_slice(&refused.stderr).unwrap();
        assert_eq!(refused["code"], "invalid_argument");
        assert_eq!(refused["details"][0]["type"], "google.rpc.BadRequest", "{refused}");
    }
}

#[test]
fn a_python_client_calls_by_reflection() {
    let (project, server) = start();
    let mut command = Command::new(client("python"));
    command.arg(repository().join("tests/clients/client.py")).arg(&server.address).arg(project.root());
    let answers: Value = serde_json::from_str(&printed(run(&mut command))).unwrap();

    let mut services: Vec<_> = CONTRACT.iter().chain(&COMMON).collect();
    services.sort();
    assert_eq!(answers["services"], json!(services));
    assert_eq!(types(&answers["one"][0]["file"]), TYPES_OF_A);
    check_stream(answers["many"].as_array().unwrap());
    assert_eq!(answers["projects"][0]["projects"][0]["state"], "PROJECT_STATE_READY");
    assert_eq!(answers["refused"], "INVALID_ARGUMENT");
    let health = json!({
        "": "SERVING",
        "pyrightd.v1.ExportService": "SERVING",
        "pyrightd.v1.ProjectService": "SERVING",
        "pyrightd.v1.SnapshotService": "SERVING",
    });
    assert_eq!(answers["health"], health);
}
