//! Work that would hold up the asynchronous threads, on threads of its own.

/// Does it, and returns what it came to; its panic goes on in the caller.
///
/// # Cancel safety
/// Dropped, what was begun is done nonetheless.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime ends, and with it the caller.
        Err(Err(_)) => std::future::pending().await,
    }
}
