//! Keeping what engines told, beside the calls that asked: their answers do not wait for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Look, Results, Sought};
use crate::pyright::batch::Evaluated;
use crate::pyright::session::Session;
use crate::store::StoreError;

/// Results that wait to be kept; more make those who bring them wait.
pub(super) const WAITING: usize = 32;
/// How long they wait for more to be kept with them.
const GATHER: Duration = Duration::from_millis(300);

/// How often it is tried again to keep results of a project that changes meanwhile; they are then told anew some time.
const MAX_CHANGES: u32 = 5;

/// What an engine told of a file.
#[derive(Debug)]
pub struct Told {
    /// A look at the project before it was asked.
    pub look: Arc<Look>,
    /// The file.
    pub path: PathBuf,
    /// What was told.
    pub evaluated: Arc<Evaluated>,
    /// The engine, which can tell what files import.
    pub engine: Arc<Session>,
}

impl Results {
    /// Keeps what comes, until there is a word to stop; what has come by then is still kept.
    pub(super) async fn keep_all(self: Arc<Self>, mut told: mpsc::Receiver<Told>, stop: CancellationToken) {
        let mut some = Vec::with_capacity(WAITING);
        loop {
            // Some at a time, since what they depend on is largely the same.
            let gathered = tokio::time::sleep(GATHER);
            let mut gathered = std::pin::pin!(gathered);
            loop {
                tokio::select! {
                    () = stop.cancelled(), if !told.is_closed() => told.close(),
                    () = &mut gathered, if !some.is_empty() => break,
                    count = told.recv_many(&mut some, WAITING) => match count {
                        0 if some.is_empty() => return,
                        0 => break,
                        _ if some.len() >= WAITING => break,
                        _ => {}
                    }
                }
            }
            // Those of one call share its look.
            let mut looks: Vec<Vec<Told>> = Vec::new();
            for told in some.drain(..) {
                match looks.iter_mut().find(|others| Arc::ptr_eq(&others[0].look, &told.look)) {
                    Some(others) => others.push(told),
                    None => looks.push(vec![told]),
                }
            }
            for told in looks {
                if let Err(error) = self.keep(told).await {
                    self.keeper.warn(&error);
                }
            }
        }
    }

    /// Keeps what was told since one look, if all that it depends on is still as it was then.
    async fn keep(&self, told: Vec<Told>) -> Result<(), StoreError> {
        let Some(Told { look: before, engine, .. }) = told.first() else { return Ok(()) };
        // Whoever opened the project anew between the look and the engine's start did so for other answers.
        if engine.settings() != before.settings() {
            return Ok(());
        }
        let files: Vec<PathBuf> = told.iter().map(|told| told.path.clone()).collect();
        let with_sources = told.iter().any(|told| told.evaluated.extras().reach_sources());
        for _ in 0..MAX_CHANGES {
            let now = self.look_again(before).await;
            let (touched, is_other) = now.differences(before);
            if is_other {
                return Ok(());
            }
            let spoilt = touched.into_iter().collect();
            let sought = Sought { files: &files, with_sources, spoilt: &spoilt };
            let Some(keys) = self.keys(&now, sought, Some(engine)).await? else { continue };
            // The bytes were read after the look.
            if !now.is_same(&*self.look_again(before).await) {
                continue;
            }
            let contents = told.iter().filter_map(|Told { path, evaluated, .. }| {
                let key = keys.of(path, evaluated.extras())?;
                (keys.digest(path)? == evaluated.digest()).then_some(())?;
                Some((key, Self::write(&now, evaluated)?))
            });
            return self.keeper().store().await?.put(contents.collect()).await;
        }
        Ok(())
    }
}
