//! A store that is opened anew as often as it takes: a database may be away when the program starts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Location, Store, StoreError};

/// How long after a failure the next attempt is made, so that not every call waits for a database that is away.
const PAUSE: Duration = Duration::from_secs(5);

/// How long one line of the log stands for all of its kind.
const SILENCE: Duration = Duration::from_secs(60);

/// Where a store is, and the store once it was opened. Clones share it.
#[derive(Clone, Debug)]
pub struct Keeper(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    location: Location,
    max_bytes: Option<u64>,
    state: Mutex<State>,
    /// When its trouble was last logged.
    warned: std::sync::Mutex<Option<Instant>>,
}

#[derive(Debug)]
enum State {
    Open(Store),
    /// What the last attempt came to, and when.
    Failed(String, Instant),
}

impl Keeper {
    /// Opens the store. Where its database is away, or its disk is full, that is logged, and tried again when it is
    /// next asked for.
    ///
    /// # Errors
    /// What does not pass by itself: [`StoreError::Newer`], [`StoreError::Corrupt`] and [`StoreError::Invalid`].
    pub async fn open(location: Location, max_bytes: Option<u64>) -> Result<Self, StoreError> {
        let state = match Store::open(&location, max_bytes).await {
            Ok(store) => State::Open(store),
            Err(error @ (StoreError::Unavailable(_) | StoreError::Full(_))) => {
                tracing::warn!(%error, "nothing is kept until the store can be opened");
                State::Failed(error.to_string(), Instant::now())
            }
            Err(error) => return Err(error),
        };
        Ok(Self(Arc::new(Inner { location, max_bytes, state: Mutex::new(state), warned: std::sync::Mutex::default() })))
    }

    /// The store.
    ///
    /// # Errors
    /// Those of [`Store::open`], where it was never open so far.
    ///
    /// # Cancel safety
    /// Nothing is lost when dropped.
    pub async fn store(&self) -> Result<Store, StoreError> {
        let Inner { location, max_bytes, state, .. } = &*self.0;
        let mut state = state.lock().await;
        match &*state {
            State::Open(store) => return Ok(store.clone()),
            State::Failed(reason, when) if when.elapsed() < PAUSE => {
                return Err(StoreError::Unavailable(reason.clone()));
            }
            State::Failed(..) => {}
        }
        match Store::open(location, *max_bytes).await {
            Ok(store) => {
                tracing::info!("the store was opened");
                *state = State::Open(store.clone());
                Ok(store)
            }
            Err(error) => {
                *state = State::Failed(error.to_string(), Instant::now());
                Err(error)
            }
        }
    }

    /// Logs that the store fails those who can do without it; now and then, since each of their calls finds that out.
    pub fn warn(&self, error: &StoreError) {
        let mut warned = self.0.warned.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if warned.is_none_or(|warned| warned.elapsed() >= SILENCE) {
            *warned = Some(Instant::now());
            tracing::warn!(%error, "the store fails: engines are asked for what is kept, and no more is kept");
        }
    }

    /// Closes what is open.
    pub async fn close(&self) {
        if let State::Open(store) = &*self.0.state.lock().await {
            store.close().await;
        }
    }
}
