//! One project's life: starting, ready, restarting after a crash, broken, stopping.
//!
//! A task of its own owns the process. Callers hold [`Lease`]s on the session that is ready at the time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::install::Engine;
use super::process::resident_bytes;
use super::session::{Limits, Session, SessionError, Start};
use crate::model::{ProjectRoot, ProjectSettings};
use crate::workspace::paths::AllowedRoots;
use crate::workspace::watch::Watcher;

/// After this many failures in a row, those who wait are told, and the next attempt is delayed.
const FAILURES: u32 = 3;
/// A process that lived this long was no failure to start.
const LIVED: Duration = Duration::from_secs(10);
/// The first delay after a failure; it doubles up to the longest.
const FIRST_DELAY: Duration = Duration::from_millis(200);
/// The longest delay.
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// What all projects' engines have in common.
#[derive(Debug)]
pub struct Common {
    /// What to run.
    pub engine: Engine,
    /// How.
    pub limits: Limits,
    /// Where paths may lead.
    pub roots: Arc<AllowedRoots>,
    /// Tells of changes.
    pub watcher: Arc<Watcher>,
    /// An engine that no call used for this long is stopped.
    pub idle: Duration,
    /// Calls that one project may have at once.
    pub max_calls: usize,
    /// Runs all tasks.
    pub tracker: TaskTracker,
}

/// Where a project is in its life.
#[derive(Clone, Debug)]
pub enum State {
    /// The first process is on its way.
    Starting,
    /// Calls are answered.
    Ready(Arc<Session>),
    /// The process died, or had to be replaced; another is on its way.
    Restarting,
    /// It keeps failing.
    Broken {
        /// The last failure.
        reason: String,
        /// When it is tried again.
        until: Instant,
    },
    /// No new calls are taken; it ends once the present ones have.
    Stopping,
    /// The process is gone.
    Stopped,
}

/// Why there is no lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The process keeps failing.
    #[error("Pyright keeps failing for this project: {reason}")]
    Broken {
        /// The last failure.
        reason: String,
        /// When it is tried again.
        retry_after: Duration,
    },
    /// Too many calls on this project.
    #[error("{0} calls on this project are under way already, which is the most it takes at once")]
    Overloaded(usize),
    /// The project is being closed; asking again opens it anew.
    #[error("the project is being closed")]
    Closing,
}

/// One call's hold on a project. While it is held, the project is not idle and is not stopped.
#[derive(Debug)]
pub struct Lease {
    supervisor: Arc<Supervisor>,
}

/// What is known of a project, for a list.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The project.
    pub root: ProjectRoot,
    /// Where it is in its life.
    pub state: State,
    /// As it was opened.
    pub settings: ProjectSettings,
    /// Of the engine.
    pub version: String,
    /// The process's id; none while there is none.
    pub process: Option<u32>,
    /// The process's memory.
    pub resident_bytes: Option<u64>,
    /// Counts up with each process.
    pub generation: u64,
    /// When a call last began or ended.
    pub last_used: SystemTime,
}

/// A handle on one project's task.
#[derive(Debug)]
pub struct Supervisor {
    root: ProjectRoot,
    settings: ProjectSettings,
    common: Arc<Common>,
    state: watch::Receiver<State>,
    usage: Mutex<Usage>,
    /// Changes whenever a lease ends.
    released: watch::Sender<()>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Usage {
    leases: usize,
    closing: bool,
    last_used: Instant,
    last_used_at: SystemTime,
    process: Option<u32>,
    generation: u64,
}

impl Supervisor {
    /// Starts the project's task. There were so many `generations` of the project's process before.
    #[must_use]
    pub fn start(root: ProjectRoot, settings: ProjectSettings, generations: u64, common: Arc<Common>) -> Arc<Self> {
        let (sender, state) = watch::channel(State::Starting);
        let usage = Usage {
            leases: 0,
            closing: false,
            last_used: Instant::now(),
            last_used_at: SystemTime::now(),
            process: None,
            generation: generations,
        };
        let supervisor = Arc::new(Self {
            root,
            settings,
            state,
            usage: Mutex::new(usage),
            released: watch::Sender::new(()),
            stop: CancellationToken::new(),
            common,
        });
        supervisor.common.tracker.spawn(Life { supervisor: Arc::clone(&supervisor), state: sender }.run());
        supervisor
    }

