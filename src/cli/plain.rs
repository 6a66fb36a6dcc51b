//! A plain language client, to measure against and to compare with: it opens files as an editor does, and hovers.
//!
//! It knows none of the service's own ways: the checker runs over what is open, and nothing follows the disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _};
use lsp_types::notification::{DidCloseTextDocument, DidOpenTextDocument, Initialized, LogMessage, Notification as _};
use lsp_types::request::{HoverRequest, Initialize, Request as _, WorkspaceConfiguration};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::lsp::codec;
use crate::lsp::multiplexer::{Call, Client, Ended, Multiplexer, Options};
use crate::model::Position;
use crate::pyright::host::source_files;
use crate::pyright::install::Engine;
use crate::pyright::process::{Launch, Process};
use crate::pyright::protocol::{position_parameters, raw, uri};
use crate::workspace::environment::Environment;

/// The longest message taken from the engine, in bytes.
const MAX_MESSAGE: usize = 64 << 20;
/// A hover that takes longer is none.
const STALL: Duration = Duration::from_secs(300);

/// A language client with a Pyright of its own.
#[derive(Debug)]
pub struct PlainClient {
    multiplexer: Multiplexer,
    process: Process,
    _ended: oneshot::Receiver<Ended>,
}

impl PlainClient {
    /// Starts a process and returns once it has found the project's files.
    ///
    /// `interpreter` is this program's own executable, which answers Pyright as a Python interpreter. Its standard
    /// library's sources are those in `standard_library`; blank ones without.
    ///
    /// # Errors
    /// Where it can't be started, or ends before.
    pub async fn start(
        engine: &Engine,
        root: &Path,
        interpreter: &Path,
        standard_library: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let mut environment = Environment::discover(root, None, &|_| true);
        environment.standard_library = standard_library.map(Path::to_owned);
        let launch = Launch { engine: engine.clone(), environment, max_heap_mib: None, preload: None };
        let tracker = TaskTracker::new();
        let (process, stdin, stdout) = Process::start(&launch, &tracker)?;
        let (found, mut files_found) = watch::channel(false);
        let options = Options { max_message: MAX_MESSAGE, stall: STALL, cancellation_folder: None };
        let (ended, why) = oneshot::channel();
        let editor = Editor { interpreter: interpreter.to_owned(), found };
        let multiplexer = Multiplexer::start(stdout, stdin, editor, options, &tracker, ended);
        let mut client = Self { multiplexer, process, _ended: why };
        let root = uri(root);
        let parameters = json!({
            "processId": null,
            "rootUri": root,
            "workspaceFolders": [{ "uri": root, "name": "project" }],
            "capabilities": {
                "workspace": { "configuration": true, "workspaceFolders": true },
                "textDocument": { "hover": { "contentFormat": ["markdown"] } },
            },
        });
        client.call(Initialize::METHOD, &parameters).await?;
        client.multiplexer.notify(Initialized::METHOD, &json!({})).await?;
        files_found.wait_for(|found| *found).await.context("Pyright ended before it was ready")?;
        Ok(client)
    }

    /// Opens a file, as an editor does.
    ///
    /// # Errors
    /// Where it can't be read, or the process has ended.
    pub async fn open(&self, path: &Path) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(path)?;
        let document = json!({ "uri": uri(path), "languageId": "python", "version": 1, "text": text });
        Ok(self.multiplexer.clone().notify(DidOpenTextDocument::METHOD, &json!({ "textDocument": document })).await?)
    }

    /// Closes a file, as an editor does.
    ///
    /// # Errors
    /// Where the process has ended.
    pub async fn close(&self, path: &Path) -> anyhow::Result<()> {
        let document = json!({ "textDocument": { "uri": uri(path) } });
        Ok(self.multiplexer.clone().notify(DidCloseTextDocument::METHOD, &document).await?)
    }

    /// The hover's Markdown at each place, in the order asked, with at most `in_flight` requests under way.
    ///
    /// # Errors
    /// Where the process has ended.
    pub async fn hovers(
        &self,
        places: &[(PathBuf, Position)],
        in_flight: usize,
    ) -> anyhow::Result<Vec<Option<String>>> {
        let mut answers = vec![None; places.len()];
        let mut asked = futures_util::stream::iter(places.iter().enumerate())
            .map(|(index, (path, position))| async move { anyhow::Ok((index, self.hover(path, *position).await?)) })
            .buffer_unordered(in_flight.max(1));
        while let Some(answer) = asked.next().await {
            let (index, hover) = answer?;
            answers[index] = hover;
        }
        Ok(answers)
    }

    /// Hovers at the places of each file, which is open meanwhile, and counts the hovers that say something.
    ///
    /// At most `in_flight` requests are under way, and as many as that from one file on to the next.
    ///
    /// # Errors
    /// Where a file can't be read, or the process has ended.
    pub async fn count_hovers(&self, files: &[(&Path, &[Position])], in_flight: usize) -> anyhow::Result<u64> {
        let mut left: Vec<usize> = files.iter().map(|(_, places)| places.len()).collect();
        let places = files.iter().enumerate().flat_map(|(file, (path, places))| {
            places.iter().enumerate().map(move |(index, place)| (file, *path, index == 0, *place))
        });
        let mut asked = std::pin::pin!(
            futures_util::stream::iter(places)
                .then(|(file, path, is_first, place)| async move {
                    if is_first {
                        self.open(path).await?;
                    }
                    anyhow::Ok(async move { anyhow::Ok((file, self.hover(path, place).await?)) })
                })
                .try_buffer_unordered(in_flight.max(1))
        );
        let mut told = 0;
        while let Some((file, hover)) = asked.try_next().await? {
            told += u64::from(hover.is_some());
            left[file] -= 1;
            if left[file] == 0 {
                self.close(files[file].0).await?;
            }
        }
        Ok(told)
    }

    /// Ends the process.
    pub async fn stop(self) {
        self.process.kill().await;
    }

    async fn hover(&self, path: &Path, place: Position) -> anyhow::Result<Option<String>> {
        let parameters = position_parameters(&uri(path), place);
        let hover: Value = codec::read(&self.call(HoverRequest::METHOD, &parameters).await?)?;
        Ok(hover["contents"]["value"].as_str().map(str::to_owned))
    }

    async fn call(&self, method: &'static str, parameters: &Value) -> anyhow::Result<Box<RawValue>> {
        let call = Call { method, params: raw(parameters), cancelled: CancellationToken::new() };
        Ok(self.multiplexer.clone().oneshot(call).await?)
    }
}

struct Editor {
    interpreter: PathBuf,
    found: watch::Sender<bool>,
}

impl Client for Editor {
    fn request(&mut self, method: &str, params: &str) -> Option<Value> {
        if method != WorkspaceConfiguration::METHOD {
            return Some(Value::Null);
        }
        let asked: Value = serde_json::from_str(params).ok()?;
        let python = json!({ "pythonPath": self.interpreter, "analysis": { "autoSearchPaths": true } });
        let section = |item: &Value| if item["section"] == "python" { python.clone() } else { json!({}) };
        Some(asked["items"].as_array()?.iter().map(section).collect())
    }

    fn notification(&mut self, method: &str, params: &str) {
        let said: Value = serde_json::from_str(params).unwrap_or_default();
        if method == LogMessage::METHOD && said["message"].as_str().and_then(source_files).is_some() {
            self.found.send_replace(true);
        }
    }
}
