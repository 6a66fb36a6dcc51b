//! What the engine knows of the disk: made equal to it, and held while it is asked.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use lsp_types::notification::{
    DidChangeConfiguration, DidChangeTextDocument, DidChangeWatchedFiles, DidCloseTextDocument, DidOpenTextDocument,
    Notification as _,
};
use serde_json::json;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use super::{Document, Session, SessionError};
use crate::blocking::blocking;
use crate::pyright::batch::{self, Files};
use crate::pyright::protocol::uri;
use crate::workspace::configuration::{Configuration, discover};
use crate::workspace::scope::Scope;
use crate::workspace::tree::identity;

impl Session {
    /// Waits until the engine has found the project's files once more than `before` times.
    pub(super) async fn files_found_after(&self, before: u64) -> Result<(), SessionError> {
        let mut facts = self.facts.clone();
        facts.wait_for(|facts| facts.scans > before).await.map(|_| ()).map_err(|_| SessionError::Disconnected)
    }

    /// The project's own source files, absolute, in order, as of the last [`Session::refresh`].
    #[must_use]
    pub fn sources(&self) -> Vec<PathBuf> {
        let scope = Scope::of(&Configuration::read(self.root.path(), &|path| self.roots.hold(path)));
        let tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
        let is_own = |path: &&Path| path.starts_with(self.root.path()) && scope.holds(path);
        tree.sources().filter(is_own).map(Path::to_owned).collect()
    }

    /// Makes the engine's view equal to the disk as it is at the time of the call.
    ///
    /// # Errors
    /// [`SessionError::Disconnected`] where the process is gone, or has to be replaced for the view to be right.
    ///
    /// # Cancel safety
    /// What was begun is done nonetheless.
    pub async fn refresh(self: &Arc<Self>) -> Result<(), SessionError> {
        if self.watcher.barrier().await.is_err() {
            self.touched.distrust();
        }
        if self.condemned.is_cancelled() {
            return Err(SessionError::Disconnected);
        }
        let session = Arc::clone(self);
        let outdated = blocking(move || {
            session.touched.note(session.tree.lock().unwrap_or_else(PoisonError::into_inner).moved_links());
            let (configuration, environment) = discover(session.root.path(), &session.settings, &session.roots);
            environment != session.environment
                || configuration.differs_elsewhere(&session.configuration, session.root.path())
                || identity(session.root.path()) != session.identity
        });
        if outdated.await {
            tracing::info!(root = %self.root, "the project's Python environment, or what configures it from elsewhere, is another one; its engine is replaced");
            self.condemned.cancel();
            return Err(SessionError::Disconnected);
        }
        // Who finds nothing touched since another is at it must not go on before that is done.
        let turn = Arc::clone(&self.adopting).lock_owned().await;
        if self.condemned.is_cancelled() {
            return Err(SessionError::Disconnected);
        }
        if !self.touched.is_touched() {
            return Ok(());
        }
        let session = Arc::clone(self);
        let adopted = self.tracker.spawn(async move {
            let _turn = turn;
            let result = session.adopt_changes().await;
            if result.is_err() {
                session.condemned.cancel();
            }
            result
        });
        adopted.await.unwrap_or(Err(SessionError::Disconnected))
    }

    /// Tells the engine what was touched, while nobody asks.
    async fn adopt_changes(&self) -> Result<(), SessionError> {
        let _alone = self.view.write().await;
        // Taken only now, so that who comes meanwhile waits here too.
        let touched = self.touched.take();
        let tree = Arc::clone(&self.tree);
        let changes = blocking(move || tree.lock().unwrap_or_else(PoisonError::into_inner).look(&touched)).await;
        if changes.lasting {
            tracing::info!(root = %self.root, "a package is typed otherwise, or a link leads elsewhere; the engine is replaced");
            return Err(SessionError::Disconnected);
        }
        if changes.structural {
            self.evaluated.clear();
            tracing::debug!(root = %self.root, "files came or went; the engine looks for them anew");
            let before = self.facts.borrow().scans;
            self.notify(DidChangeConfiguration::METHOD, &json!({ "settings": null })).await?;
            tokio::time::timeout(self.limits.start, self.files_found_after(before))
                .await
                .unwrap_or(Err(SessionError::Disconnected))
        } else {
            self.drop_dependents(&changes.edited).await;
            self.edited(&changes.edited).await
        }
    }

    /// Drops what was told of these files and of all that import them. Nobody asks meanwhile.
    async fn drop_dependents(&self, edited: &[PathBuf]) {
        if edited.is_empty() || !self.is_batch() {
            return;
        }
        let uris: Vec<_> = edited.iter().map(|path| uri(path)).collect();
        match self.call_directly::<Files>(batch::DEPENDENTS, &json!({ "uris": uris })).await {
            Ok(files) => files.paths().for_each(|path| self.evaluated.drop_file(&path)),
            Err(_) => self.evaluated.clear(),
        }
    }

    pub(super) async fn edited(&self, paths: &[PathBuf]) -> Result<(), SessionError> {
        if paths.is_empty() {
            return Ok(());
        }
        tracing::debug!(root = %self.root, files = paths.len(), "the engine is told of edited files");
        let changes: Vec<_> = paths.iter().map(|path| json!({ "uri": uri(path), "type": 2 })).collect();
        self.notify(DidChangeWatchedFiles::METHOD, &json!({ "changes": changes })).await
    }

    pub(super) async fn hold_view(&self, alone: bool) -> View {
        let view = Arc::clone(&self.view);
        if alone { View::Alone(view.write_owned().await) } else { View::Shared(view.read_owned().await) }
    }

    /// Opens a document unless another turn has. Without that, the engine would tokenize it again for each request.
    pub(super) async fn open(&self, document: &Document) -> Result<(), SessionError> {
        // Held while the notice is sent, so that nobody asks before it.
        let mut open = self.open.lock().await;
        let users = open.entry(document.path.clone()).or_insert(0);
        if *users == 0 {
            let uri = uri(&document.path);
            let item = json!({ "uri": uri, "languageId": "python", "version": 1, "text": &*document.text });
            self.notify(DidOpenTextDocument::METHOD, &json!({ "textDocument": item })).await?;
            if document.overlay {
                // Only a change makes the engine infer anew what depends on this text.
                let change = json!({
                    "textDocument": { "uri": uri, "version": 2 },
                    "contentChanges": [{ "text": &*document.text }],
                });
                self.notify(DidChangeTextDocument::METHOD, &change).await?;
            }
        }
        *users += 1;
        Ok(())
    }

    pub(super) async fn close(&self, document: &Document) -> Result<(), SessionError> {
        let mut open = self.open.lock().await;
        let Some(users) = open.get_mut(&document.path) else { return Ok(()) };
        *users -= 1;
        if *users > 0 {
            return Ok(());
        }
        open.remove(&document.path);
        let identifier = json!({ "textDocument": { "uri": uri(&document.path) } });
        self.notify(DidCloseTextDocument::METHOD, &identifier).await
    }
}

/// A hold on the engine's view, until it is dropped.
#[expect(dead_code, reason = "held for its end alone")]
pub(super) enum View {
    Shared(OwnedRwLockReadGuard<()>),
    Alone(OwnedRwLockWriteGuard<()>),
}

pub(super) async fn is_on_disk(document: &Document) -> bool {
    tokio::fs::read(&document.path).await.is_ok_and(|bytes| bytes == document.text.as_bytes())
}