    /// As it was opened.
    #[must_use]
    pub fn settings(&self) -> &ProjectSettings {
        &self.settings
    }

    /// Whether it takes no more calls.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.usage(|usage| usage.closing)
    }

    /// Whether its process is gone for good.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(*self.state.borrow(), State::Stopped)
    }

    /// Takes no more calls, lets the present ones end, and stops the process.
    pub fn close(&self) {
        self.usage(|usage| usage.closing = true);
        self.stop.cancel();
    }

    /// Returns once the process is gone.
    pub async fn closed(&self) {
        let _ = self.state.clone().wait_for(|state| matches!(state, State::Stopped)).await;
    }

    /// A hold on this project for one call.
    ///
    /// # Errors
    /// [`LeaseError::Overloaded`] and [`LeaseError::Closing`].
    pub fn lease(self: &Arc<Self>) -> Result<Lease, LeaseError> {
        let max = self.common.max_calls;
        self.usage(|usage| {
            if usage.closing {
                return Err(LeaseError::Closing);
            }
            if usage.leases >= max {
                return Err(LeaseError::Overloaded(max));
            }
            usage.leases += 1;
            usage.touch();
            Ok(Lease { supervisor: Arc::clone(self) })
        })
    }

    /// What is known of it.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let (process, generation, last_used) =
            self.usage(|usage| (usage.process, usage.generation, usage.last_used_at));
        Summary {
            root: self.root.clone(),
            state: self.state.borrow().clone(),
            settings: self.settings.clone(),
            version: self.common.engine.version.clone(),
            process,
            resident_bytes: process.and_then(resident_bytes),
            generation,
            last_used,
        }
    }

    fn usage<T>(&self, act: impl FnOnce(&mut Usage) -> T) -> T {
        act(&mut self.usage.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Usage {
    fn touch(&mut self) {
        self.last_used = Instant::now();
        self.last_used_at = SystemTime::now();
    }
}

impl Lease {
    /// The session that is ready, once one is. After a process died, that is its successor's.
    ///
    /// # Errors
    /// [`LeaseError::Broken`] where processes keep failing.
    ///
    /// # Cancel safety
    /// Nothing is lost when dropped.
    pub async fn session(&self) -> Result<Arc<Session>, LeaseError> {
        let mut state = self.supervisor.state.clone();
        let settled = state.wait_for(|state| match state {
            // Its successor is on its way otherwise.
            State::Ready(session) => session.is_usable(),
            State::Broken { .. } | State::Stopped => true,
            State::Starting | State::Restarting | State::Stopping => false,
        });
        match settled.await.as_deref() {
            Ok(State::Ready(session)) => Ok(Arc::clone(session)),
            Ok(State::Broken { reason, until }) => Err(LeaseError::Broken {
                reason: reason.clone(),
                retry_after: until.saturating_duration_since(Instant::now()),
            }),
            _ => Err(LeaseError::Closing),
        }
    }

    /// What is known of the project.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.supervisor.summary()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.supervisor.usage(|usage| {
            usage.leases -= 1;
            usage.touch();
        });
        self.supervisor.released.send_replace(());
    }
}

/// The task that owns the process.
struct Life {
    supervisor: Arc<Supervisor>,
    state: watch::Sender<State>,
}

/// Why a ready process's time was over.
enum Over {
    Stop,
    /// The project is another one by now; the process did nothing wrong.
    Outdated,
    /// A process that has served its callers was no failure to start, however short its life.
    Died {
        reason: String,
        served: bool,
    },
}

