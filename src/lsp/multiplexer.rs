//! Many callers' requests over one language server's pipes, as a `tower::Service`.
//!
//! One task owns the table of what is pending; one task writes. Callers hold a bounded sender and get each
//! answer by a oneshot. How many requests may be under way at once is left to the layer in front.

use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::codec::{FramedRead, FramedWrite};
use tokio_util::sync::{CancellationToken, DropGuard, PollSender};
use tokio_util::task::TaskTracker;

use super::codec::{Codec, FrameError, Message, ResponseError};
use super::pending::Pending;

/// Commands that wait for the multiplexer's task.
const COMMANDS: usize = 64;
/// Frames that wait for the writer's task.
const FRAMES: usize = 64;
/// Frames that wait for a place among those; new commands are not taken while more wait.
const OUTBOX: usize = 64;
/// Answers to the server's own requests that may wait besides; a server that asks for more without reading is broken.
const OUTBOX_ANSWERS: usize = 4096;
/// JSON-RPC's "method not found".
const METHOD_NOT_FOUND: i64 = -32601;

/// One request to the language server.
#[derive(Debug)]
pub struct Call {
    /// The request's method.
    pub method: &'static str,
    /// Its parameters, as JSON.
    pub params: Box<RawValue>,
    /// When cancelled, the server is told to stop; the call ends once the server has answered.
    pub cancelled: CancellationToken,
}

/// Why a call has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The server answered with an error.
    #[error("the language server answered: {0}")]
    Answered(#[from] ResponseError),
    /// The caller's token was cancelled, and the server has answered since.
    #[error("the request was cancelled")]
    Cancelled,
    /// The connection ended before the server answered.
    #[error("the language server's connection ended before it answered")]
    Disconnected,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The server closed its output.
    #[error("it closed its output")]
    Closed,
    /// What it sent can't be read, or what it is sent can't be written.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// It asks for more than it reads.
    #[error("it sends requests without reading the answers")]
    Flooded,
    /// It owed answers, and sent nothing at all for too long.
    #[error("it sent nothing for {} s while it owed an answer", .0.as_secs())]
    Stalled(Duration),
}

/// What answers the server's own requests and hears its notifications. Called on the multiplexer's task: never blocks.
pub trait Client: Send + 'static {
    /// The result for a request of the server's; none where the method is not known.
    fn request(&mut self, method: &str, params: &str) -> Option<serde_json::Value>;
    /// Hears a notification.
    fn notification(&mut self, method: &str, params: &str);
}

/// How a connection is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// The longest message taken, in bytes.
    pub max_message: usize,
    /// How long a server that owes an answer may be silent before it is given up.
    pub stall: Duration,
    /// Where a file named `cancellation-ID.tmp` tells a busy server that request ID was cancelled.
    pub cancellation_folder: Option<PathBuf>,
}

/// A handle on one connection; cheap to clone. The connection ends when the server's output does.
#[derive(Clone, Debug)]
pub struct Multiplexer {
    commands: PollSender<Command>,
}

#[derive(Debug)]
enum Command {
    Call(Call, Reply),
    Notify(Bytes),
}

impl Multiplexer {
    /// Starts the tasks that serve one connection, on `tracker`. `ended` gets why it ended, once.
    pub fn start(
        input: impl AsyncRead + Send + Unpin + 'static,
        output: impl AsyncWrite + Send + Unpin + 'static,
        client: impl Client,
        options: Options,
        tracker: &TaskTracker,
        ended: oneshot::Sender<Ended>,
    ) -> Self {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (frames, frame_receiver) = mpsc::channel(FRAMES);
        let max_message = options.max_message;
        let writer = tracker.spawn(write(output, frame_receiver, max_message));
        let actor = Actor {
            outbox: VecDeque::new(),
            pending: Pending::default(),
            cancellations: FuturesUnordered::new(),
            client,
            options,
        };
        tracker.spawn(async move {
            let reader = FramedRead::new(input, Codec::new(max_message));
            let why = actor.run(reader, receiver, frames).await;
            // The writer may be stuck on a pipe nobody reads.
            writer.abort();
            let _ = ended.send(why);
        });
        Self { commands: PollSender::new(commands) }
    }

