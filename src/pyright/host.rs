//! The client's side of the engine's own requests: its settings, and what is heard of its progress.

use std::io;

use lsp_types::notification::{LogMessage, Notification as _, ShowMessage};
use lsp_types::request::{Request as _, WorkspaceConfiguration};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::protocol::uri;
use crate::lsp::multiplexer::Client;
use crate::model::{ProjectRoot, ProjectSettings};

/// What the engine was heard to say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    /// How often it has found the project's files.
    pub(super) scans: u64,
    /// How many there were the last time.
    pub(super) source_files: u32,
}

/// Answers the engine's own requests.
pub(super) struct Host {
    root: ProjectRoot,
    configuration: Value,
    facts: watch::Sender<Facts>,
}

impl Host {
    /// A host for one project, and what it hears.
    ///
    /// # Errors
    /// Where this program does not know its own executable, which is the interpreter.
    pub(super) fn new(root: ProjectRoot, settings: &ProjectSettings) -> io::Result<(Self, watch::Receiver<Facts>)> {
        let (facts, heard) = watch::channel(Facts::default());
        Ok((Self { root, configuration: configuration(settings)?, facts }, heard))
    }
}

impl Client for Host {
    fn request(&mut self, method: &str, params: &str) -> Option<Value> {
        match method {
            WorkspaceConfiguration::METHOD => {
                let asked: Value = serde_json::from_str(params).ok()?;
                let items = asked["items"].as_array()?;
                Some(
                    items
                        .iter()
                        .map(|item| self.configuration[item["section"].as_str().unwrap_or_default()].clone())
                        .collect(),
                )
            }
            "workspace/workspaceFolders" => Some(json!([{ "uri": uri(self.root.path()), "name": "project" }])),
            "workspace/applyEdit" => Some(json!({ "applied": false })),
            "client/registerCapability"
            | "client/unregisterCapability"
            | "window/workDoneProgress/create"
            | "window/showMessageRequest"
            | "workspace/diagnostic/refresh" => Some(Value::Null),
            _ => None,
        }
    }

    fn notification(&mut self, method: &str, params: &str) {
        if method != LogMessage::METHOD && method != ShowMessage::METHOD {
            return;
        }
        let Ok(said) = serde_json::from_str::<Value>(params) else { return };
        let message = said["message"].as_str().unwrap_or_default();
        tracing::debug!(root = %self.root, "engine: {message}");
        if let Some(found) = source_files(message) {
            self.facts.send_modify(|facts| {
                facts.scans += 1;
                facts.source_files = found;
            });
        }
    }
}

/// How many files there are, from "Found 12 source files", said each time the engine has found them.
#[must_use]
pub fn source_files(message: &str) -> Option<u32> {
    if message.starts_with("No source files found") {
        return Some(0);
    }
    let (count, rest) = message.strip_prefix("Found ")?.split_once(' ')?;
    rest.starts_with("source file").then(|| count.parse().ok())?
}

/// What the engine gets to know of the project, by section.
fn configuration(settings: &ProjectSettings) -> io::Result<Value> {
    let interpreter = std::env::current_exe()?;
    let mut analysis = json!({
        "autoSearchPaths": true,
        "diagnosticMode": "openFilesOnly",
        "extraPaths": settings.extra_paths,
        "logLevel": "Information",
    });
    if let Some(stub_path) = &settings.stub_path {
        analysis["stubPath"] = json!(stub_path);
    }
    Ok(json!({ "python": { "pythonPath": interpreter, "analysis": analysis }, "pyright": {} }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hears_that_the_files_were_found() {
        assert_eq!(source_files("Found 12 source files"), Some(12));
        assert_eq!(source_files("Found 1 source file"), Some(1));
        assert_eq!(source_files("No source files found."), Some(0));
        assert_eq!(source_files("Found nothing"), None);
        assert_eq!(source_files("Searching for source files"), None);
    }
}
