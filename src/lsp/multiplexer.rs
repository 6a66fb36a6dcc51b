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

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use serde_json::{Value, json};
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
    use tower::limit::ConcurrencyLimit;
    use tower::{Service as _, ServiceExt as _};
    use tower_test::mock::Spawn;

    use super::*;

    const STALL: Duration = Duration::from_secs(60);
    /// Time is paused in these tests: it passes only where everybody waits, so that nothing more can come.
    const NOTHING_MORE: Duration = Duration::from_secs(1);

    /// The language server's end of the pipes.
    struct Peer {
        reader: FramedRead<DuplexStream, Codec>,
        writer: DuplexStream,
        notifications: mpsc::UnboundedReceiver<String>,
        ended: oneshot::Receiver<Ended>,
    }

    impl Peer {
        async fn hear(&mut self) -> Message {
            self.reader.next().await.unwrap().unwrap()
        }

        async fn hears_nothing_more(&mut self) -> bool {
            tokio::time::timeout(NOTHING_MORE, self.reader.next()).await.is_err()
        }

        async fn say(&mut self, message: Value) {
            let body = message.to_string();
            let frame = format!("Content-Length: {}\r\n\r\n{body}", body.len());
            self.writer.write_all(frame.as_bytes()).await.unwrap();
        }

        async fn answer(&mut self, asked: &Message, result: impl Into<Value>) {
            self.say(json!({ "jsonrpc": "2.0", "id": asked.id, "result": result.into() })).await;
        }
    }

    struct Listener(mpsc::UnboundedSender<String>);

    impl Client for Listener {
        fn request(&mut self, method: &str, params: &str) -> Option<Value> {
            (method == "known").then(|| json!({ "asked": params }))
        }

        fn notification(&mut self, method: &str, _params: &str) {
            let _ = self.0.send(method.to_owned());
        }
    }

    fn connect(pipe: usize, cancellation_folder: Option<PathBuf>) -> (Multiplexer, Peer) {
        let (input, writer) = duplex(pipe);
        let (reader, output) = duplex(pipe);
        let (heard, notifications) = mpsc::unbounded_channel();
        let (sender, ended) = oneshot::channel();
        let options = Options { max_message: 1 << 20, stall: STALL, cancellation_folder };
        let multiplexer = Multiplexer::start(input, output, Listener(heard), options, &TaskTracker::new(), sender);
        let reader = FramedRead::new(reader, Codec::new(1 << 20));
        (multiplexer, Peer { reader, writer, notifications, ended })
    }

    fn asking(params: impl Into<Value>, cancelled: &CancellationToken) -> Call {
        let params = RawValue::from_string(params.into().to_string()).unwrap();
        Call { method: "ask", params, cancelled: cancelled.clone() }
    }

    fn ask(params: impl Into<Value>) -> Call {
        asking(params, &CancellationToken::new())
    }

    /// Makes the call in a task, so that it goes on while the test speaks for the peer.
    fn start<S>(service: &S, call: Call) -> tokio::task::JoinHandle<Result<Box<RawValue>, CallError>>
    where
        S: tower::Service<Call, Response = Box<RawValue>, Error = CallError, Future: Send> + Clone + Send + 'static,
    {
        let service = service.clone();
        TaskTracker::new().spawn(service.oneshot(call))
    }

    fn params(message: &Message) -> &str {
        message.params.as_deref().unwrap().get()
    }

    #[tokio::test(start_paused = true)]
    async fn answers_out_of_order_reach_their_callers() {
        let (multiplexer, mut peer) = connect(1 << 16, None);
        let calls: Vec<_> = (0..20).map(|number| start(&multiplexer, ask(number))).collect();
        let mut asked = Vec::new();
        for _ in 0..20 {
            asked.push(peer.hear().await);
        }
        for message in asked.iter().rev() {
            peer.answer(message, format!("of {}", params(message))).await;
        }
        for (number, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap().unwrap().get(), format!("\"of {number}\""));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_peers_errors_and_strays_are_told_apart() {
        let (multiplexer, mut peer) = connect(1 << 16, None);
        let (first, second) = (start(&multiplexer, ask(1)), peer.hear().await);
        peer.say(json!({ "jsonrpc": "2.0", "id": 99, "result": 1 })).await;
        peer.say(json!({ "jsonrpc": "2.0", "id": "1", "result": 1 })).await;
        peer.say(json!({ "jsonrpc": "2.0" })).await;
        peer.say(json!({ "jsonrpc": "2.0", "id": second.id, "error": { "code": -5, "message": "no" } })).await;
        let error = first.await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::Answered(ResponseError { code: -5, .. })), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_peers_own_requests_are_answered() {
        let (_multiplexer, mut peer) = connect(1 << 16, None);
        peer.say(json!({ "jsonrpc": "2.0", "id": "a", "method": "known", "params": [1] })).await;
        peer.say(json!({ "jsonrpc": "2.0", "id": 1, "method": "unheard/of" })).await;
        peer.say(json!({ "jsonrpc": "2.0", "method": "news" })).await;
        let known = peer.hear().await;
        assert_eq!((known.id, known.result.unwrap().get()), (Some("a".into()), r#"{"asked":"[1]"}"#));
        let unknown = peer.hear().await;
        assert_eq!((unknown.id, unknown.error.unwrap().code), (Some(1.into()), METHOD_NOT_FOUND));
        assert_eq!(peer.notifications.recv().await.unwrap(), "news");
        assert!(peer.hears_nothing_more().await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_notification_comes_after_the_calls_before_it() {
        let (mut multiplexer, mut peer) = connect(1 << 16, None);
        let call = multiplexer.ready().await.unwrap().call(ask(1));
        multiplexer.notify("told", &json!({})).await.unwrap();
        assert_eq!(peer.hear().await.method.unwrap(), "ask");
        assert_eq!(peer.hear().await.method.unwrap(), "told");
        drop(call);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_call_ends_once_the_peer_has_answered() {
        let folder = tempfile::tempdir().unwrap();
        let (multiplexer, mut peer) = connect(1 << 16, Some(folder.path().to_owned()));
        let token = CancellationToken::new();
        let mut call = start(&multiplexer, asking(1, &token));
        let asked = peer.hear().await;
        let file = folder.path().join(format!("cancellation-{}.tmp", asked.id.as_ref().unwrap()));
        assert!(!file.exists());
        token.cancel();
        let told = peer.hear().await;
        assert_eq!((told.id.as_ref(), told.method.as_deref()), (None, Some("$/cancelRequest")));
        assert_eq!(params(&told), format!(r#"{{"id":{}}}"#, asked.id.as_ref().unwrap()));
        assert!(file.exists());
        token.cancel();
        assert!(peer.hears_nothing_more().await, "told once");
        assert!(poll!(&mut call).is_pending());

        peer.answer(&asked, "late").await;
        assert!(matches!(call.await.unwrap(), Err(CallError::Cancelled)));
        assert!(!file.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_cancelled_before_it_is_made_is_never_sent() {
        let (multiplexer, mut peer) = connect(1 << 16, None);
        let token = CancellationToken::new();
        token.cancel();
        assert!(matches!(start(&multiplexer, asking(1, &token)).await.unwrap(), Err(CallError::Cancelled)));
        assert!(peer.hears_nothing_more().await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_to_a_caller_who_left_harms_nobody() {
        let (multiplexer, mut peer) = connect(1 << 16, None);
        let token = CancellationToken::new();
        let gone = start(&multiplexer, asking("gone", &token));
        let asked = peer.hear().await;
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        let stays = start(&multiplexer, ask("stays"));
        let other = peer.hear().await;
        peer.answer(&asked, "to nobody").await;
        peer.answer(&other, "here").await;
        assert_eq!(stays.await.unwrap().unwrap().get(), "\"here\"");
        token.cancel();
        assert!(peer.hears_nothing_more().await, "what was answered can't be cancelled");
    }

    /// Has two calls wait, ends the connection by `end`, and gives why it ended.
    async fn ended_by(end: impl AsyncFnOnce(&mut Peer)) -> Ended {
        let (multiplexer, mut peer) = connect(1 << 16, None);
        let token = CancellationToken::new();
        let calls = [start(&multiplexer, ask(1)), start(&multiplexer, asking(2, &token))];
        peer.hear().await;
        peer.hear().await;
        token.cancel();
        peer.hear().await;
        end(&mut peer).await;
        for call in calls {
            assert!(matches!(call.await.unwrap(), Err(CallError::Disconnected)));
        }
        let later = start(&multiplexer, ask(3)).await.unwrap();
        assert!(matches!(later, Err(CallError::Disconnected)), "after the end");
        assert!(matches!(multiplexer.clone().notify("told", &1).await, Err(CallError::Disconnected)));
        peer.ended.await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_wait_fail_when_the_connection_ends() {
        let garbage = ended_by(async |peer| peer.writer.write_all(b"Segmentation fault\r\n\r\n").await.unwrap()).await;
        assert!(matches!(garbage, Ended::Frame(FrameError::Header)), "{garbage}");
        let huge = ended_by(async |peer| {
            peer.writer.write_all(b"Content-Length: 99999999999\r\n\r\n").await.unwrap();
        })
        .await;
        assert!(matches!(huge, Ended::Frame(FrameError::TooLong { .. })), "{huge}");
        let half = ended_by(async |peer| {
            peer.writer.write_all(b"Content-Length: 20\r\n\r\n{\"id\":").await.unwrap();
            peer.writer.shutdown().await.unwrap();
        })
        .await;
        assert!(matches!(half, Ended::Frame(FrameError::Io(_))), "{half}");
        let closed = ended_by(async |peer| peer.writer.shutdown().await.unwrap()).await;
        assert!(matches!(closed, Ended::Closed), "{closed}");
        let stalled = ended_by(async |_| ()).await;
        assert!(matches!(stalled, Ended::Stalled(STALL)), "{stalled}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_owes_nothing_or_says_something_has_not_stalled() {
        let (multiplexer, mut peer) = connect(1 << 16, None);
        tokio::time::sleep(STALL * 3).await;
        let call = start(&multiplexer, ask(1));
        let asked = peer.hear().await;
        for _ in 0..3 {
            tokio::time::sleep(STALL.mul_f64(0.99)).await;
            peer.say(json!({ "jsonrpc": "2.0", "method": "busy" })).await;
        }
        tokio::time::sleep(STALL / 2).await;
        peer.answer(&asked, "slow").await;
        assert_eq!(call.await.unwrap().unwrap().get(), "\"slow\"");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_read_while_the_peer_reads_nothing() {
        let (multiplexer, mut peer) = connect(256, None);
        let first = start(&multiplexer, ask("first"));
        let asked = peer.hear().await;
        // Far more than the pipe, the channels and the outbox hold.
        let padding = "x".repeat(200);
        let _stuck: Vec<_> = (0..1000).map(|_| start(&multiplexer, ask(padding.clone()))).collect();
        tokio::time::sleep(NOTHING_MORE).await;
        peer.answer(&asked, "here").await;
        peer.say(json!({ "jsonrpc": "2.0", "method": "news" })).await;
        assert_eq!(first.await.unwrap().unwrap().get(), "\"here\"");
        assert_eq!(peer.notifications.recv().await.unwrap(), "news");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_asks_without_reading_is_given_up() {
        let (_multiplexer, mut peer) = connect(256, None);
        let frame = |number: usize| {
            let body = json!({ "jsonrpc": "2.0", "id": number, "method": "known" }).to_string();
            format!("Content-Length: {}\r\n\r\n{body}", body.len())
        };
        let (mut sent, most) = (0, 2 * (OUTBOX_ANSWERS + FRAMES));
        while sent < most && peer.writer.write_all(frame(sent).as_bytes()).await.is_ok() {
            sent += 1;
        }
        assert!((OUTBOX_ANSWERS..most).contains(&sent), "{sent}");
        assert!(matches!(peer.ended.await.unwrap(), Ended::Flooded));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_limit_are_under_way_and_first_come_is_first_served() {
        let (multiplexer, mut peer) = connect(1 << 16, None);
        let limited = ConcurrencyLimit::new(multiplexer, 2);
        let mut calls = VecDeque::new();
        for number in 0..6 {
            calls.push_back(start(&limited, ask(number)));
            // Each has its place in the queue before the next comes.
            tokio::task::yield_now().await;
        }
        let mut under_way = VecDeque::from([peer.hear().await, peer.hear().await]);
        for number in 0..6 {
            assert!(peer.hears_nothing_more().await, "with {number} answered");
            let asked = under_way.pop_front().unwrap();
            assert_eq!(params(&asked), number.to_string());
            peer.answer(&asked, number).await;
            assert_eq!(calls.pop_front().unwrap().await.unwrap().unwrap().get(), number.to_string());
            if number < 4 {
                under_way.push_back(peer.hear().await);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_call_keeps_its_permit_until_it_is_answered() {
        let (multiplexer, mut peer) = connect(1 << 16, None);
        let limited = ConcurrencyLimit::new(multiplexer, 1);
        let mut waiting = Spawn::new(limited.clone());
        let token = CancellationToken::new();
        let call = start(&limited, asking(1, &token));
        let asked = peer.hear().await;
        assert!(waiting.poll_ready().is_pending());
        token.cancel();
        assert_eq!(peer.hear().await.method.unwrap(), "$/cancelRequest");
        assert!(waiting.poll_ready().is_pending());
        peer.answer(&asked, Value::Null).await;
        assert!(matches!(call.await.unwrap(), Err(CallError::Cancelled)));
        assert!(waiting.is_woken());
        assert!(waiting.poll_ready().is_ready());
    }
}