    /// Sends a notification, after all calls made before it on this handle.
    ///
    /// # Errors
    /// [`CallError::Disconnected`] where the connection has ended.
    pub async fn notify(&mut self, method: &str, params: &impl Serialize) -> Result<(), CallError> {
        let body = body(&Outgoing { jsonrpc: "2.0", id: None, method, params });
        std::future::poll_fn(|context| self.commands.poll_reserve(context))
            .await
            .map_err(|_| CallError::Disconnected)?;
        self.commands.send_item(Command::Notify(body)).map_err(|_| CallError::Disconnected)
    }
}

impl tower::Service<Call> for Multiplexer {
    type Response = Box<RawValue>;
    type Error = CallError;
    type Future = Pin<Box<dyn Future<Output = Result<Box<RawValue>, CallError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        self.commands.poll_reserve(context).map_err(|_| CallError::Disconnected)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let (sender, receiver) = oneshot::channel();
        let sent = self.commands.send_item(Command::Call(call, sender));
        Box::pin(async move {
            sent.map_err(|_| CallError::Disconnected)?;
            receiver.await.unwrap_or(Err(CallError::Disconnected))
        })
    }
}

#[derive(Serialize)]
struct Outgoing<'a, P> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    method: &'a str,
    params: P,
}

#[derive(Serialize)]
struct Answer<'a> {
    jsonrpc: &'static str,
    id: &'a serde_json::Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ResponseError>,
}

fn body(message: &impl Serialize) -> Bytes {
    serde_json::to_vec(message).unwrap_or_default().into()
}

async fn write(
    output: impl AsyncWrite + Send + Unpin,
    mut frames: mpsc::Receiver<Bytes>,
    max_message: usize,
) -> Result<(), FrameError> {
    let mut writer = FramedWrite::new(output, Codec::new(max_message));
    while let Some(frame) = frames.recv().await {
        writer.feed(frame).await?;
        while let Ok(frame) = frames.try_recv() {
            writer.feed(frame).await?;
        }
        writer.flush().await?;
    }
    Ok(())
}

type Reply = oneshot::Sender<Result<Box<RawValue>, CallError>>;

struct Waiter {
    reply: Reply,
    /// Ends the watch over the caller's token once the answer is there.
    _answered: DropGuard,
}

enum Step<'a> {
    Heard(Option<Result<Message, FrameError>>),
    Write(Option<mpsc::Permit<'a, Bytes>>),
    Send(Command),
    Cancel(Option<u64>),
    Stalled,
}

struct Actor<C> {
    outbox: VecDeque<Bytes>,
    pending: Pending<Waiter>,
    /// For each pending request: its id once the caller cancels, none once it is answered.
    cancellations: FuturesUnordered<Pin<Box<dyn Future<Output = Option<u64>> + Send>>>,
    client: C,
    options: Options,
}

