//! What every call has: a request id, a deadline, a place in the drain, and one line in the log.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request, Response, Status};
use tracing::{Instrument as _, Span};

use super::Services;
use crate::export::{FileError, FileExport};
use crate::model::{InferredType, Outcome};
use crate::snapshot::Recorded;

/// The metadata key of the request id, both ways.
const REQUEST_ID: &str = "x-request-id";
/// The longest request id taken over from a caller.
const MAX_REQUEST_ID: usize = 128;
/// A call ends this much before its caller's clock does, so that the answer says why.
const MARGIN: Duration = Duration::from_millis(10);

/// One call, from its first message to its last. Dropped unfinished, it is logged as cancelled by its caller.
#[derive(Debug)]
pub(super) struct Call {
    method: &'static str,
    id: String,
    span: Span,
    begun: Instant,
    deadline: Option<Instant>,
    abandoned: CancellationToken,
    /// What the line in the log will say of the files.
    pub(super) tally: Tally,
    /// The project as the caller named it.
    pub(super) root: String,
    code: Option<Code>,
    _under_way: TaskTrackerToken,
}

/// Outcomes, counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) files: u32,
    pub(super) failed_files: u32,
    pub(super) cached_files: u32,
    pub(super) locations: u64,
    pub(super) typed: u64,
    /// Time in which requests were with the engine.
    pub(super) engine: Duration,
    no_type: u64,
    invalid: u64,
    failed: u64,
}

impl Tally {
    pub(super) fn add(&mut self, result: Result<&FileExport, &FileError>) {
        self.files += 1;
        let Ok(file) = result else {
            self.failed_files += 1;
            return;
        };
        self.cached_files += u32::from(file.cached);
        self.engine += file.engine_elapsed;
        self.add_types(&file.file.types);
    }

    /// A file that is read from a snapshot; none where it is damaged.
    pub(super) fn add_recorded(&mut self, recorded: Option<&Recorded>) {
        self.files += 1;
        match recorded {
            Some(Recorded::Types(file)) => {
                self.cached_files += 1;
                self.add_types(&file.types);
            }
            Some(Recorded::Failed(_)) | None => self.failed_files += 1,
        }
    }

    pub(super) fn add_types(&mut self, types: &[InferredType]) {
        for inferred in types {
            self.locations += 1;
            match inferred.outcome {
                Outcome::Typed => self.typed += 1,
                Outcome::NoType => self.no_type += 1,
                Outcome::InvalidLocation => self.invalid += 1,
                Outcome::Failed => self.failed += 1,
            }
        }
    }
}

impl Call {
    /// Begins a call.
    ///
    /// # Errors
    /// `UNAVAILABLE` where the server is stopping.
    pub(super) fn begin<T>(
        services: &Services,
        method: &'static str,
        request: &Request<T>,
    ) -> Result<Self, Box<Status>> {
        if services.draining.is_cancelled() {
            return Err(Box::new(Status::unavailable("the server is stopping; ask another, or later")));
        }
        let id = request_id(request.metadata());
        let begun = Instant::now();
        Ok(Self {
            method,
            span: tracing::info_span!("call", request_id = id),
            id,
            begun,
            deadline: timeout(request.metadata())
                .map(|timeout| begun + timeout.saturating_sub(MARGIN.min(timeout / 10))),
            abandoned: services.abandoned.clone(),
            tally: Tally::default(),
            root: String::new(),
            code: None,
            _under_way: services.calls.token(),
        })
    }

