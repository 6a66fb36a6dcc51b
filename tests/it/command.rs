//! The command line: `export`, `doctor` and `bench`, as a person runs them.

use std::path::Path;
use std::process::{Command, Output};

use crate::harness::{Project, Server, engine_cache, text};

fn pyrightd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pyrightd"))
        .args(arguments)
        .arg("--cache-dir")
        .arg(engine_cache())
        .output()
        .unwrap()
}

fn printed(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn project() -> Project {
    Project::new(&[
        ("pyproject.toml", "[tool.pyright]\nexclude = ['generated']\n"),
        ("shop/cart.py", "from shop.item import Item\n\nfirst = Item('é').name\n"),
        (
            "shop/item.py",
            "class Item:\n    '''Something to buy.'''\n    def __init__(self, name: str):\n        self.name = name\n",
        ),
        ("generated/noise.py", "noise = 1\n"),
    ])
}

#[test]
fn export_prints_a_table_of_the_project_a_folder_or_a_file() {
    let project = project();
    let root = text(&project.root());
    let all = printed(&pyrightd(&["export", &root, "--select", "declarations"]));
    assert!(all.contains("shop/cart.py\n") && all.contains("shop/item.py\n"), "{all}");
    assert!(!all.contains("noise"), "the project's configuration leaves it out: {all}");
    let row = all.lines().find(|line| line.contains(" first ")).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["3:1", "variable", "first", "str"]);

    let folder = printed(&pyrightd(&["export", &text(&project.root().join("generated"))]));
    assert!(folder.contains("generated/noise.py") && !folder.contains("shop"), "{folder}");
    let file =
        printed(&pyrightd(&["export", &text(&project.root().join("shop/item.py")), "--details", "documentation"]));
    assert!(file.contains("Something to buy.") && !file.contains("cart"), "{file}");
}

#[test]
fn export_prints_locations_as_json() {
    let project = project();
    let root = text(&project.root());
    let lines =
        printed(&pyrightd(&["export", &root, "--format", "ndjson", "--at", "shop/cart.py:3:1", "shop/cart.py:3:19"]));
    let types: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(types.len(), 2);
    assert_eq!((&types[0]["line"], &types[0]["type"]), (&2.into(), &"str".into()));
    assert_eq!((&types[1]["name"], &types[1]["path"]), (&"name".into(), &"shop/cart.py".into()));

    let all = printed(&pyrightd(&["export", &root, "--format", "json", "--details", "definitions"]));
    let document: serde_json::Value = serde_json::from_str(&all).unwrap();
    assert_eq!(document["files"].as_array().unwrap().len(), 2);
    assert_eq!(document["summary"]["files"], 2);
    let cart = &document["files"][0];
    assert_eq!(cart["path"], "shop/cart.py");
    let name = cart["types"].as_array().unwrap().iter().find(|inferred| inferred["name"] == "name").unwrap();
    assert_eq!(name["definitions"][0]["path"], "shop/item.py");
}

#[test]
fn export_asks_a_running_server() {
    let project = project();
    let root = text(&project.root());
    let server = Server::start(&[&project.root()]);
    let lines = printed(&pyrightd(&["export", &root, "--server", &server.address, "--format", "ndjson"]));
    assert!(lines.contains("\"name\":\"first\""), "{lines}");
    server.wait_for_log(|line| line["method"] == "ExportFiles" && line["code"] == "Ok");

    drop(server);
    let nobody = pyrightd(&["export", &root, "--server", "127.0.0.1:1"]);
    assert!(!nobody.status.success());
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no server answers at 127.0.0.1:1"));
}

#[test]
fn export_says_what_is_wrong() {
    let project = project();
    let root = text(&project.root());
    for (arguments, words) in [
        (vec!["export", "/nowhere"], "/nowhere can't be read"),
        (vec!["export", &root, "--at", "shop/cart.py"], "is not FILE:LINE:COL"),
        (vec!["export", &root, "--at", "shop/missing.py:1:1"], "does not exist"),
    ] {
        let output = pyrightd(&arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(words), "{error}");
    }
}

#[test]
fn doctor_finds_what_is_wrong() {
    let project = project();
    let well = pyrightd(&["doctor", "--allow-root", &text(&project.root())]);
    let report = printed(&well);
    assert!(report.contains("pyright 1.1.414") && report.contains("right about a first type"), "{report}");
    assert!(report.contains("3 Python files") && !report.contains("WRONG"), "{report}");

    let ill = pyrightd(&["doctor", "--allow-root", "/nowhere"]);
    let report = String::from_utf8_lossy(&ill.stdout);
    assert!(!ill.status.success() && report.contains("WRONG   root /nowhere"), "{report}");

    let empty = tempfile::tempdir().unwrap();
    let ill = pyrightd(&["doctor", "--engine-dir", &text(empty.path())]);
    let report = String::from_utf8_lossy(&ill.stdout);
    assert!(!ill.status.success() && report.contains("WRONG   engine"), "{report}");
}

#[test]
fn bench_measures_all_ways_in_each_project_and_writes_its_figures() {
    let (large, small) = (project(), Project::new(&[("one.py", "number = 1\nprint(number)\n")]));
    let (json, svg) = (small.root().join("figures.json"), small.root().join("figures.svg"));
    let told = printed(&pyrightd(&[
        "bench",
        &text(&large.root()),
        &text(&small.root()),
        "--in-flight",
        "7",
        "--json",
        &text(&json),
        "--svg",
        &text(&svg),
    ]));
    let ways = [
        "hovers, one at a time",
        "hovers, 7 in flight",
        "hovers, one at a time, blank library",
        "hovers, 7 in flight, blank library",
        "pyright's check",
        "pyrightd, shared",
        "pyrightd, isolated",
        "pyrightd, isolated, with documentation",
    ];
    for way in ways {
        assert_eq!(told.matches(&format!("\n| {way} | ")).count(), 2, "{way}: {told}");
    }
    assert!(told.contains("medians of 1 round\n") && told.contains("as in an editor"), "{told}");

    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let figures: serde_json::Value = serde_json::from_str(&read(&json)).unwrap();
    let list = |value: &serde_json::Value| value.as_array().unwrap().clone();
    let counts = |project: &serde_json::Value| (project["files"].as_u64().unwrap(), project["names"].as_u64().unwrap());
    let projects = list(&figures["projects"]);
    assert_eq!(projects.iter().map(counts).collect::<Vec<_>>(), [(1, 3), (2, 14)], "what is excluded is not asked for");
    for project in &projects {
        for (way, name) in list(&project["ways"]).iter().zip(ways) {
            assert!(way["way"] == name && way["whole_seconds"].as_f64().unwrap() > 0.0, "{way}");
            let checks = name == "pyright's check";
            assert!(checks || way["told"] == project["names"], "{way}");
            assert!(checks || way["ready_seconds"].as_f64() < way["whole_seconds"].as_f64(), "{way}");
            let serves = name.starts_with("pyrightd");
            assert_eq!(way["peak_resident_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), serves, "{way}");
        }
        assert_eq!(list(&project["ratios"]).len(), 11);
    }
    let calls = list(&figures["calls"]);
    assert_eq!(calls.len(), 5);
    for call in calls {
        assert!(call["calls"].as_u64().unwrap() > 0 && call["p50"].as_f64() <= call["p99"].as_f64(), "{call}");
        assert!(told.contains(call["call"].as_str().unwrap()), "{call}");
    }
    assert!(read(&svg).starts_with("<svg ") && read(&svg).ends_with("</svg>\n"));
}