impl<C: Client> Actor<C> {
    async fn run(
        mut self,
        mut reader: FramedRead<impl AsyncRead + Unpin, Codec>,
        mut commands: mpsc::Receiver<Command>,
        frames: mpsc::Sender<Bytes>,
    ) -> Ended {
        let stall = self.options.stall;
        let mut heard = Instant::now();
        loop {
            let step = tokio::select! {
                message = reader.next() => Step::Heard(message),
                permit = frames.reserve(), if !self.outbox.is_empty() => Step::Write(permit.ok()),
                // All handles gone is no end: the server is asked to exit through one of them.
                Some(command) = commands.recv(), if self.outbox.len() < OUTBOX => Step::Send(command),
                Some(cancelled) = self.cancellations.next(), if !self.cancellations.is_empty() => Step::Cancel(cancelled),
                () = tokio::time::sleep_until(heard + stall), if !self.pending.is_empty() => Step::Stalled,
            };
            match step {
                Step::Heard(Some(Ok(message))) => {
                    heard = Instant::now();
                    self.receive(message);
                    if self.outbox.len() > OUTBOX_ANSWERS {
                        return self.end(Ended::Flooded);
                    }
                }
                Step::Heard(Some(Err(error))) => return self.end(error.into()),
                Step::Heard(None) | Step::Write(None) => return self.end(Ended::Closed),
                Step::Write(Some(permit)) => {
                    if let Some(frame) = self.outbox.pop_front() {
                        permit.send(frame);
                    }
                }
                Step::Send(command) => {
                    if self.pending.is_empty() {
                        heard = Instant::now();
                    }
                    self.send(command);
                }
                Step::Cancel(Some(id)) => self.cancel(id),
                Step::Cancel(None) => {}
                Step::Stalled => return self.end(Ended::Stalled(stall)),
            }
        }
    }

    fn send(&mut self, command: Command) {
        match command {
            Command::Notify(frame) => self.outbox.push_back(frame),
            Command::Call(call, reply) => {
                if call.cancelled.is_cancelled() {
                    let _ = reply.send(Err(CallError::Cancelled));
                    return;
                }
                let answered = CancellationToken::new();
                let id = self.pending.insert(Waiter { reply, _answered: answered.clone().drop_guard() });
                self.outbox.push_back(body(&Outgoing {
                    jsonrpc: "2.0",
                    id: Some(id),
                    method: call.method,
                    params: call.params,
                }));
                self.cancellations.push(Box::pin(async move {
                    tokio::select! {
                        () = call.cancelled.cancelled() => Some(id),
                        () = answered.cancelled() => None,
                    }
                }));
            }
        }
    }

    fn receive(&mut self, message: Message) {
        let params = message.params.as_deref().map_or("null", RawValue::get);
        match (message.method, message.id) {
            (Some(method), Some(id)) => {
                let result = self.client.request(&method, params);
                let error = result
                    .is_none()
                    .then(|| ResponseError { code: METHOD_NOT_FOUND, message: format!("{method} is not served here") });
                self.outbox.push_back(body(&Answer { jsonrpc: "2.0", id: &id, result, error }));
            }
            (Some(method), None) => self.client.notification(&method, params),
            (None, Some(id)) => {
                let Some(answered) = id.as_u64().and_then(|id| self.pending.answer(id)) else {
                    tracing::warn!(%id, "the language server answered a request that nobody made");
                    return;
                };
                if answered.cancelled {
                    self.cancellation_file(&id.to_string(), std::fs::remove_file);
                }
                let _ = answered.waiter.reply.send(match message.error {
                    _ if answered.cancelled => Err(CallError::Cancelled),
                    Some(error) => Err(error.into()),
                    None => Ok(message.result.unwrap_or_else(|| RawValue::NULL.to_owned())),
                });
            }
            (None, None) => tracing::warn!("the language server sent a message with neither method nor id"),
        }
    }

    fn cancel(&mut self, id: u64) {
        if !self.pending.cancel(id) {
            return;
        }
        // The message is read only when the server is idle; the file is looked for while it works.
        self.cancellation_file(&id.to_string(), |file| std::fs::write(file, ""));
        let params = serde_json::json!({ "id": id });
        self.outbox.push_back(body(&Outgoing { jsonrpc: "2.0", id: None, method: "$/cancelRequest", params }));
    }

    fn cancellation_file(&self, id: &str, act: impl FnOnce(PathBuf) -> std::io::Result<()>) {
        if let Some(folder) = &self.options.cancellation_folder
            && let Err(error) = act(folder.join(format!("cancellation-{id}.tmp")))
        {
            tracing::debug!(%error, "a cancellation file could not be made or removed");
        }
    }

    fn end(mut self, why: Ended) -> Ended {
        for waiter in self.pending.drain() {
            let _ = waiter.reply.send(Err(CallError::Disconnected));
        }
        why
    }
}