    /// In which the call's work is logged.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Runs the call's work within its deadline. Where that passes, the work is dropped, which cancels it.
    ///
    /// # Errors
    /// The work's own, `DEADLINE_EXCEEDED`, or `UNAVAILABLE` where a stopping server waits no longer.
    pub(super) fn within_deadline<T>(
        &self,
        work: impl Future<Output = Result<T, Status>>,
    ) -> impl Future<Output = Result<T, Status>> {
        let (begun, deadline, abandoned) = (self.begun, self.deadline, self.abandoned.clone());
        let timed = async move {
            let over = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                result = work => result,
                () = over => Err(Status::deadline_exceeded(format!(
                    "the call's time was up after {} ms",
                    begun.elapsed().as_millis()
                ))),
                () = abandoned.cancelled() => Err(Status::unavailable("the server is stopping")),
            }
        };
        timed.instrument(self.span.clone())
    }

    /// Ends the call: writes its line, and gives the answer the request id.
    pub(super) fn finish<T>(mut self, result: Result<T, Status>) -> Result<Response<T>, Status> {
        let id = MetadataValue::try_from(&self.id).ok();
        match result {
            Ok(message) => {
                self.code = Some(Code::Ok);
                let mut response = Response::new(message);
                if let Some(id) = id {
                    response.metadata_mut().insert(REQUEST_ID, id);
                }
                Ok(response)
            }
            Err(mut status) => {
                self.code = Some(status.code());
                if let Some(id) = id {
                    status.metadata_mut().insert(REQUEST_ID, id);
                }
                Err(status)
            }
        }
    }

    /// The same for a stream's last message.
    pub(super) fn finish_stream(mut self, code: Code) {
        self.code = Some(code);
    }

    /// Runs a stream's work within the call's deadline, and no longer than the stream has a reader.
    ///
    /// # Errors
    /// As [`Call::within_deadline`], and `CANCELLED` where the reader has gone.
    pub(super) fn while_read<M, T>(
        &self,
        sender: &mpsc::Sender<Result<M, Status>>,
        work: impl Future<Output = Result<T, Status>>,
    ) -> impl Future<Output = Result<T, Status>> {
        self.within_deadline(async move {
            tokio::select! {
                // Else it would be noticed only with the next message.
                () = sender.closed() => Err(Status::cancelled("the caller has gone")),
                result = work => result,
            }
        })
    }

    /// Ends a stream with its last word.
    pub(super) async fn end_stream<M>(self, sender: &mpsc::Sender<Result<M, Status>>, result: Result<(), Status>) {
        let code = result.as_ref().map_or_else(Status::code, |()| Code::Ok);
        if let Err(status) = result {
            let _ = sender.send(Err(status)).await;
        }
        self.finish_stream(code);
    }

    /// The request id, for a stream's first metadata.
    pub(super) fn stamp<T>(&self, response: &mut Response<T>) {
        if let Ok(id) = MetadataValue::try_from(&self.id) {
            response.metadata_mut().insert(REQUEST_ID, id);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Tally { files, failed_files, cached_files, locations, typed, engine, no_type, invalid, failed } =
            self.tally;
        let code = self.code.unwrap_or(Code::Cancelled);
        let _entered = self.span.enter();
        tracing::info!(
            method = self.method,
            root = self.root,
            code = ?code,
            files,
            failed_files,
            cached_files,
            locations,
            typed,
            no_type,
            invalid,
            failed,
            engine_milliseconds = engine.as_secs_f64() * 1000.0,
            milliseconds = self.begun.elapsed().as_secs_f64() * 1000.0,
            "call"
        );
    }
}

fn request_id(metadata: &MetadataMap) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let given = metadata.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let usable = |id: &&str| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    given
        .filter(usable)
        .map_or_else(|| format!("{:x}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)), str::to_owned)
}

/// `grpc-timeout`: up to eight digits and a unit.
fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grpc_timeouts() {
        let read = |text: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", MetadataValue::from_static(text));
            timeout(&metadata)
        };
        assert_eq!(read("100m"), Some(Duration::from_millis(100)));
        assert_eq!(read("2S"), Some(Duration::from_secs(2)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "S", "1", "-1S", "1x", "123456789S"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(timeout(&MetadataMap::new()), None);
    }

    #[test]
    fn takes_over_a_usable_request_id() {
        let read = |text: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert(REQUEST_ID, MetadataValue::from_static(text));
            request_id(&metadata)
        };
        assert_eq!(read("abc-123"), "abc-123");
        assert_ne!(read("two words"), "two words");
        assert_ne!(request_id(&MetadataMap::new()), request_id(&MetadataMap::new()));
    }
}
