//! Who may import whom: a file imports only from floors below its own, and never sideways among the mechanisms.

use std::path::{Path, PathBuf};

use crate::harness::repository;

/// The floors, lowest first; the parts of one floor that are listed apart don't know each other.
const FLOORS: [&[&[&str]]; 9] = [
    &[&["model", "position", "snapshot"]],
    &[&["blocking"]],
    &[&["lsp"], &["store"], &["workspace"]],
    &[&["pyright"]],
    &[&["results"]],
    &[&["export"]],
    &[&["update"]],
    &[&["grpc"], &["admin"], &["cli"]],
    &[&["config", "telemetry", "app", "main", "lib"]],
];

/// What only some parts may name, and which.
const RESERVED: [(&str, &[&str]); 10] = [
    ("axum", &["admin"]),
    ("tonic", &["grpc", "cli", "app", "main", "lib"]),
    ("crate::proto", &["grpc", "cli"]),
    ("anyhow", &["admin", "cli", "app", "main"]),
    ("clap", &["cli", "config", "main"]),
    ("gix", &["workspace"]),
    ("lsp_types", &["pyright", "cli"]),
    ("notify", &["workspace"]),
    ("sqlx", &["store"]),
    ("tree_sitter", &["workspace"]),
];

/// What the lowest floor may not name.
const IMPURE: [&str; 6] = ["tokio", "std::fs", "std::net", "std::process", "std::env", "std::thread"];

fn sources() -> Vec<(String, PathBuf, String)> {
    let top = repository().join("src");
    let mut folders = vec![top.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(&top).unwrap().to_owned();
                let part = relative.components().next().unwrap().as_os_str().to_str().unwrap();
                let part = part.trim_end_matches(".rs").to_owned();
                sources.push((part, relative, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    sources
}

/// The lines of code before the file's tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).filter(|line| !line.trim().starts_with("//"))
}

fn place(part: &str) -> (usize, usize) {
    FLOORS
        .iter()
        .enumerate()
        .find_map(|(floor, groups)| Some((floor, groups.iter().position(|group| group.contains(&part))?)))
        .unwrap_or_else(|| panic!("src/{part} stands on no floor"))
}

/// The parts that a line imports from this crate.
fn imported(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("crate::").map(|(at, found)| {
        let rest = &line[at + found.len()..];
        rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap()
    })
}

#[test]
fn a_file_imports_only_from_floors_below_its_own() {
    let mut imports = 0;
    for (part, path, text) in sources() {
        let (floor, group) = place(&part);
        for line in code(&text) {
            for other in imported(line).filter(|other| *other != "proto") {
                imports += 1;
                let (below, beside) = place(other);
                let allowed = below < floor || (below, beside) == (floor, group);
                assert!(allowed, "{} imports {other}, which is no floor below: {line}", path.display());
            }
        }
    }
    assert!(imports > 50, "the imports were not found");
}

#[test]
fn only_some_parts_know_the_wire_and_the_engine() {
    for (part, path, text) in sources() {
        for line in code(&text) {
            for (name, parts) in RESERVED {
                let named = line.contains(&format!("{name}::")) && !line.contains(&format!("_{name}::"));
                assert!(!named || parts.contains(&part.as_str()), "{} names {name}: {line}", path.display());
            }
            let impure = IMPURE.iter().find(|name| line.contains(*name));
            assert!(place(&part).0 > 0 || impure.is_none(), "{} is not pure: {line}", path.display());
        }
    }
}

#[test]
fn every_file_says_its_job_first() {
    for (_, path, text) in sources() {
        assert!(text.starts_with("//! "), "{} does not open with its job", path.display());
    }
}

#[test]
fn nothing_is_named_for_having_no_place() {
    for (_, path, _) in sources() {
        for name in ["utils", "util", "common", "manager", "helpers", "misc"] {
            assert!(
                path.components().all(|part| Path::new(part.as_os_str()).file_stem().unwrap() != name),
                "{}",
                path.display()
            );
        }
    }
}