impl Life {
    async fn run(self) {
        let stop = self.supervisor.stop.clone();
        let mut failures = 0;
        loop {
            self.supervisor.usage(|usage| usage.generation += 1);
            let born = Instant::now();
            match self.live().await {
                Ok(Over::Stop) => break,
                Ok(Over::Outdated) => {
                    failures = 0;
                    self.state.send_replace(State::Restarting);
                    continue;
                }
                Ok(Over::Died { reason, served }) => {
                    tracing::warn!(root = %self.supervisor.root, %reason, "the engine is replaced");
                    failures = if served || born.elapsed() > LIVED { 0 } else { failures + 1 };
                    self.state.send_replace(State::Restarting);
                    if failures == 0 {
                        continue;
                    }
                    self.report(failures, reason);
                }
                Err(error) => {
                    tracing::error!(root = %self.supervisor.root, %error, "the engine did not start");
                    failures += 1;
                    self.report(failures, error.to_string());
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(delay(failures)) => {}
            }
        }
        self.state.send_replace(State::Stopped);
        tracing::info!(root = %self.supervisor.root, "the project is closed");
    }

    /// Tells those who wait once it has failed too often.
    fn report(&self, failures: u32, reason: String) {
        if failures >= FAILURES {
            self.state.send_replace(State::Broken { reason, until: Instant::now() + delay(failures) });
        }
    }

    /// One process from its start to its end.
    async fn live(&self) -> Result<Over, SessionError> {
        let supervisor = &self.supervisor;
        let common = &supervisor.common;
        let start = Start {
            root: supervisor.root.clone(),
            settings: supervisor.settings.clone(),
            roots: Arc::clone(&common.roots),
            engine: &common.engine,
            limits: common.limits.clone(),
            watcher: Arc::clone(&common.watcher),
            tracker: common.tracker.clone(),
        };
        let begun = Instant::now();
        let (session, mut process, ended) = tokio::select! {
            started = Session::start(start) => started?,
            // Those who waited for it have gone; half-started, it is killed.
            () = self.stop_and_released() => return Ok(Over::Stop),
        };
        supervisor.usage(|usage| {
            usage.process = Some(process.id());
            usage.touch();
        });
        tracing::info!(
            root = %supervisor.root,
            process = process.id(),
            files = session.source_files(),
            milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "the engine is ready"
        );
        self.state.send_replace(State::Ready(Arc::clone(&session)));
        let died = |reason| Over::Died { reason, served: session.has_served() };
        let over = tokio::select! {
            biased;
            why = ended => died(why.map_or_else(|_| "its connection was lost".into(), |why| why.to_string())),
            () = process.wait() => died("its process ended".into()),
            () = session.condemned().cancelled() => Over::Outdated,
            () = self.stop_and_released() => Over::Stop,
        };
        match over {
            Over::Stop => {
                session.say_goodbye(&mut process).await;
            }
            Over::Outdated | Over::Died { .. } => session.condemned().cancel(),
        }
        process.kill().await;
        supervisor.usage(|usage| usage.process = None);
        Ok(over)
    }

    /// Returns once the project is to be stopped, or has been idle for long, and no call is left.
    async fn stop_and_released(&self) {
        let supervisor = &self.supervisor;
        let mut released = supervisor.released.subscribe();
        loop {
            let idle_at = supervisor.usage(|usage| usage.last_used) + supervisor.common.idle;
            let closing = tokio::select! {
                () = supervisor.stop.cancelled() => true,
                () = tokio::time::sleep_until(idle_at) => false,
            };
            let over = supervisor.usage(|usage| {
                let idle = closing || usage.last_used + supervisor.common.idle <= Instant::now();
                usage.closing |= idle && usage.leases == 0;
                idle && usage.leases == 0
            });
            if over {
                self.state.send_replace(State::Stopping);
                return;
            }
            if closing || supervisor.usage(|usage| usage.leases > 0) {
                let _ = released.changed().await;
            }
        }
    }
}

/// Doubles with each failure, with a jitter of a quarter, so that many projects don't start at once.
fn delay(failures: u32) -> Duration {
    let delay = FIRST_DELAY.saturating_mul(1 << failures.min(10)).min(LONGEST_DELAY);
    delay.mul_f64(1.0 - f64::from(random_byte()) / 1024.0)
}

/// A byte that differs between calls, good enough to spread restarts.
fn random_byte() -> u8 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0_u8).to_le_bytes()[0]
}
